//! Redis as a real service: a server of the test's own, stopped, killed and frozen by handle, with a replica if wanted.

use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::ca::Identity;
use crate::provision::{Need, need};
use crate::service::{Program, Service};
use crate::{eventually, ports};

/// A command of a test's own is answered, and a replica in step, within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Redis {
    service: Service,
    port: u16,
    password: Option<String>,
    tls: bool,
    /// Declared last: removed after the server has ended.
    _directory: TempDir,
}

/// How a server is started.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Whether what it holds outlives its end, a SIGKILL included (an append-only file). Otherwise it starts empty.
    pub persistent: bool,
    /// What clients have to say.
    pub password: Option<&'a str>,
    /// Speaks TLS only, under this identity.
    pub tls: Option<&'a Identity>,
    /// Follows this server.
    pub replica_of: Option<&'a Redis>,
}

impl Redis {
    /// A server that keeps nothing beyond its end.
    ///
    /// # Errors
    /// When Redis can't be installed or does not start.
    pub async fn start() -> Result<Redis> {
        Redis::with(Options::default()).await
    }

    /// A server as described. A replica is in step when this returns.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn with(options: Options<'_>) -> Result<Redis> {
        need(Need::Redis)?;
        let directory = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
        let port = ports::free()?;
        let mut settings: Vec<(&str, String)> = vec![
            ("bind", "127.0.0.1".into()),
            ("dir", directory.path().display().to_string()),
            ("save", String::new()),
            // Written before the answer is sent: the system's cache outlives the server.
            ("appendonly", if options.persistent { "yes" } else { "no" }.into()),
            ("repl-diskless-sync-delay", "0".into()),
        ];
        match options.tls {
            None => settings.push(("port", port.to_string())),
            Some(identity) => {
                let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
                identity.write(&certificate, &key)?;
                settings.extend([
                    ("port", "0".into()),
                    ("tls-port", port.to_string()),
                    ("tls-cert-file", certificate.display().to_string()),
                    ("tls-key-file", key.display().to_string()),
                    ("tls-ca-cert-file", certificate.display().to_string()),
                    ("tls-auth-clients", "no".into()),
                ]);
            }
        }
        let password = options.password.or(options.replica_of.and_then(|primary| primary.password.as_deref()));
        if let Some(password) = password {
            settings.extend([("requirepass", password.into()), ("masterauth", password.into())]);
        }
        if let Some(primary) = options.replica_of {
            settings.push(("replicaof", format!("127.0.0.1 {}", primary.port)));
        }
        let file = directory.path().join("redis.conf");
        write_settings(&file, &settings)?;
        let program = Program {
            name: "redis-server",
            command: Box::new(move || {
                let mut command = Command::new("redis-server");
                command.arg(&file);
                command
            }),
            ready: "Ready to accept connections",
            stop: Signal::SIGTERM,
        };
        let service = Service::start(program).await?;
        let tls = options.tls.is_some();
        let redis = Redis { service, port, password: password.map(str::to_owned), tls, _directory: directory };
        if options.replica_of.is_some() {
            redis.eventually_says("replication", "master_link_status:up").await?;
        }
        Ok(redis)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, with the password if there is one.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same behind another port, such as a [`crate::Relay`]'s.
    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.password {
            Some(password) => format!("{scheme}://:{password}@127.0.0.1:{port}/"),
            None => format!("{scheme}://127.0.0.1:{port}/"),
        }
    }

    /// Sends a command, such as `["SCRIPT", "FLUSH"]`: its answer as `redis-cli` prints it.
    ///
    /// # Errors
    /// When it is answered with an error, or not at all.
    pub async fn command(&self, words: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new("redis-cli");
        // `-e`: an answer that is an error fails.
        command.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if self.tls {
            command.args(["--tls", "--insecure"]);
        }
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        command.args(words).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.context("`redis-cli` does not end")??;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if !output.status.success() {
            bail!("{text}{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(text)
    }

    /// How often it has run a command, such as `evalsha`, since it started.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn calls(&self, command: &str) -> Result<u64> {
        let stats = self.command(&["INFO", "commandstats"]).await?;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        let Some(rest) = line else { return Ok(0) };
        rest.split(',').next().unwrap_or_default().parse().context("INFO commandstats")
    }

    /// Hands the place of the primary over to a replica of this server, in order: nothing acknowledged is lost. This
    /// server then is the replica, and answers writes with `READONLY`.
    ///
    /// # Errors
    /// When it does not come to pass.
    pub async fn fail_over_to(&self, replica: &Redis) -> Result<()> {
        // Until it has caught up nothing is handed over.
        let online = format!("port={},state=online", replica.port);
        eventually(PATIENCE, "the replica is online", async || {
            self.command(&["INFO", "replication"]).await.is_ok_and(|text| text.contains(&online))
        })
        .await?;
        self.command(&["FAILOVER", "TO", "127.0.0.1", &replica.port.to_string(), "TIMEOUT", "20000"]).await?;
        replica.eventually_says("replication", "role:master").await?;
        self.eventually_says("replication", "role:slave").await
    }

    async fn eventually_says(&self, section: &str, line: &str) -> Result<()> {
        eventually(PATIENCE, line, async || {
            self.command(&["INFO", section]).await.is_ok_and(|text| text.lines().any(|said| said.trim() == line))
        })
        .await
    }
}

