//! Other spellings of the same in a path, as applications read them.
//!
//! `/users/%40me` is `/users/@me` to all that decode the segment, though not to RFC 3986, for which `@` is reserved.
//! `/users/07` is user 7 to an application that parses the segment, and another text to whoever compares it: a rule for
//! `{id:int}` must not be passed by. Sources: pydantic (`07`, `+7`, `%207`, `7_0`, `7.0`), Python's `uuid.UUID`
//! (`urn:uuid:`, braces, no hyphens, upper case), JavaScript's `Number` (`0x7`, `7e0`).

use std::borrow::Cow;

/// The number that a segment spells, without sign `+`, leading zeros, separators, or a fraction of zeros; with another
/// fraction, exponent or base it is given as written, since applications disagree.
pub(super) fn number(part: &str) -> Option<String> {
    let text = decode(part);
    let text = text.trim();
    let (minus, rest) = match text.strip_prefix(['-', '+', '\u{2212}']) {
        Some(rest) => (!text.starts_with('+'), rest),
        None => (false, text),
    };
    // A base other than ten.
    if let Some(digits) = rest.strip_prefix('0').and_then(|rest| rest.strip_prefix(['x', 'X', 'o', 'O', 'b', 'B'])) {
        let all = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit() || c == '_');
        return all.then(|| text.to_owned());
    }
    let mut number = String::new();
    let mut rest = rest.chars().peekable();
    // Digits of any script are digits to Python.
    if !rest.peek().is_some_and(|c| c.is_numeric()) {
        return None;
    }
    while let Some(digit) = rest.next_if(|c| c.is_numeric() || matches!(c, '_' | ',')) {
        match digit {
            '_' | ',' => {}
            digit => number.push(digit),
        }
    }
    let mut exact = true;
    if rest.next_if_eq(&'.').is_some() {
        while let Some(digit) = rest.next_if(|c| c.is_numeric()) {
            exact &= digit == '0';
        }
    }
    if rest.next_if(|c| matches!(c, 'e' | 'E')).is_some() {
        exact = false;
        let _ = rest.next_if(|c| matches!(c, '-' | '+'));
        rest.next_if(|c| c.is_numeric())?;
        while rest.next_if(|c| c.is_numeric()).is_some() {}
    }
    if rest.next().is_some() {
        return None;
    }
    if !exact {
        return Some(text.to_owned());
    }
    let digits = number.trim_start_matches('0');
    Some(match (digits, minus) {
        ("", _) => "0".to_owned(),
        (digits, true) => format!("-{digits}"),
        (digits, false) => digits.to_owned(),
    })
}

/// The 32 lower-case digits of the UUID that a segment spells.
pub(super) fn uuid(part: &str) -> Option<String> {
    let text = decode(part).trim().to_ascii_lowercase();
    let text = text.strip_prefix("urn:").unwrap_or(&text);
    let text = text.strip_prefix("uuid:").unwrap_or(text);
    let digits: String = text.trim_matches(['{', '}', '(', ')']).chars().filter(|c| *c != '-').collect();
    (digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// The text of a segment as rules compare it: without escapes, but for those of `/` and `%`, which would change what is a
/// segment and what an escape.
pub(super) fn text(part: &str) -> Cow<'_, str> {
    unescape(part, |byte| !matches!(byte, b'/' | b'%'))
}

/// Whether each `%` begins an escape.
pub(super) fn is_escaped(part: &str) -> bool {
    let digits =
        |at: usize| part.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    part.match_indices('%').all(|(at, _)| digits(at))
}

/// The text of a segment. Its escapes are well-formed UTF-8 by now.
fn decode(part: &str) -> Cow<'_, str> {
    unescape(part, |_| true)
}

fn unescape(part: &str, wanted: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let pair = behind.get(..2).filter(|_| byte == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(escaped) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            if wanted(escaped) {
                bytes.push(escaped);
            } else {
                bytes.extend_from_slice(format!("%{escaped:02X}").as_bytes());
            }
            rest = &behind[2..];
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_other_spellings() {
        for (part, expected) in [
            ("7", "7"),
            ("07", "7"),
            ("+7", "7"),
            ("%207", "7"),
            ("7%20", "7"),
            ("7%C2%A0", "7"),
            ("7.0", "7"),
            ("7.", "7"),
            ("7_0", "70"),
            ("1,000", "1000"),
            ("-0", "0"),
            ("-07", "-7"),
            ("000", "0"),
            ("7.5", "7.5"),
            ("7e0", "7e0"),
            ("0x7", "0x7"),
            ("%D9%A7", "\u{667}"),
        ] {
            assert_eq!(number(part).as_deref(), Some(expected), "{part}");
        }
        for part in ["", "me", "7-eleven", "7a", "v7", "+", "%20", "7e", "7.0.0", "--7", "0x"] {
            assert_eq!(number(part), None, "{part}");
        }
    }

    #[test]
    fn texts_are_compared_without_escapes() {
        for (part, expected) in [
            ("me", "me"),
            ("%40me", "@me"),
            ("v1%3abatch", "v1:batch"),
            ("caf%C3%A9", "caf\u{e9}"),
            ("a%20b", "a b"),
            ("a%2fb", "a%2Fb"),
            ("100%25", "100%25"),
            ("%2540", "%2540"),
        ] {
            assert_eq!(text(part), expected, "{part}");
        }
        assert!(
            is_escaped("a%20b%C3") && is_escaped("") && !is_escaped("100%") && !is_escaped("%4") && !is_escaped("%zz")
        );
    }

    #[test]
    fn uuids_in_other_spellings() {
        let digits = "0123456789abcdef0123456789abcdef";
        for part in [
            "01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89AB-CDEF-0123-456789ABCDEF",
            "0123456789abcdef0123456789abcdef",
            "urn:uuid:01234567-89ab-cdef-0123-456789abcdef",
            "%7B01234567-89ab-cdef-0123-456789abcdef%7D",
            "uuid:01234567-89ab-cdef-0123-456789abcdef",
            "%2001234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(uuid(part).as_deref(), Some(digits), "{part}");
        }
        for part in ["", "me", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdeg"] {
            assert_eq!(uuid(part), None, "{part}");
        }
    }
}
