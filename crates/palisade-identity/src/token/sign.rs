//! Keys that sign.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64URL_NOPAD;
use palisade_base::Secret;
use serde_json::json;

use super::algorithm::{Algorithm, Family};
use super::claims::Claims;
use super::jwk::{BadKey, VerifyingKey};

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotSign {
    /// The key is not one of the algorithm, or is damaged.
    #[error("the private key cannot be used: {0}")]
    Key(#[from] BadKey),
    /// The claims have no `exp`: a token without an end cannot be made.
    #[error("the claims have no end")]
    NoEnd,
    /// The token would be longer than any verifier of ours takes.
    #[error("the token would be too long")]
    TooLong,
    /// The library of cryptography failed, as when it has no entropy.
    #[error("the cryptographic library failed")]
    Library,
}

impl From<aws_lc_rs::error::Unspecified> for CannotSign {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Library
    }
}

/// A private key (or shared secret) with the one algorithm it is for.
pub struct SigningKey {
    pair: Pair,
    verifying: VerifyingKey,
    /// PKCS#8, or the bytes of the shared secret.
    private: Secret<Vec<u8>>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Shared(Box<hmac::Key>),
}

impl SigningKey {
    /// A new key. RSA keys have 3072 bits, and take seconds.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, CannotSign> {
        let private = match algorithm.family() {
            Family::Ed25519 => Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec(),
            Family::Ec(curve) => EcdsaKeyPair::generate(curve.sign)?.to_pkcs8v1()?.as_ref().to_vec(),
            Family::Rsa(_) => {
                let document: Pkcs8V1Der<'_> = RsaKeyPair::generate(KeySize::Rsa3072)?.as_der()?;
                document.as_ref().to_vec()
            }
            Family::Hmac(hash) => {
                let mut secret = vec![0; hash.digest_algorithm().output_len()];
                rand::fill(&mut secret)?;
                secret
            }
        };
        Self::from_private(algorithm, Secret::new(private))
    }

    /// Reads what [`private`](Self::private) gave: PKCS#8, or the bytes of a shared secret. The key's id is its
    /// thumbprint; a shared secret has none until [`with_id`](Self::with_id).
    ///
    /// # Errors
    /// When the key does not fit the algorithm, or is too weak to be accepted by a verifier.
    pub fn from_private(algorithm: Algorithm, private: Secret<Vec<u8>>) -> Result<Self, CannotSign> {
        let bytes = private.expose().as_slice();
        let malformed = |_| BadKey::Malformed;
        let (pair, verifying) = match algorithm.family() {
            Family::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(malformed)?;
                let public = VerifyingKey::ed25519(pair.public_key().as_ref())?;
                (Pair::Ed25519(pair), public)
            }
            Family::Ec(curve) => {
                let pair = EcdsaKeyPair::from_pkcs8(curve.sign, bytes).map_err(malformed)?;
                let public = VerifyingKey::ec(algorithm, pair.public_key().as_ref())?;
                (Pair::Ec(pair), public)
            }
            Family::Rsa(_) => {
                let pair = RsaKeyPair::from_pkcs8(bytes).map_err(malformed)?;
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let n = n.big_endian_without_leading_zero();
                let public = VerifyingKey::rsa(algorithm, n, e.big_endian_without_leading_zero())?;
                (Pair::Rsa(Box::new(pair)), public)
            }
            Family::Hmac(hash) => {
                (Pair::Shared(Box::new(hmac::Key::new(hash, bytes))), VerifyingKey::shared(algorithm, bytes)?)
            }
        };
        let verifying = match verifying.thumbprint() {
            Some(id) => verifying.with_id(&id),
            None => verifying,
        };
        Ok(Self { pair, verifying, private })
    }

    /// The same key under another id.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.verifying = self.verifying.with_id(id);
        self
    }

    /// What checks its signatures.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.verifying.clone()
    }

    /// The private key itself, for the store that encrypts it: PKCS#8, or the bytes of a shared secret.
    pub const fn private(&self) -> &Secret<Vec<u8>> {
        &self.private
    }

    /// Makes a token of a [`kind`](super::kind); an empty kind leaves `typ` out.
    ///
    /// # Errors
    /// When the claims have no `exp`, or the token would be longer than is accepted.
    pub fn sign(&self, kind: &str, claims: &Claims) -> Result<Secret<String>, CannotSign> {
        if claims.expires_at.is_none() {
            return Err(CannotSign::NoEnd);
        }
        let mut header = json!({ "alg": self.verifying.algorithm().name() });
        if !kind.is_empty() {
            header["typ"] = kind.into();
        }
        if let Some(id) = self.verifying.id() {
            header["kid"] = id.into();
        }
        let token = self.compact(header.to_string().as_bytes(), claims.write().to_string().as_bytes())?;
        if token.len() > super::MAX_BYTES {
            return Err(CannotSign::TooLong);
        }
        Ok(Secret::new(token))
    }

    fn compact(&self, header: &[u8], payload: &[u8]) -> Result<String, CannotSign> {
        let mut token = BASE64URL_NOPAD.encode(header);
        token.push('.');
        BASE64URL_NOPAD.encode_append(payload, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(token)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, CannotSign> {
        Ok(match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message)?.as_ref().to_vec(),
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding = self.verifying.algorithm().rsa_encoding().ok_or(BadKey::Mismatch)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
                signature
            }
            Pair::Shared(key) => hmac::sign(key, message).as_ref().to_vec(),
        })
    }

    /// For tests of the verifier: any header, any payload, a right signature.
    #[cfg(test)]
    pub(crate) fn sign_raw(&self, header: &[u8], payload: &[u8]) -> String {
        self.compact(header, payload).expect("signed")
    }
}

