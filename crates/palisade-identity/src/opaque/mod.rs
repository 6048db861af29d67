//! Secrets that machines make and that say nothing: session ids, one-time links, authorization codes, API keys.
//!
//! Guide sections 1 and 10. Each holds 256 random bits, so a plain SHA-256 is enough to store it, and no slow hash is
//! needed (spec section 4). The secret exists in memory between the request that brings it and the look-up of its hash;
//! a dump of the database holds no usable one.
//!
//! The purpose is part of the type and of the hash: a reset link does not verify an e-mail address, whatever a caller
//! does with its text.
//!
//! ```
//! use palisade_identity::opaque::Session;
//!
//! let session = Session::generate()?;
//! let stored = session.stored();
//! let cookie = session.reveal();
//! let back = Session::parse(cookie.expose()).expect("what the browser sends back");
//! assert!(stored.matches(&back));
//! assert_eq!(format!("{session:?}"), "[redacted]");
//! # Ok::<(), palisade_identity::opaque::NoEntropy>(())
//! ```
//!
//! They cannot be printed:
//! ```compile_fail
//! println!("{}", palisade_identity::opaque::Session::generate().unwrap());
//! ```
//! nor taken for one another:
//! ```compile_fail
//! use palisade_identity::opaque::{ResetLink, VerifyLink};
//! let stored = ResetLink::generate().unwrap().stored();
//! stored.matches(&VerifyLink::generate().unwrap());
//! ```

mod api_key;
pub(crate) mod sealed;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

pub use api_key::{ApiKey, BadApiKey, StoredKey};
use aws_lc_rs::{constant_time, digest, rand};
use data_encoding::BASE64URL_NOPAD;
use palisade_base::{Secret, Timestamp};

/// Bytes of every secret.
const BYTES: usize = 32;

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoEntropy;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

/// SHA-256 of parts under a label. Lengths go in, so that no two lists of parts are one text.
pub(crate) fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [label.as_bytes()].iter().chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What an opaque secret is for.
pub trait Purpose {
    /// The label of its hashes. Never changed: it would end every stored secret.
    const LABEL: &'static str;
    /// What its text begins with, for people and scanners that find it where it should not be.
    const PREFIX: &'static str;
}

/// A secret of one purpose.
pub struct Opaque<P>(Secret<[u8; BYTES]>, PhantomData<fn() -> P>);

/// The hash of a secret: what is stored, and what a secret is found by.
pub struct Stored<P>([u8; 32], PhantomData<fn() -> P>);

impl<P: Purpose> Opaque<P> {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, NoEntropy> {
        Ok(Self(Secret::new(random()?), PhantomData))
    }

    /// Reads the text of one. Only its exact spelling is read.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(P::PREFIX)?.as_bytes();
        // 43 characters for 32 bytes: nothing longer is decoded.
        if encoded.len() != BYTES.div_ceil(3) * 4 - 1 {
            return None;
        }
        let mut bytes = [0; BYTES];
        BASE64URL_NOPAD.decode_mut(encoded, &mut bytes).ok()?;
        Some(Self(Secret::new(bytes), PhantomData))
    }

    /// Its text, for the one answer, cookie or mail that carries it.
    pub fn reveal(&self) -> Secret<String> {
        Secret::new(format!("{}{}", P::PREFIX, BASE64URL_NOPAD.encode(self.0.expose())))
    }

    /// Its hash.
    pub fn stored(&self) -> Stored<P> {
        Stored(hash(P::LABEL, &[self.0.expose()]), PhantomData)
    }

    /// Encrypts the one that takes its place, so that only this one opens it.
    ///
    /// # Errors
    /// When the system gives no random bytes, or the cryptographic library fails.
    pub fn seal(&self, successor: &Self) -> Result<Vec<u8>, NoEntropy> {
        self.opener().seal(successor.0.expose()).ok_or(NoEntropy)
    }

    /// Opens what [`seal`](Self::seal) made.
    pub fn open(&self, sealed: &[u8]) -> Option<Self> {
        self.opener().open(sealed).map(|bytes| Self(Secret::new(bytes), PhantomData))
    }

    fn opener(&self) -> sealed::Opener<'_> {
        sealed::Opener { label: P::LABEL.as_bytes(), secret: self.0.expose(), hash: self.stored().0 }
    }
}

