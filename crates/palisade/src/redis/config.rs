//! What the policy may say of Redis.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use palisade_base::{BadValue, Interval, Secret, SecretRef, TextValue, text_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::values::host_name;

/// `[redis]`: a Redis or Valkey server that several instances share. Guide section 8.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Where it listens: `{ secret = "redis-url" }`, or without a password `"rediss://cache.internal"`. The URL is
    /// `rediss://user:password@host:port/database` (over TLS), `redis://…` (in the clear), or `unix:/run/redis.sock`;
    /// `valkey` may stand for `redis`.
    pub url: Option<Place>,
    /// The longest time that a request waits for an answer of it. Then the control that asked goes by its `when_away`.
    pub timeout: Interval,
    /// How long a connection may take to be made. No request waits for that beyond `timeout`.
    pub connect_timeout: Interval,
    /// What its keys and channels begin with: deployments that share a server and not their limits say different ones.
    #[schemars(length(min = 1, max = 64))]
    pub prefix: String,
    /// The authorities that may have signed its certificate, PEM, and no others. Default: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate chain that Palisade shows it, PEM, leaf first.
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM; readable by nobody else.
    pub client_key: Option<PathBuf>,
    /// The name that its certificate must be for. Default: the host of `url`.
    pub server_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            timeout: Interval::millis(250),
            connect_timeout: Interval::secs(1),
            prefix: "palisade:".into(),
            ca: None,
            client_cert: None,
            client_key: None,
            server_name: None,
        }
    }
}

/// A URL, or the secret that holds one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Place {
    /// In the secret store.
    Secret(SecretRef),
    /// Written out, without a password.
    Plain(OpenUrl),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(named) => write!(f, "the secret `{}`", named.secret),
            Self::Plain(url) => url.fmt(f),
        }
    }
}

/// A URL without a password: it stands in the policy.
#[derive(Debug, Clone)]
pub struct OpenUrl(pub Url);

impl TextValue for OpenUrl {
    const FORMAT: &'static str = "redis-url";
    const NOUN: &'static str = "the URL of a Redis server";
    const EXAMPLES: &'static [&'static str] = &["rediss://cache.internal", "redis://127.0.0.1:6379/1"];
}

impl FromStr for OpenUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let url: Url = text.parse()?;
        if url.password.is_some() {
            return Err(BadValue::new(
                "a password does not belong into the policy: store the URL as a secret and write `url = { secret = \"redis-url\" }`",
            ));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for OpenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(OpenUrl);

/// Where a server is, and as whom it is spoken to. `Display` leaves the password out.
#[derive(Debug, Clone)]
pub struct Url {
    /// How it is reached.
    pub at: At,
    /// The user of its access list; absent: the default user.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Secret<String>>,
    /// The number of the database.
    pub database: u16,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// In the clear.
    Tcp(Box<str>, u16),
    /// Over TLS, verified.
    Tls(Box<str>, u16),
    /// By a socket in the file system.
    Unix(PathBuf),
}

impl Url {
    /// Whether nobody on a network sees what is said: over TLS, or never on one.
    pub fn is_private(&self) -> bool {
        match &self.at {
            At::Tls(..) | At::Unix(_) => true,
            At::Tcp(host, _) => {
                let literal = host.trim_matches(['[', ']']);
                &**host == "localhost" || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Url {
    type Err = BadValue;

    /// The message never holds what was written: it may be a secret.
    fn from_str(text: &str) -> Result<Self, BadValue> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(BadValue::new("`unix:` needs the path of a socket, such as `unix:/run/redis.sock`"));
            }
            return Ok(Self { at: At::Unix(path.into()), user: None, password: None, database: 0 });
        }
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let secure = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(BadValue::new("the URL of Redis begins with `rediss://`, `redis://` or `unix:`")),
        };
        if rest.contains(['?', '#']) {
            return Err(BadValue::new("the URL has no parameters here: what they would say are keys of `[redis]`"));
        }
        // The last one: a password may hold any.
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| BadValue::new("behind the host stands the number of a database"))?,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0);
                (host, port.ok_or_else(|| BadValue::new("the port is not a number from 1 to 65535"))?)
            }
            _ => (authority, 6379),
        };
        let host = host_name(host).ok_or_else(|| BadValue::new("not a host name"))?;
        let (user, password) = match credentials {
            None => (None, None),
            Some(credentials) => {
                let (user, password) = match credentials.split_once(':') {
                    Some((user, password)) => (user, Some(decoded(password)?)),
                    None => (credentials, None),
                };
                (Some(decoded(user)?).filter(|user| !user.is_empty()), password.filter(|text| !text.is_empty()))
            }
        };
        let at = if secure { At::Tls(host, port) } else { At::Tcp(host, port) };
        Ok(Self { at, user: user.map(Into::into), password: password.map(Secret::new), database })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match &self.at {
            At::Tcp(host, port) => ("redis", host, port),
            At::Tls(host, port) => ("rediss", host, port),
            At::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{host}:{port}/{}", self.database)
    }
}

/// Without percent-encoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<String, BadValue> {
    let bad = || BadValue::new("a `%` in name or password is followed by two hexadecimal digits (`%25` for itself)");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
        let value = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).map_err(|_| bad())?;
        out.extend(value);
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_the_password() {
        for (text, shown, user, password) in [
            ("redis://cache", "redis://cache:6379/0", None, None),
            ("rediss://Cache.Internal:6380/2", "rediss://cache.internal:6380/2", None, None),
            ("valkey://[::1]:1", "redis://[::1]:1/0", None, None),
            ("redis://:p%40ss@127.0.0.1/0", "redis://127.0.0.1:6379/0", None, Some("p@ss")),
            ("valkeys://app:a@b:c@host/", "rediss://app@host:6379/0", Some("app"), Some("a@b:c")),
            ("redis://app@host", "redis://app@host:6379/0", Some("app"), None),
            ("unix:/run/redis.sock", "unix:/run/redis.sock", None, None),
            ("unix:///run/redis.sock", "unix:/run/redis.sock", None, None),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.user.as_deref(), user, "{text}");
            assert_eq!(url.password.as_ref().map(|secret| secret.expose().as_str()), password, "{text}");
            assert!(!format!("{url:?}").contains("p@ss"));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for text in [
            "",
            "host",
            "http://host",
            "redis://",
            "redis://host:0",
            "redis://host:x",
            "redis://host/x",
            "redis://host?db=1",
            "redis://:hunter2%zz@host",
            "redis://:hunter2%2@host",
            "redis://:hunter2%ff@host",
            "redis://:hunter2@ho st",
            "unix:redis.sock",
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!("redis://:x@host".parse::<OpenUrl>().unwrap_err().to_string().contains("secret"));
        assert!("redis://app@host".parse::<OpenUrl>().is_ok());
    }

    #[test]
    fn what_a_network_may_see() {
        for (text, private) in [
            ("redis://localhost", true),
            ("redis://127.0.0.2", true),
            ("redis://[::1]", true),
            ("unix:/a", true),
            ("rediss://host", true),
            ("redis://host", false),
            ("redis://10.0.0.1", false),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().is_private(), private, "{text}");
        }
    }
}
