//! Follows the feed of changes, and forgets what changed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use palisade_base::Timestamp;
use palisade_store::{Uuid, attempts, changes, clients, devices, families, sessions};

use super::error::Trouble;
use super::streams::Told;
use super::{Identity, Ring, Shared};
use crate::refresh::Family;

/// How long after the last look the next one comes.
const PULL: Duration = Duration::from_millis(300);
/// Without a look for so long, what is revoked elsewhere is not known any more.
const STALE: Duration = Duration::from_secs(5);
/// Entries of one look; the next follows at once.
const BATCH: u64 = 1000;
/// How often what is over is swept out.
const SWEEP: Duration = Duration::from_secs(60);
/// How long entries of the feed are kept at least. Who was away longer forgets everything it had cached.
const KEPT_MS: i64 = 3_600_000;
/// A device that was not used for so long is a stranger's.
const DEVICE_MS: i64 = 400 * 24 * 3_600_000;
/// What is damaged when the feed begins anew.
const FEED: &str = "feed of changes";

#[derive(Default)]
pub(super) struct Feed {
    /// The place up to which it was applied.
    place: AtomicI64,
    started: AtomicBool,
    /// When it was last read, in milliseconds.
    read_at: AtomicI64,
    swept_at: AtomicI64,
}

/// What happens while the feed is followed.
#[derive(Debug)]
pub enum Notice {
    /// The database does not answer: what others revoke is not known. Told once.
    Away(Trouble),
    /// It answers again.
    Back,
    /// The feed begins anew, because a backup was restored: nothing that was kept in memory is believed.
    Restarted,
    /// What is over could not be swept out, and stays for now.
    NotSwept(Trouble),
}

/// How well this process knows what others changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// It was read within the last seconds.
    Fresh,
    /// It could not be read for longer than 5 s: what was revoked meanwhile is not known. `when_away` decides.
    Stale,
    /// It was never read: nothing that could be revoked may be believed.
    Never,
}

impl Identity {
    /// How well this process knows what others changed.
    pub fn feed_state(&self) -> FeedState {
        let feed = &self.shared.feed;
        if !feed.started.load(Ordering::Acquire) {
            return FeedState::Never;
        }
        let age = self.now().0.saturating_sub(feed.read_at.load(Ordering::Relaxed));
        if u128::try_from(age).unwrap_or(0) > STALE.as_millis() { FeedState::Stale } else { FeedState::Fresh }
    }

    /// When the feed was last read, all of it.
    pub fn feed_read_at(&self) -> Timestamp {
        Timestamp(self.shared.feed.read_at.load(Ordering::Relaxed))
    }

    /// Reads the feed now: another instance says that there is something new.
    pub fn nudge(&self) {
        self.shared.nudged.notify_one();
    }

    /// Returns once this process has changed something since it was last asked. Whoever can reach other instances tells
    /// them to look (there [`nudge`](Self::nudge)); without that they do by themselves a little later.
    pub async fn announced(&self) {
        self.shared.announced.notified().await;
    }

    /// Follows the feed until it is dropped, and sweeps out what is over. One task of each process that serves runs it, and
    /// is told what happens on the way.
    pub async fn follow(&self, tell: impl Fn(Notice)) {
        // Beside each other: much may have to be swept out, and news do not wait for that.
        tokio::join!(self.read_on(&tell), self.sweep_on(&tell));
    }

