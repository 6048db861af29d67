//! What commands print: JSON for scripts, text for people.

use std::fmt::Write as _;

use palisade::observe::{moves, visible};
use serde_json::Value;

/// Prints a text on standard output. A reader that has left (`| head`) is no error.
pub(super) fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says something to the person who started the command. Nobody there to read it is no error: `eprint!` would end a
/// gateway whose standard error has been closed.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints JSON.
pub(super) fn json(value: &Value) -> anyhow::Result<()> {
    // As JSON escapes them; outside of texts there are none but line ends.
    let mut out = String::new();
    for character in serde_json::to_string_pretty(value)?.chars() {
        match character {
            // All that moves a cursor lies in the first plane.
            moving if moving != '\n' && moves(moving) => drop(write!(out, "\\u{:04x}", u32::from(moving))),
            other => out.push(other),
        }
    }
    print(&format!("{out}\n"));
    Ok(())
}

/// A text of a JSON value, `-` where there is none. What a client sent stands in some of them: it is shown, and moves no
/// cursor.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.split('\n').map(visible).collect::<Vec<_>>().join("\n"),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn text_of(value: &Value) -> String {
    text(value)
}

/// The items of a list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Rows in columns, each as wide as its longest value; the last one ragged.
pub(super) fn table(rows: &[Vec<String>], indent: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count()) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Every line of a text, indented.
pub(super) fn indented(text: &str, indent: usize) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{}{line}\n", " ".repeat(indent)) })
        .collect()
}

/// What would allow a request, as text.
pub(super) fn remedy(remedy: &Value, indent: usize) -> String {
    let said = text(&remedy["text"]);
    match remedy["toml"].as_str() {
        Some(toml) => format!(
            "{}{}",
            indented(&format!("to allow it, {said}:"), indent),
            indented(&format!("\n{toml}\n"), indent + 2)
        ),
        None => indented(&said, indent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "b".into()], vec!["long".into(), "é".into(), "end".into()]];
        assert_eq!(table(&rows, 1), " a     b\n long  é  end\n");
    }
}
