//! The services on a real database.

/// A test on SQLite and on PostgreSQL, each on a database of its own.
macro_rules! on_both {
    ($(#[$doc:meta])* async fn $name:ident($world:ident: World) $body:block) => {
        $(#[$doc])*
        mod $name {
            use super::*;

            async fn run($world: World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run(World::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run(World::postgres().await).await;
            }
        }
    };
}

mod authorize;
mod durability;
mod import;
mod issuers;
mod keys;
mod links;
mod login;
mod names;
mod refresh;
mod roles;
mod rotation;
mod sessions;
mod streams;
mod tokens;
mod users;
mod weather;

use std::net::{IpAddr, Ipv4Addr};

use palisade_base::{Clock, Secret};
use palisade_store::{Options, Store};
use palisade_test::postgres::{Database, Postgres};
use tempfile::TempDir;

use super::*;
use crate::password::pool::Limits;
use crate::token::{Algorithm, SigningKey};

pub(super) const PASSWORD: &str = "correct-horse-battery-42";

/// A database of its own, and what runs on it.
pub(super) struct World {
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    place: Place,
}

enum Place {
    Sqlite(TempDir),
    Postgres(Database),
}

/// The files of a database, or its rows as text.
pub(super) struct Dump(Vec<u8>);

impl Dump {
    /// Whether these bytes are in it: as they are in files, or as rows show them.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        let digits = data_encoding::HEXLOWER.encode(bytes);
        [bytes, digits.as_bytes()].iter().any(|bytes| self.0.windows(bytes.len()).any(|window| window == *bytes))
    }
}

/// Not a machine of this test's: each test has addresses enough.
pub(super) fn from(last: u8) -> Origin {
    Origin { agent: "test".into(), ..Origin::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))) }
}

impl Place {
    fn options(&self) -> Options {
        match self {
            Self::Sqlite(folder) => Options::sqlite(folder.path().join("palisade.db")),
            Self::Postgres(database) => {
                Options::parse(&Secret::new(database.url()), std::path::Path::new("")).expect("a URL")
            }
        }
    }
}

impl World {
    pub(super) async fn sqlite() -> Self {
        Self::new(Place::Sqlite(tempfile::tempdir().expect("a folder"))).await
    }

    pub(super) async fn postgres() -> Self {
        let server = Postgres::shared().await.expect("PostgreSQL");
        Self::new(Place::Postgres(server.database().await.expect("a database"))).await
    }

    /// Another world of the same kind: other users, other keys.
    pub(super) async fn sibling(&self) -> Self {
        match self.place {
            Place::Sqlite(_) => Self::sqlite().await,
            Place::Postgres(_) => Self::postgres().await,
        }
    }

    async fn new(place: Place) -> Self {
        let clock = Clock::adjustable();
        let store = Store::open(&place.options()).await.expect("a database");
        store.migrate().await.expect("migrated");
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let identity = Self::instance(store, clock.clone(), Keyring::new(key, clock.now()));
        identity.catch_up().await.expect("the feed");
        Self { identity, clock, place }
    }

    fn instance(store: Store, clock: Clock, keyring: Keyring) -> Identity {
        // Room for tests that ask for much at once: what the pool sheds has tests of its own.
        let limits = Limits { threads: 2, per_account: 100, per_address: 100, ..Limits::default() };
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
        self.another_with(16).await
    }

    /// The same with so many connections.
    pub(super) async fn another_with(&self, connections: u32) -> Identity {
        let mut options = self.place.options();
        options.max_connections = connections;
        let store = Store::open(&options).await.expect("a database");
        let ring = self.identity.shared.ring.load().ring.clone();
        let other = Self::instance(store, self.clock.clone(), ring);
        other.catch_up().await.expect("the feed");
        other
    }

    /// All that the database holds.
    pub(super) async fn dump(&self) -> Dump {
        match &self.place {
            Place::Sqlite(folder) => {
                let files = std::fs::read_dir(folder.path()).expect("a folder");
                Dump(files.flat_map(|file| std::fs::read(file.expect("an entry").path()).expect("bytes")).collect())
            }
            Place::Postgres(database) => Dump(database.dump().await.expect("rows").into_bytes()),
        }
    }

    pub(super) async fn user(&self, name: &str) -> Account {
        let new = NewUser { name, email: None, password: PASSWORD };
        self.identity.register(new, &from(200)).await.expect("registered")
    }

    pub(super) async fn user_at(&self, name: &str, email: &str) -> Account {
        let new = NewUser { name, email: Some(email), password: PASSWORD };
        self.identity.register(new, &from(200)).await.expect("registered")
    }

    pub(super) async fn login(&self, name: &str) -> PasswordChecked {
        self.identity.check_password(name, PASSWORD, &from(201)).await.expect("logged in")
    }
}
