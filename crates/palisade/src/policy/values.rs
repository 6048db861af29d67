//! Values of the policy that know about HTTP: listeners, hosts, paths, methods, upstreams.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use http::Method;
use palisade_base::{BadValue, Format, Interval, TextValue, text_value};

use super::spelling;

/// The grammars of this crate, beside those of [`palisade_base::FORMATS`].
pub static FORMATS: &[Format] = &[
    Format::of::<Listen>(),
    Format::of::<HostPattern>(),
    Format::of::<PathPattern>(),
    Format::of::<MethodName>(),
    Format::of::<UpstreamUrl>(),
    Format::of::<PathPrefix>(),
    Format::of::<super::template::Template>(),
    Format::of::<Timeout>(),
    Format::of::<SecretProvider>(),
    Format::of::<OriginPattern>(),
    Format::of::<crate::controls::auth::config::DatabaseText>(),
    Format::of::<crate::controls::auth::config::Issuer>(),
    Format::of::<crate::controls::auth::config::Grant>(),
    Format::of::<crate::controls::auth::moving::Until>(),
    Format::of::<crate::redis::OpenUrl>(),
    Format::of::<crate::controls::rate_limit::By>(),
    Format::of::<crate::controls::rate_limit::RateText>(),
    Format::of::<crate::controls::static_files::FilesPath>(),
    Format::of::<crate::controls::static_files::Keep>(),
];

/// Where a listener listens, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl Listen {
    /// On IPv4 loopback.
    pub const fn loopback(port: u16) -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// On every IPv4 address.
    pub const fn everywhere(port: u16) -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
    }

    /// The address, where there is one.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl TextValue for Listen {
    const FORMAT: &'static str = "listen";
    const NOUN: &'static str = "an address and port, or `off`";
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:443", "127.0.0.1:8443", "[::1]:8443", "off"];
}

impl FromStr for Listen {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| BadValue::new("not an IP address with a port")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

text_value!(Listen);

/// A length of time, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// No limit.
    Off,
    /// This long.
    After(Interval),
}

impl Timeout {
    /// The time, where there is a limit.
    pub const fn duration(self) -> Option<std::time::Duration> {
        match self {
            Self::Off => None,
            Self::After(interval) => Some(interval.duration()),
        }
    }
}

impl TextValue for Timeout {
    const FORMAT: &'static str = "timeout";
    const NOUN: &'static str = "a length of time, or `off`";
    const EXAMPLES: &'static [&'static str] = &["60s", "off"];
}

impl FromStr for Timeout {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "off" => Ok(Self::Off),
            _ => {
                let interval: Interval = text.parse()?;
                if interval.duration().is_zero() {
                    return Err(BadValue::new("a time-out of zero would refuse everything; write `off` for none"));
                }
                Ok(Self::After(interval))
            }
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::After(interval) => interval.fmt(f),
        }
    }
}

text_value!(Timeout);

/// A host: exact, `*.example.com` for every name below, or `*` for any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host. Legal in development only.
    Any,
    /// This one, in lower case without port.
    Exact(Box<str>),
    /// Every name that ends so, with the leading dot: `.example.com`.
    Below(Box<str>),
}

impl HostPattern {
    /// Whether a host (lower case, without port) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

/// A host name or IP literal as RFC 3986 writes it, in lower case, without port and trailing dot.
pub(crate) fn host_name(text: &str) -> Option<Box<str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<std::net::Ipv6Addr>().ok().map(|ip| format!("[{ip}]").into());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text.is_empty() || text.len() > 253 || !text.split('.').all(label) {
        return None;
    }
    // A last label of digits means an IPv4 address (WHATWG URL, "ends in a number"), which then must be a canonical one.
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
        && text.parse::<Ipv4Addr>().is_err()
    {
        return None;
    }
    Some(text.to_ascii_lowercase().into())
}

impl TextValue for HostPattern {
    const FORMAT: &'static str = "host-pattern";
    const NOUN: &'static str = "a host";
    const EXAMPLES: &'static [&'static str] = &["api.example.com", "*.example.com"];
}

