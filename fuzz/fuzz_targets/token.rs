//! A token: any text is judged without panic, and nobody without the key makes one; with a right signature over any header
//! and payload, what is accepted reads the same when it is read again, and no rule accepts what has no end.
#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use libfuzzer_sys::fuzz_target;
use palisade_base::Timestamp;
use palisade_identity::token::{Algorithm, Keys, Rules, VerifyingKey};

const SECRET: [u8; 32] = [7; 32];

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    Keys::new([VerifyingKey::shared(Algorithm::Hs256, &SECRET).expect("long enough")]).expect("one")
});

fuzz_target!(|input: (&[u8], &[u8])| {
    let (header, payload) = input;
    if let Ok(text) = std::str::from_utf8(header) {
        assert!(KEYS.verify(text).is_err(), "a forgery");
    }
    let mut token = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), token.as_bytes());
    token.push('.');
    BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
    let Ok(signed) = KEYS.verify(&token) else { return };
    for rules in [Rules::access("i", ["a"]), Rules::external("i", ["a"], ["JWT"], true)] {
        if let Ok(accepted) = rules.check(&signed, Timestamp(1_800_000_000_000)) {
            let claims = accepted.claims();
            assert!(claims.expires_at.is_some() && claims.subject.is_some());
            assert!(claims.audience.iter().any(|audience| audience == "a"));
        }
        assert!(rules.check(&signed, Timestamp(i64::MAX)).is_err(), "nothing lasts");
    }
});
