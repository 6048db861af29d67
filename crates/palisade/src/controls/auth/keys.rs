//! The keys that Palisade makes for itself, as rings of the secret store, and who follows when one of them changes.
//!
//! One ring signs access tokens, one what the application is handed over, one authenticates CSRF tokens: a token of one
//! kind proves nothing where another is asked for (threats 22). The rings outlive policies and are opened once; a policy
//! says where they are and how old a key becomes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use palisade_base::{Clock, Timestamp};
use palisade_identity::rings::{self, Event, Rings, Settings};
use palisade_identity::token::Algorithm;
use palisade_vault::Provider;
use parking_lot::Mutex;

use super::config::SigningAlgorithm;
use crate::controls::Config;
use crate::observe::{Log, event};
use crate::policy::State;

/// How far apart the clocks of those who sign and who check may be, both ways.
const LEEWAY: Duration = Duration::from_secs(60);
/// A store that could not be used is asked again after this, whatever comes in meanwhile.
const AGAIN_MS: i64 = 1000;

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::EdDsa => Self::EdDsa,
            SigningAlgorithm::Es256 => Self::Es256,
            SigningAlgorithm::Rs256 => Self::Rs256,
            SigningAlgorithm::Hs256 => Self::Hs256,
        }
    }
}

/// What a policy says of keys.
pub(crate) fn settings(config: &Config) -> Settings {
    let (auth, session, secrets) = (&config.auth.config, &config.session, &config.secrets);
    Settings {
        algorithm: auth.algorithm.into(),
        access_life: auth.access_token.duration().saturating_add(LEEWAY),
        // The tokens of pages live as long as the session that they are bound to.
        mac_life: session.absolute.duration().max(session.remember.duration()).saturating_add(LEEWAY),
        pepper: config.password.pepper,
        lead: secrets.lead.duration(),
        rotate: secrets.rotate.duration(),
        rotate_pepper: secrets.rotate_pepper.duration(),
    }
}

/// What would keep a gateway from having its keys, before anybody needs one. Nothing is made.
///
/// # Errors
/// Which key, where, and how to mend it.
pub(crate) fn check(config: &Config, provider: &dyn Provider) -> Result<(), rings::Error> {
    if matches!(config.secrets.provider, crate::policy::values::SecretProvider::File(_)) {
        crate::policy::secrets::key_file(config).check()?;
    }
    rings::check(provider, &settings(config))
}

/// What is told when a key came, went, or took its turn.
type Follower = Box<dyn Fn(&Rings) + Send + Sync>;

/// The rings, once somebody has opened them. They outlive policies.
#[derive(Default)]
struct Opened {
    rings: OnceLock<Rings>,
    /// When the store was last asked in vain; held while it is asked.
    failed: Mutex<Option<(Timestamp, String)>>,
    follower: OnceLock<Follower>,
    /// What the follower has seen.
    generation: AtomicU64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("rings", &self.rings).finish_non_exhaustive()
    }
}

impl Opened {
    /// Tells the follower when a key came, went, or took its turn since it was last told.
    fn follow(&self) {
        let (Some(rings), Some(follower)) = (self.rings.get(), self.follower.get()) else { return };
        let generation = rings.generation();
        if self.generation.swap(generation, Ordering::AcqRel) != generation {
            follower(rings);
        }
    }
}

/// The keys under one policy.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    opened: Arc<Opened>,
    provider: Arc<dyn Provider>,
    settings: Settings,
    clock: Clock,
    log: Arc<Log>,
}

impl Keys {
    pub(crate) fn new(
        config: &Config,
        provider: Arc<dyn Provider>,
        state: &State,
        clock: &Clock,
        log: &Arc<Log>,
    ) -> Self {
        let opened = state.get("keys", Opened::default);
        Self { opened, provider, settings: settings(config), clock: clock.clone(), log: Arc::clone(log) }
    }