impl FromStr for HostPattern {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains("://") {
            return Err(BadValue::new("a host, not a URL: leave out the scheme"));
        }
        if let Some(rest) = text.strip_prefix("*.") {
            return host_name(rest)
                .map(|name| Self::Below(format!(".{name}").into()))
                .ok_or_else(|| BadValue::new("not a host name behind `*.`"));
        }
        let without_port = text
            .rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && !host.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(text, |(host, _)| host);
        let without_port = if text.ends_with(']') { text } else { without_port };
        host_name(without_port).map(Self::Exact).ok_or_else(|| BadValue::new("not a host name"))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

text_value!(HostPattern);

/// A method by name, in upper case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodName(pub Method);

impl TextValue for MethodName {
    const FORMAT: &'static str = "method";
    const NOUN: &'static str = "a method";
    const EXAMPLES: &'static [&'static str] = &["GET", "POST"];
}

impl FromStr for MethodName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        // Any token (RFC 9110 §9.1) that no other one differs from by case.
        if text.is_empty() || text.len() > 24 || text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(BadValue::new("methods are written in upper case"));
        }
        Method::from_bytes(text.as_bytes()).map(Self).map_err(|_| BadValue::new("not a method"))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_value!(MethodName);

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamUrl {
    /// Plain HTTP over TCP: host and port.
    Http {
        /// Host name or IP literal.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// HTTP over TLS: host and port.
    Https {
        /// Host name or IP literal.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl UpstreamUrl {
    /// Host and port, where there are any.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http { host, port } | Self::Https { host, port } => Some((host, *port)),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        matches!(self, Self::Https { .. })
    }
}

impl TextValue for UpstreamUrl {
    const FORMAT: &'static str = "upstream-url";
    const NOUN: &'static str = "the URL of an upstream";
    const EXAMPLES: &'static [&'static str] =
        &["http://127.0.0.1:8000", "https://billing.internal", "unix:/run/app.sock"];
}

impl FromStr for UpstreamUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(BadValue::new("`unix:` needs the path of a socket"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let (rest, https) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err(BadValue::new("an upstream begins with `http://`, `https://` or `unix:`")),
        };
        if rest.contains('@') {
            return Err(BadValue::new("a URL with a name or password is not accepted here"));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(BadValue::new("an upstream has no path; routes decide on paths"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| BadValue::new("the port is not a number from 1 to 65535"))?)
            }
            _ => (authority, if https { 443 } else { 80 }),
        };
        if port == 0 {
            return Err(BadValue::new("the port is not a number from 1 to 65535"));
        }
        let host = host_name(host).ok_or_else(|| BadValue::new("not a host name"))?;
        Ok(if https { Self::Https { host, port } } else { Self::Http { host, port } })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

text_value!(UpstreamUrl);

/// The beginning of paths under which an application is reached: whole segments, without a final slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPrefix(Box<str>);

impl PathPrefix {
    /// As written: `/v2`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is behind the prefix, beginning with a slash; nothing where the path is not below it.
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        match path.strip_prefix(&*self.0)? {
            "" => Some("/"),
            rest => rest.starts_with('/').then_some(rest),
        }
    }

    /// Whether an application could read a path as one below the prefix, though it is spelled differently: with encoded
    /// or repeated slashes, or parameters.
    pub fn may_begin(&self, path: &str) -> bool {
        if !path.contains(['%', ';']) && !path.contains("//") {
            return self.strip(path).is_some();
        }
        let decoded = path.replace("%2F", "/").replace("%3B", ";");
        let mut segments = decoded.split('/').filter(|segment| !segment.is_empty());
        self.0.split('/').skip(1).all(|wanted| {
            segments.next().is_some_and(|segment| segment.split(';').next().unwrap_or_default() == wanted)
        })
    }
}

impl TextValue for PathPrefix {
    const FORMAT: &'static str = "path-prefix";
    const NOUN: &'static str = "the beginning of a path";
    const EXAMPLES: &'static [&'static str] = &["/v2", "/team/billing"];
}

