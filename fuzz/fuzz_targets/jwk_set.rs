//! A key set: read without panic, within its limits, and what is published of it reads as the same keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_identity::token::{Keys, MAX_SET_KEYS, VerifyingKey};

fuzz_target!(|input: &[u8]| {
    let Ok((keys, _)) = Keys::from_jwk_set(input, None) else { return };
    assert!(keys.iter().count() <= MAX_SET_KEYS);
    for key in keys.iter() {
        let Some(jwk) = key.to_jwk() else { continue };
        let again = VerifyingKey::from_jwk(jwk.to_string().as_bytes(), None).expect("its own JWK");
        assert_eq!((again.algorithm(), again.id(), again.thumbprint()), (key.algorithm(), key.id(), key.thumbprint()));
    }
});
