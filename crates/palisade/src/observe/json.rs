//! Hand-written JSON: a log line costs no tree and no allocation of its own.

use std::io::Write as _;

/// Appends `,"name":"value"`.
pub(crate) fn field_str(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

/// Appends `,"name":number`.
pub(crate) fn field_u64(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    let _ = write!(out, "{value}");
}

/// Appends `,"name":null`.
pub(crate) fn field_null(out: &mut Vec<u8>, name: &str) {
    key(out, name);
    out.extend_from_slice(b"null");
}

/// Appends `,"name":12.345`, from microseconds.
pub(crate) fn field_millis(out: &mut Vec<u8>, name: &str, micros: u64) {
    key(out, name);
    let _ = write!(out, "{}.{:03}", micros / 1_000, micros % 1_000);
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a JSON string. Control characters, also those of C1 and the line separators that some viewers act on, are
/// escaped: a log line stays one line in every sink.
pub(crate) fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (place, character) in value.char_indices() {
        let escaped: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            ' '..='~' => continue,
            '\u{a0}'..='\u{2027}' | '\u{2030}'..='\u{fefe}' | '\u{ff00}'.. => continue,
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
    fn strings_come_back_as_they_were() {
        for text in ["", "plain", "a\"b\\c", "\u{1b}[31m\n\r\t\0", "é漢\u{2028}\u{85}\u{7f}", "</script>", "😀"] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            assert!(!out.iter().any(|byte| *byte < 0x20 || *byte == 0x7f), "{text:?}");
        }
    }
}