impl<P> fmt::Debug for Opaque<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<P: Purpose> Stored<P> {
    /// As it was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes, PhantomData)
    }

    /// As it is stored, and as the key of a look-up.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is the hash of this secret. Constant time.
    pub fn matches(&self, presented: &Opaque<P>) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &presented.stored().0).is_ok()
    }
}

impl<P> Clone for Stored<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Stored<P> {}

/// The first bytes only, enough to find a record in a log.
impl<P> fmt::Debug for Stored<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Stored({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

macro_rules! purposes {
    ($($(#[$doc:meta])* $name:ident = $marker:ident, $label:literal, $prefix:literal;)*) => {
        /// The purposes, as types without values.
        pub mod purpose {
            use super::Purpose;
            $(
                $(#[$doc])*
                #[derive(Debug)]
                pub enum $marker {}
                impl Purpose for $marker {
                    const LABEL: &'static str = $label;
                    const PREFIX: &'static str = $prefix;
                }
            )*
        }
        $($(#[$doc])* pub type $name = Opaque<purpose::$marker>;)*
        #[cfg(test)]
        const LABELS: &[&str] = &[$($label),*];
    };
}

purposes! {
    /// The id of a session, in its cookie.
    Session = ForSession, "palisade session v1", "";
    /// An authorization code (RFC 6749 section 4.1.2).
    Code = ForCode, "palisade authorization code v1", "palc_";
    /// The link by which the first administrator is made.
    SetupLink = ForSetup, "palisade setup link v1", "pals_";
    /// The link that sets a new password.
    ResetLink = ForReset, "palisade reset link v1", "palp_";
    /// The link that proves an e-mail address.
    VerifyLink = ForVerify, "palisade verification link v1", "palv_";
    /// The link that moves an account to another e-mail address.
    EmailLink = ForEmail, "palisade e-mail change link v1", "palm_";
    /// What the password step of a login with a second factor gives: good for finishing that login only.
    Pending = ForPending, "palisade pending login v1", "palw_";
    /// The secret of a client of OAuth.
    ClientSecret = ForClient, "palisade client secret v1", "plcs_";
    /// What a device shows that an account was used on it before. It opens nothing; it keeps strangers from locking the
    /// account there.
    Device = ForDevice, "palisade device v1", "pald_";
}

/// What is stored of a secret that works once: its hash, its end, and whether it was used.
pub struct Link<P> {
    /// The hash of the secret.
    pub stored: Stored<P>,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// What came of a one-time secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Redeemed {
    /// It is good, and used from now on: store `used_at` in the same transaction as what it allowed.
    Good,
    /// Not this secret, or past its end.
    Refused,
    /// It was good once. For an authorization code, what the first use gave has to be revoked (RFC 6749 section 4.1.2).
    Again,
}

impl<P: Purpose> Link<P> {
    /// A new secret and what to store of it.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn issue(now: Timestamp, life: Duration) -> Result<(Opaque<P>, Self), NoEntropy> {
        let secret = Opaque::generate()?;
        let stored = secret.stored();
        Ok((secret, Self { stored, expires_at: now.plus(life), used_at: None }))
    }

    /// Uses it.
    pub fn redeem(&mut self, presented: &Opaque<P>, now: Timestamp) -> Redeemed {
        if !self.stored.matches(presented) {
            return Redeemed::Refused;
        }
        if self.used_at.is_some() {
            return Redeemed::Again;
        }
        if now >= self.expires_at {
            return Redeemed::Refused;
        }
        self.used_at = Some(now);
        Redeemed::Good
    }
}

impl<P> fmt::Debug for Link<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Link");
        debug
            .field("stored", &self.stored)
            .field("expires_at", &self.expires_at)
            .field("used_at", &self.used_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use Timestamp;

    use super::*;

    #[test]
    fn text_has_one_spelling() {
        let link = ResetLink::generate().expect("entropy");
        let text = link.reveal();
        let text = text.expose().as_str();
        assert_eq!(text.len(), 5 + 43);
        assert!(link.stored().matches(&ResetLink::parse(text).expect("its text")));
        let last = text.chars().last().expect("a character");
        let twin = (b'A'..=b'z').map(char::from).find(|c| c.is_ascii_alphanumeric() && *c != last).expect("another");
        for wrong in [
            String::new(),
            text[..text.len() - 1].into(),
            format!("{text}="),
            format!("{text}A"),
            format!(" {text}"),
            format!("{text}\n"),
            text.replacen("palp_", "palv_", 1),
            text.replacen("palp_", "", 1),
            text.to_uppercase(),
            "palp_".into(),
            format!("palp_{}é", &text[5..46]),
        ] {
            assert!(ResetLink::parse(&wrong).is_none(), "{wrong}");
        }
        let other = format!("{}{twin}", &text[..text.len() - 1]);
        assert!(ResetLink::parse(&other).is_none_or(|other| !link.stored().matches(&other)));
    }

    #[test]
    fn purposes_do_not_meet() {
        let bytes = [7; BYTES];
        let stored: HashSet<[u8; 32]> = LABELS.iter().map(|label| hash(label, &[&bytes])).collect();
        assert_eq!(stored.len(), LABELS.len());
        assert_ne!(hash("a", &[b"bc", b"d"]), hash("a", &[b"b", b"cd"]));
    }

    #[test]
    fn a_successor_opens_with_the_one_before_only() {
        let [first, next, stranger] = [(); 3].map(|()| Session::generate().expect("entropy"));
        let sealed = first.seal(&next).expect("sealed");
        assert!(next.stored().matches(&first.open(&sealed).expect("its own")));
        assert!(stranger.open(&sealed).is_none() && next.open(&sealed).is_none());
        assert_ne!(sealed, first.seal(&next).expect("sealed"));
        for place in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[place] ^= 1;
            assert!(first.open(&bent).is_none(), "byte {place}");
            assert!(first.open(&sealed[..place]).is_none(), "{place} bytes");
        }
        let raw = next.0.expose();
        assert!(!sealed.windows(8).any(|window| raw.windows(8).any(|secret| secret == window)));
    }

    #[test]
    fn nothing_prints() {
        let (secret, link) = Link::<purpose::ForSetup>::issue(Timestamp(0), Duration::from_secs(900)).expect("entropy");
        let text = secret.reveal();
        let shown = format!("{secret:?} {link:?} {:?} {text:?}", secret.stored());
        assert!(!shown.contains(&text.expose()[5..15]), "{shown}");
        assert!(shown.len() < 250, "{shown}");
    }

    #[test]
    fn works_once_and_in_time() {
        let issue = || Link::<purpose::ForSetup>::issue(Timestamp(0), Duration::from_secs(900)).expect("entropy");
        let (secret, mut link) = issue();
        assert_eq!(link.redeem(&issue().0, Timestamp(1)), Redeemed::Refused, "another");
        assert_eq!(link.redeem(&secret, Timestamp(899_999)), Redeemed::Good);
        assert_eq!(link.redeem(&secret, Timestamp(899_999)), Redeemed::Again);
        assert_eq!(link.redeem(&secret, Timestamp(9_999_999)), Redeemed::Again);
        let (secret, mut link) = issue();
        assert_eq!(link.redeem(&secret, Timestamp(900_000)), Redeemed::Refused);
        assert_eq!(link.used_at, None);
    }
}
