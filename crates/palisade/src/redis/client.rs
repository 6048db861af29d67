//! The client: deadlines, connections by thread, scripts.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use palisade_policy::Problems;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::link::{Driver, Link};
use super::{At, Away, Config, Health, Script, Url};
use crate::gateway::connect::{Io, Stream};
use crate::gateway::tls;
use crate::policy::Env;
use crate::policy::config::Upstream;
use crate::policy::values::UpstreamUrl;
use crate::server::startup::Occasion;
use crate::shard;

/// What waits to be written on one connection at most; more waits before that, within its deadline.
const QUEUE: usize = 1024;

/// A client, cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.0.health.target()).finish()
    }
}

/// What all clones share.
pub(super) struct Shared {
    itself: Weak<Shared>,
    pub(super) links: Box<[Link]>,
    pub(super) health: Health,
    at: At,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    pub(super) login: RedisConnectionInfo,
    timeout: Duration,
    connect_timeout: Duration,
    prefix: Box<str>,
    /// Of everything that it was made from.
    digest: [u8; 32],
}

impl Redis {
    /// A client as configured: `kept`, where it was made from the same. Connects when it is first asked.
    pub(super) fn new(
        config: &Config,
        url: Url,
        env: &Env,
        occasion: Occasion,
        kept: Option<&Redis>,
        problems: &mut Problems,
    ) -> Option<Self> {
        for (key, time) in [("timeout", config.timeout), ("connect_timeout", config.connect_timeout)] {
            if time.duration().is_zero() {
                problems.error(
                    &format!("redis.{key}"),
                    "no answer comes in no time",
                    "write a time, such as `\"250ms\"`",
                );
                return None;
            }
        }
        let (tls, identity) = match &url.at {
            At::Tls(host, port) => {
                let upstream = Upstream {
                    url: Some(UpstreamUrl::Https { host: host.clone(), port: *port }),
                    ca: config.ca.clone(),
                    client_cert: config.client_cert.clone(),
                    client_key: config.client_key.clone(),
                    server_name: config.server_name.clone(),
                    ..Upstream::default()
                };
                let client = tls::client("redis", &upstream, env, occasion, problems)?;
                // There is no name for this protocol in ALPN, and proxies refuse one that they do not know.
                let (name, mut plain) = client.parts();
                plain.alpn_protocols = Vec::new();
                (Some((name, Arc::new(plain))), client.digest().to_owned())
            }
            At::Tcp(..) | At::Unix(_) => {
                let named = [
                    ("ca", config.ca.is_some()),
                    ("client_cert", config.client_cert.is_some()),
                    ("client_key", config.client_key.is_some()),
                    ("server_name", config.server_name.is_some()),
                ];
                for (key, _) in named.iter().filter(|(_, written)| *written) {
                    let key = format!("redis.{key}");
                    problems.error(&key, "this server is not reached over TLS", "write `rediss://`, or remove the key");
                }
                (None, String::new())
            }
        };
        let digest = digest(config, &url, &identity);
        if let Some(kept) = kept.filter(|kept| kept.0.digest == digest) {
            return Some(kept.clone());
        }
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(url.database.into());
        if let Some(user) = &url.user {
            login = login.set_username(user);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password.expose());
        }
        // One for each thread that ever asks: made when it does.
        let threads = std::thread::available_parallelism().map_or(1, usize::from).max(env.server.workers.unwrap_or(0));
        let links = (0..threads * 2 + 2).map(|_| Link::default()).collect();
        Some(Self(Arc::new_cyclic(|itself| Shared {
            itself: Weak::clone(itself),
            links,
            health: Health::new("redis", url.to_string(), Arc::clone(&env.log)),
            at: url.at,
            tls,
            login,
            timeout: config.timeout.duration(),
            connect_timeout: config.connect_timeout.duration(),
            prefix: config.prefix.as_str().into(),
            digest,
        })))
    }

    /// Whether both are clones of one.
    pub fn is(&self, other: &Redis) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How it is doing.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// What its keys and channels begin with.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.0.links.iter().filter(|link| link.is_up()).count()
    }

    /// Runs a script, which returns whole numbers. One round trip; a second one where the server does not know the script,
    /// after it was restarted or told to forget.
    ///
    /// # Errors
    /// Without an answer within `redis.timeout`, or where the answer is an error.
    pub(crate) async fn script(
        &self,
        script: &Script,
        keys: &[impl AsRef<[u8]>],
        arguments: &[u64],
    ) -> Result<Vec<i64>, Away> {
        let command = |name: &str, script: &str| {
            let mut command = Cmd::with_capacity(3 + keys.len() + arguments.len(), 256);
            command.arg(name).arg(script).arg(keys.len());
            for key in keys {
                command.arg(key.as_ref());
            }
            for number in arguments {
                command.arg(*number);
            }
            command
        };
        let known = command("EVALSHA", &script.hash);
        let answer = self
            .ask(async |mut connection| match said(connection.send_packed_command(&known).await) {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    said(connection.send_packed_command(&command("EVAL", script.text)).await)
                }
                answer => answer,
            })
            .await?;
        numbers(answer).ok_or_else(|| Away::new("an answer that is no list of numbers"))
    }

    /// Says something on a channel.
    ///
    /// # Errors
    /// As [`Redis::script`].
    pub(super) async fn publish(&self, channel: &str) -> Result<(), Away> {
        let mut command = Cmd::new();
        command.arg("PUBLISH").arg(channel).arg("");
        self.ask(async |mut connection| said(connection.send_packed_command(&command).await)).await.map(drop)
    }

    /// Asks whether it is there, so that its state is known also where nobody needs it.
    pub async fn look(&self) {
        let mut command = Cmd::new();
        command.arg("PING");
        let _ = self.ask(async |mut connection| said(connection.send_packed_command(&command).await)).await;
    }

    /// One call within the deadline, on this thread's connection.
    ///
    /// Cancel safety: what was sent is carried out; its answer is dropped.
    async fn ask<T, F>(&self, work: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, Away>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let shared = &*self.0;
        let place = shard::of(shared.links.len());
        let link = &shared.links[place];
        let mut asked = None;
        let outcome = timeout(shared.timeout, async {
            let (connection, number) = link.connection(&shared.itself, place).await.map_err(Unanswered::Known)?;
            asked = Some(number);
            work(connection).await.map_err(Unanswered::Error)
        })
        .await;
        let why = match outcome {
            Ok(Ok(value)) => {
                shared.health.good();
                return Ok(value);
            }
            // It is away and was not asked.
            Ok(Err(Unanswered::Known(why))) => return Err(why),
            Ok(Err(Unanswered::Error(error))) => {
                let why = Away::new(error.to_string());
                // A replica that was the primary before: its address may lead elsewhere by now.
                let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
                if !demoted && matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
                    asked = None;
                }
                why
            }
            Err(_) => Away::new(format!("no answer within {:?}", shared.timeout)),
        };
        if let Some(number) = asked {
            link.lost(&shared.itself, place, number, &why);
        }
        shared.health.bad(&why);
        Err(why)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

