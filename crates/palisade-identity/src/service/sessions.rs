//! Sessions of browsers: opaque, hashed at rest, with an idle and an absolute end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use palisade_base::Timestamp;
use palisade_store::{Uuid, changes, codes, devices, families, keys as key_rows, sessions, users};
use parking_lot::Mutex;

use super::accounts::{Account, UserId, load};
use super::caller::{Caller, Credential, NotValid, Unrecognised};
use super::error::Trouble;
use super::login::{Origin, PasswordChecked};
use super::rotation::Rotated;
use super::{Identity, new_id};
use crate::opaque::{Device, Session, Stored, purpose};

/// How exact the time of the last use is.
const SEEN_EVERY_MS: i64 = 60_000;
/// Uses that wait to be written down. More than that are written by the next request that finds room.
const MAX_USES: usize = 50_000;
/// Sessions of one account; the oldest make room.
const MAX_SESSIONS: u64 = 100;
/// Families of refresh tokens of one account; those that were made first make room. A program that logs in again and again
/// instead of refreshing leaves one each time.
pub(super) const MAX_FAMILIES: u64 = 500;
/// Families that are ended between two looks at the table.
const PAGE: u64 = 1000;
/// So long after its making, or after a new password, the first device of an account is no news to its owner.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Devices of one account.
const MAX_DEVICES: u64 = 20;

/// A session's row in memory.
pub(super) struct Known {
    id: Uuid,
    hash: Option<[u8; 32]>,
    /// What its user could do when the secret was given out.
    rights: Option<[u8; 32]>,
    user: Uuid,
    authenticated_at: Timestamp,
    idle_ms: i64,
    ends_at: i64,
    /// The last use that this process knows of.
    seen_at: AtomicI64,
    /// The last use that is written down.
    written_at: AtomicI64,
}

impl Known {
    pub(super) fn of(row: &sessions::Model) -> Self {
        Self {
            id: row.id,
            hash: row.hash.as_slice().try_into().ok(),
            rights: row.rights.as_deref().and_then(|rights| rights.try_into().ok()),
            user: row.user,
            authenticated_at: Timestamp(row.authenticated_at),
            idle_ms: row.idle_ms,
            ends_at: row.ends_at,
            seen_at: AtomicI64::new(row.seen_at),
            written_at: AtomicI64::new(row.seen_at),
        }
    }

    fn has(&self, secret: &Stored<purpose::ForSession>) -> bool {
        self.hash.as_ref() == Some(secret.as_bytes())
    }

    /// Whether the secret was given out when its user could do just what they can do now.
    fn fits(&self, account: &Account) -> bool {
        self.rights.as_ref() == Some(&account.rights)
    }
}

/// Uses that are to be written down.
#[derive(Default)]
pub(super) struct Uses {
    sessions: Mutex<HashMap<Uuid, i64>>,
    keys: Mutex<HashMap<String, i64>>,
}

impl Uses {
    pub(super) fn key(&self, id: &str, at: i64) {
        let mut keys = self.keys.lock();
        if keys.len() < MAX_USES {
            keys.insert(id.to_owned(), at);
        }
    }

    fn session(&self, id: Uuid, at: i64) {
        let mut sessions = self.sessions.lock();
        if sessions.len() < MAX_USES {
            sessions.insert(id, at);
        }
    }
}

/// How a session is to be started.
#[derive(Debug, Default)]
pub struct StartSession {
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// The session that the request came with, if any: it ends, so that nobody can plant one beforehand.
    pub replaces: Option<Session>,
}

/// A session that was started.
#[derive(Debug)]
pub struct Started {
    /// For the cookie.
    pub secret: Session,
    /// How long the cookie lives; `None`: as long as the browser.
    pub max_age: Option<std::time::Duration>,
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub account: Arc<Account>,
    /// For the cookie of the device; `None` where the one that came is good.
    pub device: Option<Device>,
    /// Whether the account's owner is to hear of it: it was used before, and not on this device.
    pub is_new_device: bool,
}

/// A session as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub user: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub seen_at: Timestamp,
    /// When it ends in any case.
    pub ends_at: Timestamp,
    /// From where it was made.
    pub address: String,
    /// What it was made with.
    pub device: String,
    /// Whether it is a browser's session; if not, it is a family of refresh tokens.
    pub is_browser: bool,
}

