//! What keeps a service from doing what it was asked, whoever asks.

use std::time::Duration;

use palisade_store::Error as StoreError;

use crate::opaque::NoEntropy;
use crate::password::{CannotHash, pool::Shed};
use crate::refresh::CannotRefresh;
use crate::token::CannotSign;

/// Nobody's mistake but the operator's, the machine's or ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much hashing is asked for: 503 with `Retry-After`.
    #[error("too many logins wait already")]
    Busy {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A hash cannot be made or checked.
    #[error(transparent)]
    Hash(#[from] CannotHash),
    /// No random bytes, or the cryptographic library failed.
    #[error("the cryptographic library failed, or gave no random bytes")]
    Cryptography,
    /// There is no key to sign with.
    #[error("there is no signing key")]
    NoSigningKey,
    /// What was stored cannot be read: written by a later version, or damaged.
    #[error("a stored {0} cannot be read")]
    Damaged(&'static str),
}

impl Trouble {
    /// Whether the database is away: `when_away` decides.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Store(StoreError::Away(_)))
    }
}

impl From<NoEntropy> for Trouble {
    fn from(_: NoEntropy) -> Self {
        Self::Cryptography
    }
}

impl From<CannotRefresh> for Trouble {
    fn from(_: CannotRefresh) -> Self {
        Self::Cryptography
    }
}

impl From<CannotSign> for Trouble {
    fn from(_: CannotSign) -> Self {
        Self::Cryptography
    }
}

impl From<Shed> for Trouble {
    fn from(shed: Shed) -> Self {
        match shed {
            Shed::Full { retry_after } => Self::Busy { retry_after },
            Shed::TooLarge => Self::Hash(CannotHash::Machine),
            Shed::Dropped => Self::Busy { retry_after: Duration::from_secs(5) },
        }
    }
}
