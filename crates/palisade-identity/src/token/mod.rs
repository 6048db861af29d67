//! Signed tokens: JWS in compact form, JWT claims, JWK and JWK sets.
//!
//! Guide section 1. Sources: RFC 7515 (JWS), 7517 (JWK), 7518 (algorithms), 7519 (JWT), 7638 (thumbprints),
//! 8037 (Ed25519), 8725 (best practice), 9068 (access tokens).
//!
//! A token is accepted in two steps that are never one, because a cache may remember the first and must not remember
//! the second:
//! 1. [`Keys::verify`] proves the signature, and nothing else. The algorithm comes from the key.
//! 2. [`Rules::check`] judges kind, issuer, audience and time, on every request.
//!
//! ```
//! use palisade_base::Timestamp;
//! use palisade_identity::token::{Algorithm, Claims, Keys, Rules, SigningKey, kind};
//!
//! let key = SigningKey::generate(Algorithm::EdDsa)?;
//! let now = Timestamp(1_800_000_000_000);
//! let mut claims = Claims::new("https://api.example.com", "user-7", ["https://api.example.com"]);
//! claims.id = Some("token-1".into());
//! claims.issued_at = Some(1_800_000_000);
//! claims.expires_at = Some(1_800_000_900);
//! let token = key.sign(kind::ACCESS, &claims)?;
//!
//! let keys = Keys::new([key.verifying_key()])?;
//! let signed = keys.verify(token.expose())?;
//! let rules = Rules::access("https://api.example.com", ["https://api.example.com"]);
//! assert_eq!(rules.check(&signed, now)?.claims().subject.as_deref(), Some("user-7"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod claims;
mod json;
mod jwk;
mod keyring;
mod keys;
mod roca;
mod rules;
mod sign;
#[cfg(test)]
mod vectors;

pub use algorithm::Algorithm;
pub use claims::Claims;
pub use jwk::{BadKey, VerifyingKey};
pub use keyring::Keyring;
pub use keys::{BadKeys, Keys, LeftOut, MAX_SET_BYTES, MAX_SET_KEYS, Signed};
pub use rules::{Accepted, Rules, kind};
pub use sign::{CannotSign, SigningKey};

/// The longest token that is looked at, in bytes. A token of 200 groups is near 8 KiB.
pub const MAX_BYTES: usize = 16 * 1024;

/// Why a token is not accepted. For the log; the client learns only that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Longer than [`MAX_BYTES`], or than the caller's smaller limit.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of strict base64url; the JSON serialization and encrypted tokens are among these.
    #[error("not a signed token in compact form")]
    Form,
    /// The header is no strict JSON object: a duplicate member, a wrong type, not UTF-8.
    #[error("the token's header is malformed")]
    Header,
    /// `crit`, `b64`, or a member that belongs to encrypted tokens: extensions that we do not understand.
    #[error("the token's header demands an extension that is not understood")]
    Extension,
    /// `jku`, `x5u`, `x5c` or `jwk`: the token brings its own key.
    #[error("the token's header brings a key of its own")]
    BringsKey,
    /// No key of that `kid`, or none that the token could be of. The one reason to fetch a key set again.
    #[error("no key for the token")]
    UnknownKey,
    /// The token names another algorithm than its key has; `none` is among these.
    #[error("the token names another algorithm than its key")]
    Algorithm,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// The payload is no strict JSON object, or a registered claim has the wrong type.
    #[error("the token's claims are malformed")]
    Claims,
    /// A token of another kind: `typ` differs.
    #[error("the token is of another kind")]
    Kind,
    /// Another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// For another audience.
    #[error("the token is for another audience")]
    Audience,
    /// A claim that this kind of token must have is missing.
    #[error("a claim that this kind of token must have is missing")]
    Missing,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// It lives longer than its verifier allows.
    #[error("the token lives longer than is allowed")]
    TooLongLived,
}
