//! PostgreSQL as a real service: a cluster of the tests' own, a database a test, stopped, killed and frozen by handle.
//!
//! Settings are fast where only a crash of the *machine* would tell the difference (`fsync` is off), and correct where a
//! crash of the *server* would: what was acknowledged is in the system's cache, and a SIGKILL loses none of it.

use std::ops::Deref;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid, User, chown};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::ca::Identity;
use crate::provision::{self, Need, need};
use crate::service::{Program, Service};
use crate::{ports, shell, watchdog};

/// The superuser of the cluster. Not `postgres`, so that a test which needs that name by accident shows.
pub const OWNER: &str = "owner";
/// Its password. Passwords are checked (SCRAM), so that a wrong one fails as it would elsewhere.
pub const PASSWORD: &str = "owner-password";

/// A statement of a test's own ends within this time.
const STATEMENT: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    port: u16,
    /// Databases made so far.
    made: AtomicU32,
    /// Declared last: removed after the server has ended.
    _directory: TempDir,
}

/// A database of a test's own, dropped with its handle.
#[derive(Debug)]
pub struct Database {
    name: String,
    port: u16,
}

impl Postgres {
    /// A server of the caller's own, to be killed at will.
    ///
    /// # Errors
    /// When PostgreSQL can't be installed or does not start.
    pub async fn start() -> Result<Postgres> {
        Postgres::with(&[], None).await
    }

    /// One server for all tests of a process, each with a [`Postgres::database`] of its own. Nobody stops it.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn shared() -> Result<&'static Postgres> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || {
                let postgres = Postgres::start().await?;
                // A static is never dropped.
                watchdog::remove(postgres._directory.path());
                Ok(postgres)
            })
            .await
    }

    /// A server with further settings, such as `("max_connections", "20")`, and with TLS where an identity is given.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn with(settings: &[(&str, &str)], tls: Option<&Identity>) -> Result<Postgres> {
        need(Need::Postgres)?;
        let account = Account::find()?;
        let directory = tempfile::Builder::new().prefix("palisade-test-").tempdir_in(roomiest())?;
        account.give(directory.path())?;
        let data = directory.path().join("data");
        make_cluster(&account, directory.path(), &data)?;
        let port = ports::free()?;
        let mut arguments: Vec<String> = vec!["-D".into(), data.display().to_string(), "-p".into(), port.to_string()];
        let mut set = |name: &str, value: &str| arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        for (name, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("wal_level", "minimal"),
            ("max_wal_senders", "0"),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("jit", "off"),
            // In files of the cluster: what lies elsewhere outlives a server that is killed.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_min_messages", "warning"),
            ("timezone", "UTC"),
        ] {
            set(name, value);
        }
        if let Some(identity) = tls {
            let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
            identity.write(&certificate, &key)?;
            account.give(&certificate)?;
            account.give(&key)?;
            set("ssl", "on");
            set("ssl_cert_file", &certificate.display().to_string());
            set("ssl_key_file", &key.display().to_string());
        }
        settings.iter().for_each(|(name, value)| set(name, value));
        let folder = directory.path().to_owned();
        let program = Program {
            name: "postgres",
            command: Box::new(move || account.command("postgres", &folder, &arguments)),
            ready: "database system is ready to accept connections",
            // "Fast": clients are disconnected, nothing is lost. SIGTERM would wait for them.
            stop: Signal::SIGINT,
        };
        let service = Service::start(program).await?;
        Ok(Postgres { service, port, made: AtomicU32::new(0), _directory: directory })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the database `postgres`, as the cluster's owner.
    pub fn url(&self) -> String {
        url(OWNER, PASSWORD, self.port, "postgres")
    }

    /// The URL of any database as any user.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        url(user, password, self.port, database)
    }

    /// A new, empty database.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn database(&self) -> Result<Database> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.sql("postgres", &format!("CREATE DATABASE {name}")).await?;
        Ok(Database { name, port: self.port })
    }

    /// Runs statements in a database as the owner: what they returned, a line a row, fields divided by `|`.
    ///
    /// # Errors
    /// When one fails, with what the server said.
    pub async fn sql(&self, database: &str, statements: &str) -> Result<String> {
        run(self.port, database, statements).await
    }
}

/// It is stopped, killed, frozen and started again as any other service.
impl Deref for Postgres {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Database {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, as its owner.
    pub fn url(&self) -> String {
        url(OWNER, PASSWORD, self.port, &self.name)
    }

    /// Its URL as another user, made by [`Database::sql`].
    pub fn url_as(&self, user: &str, password: &str) -> String {
        url(user, password, self.port, &self.name)
    }

    /// Runs statements in it as its owner: what they returned, a line a row, fields divided by `|`.
    ///
    /// # Errors
    /// When one fails, with what the server said.
    pub async fn sql(&self, statements: &str) -> Result<String> {
        run(self.port, &self.name, statements).await
    }

    /// All rows of the gateway's tables as text, bytes as hexadecimal digits.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn dump(&self) -> Result<String> {
        let tables = self.sql("SELECT tablename FROM pg_tables WHERE tablename LIKE 'palisade_%'").await?;
        let rows: Vec<String> = tables.lines().map(|table| format!("SELECT t::text FROM {table} t")).collect();
        self.sql(&rows.join(" UNION ALL ")).await
    }
}