    async fn read_on(&self, tell: &impl Fn(Notice)) {
        let mut away = false;
        loop {
            match self.catch_up().await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        tell(Notice::Back);
                    }
                }
                Err(Trouble::Damaged(FEED)) => tell(Notice::Restarted),
                Err(why) => {
                    if !std::mem::replace(&mut away, true) {
                        tell(Notice::Away(why));
                    }
                }
            }
            // Either is a reason to look.
            let _ = tokio::time::timeout(PULL, self.shared.nudged.notified()).await;
        }
    }

    async fn sweep_on(&self, tell: &impl Fn(Notice)) {
        loop {
            // A database that is away has been told of.
            if self.feed_state() == FeedState::Fresh
                && let Err(why) = self.tidy().await
            {
                tell(Notice::NotSwept(why));
            }
            tokio::time::sleep(PULL).await;
        }
    }

    /// Applies what is new in the feed. The first time, everything that is still revoked.
    ///
    /// # Errors
    /// When the database is away; what was applied stays applied.
    pub async fn catch_up(&self) -> Result<(), Trouble> {
        let feed = &self.shared.feed;
        let read_at = self.now();
        let store = &self.store().feed();
        if !feed.started.load(Ordering::Acquire) {
            let head = changes::head(store).await?;
            let mut place = 0;
            loop {
                let alive = changes::alive(store, read_at.0, place, head, BATCH).await?;
                for change in &alive {
                    self.shared.forget(change, false);
                    place = change.seq;
                }
                if (alive.len() as u64) < BATCH {
                    break;
                }
            }
            feed.place.store(head, Ordering::Relaxed);
            feed.started.store(true, Ordering::Release);
        }
        loop {
            let place = feed.place.load(Ordering::Relaxed);
            let new = changes::after(store, place, BATCH).await?;
            if new.is_empty() && place > 0 && changes::head(store).await? < place {
                // A backup was restored: the feed is another one, and anything may have changed.
                feed.started.store(false, Ordering::Release);
                self.shared.forget_everything();
                return Err(Trouble::Damaged(FEED));
            }
            for change in &new {
                self.shared.forget(change, false);
            }
            if let Some(last) = new.last() {
                feed.place.store(last.seq, Ordering::Relaxed);
            }
            if (new.len() as u64) < BATCH {
                break;
            }
        }
        let before = feed.read_at.swap(read_at.0, Ordering::Relaxed);
        if before > 0 && read_at.0.saturating_sub(before) > KEPT_MS / 2 {
            // Entries may have been swept out unread.
            self.shared.forget_everything();
        }
        Ok(())
    }

    /// What has no hurry: uses of sessions and keys, rows that are over, keys of the ring whose time has come.
    async fn tidy(&self) -> Result<(), Trouble> {
        let now = self.now();
        let feed = &self.shared.feed;
        let due = now.0.saturating_sub(feed.swept_at.load(Ordering::Relaxed));
        if u128::try_from(due).unwrap_or(0) < SWEEP.as_millis() {
            return Ok(());
        }
        feed.swept_at.store(now.0, Ordering::Relaxed);
        self.shared.revoked.sweep(now);
        let ring = self.shared.ring.load_full();
        if ring.as_of < now {
            self.shared.ring.compare_and_swap(&ring, std::sync::Arc::new(Ring::new(ring.ring.clone(), now)));
        }
        self.sweep().await
    }

    /// Writes down uses, and forgets rows whose time is over. Once a minute by [`follow`](Self::follow).
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn sweep(&self) -> Result<(), Trouble> {
        let now = self.now().0;
        self.write_uses().await?;
        let store = self.store();
        let tx = store.begin().await?;
        // The longest window of all that is counted there.
        attempts::sweep(&tx, now - super::mails::window_ms()).await?;
        self.sweep_unproved(&tx).await?;
        sessions::sweep(&tx, now).await?;
        sessions::tidy(&tx, now).await?;
        families::sweep(&tx, now).await?;
        devices::sweep(&tx, now - DEVICE_MS).await?;
        changes::sweep(&tx, now - KEPT_MS).await?;
        clients::sweep(&tx, now).await?;
        self.sweep_codes(&tx, now).await?;
        self.sweep_links(&tx, now).await?;
        self.apply(tx.commit().await?);
        // An encrypted successor whose grace is over helps nobody but a thief.
        for row in families::used_between(store, now - KEPT_MS, now, BATCH).await? {
            let Some(mut family) = Family::from_bytes(&row.record) else { continue };
            if family.tidy(self.now()) {
                let tx = store.begin().await?;
                let (to, record) = (i64::try_from(family.version()).unwrap_or(i64::MAX), family.to_bytes());
                // Somebody refreshed meanwhile: then there is nothing to tidy.
                families::swap(&tx, row.id, row.version, to, record, row.seen_at, row.ended_at).await?;
                let _ = tx.commit().await?;
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Applies one change.
    pub(super) fn forget(&self, change: &changes::Change, own: bool) {
        self.apply(change);
        // Nobody listens: nothing to tell.
        let _ = self.told.send(Told { change: change.clone(), own });
    }

    fn apply(&self, change: &changes::Change) {
        use changes::Kind;
        let id = || Uuid::parse_str(&change.subject).ok();
        match change.kind {
            Some(Kind::Ended) => {
                if let Some(id) = id() {
                    self.revoked.grant(id, change.until);
                    self.sessions.forget(&id);
                }
            }
            Some(Kind::Session) => {
                if let Some(id) = id() {
                    self.sessions.forget(&id);
                }
            }
            Some(Kind::User | Kind::UserRevoked) => {
                if let Some(id) = id() {
                    self.accounts.forget(&id);
                }
            }
            Some(Kind::Key) => self.keys.forget(change.subject.as_str()),
            Some(Kind::Role) => self.accounts.forget_all(),
            Some(Kind::Token) => {
                if let Some(id) = id() {
                    self.revoked.token(id, change.until);
                }
            }
            Some(Kind::Client) => self.clients.forget(change.subject.as_str()),
            None => self.forget_everything(),
        }
    }

    fn forget_everything(&self) {
        self.accounts.forget_all();
        self.sessions.forget_all();
        self.keys.forget_all();
        self.clients.forget_all();
    }
}
