//! The path, normalised once (RFC 3986 §6.2.2): dot segments, unreserved escapes, upper-case hex, repeated slashes.

use std::borrow::Cow;

/// What was read in a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The normalised path with repeated slashes merged: what rules are matched against. `None`: as sent.
    pub(super) normal: Option<String>,
    /// The same with repeated slashes kept, where there are any.
    pub(super) kept: Option<String>,
    /// It holds `%2F`.
    pub(super) encoded_slash: bool,
    /// It holds `;`.
    pub(super) parameters: bool,
    /// It holds `//`.
    pub(super) repeated_slash: bool,
    /// It leads elsewhere where repeated slashes are kept: dots follow them.
    pub(super) contested: bool,
}

impl Read {
    /// How else an application may read the path `normal`: with its encoded slashes decoded, with its parameters cut off,
    /// with both; with the slashes of that as they are, and merged.
    ///
    /// # Errors
    /// When one of these readings has a dot segment: `/..;/admin`.
    pub(super) fn other_readings(&self, normal: &str) -> Result<Vec<String>, &'static str> {
        let mut readings = Vec::new();
        if !self.encoded_slash && !self.parameters {
            return Ok(readings);
        }
        let decoded = self.encoded_slash.then(|| normal.replace("%2F", "/"));
        if self.parameters {
            readings.push(cut_parameters(normal));
            // `/a;x%2Fb` is `/a` to who cuts first, and `/a/b` to who decodes first.
            let both = readings.iter().map(|cut| cut.replace("%2F", "/")).next();
            readings.extend(both.filter(|_| self.encoded_slash));
            readings.extend(decoded.as_deref().map(cut_parameters));
        }
        readings.extend(decoded);
        let is_dots = |segment: &str| matches!(segment, "." | "..");
        if readings.iter().any(|reading| reading.split('/').any(is_dots)) {
            return Err("a dot segment beside an encoded slash or a parameter");
        }
        let merged: Vec<String> =
            readings.iter().filter(|reading| reading.contains("//")).map(|reading| merge_slashes(reading)).collect();
        readings.extend(merged);
        Ok(readings)
    }
}

/// Each segment up to its first `;`, encoded or not.
fn cut_parameters(path: &str) -> String {
    let cut = |segment: &str| {
        let plain = segment.find(';').unwrap_or(segment.len());
        let encoded = segment.find("%3B").unwrap_or(segment.len());
        segment[..plain.min(encoded)].to_owned()
    };
    path.split('/').map(cut).collect::<Vec<_>>().join("/")
}

/// Reads a path.
///
/// # Errors
/// Why it could be read in two ways, or not at all.
pub(super) fn read(path: &str) -> Result<Read, &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with a slash");
    }
    if is_plain(path.as_bytes()) {
        return Ok(Read::default());
    }
    let mut read = Read::default();
    let escaped = unescape(path.as_bytes(), &mut read)?;
    read.repeated_slash = escaped.contains("//");
    let kept = resolve_dots(&escaped);
    let merged = if read.repeated_slash { Cow::Owned(merge_slashes(&kept)) } else { Cow::Borrowed(kept.as_str()) };
    if read.encoded_slash
        && merged.split('/').any(|segment| segment.split("%2F").any(|part| part == "." || part == ".."))
    {
        return Err("a dot segment beside an encoded slash");
    }
    // Merging can bring dots together that resolving did not see: `/a//../b`.
    let merged = if read.repeated_slash { resolve_dots(&merge_slashes(&escaped)) } else { merged.into_owned() };
    if read.repeated_slash {
        // `/admin//../x` is `/admin/x` to who resolves dots first, and `/x` to who merges first.
        read.contested = merge_slashes(&kept) != merged;
        read.kept = Some(kept);
    }
    if merged != path || read.encoded_slash {
        read.normal = Some(merged);
    }
    Ok(read)
}

/// Nothing to normalise and nothing to judge: the path of nearly every request.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        let suspicious = match byte {
            b'/' | b'.' => last == b'/',
            b'%' | b';' | b'\\' | b'#' => true,
            _ => !(0x21..0x7f).contains(&byte),
        };
        if suspicious {
            return false;
        }
        last = byte;
    }
    true
}

fn unescape(path: &[u8], read: &mut Read) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.iter().copied().enumerate();
    while let Some((place, byte)) = rest.next() {
        match byte {
            b'%' => {
                let byte = hex_pair(path, place + 1).ok_or("a malformed escape")?;
                rest.next();
                rest.next();
                decoded.push(byte);
                escape(byte, &mut out, read)?;
            }
            b';' => {
                read.parameters = true;
                decoded.push(byte);
                out.push(';');
            }
            b'\\' => return Err("a backslash"),
            b'#' => return Err("a `#` in the target"),
            0x21..0x7f => {
                decoded.push(byte);
                out.push(char::from(byte));
            }
            _ => return Err("a control character, a space or a byte that is not ASCII"),
        }
    }
    std::str::from_utf8(&decoded).map_err(|_| "the path is not UTF-8")?;
    // Of what is forwarded, not of what came: in `%25%32%65` the digits are escaped themselves, and only here is it `%252e`.
    if is_escaped_twice(out.as_bytes()) {
        return Err("a double encoding");
    }
    Ok(out)
}

