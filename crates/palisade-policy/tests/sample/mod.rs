//! A small policy in the manner of the real one, for the tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use palisade_policy::{Formats, Problems, Snapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything the sample knows.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Version of the file's format.
    #[schemars(range(min = 1, max = 1))]
    pub version: Option<u8>,
    pub server: Server,
    pub upstream: Upstream,
    /// More upstreams, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which sites may call the API from a browser. Absent: the app's own headers pass.
    pub cors: Option<Cors>,
    pub rate_limit: RateLimit,
    pub limits: Limits,
    pub waf: Waf,
    pub database: Database,
    pub redis: Option<Redis>,
    pub tls: Tls,
    pub log: Log,
    /// Access rules; the first match wins.
    pub route: Vec<Route>,
    #[serde(rename = "static")]
    pub statics: Vec<Static>,
}

/// Whether to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    #[default]
    Block,
    /// Count what would be refused.
    Detect,
    /// Do nothing.
    Off,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    #[default]
    Production,
    Development,
}

macro_rules! text {
    ($name:ident, $format:literal, $example:literal) => {
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[schemars(extend("format" = $format, "examples" = [$example]), inline)]
        #[serde(transparent)]
        pub struct $name(pub String);
    };
}

text!(Duration, "duration", "5s");
text!(ByteSize, "byte-size", "1MiB");
text!(Rate, "rate", "600/minute");
text!(Url, "url", "http://127.0.0.1:8000");
text!(HttpOrigin, "origin", "https://app.example.com");
text!(SecretName, "secret-name", "redis-url");

/// A value in the secret store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Its name there.
    pub secret: SecretName,
}

/// Where Palisade listens and who it is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub mode: Environment,
    /// The address for HTTPS, or `"off"` behind a proxy that ends TLS.
    pub https: String,
    /// Names of the API: exact or `*.example.com`.
    #[schemars(extend("uniqueItems" = true))]
    pub hosts: Vec<String>,
    /// How long requests may take to finish at shutdown.
    pub drain: Duration,
    /// For scripts, before there are users.
    pub admin_token: Option<SecretRef>,
    /// Threads; default one for each core.
    #[schemars(range(min = 1, max = 256))]
    pub workers: Option<u16>,
    /// Use `drain`.
    #[deprecated]
    pub grace: Option<Duration>,
}

impl Default for Server {
    #[expect(deprecated)]
    fn default() -> Self {
        Server {
            mode: Environment::Production,
            https: "0.0.0.0:443".into(),
            hosts: Vec::new(),
            drain: Duration("25s".into()),
            admin_token: None,
            workers: None,
            grace: None,
        }
    }
}

/// The app behind.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub url: Url,
    /// Longest wait for the first byte of an answer.
    #[schemars(extend("x-renamed-from" = "timeout"))]
    pub response_timeout: Duration,
    /// A command that starts the app.
    #[schemars(length(min = 1, max = 8))]
    pub command: Option<Vec<String>>,
    /// Environment of the app.
    pub env: BTreeMap<String, String>,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            url: Url("http://127.0.0.1:8000".into()),
            response_timeout: Duration("60s".into()),
            command: None,
            env: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins that may read answers.
    pub origins: Vec<HttpOrigin>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

/// One rate, several, or none.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Rates {
    Off(Off),
    One(Rate),
    Several(Vec<Rate>),
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    Off,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// For everything that no route says otherwise of.
    pub default: Rates,
    pub mode: Mode,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { default: Rates::One(Rate("1000/minute".into())), mode: Mode::Block }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body.
    #[schemars(extend("x-renamed-from" = ["max_body", "server.body_limit"]))]
    pub body: ByteSize,
    #[schemars(range(min = 1, max = 128))]
    pub json_depth: u8,
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { body: ByteSize("1MiB".into()), json_depth: 32, connections: 10_000 }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Waf {
    pub mode: Mode,
    #[schemars(range(min = 1, max = 4))]
    pub paranoia: u8,
    /// Share of requests that are inspected.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// What is not inspected.
    pub exclude: Vec<Exclude>,
}

