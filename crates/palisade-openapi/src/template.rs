//! A path of the document: literal segments, and segments with a parameter. OpenAPI 3.1 section 4.8.8.

use std::fmt;

/// Why a path of the document is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path begins with `/`, has whole pairs of braces and at most 2,048 bytes and 64 segments")]
pub struct BadTemplate;

/// A path with parameters: `/users/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Vec<Segment>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// Exactly this, in the spelling of normalised paths.
    Literal(Box<str>),
    /// A parameter (at least one byte), with what stands before and behind it.
    Parameter { before: Box<str>, after: Box<str> },
}

impl Segment {
    fn parse(text: &str) -> Result<Self, BadTemplate> {
        let Some(open) = text.find('{') else {
            return if text.contains('}') { Err(BadTemplate) } else { Ok(Self::Literal(normal(text))) };
        };
        let close = text.rfind('}').filter(|close| *close > open).ok_or(BadTemplate)?;
        // Between the first and the last brace anything may stand: a wider pattern is a stricter one.
        Ok(Self::Parameter { before: normal(&text[..open]), after: normal(&text[close + 1..]) })
    }

    pub(crate) fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *segment,
            Self::Parameter { before, after } => segment
                .strip_prefix(&**before)
                .and_then(|rest| rest.strip_suffix(&**after))
                .is_some_and(|value| !value.is_empty()),
        }
    }

    pub(crate) const fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

/// As the gateway spells a path that it has read: what is unreserved or a separator stands for itself, everything else is
/// escaped in upper case (RFC 3986 section 6.2.2).
fn normal(text: &str) -> Box<str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out.into()
}

/// The segments of a path: a slash at its end makes no difference.
pub(crate) fn split(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    // `//` is no other spelling of `/`: it has a segment, an empty one.
    let is_root = path.is_empty();
    path.strip_suffix('/').unwrap_or(path).split('/').filter(move |_| !is_root)
}

impl Template {
    /// Reads a path of a document.
    ///
    /// # Errors
    /// [`BadTemplate`].
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        if !text.starts_with('/') || text.len() > 2048 {
            return Err(BadTemplate);
        }
        let segments = split(text).map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        if segments.len() > 64 {
            return Err(BadTemplate);
        }
        Ok(Self { text: text.into(), segments })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it names more than another one that matches the same path: segment by segment, a literal counts more.
    pub(crate) fn is_more_concrete_than(&self, other: &Self) -> bool {
        let pairs = self.segments.iter().zip(&other.segments);
        pairs.map(|(mine, theirs)| (mine.is_literal(), theirs.is_literal())).find(|(mine, theirs)| mine != theirs)
            == Some((true, false))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        let template = Template::parse(template).expect(template);
        let segments: Vec<&str> = split(path).collect();
        template.segments().len() == segments.len()
            && template.segments().iter().zip(&segments).all(|(own, segment)| own.matches(segment))
    }

    #[test]
    fn which_paths() {
        for (template, path, expected) in [
            ("/", "/", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a/", "/a", true),
            ("/a", "/A", false),
            ("/a", "/a/b", false),
            ("/a/{b}", "/a/x", true),
            ("/a/{b}", "/a/", false),
            ("/a/{b}", "/a", false),
            ("/a/{b}/c", "/a/x/c", true),
            ("/a/{b}.json", "/a/x.json", true),
            ("/a/{b}.json", "/a/.json", false),
            ("/a/{b}-{c}", "/a/x-y", true),
            ("/a/v{b}", "/a/v1", true),
            ("/a/v{b}", "/a/x1", false),
            ("/caf\u{e9} x", "/caf%C3%A9%20x", true),
            ("/a:b@c", "/a:b@c", true),
            ("/{a}", "/", false),
            ("/", "//", false),
            ("/{a}", "//", false),
        ] {
            assert_eq!(matches(template, path), expected, "{template} {path}");
        }
        for bad in ["", "a", "/a{", "/a}", "/}a{", &format!("/{}", "a/".repeat(65)), &format!("/{}", "a".repeat(2048))]
        {
            assert!(Template::parse(bad).is_err(), "{bad:.40}");
        }
    }
}
