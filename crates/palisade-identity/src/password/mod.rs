//! Passwords: hashed with argon2id, read from the formats of others, judged when they are set.
//!
//! Guide section 4. Sources: RFC 9106 (argon2), OWASP password storage cheat sheet, NIST 800-63B-4 section 3.1.1.
//!
//! - A [`Password`] is normalised once (NFKC) and never cut.
//! - [`Hasher`] makes and checks hashes; what others made ([`Stored::parse`]) is checked as they would have, and
//!   [`Verdict::Right`] says when to store a new hash instead.
//! - [`Policy`] judges a password when it is set, never at login.
//! - [`pool`] bounds how much of this is done at a time.
//!
//! Foreign hashes cost what they cost: until its first login here, an imported account answers in the time of its old
//! scheme. An account that does not exist costs what one of our own hashes costs; see [`Hasher::verify`].

mod argon;
mod breached;
mod common;
mod foreign;
mod hasher;
mod policy;
pub mod pool;
mod stored;

pub use argon::{BadCost, Cost};
pub use breached::Breached;
pub use hasher::{BadPepper, CannotHash, Hasher, Peppers, Verdict};
use palisade_base::Secret;
pub use policy::{Policy, Weakness};
pub use stored::{BadHash, Stored};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// The longest password that is looked at, in bytes: 5,000 characters of any script, and more.
pub const MAX_BYTES: usize = 32 * 1024;

/// What somebody typed.
#[derive(Debug, Clone)]
pub struct Password {
    typed: Secret<String>,
    /// Only where normalisation changes something.
    normal: Option<Secret<String>>,
}

/// A password longer than [`MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password is longer than {MAX_BYTES} bytes")]
pub struct TooLong;

impl Password {
    /// Takes a password as it was typed. Nothing is cut, trimmed or case-folded; NFKC makes one password of the ways in
    /// which keyboards and systems write it.
    ///
    /// # Errors
    /// When it is longer than [`MAX_BYTES`]. At login that is a wrong password like any other: go on with `None` in
    /// [`Hasher::verify`], so that it takes as long.
    pub fn new(typed: &str) -> Result<Self, TooLong> {
        if typed.len() > MAX_BYTES {
            return Err(TooLong);
        }
        let normal = match is_nfkc_quick(typed.chars()) {
            IsNormalized::Yes => None,
            _ => Some(Secret::new(typed.nfkc().collect())),
        };
        Ok(Self { typed: Secret::new(typed.to_owned()), normal })
    }

    /// As our own hashes take it.
    pub(crate) fn normal(&self) -> &str {
        self.normal.as_ref().unwrap_or(&self.typed).expose()
    }

    /// As the libraries took it whose hashes are imported: none of them normalises.
    pub(crate) fn typed(&self) -> &str {
        self.typed.expose()
    }
}
