//! Values of headers that are made for each request: text with `{names}` in it.
//!
//! A name stands for one fact that Palisade has established itself, never for something that a client merely said. A
//! request without the fact is refused, unless the template says what then stands there: `{tls.server_name|none}`.
//! Whatever is put in is encoded, so that no value can end a list item, a quoted text or a line. Threats 5.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;
use palisade_base::{BadValue, TextValue, text_value};

use crate::context::Context;

/// What a header can hold, and what an application reads without complaint.
const MAX_BYTES: usize = 4096;

/// A text with names in braces; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Value { source: Source, default: Option<Box<str>> },
}

/// What a name in braces stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    ClientAddress,
    Scheme,
    Host,
    Method,
    Path,
    /// A named segment of the route's path.
    Segment(Box<str>),
    RequestId,
    Route,
    TlsServerName,
    TlsVersion,
    UserId,
    UserAppId,
    UserName,
    UserEmail,
    /// A claim of another issuer's token.
    Claim(Box<str>),
}

/// The fixed names, in the order of the documentation.
const NAMES: [(&str, Source); 13] = [
    ("client.address", Source::ClientAddress),
    ("scheme", Source::Scheme),
    ("host", Source::Host),
    ("method", Source::Method),
    ("path", Source::Path),
    ("request_id", Source::RequestId),
    ("route", Source::Route),
    ("tls.server_name", Source::TlsServerName),
    ("tls.version", Source::TlsVersion),
    ("user.id", Source::UserId),
    ("user.app_id", Source::UserAppId),
    ("user.name", Source::UserName),
    ("user.email", Source::UserEmail),
];

impl Source {
    fn parse(name: &str) -> Result<Self, BadValue> {
        if let Some((_, source)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(source.clone());
        }
        if let Some(segment) = name.strip_prefix("path.") {
            return Ok(Self::Segment(segment.into()));
        }
        if let Some(claim) = name.strip_prefix("user.claims.").filter(|claim| !claim.is_empty()) {
            return Ok(Self::Claim(claim.into()));
        }
        let likely = palisade_policy::closest(name, NAMES.iter().map(|(known, _)| *known));
        Err(BadValue::new(match likely {
            Some(likely) => format!("there is no value `{{{name}}}`: did you mean `{{{likely}}}`?"),
            None => {
                let known: Vec<String> = NAMES.iter().map(|(known, _)| format!("`{{{known}}}`")).collect();
                format!(
                    "there is no value `{{{name}}}`: known are {}, `{{path.NAME}}` and `{{user.claims.NAME}}`",
                    known.join(", ")
                )
            }
        }))
    }

    fn name(&self) -> &str {
        match self {
            Self::Segment(_) => "path.NAME",
            Self::Claim(_) => "user.claims.NAME",
            other => NAMES.iter().find(|(_, source)| source == other).map_or("", |(name, _)| name),
        }
    }

    /// Whether its values are percent-encoded already, as parts of a target are.
    fn is_encoded(&self) -> bool {
        matches!(self, Self::Host | Self::Path | Self::Segment(_) | Self::Route)
    }

    /// Gives the value, where this request has it.
    fn value(&self, ctx: &Context, take: impl FnOnce(&str)) -> bool {
        let tls = || ctx.connection.tls.as_ref();
        // Nobody before `auth` has proved somebody; of a client that acts for itself there is no user either.
        let user = || ctx.identity().caller().and_then(|caller| Some((caller, caller.account()?)));
        let value = match self {
            Self::ClientAddress => Some(&**ctx.client_text()),
            Self::Scheme => Some(if ctx.is_secure() { "https" } else { "http" }),
            Self::Host => Some(ctx.host()),
            Self::Method => Some(ctx.method.as_str()),
            Self::Path => Some(ctx.path()),
            Self::Segment(name) => ctx.rule().path().value(ctx.path(), name),
            Self::RequestId => Some(ctx.request_id().as_str()),
            Self::Route => Some(&*ctx.rule().label),
            Self::TlsServerName => tls().and_then(|tls| tls.server_name.as_deref()),
            Self::TlsVersion => tls().map(|tls| tls.version),
            Self::UserId => user().map(|(caller, _)| caller.subject()),
            Self::UserAppId => user().and_then(|(_, account)| account.app_id.as_deref()),
            Self::UserName => user().map(|(_, account)| account.name.as_str()),
            Self::UserEmail => user().and_then(|(_, account)| account.verified_email()),
            Self::Claim(name) => user().and_then(|(caller, _)| caller.claim(name)),
        };
        let value = value.filter(|value| !value.is_empty());
        if let Some(value) = value {
            take(value);
        }
        value.is_some()
    }
}

/// Why a template gives no value for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoValue<'t> {
    /// The request has nothing for this name.
    Missing(&'t str),
    /// It became longer than a header may be.
    TooLong,
}