impl From<sessions::Model> for SessionInfo {
    fn from(row: sessions::Model) -> Self {
        Self {
            id: row.id,
            user: UserId(row.user),
            created_at: Timestamp(row.created_at),
            seen_at: Timestamp(row.seen_at),
            ends_at: Timestamp(row.ends_at),
            address: row.address,
            device: row.device,
            is_browser: true,
        }
    }
}

impl From<palisade_store::families::Model> for SessionInfo {
    fn from(row: palisade_store::families::Model) -> Self {
        Self {
            id: row.id,
            user: UserId(row.user),
            created_at: Timestamp(row.created_at),
            seen_at: Timestamp(row.seen_at),
            ends_at: Timestamp(row.ends_at),
            address: row.address,
            device: if row.client.is_empty() { row.device } else { row.client },
            is_browser: false,
        }
    }
}

impl Identity {
    /// Starts a session for somebody whose password was just checked. Always a new one, with a new secret.
    ///
    /// # Errors
    /// [`Unrecognised`]: the account was disabled meanwhile, or the database is away.
    pub async fn start_session(
        &self,
        checked: &PasswordChecked,
        how: StartSession,
        origin: &Origin,
    ) -> Result<Started, Unrecognised> {
        let now = self.now();
        let secret = Session::generate().map_err(Trouble::from)?;
        let lives = self.settings().lifetimes;
        let (idle, absolute) = match how.remember {
            true => (lives.session_remembered, lives.session_remembered),
            false => (lives.session_idle, lives.session_absolute),
        };
        let (device, device_secret) = match &origin.device {
            Some(device) => (device.stored(), None),
            None => {
                let device = Device::generate().map_err(Trouble::from)?;
                (device.stored(), Some(device))
            }
        };
        let id = new_id(now);
        let user = checked.account.id.0;
        let tx = self.store().begin().await?;
        let account = load(&tx, user).await?.filter(Account::is_enabled).ok_or(NotValid::Disabled)?;
        if account.password_at != checked.account.password_at {
            return Err(NotValid::Revoked.into());
        }
        if let Some(old) = &how.replaces
            && let Some(row) = sessions::by_secret(&tx, old.stored().as_bytes()).await?
        {
            self.end_in(&tx, row.id, now).await?;
        }
        for old in sessions::of_user(&tx, user, MAX_SESSIONS + 50).await?.into_iter().skip(MAX_SESSIONS as usize - 1) {
            self.end_in(&tx, old.id, now).await?;
        }
        let row = sessions::Model {
            id,
            user,
            hash: secret.stored().as_bytes().to_vec(),
            created_at: now.0,
            authenticated_at: now.0,
            seen_at: now.0,
            idle_ms: i64::try_from(idle.as_millis()).unwrap_or(i64::MAX),
            ends_at: now.plus(absolute).0,
            remember: how.remember,
            address: origin.address.to_canonical().to_string(),
            device: origin.shown_agent(),
            rights: Some(account.rights.to_vec()),
            spent: None,
            spent_until: None,
            spent_place: None,
            successor: None,
        };
        sessions::insert(&tx, row).await?;
        // The first device of an account that was just made, or got a new password just now, is its owner's.
        let settled = account.created_at.max(account.password_at).plus(SETTLED) < now;
        let is_new_device = !checked.known_device && (settled || devices::any(&tx, user).await?);
        devices::seen(&tx, user, device.as_bytes(), now.0, MAX_DEVICES).await?;
        self.apply(tx.commit().await?);
        let max_age = how.remember.then_some(absolute);
        Ok(Started { secret, max_age, id, account: Arc::new(account), device: device_secret, is_new_device })
    }

    /// Recognises a session from memory. `None`: ask [`session`](Self::session).
    pub fn session_cached(&self, secret: &Session) -> Option<Result<Caller, NotValid>> {
        let stored = secret.stored();
        let id = self.shared.session_ids.get(stored.as_bytes())?;
        let known = self.shared.sessions.get(&id).filter(|known| known.has(&stored))?;
        let account = self.shared.accounts.get(&known.user).filter(|account| known.fits(account))?;
        let now = self.now().0;
        if now - known.seen_at.load(Ordering::Relaxed) >= known.idle_ms && now < known.ends_at {
            // Another instance may have seen it used.
            return None;
        }
        Some(self.judge_session(&known, account))
    }

