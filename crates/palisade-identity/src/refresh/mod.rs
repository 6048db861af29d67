//! Refresh tokens: each works once, and the use of a spent one ends them all.
//!
//! Guide section 10. Sources: RFC 6749 section 6, RFC 9700 section 4.14 (rotation), spec section 10.
//!
//! A [`Family`] is what follows from one login: a chain of tokens of which one is current. It is a value: [`present`]
//! takes a token and gives a verdict and the family's next value, without I/O. Who stores it replaces it by
//! compare-and-swap on [`version`](Family::version), and on a conflict reads again and asks again, so that of any
//! number of simultaneous refreshes one rotates and the others are judged by what it left.
//!
//! # Grace
//! Two tabs refresh at once, or an answer is lost: then a spent token comes again, from somebody who may go on. Within
//! 10 s it gets the same successor again, if that has not been used, at most 64 times, and only for a public client
//! without DPoP at the same address and of the same kind. Everything else is reuse: the family ends, and an event is
//! raised.
//!
//! The successor that is given again is kept encrypted under a key that only the presented (spent) token yields. So a
//! dump of the store holds hashes of tokens and a text that needs a token that is not in it.
//!
//! # Why a spent token is known
//! A token names its family and its generation, under a tag that only the family's own key makes. Old tokens are thus
//! recognised without keeping their hashes, and a made-up token can neither refresh nor end a family.
//!
//! [`present`]: Family::present

mod family;
#[cfg(test)]
mod tests;
mod token;

pub use family::{Binding, End, Family, Lifetimes, Outcome, Place, Replay};
pub use token::RefreshToken;

/// How long a spent token may come again.
pub const GRACE: std::time::Duration = std::time::Duration::from_secs(10);
/// How often it may.
pub const GRACE_TIMES: u32 = 64;

/// A family cannot go on: no random bytes, or what is stored of it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotRefresh {
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoEntropy,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Library,
}

impl From<crate::opaque::NoEntropy> for CannotRefresh {
    fn from(_: crate::opaque::NoEntropy) -> Self {
        Self::NoEntropy
    }
}