impl Template {
    /// The value for a request; none where it is empty, as a default may be.
    pub(crate) fn render(&self, ctx: &Context) -> Result<Option<HeaderValue>, NoValue<'_>> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { source, default } => {
                    if !source.value(ctx, |value| encode(value, source.is_encoded(), &mut out)) {
                        out.push_str(default.as_deref().ok_or(NoValue::Missing(source.name()))?);
                    }
                }
            }
            if out.len() > MAX_BYTES {
                return Err(NoValue::TooLong);
            }
        }
        // Everything in it is visible ASCII and blanks by now.
        Ok(HeaderValue::try_from(out.trim()).ok().filter(|value| !value.is_empty()))
    }

    /// The value, where it is the same for every request.
    pub(crate) fn fixed(&self) -> Option<HeaderValue> {
        match &*self.parts {
            [] => Some(HeaderValue::from_static("")),
            [Part::Text(text)] => HeaderValue::from_str(text).ok(),
            _ => None,
        }
    }

    /// Whether it names somebody who is logged in.
    pub(crate) fn needs_login(&self) -> bool {
        let of_login = [Source::UserId, Source::UserAppId, Source::UserName, Source::UserEmail];
        let needs = |source: &Source| matches!(source, Source::Claim(_)) || of_login.contains(source);
        self.parts.iter().any(|part| matches!(part, Part::Value { source, .. } if needs(source)))
    }

    /// The segments of a route's path that it needs and has no default for.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value { source: Source::Segment(name), default: None } => Some(&**name),
            _ => None,
        })
    }
}

/// Puts a value in, with everything percent-encoded that a reader of headers could take for more than text. `%` stays
/// where it is the mark of what is encoded already; elsewhere `a,b` and `a%2Cb` would become one.
fn encode(value: &str, encoded: bool, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~:/@+=[]!$&*(){}".contains(&byte) || encoded && byte == b'%';
        if plain {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

impl TextValue for Template {
    const FORMAT: &'static str = "header-template";
    const NOUN: &'static str = "the value of a header, with names in braces";
    const EXAMPLES: &'static [&'static str] = &["{client.address}", "tenant-{path.tenant}", "{tls.server_name|none}"];
}

impl FromStr for Template {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.len() > MAX_BYTES {
            return Err(BadValue::new("longer than 4096 bytes"));
        }
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(BadValue::new("headers are visible ASCII: encode everything else, for example as `%C3%A9`"));
        }
        if text.trim() != text {
            return Err(BadValue::new("blanks at the ends of a header mean nothing; leave them out"));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(place) = rest.find(['{', '}']) {
            plain.push_str(&rest[..place]);
            let (brace, behind) = rest[place..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let inner = behind.split_once('}').filter(|_| brace == "{");
            let Some((inner, after)) = inner else {
                return Err(BadValue::new("a brace without its other half: write `{{` or `}}` for a brace itself"));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            let (name, default) = match inner.split_once('|') {
                Some((name, default)) => (name, Some(default.into())),
                None => (inner, None),
            };
            parts.push(Part::Value { source: Source::parse(name)?, default });
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self { text: text.into(), parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_value!(Template);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_text_and_known_names() {
        for (text, fixed) in [
            ("plain text", Some("plain text")),
            ("{{not a name}}", Some("{not a name}")),
            ("", Some("")),
            ("{host}", None),
            ("a {client.address} b {path.id|0}", None),
        ] {
            let template: Template = text.parse().unwrap();
            assert_eq!(template.fixed().as_ref().map(|value| value.to_str().unwrap()), fixed, "{text}");
            assert_eq!(template.to_string(), text);
        }
        for (bad, why) in [
            ("{hots}", "did you mean `{host}`?"),
            ("{header.x}", "known are `{client.address}`"),
            ("{user.claims.}", "known are"),
            ("{user.nam}", "did you mean `{user.name}`?"),
            ("{host", "without its other half"),
            ("host}", "without its other half"),
            ("é", "visible ASCII"),
            ("a\r\nB: c", "visible ASCII"),
            (" a", "blanks"),
        ] {
            let wrong = bad.parse::<Template>().unwrap_err().0;
            assert!(wrong.contains(why), "{bad:?}: {wrong}");
        }
        assert!("x{user.id|-}".parse::<Template>().unwrap().needs_login());
        assert!("{user.claims.tenant}".parse::<Template>().unwrap().needs_login());
        let template: Template = "{path.id}{path.part|x}".parse().unwrap();
        assert!(!template.needs_login());
        assert_eq!(template.segments().collect::<Vec<_>>(), ["id"]);
    }

    #[test]
    fn nothing_can_be_split_by_a_value() {
        for (value, encoded) in [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("/a%20b", "/a%20b"),
            ("a,b", "a%2Cb"),
            ("a;b=\"c\"", "a%3Bb=%22c%22"),
            ("a\r\nX: y", "a%0D%0AX:%20y"),
            ("é\\", "%C3%A9%5C"),
            ("\0\u{7f}", "%00%7F"),
        ] {
            let mut out = String::new();
            encode(value, true, &mut out);
            assert_eq!(out, encoded);
        }
        // What is not encoded yet stays apart from what would look like it.
        let mut out = String::new();
        encode("a%2Cb", false, &mut out);
        assert_eq!(out, "a%252Cb");
    }
}
