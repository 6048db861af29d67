//! Opens the database, with what each kind needs to be safe.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, pool::PoolOptions};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, SqliteTransactionMode, SqlxPostgresConnector, SqlxSqliteConnector,
    TransactionOptions, TransactionTrait as _,
};
use tokio::sync::Semaphore;

use crate::connection::{Feed, bounded, sealed::Sealed as _};
use crate::error::of_driver;
use crate::options::{Options, Target};
use crate::{Error, Result, Tx, migrations};

/// A database. A clone is another handle to the same pool.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    db: DatabaseConnection,
    /// One connection beside the others: see [`Store::feed`].
    feed: DatabaseConnection,
    statement_timeout: Duration,
    acquire_timeout: Duration,
    /// SQLite's one writer.
    writers: Option<Arc<Semaphore>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_embedded() { "Store(SQLite)" } else { "Store(PostgreSQL)" })
    }
}

impl Store {
    /// Opens it. SQLite's file is made, with mode 0600, when it is not there; PostgreSQL is not waited for: what runs
    /// while it is away ends in [`Error::Away`].
    ///
    /// # Errors
    /// When the file cannot be opened, or the options of PostgreSQL cannot be read.
    pub async fn open(options: &Options) -> Result<Self> {
        let ((db, feed), writers) = match &options.target {
            Target::Sqlite(file) => (sqlite(file, options).await?, Some(Arc::new(Semaphore::new(1)))),
            Target::Postgres(url) => (postgres(url.expose(), options)?, None),
        };
        let (statement_timeout, acquire_timeout) = (options.statement_timeout, options.acquire_timeout);
        Ok(Self(Arc::new(Inner { db, feed, statement_timeout, acquire_timeout, writers })))
    }