impl FromStr for PathPrefix {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let Some(rest) = text.strip_prefix('/') else { return Err(BadValue::new("a path begins with `/`")) };
        if rest.is_empty() {
            return Err(BadValue::new("`/` is the beginning of every path; leave the key out"));
        }
        if text.ends_with('/') {
            return Err(BadValue::new("whole segments are meant: leave the final slash out"));
        }
        if text.len() > 256 {
            return Err(BadValue::new("longer than 256 bytes"));
        }
        for segment in rest.split('/') {
            // Nothing that has two spellings: what is taken off must be what every reader of the path sees there.
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
            if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(plain) {
                return Err(BadValue::new("each segment consists of letters, digits, `-`, `.`, `_` and `~`"));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_value!(PathPrefix);

/// Where secrets come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretProvider {
    /// `PALISADE_SECRET_NAME` in the environment.
    #[default]
    Env,
    /// A file of that name in a directory.
    Dir(PathBuf),
}

impl TextValue for SecretProvider {
    const FORMAT: &'static str = "secret-provider";
    const NOUN: &'static str = "a provider of secrets";
    const EXAMPLES: &'static [&'static str] = &["env", "dir:/run/secrets"];
}

impl FromStr for SecretProvider {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.split_once(':') {
            None if text == "env" => Ok(Self::Env),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            _ => Err(BadValue::new("not a provider of secrets")),
        }
    }
}

impl fmt::Display for SecretProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env => f.write_str("env"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

text_value!(SecretProvider);

/// An origin of CORS: exact (`https://app.example.com`), a wildcard of subdomains (`https://*.example.com`, or
/// `*.example.com` for https), a regular expression that the whole origin must match
/// (`regex:https://pr-[0-9]+\\.example\\.com`), or `*`. Never `null`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    /// Every origin.
    Any,
    /// This one.
    Exact(Box<str>),
    /// Every subdomain: scheme with `://`, and what the host ends with, port included.
    Below {
        /// `https://` or `http://`.
        scheme: Box<str>,
        /// `.example.com` or `.example.com:8443`.
        suffix: Box<str>,
    },
    /// Every origin that the expression matches as a whole.
    Regex(OriginRegex),
}

/// A regular expression over whole origins. Linear in time; two are equal when they are written the same.
#[derive(Debug, Clone)]
pub struct OriginRegex {
    text: Box<str>,
    regex: regex_automata::meta::Regex,
}

impl PartialEq for OriginRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for OriginRegex {}

impl std::hash::Hash for OriginRegex {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl FromStr for OriginRegex {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if !["https://", "http://", "https?://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(BadValue::new("the expression begins with the scheme, as `regex:https://`"));
        }
        if has_any_character(text) {
            // `app.example.com` would match `appXexample.com`, and `.*example\.com` would match `evilexample.com`.
            return Err(BadValue::new("`.` matches any character: write `\\.` for a dot, `[a-z0-9-]+` for a label"));
        }
        let build = |pattern: &str| {
            regex_automata::meta::Regex::builder()
                .configure(regex_automata::meta::Config::new().nfa_size_limit(Some(1 << 20)))
                .syntax(regex_automata::util::syntax::Config::new().unicode(false).utf8(false))
                .build(pattern)
                .map_err(|_| BadValue::new("not a regular expression"))
        };
        // Once alone, so that nothing in it can close the group that anchors it.
        build(text)?;
        Ok(Self { text: text.into(), regex: build(&format!(r"\A(?:{text})\z"))? })
    }
}

/// Whether an expression has a `.` that stands for any character.
fn has_any_character(pattern: &str) -> bool {
    let (mut escaped, mut class) = (false, false);
    for byte in pattern.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class = true,
            b']' => class = false,
            b'.' if !class => return true,
            _ => {}
        }
    }
    false
}

/// Whether a text looks like an origin that a browser serialises (RFC 6454 §6.2): scheme, host, maybe a port. Anything
/// else would give a pattern more to match than origins.
fn is_serialised_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.strip_prefix('[').map_or(rest, |literal| literal);
    !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
        && !authority.is_empty()
        && authority.len() <= 262
        && authority
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b':' | b']'))
}

