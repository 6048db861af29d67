//! The texts a policy is made of, and places in them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Hidden places that are kept; a policy with more of them shows no line at all.
const MAX_HIDDEN: usize = 20_000;

/// Where a text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A policy file. `base` is the folder of the main file it belongs to: relative paths in it start there.
    File { path: PathBuf, base: PathBuf },
    /// An environment variable, by its name.
    Env(String),
    /// A command-line flag, as it was typed (`--upstream`).
    Flag(String),
    /// A text inside the binary, such as the starter policy.
    Builtin(&'static str),
}

/// One text, with the index of its lines.
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Byte offset at which each line starts.
    lines: Vec<usize>,
}

/// A range of bytes in one of the texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Place {
    pub(crate) fn new(source: usize, span: Range<usize>) -> Self {
        Place { source, start: span.start, end: span.end.max(span.start) }
    }
}

impl Source {
    pub(crate) fn new(kind: Kind, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { kind, text, lines }
    }

    /// What a message calls this text; for a file its path as it was given.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            Kind::File { path, .. } => printable(&path.display().to_string()),
            Kind::Env(_) => "environment".to_owned(),
            Kind::Flag(_) => "command line".to_owned(),
            Kind::Builtin(name) => format!("<{name}>"),
        }
    }

    /// Line and column of a byte offset; both count from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let before = self.text.get(start..floor_char(&self.text, offset)).unwrap_or("");
        (line + 1, before.trim_start_matches('\u{feff}').chars().count() + 1)
    }

    /// The bytes of the line that holds an offset, without its line end.
    pub(crate) fn line_at(&self, offset: usize) -> Range<usize> {
        let line = self.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end).unwrap_or("");
        start..start + line.strip_suffix('\r').unwrap_or(line).len()
    }

    /// Whether a line number helps to find the place.
    pub(crate) fn has_lines(&self) -> bool {
        matches!(self.kind, Kind::File { .. } | Kind::Builtin(_)) || self.lines.len() > 1
    }
}

/// All texts of a snapshot, shared between it and its problems.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) list: Vec<Source>,
    /// Places whose text must never be shown, because the schema expects a secret there.
    secret: Mutex<Vec<Place>>,
}

impl Texts {
    pub(crate) fn new(list: Vec<Source>) -> Self {
        Texts { list, secret: Mutex::default() }
    }

    pub(crate) fn get(&self, place: &Place) -> Option<&Source> {
        self.list.get(place.source)
    }

    pub(crate) fn hide(&self, place: Place) {
        let mut secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.len() < MAX_HIDDEN {
            secret.push(place);
        }
    }

    /// The hidden ranges that reach into a range of one text, in order.
    pub(crate) fn hidden(&self, source: usize, within: Range<usize>) -> Vec<Range<usize>> {
        let secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.len() >= MAX_HIDDEN {
            return vec![within]; // not all places were kept, so any line may hold one
        }
        let mut ranges: Vec<_> = secret
            .iter()
            .filter(|place| place.source == source && place.start < within.end && within.start < place.end)
            .map(|place| place.start.max(within.start)..place.end.min(within.end))
            .collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }
}

/// The folder a relative path in a main file starts at.
pub(crate) fn folder(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn floor_char(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Text that cannot move a terminal's cursor, change its colours or turn the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Kind::Builtin("test"), text.to_owned())
    }

    #[test]
    fn positions_count_lines_and_characters() {
        let text = source("a = 1\r\nü = \"x\"\n\nlast");
        for (offset, expected, line) in [
            (0, (1, 1), "a = 1"),
            (4, (1, 5), "a = 1"),
            (7, (2, 1), "ü = \"x\""),
            (9, (2, 2), "ü = \"x\""),
            (8, (2, 1), "ü = \"x\""),
        ] {
            assert_eq!(text.position(offset), expected, "{offset}");
            assert_eq!(&text.text[text.line_at(offset)], line, "{offset}");
        }
        assert_eq!(text.position(10_000), (4, 5));
        assert_eq!(&text.text[text.line_at(10_000)], "last");
        assert_eq!(source("").position(0), (1, 1));
        assert_eq!(source("\u{feff}a").position(3), (1, 1));
    }

    #[test]
    fn text_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
    }
}