    /// For reading the feed of changes, on a connection that nothing else waits for: requests may use up all others, as
    /// with made-up sessions that have to be looked up, and what was revoked elsewhere is known in time all the same.
    pub const fn feed(&self) -> Feed<'_> {
        Feed(self)
    }

    /// Whether it is a file of this machine.
    pub fn is_embedded(&self) -> bool {
        self.0.writers.is_some()
    }

    /// Brings the tables to this version. Does nothing where they are.
    ///
    /// # Errors
    /// [`Error`]; what a failed migration did is undone.
    pub async fn migrate(&self) -> Result<()> {
        if self.pending().await?.is_empty() {
            return Ok(());
        }
        // Two processes that start at once, such as a gateway and a command, both see what is pending. One transaction
        // for all of it, which the second waits for and then finds nothing to do: SQLite lets one write at a time,
        // PostgreSQL is asked for a lock, and not to take a change of large tables for a stuck statement.
        let tx = self.begin().await?;
        let migrated = tokio::time::timeout(MIGRATION, async {
            if !self.is_embedded() {
                tx.db().execute_unprepared(ONE_MIGRATES).await?;
            }
            migrations::up(tx.db(), usize::MAX).await
        });
        migrated.await.map_err(|_| Error::Away("the migration of the tables did not end in time".into()))??;
        // The feed tells of rows only.
        tx.commit().await.map(drop)
    }

    /// The names of migrations that have not run yet.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pending(&self) -> Result<Vec<String>> {
        let pending = bounded(self.0.statement_timeout, migrations::pending(&self.0.db)).await?;
        Ok(pending.iter().map(|migration| migration.name.to_owned()).collect())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Error`]; waiting for the one writer ends in [`Error::Away`] as well.
    pub async fn begin(&self) -> Result<Tx> {
        let turn = match &self.0.writers {
            None => None,
            Some(writers) => {
                let turn = tokio::time::timeout(self.0.acquire_timeout, writers.clone().acquire_owned()).await;
                let turn = turn.map_err(|_| Error::Away("too many writers wait for the database".into()))?;
                Some(turn.map_err(|_| Error::Away("the database was closed".into()))?)
            }
        };
        // A transaction that begins by reading could not become a writer while another writes: SQLite would refuse it
        // at once, without waiting.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = bounded(self.0.statement_timeout, self.0.db.begin_with_options(options)).await?;
        Ok(Tx::new(tx, self.0.statement_timeout, turn))
    }

    /// Whether it answers now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ping(&self) -> Result<()> {
        bounded(self.0.statement_timeout, self.0.db.ping()).await
    }

    /// Closes the connections once they are back.
    pub async fn close(&self) {
        // An error here is a connection that is closed already.
        let _ = self.0.db.close_by_ref().await;
        let _ = self.0.feed.close_by_ref().await;
    }

    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.0.db
    }

    pub(crate) fn feed_connection(&self) -> &DatabaseConnection {
        &self.0.feed
    }

    pub(crate) fn statement_timeout(&self) -> Duration {
        self.0.statement_timeout
    }
}

/// What bringing all tables to another version may take, with the wait for another instance that does it.
const MIGRATION: Duration = Duration::from_secs(600);

/// Ends with the transaction. The number is ours alone: `palisade` in ASCII.
const ONE_MIGRATES: &str = "set local statement_timeout = '600s'; set local lock_timeout = '600s'; \
     select pg_advisory_xact_lock(x'70616c6973616465'::bigint)";

/// SQLite's own default, so that it is known.
const PAGE_BYTES: u32 = 4096;

/// Limits that both kinds share. A connection is asked before it is used: after a restart of the database the old ones
/// are dead.
fn limits<DB: sea_orm::sqlx::Database>(options: &Options) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(options.max_connections.max(1))
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_lifetime(options.max_lifetime)
        .test_before_acquire(true)
}

async fn sqlite(file: &Path, options: &Options) -> Result<(DatabaseConnection, DatabaseConnection)> {
    make_private(file)?;
    let connect = SqliteConnectOptions::new()
        .filename(file)
        // Made above, with its mode.
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // What was acknowledged outlives the power supply, not only the process.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.statement_timeout)
        // Deleted secrets are overwritten, and a schema that somebody tampered with runs no functions.
        .pragma("secure_delete", "ON")
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .disable_statement_logging();
    let connect = match options.max_bytes {
        None => connect,
        Some(bytes) => {
            connect.page_size(PAGE_BYTES).pragma("max_page_count", (bytes / u64::from(PAGE_BYTES)).to_string())
        }
    };
    let pool: SqlitePoolOptions = limits(options);
    let feed = pool.clone().max_connections(1).connect_lazy_with(connect.clone());
    let pool = unless_held(options.statement_timeout, || pool.clone().connect_with(connect.clone())).await?;
    Ok((SqlxSqliteConnector::from_sqlx_sqlite_pool(pool), SqlxSqliteConnector::from_sqlx_sqlite_pool(feed)))
}

/// Opens a file that another process may be opening as well: for the moment in which one of them gives it its journal, or
/// the last one takes that away, SQLite refuses all others at once, whatever they were willing to wait.
async fn unless_held<T, F>(within: Duration, mut open: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, sea_orm::sqlx::Error>>,
{
    let start = Instant::now();
    loop {
        match open().await.map_err(|error| of_driver(&error)) {
            Err(Error::Away(_)) if start.elapsed() < within => tokio::time::sleep(Duration::from_millis(20)).await,
            ended => return ended,
        }
    }
}

/// The file exists from here on, for its owner only; SQLite gives its journal the same mode.
#[cfg(unix)]
fn make_private(file: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let opened = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    match opened {
        Ok(_) => Ok(()),
        // A database that can only be read is opened: what needs no write works.
        Err(_) if file.is_file() => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::StorageFull => Err(Error::Full),
        Err(why)
            if matches!(why.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) =>
        {
            Err(Error::ReadOnly)
        }
        Err(why) => Err(Error::Away(why.to_string())),
    }
}

#[cfg(not(unix))]
fn make_private(file: &Path) -> Result<()> {
    match std::fs::OpenOptions::new().append(true).create(true).open(file) {
        Ok(_) => Ok(()),
        Err(why) => Err(Error::Away(why.to_string())),
    }
}

fn postgres(url: &str, options: &Options) -> Result<(DatabaseConnection, DatabaseConnection)> {
    // The driver's own message could repeat the URL, and so the password.
    let connect: PgConnectOptions =
        url.parse().map_err(|_| Error::Failed("the URL of the database cannot be read".into()))?;
    // Whoever sits between us and the database reads every hash and writes every role: what is not this machine proves
    // its name, whatever the URL says.
    let connect = match is_local(&connect) {
        true => connect,
        false => connect.ssl_mode(PgSslMode::VerifyFull),
    };
    let connect = match &options.root_certificates {
        Some(file) => connect.ssl_root_cert(file),
        None => connect,
    };
    let statement_ms = options.statement_timeout.as_millis().to_string();
    let connect = connect
        .application_name("palisade")
        // The server gives up as well, so that no lock outlives who waited for it.
        .options([
            ("statement_timeout", statement_ms.as_str()),
            ("lock_timeout", statement_ms.as_str()),
            ("idle_in_transaction_session_timeout", "30000"),
        ])
        .disable_statement_logging();
    let pool: PgPoolOptions = limits(options);
    let feed = pool.clone().max_connections(1).connect_lazy_with(connect.clone());
    let of = SqlxPostgresConnector::from_sqlx_postgres_pool;
    Ok((of(pool.connect_lazy_with(connect)), of(feed)))
}

fn is_local(connect: &PgConnectOptions) -> bool {
    let host = connect.get_host();
    connect.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a gateway and commands do that start in the same moment: on a file that is not there yet, or not migrated.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whoever_starts_at_once_migrates_once() {
        const STARTERS: usize = 8;
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let start = Arc::new(tokio::sync::Barrier::new(STARTERS));
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..STARTERS {
                let (file, start) = (folder.path().join("palisade.db"), Arc::clone(&start));
                all.spawn(async move {
                    start.wait().await;
                    let store = Store::open(&Options::sqlite(file)).await?;
                    store.migrate().await?;
                    store.pending().await
                });
            }
            for pending in all.join_all().await {
                assert_eq!(pending.unwrap(), Vec::<String>::new());
            }
        }
    }
}