impl OriginPattern {
    /// Whether so many origins are meant that this is no list of one's own pages: `*`, a whole top-level domain, or an
    /// expression that takes names which nobody owns.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(_) => false,
            Self::Below { suffix, .. } => !suffix[1..].contains('.') && !suffix.starts_with(".localhost"),
            Self::Regex(_) => ["https", "http"].iter().any(|scheme| {
                ["a1-b2.invalid", "x.example.invalid", "q.test", "zz-9.example"]
                    .iter()
                    .filter(|name| self.matches(&format!("{scheme}://{name}")))
                    .count()
                    > 1
            }),
        }
    }

    /// Whether more than one origin is meant.
    pub fn is_pattern(&self) -> bool {
        !matches!(self, Self::Exact(_))
    }

    /// Whether pages without TLS are meant: whoever is on their network can be them.
    pub fn is_plain(&self) -> bool {
        let plain = |text: &str| text.starts_with("http:") || text.starts_with("https?:");
        match self {
            Self::Any => false,
            Self::Exact(exact) => {
                plain(exact)
                    && !["http://localhost", "http://127.0.0.1", "http://[::1]"]
                        .iter()
                        .any(|own| exact.starts_with(own))
            }
            Self::Below { scheme, suffix } => plain(scheme) && !suffix.starts_with(".localhost"),
            Self::Regex(regex) => plain(&regex.text),
        }
    }

    /// Whether an origin as the browser sends it is meant.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => is_serialised_origin(origin),
            Self::Regex(expression) => is_serialised_origin(origin) && expression.regex.is_match(origin),
            Self::Exact(exact) => **exact == *origin,
            Self::Below { scheme, suffix } => origin.strip_prefix(&**scheme).is_some_and(|host| {
                host.strip_suffix(&**suffix).is_some_and(|label| {
                    !label.is_empty()
                        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
                })
            }),
        }
    }
}

impl TextValue for OriginPattern {
    const FORMAT: &'static str = "origin";
    const NOUN: &'static str = "an origin";
    const EXAMPLES: &'static [&'static str] =
        &["https://app.example.com", "https://*.example.com", r"regex:https://pr-[0-9]+\.example\.com"];
}

impl FromStr for OriginPattern {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err(BadValue::new("`null` is what sandboxed and forged pages send; it can't be allowed"));
        }
        if let Some(expression) = text.strip_prefix("regex:") {
            return expression.parse().map(Self::Regex);
        }
        let (scheme, authority) = match text.split_once("://") {
            Some(("https", rest)) => ("https://", rest),
            Some(("http", rest)) => ("http://", rest),
            Some(_) => return Err(BadValue::new("the scheme is `https` or `http`")),
            None if text.starts_with("*.") => ("https://", text),
            None => return Err(BadValue::new("an origin begins with `https://`")),
        };
        if authority.contains(['/', '?', '#', '@']) {
            return Err(BadValue::new("an origin is scheme, host and port, without a path or a final slash"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let number: u16 = port.parse().map_err(|_| BadValue::new("the port is not a number"))?;
                (
                    host,
                    if (scheme, number) == ("https://", 443) || (scheme, number) == ("http://", 80) {
                        String::new()
                    } else {
                        format!(":{number}")
                    },
                )
            }
            _ => (authority, String::new()),
        };
        let wild = host.strip_prefix("*.");
        let name = host_name(wild.unwrap_or(host)).ok_or_else(|| BadValue::new("not a host name"))?;
        Ok(match wild {
            Some(_) => Self::Below { scheme: scheme.into(), suffix: format!(".{name}{port}").into() },
            None => Self::Exact(format!("{scheme}{name}{port}").into()),
        })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(exact) => f.write_str(exact),
            Self::Below { scheme, suffix } => write!(f, "{scheme}*{suffix}"),
            Self::Regex(expression) => write!(f, "regex:{}", expression.text),
        }
    }
}

