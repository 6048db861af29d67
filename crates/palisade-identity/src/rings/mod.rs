//! The keys that Palisade makes for itself: for signatures, for cookies that only it reads, and peppers.
//!
//! Guide sections 1, 4 and 11. Each is a [`Ring`] of versions in the secret store, made at first use where the store can
//! be written, and replaced by command and on schedule. All instances that share the store go through the same states:
//! a new version is published first, and is used from a time on by which every instance knows it; the old ones are
//! accepted until nothing that they made is valid any more.
//!
//! ```
//! use std::sync::Arc;
//! use palisade_base::Clock;
//! use palisade_identity::rings::{Rings, Settings};
//!
//! let store = Arc::new(palisade_vault::Memory::new());
//! let rings = Rings::open(store, Settings::default(), Clock::real())?;
//! let tag = rings.mac(b"session-7");
//! assert!(rings.checks(b"session-7", &tag) && !rings.checks(b"session-8", &tag));
//! assert_eq!(rings.jwk_set().lines().count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fresh;
mod loaded;
mod make;
#[cfg(test)]
mod processes;
mod provided;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use palisade_base::Clock;
use palisade_vault::Provider;
use parking_lot::Mutex;

pub use self::fresh::Event;
pub use self::loaded::check;
use self::loaded::{Loaded, Work};
pub use self::make::{Rotated, Rotation, rotate};
use crate::password::Peppers;
use crate::token::{Algorithm, Keyring, Keys, SigningKey};

/// One of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// Signs access tokens: the secret `signing-key`.
    Signing,
    /// Signs what is said to the application about a request: the secret `assertion-key`.
    Assertion,
    /// Authenticates what only Palisade reads again, CSRF tokens: the secret `mac-key`.
    Mac,
    /// Goes into hashes of passwords: the secret `pepper`.
    Pepper,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Signing, Self::Assertion, Self::Mac, Self::Pepper];

    /// The name in the secret store.
    pub const fn secret(self) -> &'static str {
        match self {
            Self::Signing => "signing-key",
            Self::Assertion => "assertion-key",
            Self::Mac => "mac-key",
            Self::Pepper => "pepper",
        }
    }

    /// The ring of a name in the secret store.
    pub fn of_secret(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ring| ring.secret() == name)
    }
}

/// Length of a tag of [`Rings::mac`], in bytes.
pub const TAG_BYTES: usize = 32;

/// What the policy says of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How access tokens are signed. A store that can be written gets a key of it when it has none.
    pub algorithm: Algorithm,
    /// How long an access token is accepted at most: its life, and the leeway of those who check it.
    pub access_life: Duration,
    /// How long a tag of [`Rings::mac`] is accepted at most: as long as the longest session, whose forms carry one.
    pub mac_life: Duration,
    /// Whether hashes of passwords get a pepper.
    pub pepper: bool,
    /// From the publication of a new key to its first use. Longer than anyone keeps the JWKS, and than an instance needs
    /// to look into the store.
    pub lead: Duration,
    /// How old a key becomes before it is replaced; `None`: only by command.
    pub rotate: Option<Duration>,
    /// The same for peppers. Old ones are kept, since nobody knows the passwords to hash them again.
    pub rotate_pepper: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self {
            algorithm: Algorithm::EdDsa,
            access_life: Duration::from_secs(15 * 60 + 60),
            mac_life: days(30),
            pepper: false,
            lead: Duration::from_secs(600),
            rotate: Some(days(90)),
            rotate_pepper: None,
        }
    }
}

impl Settings {
    /// How long what a version made is accepted after the next one took over.
    fn life(&self, name: Name) -> Duration {
        match name {
            Name::Signing => self.access_life,
            // They live for 60 seconds; the rest is for clocks that differ.
            Name::Assertion => Duration::from_secs(180),
            Name::Mac => self.mac_life,
            Name::Pepper => Duration::MAX,
        }
    }

    fn algorithm_of(&self, name: Name) -> Algorithm {
        if name == Name::Signing { self.algorithm } else { Algorithm::EdDsa }
    }

    fn rotates(&self, name: Name) -> Option<Duration> {
        match name {
            Name::Pepper => self.rotate_pepper,
            _ => self.rotate,
        }
    }

