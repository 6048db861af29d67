//! Identity with a memory: what endpoints, controls and commands call.
//!
//! Guide sections 1, 4 and 10. [`Identity`] is a handle that is cheap to clone; all clones share one database, one pool
//! of hashes, one set of caches. No HTTP here: texts and types come in, typed verdicts go out.
//!
//! # How a request is decided
//! The part of a credential that cannot change may be remembered: a token's signature, a session's or key's row as of a
//! place in the feed of changes. Everything else (expiry, audience, revocation, the account's state and roles) is decided
//! each time, from memory that the feed keeps fresh. So each check comes in two forms: `…_cached`, which is synchronous
//! and answers `None` where the database has to be asked, and the async one, which asks.
//!
//! # How a change reaches everybody
//! Whatever revokes or changes appends to the feed in the same transaction. The process that made the change applies it
//! before it answers; every other one within the pull of [`Identity::follow`] (300 ms), or at once when it is
//! [nudged](Identity::nudge). Commands that open the database themselves are no exception.

mod accounts;
mod attempts;
mod authorize;
mod caller;
mod clients;
mod error;
mod feed;
mod grants;
mod import;
mod issuers;
mod keys;
mod links;
mod login;
mod mails;
mod names;
mod revoked;
mod roles;
mod rotation;
mod sessions;
mod settings;
mod still;
mod streams;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::future::Future;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use palisade_base::{Clock, Timestamp};
use palisade_store::{Committed, Store, Uuid};
use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio::sync::{Notify, broadcast};

pub use accounts::{Account, UserId, rfc3339};
pub use attempts::{PER_ACCOUNT, PER_ADDRESS, PER_SITE, WINDOW};
pub use authorize::{AskToAuthorize, Authorization, Consent, NotAuthorized};
pub use caller::{Caller, Credential, NotValid, Unrecognised};
pub use clients::{Client, ClientError, GrantKind, Method, NewClient, NotClient, Proof};
pub use error::Trouble;
pub use feed::{FeedState, Notice};
pub use grants::{GrantError, NewGrant, TokenRequest, Tokens};
pub use import::{Field, Format, ImportError, ImportEvent, ImportFailure, ImportOptions, ImportReport};
pub use issuers::{Issuer, MAX_ISSUERS, NewIssuer, Subject};
pub use keys::{ApiKeyInfo, KeyError, NewKey};
pub use links::{Asked, Letter, LinkError, Moved, Registered, SETUP_LIFE};
pub use login::{LoginError, Origin, PasswordChecked, Why};
pub use mails::{MAIL_WINDOW, PER_ASKER, PER_ASKING_SITE, PER_RECIPIENT};
pub use names::{BadEmail, BadName, Email, Name};
pub use roles::{BUILT_IN, Role, RoleError};
pub use rotation::Rotated;
pub use sessions::{SessionInfo, StartSession, Started};
pub use settings::{Lifetimes, Settings};
pub use streams::Told;
pub use tokens::{AccessToken, Introspected, NewToken, PASSWORD_CLIENT};
pub use users::{Edit, NewUser, UserError};

use crate::password::pool::Pool;
use crate::password::{Hasher, Policy};
use crate::token::{Keyring, Keys, Signed};

/// Accounts that are remembered. About 0.5 KiB each.
const MAX_ACCOUNTS: usize = 50_000;
/// Sessions and keys that are remembered, each. About 0.3 KiB each.
const MAX_ROWS: usize = 100_000;
/// Clients that are remembered.
const MAX_CLIENTS: usize = 10_000;
/// Tokens whose signature is remembered, ours and those of other issuers. About 1 KiB each.
const MAX_SIGNED: usize = 50_000;

/// Users, sessions, tokens and keys over one database. A clone is another handle to the same.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
}

/// What outlives a reload of the policy.
struct Shared {
    store: Store,
    clock: Clock,
    pool: Pool,
    hasher: ArcSwap<Hasher>,
    policy: ArcSwap<Policy>,
    ring: ArcSwap<Ring>,
    accounts: accounts::Accounts,
    /// By id, for that is what the feed says.
    sessions: accounts::Rows<Uuid, Arc<sessions::Known>>,
    /// The id of a secret's hash. Proof of nothing: the session says which hash is its own now.
    session_ids: ByHash<Uuid>,
    /// The longest life of an access token since the start, in milliseconds.
    longest_token_ms: AtomicI64,
    /// The longest that checking a hash unlike a new one took within the last hour.
    slowest_import: Mutex<Option<(Timestamp, Duration)>>,
    keys: accounts::Rows<String, Arc<keys::Known>>,
    clients: accounts::Rows<String, Arc<clients::Client>>,
    signed: ByHash<Arc<Signed>>,
    foreign: ByHash<Arc<issuers::Foreign>>,
    /// Whom the tokens of other issuers named when they were last looked up. Proof of nothing.
    meant: Cache<Uuid, Uuid>,
    revoked: revoked::Revoked,
    feed: feed::Feed,
    nudged: Notify,
    told: broadcast::Sender<Told>,
    announced: Notify,
    uses: sessions::Uses,
}

