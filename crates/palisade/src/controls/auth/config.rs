//! `[auth]`, `[session]`, `[password]` and `[database]` as they are written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use palisade_base::{BadValue, Interval, SecretRef, TextValue, text_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moving::{External, Paths};
use crate::policy::Rule;
use crate::policy::values::{HostPattern, PathPattern, PathPrefix, host_name};

/// `[auth]`: logins of Palisade's own. Absent: nobody logs in here, and the application's own authentication passes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Whether the section is there: with it, every route needs a login unless it says otherwise.
    #[serde(skip, default = "yes")]
    pub present: bool,
    /// Who makes the tokens: the URL under which clients reach this gateway. Required in production; in development the
    /// address of the HTTPS listener. `http:` in development only.
    pub issuer: Option<Issuer>,
    /// Whom access tokens are for. Default: `issuer`.
    pub audience: Vec<String>,
    /// The path under which logins, tokens and accounts are served.
    pub path: PathPrefix,
    /// Further addresses under which endpoints answer, such as `{ token = "/token" }`: those that an application's clients
    /// know from before it moved here.
    pub paths: Paths,
    /// Whose access tokens are accepted besides Palisade's own: an application's that moves here.
    pub issuers: Vec<External>,
    /// The one host under which `path` and `paths` are served, so that no page of the application shares its origin. Default: every
    /// host.
    pub host: Option<HostPattern>,
    /// The paths that are protected. Default: all. What is left out is the application's own business, credentials
    /// included.
    pub routes: Vec<PathPattern>,
    /// What decides who may use a route: `routes`, the `[[route]]` sections; or `openapi`, what the application's document
    /// (`upstream.openapi`) says of its operations, where no route says it.
    pub access: AccessBy,
    /// How access tokens are signed.
    pub algorithm: SigningAlgorithm,
    /// How long an access token lives. At most an hour: until then it is checked without a look at the database.
    pub access_token: Interval,
    /// How long a login with refresh tokens lasts after its last use.
    pub refresh_token: Interval,
    /// Who may make an account: nobody (`closed`), everybody (`open`), or whoever proves an e-mail address (`verified`).
    pub registration: Registration,
    /// Tokens for a name and password at `token`, as FastAPI's documentation pages ask for them. OAuth 2.1 retires this
    /// grant: applications of others should use the authorization code.
    pub password_grant: bool,
    /// Tokens (`Authorization: Bearer`) are forwarded to the application after they were checked. Session cookies and API
    /// keys never are.
    pub forward_credentials: bool,
    /// What becomes of requests to routes with `roles`, `permissions` or `when` once the database could not be read for
    /// 5 s, so that a right may have been taken away elsewhere. Who needs the database to be recognised is refused anyway;
    /// on other routes, those who were seen before go on until their credential expires.
    pub when_away: WhenAway,
}

const fn yes() -> bool {
    true
}

impl Config {
    /// Whether a path is under `routes`: without them, each is.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|route| route.matches(path))
    }

    /// Whether the application's document says whom a request is for, since its route does not.
    pub(super) fn goes_by_document(&self, rule: &Rule) -> bool {
        self.access == AccessBy::Openapi && !rule.implied && rule.when.is_none() && rule.needs.is_silent()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            present: false,
            issuer: None,
            audience: Vec::new(),
            path: "/auth".parse().unwrap_or_else(|_| unreachable!("a prefix")),
            paths: Paths::default(),
            issuers: Vec::new(),
            host: None,
            routes: Vec::new(),
            access: AccessBy::Routes,
            algorithm: SigningAlgorithm::EdDsa,
            access_token: Interval::secs(15 * 60),
            refresh_token: Interval::secs(7 * 86_400),
            registration: Registration::Closed,
            password_grant: true,
            forward_credentials: false,
            when_away: WhenAway::Closed,
        }
    }
}

/// What becomes of requests while nobody knows which rights were taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum WhenAway {
    /// They are refused: 503 `auth.away`.
    #[default]
    Closed,
    /// They are decided by what was known last.
    Open,
}

/// What a route may say of it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// Tokens are forwarded to the application after they were checked.
    pub forward_credentials: Option<bool>,
}