text_value!(OriginPattern);

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Box<str>,
    segments: Vec<Segment>,
    tail: Tail,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    Any(Box<str>),
    Int(Box<str>),
    Uuid(Box<str>),
}

impl Segment {
    fn takes(&self, part: &str) -> bool {
        match self {
            Segment::Literal(literal) => {
                **literal == *part || (part.contains('%') && spelling::text(part) == **literal)
            }
            Segment::Any(_) => !part.is_empty(),
            Segment::Int(_) => is_canonical_int(part),
            Segment::Uuid(_) => is_canonical_uuid(part),
        }
    }

    /// Whether an application may read this part as the number or UUID that is meant here.
    fn takes_respelled(&self, part: &str) -> bool {
        match self {
            Segment::Literal(literal) if is_canonical_int(literal) => {
                spelling::number(part).is_some_and(|number| *number == **literal)
            }
            Segment::Literal(literal) if is_canonical_uuid(literal) => {
                spelling::uuid(part).is_some_and(|uuid| uuid == literal.replace('-', ""))
            }
            Segment::Literal(_) | Segment::Any(_) => false,
            Segment::Int(_) => spelling::number(part).is_some(),
            Segment::Uuid(_) => spelling::uuid(part).is_some(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tail {
    /// Exactly these segments; a final slash makes no difference.
    None,
    /// `/*`: this and everything below.
    Here,
    /// `/+`: only what is below.
    Below,
}

impl PathPattern {
    /// The pattern as written: the `route` of logs and metrics.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a normalised path is meant. A trailing slash makes no difference.
    pub fn matches(&self, path: &str) -> bool {
        self.fits(path, |_, segment, part| segment.takes(part))
    }

    /// Whether a path that does not match could be one of this pattern for an application, because a number or UUID in it
    /// is spelled in another way: `/users/07` under `/users/{id:int}`. `exact` is the pattern that it matches instead; a
    /// spelling that this one names is meant.
    pub fn may_mean(&self, path: &str, exact: Option<&Self>) -> bool {
        let named = |place: usize, part: &str| {
            let segment = exact.and_then(|exact| exact.segments.get(place));
            matches!(segment, Some(literal @ Segment::Literal(_)) if literal.takes(part))
        };
        self.fits(path, |place, segment, part| {
            segment.takes(part) || (!named(place, part) && segment.takes_respelled(part))
        })
    }

    /// Whether [`PathPattern::may_mean`] can ever be true.
    pub fn has_spellings(&self) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(literal) => is_canonical_int(literal) || is_canonical_uuid(literal),
            Segment::Any(_) => false,
            Segment::Int(_) | Segment::Uuid(_) => true,
        })
    }

    fn fits(&self, path: &str, takes: impl Fn(usize, &Segment, &str) -> bool) -> bool {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut parts = rest.split('/').filter(|_| !rest.is_empty());
        for (place, segment) in self.segments.iter().enumerate() {
            let Some(part) = parts.next() else { return false };
            if !takes(place, segment, part) {
                return false;
            }
        }
        match self.tail {
            Tail::None => parts.next().is_none(),
            Tail::Here => true,
            Tail::Below => parts.next().is_some(),
        }
    }

    /// The text of a named segment (`{id}`) in a path that the pattern matches, as it stands there.
    pub fn value<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let place = self.place(name)?;
        path.strip_prefix('/').unwrap_or(path).split('/').nth(place)
    }