    /// The rings; opens them the first time, and makes keys that are missing where the store can be written. That reads
    /// files and may make a key, once in the life of a process; where it fails, the store is asked once a second.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn open(&self) -> Result<&Rings, String> {
        if let Some(rings) = self.opened.rings.get() {
            return Ok(rings);
        }
        let mut failed = self.opened.failed.lock();
        if let Some(rings) = self.opened.rings.get() {
            return Ok(rings);
        }
        let now = self.clock.now();
        if let Some((at, why)) = &*failed
            && now.0.saturating_sub(at.0) < AGAIN_MS
        {
            return Err(why.clone());
        }
        match Rings::open(Arc::clone(&self.provider), self.settings.clone(), self.clock.clone()) {
            Ok(rings) => {
                self.keep_fresh(&rings);
                Ok(self.opened.rings.get_or_init(|| rings))
            }
            Err(error) => {
                let why = error.to_string();
                *failed = Some((now, why.clone()));
                Err(why)
            }
        }
    }

    fn keep_fresh(&self, rings: &Rings) {
        // Not held: the thread ends with the gateway, of which a test makes many.
        let (opened, log) = (Arc::downgrade(&self.opened), Arc::clone(&self.log));
        let kept = rings.keep_fresh(move |told| match told {
            Event::Changed => {
                if let Some(opened) = opened.upgrade() {
                    opened.follow();
                }
                drop(event::KEYS_CHANGED.line(&log));
            }
            Event::Away(error) => drop(event::KEYS_AWAY.line(&log).show("reason", error)),
            Event::Back => drop(event::KEYS_BACK.line(&log)),
            _ => {}
        });
        if let Err(error) = kept {
            event::KEYS_AWAY.line(&self.log).show("reason", error);
        }
    }

    /// Goes on under this policy. Where the store cannot be used now, everything stays as it was, and is said.
    pub(crate) fn adopt(&self) {
        let Some(rings) = self.opened.rings.get() else { return };
        if let Err(error) = rings.adopt(Arc::clone(&self.provider), self.settings.clone()) {
            event::KEYS_AWAY.line(&self.log).show("reason", error);
        }
        self.opened.follow();
    }

    /// From now on `follower` is told when a key came, went, or took its turn. There is one.
    pub(crate) fn followed_by(&self, follower: impl Fn(&Rings) + Send + Sync + 'static) {
        let _ = self.opened.follower.set(Box::new(follower));
        self.opened.generation.store(0, Ordering::Release);
        self.opened.follow();
    }

    /// For a token with an unknown key: whether the store has news, and it is worth checking it again. At most once a
    /// second, whatever strangers send.
    pub(crate) fn ask_again(&self) -> bool {
        let news = self.opened.rings.get().is_some_and(Rings::ask_again);
        if news {
            self.opened.follow();
            drop(event::KEYS_CHANGED.line(&self.log));
        }
        news
    }

    /// How long readers of the JWKS may keep it, in seconds: a new key is published for twice as long before it signs.
    pub(crate) fn published_for(&self) -> u64 {
        (self.settings.lead / 2).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use palisade_identity::rings::{Name, Rotation, rotate};
    use palisade_vault::{Memory, Store as _};

    use super::*;

    fn keys(provider: Arc<dyn Provider>, clock: &Clock) -> Keys {
        let log = Arc::new(Log::open(&crate::policy::config::Logs::default(), clock.clone()).unwrap());
        Keys { opened: Arc::default(), provider, settings: Settings::default(), clock: clock.clone(), log }
    }

    #[test]
    fn whoever_follows_is_told_of_each_change_once() {
        let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
        let keys = keys(Arc::clone(&store) as Arc<dyn Provider>, &clock);
        let told = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&told);
        let first = keys.open().unwrap().mac(b"x");
        keys.followed_by(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(told.load(Ordering::Relaxed), 1, "what is there already");
        assert!(!keys.ask_again(), "nothing new");
        let revoke = Rotation { revoke: true, ..Rotation::default() };
        rotate(store.as_ref(), Name::Mac, &revoke, clock.now()).unwrap();
        clock.advance(Duration::from_secs(1));
        assert!(keys.ask_again() && !keys.ask_again());
        assert_eq!(told.load(Ordering::Relaxed), 2);
        assert!(!keys.open().unwrap().checks(b"x", &first));
    }

    #[test]
    fn a_store_in_trouble_is_asked_once_a_second() {
        let (store, clock) = (Arc::new(Memory::new()), Clock::adjustable());
        store.set("mac-key", palisade_base::Secret::new("short".into())).unwrap();
        let keys = keys(Arc::clone(&store) as Arc<dyn Provider>, &clock);
        assert!(keys.open().unwrap_err().contains("mac-key"));
        store.remove("mac-key").unwrap();
        assert!(keys.open().is_err(), "not asked again");
        clock.advance(Duration::from_secs(1));
        assert!(keys.open().is_ok());
    }
}