    /// Recognises a session. Where what its user may do has changed, it goes on under another secret, which the answer has
    /// to bring: see [`rotation`](super::rotation).
    ///
    /// Cancel safety: a secret that does not arrive is given again.
    ///
    /// # Errors
    /// [`Unrecognised`].
    pub async fn session(&self, secret: &Session, origin: &Origin) -> Result<(Caller, Option<Rotated>), Unrecognised> {
        if let Some(known) = self.session_cached(secret) {
            return Ok((known?, None));
        }
        let (mark, accounts_mark) = (self.shared.sessions.mark(), self.shared.accounts.mark());
        let stored = secret.stored();
        let row = sessions::by_secret(self.store(), stored.as_bytes()).await?.ok_or(NotValid::Unknown)?;
        let account = self.account_marked(row.user, accounts_mark).await?.ok_or(NotValid::Unknown)?;
        let known = Arc::new(Known::of(&row));
        if !known.has(&stored) || !known.fits(&account) || row.successor.is_some() {
            return self.settle(secret, origin).await;
        }
        self.shared.session_ids.insert(*stored.as_bytes(), row.id);
        self.shared.sessions.fill(mark, row.id, known.clone());
        Ok((self.judge_session(&known, account)?, None))
    }

    pub(super) fn judge_session(&self, known: &Known, account: Arc<Account>) -> Result<Caller, NotValid> {
        let now = self.now().0;
        if now >= known.ends_at || now - known.seen_at.load(Ordering::Relaxed) >= known.idle_ms {
            return Err(NotValid::Expired);
        }
        if !account.is_enabled() {
            return Err(NotValid::Disabled);
        }
        known.seen_at.fetch_max(now, Ordering::Relaxed);
        let written = known.written_at.load(Ordering::Relaxed);
        // Of many requests at once, one writes it down. Short timeouts are written more often.
        let stale = now - written >= SEEN_EVERY_MS.min(known.idle_ms / 10)
            && known.written_at.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if stale {
            self.shared.uses.session(known.id, now);
        }
        Ok(Caller {
            account: Some(account),
            credential: Credential::Session { id: known.id, authenticated_at: known.authenticated_at },
            scopes: Arc::from([]),
            narrow: false,
            claims: None,
        })
    }