impl Drop for Database {
    /// Not awaited: whether it succeeds matters only to how full the disk gets.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let _ = psql(self.port, "postgres", &statement).spawn();
    }
}

fn url(user: &str, password: &str, port: u16, database: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
}

async fn run(port: u16, database: &str, statements: &str) -> Result<String> {
    let mut command = tokio::process::Command::from(psql(port, database, statements));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(STATEMENT, command.output()).await.context("`psql` does not end")??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn psql(port: u16, database: &str, statements: &str) -> Command {
    let mut command = Command::new(provision::postgres("psql"));
    command
        .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1"])
        .args(["--host=127.0.0.1", &format!("--port={port}"), &format!("--username={OWNER}")])
        .args([&format!("--dbname={database}"), "--command", statements])
        .envs([("PGPASSWORD", PASSWORD), ("PGCONNECT_TIMEOUT", "10")])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command
}

/// Who the server runs as: PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
struct Account(Option<(Uid, Gid)>);

impl Account {
    fn find() -> Result<Account> {
        if !Uid::effective().is_root() {
            return Ok(Account(None));
        }
        let user = User::from_name("postgres")?.context("Debian's package makes the user `postgres`")?;
        Ok(Account(Some((user.uid, user.gid))))
    }

    /// Makes it the owner of a file or folder.
    fn give(self, path: &Path) -> Result<()> {
        let Account(Some((uid, gid))) = self else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).with_context(|| path.display().to_string())
    }

    fn command(self, program: &str, folder: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new(provision::postgres(program));
        command.args(arguments).current_dir(folder).env("LC_ALL", "C.UTF-8");
        if let Account(Some((uid, gid))) = self {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }
}

/// Where clusters are: in memory where that is large. A database is three hundred files, and every test has one.
fn roomiest() -> PathBuf {
    const ROOM: u64 = 4 << 30;
    let memory = Path::new("/dev/shm");
    let has_room = statvfs(memory).is_ok_and(|about| about.blocks_available() * about.fragment_size() >= ROOM);
    if has_room { memory.to_owned() } else { std::env::temp_dir() }
}

fn make_cluster(account: &Account, folder: &Path, data: &Path) -> Result<()> {
    let password: PathBuf = folder.join("password");
    std::fs::write(&password, PASSWORD)?;
    account.give(&password)?;
    let arguments = [
        "--no-sync".to_owned(),
        "--auth=scram-sha-256".to_owned(),
        "--encoding=UTF8".to_owned(),
        "--locale=C.UTF-8".to_owned(),
        format!("--username={OWNER}"),
        format!("--pwfile={}", password.display()),
        format!("--pgdata={}", data.display()),
    ];
    shell::run(&mut account.command("initdb", folder, &arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventually, killed};

    const SECONDS: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_was_acknowledged_outlives_a_kill_on_the_same_port() {
        let postgres = Postgres::start().await.unwrap();
        let database = postgres.database().await.unwrap();
        database.sql("CREATE TABLE t (n int)").await.unwrap();
        for number in 0..3 {
            database.sql(&format!("INSERT INTO t VALUES ({number})")).await.unwrap();
            let before = (postgres.process().id(), postgres.process().descendants());
            postgres.kill();
            assert!(!postgres.runs() && killed(postgres.process().ended().unwrap()));
            assert!(database.sql("SELECT 1").await.unwrap_err().to_string().contains("refused"));
            postgres.restart().await.unwrap();
            assert_ne!(before.0, postgres.process().id());
            assert!(before.1.len() > 3, "backends of the server were killed with it");
            assert_eq!(database.sql("SELECT count(*) FROM t").await.unwrap(), (number + 1).to_string());
        }
        assert!(postgres.stop().await.unwrap().success());
        postgres.restart().await.unwrap();
        assert_eq!(database.sql("SELECT n, n + 1 FROM t WHERE n > 0 ORDER BY n").await.unwrap(), "1|2\n2|3");
    }

    #[tokio::test]
    async fn frozen_it_accepts_and_answers_nobody() {
        let postgres = Postgres::start().await.unwrap();
        postgres.pause().unwrap();
        let waiting = postgres.sql("postgres", "SELECT 1");
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
        postgres.resume().unwrap();
        assert_eq!(waiting.await.unwrap(), "1");
        postgres.pause().unwrap();
        assert!(postgres.stop().await.unwrap().success(), "also from there it ends in order");
    }

    #[tokio::test]
    async fn databases_are_apart_and_passwords_are_checked() {
        let postgres = Postgres::shared().await.unwrap();
        let (one, two) = (postgres.database().await.unwrap(), postgres.database().await.unwrap());
        one.sql("CREATE TABLE t (n int); CREATE ROLE app LOGIN PASSWORD 'x'").await.unwrap();
        assert!(two.sql("SELECT * FROM t").await.unwrap_err().to_string().contains("does not exist"));
        let psql = |url: String| Command::new(provision::postgres("psql")).args([&url, "-c", ""]).output().unwrap();
        assert!(psql(one.url()).status.success() && psql(one.url_as("app", "x")).status.success());
        let wrong = psql(one.url_as("app", "y"));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("password authentication failed"));
        let name = one.name().to_owned();
        drop(one);
        let gone = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        eventually(SECONDS, "the database is dropped", async || postgres.sql("postgres", &gone).await.unwrap() == "0")
            .await
            .unwrap();
    }
}
