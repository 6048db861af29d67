//! For whoever holds a connection open longer than a request: what changes, and whether a caller is still one.
//!
//! Threats 38: a stream that was opened before a revocation must not outlive it.

use palisade_base::Timestamp;
use palisade_store::{changes::Change, keys, sessions};
use tokio::sync::broadcast;

use super::accounts::Account;
use super::caller::{Caller, Credential};
use super::error::Trouble;
use super::tokens::LEEWAY_MS;
use super::{Identity, made_at};

/// Changes that wait for a slow listener.
pub(super) const WAITING: usize = 1024;

/// A change that this process has applied to what it remembers.
#[derive(Debug, Clone)]
pub struct Told {
    /// What changed.
    pub change: Change,
    /// Whether this process made it: then others are to be nudged. What it reads from the feed, its own changes among
    /// them, comes with `false`.
    pub own: bool,
}

impl Identity {
    /// Hears of every change from now on, once it is applied. Who lags behind by more than a thousand has to assume that
    /// anything changed.
    pub fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.shared.told.subscribe()
    }

    /// Whether a caller of a while ago would still be recognised: not ended, not revoked, not disabled, not over. To be
    /// asked after each change that may concern it, and when its time is over.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn is_still_valid(&self, caller: &Caller) -> Result<bool, Trouble> {
        let now = self.now();
        let account = match caller.account() {
            None => None,
            Some(known) => {
                let mark = self.shared.accounts.mark();
                match self.account_marked(known.id.0, mark).await? {
                    Some(account) if account.is_enabled() => Some(account),
                    _ => return Ok(false),
                }
            }
        };
        match caller.credential() {
            Credential::Session { id, .. } => {
                let row = sessions::by_id(self.store(), *id).await?;
                // The connection itself is the use: idle is for whoever is away.
                Ok(row.is_some_and(|row| now.0 < row.ends_at))
            }
            Credential::Key { id, .. } => {
                let row = keys::by_id(self.store(), id).await?;
                Ok(row.is_some_and(|row| row.expires_at.is_none_or(|end| now.0 < end)))
            }
            Credential::Token { id, grant, client, expires_at } => {
                let ends = Timestamp(expires_at.0.saturating_add(LEEWAY_MS));
                let voided = |account: &Account| made_at(*id).is_none_or(|made| made <= account.tokens_from);
                if now >= ends || self.shared.revoked.has(*id, *grant, ends) || account.as_deref().is_some_and(voided) {
                    return Ok(false);
                }
                match client {
                    None => Ok(true),
                    Some(client) => Ok(self.client(client).await?.is_some()),
                }
            }
        }
    }
}
