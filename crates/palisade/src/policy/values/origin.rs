//! Origins of CORS, and the expressions that stand for many of them. Threat 43.

use std::fmt;
use std::str::FromStr;

use palisade_base::{BadValue, TextValue, text_value};

use super::host_name;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
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
}