/// It is stopped, killed, frozen and started again as any other service.
impl Deref for Redis {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// Into a file, so that a password is not in the list of processes.
fn write_settings(file: &Path, settings: &[(&str, String)]) -> Result<()> {
    let lines: Vec<String> = settings
        .iter()
        .map(|(name, value)| match *name {
            // The one setting of several words.
            "replicaof" => format!("{name} {value}\n"),
            _ => format!("{name} \"{value}\"\n"),
        })
        .collect();
    std::fs::write(file, lines.concat()).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Authority;

    #[tokio::test]
    async fn what_was_acknowledged_outlives_a_kill_only_where_asked() {
        for persistent in [true, false] {
            let redis = Redis::with(Options { persistent, ..Options::default() }).await.unwrap();
            assert_eq!(redis.command(&["SET", "a", "1"]).await.unwrap(), "OK");
            assert_eq!((redis.calls("set").await.unwrap(), redis.calls("evalsha").await.unwrap()), (1, 0));
            redis.kill();
            assert!(!redis.runs());
            assert!(redis.command(&["GET", "a"]).await.unwrap_err().to_string().contains("refused"));
            redis.restart().await.unwrap();
            assert_eq!(redis.command(&["GET", "a"]).await.unwrap(), if persistent { "1" } else { "" });
            redis.stop().await.unwrap();
            redis.restart().await.unwrap();
            assert_eq!(redis.command(&["GET", "a"]).await.unwrap(), if persistent { "1" } else { "" });
        }
    }

    #[tokio::test]
    async fn frozen_it_accepts_and_answers_nobody() {
        let redis = Redis::start().await.unwrap();
        redis.pause().unwrap();
        let waiting = redis.command(&["PING"]);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
        redis.resume().unwrap();
        assert_eq!(waiting.await.unwrap(), "PONG");
    }

    #[tokio::test]
    async fn passwords_and_tls() {
        let authority = Authority::new("test").unwrap();
        let identity = authority.server(&["127.0.0.1"]).unwrap();
        let options = Options { password: Some("secret"), tls: Some(&identity), ..Options::default() };
        let redis = Redis::with(options).await.unwrap();
        assert_eq!(redis.url(), format!("rediss://:secret@127.0.0.1:{}/", redis.port()));
        assert_eq!(redis.command(&["PING"]).await.unwrap(), "PONG");
        let wrong = Redis { password: Some("wrong".into()), ..redis };
        assert!(wrong.command(&["PING"]).await.unwrap_err().to_string().contains("AUTH"));
    }

    #[tokio::test]
    async fn a_replica_takes_over_with_all_there_is() {
        let first = Redis::with(Options { password: Some("secret"), ..Options::default() }).await.unwrap();
        first.command(&["SET", "a", "1"]).await.unwrap();
        let second = Redis::with(Options { replica_of: Some(&first), ..Options::default() }).await.unwrap();
        first.command(&["SET", "b", "2"]).await.unwrap();
        assert!(second.command(&["SET", "c", "3"]).await.unwrap_err().to_string().contains("READONLY"));
        first.fail_over_to(&second).await.unwrap();
        assert_eq!(second.command(&["MGET", "a", "b"]).await.unwrap(), "1\n2");
        assert_eq!(second.command(&["SET", "c", "3"]).await.unwrap(), "OK");
        assert!(first.command(&["SET", "c", "3"]).await.unwrap_err().to_string().contains("READONLY"));
    }
}