/// Whether an escaped `%` stands before two digits that spell a character with a meaning: `%252e` is harmless here, and a
/// dot for an application that decodes twice.
fn is_escaped_twice(path: &[u8]) -> bool {
    path.windows(3).enumerate().any(|(place, escape)| {
        escape == b"%25"
            && matches!(
                hex_pair(path, place + 3),
                Some(b'/' | b'\\' | b'.' | b';' | b'#' | b'%' | 0..=0x1f | 0x7f..=0xff)
            )
    })
}

fn escape(byte: u8, out: &mut String, read: &mut Read) -> Result<(), &'static str> {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            out.push(char::from(byte));
            return Ok(());
        }
        b'\\' => return Err("an encoded backslash"),
        0..=0x1f | 0x7f => return Err("an encoded control character"),
        b'/' => read.encoded_slash = true,
        b';' => read.parameters = true,
        _ => {}
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
    Ok(())
}

fn hex_pair(path: &[u8], place: usize) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(*path.get(place)?)?, digit(*path.get(place + 1)?)?);
    u8::try_from(high * 16 + low).ok()
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

/// RFC 3986 §5.2.4, on a path that begins with a slash.
fn resolve_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/%2e%2e/admin", "/admin"),
            ("/a//b", "/a/b"),
            ("//", "/"),
            ("/a//../b", "/b"),
            ("/c%23", "/c%23"),
            ("/a%20b", "/a%20b"),
            ("/100%25", "/100%25"),
            ("/a/%2e", "/a/"),
            ("/a.b/...", "/a.b/..."),
        ];
        for (raw, normal) in cases {
            let read = read(raw).unwrap();
            assert_eq!(read.normal.as_deref().unwrap_or(raw), normal, "{raw}");
        }
        assert_eq!(read("/a//b/../c").unwrap().kept.as_deref(), Some("/a//c"));
        for (raw, contested) in
            [("/a//b/../c", false), ("/a//../b", true), ("/a//..", true), ("/a//./b", false), ("/..//a", false)]
        {
            assert_eq!(read(raw).unwrap().contested, contested, "{raw}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for raw in [
            "a",
            "/a\\b",
            "/%5cb",
            "/%00",
            "/%0a",
            "/%7f",
            "/%",
            "/%4",
            "/%zz",
            "/%252e%252e/",
            "/%252F",
            "/%255c",
            "/%25252e",
            "/%2500",
            // The digits of the second escape are escaped themselves.
            "/%25%32%65%25%32%65/x",
            "/a%252%66b",
            "/a%25%32fb",
            "/a%25%35%63b",
            "/a%25%30%30",
            "/a%25%33%42b",
            "/a%25%32%35%32%65",
            "/%c0%ae",
            "/%ff",
            "/%c3",
            "/a b",
            "/a#b",
            "/é",
            "/%ed%a0%80",
            "/..%2Fadmin",
            "/%2e%2e%2fadmin",
            "/a%2F..%2Fb",
            "/a%2f.",
        ] {
            assert!(read(raw).is_err(), "{raw}");
        }
        let facts = |raw: &str| read(raw).map(|r| (r.encoded_slash, r.parameters, r.repeated_slash)).unwrap();
        assert_eq!(facts("/a%2fb"), (true, false, false));
        assert_eq!(facts("/a;x=1"), (false, true, false));
        assert_eq!(facts("/a%3Bx"), (false, true, false));
        assert_eq!(facts("/a//b"), (false, false, true));
    }

    #[test]
    fn how_else_an_application_may_read_it() {
        let readings = |raw: &str| {
            let read = read(raw).unwrap();
            read.other_readings(read.normal.as_deref().unwrap_or(raw))
        };
        for (raw, expected) in [
            ("/a/b", &[][..]),
            ("/users/7%2fdelete", &["/users/7/delete"]),
            ("/%2fadmin", &["//admin", "/admin"]),
            ("/a/b;c=1", &["/a/b"]),
            ("/a/b%3bc", &["/a/b"]),
            ("/;x/admin", &["//admin", "/admin"]),
            ("/a;x%2Fb", &["/a", "/a", "/a/b", "/a;x/b"]),
        ] {
            assert_eq!(readings(raw).unwrap(), expected, "{raw}");
        }
        for raw in ["/a/..;/admin", "/a/.;x/admin", "/a/..%3Bx/b", "/a%2F..;x"] {
            assert!(readings(raw).is_err(), "{raw}");
        }
    }
}
