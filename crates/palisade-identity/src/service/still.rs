//! Whether a credential is still good: for streams that go on long after it was accepted.

use palisade_store::{keys, sessions};

use super::Identity;
use super::caller::{Caller, Credential, NotValid, Unrecognised};
use super::made_at;

impl Identity {
    /// Whether the credential of somebody who was recognised is still good, with the account as it is now. Of a session
    /// its absolute end counts, for an open stream is a use of it.
    ///
    /// # Errors
    /// [`Unrecognised`].
    pub async fn still(&self, caller: &Caller) -> Result<Caller, Unrecognised> {
        let now = self.now();
        match caller.credential() {
            Credential::Session { id, .. } => {
                let row = sessions::by_id(self.store(), *id).await?.ok_or(NotValid::Unknown)?;
                if now.0 >= row.ends_at {
                    return Err(NotValid::Expired.into());
                }
            }
            Credential::Token { id, grant, client, expires_at } => {
                if self.shared.revoked.has(*id, *grant, *expires_at) {
                    return Err(NotValid::Revoked.into());
                }
                if now >= *expires_at {
                    return Err(NotValid::Expired.into());
                }
                if let Some(client) = client {
                    self.client(client).await?.ok_or(NotValid::Revoked)?;
                }
            }
            Credential::Issued { id, expires_at, .. } => {
                if self.shared.revoked.has(*id, None, *expires_at) {
                    return Err(NotValid::Revoked.into());
                }
                if now >= *expires_at {
                    return Err(NotValid::Expired.into());
                }
            }
            Credential::Key { id, .. } => {
                let row = keys::by_id(self.store(), id).await?.ok_or(NotValid::Unknown)?;
                if row.expires_at.is_some_and(|end| now.0 >= end) {
                    return Err(NotValid::Expired.into());
                }
            }
        }
        let account = match caller.account() {
            None => None,
            Some(known) => {
                let account = self.user(known.id).await?.ok_or(NotValid::Unknown)?;
                if !account.is_enabled() {
                    return Err(NotValid::Disabled.into());
                }
                if let Credential::Token { id, .. } = caller.credential()
                    && made_at(*id).is_none_or(|made| made <= account.tokens_from)
                {
                    return Err(NotValid::Revoked.into());
                }
                if let Credential::Issued { issued_at, .. } = caller.credential()
                    && super::issuers::is_before(*issued_at, &account)
                {
                    return Err(NotValid::Revoked.into());
                }
                Some(account)
            }
        };
        Ok(Caller { account, ..caller.clone() })
    }
}