    /// The names of its segments, in order.
    pub fn segment_names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Any(own) | Segment::Int(own) | Segment::Uuid(own) => Some(&**own),
        })
    }

    /// Whether the pattern has a segment of this name.
    pub fn names(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| match segment {
            Segment::Literal(_) => false,
            Segment::Any(own) | Segment::Int(own) | Segment::Uuid(own) => **own == *name,
        })
    }

    /// Whether every path of this pattern is below a prefix.
    pub fn is_below(&self, prefix: &PathPrefix) -> bool {
        let mut own = self.segments.iter();
        prefix
            .0
            .split('/')
            .skip(1)
            .all(|wanted| matches!(own.next(), Some(Segment::Literal(text)) if **text == *wanted))
    }

    /// Whether this pattern begins where another one ends, or the other way round: `/admin` and `/admin/+`. Whatever
    /// parameters are called.
    pub fn begins_where(&self, other: &Self) -> bool {
        let alike = |(mine, theirs): (&Segment, &Segment)| match (mine, theirs) {
            (Segment::Any(_), Segment::Any(_))
            | (Segment::Int(_), Segment::Int(_))
            | (Segment::Uuid(_), Segment::Uuid(_)) => true,
            (mine, theirs) => mine == theirs,
        };
        !self.segments.is_empty()
            && self.tail != other.tail
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// What `/admin/+` leaves out: `/admin`.
    pub fn root_of_below(&self) -> Option<Self> {
        let text = self.text.strip_suffix("/+").filter(|text| !text.is_empty() && self.tail == Tail::Below)?;
        Some(Self { text: text.into(), segments: self.segments.clone(), tail: Tail::None })
    }

    /// Whether every path of `other` is one of this pattern too, as far as can be told from the patterns alone.
    pub fn covers(&self, other: &Self) -> bool {
        let fits = |mine: &Segment, theirs: &Segment| match (mine, theirs) {
            (Segment::Any(_), _) => true,
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Int(_), Segment::Int(_)) | (Segment::Uuid(_), Segment::Uuid(_)) => true,
            (Segment::Int(_), Segment::Literal(b)) => is_canonical_int(b),
            (Segment::Uuid(_), Segment::Literal(b)) => is_canonical_uuid(b),
            _ => false,
        };
        if self.segments.len() > other.segments.len()
            || !self.segments.iter().zip(&other.segments).all(|(a, b)| fits(a, b))
        {
            return false;
        }
        let same_length = self.segments.len() == other.segments.len();
        match (self.tail, other.tail) {
            (Tail::None, Tail::None) => same_length,
            (Tail::None, _) => false,
            (Tail::Here, _) => true,
            (Tail::Below, Tail::Below) => true,
            (Tail::Below, _) => !same_length,
        }
    }
}

/// Digits without a leading zero, sign or space, of at most 19 digits.
fn is_canonical_int(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.len() <= 19
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits.len() == 1 && digits.len() == text.len() || !digits.starts_with('0'))
}

/// `8-4-4-4-12` lower-case hex digits.
fn is_canonical_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

impl Default for PathPattern {
    fn default() -> Self {
        Self { text: "/*".into(), segments: Vec::new(), tail: Tail::Here }
    }
}

impl TextValue for PathPattern {
    const FORMAT: &'static str = "path-pattern";
    const NOUN: &'static str = "a path";
    const EXAMPLES: &'static [&'static str] = &["/admin/*", "/users/{id:int}", "/health"];
}

impl FromStr for PathPattern {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let Some(rest) = text.strip_prefix('/') else { return Err(BadValue::new("a path begins with `/`")) };
        if text.len() > 1024 {
            return Err(BadValue::new("the path is longer than 1024 bytes"));
        }
        let (rest, tail) = match (rest.strip_suffix('*'), rest.strip_suffix('+')) {
            (Some(rest), _) if rest.is_empty() || rest.ends_with('/') => (rest, Tail::Here),
            (_, Some(rest)) if rest.is_empty() || rest.ends_with('/') => (rest, Tail::Below),
            _ => (rest, Tail::None),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|_| !rest.is_empty()) {
            segments.push(segment(part)?);
        }
        Ok(Self { text: text.into(), segments, tail })
    }
}

