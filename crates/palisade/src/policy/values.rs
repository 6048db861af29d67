//! Values of the policy that know about HTTP: listeners, hosts, paths, methods, upstreams.

mod origin;
mod path;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use http::Method;
use palisade_base::{BadValue, Format, Interval, TextValue, text_value};

pub use self::origin::{OriginPattern, OriginRegex};
pub use self::path::{PathPattern, PathPrefix};

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
    Format::of::<super::mail::Server>(),
    Format::of::<super::mail::Sender>(),
    Format::of::<crate::controls::rate_limit::By>(),
    Format::of::<crate::controls::rate_limit::RateText>(),
    Format::of::<crate::controls::integrity::MethodParameter>(),
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

    /// Whether every host that `other` means is meant.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Exact(name)) => self.matches(name),
            // `.a.example.com` ends as `.example.com` does, with a dot before it.
            (Self::Below(suffix), Self::Below(narrower)) => narrower.ends_with(&**suffix),
            (Self::Exact(_), Self::Below(_)) | (_, Self::Any) => false,
        }
    }
}

/// A host name or IP literal as RFC 3986 writes it, in lower case, without port and trailing dot.
pub(crate) fn host_name(text: &str) -> Option<Box<str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<std::net::Ipv6Addr>().ok().map(|ip| format!("[{ip}]").into());
    }
    if text.is_empty() || text.len() > 253 {
        return None;
    }
    // In one pass, since every request names a host: the label so far, and whether it is of digits alone.
    let (mut length, mut digits, mut previous) = (0_usize, true, b'-');
    for byte in text.bytes() {
        match byte {
            b'.' if length == 0 || previous == b'-' => return None,
            b'.' => (length, digits) = (0, true),
            b'-' if length == 0 => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                length += 1;
                digits &= byte.is_ascii_digit();
            }
            _ => return None,
        }
        if length > 63 {
            return None;
        }
        previous = byte;
    }
    if length == 0 || previous == b'-' {
        return None;
    }
    // A last label of digits means an IPv4 address (WHATWG URL, "ends in a number"), which then must be a canonical one.
    if digits && text.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    let mut name: Box<str> = text.into();
    name.make_ascii_lowercase();
    Some(name)
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

/// Where secrets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretProvider {
    /// An encrypted file; without a path `secrets.age` under `server.state`.
    File(Option<PathBuf>),
    /// `PALISADE_SECRET_NAME` in the environment.
    Env,
    /// A file of that name in a directory.
    Dir(PathBuf),
    /// `PALISADE_SECRET_NAME` in a file `.env`. For development.
    DotEnv(PathBuf),
}

impl Default for SecretProvider {
    fn default() -> Self {
        Self::File(None)
    }
}

impl TextValue for SecretProvider {
    const FORMAT: &'static str = "secret-provider";
    const NOUN: &'static str = "a provider of secrets";
    const EXAMPLES: &'static [&'static str] =
        &["file", "file:/etc/palisade/secrets.age", "env", "dir:/run/secrets", "dotenv:.env"];
}

impl FromStr for SecretProvider {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.split_once(':') {
            None if text == "file" => Ok(Self::File(None)),
            None if text == "env" => Ok(Self::Env),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(Some(path.into()))),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            Some(("dotenv", path)) if !path.is_empty() => Ok(Self::DotEnv(path.into())),
            _ => Err(BadValue::new("not a provider of secrets")),
        }
    }
}

impl fmt::Display for SecretProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(None) => f.write_str("file"),
            Self::File(Some(path)) => write!(f, "file:{}", path.display()),
            Self::Env => f.write_str("env"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::DotEnv(path) => write!(f, "dotenv:{}", path.display()),
        }
    }
}

text_value!(SecretProvider);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let host = |text: &str| text.parse::<HostPattern>();
        assert!(host("*.example.com").unwrap().matches("a.example.com"));
        assert!(!host("*.example.com").unwrap().matches("example.com"));
        assert!(!host("*.example.com").unwrap().matches("evilexample.com"));
        assert!(host("API.Example.com:8443").unwrap().matches("api.example.com"));
        assert!(host("[::1]").unwrap().matches("[::1]"));
        for bad in ["", "https://example.com", "a b", "exa*mple.com", "-a.com", "1.2.3", "[::1", "*."] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_that_cover_others() {
        let covers = |wider: &str, host: &str| {
            wider.parse::<HostPattern>().unwrap().covers(&host.parse::<HostPattern>().unwrap())
        };
        for (wider, host) in [
            ("*", "*"),
            ("*", "a.example.com"),
            ("*", "*.example.com"),
            ("a.example.com", "A.example.com"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.com", "*.a.example.com"),
        ] {
            assert!(covers(wider, host), "{wider} {host}");
        }
        for (wider, host) in [
            ("a.example.com", "*"),
            ("*.example.com", "*"),
            ("a.example.com", "b.example.com"),
            ("a.example.com", "*.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "evilexample.com"),
            ("*.example.com", "*.evilexample.com"),
            ("*.a.example.com", "*.example.com"),
        ] {
            assert!(!covers(wider, host), "{wider} {host}");
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
}
