//! `format = "pretty"`: log lines for people. Made from the JSON line, so that both formats say the same.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Rewrites the last line of a buffer, which begins at `from`, for people. A line that is no JSON object stays.
pub(crate) fn rewrite(out: &mut Vec<u8>, from: usize) {
    let Some(line) = out.get(from..) else { return };
    let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return };
    let text = render(&fields);
    out.truncate(from);
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn render(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = text("time").get(11..23).unwrap_or_default();
    let mut line = String::with_capacity(160);
    if text("event") == "access" {
        let number = |name: &str| fields.get(name).map(ToString::to_string).unwrap_or_default();
        let query = if text("query").is_empty() { String::new() } else { format!("?{}", visible(text("query"))) };
        let _ = write!(
            line,
            "{time} {} {}{query} {} {} ms  {}",
            visible(text("method")),
            visible(text("path")),
            number("status"),
            number("duration_ms"),
            text("outcome"),
        );
        let shown = ["code", "client", "host", "request_id"];
        append(&mut line, fields, |name| shown.contains(&name));
    } else {
        let _ = write!(line, "{time} {:<5} {}", text("level").to_uppercase(), text("event"));
        append(&mut line, fields, |name| !["time", "event", "level"].contains(&name));
    }
    line
}

fn append(line: &mut String, fields: &Map<String, Value>, wanted: impl Fn(&str) -> bool) {
    for (name, value) in fields.iter().filter(|(name, value)| wanted(name) && !value.is_null()) {
        let _ = match value {
            Value::String(text) => write!(line, " {name}={}", visible(text)),
            other => write!(line, " {name}={other}"),
        };
    }
}

/// What a client sent must not move the cursor of whoever reads it: control characters, line separators, and what turns
/// the direction of writing are shown as `\u{…}`.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if moves(character) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// Whether a terminal or viewer acts on a character instead of showing it.
pub fn moves(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people_say_the_same_and_move_no_cursor() {
        let mut out = b"before\n".to_vec();
        let from = out.len();
        out.extend_from_slice(
            br#"{"time":"2026-11-23T18:55:42.156Z","event":"access","request_id":"01abc","client":"192.0.2.7","host":"a","method":"GET","path":"/\u001b[2J","query":"","status":404,"code":"integrity.path","outcome":"refused","duration_ms":0.178}"#,
        );
        out.push(b'\n');
        rewrite(&mut out, from);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "before\n18:55:42.156 GET /\\u{1b}[2J 404 0.178 ms  refused request_id=01abc client=192.0.2.7 host=a code=integrity.path\n"
        );
        let mut event =
            br#"{"time":"2026-11-23T18:55:42.156Z","event":"server.listening","level":"info","listener":"https"}"#
                .to_vec();
        rewrite(&mut event, 0);
        assert_eq!(String::from_utf8(event).unwrap(), "18:55:42.156 INFO  server.listening listener=https\n");
    }
}
