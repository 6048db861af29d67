//! Who is asking, once it was proved.

use std::sync::Arc;
use std::time::Duration;

use palisade_base::{Rate, Timestamp};
use palisade_store::Uuid;

use super::accounts::Account;
use crate::token::Signed;

/// Whoever a valid credential belongs to, and what that credential is good for. Made only where one was checked; not to
/// be kept beyond the request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) account: Option<Arc<Account>>,
    pub(super) credential: Credential,
    pub(super) scopes: Arc<[String]>,
    pub(super) narrow: bool,
    /// The token of another issuer.
    pub(super) claims: Option<Arc<Signed>>,
}

/// By what somebody proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// A session of a browser.
    Session {
        /// The session.
        id: Uuid,
        /// When its user last proved who they are.
        authenticated_at: Timestamp,
    },
    /// An access token.
    Token {
        /// Its own name.
        id: Uuid,
        /// The family of refresh tokens or the session that it comes from.
        grant: Option<Uuid>,
        /// The client that it was given to; `None` for a password login.
        client: Option<String>,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// An access token of another issuer.
    Issued {
        /// What the policy calls that issuer.
        issuer: Arc<str>,
        /// Its own name, out of the whole token.
        id: Uuid,
        /// When it was made, in milliseconds, where it says so.
        issued_at: Option<i64>,
        /// When it ends, or its issuer does.
        expires_at: Timestamp,
    },
    /// An API key.
    Key {
        /// Its id.
        id: String,
        /// Its own rate limit.
        rate: Option<Rate>,
    },
}

impl Caller {
    /// The account; `None` for a client that acts for itself.
    pub const fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// By what it was proved.
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What the credential is limited to; without meaning unless it [is narrow](Self::is_narrow).
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Whether the credential is narrower than its user: an API key, a third party's token, a token with a requested
    /// scope. It carries its scopes and nothing else: it passes a route only where that names a scope it has, and roles
    /// are demanded on top.
    pub const fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Whether the credential covers a scope. One that is not narrow covers all of them; what its user may is for roles
    /// and permissions to say.
    pub fn covers(&self, scope: &str) -> bool {
        !self.narrow || self.scopes.iter().any(|known| known == scope)
    }

    /// The client that the credential was given to, where it was given to one.
    pub fn client(&self) -> Option<&str> {
        match &self.credential {
            Credential::Token { client, .. } => client.as_deref(),
            _ => None,
        }
    }

    /// The account, if its user proved who they are in this session within a time: what managing keys, factors,
    /// passwords, addresses, sessions, consents and users needs. No token and no key ever is.
    pub fn fresh(&self, now: Timestamp, within: Duration) -> Option<&Arc<Account>> {
        match &self.credential {
            Credential::Session { authenticated_at, .. } if now < authenticated_at.plus(within) => {
                self.account.as_ref()
            }
            _ => None,
        }
    }
}

/// Why a credential was refused. For the log; the client learns only that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotValid {
    /// The token's own fault: signature, issuer, audience, time, form.
    #[error(transparent)]
    Token(#[from] crate::token::Refused),
    /// Nothing of that secret or id exists (any more).
    #[error("unknown, ended or revoked")]
    Unknown,
    /// It was revoked, or what it came from has ended.
    #[error("revoked")]
    Revoked,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// The account is disabled.
    #[error("the account is disabled")]
    Disabled,
    /// A secret that was replaced came when or where it should not have, and its session has ended. A security event.
    #[error("replaced, and brought again")]
    Replayed {
        /// Whose.
        user: Uuid,
        /// The session.
        session: Uuid,
    },
    /// Not the spelling of such a credential.
    #[error("malformed")]
    Malformed,
}

/// Why nobody was recognised: the credential, or the database behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognised {
    /// 401.
    #[error(transparent)]
    NotValid(#[from] NotValid),
    /// It could not be checked: `when_away` decides.
    #[error(transparent)]
    Trouble(#[from] super::error::Trouble),
}

impl From<palisade_store::Error> for Unrecognised {
    fn from(error: palisade_store::Error) -> Self {
        Self::Trouble(error.into())
    }
}
