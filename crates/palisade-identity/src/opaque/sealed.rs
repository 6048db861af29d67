//! A secret that only the one before it opens: how a successor can be given again without being stored.
//!
//! The key is drawn from the earlier secret, of which the store has the hash alone. So a dump of it holds nothing that
//! could be used.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf;
use zeroize::Zeroize;

use super::random;

const NONCE_BYTES: usize = 12;

/// What is sealed, and for whom: `label` says what sort of secret it is, `hash` which one opens it.
pub(crate) struct Opener<'s> {
    pub(crate) label: &'static [u8],
    pub(crate) secret: &'s [u8],
    pub(crate) hash: [u8; 32],
}

impl Opener<'_> {
    /// Encrypts a successor. `None`: no random bytes, or the cryptographic library failed.
    pub(crate) fn seal(&self, successor: &[u8]) -> Option<Vec<u8>> {
        // The key is for this one text; a nonce all the same, for two instances may race for the same secret. GCM-SIV
        // would stand even an equal one.
        let nonce = random::<NONCE_BYTES>().ok()?;
        let mut text = successor.to_vec();
        let sealed = self.key().and_then(|key| {
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.hash), &mut text)
        });
        if sealed.is_err() {
            text.zeroize();
            return None;
        }
        Some([nonce.as_slice(), &text].concat())
    }

    /// Opens what [`seal`](Self::seal) made.
    pub(crate) fn open<const N: usize>(&self, sealed: &[u8]) -> Option<[u8; N]> {
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let bytes = self.key().ok()?.open_in_place(nonce, Aad::from(self.hash), &mut text).ok()?;
        let successor = <[u8; N]>::try_from(&*bytes).ok();
        text.zeroize();
        successor
    }

    fn key(&self) -> Result<LessSafeKey, Unspecified> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, self.label);
        let mut key = [0; 32];
        salt.extract(self.secret).expand(&[], hkdf::HKDF_SHA256)?.fill(&mut key)?;
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, &key);
        key.zeroize();
        unbound.map(LessSafeKey::new)
    }
}