impl Default for Waf {
    fn default() -> Self {
        Waf { mode: Mode::Block, paranoia: 1, sample: 1.0, exclude: Vec::new() }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    pub path: String,
    pub field: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum DatabaseUrl {
    Written(Url),
    Stored(SecretRef),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    pub url: DatabaseUrl,
}

impl Default for Database {
    fn default() -> Self {
        Database { url: DatabaseUrl::Written(Url("sqlite:palisade.db".into())) }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: SecretRef,
}

/// Certificates.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub acme: Option<Acme>,
    pub self_signed: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    pub email: String,
    pub directory: Option<Url>,
}

/// Where logs go.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    pub access: Sink,
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Json, access: Sink::Stdout }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// For people; has a | in it and <tags>.
    Pretty,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sink {
    Stdout,
    Off,
    /// A file.
    File {
        path: String,
    },
}

/// One rule.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Paths it is for, such as `/admin/*`.
    #[schemars(length(min = 1))]
    pub path: String,
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub roles: Option<Vec<String>>,
    #[serde(default)]
    pub public: bool,
    #[serde(default)]
    pub limits: Option<RouteLimits>,
    #[serde(default)]
    pub rate_limit: Option<Rates>,
    #[serde(default)]
    pub since: Option<Date>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("format" = "date"), inline)]
#[serde(transparent)]
pub struct Date(pub String);

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    pub body: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Static {
    pub path: String,
    pub root: String,
}

pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

fn digits_then(text: &str, units: &[&str], say: &str) -> Result<(), String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < text.len() && units.contains(&unit) { Ok(()) } else { Err(say.to_owned()) }
}

pub const FORMATS: Formats<'static> = &[
    ("duration", |text| {
        digits_then(text, &["ms", "s", "m", "h", "d"], "expected a number and `ms`, `s`, `m`, `h` or `d`")
    }),
    ("byte-size", |text| {
        digits_then(text, &["B", "KiB", "MiB", "GiB"], "expected a number and `B`, `KiB`, `MiB` or `GiB`")
    }),
    ("rate", |text| {
        let (count, period) = text.split_once('/').ok_or("expected a number, `/` and a period")?;
        count.parse::<u32>().map_err(|_| format!("`{count}` is not a number"))?;
        match period {
            "second" | "minute" | "hour" | "day" => Ok(()),
            _ => Err(format!("`{period}` is not a period")),
        }
    }),
    ("url", |text| {
        let (scheme, rest) = text.split_once(':').ok_or("expected `scheme://…`")?;
        if !["http", "https", "unix", "sqlite", "postgres", "redis"].contains(&scheme) {
            return Err(format!("`{scheme}` is not a known scheme in `{text}`"));
        }
        if rest.contains('@') { Err(format!("`{text}` has a password in it")) } else { Ok(()) }
    }),
    ("origin", |text| match text {
        "null" => Err("`null` is everybody".to_owned()),
        _ if text.starts_with("https://") || text.starts_with("http://") => Ok(()),
        _ => Err("expected scheme and host".to_owned()),
    }),
    ("secret-name", |text| {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if plain { Ok(()) } else { Err(format!("`{text}` is no name")) }
    }),
];

pub fn guides(problems: &mut Problems) {
    problems.set_guides([
        ("server", 6, "06-https/server.html"),
        ("cors", 9, "09-cors/cors.html"),
        ("rate_limit", 8, "08-rate-limiting/rate-limit.html"),
        ("limits", 2, "02-validation/limits.html"),
        ("waf", 21, "21-advanced/waf.html"),
        ("database", 15, "15-database/database.html"),
        ("redis", 15, "15-database/redis.html"),
    ]);
}

/// Reads and checks a text as the house does it: all that is wrong, and the typed value if nothing is.
pub fn load(text: &str) -> (Option<Config>, Problems) {
    match Snapshot::from_text("policy", text) {
        Ok(snapshot) => check(snapshot),
        Err(mut problems) => {
            guides(&mut problems);
            (None, problems)
        }
    }
}

pub fn check(mut snapshot: Snapshot) -> (Option<Config>, Problems) {
    let mut problems = snapshot.problems();
    guides(&mut problems);
    snapshot.check(&schema(), FORMATS, &mut problems);
    let config = snapshot.get::<Config>("", &mut problems);
    (config.filter(|_| !problems.is_fatal()), problems)
}