/// What decides who may use a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessBy {
    /// The `[[route]]` sections.
    #[default]
    Routes,
    /// The `security` of the operations in the application's OpenAPI document, and routes over it. What is not in the
    /// document is for nobody; what it opens waits in production for `palisade openapi accept`.
    Openapi,
}

impl WhenAway {
    /// As in policy and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Nobody: accounts are made by `palisade user add`.
    #[default]
    Closed,
    /// Everybody.
    Open,
    /// Everybody, for an e-mail address that they prove to have. The answer says nothing about whether it is known.
    Verified,
}

/// How access tokens are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// Ed25519.
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA with 3072 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// A shared secret, for applications that check tokens themselves with one. It is never published.
    #[serde(rename = "HS256")]
    Hs256,
}

/// `[session]`: logins of browsers. Guide section 10.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Session {
    /// A session that nobody uses for so long ends.
    pub idle: Interval,
    /// However much it is used, it ends so long after the login.
    pub absolute: Interval,
    /// How long a session lasts, idle or not, for those who ask to be remembered at login.
    pub remember: Interval,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            idle: Interval::secs(30 * 60),
            absolute: Interval::secs(12 * 3600),
            remember: Interval::secs(30 * 86_400),
        }
    }
}

/// `[password]`: what a new password must be. Guide section 4.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Password {
    /// The fewest characters.
    #[schemars(range(min = 8, max = 128))]
    pub min_length: u16,
    /// A file of passwords that have been found in breaches, beside the list inside: one a line, or their SHA-1 as
    /// published by Have I Been Pwned, sorted.
    pub breached: Option<PathBuf>,
    /// Hashes get a pepper: the secret `pepper`, without which a stolen database is not worth guessing at. Palisade makes
    /// it itself; older ones are kept for the hashes that have them. Keep a copy of the secret store: without it nobody
    /// can log in with a password any more.
    pub pepper: bool,
}

impl Default for Password {
    fn default() -> Self {
        Self { min_length: 12, breached: None, pepper: false }
    }
}

/// `[database]`: where accounts, sessions, keys and clients are kept. Guide section 15.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Database {
    /// `sqlite:FILE`, relative to the policy file, or `{ secret = "NAME" }` for a `postgres://` URL with its password.
    /// Default: `palisade.db` under `server.state`.
    pub url: Option<DatabaseUrl>,
    /// The most connections that are open at once, beside one that reads the feed of changes.
    #[schemars(range(min = 1, max = 1000))]
    pub connections: u32,
    /// How long a request waits for a connection, and a statement may run.
    pub timeout: Interval,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, connections: 16, timeout: Interval::secs(5) }
    }
}

impl Database {
    /// Whether other machines can use it too. What a secret holds is not looked at: a file needs none.
    pub fn is_shared(&self) -> bool {
        self.url.as_ref().is_some_and(|url| match url {
            DatabaseUrl::Url(url) => url.file().is_none(),
            DatabaseUrl::Secret(_) => true,
        })
    }
}

/// A database by its URL, or by the secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DatabaseUrl {
    /// The URL, without a password.
    Url(DatabaseText),
    /// The secret that holds the URL.
    Secret(SecretRef),
}

/// The URL of a database, without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseText(Box<str>);

impl DatabaseText {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file of an embedded database.
    pub fn file(&self) -> Option<&str> {
        let rest = self.0.strip_prefix("sqlite:")?;
        Some(rest.strip_prefix("//").unwrap_or(rest))
    }

    /// The embedded database in this file.
    pub fn of_file(file: &std::path::Path) -> Self {
        Self(format!("sqlite:{}", file.display()).into())
    }
}

impl TextValue for DatabaseText {
    const FORMAT: &'static str = "database-url";
    const NOUN: &'static str = "the URL of a database";
    const EXAMPLES: &'static [&'static str] = &["sqlite:palisade.db", "postgres://palisade@db.internal/palisade"];
}

