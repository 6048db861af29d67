//! The services on a real database.

mod keys;
mod login;
mod refresh;
mod sessions;
mod tokens;
mod users;

use std::net::{IpAddr, Ipv4Addr};

use palisade_base::Clock;
use palisade_store::{Options, Store};
use tempfile::TempDir;

use super::*;
use crate::password::pool::Limits;
use crate::token::{Algorithm, SigningKey};

pub(super) const PASSWORD: &str = "correct-horse-battery-42";

/// A database of its own, and what runs on it.
pub(super) struct World {
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    folder: TempDir,
}

/// Not a machine of this test's: each test has addresses enough.
pub(super) fn from(last: u8) -> Origin {
    Origin { agent: "test".into(), ..Origin::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))) }
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::adjustable();
        let store = Store::open(&Options::sqlite(folder.path().join("palisade.db"))).await.expect("a database");
        store.migrate().await.expect("migrated");
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let identity = Self::instance(store, clock.clone(), Keyring::new(key, clock.now()));
        identity.catch_up().await.expect("the feed");
        Self { identity, clock, folder }
    }

    fn instance(store: Store, clock: Clock, keyring: Keyring) -> Identity {
        let limits = Limits { threads: 2, ..Limits::default() };
        Identity::new(Parts {
            store,
            pool: Pool::new(limits, clock.clone()).expect("threads"),
            clock,
            hasher: Hasher::default(),
            policy: Policy::default(),
            keyring,
            settings: Settings::new("https://api.example.com"),
        })
    }

    /// Another process on the same database, with the same keys.
    pub(super) async fn another(&self) -> Identity {
        let options = Options::sqlite(self.folder.path().join("palisade.db"));
        let store = Store::open(&options).await.expect("a database");
        let ring = self.identity.shared.ring.load().ring.clone();
        let other = Self::instance(store, self.clock.clone(), ring);
        other.catch_up().await.expect("the feed");
        other
    }

    pub(super) async fn user(&self, name: &str) -> Account {
        let new = NewUser { name, email: None, password: PASSWORD };
        self.identity.register(new, &from(200)).await.expect("registered")
    }

    pub(super) async fn login(&self, name: &str) -> PasswordChecked {
        self.identity.check_password(name, PASSWORD, &from(201)).await.expect("logged in")
    }
}
