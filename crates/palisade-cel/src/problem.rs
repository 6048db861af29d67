//! What is wrong with an expression, where, and how to mend it.

use std::fmt;

/// A piece of an expression's text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub len: usize,
}

impl Span {
    pub(crate) fn new(offset: usize, end: usize) -> Self {
        Self { offset, len: end.saturating_sub(offset) }
    }

    pub(crate) fn end(self) -> usize {
        self.offset.saturating_add(self.len)
    }

    /// From the beginning of this one to the end of another.
    pub(crate) fn to(self, other: Self) -> Self {
        Self::new(self.offset, other.end())
    }

    /// The piece itself.
    pub fn of<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.offset..self.end()).unwrap_or_default()
    }
}

/// Something wrong with an expression. Both texts are lower case without a full stop, as everything of the house.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The offending text.
    pub at: Span,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(at: Span, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { at, message: message.into(), fix: fix.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {}): {}", self.message, self.at.offset, self.fix)
    }
}

/// The word that was most likely meant.
pub(crate) fn closest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let fold = |word: &str| word.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect::<String>();
    let folded = fold(word);
    if folded.is_empty() || folded.len() > 64 {
        return None;
    }
    let most = if folded.len() <= 3 { 1 } else { 2.max(folded.len() / 3) };
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(&folded, &fold(known)), known));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
