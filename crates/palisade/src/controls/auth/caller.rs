//! Who sends a request, as far as it was proved.

use palisade_base::{Rate, Timestamp};
use palisade_identity::service::{Account, Credential};

use crate::refusal::Refusal;

/// Who sends a request. Evidence: there is a [`Caller`] only where the identification step accepted a credential.
#[derive(Debug, Default)]
pub enum Identity {
    /// Nobody that is known.
    #[default]
    Nobody,
    /// Somebody, by the one credential of the request.
    Caller(Box<Caller>),
    /// Nobody, since the credential of the request was not accepted, or could not be looked at: with this the request was
    /// refused where a login is asked for.
    Rejected(Refusal),
}

impl Identity {
    /// The caller, where there is one.
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Nobody | Self::Rejected(_) => None,
            Self::Caller(caller) => Some(caller),
        }
    }
}

/// How a caller was identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// A session cookie: the one credential that a browser attaches by itself.
    Session,
    /// An access token.
    Token,
    /// An API key.
    Key,
}

impl By {
    /// Whether pages of other sites can cause requests with it, so that a proof against forgery is needed.
    pub const fn is_ambient(self) -> bool {
        matches!(self, Self::Session)
    }

    /// As in the assertion that the application gets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
            Self::Key => "key",
        }
    }
}

/// Who sends a request, and by which credential. Made by the identification step and nobody else.
#[derive(Debug)]
pub struct Caller {
    proved: palisade_identity::service::Caller,
    by: By,
    subject: Box<str>,
}

impl Caller {
    pub(super) fn new(proved: palisade_identity::service::Caller) -> Self {
        let by = match proved.credential() {
            Credential::Token { .. } | Credential::Issued { .. } => By::Token,
            Credential::Key { .. } => By::Key,
            // A kind that comes later is at first treated as what needs most proof.
            _ => By::Session,
        };
        let subject = match (proved.account(), proved.client()) {
            (Some(account), _) => account.id.to_string().into(),
            (None, Some(client)) => client.into(),
            (None, None) => Box::default(),
        };
        Self { proved, by, subject }
    }

    /// By which credential.
    pub const fn by(&self) -> By {
        self.by
    }

    /// The account, with its roles and permissions as they are now; none where a client acts for itself.
    pub fn account(&self) -> Option<&Account> {
        self.proved.account().map(AsRef::as_ref)
    }

    /// What stands for the caller in `X-Forwarded-User`, limits and logs: the user's id, or the client's.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The client that a token was given to.
    pub fn client(&self) -> Option<&str> {
        self.proved.client()
    }

    /// What the credential is limited to, where that is less than its user may do: a key, a token of somebody's client, one
    /// that was asked for with scopes.
    pub fn scopes(&self) -> Option<&[String]> {
        self.proved.is_narrow().then(|| self.proved.scopes())
    }

    /// What the token of another issuer says besides what every token does.
    pub fn claims(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        self.proved.claims()
    }

    /// A claim of such a token that is a text.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims()?.get(name)?.as_str()
    }

    /// The issuer of a token that is not Palisade's own, as the policy calls it.
    pub fn issuer(&self) -> Option<&str> {
        self.proved.issuer()
    }

    /// The id of the API key.
    pub fn key_id(&self) -> Option<&str> {
        match self.proved.credential() {
            Credential::Key { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The limit of its own that the API key has.
    pub fn key_rate(&self) -> Option<Rate> {
        match self.proved.credential() {
            Credential::Key { rate, .. } => *rate,
            _ => None,
        }
    }

    /// The id of the session.
    pub fn session_id(&self) -> Option<palisade_store::Uuid> {
        match self.proved.credential() {
            Credential::Session { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// When a person last proved who they are for this credential. Only sessions know.
    pub fn logged_in(&self) -> Option<Timestamp> {
        match self.proved.credential() {
            Credential::Session { authenticated_at, .. } => Some(*authenticated_at),
            _ => None,
        }
    }

    /// What the services of identity proved.
    pub const fn proved(&self) -> &palisade_identity::service::Caller {
        &self.proved
    }
}