/// Values by the hash of a credential.
type ByHash<V> = Cache<[u8; 32], V, UnitWeighter, BuildHasherDefault<Folded>>;

fn by_hash<V: Clone>(most: usize) -> ByHash<V> {
    let count = u64::try_from(most).unwrap_or(u64::MAX);
    Cache::with(most, count, UnitWeighter, BuildHasherDefault::default(), DefaultLifecycle::default())
}

/// Of a key that is a cryptographic hash itself: its first bytes. Only credentials that were proved become keys, so nobody
/// can choose many of which these are the same.
#[derive(Debug, Default)]
struct Folded(u64);

impl std::hash::Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    /// All keys are of one length.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The keys that sign, and what checks their signatures, as of a moment.
struct Ring {
    ring: Keyring,
    keys: Keys,
    as_of: Timestamp,
}

/// What an [`Identity`] is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Threads that hash.
    pub pool: Pool,
    /// How new hashes are made, with the peppers.
    pub hasher: Hasher,
    /// Which passwords may be set.
    pub policy: Policy,
    /// Keys that sign access tokens.
    pub keyring: Keyring,
    /// Names, audiences, lifetimes.
    pub settings: Settings,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

impl Identity {
    /// Puts the parts together. Asks the database nothing: it may be away, and the feed is read by
    /// [`follow`](Self::follow).
    pub fn new(parts: Parts) -> Self {
        let Parts { store, clock, pool, hasher, policy, keyring, settings } = parts;
        let shared = Shared {
            ring: ArcSwap::from_pointee(Ring::new(keyring, clock.now())),
            store,
            clock,
            pool,
            hasher: ArcSwap::from_pointee(hasher),
            policy: ArcSwap::from_pointee(policy),
            accounts: accounts::Rows::new(MAX_ACCOUNTS),
            sessions: accounts::Rows::new(MAX_ROWS),
            session_ids: by_hash(MAX_ROWS),
            longest_token_ms: AtomicI64::new(0),
            slowest_import: Mutex::new(None),
            keys: accounts::Rows::new(MAX_ROWS),
            clients: accounts::Rows::new(MAX_CLIENTS),
            signed: by_hash(MAX_SIGNED),
            foreign: by_hash(MAX_SIGNED),
            meant: Cache::new(MAX_SIGNED),
            revoked: revoked::Revoked::default(),
            feed: feed::Feed::default(),
            nudged: Notify::new(),
            told: broadcast::Sender::new(streams::WAITING),
            announced: Notify::new(),
            uses: sessions::Uses::default(),
        };
        Self::sharing(Arc::new(shared), settings)
    }

    fn sharing(shared: Arc<Shared>, settings: Settings) -> Self {
        let life = i64::try_from(settings.lifetimes.access_token.as_millis()).unwrap_or(i64::MAX);
        shared.longest_token_ms.fetch_max(life, Ordering::Relaxed);
        Self { shared, settings: Arc::new(settings) }
    }

    /// The same users, caches and counters under other settings: after a reload of the policy.
    #[must_use]
    pub fn with(&self, settings: Settings) -> Self {
        Self::sharing(self.shared.clone(), settings)
    }

    /// From now on new hashes are made so; old ones upgrade at the next login.
    pub fn set_hasher(&self, hasher: Hasher) {
        self.shared.hasher.store(Arc::new(hasher));
    }

    /// From now on passwords are judged so.
    pub fn set_password_policy(&self, policy: Policy) {
        self.shared.policy.store(Arc::new(policy));
    }

    /// From now on these keys sign and are accepted. What was remembered of signatures is forgotten: a key that is gone
    /// may have made them.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.shared.ring.store(Arc::new(Ring::new(keyring, self.now())));
        self.shared.signed.clear();
    }

    /// The names, audiences and lifetimes in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The threads that hash, for metrics.
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn hasher(&self) -> Arc<Hasher> {
        self.shared.hasher.load_full()
    }

    /// Lets this process know of what it changed, before it answers.
    fn apply(&self, committed: Committed) {
        for change in &committed.changes {
            self.shared.forget(change, true);
        }
        if !committed.changes.is_empty() {
            self.shared.announced.notify_one();
        }
    }
}

impl Ring {
    fn new(ring: Keyring, now: Timestamp) -> Self {
        // Keys of one ring have ids of their own and are of one sort; were they not, nothing would be accepted.
        let keys = ring.verifying(now).unwrap_or_default();
        Self { ring, keys, as_of: now }
    }
}

/// An id that begins with the time: sorted by age, and `jti` tells the millisecond.
fn new_id(now: Timestamp) -> Uuid {
    let ms = u64::try_from(now.0).unwrap_or(0);
    let (seconds, nanos) = (ms / 1000, u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// When an id was made, in milliseconds.
fn made_at(id: Uuid) -> Option<i64> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    i64::try_from(seconds.checked_mul(1000)?.checked_add(u64::from(nanos / 1_000_000))?).ok()
}

/// Words of a list as they are stored.
fn joined(words: &[String]) -> String {
    words.join(" ")
}

/// Words of a stored list.
fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

/// Waits for so long at most.
async fn bounded<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}
