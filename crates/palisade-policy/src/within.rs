//! A piece of a text value in the source that it was written in.

use std::ops::Range;

/// Where a piece of a string's value stands in the string as it is written, quotes and escapes included; none where it is
/// not written as a string.
pub(crate) fn find(raw: &str, piece: &Range<usize>) -> Option<Range<usize>> {
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let escapes = match raw.chars().next()? {
        '"' => true,
        '\'' => false,
        _ => return None,
    };
    let mut at = quotes;
    if quotes == 3 {
        // A line end right behind the quotes is not part of the value.
        let rest = raw.get(at..)?;
        at += rest.len() - rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest).len();
    }
    let (mut value, mut start) = (0, None);
    loop {
        if let Some(start) = start
            && value >= piece.end
        {
            return Some(start..at);
        }
        let rest = raw.get(at..)?;
        if escapes
            && let Some(blank) =
                rest.strip_prefix('\\').filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()))
        {
            // The line goes on behind all that is blank.
            at += 1 + blank.len() - blank.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
            continue;
        }
        if start.is_none() && value >= piece.start {
            start = Some(at);
            continue;
        }
        let c = rest.chars().next()?;
        if !(escapes && c == '\\') {
            at += c.len_utf8();
            value += c.len_utf8();
            continue;
        }
        let behind = rest.get(1..)?;
        let hex = match behind.chars().next()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => {
                at += 2;
                value += 1;
                continue;
            }
        };
        let code = behind.get(1..=hex).and_then(|digits| u32::from_str_radix(digits, 16).ok())?;
        at += 2 + hex;
        value += char::from_u32(code)?.len_utf8();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_the_value_is_found_where_it_is_written() {
        for (raw, piece, written) in [
            ("\"user.rol == 'a'\"", 5..8, "rol"),
            ("'user.rol'", 5..8, "rol"),
            ("\"a\\\"b rol\"", 4..7, "rol"),
            ("\"\\u00e9 rol\"", 3..6, "rol"),
            ("\"\\U0001F600 rol\"", 5..8, "rol"),
            ("\"é rol\"", 3..6, "rol"),
            ("\"\"\"\na\nrol\"\"\"", 2..5, "rol"),
            ("'''\r\nrol'''", 0..3, "rol"),
            ("\"\"\"a \\\n   rol\"\"\"", 2..5, "rol"),
            ("\"ab\"", 2..2, ""),
            ("\"\"", 0..0, ""),
        ] {
            assert_eq!(find(raw, &piece).map(|range| &raw[range]), Some(written), "{raw}");
        }
        for (raw, piece) in [("user", 0..1), ("\"ab", 2..9), ("", 0..0), ("\"\\", 0..3), ("\"\\uzzzz\"", 1..2)] {
            assert_eq!(find(raw, &piece), None, "{raw}");
        }
    }

    #[test]
    fn a_message_points_at_the_piece() {
        let text = "[[route]]\npath = \"/a\"\nwhen = \"'a' in user.rols\"\n";
        let snapshot = crate::Snapshot::from_text("example", text).unwrap();
        let mut problems = snapshot.problems();
        problems.error_within("route[0].when", 12..16, "`user` has no `rols`", "did you mean `user.roles`?");
        problems.warn_within("route[0].path", 0..2, "a piece that is all of it", "");
        problems.warn_within("route[0].nothing", 0..2, "where there is nothing", "");
        let shown = problems.render(false);
        assert!(shown.contains("<example>:3:21") && shown.contains("^^^^ did you mean"), "{shown}");
    }
}