    /// Ends the session of a secret: logout. `false`: there was none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn end_session(&self, secret: &Session) -> Result<bool, Trouble> {
        let tx = self.store().begin().await?;
        let Some(row) = sessions::by_secret(&tx, secret.stored().as_bytes()).await? else { return Ok(false) };
        let ended = self.end_in(&tx, row.id, self.now()).await?;
        self.apply(tx.commit().await?);
        Ok(ended)
    }

    /// Ends one session (or family of refresh tokens) of an account, by its id. `false`: the account has none of that id.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn end_session_of(&self, user: UserId, id: Uuid) -> Result<bool, Trouble> {
        let now = self.now();
        let tx = self.store().begin().await?;
        let ended = match sessions::by_id(&tx, id).await? {
            Some(row) if row.user == user.0 => self.end_in(&tx, id, now).await?,
            Some(_) => false,
            None => self.end_family_in(&tx, id, Some(user), crate::refresh::End::Logout, now).await?,
        };
        self.apply(tx.commit().await?);
        Ok(ended)
    }

    /// Ends all sessions and refresh tokens of an account but one session.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn end_sessions_of(&self, user: UserId, except: Option<Uuid>) -> Result<u64, Trouble> {
        let now = self.now();
        let tx = self.store().begin().await?;
        let ended = self.end_all_in(&tx, user.0, except, crate::refresh::End::Logout, now).await?;
        self.apply(tx.commit().await?);
        Ok(ended)
    }

    /// The sessions of an account, families of refresh tokens among them, youngest first.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn sessions_of(&self, user: UserId) -> Result<Vec<SessionInfo>, Trouble> {
        let now = self.now().0;
        let store = self.store();
        let browsers = sessions::of_user(store, user.0, MAX_SESSIONS).await?;
        let browsers =
            browsers.into_iter().filter(|row| now < row.ends_at && now < row.seen_at.saturating_add(row.idle_ms));
        let mut all: Vec<SessionInfo> = browsers.map(Into::into).collect();
        let families = families::of_user(store, user.0, MAX_FAMILIES).await?;
        all.extend(families.into_iter().filter(|row| now < row.ends_at).map(SessionInfo::from));
        all.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(all)
    }

    /// Sessions of everybody, oldest first, families of refresh tokens behind them: for operators.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn list_sessions(&self, limit: u64) -> Result<Vec<SessionInfo>, Trouble> {
        let now = self.now().0;
        let browsers = sessions::list(self.store(), None, limit).await?.into_iter();
        let browsers = browsers.filter(|row| now < row.ends_at && now < row.seen_at.saturating_add(row.idle_ms));
        let families = palisade_store::families::list(self.store(), limit).await?.into_iter();
        let families = families.filter(|row| now < row.ends_at);
        Ok(browsers.map(Into::into).chain(families.map(Into::into)).collect())
    }

    /// Ends a session or family by its id, whoever's it is: for operators. `false`: there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn end_session_by_id(&self, id: Uuid) -> Result<bool, Trouble> {
        let now = self.now();
        let tx = self.store().begin().await?;
        let ended = self.end_in(&tx, id, now).await?
            || self.end_family_in(&tx, id, None, crate::refresh::End::Disabled, now).await?;
        self.apply(tx.commit().await?);
        Ok(ended)
    }

    pub(super) async fn end_in(&self, tx: &palisade_store::Tx, id: Uuid, now: Timestamp) -> Result<bool, Trouble> {
        let ended = sessions::end(tx, id).await?;
        if ended {
            tx.announce(self.ended(id, now));
        }
        Ok(ended)
    }

    /// Ends everything that an account is logged in by.
    pub(super) async fn end_all_in(
        &self,
        tx: &palisade_store::Tx,
        user: Uuid,
        except: Option<Uuid>,
        why: crate::refresh::End,
        now: Timestamp,
    ) -> Result<u64, Trouble> {
        let mut ended = 0;
        for row in sessions::of_user(tx, user, 1000).await? {
            if Some(row.id) != except && self.end_in(tx, row.id, now).await? {
                ended += 1;
            }
        }
        // What was begun and is not a login yet must not become one: a code first, for one that is being used right now
        // is a family afterwards. Nor is an address moved to that somebody in a stolen session may have asked for.
        codes::withdraw(tx, user, None).await?;
        self.withdraw_links::<purpose::ForEmail>(tx, user).await?;
        ended += self.end_families_in(tx, families::Of::User(user), except, why, now).await?;
        Ok(ended)
    }

    /// Ends families, however many there are. Returns how many.
    pub(super) async fn end_families_in(
        &self,
        tx: &palisade_store::Tx,
        of: families::Of<'_>,
        except: Option<Uuid>,
        why: crate::refresh::End,
        now: Timestamp,
    ) -> Result<u64, Trouble> {
        let (mut ended, mut last) = (0, None);
        loop {
            let page = families::open_after(tx, of, last, PAGE).await?;
            for id in &page {
                if Some(*id) != except && self.end_family_in(tx, *id, None, why, now).await? {
                    ended += 1;
                }
            }
            last = page.last().copied();
            if last.is_none() {
                return Ok(ended);
            }
        }
    }

    /// The entry of the feed for the end of a session or family. It matters as long as one of its access tokens could
    /// still be within its time.
    pub(super) fn ended(&self, id: Uuid, now: Timestamp) -> changes::New {
        changes::New { kind: changes::Kind::Ended, subject: id.to_string(), at: now.0, until: self.tokens_end(now) }
    }

    pub(super) async fn write_uses(&self) -> Result<(), Trouble> {
        let sessions_used = std::mem::take(&mut *self.shared.uses.sessions.lock());
        let keys_used = std::mem::take(&mut *self.shared.uses.keys.lock());
        if sessions_used.is_empty() && keys_used.is_empty() {
            return Ok(());
        }
        let tx = self.store().begin().await?;
        for (id, at) in sessions_used {
            sessions::seen(&tx, id, at).await?;
        }
        for (id, at) in keys_used {
            key_rows::used(&tx, &id, at).await?;
        }
        self.apply(tx.commit().await?);
        Ok(())
    }

    /// An account, from memory or from the database. `mark` was taken before what named it was read.
    pub(super) async fn account_marked(&self, id: Uuid, mark: u64) -> Result<Option<Arc<Account>>, Trouble> {
        if let Some(account) = self.shared.accounts.get(&id) {
            return Ok(Some(account));
        }
        let Some(row) = users::by_id(self.store(), id).await? else { return Ok(None) };
        let roles = palisade_store::roles::of_user(self.store(), id).await?;
        let account = Arc::new(Account::of(row, roles));
        self.shared.accounts.fill(mark, id, account.clone());
        Ok(Some(account))
    }
}