/// Never the private key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.verifying).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Keys, kind};

    #[test]
    fn every_algorithm_signs_what_only_it_verifies() {
        let mut claims = Claims::new("i", "s", ["a"]);
        assert_eq!(
            SigningKey::generate(Algorithm::EdDsa).expect("a key").sign("", &claims).err(),
            Some(CannotSign::NoEnd)
        );
        claims.expires_at = Some(2_000_000_000);
        let rsa = SigningKey::generate(Algorithm::Rs256).expect("a key");
        for algorithm in Algorithm::ALL {
            let key = match algorithm.family() {
                Family::Rsa(_) => SigningKey::from_private(algorithm, rsa.private().clone()),
                _ => SigningKey::generate(algorithm),
            };
            let key = key.expect("a key");
            let again = SigningKey::from_private(algorithm, key.private().clone()).expect("as it was stored");
            let token = again.sign(kind::ACCESS, &claims).expect("signed");
            let keys = Keys::new([key.verifying_key()]).expect("one");
            let signed = keys.verify(token.expose()).expect("verified");
            assert_eq!(signed.claims.as_ref(), Ok(&claims), "{algorithm}");
            let (text, mut changed) = (token.expose(), token.expose().clone());
            let last = if text.ends_with('A') { 'Q' } else { 'A' };
            changed.pop();
            changed.push(last);
            assert!(keys.verify(&changed).is_err(), "{algorithm}");
            assert!(!format!("{key:?} {token:?}").contains(text.as_str()), "{algorithm}");
            let other = Algorithm::ALL[(algorithm as usize + 1) % Algorithm::ALL.len()];
            let stranger = SigningKey::from_private(other, key.private().clone());
            if let Ok(stranger) = stranger {
                let token = stranger.sign(kind::ACCESS, &claims).expect("signed");
                assert!(keys.verify(token.expose()).is_err(), "{other} at {algorithm}");
            }
        }
    }

    #[test]
    fn short_secrets_do_not_sign() {
        let short = SigningKey::from_private(Algorithm::Hs256, Secret::new(b"secret".to_vec()));
        assert_eq!(short.err(), Some(CannotSign::Key(BadKey::Short)));
    }
}
