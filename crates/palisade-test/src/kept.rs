//! Where a gateway keeps accounts, sessions and keys: in its own process, or on servers that several instances share.
//! Identity is the same product on both: each of its tests runs on both, by [`on_both!`](crate::on_both).

use anyhow::Result;

use crate::palisade::{Palisade, Setup, written_policy};
use crate::postgres::{Database, Postgres};
use crate::redis::Redis;

/// Where accounts, sessions and keys are kept.
#[derive(Debug)]
pub enum Kept {
    /// SQLite, in the process.
    Embedded,
    /// PostgreSQL and Redis, which other instances may share.
    Shared(Box<Servers>),
}

/// Servers of a test's own.
#[derive(Debug)]
pub struct Servers {
    /// Of [`Postgres::shared`], unless the test says otherwise.
    pub database: Database,
    /// With nobody else's counters in it.
    pub redis: Redis,
}

impl Kept {
    /// On servers, with nothing in them.
    ///
    /// # Errors
    /// When they can't be installed or do not start.
    pub async fn shared() -> Result<Self> {
        let database = Postgres::shared().await?.database().await?;
        Ok(Self::Shared(Box::new(Servers { database, redis: Redis::start().await? })))
    }

    /// Another place of the same kind, with nothing in it.
    ///
    /// # Errors
    /// As [`Kept::shared`].
    pub async fn another(&self) -> Result<Self> {
        match self {
            Self::Embedded => Ok(Self::Embedded),
            Self::Shared(_) => Self::shared().await,
        }
    }

    /// A gateway under [`written_policy`] that keeps its accounts here.
    pub fn setup(&self, url: &str, more: &str) -> Setup {
        self.over(Palisade::serve(), url, more)
    }

    /// The same, over what is set up already.
    pub fn over(&self, setup: Setup, url: &str, more: &str) -> Setup {
        self.under(setup, &written_policy(url, more))
    }

    /// The same under any policy that has no `[database]` and no `[redis]`.
    pub fn under(&self, setup: Setup, policy: &str) -> Setup {
        let setup = self.named(setup, policy);
        match self {
            Self::Embedded => setup,
            Self::Shared(_) => setup.first(&["db", "migrate"], ""),
        }
    }

    /// The same, and PostgreSQL is as it was made: for a policy that has no `[auth]` yet.
    pub fn named(&self, setup: Setup, policy: &str) -> Setup {
        let setup = setup.policy(&format!("{policy}{}", self.sections()));
        match self.url() {
            None => setup,
            Some(url) => setup.secret("database-url", &url),
        }
    }

    /// What the policy says of it.
    pub fn sections(&self) -> String {
        match self {
            Self::Embedded => String::new(),
            Self::Shared(servers) => format!(
                "\n[database]\nurl = {{ secret = \"database-url\" }}\n[redis]\nurl = \"{}\"\n",
                servers.redis.url().trim_end_matches('/'),
            ),
        }
    }

    /// The secret `database-url` of that policy.
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Embedded => None,
            Self::Shared(servers) => Some(servers.database.url()),
        }
    }

    /// All rows that the servers hold, bytes as hexadecimal digits; `None` where a file of the gateway's holds them.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn dump(&self) -> Result<Option<String>> {
        match self {
            Self::Embedded => Ok(None),
            Self::Shared(servers) => servers.dump().await.map(Some),
        }
    }
}

impl Servers {
    /// All rows and all values, bytes as hexadecimal digits.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn dump(&self) -> Result<String> {
        let mut dump = self.database.dump().await?;
        for key in self.redis.command(&["KEYS", "*"]).await?.lines() {
            dump += &format!("{key} {}\n", self.redis.command(&["GET", key]).await?);
        }
        Ok(dump)
    }
}

/// Runs a test to its end, as `#[tokio::test]` does. Only for [`on_both!`](crate::on_both).
///
/// # Panics
/// When the machine gives no runtime.
#[doc(hidden)]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap_or_else(|why| panic!("no runtime: {why}")).block_on(test)
}

/// Makes two tests of each function, which takes [`Kept`]: one on what is inside, one on the servers that several instances
/// share.
#[macro_export]
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[test]
            fn embedded() -> impl ::std::process::Termination {
                $crate::kept::run(super::$test($crate::kept::Kept::Embedded))
            }

            #[test]
            fn shared() -> impl ::std::process::Termination {
                $crate::kept::run(async {
                    let kept = $crate::kept::Kept::shared().await;
                    super::$test(kept.unwrap_or_else(|why| panic!("PostgreSQL and Redis: {why:#}"))).await
                })
            }
        }
    )+};
}