fn segment(part: &str) -> Result<Segment, BadValue> {
    if part.is_empty() {
        return Err(BadValue::new("repeated slashes are merged before routes are matched; write one"));
    }
    if part == "." || part == ".." {
        return Err(BadValue::new("dot segments are resolved before routes are matched"));
    }
    if let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        let (name, kind) = inner.split_once(':').unwrap_or((inner, ""));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(BadValue::new("a parameter is `{name}` with letters, digits and `_`"));
        }
        return match kind {
            "" => Ok(Segment::Any(name.into())),
            "int" => Ok(Segment::Int(name.into())),
            "uuid" => Ok(Segment::Uuid(name.into())),
            _ => Err(BadValue::new("the type of a parameter is `int` or `uuid`")),
        };
    }
    if part.contains(['*', '{', '}', '?', '#', '\\']) {
        return Err(BadValue::new(
            "`*` stands alone at the end, after a slash; `?`, `#`, `{`, `}` and `\\` are not part of a path",
        ));
    }
    if !spelling::is_escaped(part) {
        return Err(BadValue::new("`%` begins an escape such as `%20`; the character itself is `%25`"));
    }
    Ok(Segment::Literal(spelling::text(part).into()))
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_value!(PathPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_their_root_and_typed_segments() {
        let uuid = "3f2b8a10-0000-4000-8000-000000000000";
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("/", &["/"], &["/a"]),
            ("/*", &["/", "/a", "/a/b"], &[]),
            ("/admin/*", &["/admin", "/admin/", "/admin/x/y"], &["/administrator", "/", "/Admin"]),
            ("/admin/+", &["/admin/x"], &["/admin", "/admin/"]),
            (
                "/users/{id:int}",
                &["/users/7", "/users/7/", "/users/-7", "/users/0"],
                &["/users/07", "/users/+7", "/users/7.0", "/users/a", "/users", "/users/7/x", "/users/-0"],
            ),
            (
                "/o/{id:uuid}/*",
                &[&*format!("/o/{uuid}"), &*format!("/o/{uuid}/x")],
                &["/o/3F2B8A10-0000-4000-8000-000000000000", "/o/x"],
            ),
            ("/a/{x}/b", &["/a/1/b", "/a/~/b/"], &["/a//b", "/a/b"]),
        ];
        for (pattern, yes, no) in cases {
            let pattern: PathPattern = pattern.parse().unwrap();
            for path in *yes {
                assert!(pattern.matches(path), "{pattern} {path}");
            }
            for path in *no {
                assert!(!pattern.matches(path), "{pattern} {path}");
            }
        }
        for bad in ["", "admin", "/a//b", "/a/*/b", "/a*", "/{id", "/{}", "/{id:float}", "/a?b", "/../x"] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_pattern_covers_another() {
        let covers = |a: &str, b: &str| a.parse::<PathPattern>().unwrap().covers(&b.parse().unwrap());
        assert!(covers("/*", "/admin/*") && covers("/admin/*", "/admin") && covers("/users/{id}", "/users/{id:int}"));
        assert!(covers("/admin/+", "/admin/x/*") && covers("/users/{id:int}", "/users/7"));
        assert!(
            !covers("/admin/*", "/*") && !covers("/admin/+", "/admin/*") && !covers("/users/{id:int}", "/users/me")
        );
    }

    #[test]
    fn hosts_and_origins() {
        let host = |text: &str| text.parse::<HostPattern>();
        assert!(host("*.example.com").unwrap().matches("a.example.com"));
        assert!(!host("*.example.com").unwrap().matches("example.com"));
        assert!(!host("*.example.com").unwrap().matches("evilexample.com"));
        assert!(host("API.Example.com:8443").unwrap().matches("api.example.com"));
        assert!(host("[::1]").unwrap().matches("[::1]"));
        for bad in ["", "https://example.com", "a b", "exa*mple.com", "-a.com", "1.2.3", "[::1", "*."] {
            assert!(host(bad).is_err(), "{bad}");
        }
        let origin = |text: &str| text.parse::<OriginPattern>();
        let below = origin("*.example.com").unwrap();
        assert!(below.matches("https://a.example.com") && below.matches("https://a.b.example.com"));
        for forged in [
            "http://a.example.com",
            "https://example.com",
            "https://evilexample.com",
            "https://a.example.com.evil",
            "https://a.example.com:8443",
            "null",
            "https://.example.com",
            "https://evil/.example.com",
        ] {
            assert!(!below.matches(forged), "{forged}");
        }
        assert!(origin("https://app.example.com:443").unwrap().matches("https://app.example.com"));
        let pull = origin(r"regex:https://pr-[0-9]+\.example\.com(:8443)?").unwrap();
        assert!(pull.matches("https://pr-12.example.com") && pull.matches("https://pr-1.example.com:8443"));
        for forged in [
            "https://pr-12.example.com.evil",
            "https://pr-12xexample.com",
            "http://pr-12.example.com",
            "https://evil/https://pr-12.example.com",
            "https://pr-12.example.com\n",
            "https://pr-12.example.com:8444",
            "null",
        ] {
            assert!(!pull.matches(forged), "{forged}");
        }
        assert!(origin("*").unwrap().matches("https://x.y") && !origin("*").unwrap().matches("null"));
        for open in ["*", "*.com", r"regex:https://[a-z0-9.-]+", r"regex:https?://[^/]+"] {
            assert!(origin(open).unwrap().is_open(), "{open}");
        }
        for own in ["*.example.com", "https://app.example.com", r"regex:https://[a-z]+\.example\.com"] {
            assert!(!origin(own).unwrap().is_open(), "{own}");
        }
        for bad in [
            "null",
            "app.example.com",
            "https://app.example.com/",
            "ftp://x.y",
            "https://a:b@c",
            r"regex:example\.com",
            "regex:https://app.example.com",
            r"regex:https://.*\.example\.com",
            r"regex:https://(a|b\.example\.com",
            r"regex:https://a)|(?:b",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstreams() {
        assert_eq!("http://127.0.0.1:8000".parse(), Ok(UpstreamUrl::Http { host: "127.0.0.1".into(), port: 8000 }));
        assert_eq!("http://app/".parse(), Ok(UpstreamUrl::Http { host: "app".into(), port: 80 }));
        assert_eq!("http://[::1]:8000".parse(), Ok(UpstreamUrl::Http { host: "[::1]".into(), port: 8000 }));
        assert_eq!("unix:/run/app.sock".parse(), Ok(UpstreamUrl::Unix("/run/app.sock".into())));
        assert_eq!(
            "https://billing.internal".parse(),
            Ok(UpstreamUrl::Https { host: "billing.internal".into(), port: 443 })
        );
        for bad in [
            "127.0.0.1:8000",
            "https://u@h",
            "http://",
            "http://u:p@h",
            "http://h:0",
            "http://h/path",
            "unix:",
            "ftp://x",
        ] {
            assert!(bad.parse::<UpstreamUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_whole_segments_however_they_are_spelled() {
        let prefix: PathPrefix = "/team/v2".parse().unwrap();
        for (path, inner) in [
            ("/team/v2", Some("/")),
            ("/team/v2/", Some("/")),
            ("/team/v2/x/y", Some("/x/y")),
            ("/team/v22/x", None),
            ("/team", None),
            ("/Team/v2/x", None),
        ] {
            assert_eq!(prefix.strip(path), inner, "{path}");
            assert_eq!(prefix.may_begin(path), inner.is_some(), "{path}");
        }
        for other in ["//team/v2/x", "/team//v2", "/team%2Fv2/x", "/team;a=b/v2/x", "/team%3Bx/v2", "/team/v2%2Fx"] {
            assert!(prefix.may_begin(other), "{other}");
        }
        for bad in ["", "v2", "/", "/v2/", "/a//b", "/../v2", "/a%20b", "/{id}", "/a b", "/a;b"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
        let below = |pattern: &str| pattern.parse::<PathPattern>().unwrap().is_below(&prefix);
        assert!(below("/team/v2/*") && below("/team/v2/{id}/x") && below("/team/v2"));
        assert!(!below("/team/*") && !below("/{team}/v2/*") && !below("/team/v3/*"));
    }

    #[test]
    fn named_segments_are_found_in_paths() {
        let pattern: PathPattern = "/users/{id:int}/{part}/*".parse().unwrap();
        assert_eq!(pattern.value("/users/7/notes/x", "id"), Some("7"));
        assert_eq!(pattern.value("/users/7/a%20b", "part"), Some("a%20b"));
        assert_eq!(pattern.value("/users/7/x", "name"), None);
    }
}
