//! Patterns of paths, and the prefixes that applications are reached under. Threats 1 and 6.

use std::fmt;
use std::str::FromStr;

use palisade_base::{BadValue, TextValue, text_value};

use crate::policy::spelling;

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