    fn uses(&self, name: Name) -> bool {
        name != Name::Pepper || self.pepper
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The secret store says no.
    #[error(transparent)]
    Store(#[from] palisade_vault::Error),
    /// What the store holds under the name of a ring is none.
    #[error("the secret `{name}` ({place}) cannot be used: {reason}")]
    Unusable {
        /// The name.
        name: &'static str,
        /// Where it is.
        place: String,
        /// Why.
        reason: String,
    },
    /// The store cannot be written, and somebody has to put keys there.
    #[error("keys are missing that Palisade cannot make, because `secrets.provider` is one that it cannot write: {0}")]
    Provide(String),
    /// Without the old peppers nobody can log in any more.
    #[error("a pepper cannot be revoked: the passwords that were hashed with it could never be checked again")]
    PepperKept,
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Make(String),
}

/// All rings, as they are now. A clone is the same rings.
#[derive(Debug, Clone)]
pub struct Rings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// Where the keys are and what the policy says of them; held while the store is looked at, so that one thread does.
    source: Mutex<Source>,
    loaded: ArcSwap<Loaded>,
    generation: AtomicU64,
    /// When a token with an unknown key last made somebody look into the store, in milliseconds.
    asked: AtomicI64,
}

#[derive(Debug)]
struct Source {
    provider: Arc<dyn Provider>,
    settings: Settings,
}

impl Rings {
    /// Reads the rings, and makes those that are missing where the store can be written.
    ///
    /// # Errors
    /// When the store cannot be used, or holds something else under the names of rings, or somebody has to put keys there.
    pub fn open(provider: Arc<dyn Provider>, settings: Settings, clock: Clock) -> Result<Self, Error> {
        let source = Source { provider, settings };
        let loaded = source.load(None, clock.now(), Work::All)?.unwrap_or_default();
        Ok(Self(Arc::new(Inner {
            clock,
            source: Mutex::new(source),
            loaded: ArcSwap::from_pointee(loaded),
            generation: AtomicU64::new(1),
            asked: AtomicI64::new(0),
        })))
    }

    /// Goes on under another policy. When this fails, everything is as it was.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn adopt(&self, provider: Arc<dyn Provider>, settings: Settings) -> Result<(), Error> {
        let mut source = self.0.source.lock();
        let new = Source { provider, settings };
        if let Some(loaded) = new.load(None, self.0.clock.now(), Work::All)? {
            self.put(loaded);
        }
        *source = new;
        Ok(())
    }

    /// Looks into the store, and replaces what is due. Says whether any key came, went, or took its turn. Reads files, and
    /// waits for locks of other processes: not for a thread that serves requests; see [`keep_fresh`](Self::keep_fresh).
    ///
    /// # Errors
    /// When the store cannot be used. The keys of before stay in use.
    pub fn refresh(&self) -> Result<bool, Error> {
        self.look(&self.0.source.lock(), Work::All)
    }

    fn look(&self, source: &Source, work: Work) -> Result<bool, Error> {
        let changed = source.load(Some(&self.0.loaded.load()), self.0.clock.now(), work)?;
        let is = changed.is_some();
        if let Some(loaded) = changed {
            self.put(loaded);
        }
        Ok(is)
    }

    fn put(&self, loaded: Loaded) {
        self.0.loaded.store(Arc::new(loaded));
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// Grows whenever a key comes, goes, or takes its turn. A cache that remembers signatures forgets them then: a key
    /// that was revoked may have made them.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// For a token whose key is unknown: looks into the store, at most once a second whatever strangers send, and says
    /// whether it is worth checking the token again. Reads a small file, and waits for nobody.
    pub fn ask_again(&self) -> bool {
        let now = self.0.clock.now().0;
        let last = self.0.asked.load(Ordering::Relaxed);
        let mine = now.saturating_sub(last) >= 1000
            && self.0.asked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let Some(source) = mine.then(|| self.0.source.try_lock()).flatten() else { return false };
        self.look(&source, Work::Look).unwrap_or(false)
    }

    /// The keys of access tokens with their times, for whoever keeps them: to be asked for again when the
    /// [`generation`](Self::generation) has grown.
    pub fn access(&self) -> Keyring {
        self.0.loaded.load().signing.clone()
    }

    /// The same for assertions.
    pub fn assertion(&self) -> Keyring {
        self.0.loaded.load().assertion.clone()
    }

    /// The key that signs access tokens now.
    pub fn signer(&self) -> Arc<SigningKey> {
        self.0.loaded.load().signing.signer(self.0.clock.now()).expect("a ring that was loaded has a key")
    }

    /// The keys of access tokens.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.loaded.load().access_keys)
    }

    /// The key that signs assertions now.
    pub fn assertion_signer(&self) -> Arc<SigningKey> {
        self.0.loaded.load().assertion.signer(self.0.clock.now()).expect("a ring that was loaded has a key")
    }

    /// The keys of assertions.
    pub fn assertion_keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.loaded.load().assertion_keys)
    }

    /// The JWK set to publish, as JSON: the public keys of access tokens and of assertions, also those that do not sign
    /// yet. Whoever fetches it may keep it for half of [`Settings::lead`].
    pub fn jwk_set(&self) -> Arc<str> {
        Arc::clone(&self.0.loaded.load().jwk_set)
    }

    /// The peppers of now, the current one first; none where the policy wants none and none was ever used. To be asked for
    /// again when the [`generation`](Self::generation) has grown.
    pub fn peppers(&self) -> Peppers {
        self.0.loaded.load().peppers.clone()
    }

    /// A tag that shows later that this process, or one that shares the store, has made the message (HMAC-SHA-256).
    pub fn mac(&self, message: &[u8]) -> [u8; TAG_BYTES] {
        self.0.loaded.load().macs.tag(message, self.0.clock.now())
    }

    /// Whether a tag is one of [`mac`](Self::mac) for this message, by any version that is still accepted.
    pub fn checks(&self, message: &[u8], tag: &[u8]) -> bool {
        self.0.loaded.load().macs.checks(message, tag)
    }
}