impl FromStr for DatabaseText {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let server = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        match (server, text.strip_prefix("sqlite:")) {
            (Some(rest), _) => {
                let authority = rest.split(['/', '?']).next().unwrap_or_default();
                if authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
                    || rest.contains("password=")
                {
                    return Err(BadValue::new(
                        "a URL with a password: store it and write `{ secret = \"database-url\" }`",
                    ));
                }
            }
            (None, Some(file)) if file.contains(":memory:") => {
                return Err(BadValue::new("a database in memory keeps nothing; name a file"));
            }
            (None, Some(file)) if !file.trim_start_matches('/').is_empty() && !file.contains('?') => {}
            (None, Some(_)) => {
                return Err(BadValue::new("behind `sqlite:` stands the path of a file, without options"));
            }
            (None, None) => return Err(BadValue::new("a database begins with `sqlite:` or `postgres://`")),
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DatabaseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(DatabaseText);

/// The identifier of an issuer: a URL without query, fragment and final slash (RFC 8414 section 2), compared as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(Box<str>);

impl Issuer {
    /// As written, and as `iss`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is reached without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// What stands behind the host: empty, or a path.
    pub fn path(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').map_or("", |slash| &rest[slash..])
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.0[..self.0.len() - self.path().len()]
    }
}

impl TextValue for Issuer {
    const FORMAT: &'static str = "issuer";
    const NOUN: &'static str = "the URL of this gateway";
    const EXAMPLES: &'static [&'static str] = &["https://api.example.com", "http://127.0.0.1:8080"];
}

impl FromStr for Issuer {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let Some(rest) = rest else { return Err(BadValue::new("an issuer begins with `https://`")) };
        if text.ends_with('/') {
            return Err(BadValue::new("without the final slash: tokens are compared byte by byte"));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
        if host_name(host).is_none_or(|name| *name != *host) || port.is_some_and(|port| !is_port(port)) {
            return Err(BadValue::new("the host is not one in lower case, with a port at most"));
        }
        if !path.is_empty() && path.parse::<PathPrefix>().is_err() {
            return Err(BadValue::new("behind the host only plain path segments may stand"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Issuer);

/// The name of a role, permission or scope: visible ASCII without what separates lists or quotes (RFC 6749 section 3.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant(Box<str>);

impl Grant {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TextValue for Grant {
    const FORMAT: &'static str = "grant";
    const NOUN: &'static str = "a name of a role, permission or scope";
    const EXAMPLES: &'static [&'static str] = &["admin", "notes:read"];
}

impl FromStr for Grant {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'/');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
            return Err(BadValue::new("1 to 64 letters, digits, `-`, `.`, `_`, `:` and `/`"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(Grant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_urls_that_are_compared_byte_by_byte() {
        for (text, origin, path) in [
            ("https://api.example.com", "https://api.example.com", ""),
            ("https://api.example.com:8443/team", "https://api.example.com:8443", "/team"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
            ("http://[::1]:8080/a/b", "http://[::1]:8080", "/a/b"),
        ] {
            let issuer: Issuer = text.parse().unwrap();
            assert_eq!((issuer.origin(), issuer.path()), (origin, path), "{text}");
        }
        for bad in [
            "api.example.com",
            "https://api.example.com/",
            "https://API.example.com",
            "https://a@b.example",
            "https://a.example?x",
            "https://a.example/#x",
            "https://a.example:0",
            "https://a.example:99999",
            "https://a.example/a/",
            "https://",
            "ftp://a.example",
        ] {
            assert!(bad.parse::<Issuer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_with_a_password_is_a_secret() {
        for text in ["sqlite:palisade.db", "sqlite:///var/lib/p.db", "postgres://db/palisade", "postgres://u@db:5432/p"]
        {
            assert!(text.parse::<DatabaseText>().is_ok(), "{text}");
        }
        for text in [
            "postgres://u:p@db/p",
            "postgres://db/p?password=x",
            "mysql://db/p",
            "sqlite:",
            "palisade.db",
            "sqlite::memory:",
            "sqlite:a?mode=ro",
        ] {
            assert!(text.parse::<DatabaseText>().is_err(), "{text}");
        }
        let file = |text: &str| text.parse::<DatabaseText>().unwrap().file().map(str::to_owned);
        assert_eq!(file("sqlite:palisade.db").as_deref(), Some("palisade.db"));
        assert_eq!(file("sqlite:///var/p.db").as_deref(), Some("/var/p.db"));
        assert_eq!(file("postgres://db/p"), None);
    }
}