enum Unanswered {
    Known(Away),
    Error(RedisError),
}

impl Shared {
    /// A connection that has answered once, made within `connect_timeout`.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, Driver), Away> {
        let made = timeout(self.connect_timeout, async {
            let stream = self.dial().await.map_err(|error| Away::new(error.to_string()))?;
            let config = AsyncConnectionConfig::new().set_pipeline_buffer_size(QUEUE);
            let config = config.set_response_timeout(None).set_connection_timeout(None);
            let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
            let (mut connection, driver) = made.map_err(|error| Away::new(error.to_string()))?;
            let driver = Driver(tokio::spawn(driver).abort_handle());
            let mut ping = Cmd::new();
            ping.arg("PING");
            said(connection.send_packed_command(&ping).await).map_err(|error| Away::new(error.to_string()))?;
            Ok((connection, driver))
        });
        made.await.unwrap_or_else(|_| Err(Away::new(format!("no connection within {:?}", self.connect_timeout))))
    }

    /// The caller holds the deadline.
    pub(super) async fn dial(&self) -> io::Result<Io> {
        let (host, port) = match &self.at {
            At::Unix(path) => return UnixStream::connect(path).await.map(|stream| Stream::Unix(stream).into()),
            At::Tcp(host, port) | At::Tls(host, port) => (host.trim_matches(['[', ']']), *port),
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Tcp(stream).into()),
            Some((name, config)) => {
                let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?;
                Ok(Stream::Tls(Box::new(stream)).into())
            }
        }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Errors come as values too.
fn said(answer: Result<Value, RedisError>) -> Result<Value, RedisError> {
    answer.and_then(Value::extract_error)
}

fn numbers(answer: Value) -> Option<Vec<i64>> {
    let Value::Array(values) = answer else { return None };
    values.into_iter().map(|value| if let Value::Int(number) = value { Some(number) } else { None }).collect()
}

fn digest(config: &Config, url: &Url, identity: &str) -> [u8; 32] {
    let mut digest = Digest::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(url.to_string().as_bytes());
    add(url.password.as_ref().map_or(&[], |password| password.expose().as_bytes()));
    add(identity.as_bytes());
    add(config.prefix.as_bytes());
    add(config.timeout.to_string().as_bytes());
    add(config.connect_timeout.to_string().as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(digest.finish().as_ref());
    out
}
