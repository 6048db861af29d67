//! From the text of a rule file to directives: line continuation, comments, words and quotes.
//!
//! The rules are Apache's (`ap_cfg_getline`, `ap_getword_conf`), because rule sets are written for them: a backslash at
//! the end of a line joins the next, and in a word `\\` is one backslash and `\"` a quote. Other backslashes stay.

/// A directive with its continuation lines joined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Logical {
    pub(crate) line: u32,
    pub(crate) text: String,
}

/// Joins continued lines and drops comments and empty lines.
pub(crate) fn logical_lines(text: &str) -> Vec<Logical> {
    let mut out = Vec::new();
    let mut pending: Option<Logical> = None;
    for (i, raw) in text.lines().enumerate() {
        let raw = raw.strip_suffix('\r').unwrap_or(raw);
        let (body, continued) = match raw.strip_suffix('\\') {
            Some(head) => (head, true),
            None => (raw, false),
        };
        let entry = pending.get_or_insert_with(|| Logical { line: i as u32 + 1, text: String::new() });
        // A comment inside a continued directive is what people write when they switch one action off.
        let inside = !entry.text.is_empty() && !entry.text.trim_start().starts_with('#');
        if !(inside && body.trim_start().starts_with('#')) {
            entry.text.push_str(body);
        }
        if !continued {
            out.extend(pending.take());
        }
    }
    out.extend(pending);
    for logical in &mut out {
        let trimmed = logical.text.trim();
        logical.text = if trimmed.starts_with('#') { String::new() } else { trimmed.to_owned() };
    }
    out.retain(|l| !l.text.is_empty());
    out
}

/// A quote that does not end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclosed;

/// Splits a directive into its words.
pub(crate) fn words(text: &str) -> Result<Vec<String>, Unclosed> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let quote = matches!(first, '"' | '\'').then_some(first);
        let mut word = String::new();
        let mut chars = rest.char_indices().peekable();
        if quote.is_some() {
            chars.next();
        }
        let mut end = None;
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => match chars.peek() {
                    Some(&(_, next)) if next == '\\' || Some(next) == quote => {
                        word.push(next);
                        chars.next();
                    }
                    _ => word.push('\\'),
                },
                c if Some(c) == quote => {
                    end = Some(i + 1);
                    break;
                }
                c if quote.is_none() && c.is_ascii_whitespace() => {
                    end = Some(i);
                    break;
                }
                c => word.push(c),
            }
        }
        if end.is_none() && quote.is_some() {
            return Err(Unclosed);
        }
        out.push(word);
        rest = rest.get(end.unwrap_or(rest.len())..).unwrap_or("").trim_start();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuation_comments_and_line_numbers() {
        let got =
            logical_lines("# c\nSecRule A \\\n  \"b\"\n\n  SecMarker X\r\n# a \\\nhidden\nSecAction \\\n# no\\\n x");
        assert_eq!(
            got,
            [
                Logical { line: 2, text: "SecRule A   \"b\"".into() },
                Logical { line: 5, text: "SecMarker X".into() },
                Logical { line: 8, text: "SecAction  x".into() },
            ]
        );
    }

    #[test]
    fn words_follow_apache() {
        for (text, want) in [
            (r#"SecRule ARGS "@rx a b" "id:1""#, vec!["SecRule", "ARGS", "@rx a b", "id:1"]),
            (r#"a "x\"y" 'it''s'"#, vec!["a", "x\"y", "it", "s"]),
            (r#"a "\\\\" "\d\\d" \\"#, vec!["a", r"\\", r"\d\d", r"\"]),
            (r#"SecRule TX:'/A/' "@rx x""#, vec!["SecRule", "TX:'/A/'", "@rx x"]),
        ] {
            assert_eq!(words(text).as_deref(), Ok(want.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()));
        }
        assert_eq!(words("a \"b"), Err(Unclosed));
    }
}
