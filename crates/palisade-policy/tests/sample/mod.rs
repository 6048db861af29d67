//! A small policy in the manner of the real one, for the tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use palisade_policy::{Formats, Problems, Snapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything the sample knows.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Version of the file's format.
    #[schemars(range(min = 1, max = 1))]
    pub(crate) version: Option<u8>,
    pub(crate) server: Server,
    pub(crate) upstream: Upstream,
    /// More upstreams, by name.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// Which sites may call the API from a browser. Absent: the app's own headers pass.
    pub(crate) cors: Option<Cors>,
    pub(crate) rate_limit: RateLimit,
    pub(crate) limits: Limits,
    pub(crate) waf: Waf,
    pub(crate) database: Database,
    pub(crate) redis: Option<Redis>,
    pub(crate) tls: Tls,
    pub(crate) log: Log,
    /// Access rules; the first match wins.
    pub(crate) route: Vec<Route>,
    #[serde(rename = "static")]
    pub(crate) statics: Vec<Static>,
}

/// Whether to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
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
pub(crate) enum Environment {
    #[default]
    Production,
    Development,
}

macro_rules! text {
    ($name:ident, $format:literal, $example:literal) => {
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[schemars(extend("format" = $format, "examples" = [$example]), inline)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) String);
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
pub(crate) struct SecretRef {
    /// Its name there.
    pub(crate) secret: SecretName,
}

/// Where Palisade listens and who it is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) mode: Environment,
    /// The address for HTTPS, or `"off"` behind a proxy that ends TLS.
    pub(crate) https: String,
    /// Names of the API: exact or `*.example.com`.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) hosts: Vec<String>,
    /// How long requests may take to finish at shutdown.
    pub(crate) drain: Duration,
    /// For scripts, before there are users.
    pub(crate) admin_token: Option<SecretRef>,
    /// Threads; default one for each core.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) workers: Option<u16>,
    /// Use `drain`.
    #[deprecated]
    pub(crate) grace: Option<Duration>,
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
pub(crate) struct Upstream {
    pub(crate) url: Url,
    /// Longest wait for the first byte of an answer.
    #[schemars(extend("x-renamed-from" = "timeout"))]
    pub(crate) response_timeout: Duration,
    /// A command that starts the app.
    #[schemars(length(min = 1, max = 8))]
    pub(crate) command: Option<Vec<String>>,
    /// Environment of the app.
    pub(crate) env: BTreeMap<String, String>,
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
pub(crate) struct Cors {
    /// Origins that may read answers.
    pub(crate) origins: Vec<HttpOrigin>,
    pub(crate) methods: Vec<String>,
    pub(crate) headers: Vec<String>,
    pub(crate) credentials: bool,
    pub(crate) max_age: Option<Duration>,
}

/// One rate, several, or none.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Rates {
    Off(Off),
    One(Rate),
    Several(Vec<Rate>),
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Off {
    Off,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RateLimit {
    /// For everything that no route says otherwise of.
    pub(crate) default: Rates,
    pub(crate) mode: Mode,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { default: Rates::One(Rate("1000/minute".into())), mode: Mode::Block }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Largest body.
    #[schemars(extend("x-renamed-from" = ["max_body", "server.body_limit"]))]
    pub(crate) body: ByteSize,
    #[schemars(range(min = 1, max = 128))]
    pub(crate) json_depth: u8,
    pub(crate) connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { body: ByteSize("1MiB".into()), json_depth: 32, connections: 10_000 }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Waf {
    pub(crate) mode: Mode,
    #[schemars(range(min = 1, max = 4))]
    pub(crate) paranoia: u8,
    /// Share of requests that are inspected.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) sample: f64,
    /// What is not inspected.
    pub(crate) exclude: Vec<Exclude>,
}

impl Default for Waf {
    fn default() -> Self {
        Waf { mode: Mode::Block, paranoia: 1, sample: 1.0, exclude: Vec::new() }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exclude {
    pub(crate) path: String,
    pub(crate) field: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum DatabaseUrl {
    Written(Url),
    Stored(SecretRef),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    pub(crate) url: DatabaseUrl,
}

impl Default for Database {
    fn default() -> Self {
        Database { url: DatabaseUrl::Written(Url("sqlite:palisade.db".into())) }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    pub(crate) url: SecretRef,
}

/// Certificates.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    pub(crate) acme: Option<Acme>,
    pub(crate) self_signed: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acme {
    pub(crate) email: String,
    pub(crate) directory: Option<Url>,
}

/// Where logs go.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) access: Sink,
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Json, access: Sink::Stdout }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// One object a line.
    Json,
    /// For people; has a | in it and <tags>.
    Pretty,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sink {
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
pub(crate) struct Route {
    /// Paths it is for, such as `/admin/*`.
    #[schemars(length(min = 1))]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) methods: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) public: bool,
    #[serde(default)]
    pub(crate) limits: Option<RouteLimits>,
    #[serde(default)]
    pub(crate) rate_limit: Option<Rates>,
    #[serde(default)]
    pub(crate) since: Option<Date>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("format" = "date"), inline)]
#[serde(transparent)]
pub(crate) struct Date(pub(crate) String);

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RouteLimits {
    pub(crate) body: Option<ByteSize>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Static {
    pub(crate) path: String,
    pub(crate) root: String,
}

pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

fn digits_then(text: &str, units: &[&str], say: &str) -> Result<(), String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < text.len() && units.contains(&unit) { Ok(()) } else { Err(say.to_owned()) }
}

pub(crate) const FORMATS: Formats<'static> = &[
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

pub(crate) fn guides(problems: &mut Problems) {
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
pub(crate) fn load(text: &str) -> (Option<Config>, Problems) {
    match Snapshot::from_text("policy", text) {
        Ok(snapshot) => check(snapshot),
        Err(mut problems) => {
            guides(&mut problems);
            (None, problems)
        }
    }
}

pub(crate) fn check(mut snapshot: Snapshot) -> (Option<Config>, Problems) {
    let mut problems = snapshot.problems();
    guides(&mut problems);
    snapshot.check(&schema(), FORMATS, &mut problems);
    let config = snapshot.get::<Config>("", &mut problems);
    (config.filter(|_| !problems.is_fatal()), problems)
}
