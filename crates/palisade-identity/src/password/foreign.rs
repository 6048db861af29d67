//! Checks of hashes that other libraries made, as those libraries make them.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use data_encoding::{BASE64, Encoding, HEXLOWER, Specification};
use zeroize::Zeroizing;

#[derive(Clone)]
pub(super) enum Foreign {
    Bcrypt(Bcrypt),
    Pbkdf2(Pbkdf2),
    Scrypt(Scrypt),
}

#[derive(Clone)]
pub(super) struct Bcrypt {
    pub(super) cost: u32,
    pub(super) salt: [u8; 16],
    pub(super) hash: Vec<u8>,
    pub(super) prepare: Prepare,
}

/// What is done to a password before bcrypt, which reads 72 bytes and ends at a NUL.
#[derive(Clone)]
pub(super) enum Prepare {
    Nothing,
    /// Django.
    Sha256Hex,
    /// passlib, before its version 2.
    Sha256Base64,
    /// passlib: keyed with the salt's text.
    HmacBase64(String),
}

#[derive(Clone)]
pub(super) struct Pbkdf2 {
    pub(super) digest: Digest,
    pub(super) rounds: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Digest {
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

#[derive(Clone)]
pub(super) struct Scrypt {
    pub(super) log_n: u8,
    pub(super) r: u32,
    pub(super) p: u32,
    pub(super) salt: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl Scrypt {
    pub(super) fn memory_bytes(&self) -> u64 {
        128 * u64::from(self.r) * ((1 << self.log_n) + u64::from(self.p))
    }
}

impl Foreign {
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(bcrypt) => bcrypt.verify(password),
            Self::Pbkdf2(Pbkdf2 { digest, rounds, salt, hash }) => {
                let algorithm = match digest {
                    Digest::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
                    Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
                    Digest::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
                };
                pbkdf2::verify(algorithm, *rounds, salt, password, hash).is_ok()
            }
            Self::Scrypt(Scrypt { log_n, r, p, salt, hash }) => {
                let mut out = vec![0; hash.len()];
                let Ok(params) = scrypt::Params::new(*log_n, *r, *p) else { return false };
                scrypt::scrypt(password, salt, &params, &mut out).is_ok() && equal(&out, hash)
            }
        }
    }
}

impl Bcrypt {
    fn verify(&self, password: &[u8]) -> bool {
        let prepared = Zeroizing::new(match &self.prepare {
            // The libraries refuse a NUL, so no such password was ever stored; bcrypt in C would end there.
            Prepare::Nothing if password.contains(&0) => return false,
            Prepare::Nothing => password.to_vec(),
            Prepare::Sha256Hex => HEXLOWER.encode(digest::digest(&digest::SHA256, password).as_ref()).into_bytes(),
            Prepare::Sha256Base64 => BASE64.encode(digest::digest(&digest::SHA256, password).as_ref()).into_bytes(),
            Prepare::HmacBase64(salt) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes());
                BASE64.encode(hmac::sign(&key, password).as_ref()).into_bytes()
            }
        });
        // With its end mark, and cut after 72 bytes, as the library did that made the hash.
        let mut key = Zeroizing::new(prepared.to_vec());
        key.push(0);
        key.truncate(72);
        let out = bcrypt::bcrypt(self.cost, self.salt, &key);
        equal(&out[..23], &self.hash)
    }
}

pub(super) fn equal(ours: &[u8], stored: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(ours, stored).is_ok()
}

/// bcrypt's own base64. Unused bits are not looked at: implementations left them as they came.
pub(super) fn bcrypt_base64(text: &str) -> Option<Vec<u8>> {
    static ENCODING: LazyLock<Option<Encoding>> = LazyLock::new(|| {
        let mut specification = Specification::new();
        specification.symbols.push_str("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
        specification.check_trailing_bits = false;
        specification.encoding().ok()
    });
    ENCODING.as_ref()?.decode(text.as_bytes()).ok()
}
