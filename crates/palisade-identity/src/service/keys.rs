//! API keys: `pal_<env>_<id>_<secret>`, shown once, found by id, compared in constant time.

use std::sync::Arc;
use std::time::Duration;

use palisade_base::{Rate, Timestamp};
use palisade_store::{Uuid, changes, keys, users};

use super::accounts::UserId;
use super::caller::{Caller, Credential, NotValid, Unrecognised};
use super::error::Trouble;
use super::{Identity, joined, split};
use crate::opaque::{ApiKey, StoredKey};

/// Keys of one account.
const MAX_KEYS: u64 = 200;
/// Characters of a key's name.
const MAX_NAME: usize = 100;
/// How exact the time of the last use is.
const USED_EVERY_MS: i64 = 60_000;

/// A key's row in memory.
pub(super) struct Known {
    user: Uuid,
    hash: StoredKey,
    scopes: Arc<[String]>,
    rate: Option<Rate>,
    expires_at: Option<i64>,
    written_at: std::sync::atomic::AtomicI64,
}

/// A key that is to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What its user calls it.
    pub name: String,
    /// What it may be used for. It can do nothing else.
    pub scopes: Vec<String>,
    /// How long it lives; `None`: until it is revoked.
    pub expires_in: Option<Duration>,
    /// Its own rate limit.
    pub rate: Option<Rate>,
}

/// A key as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInfo {
    /// Its id, a part of its text.
    pub id: String,
    /// Whose.
    pub user: UserId,
    /// What its user calls it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// Its own rate limit.
    pub rate: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
    /// The key that takes its place.
    pub successor: Option<String>,
}

impl From<keys::Model> for ApiKeyInfo {
    fn from(row: keys::Model) -> Self {
        Self {
            id: row.id,
            user: UserId(row.user),
            name: row.name,
            scopes: split(&row.scopes),
            rate: row.rate,
            created_at: Timestamp(row.created_at),
            expires_at: row.expires_at.map(Timestamp),
            used_at: row.used_at.map(Timestamp),
            successor: row.successor,
        }
    }
}

/// Why a key was not made or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Too long, empty, or with control characters.
    #[error("a key has a name of 1 to {MAX_NAME} characters, without controls")]
    Name,
    /// Not what RFC 6749 section 3.3 allows, or too many.
    #[error("a key has 1 to 100 scopes of visible ASCII, without quotes and backslashes")]
    Scopes,
    /// Zero, or beyond all calendars.
    #[error("a key lives for at least a second and at most 10 years")]
    Expiry,
    /// The account has as many as it may.
    #[error("an account has at most {MAX_KEYS} keys")]
    TooMany,
    /// There is no such account, or it is disabled.
    #[error("there is no such user, or the account is disabled")]
    NoUser,
    /// The account has no key of that id.
    #[error("there is no such key")]
    NoKey,
    /// It was replaced already.
    #[error("the key was replaced already")]
    Replaced,
    /// The database, or the machine.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<palisade_store::Error> for KeyError {
    fn from(error: palisade_store::Error) -> Self {
        Self::Trouble(error.into())
    }
}

/// RFC 6749 section 3.3: what a scope may be written with.
pub(super) fn is_scope(text: &str) -> bool {
    (1..=100).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

impl NewKey {
    fn check(&self) -> Result<(), KeyError> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) || self.name.trim().is_empty() {
            return Err(KeyError::Name);
        }
        if !(1..=100).contains(&self.scopes.len()) || !self.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(KeyError::Scopes);
        }
        let years = Duration::from_secs(10 * 366 * 24 * 3600);
        if self.expires_in.is_some_and(|life| life < Duration::from_secs(1) || life > years) {
            return Err(KeyError::Expiry);
        }
        Ok(())
    }
}

