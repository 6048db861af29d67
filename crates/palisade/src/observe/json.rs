//! Hand-written JSON: a log line costs no tree and no allocation of its own.

use std::io::Write as _;

/// Appends `,"name":"value"`.
#[inline]
pub(crate) fn field_str(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

/// Appends `,"name":number`.
pub(crate) fn field_u64(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    number(out, value, 1);
}

/// Appends a number with at least so many digits. Formatting machinery would cost more than the rest of a line.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64, least: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while value > 0 || digits.len() - start < least {
        start -= 1;
        digits[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `,"name":null`.
pub(crate) fn field_null(out: &mut Vec<u8>, name: &str) {
    key(out, name);
    out.extend_from_slice(b"null");
}

/// Appends `,"name":12.345`, from microseconds.
pub(crate) fn field_millis(out: &mut Vec<u8>, name: &str, micros: u64) {
    key(out, name);
    number(out, micros / 1_000, 1);
    out.push(b'.');
    number(out, micros % 1_000, 3);
}

#[inline]
fn key(out: &mut Vec<u8>, name: &str) {
    out.reserve(name.len() + 4);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a JSON string. Control characters, also those of C1, and the line separators and turns of direction that some
/// viewers act on, are escaped: a log line stays one line in every sink.
pub(crate) fn string(out: &mut Vec<u8>, value: &str) {
    out.reserve(value.len() + 2);
    out.push(b'"');
    // Nearly every value needs no escape; the whole of it is looked at without a branch a byte.
    let odd = |byte: &u8| !(b' '..=b'~').contains(byte) | (*byte == b'"') | (*byte == b'\\');
    if value.len() <= 512 && !value.as_bytes().iter().fold(false, |any, byte| any | odd(byte)) {
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain = 0;
    for (place, character) in value.char_indices() {
        let escaped: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            ' '..='~' => continue,
            '\u{a0}'..='\u{200d}'
            | '\u{2010}'..='\u{2027}'
            | '\u{2030}'..='\u{2065}'
            | '\u{206a}'..='\u{fefe}'
            | '\u{ff00}'.. => continue,
            _ => b"",
        };
        out.extend_from_slice(&value.as_bytes()[plain..place]);
        if escaped.is_empty() {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.extend_from_slice(escaped);
        }
        plain = place + character.len_utf8();
    }
    out.extend_from_slice(&value.as_bytes()[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_formatting_would() {
        for value in [0, 7, 10, 999, 1_000, u64::MAX] {
            let (mut out, mut padded) = (Vec::new(), Vec::new());
            number(&mut out, value, 1);
            number(&mut padded, value, 3);
            assert_eq!((out, padded), (format!("{value}").into_bytes(), format!("{value:03}").into_bytes()));
        }
        let mut out = Vec::new();
        field_millis(&mut out, "ms", 12_034);
        assert_eq!(out, b",\"ms\":12.034");
    }

    #[test]
    fn strings_come_back_as_they_were() {
        for text in [
            "",
            "plain",
            "a\"b\\c",
            "\u{1b}[31m\n\r\t\0",
            "é漢\u{2028}\u{85}\u{7f}",
            "</script>",
            "😀",
            "\u{202e}\u{2066}\u{2069}\u{200e}",
        ] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            let moves = crate::observe::moves;
            assert!(!std::str::from_utf8(&out).unwrap().chars().any(moves), "{text:?}");
        }
    }
}
