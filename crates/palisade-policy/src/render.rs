//! Problems as text and as JSON.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Value, json};

use crate::mask::{self, REDACTED};
use crate::problem::{At, Problem, Problems, Severity};
use crate::source::{Kind, Place, Texts, is_printable};

/// Problems in one rendering.
const MAX_SHOWN: usize = 100;
/// Columns of a source line that are shown.
const MAX_WIDTH: usize = 110;
/// A line longer than this was not written by a person, and is not shown.
const MAX_LINE_BYTES: usize = 4096;
/// A place longer than this stands on a line of its own.
const MAX_PLACE: usize = 40;

struct Paint(bool);

impl Paint {
    fn put(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "34";
const BOLD: &str = "1";

pub(crate) fn text(problems: &Problems, color: bool) -> String {
    let paint = Paint(color);
    let mut sorted = problems.sorted();
    let all = sorted.len() + problems.beyond_kept();
    if sorted.len() > MAX_SHOWN {
        // Warnings must not push errors out.
        let errors = sorted.iter().filter(|problem| problem.severity == Severity::Error).count().min(MAX_SHOWN);
        let (mut errors, mut warnings) = (errors, MAX_SHOWN - errors);
        sorted.retain(|problem| {
            let left = if problem.severity == Severity::Error { &mut errors } else { &mut warnings };
            let keep = *left > 0;
            *left = left.saturating_sub(1);
            keep
        });
    }
    let mut out = String::new();
    for problem in &sorted {
        if !out.is_empty() {
            out.push('\n');
        }
        one(&mut out, problems, problem, &paint);
    }
    if all > sorted.len() {
        let _ = writeln!(out, "\nand {} more", all - sorted.len());
    }
    out
}

fn one(out: &mut String, problems: &Problems, problem: &Problem, paint: &Paint) {
    let (word, code) = match problem.severity {
        Severity::Error => ("error", RED),
        Severity::Warning => ("warning", YELLOW),
    };
    let _ = writeln!(out, "{}: {}", paint.put(code, word), paint.put(BOLD, &problem.message));
    let fix = problem.fix.as_deref().unwrap_or("");
    match &problem.at {
        At::Place(place) => excerpt(out, &problems.texts, place, problem.guess_secrets, fix, code, paint),
        At::Unset { key, table, near } => {
            let joined = |text: String| if fix.is_empty() { text } else { format!("{text}: {fix}") };
            match near {
                Some(place) => {
                    let label = if fix.starts_with("add ") {
                        fix.to_owned()
                    } else {
                        joined(format!("`{key}` is not set here"))
                    };
                    excerpt(out, &problems.texts, place, false, &label, code, paint);
                }
                None => {
                    let place = problems.main_file().unwrap_or_else(|| "policy".to_owned());
                    let top = table == "the top level";
                    let where_to =
                        if top { "at the top level, above the first section" } else { &format!("into {table}") };
                    let text = joined(format!("`{key}` is not set; it belongs {where_to}"));
                    let _ = writeln!(out, "  {}  {text}", paint.put(BLUE, &place));
                }
            }
        }
        At::Whole(name) => {
            let name = name.as_deref().unwrap_or("policy");
            let gap = if fix.is_empty() { "" } else { "  " };
            let _ = writeln!(out, "  {}{gap}{fix}", paint.put(BLUE, name));
        }
    }
    for note in &problem.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    if let Some((section, page)) = problems.guide_of(problem) {
        let _ = writeln!(out, "  guide: section {section} (docs: {page})");
    }
}

fn excerpt(out: &mut String, texts: &Texts, place: &Place, guess: bool, label: &str, code: &str, paint: &Paint) {
    let Some(source) = texts.get(place) else {
        let _ = writeln!(out, "  {label}");
        return;
    };
    let name = if source.has_lines() {
        let (line, column) = source.position(place.start);
        format!("{}:{line}:{column}", source.name())
    } else {
        source.name()
    };
    let shown = Line::of(texts, place, guess);
    let carets = "^".repeat(shown.caret.len().max(1));
    let width = name.chars().count();
    let (lead, indent) = if width > MAX_PLACE {
        (format!("  {}\n    ", paint.put(BLUE, &name)), 4)
    } else {
        (format!("  {}  ", paint.put(BLUE, &name)), width + 4)
    };
    if shown.text.is_empty() {
        let _ = writeln!(out, "{}{label}", if label.is_empty() { lead.trim_end() } else { lead.as_str() });
        return;
    }
    let _ = writeln!(out, "{lead}{}", shown.text);
    let gap = " ".repeat(indent + shown.caret.start);
    let inline = indent + shown.caret.end + label.chars().count() <= MAX_WIDTH + 20 || shown.caret.len() < 30;
    if label.is_empty() {
        let _ = writeln!(out, "{gap}{}", paint.put(code, &carets));
    } else if inline && indent + shown.caret.end < MAX_WIDTH {
        let _ = writeln!(out, "{gap}{} {label}", paint.put(code, &carets));
    } else {
        let _ = writeln!(out, "{gap}{}", paint.put(code, &carets));
        let _ = writeln!(out, "  fix: {label}");
    }
}

/// A source line as it may be shown: secrets and control characters replaced, cut to a width, with the columns to mark.
struct Line {
    text: String,
    caret: Range<usize>,
}

impl Line {
    fn of(texts: &Texts, place: &Place, guess: bool) -> Line {
        let none = Line { text: String::new(), caret: 0..0 };
        let Some(source) = texts.get(place) else { return none };
        let range = source.line_at(place.start);
        let Some(line) = source.text.get(range.clone()).filter(|line| line.len() <= MAX_LINE_BYTES) else {
            return none;
        };
        let mut hidden = texts.hidden(place.source, range.clone());
        hidden.extend(
            mask::url_passwords(line).into_iter().map(|found| range.start + found.start..range.start + found.end),
        );
        let behind = mask::secret_in_comment(line);
        hidden.extend(behind.map(|found| range.start + found.start..range.start + found.end));
        if guess {
            hidden.extend(mask::guessed_secret(&source.text, range.clone()));
        }
        hidden.sort_by_key(|range| (range.start, range.end));

        // Cells of one or two columns, each with the bytes it stands for.
        let mut cells: Vec<(String, usize, Range<usize>)> = Vec::new();
        let mut masks = hidden.into_iter().peekable();
        let mut masked_until = 0;
        for (at, c) in line.char_indices() {
            let at = range.start + at;
            while masks.peek().is_some_and(|mask| mask.start <= at) {
                let Some(mask) = masks.next() else { break };
                if mask.end > masked_until && mask.end > at {
                    if at >= masked_until {
                        cells.push((REDACTED.to_owned(), REDACTED.len(), at..mask.end));
                    } else if let Some(last) = cells.last_mut() {
                        last.2.end = mask.end;
                    }
                    masked_until = mask.end;
                }
            }
            if at < masked_until {
                continue;
            }
            let bytes = at..at + c.len_utf8();
            match c {
                '\t' => cells.push((" ".to_owned(), 1, bytes)),
                '\u{feff}' => {}
                c if is_printable(c) => cells.push((c.to_string(), width(c), bytes)),
                _ => cells.push(("\u{fffd}".to_owned(), 1, bytes)),
            }
        }
        let blank = |cell: &&(String, usize, Range<usize>)| cell.0 == " ";
        let leading = cells.iter().take_while(blank).count().min(cells.len());
        cells.drain(..leading);
        let trailing = cells.iter().rev().take_while(blank).count();
        cells.truncate(cells.len() - trailing);

        // Column range of the place; what lies before or behind the line is clamped to it.
        let mut column = 0;
        let (mut start, mut end) = (None, 0);
        for (_, width, bytes) in &cells {
            if bytes.end > place.start && start.is_none() {
                start = Some(column);
            }
            column += width;
            if bytes.start < place.end {
                end = column;
            }
        }
        let start = start.unwrap_or(column);
        let end = end.max(start + 1);

        // Cut long lines to a window that begins a little before the place.
        let from = if column <= MAX_WIDTH { 0 } else { start.saturating_sub(30).min(column.saturating_sub(MAX_WIDTH)) };
        let (mut text, mut at, mut cut_start) = (String::new(), 0, 0);
        if from > 0 {
            text.push('…');
            cut_start = 1;
        }
        let mut first = None;
        for (cell, width, _) in &cells {
            if at >= from && at + width <= from + MAX_WIDTH {
                first.get_or_insert(at);
                text.push_str(cell);
            }
            at += width;
        }
        if at > from + MAX_WIDTH {
            text.push('…');
        }
        let origin = first.unwrap_or(from);
        let shift = |column: usize| (column.max(origin) - origin + cut_start).min(MAX_WIDTH + cut_start + 1);
        let caret = shift(start)..shift(end).max(shift(start) + 1);
        Line { text, caret }
    }
}

/// Columns of a character in a terminal: East Asian wide ones and emoji take two, marks that combine none.
fn width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

pub(crate) fn json(problems: &Problems) -> Value {
    let list: Vec<Value> = problems.sorted().into_iter().map(|problem| one_json(problems, problem)).collect();
    json!({
        "errors": problems.count(Severity::Error),
        "warnings": problems.count(Severity::Warning),
        "problems": list,
    })
}

fn one_json(problems: &Problems, problem: &Problem) -> Value {
    let mut value = json!({
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "path": problem.path,
        "message": problem.message,
        "fix": problem.fix,
    });
    let place = match &problem.at {
        At::Place(place) | At::Unset { near: Some(place), .. } => Some(place),
        _ => None,
    };
    let Some(object) = value.as_object_mut() else { return value };
    if let Some((place, source)) = place.and_then(|place| problems.texts.get(place).map(|source| (place, source))) {
        let (line, column) = source.position(place.start);
        let (end_line, end_column) = source.position(place.end);
        match &source.kind {
            Kind::Env(name) => object.insert("env".into(), json!(name)),
            Kind::Flag(name) => object.insert("flag".into(), json!(name)),
            _ => object.insert("file".into(), json!(source.name())),
        };
        if source.has_lines() {
            object.insert("line".into(), json!(line));
            object.insert("column".into(), json!(column));
            object.insert("end_line".into(), json!(end_line));
            object.insert("end_column".into(), json!(end_column));
        }
        object.insert("text".into(), json!(Line::of(&problems.texts, place, problem.guess_secrets).text));
    } else if let At::Whole(Some(name)) = &problem.at {
        object.insert("file".into(), json!(name));
    } else if let Some(name) = problems.main_file() {
        object.insert("file".into(), json!(name));
    }
    if !problem.notes.is_empty() {
        object.insert("notes".into(), json!(problem.notes));
    }
    if let Some((section, page)) = problems.guide_of(problem) {
        object.insert("guide".into(), json!({ "section": section, "docs": page }));
    }
    value
}