impl Identity {
    /// Makes a key. Its text is shown once and cannot be had again.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn create_key(&self, user: UserId, new: NewKey) -> Result<(ApiKey, ApiKeyInfo), KeyError> {
        new.check()?;
        let now = self.now();
        let key = ApiKey::generate(&self.settings().environment).map_err(Trouble::from)?;
        let tx = self.store().begin().await?;
        let account = users::by_id(&tx, user.0).await?.filter(|row| row.disabled_at.is_none());
        account.ok_or(KeyError::NoUser)?;
        if keys::of_user(&tx, user.0, MAX_KEYS).await?.len() as u64 >= MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let row = keys::Model {
            id: key.id().to_owned(),
            user: user.0,
            name: new.name,
            scopes: joined(&new.scopes),
            rate: new.rate.map(|rate| rate.to_string()),
            hash: key.stored().as_bytes().to_vec(),
            created_at: now.0,
            expires_at: new.expires_in.map(|life| now.plus(life).0),
            used_at: None,
            successor: None,
        };
        keys::insert(&tx, row.clone()).await?;
        self.apply(tx.commit().await?);
        Ok((key, row.into()))
    }

    /// The keys of an account, youngest first.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn keys_of(&self, user: UserId) -> Result<Vec<ApiKeyInfo>, Trouble> {
        Ok(keys::of_user(self.store(), user.0, MAX_KEYS).await?.into_iter().map(Into::into).collect())
    }

    /// So many keys of everybody behind one: for operators.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn list_keys(&self, after: Option<&str>, limit: u64) -> Result<Vec<ApiKeyInfo>, Trouble> {
        Ok(keys::list(self.store(), after, limit.min(1000)).await?.into_iter().map(Into::into).collect())
    }

    /// Revokes a key. `user`: only if it is this account's. `false`: there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn revoke_key(&self, user: Option<UserId>, id: &str) -> Result<bool, Trouble> {
        let tx = self.store().begin().await?;
        let Some(row) = keys::by_id(&tx, id).await? else { return Ok(false) };
        if user.is_some_and(|user| user.0 != row.user) {
            return Ok(false);
        }
        let gone = keys::delete(&tx, id).await?;
        self.announce_key(&tx, id);
        self.apply(tx.commit().await?);
        Ok(gone)
    }

    /// Makes a key that takes the place of another, which goes on for the time of overlap. The same name, scopes and
    /// limit; the same length of life.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn rotate_key(&self, user: Option<UserId>, id: &str) -> Result<(ApiKey, ApiKeyInfo), KeyError> {
        let now = self.now();
        let key = ApiKey::generate(&self.settings().environment).map_err(Trouble::from)?;
        let tx = self.store().begin().await?;
        let row = keys::by_id(&tx, id).await?.filter(|row| user.is_none_or(|user| user.0 == row.user));
        let row = row.filter(|row| row.expires_at.is_none_or(|end| now.0 < end)).ok_or(KeyError::NoKey)?;
        if row.successor.is_some() {
            return Err(KeyError::Replaced);
        }
        let account = users::by_id(&tx, row.user).await?.filter(|row| row.disabled_at.is_none());
        account.ok_or(KeyError::NoUser)?;
        let overlap = now.plus(self.settings().lifetimes.key_overlap).0;
        let old_end = row.expires_at.map_or(overlap, |end| end.min(overlap));
        let next = keys::Model {
            id: key.id().to_owned(),
            hash: key.stored().as_bytes().to_vec(),
            expires_at: row.expires_at.map(|end| now.0.saturating_add(end.saturating_sub(row.created_at))),
            created_at: now.0,
            used_at: None,
            ..row.clone()
        };
        keys::insert(&tx, next.clone()).await?;
        if !keys::replace(&tx, id, key.id(), old_end).await? {
            return Err(KeyError::Replaced);
        }
        self.announce_key(&tx, id);
        self.apply(tx.commit().await?);
        Ok((key, next.into()))
    }

    fn announce_key(&self, tx: &palisade_store::Tx, id: &str) {
        let now = self.now().0;
        tx.announce(changes::New { kind: changes::Kind::Key, subject: id.to_owned(), at: now, until: now });
    }

    /// Recognises a key from memory. `None`: ask [`key`](Self::key).
    pub fn key_cached(&self, key: &ApiKey) -> Option<Result<Caller, NotValid>> {
        let known = self.shared.keys.get(key.id())?;
        let account = self.shared.accounts.get(&known.user)?;
        Some(self.judge_key(key, &known, account))
    }

    /// Recognises a key.
    ///
    /// # Errors
    /// [`Unrecognised`].
    pub async fn key(&self, key: &ApiKey) -> Result<Caller, Unrecognised> {
        if let Some(known) = self.key_cached(key) {
            return Ok(known?);
        }
        let (mark, accounts_mark) = (self.shared.keys.mark(), self.shared.accounts.mark());
        let row = keys::by_id(self.store(), key.id()).await?.ok_or(NotValid::Unknown)?;
        let hash = row.hash.as_slice().try_into().map_err(|_| Trouble::Damaged("API key"))?;
        let known = Arc::new(Known {
            user: row.user,
            hash: StoredKey::from_bytes(hash),
            scopes: split(&row.scopes).into(),
            rate: row.rate.as_deref().and_then(|rate| rate.parse().ok()),
            expires_at: row.expires_at,
            written_at: std::sync::atomic::AtomicI64::new(row.used_at.unwrap_or(0)),
        });
        if !known.hash.matches(key) {
            // Not kept: ids are not secret, and a stranger must not fill the memory with them.
            return Err(NotValid::Unknown.into());
        }
        let account = self.account_marked(row.user, accounts_mark).await?.ok_or(NotValid::Unknown)?;
        self.shared.keys.fill(mark, row.id, known.clone());
        Ok(self.judge_key(key, &known, account)?)
    }

    fn judge_key(&self, key: &ApiKey, known: &Known, account: Arc<super::Account>) -> Result<Caller, NotValid> {
        use std::sync::atomic::Ordering::Relaxed;
        if !known.hash.matches(key) {
            return Err(NotValid::Unknown);
        }
        let now = self.now().0;
        if known.expires_at.is_some_and(|end| now >= end) {
            return Err(NotValid::Expired);
        }
        if !account.is_enabled() {
            return Err(NotValid::Disabled);
        }
        let written = known.written_at.load(Relaxed);
        if now - written >= USED_EVERY_MS && known.written_at.compare_exchange(written, now, Relaxed, Relaxed).is_ok() {
            self.shared.uses.key(key.id(), now);
        }
        Ok(Caller {
            account: Some(account),
            scopes: known.scopes.clone(),
            narrow: true,
            claims: None,
            credential: Credential::Key { id: key.id().to_owned(), rate: known.rate },
        })
    }
}
