//! What is wrong with a rule file, said so that it can be mended.

use std::fmt;
use std::sync::Arc;

/// One mistake in the rules: where, what, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named when it was read.
    pub file: Arc<str>,
    /// Line of the directive's beginning, from 1.
    pub line: u32,
    /// The offending text, shortened.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  {}:{}", self.message, self.file, self.line)?;
        if !self.text.is_empty() {
            write!(f, "  {}", self.text)?;
        }
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// A place in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as it was named when it was read.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Everything that is wrong, collected while reading goes on, so that one run names every mistake.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn error(&mut self, at: &Place, text: &str, message: impl Into<String>, help: impl Into<String>) {
        // A rule set of the wrong format would otherwise report every one of its lines.
        if self.0.len() >= 1000 {
            return;
        }
        let mut short: String = text.chars().take(160).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        self.0.push(Problem {
            file: at.file.clone(),
            line: at.line,
            text: short,
            message: message.into(),
            help: help.into(),
        });
    }
}

/// The name among `known` that was probably meant, as the end of a help text.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted = name.to_ascii_lowercase();
    let best = known.map(|k| (distance(&wanted, &k.to_ascii_lowercase()), k)).min();
    match best {
        Some((d, k)) if d <= 1 + wanted.len() / 4 => format!("did you mean `{k}`?"),
        _ => String::new(),
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, y) in b.iter().enumerate() {
            let up = row[j + 1];
            let cost = (diagonal + usize::from(x != *y)).min(up + 1).min(left + 1);
            diagonal = up;
            row[j] = left;
            left = cost;
        }
        let last = b.len();
        row[last] = left;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close_names_only() {
        assert_eq!(did_you_mean("SecRul", ["SecRule", "SecAction"].into_iter()), "did you mean `SecRule`?");
        assert_eq!(did_you_mean("Frobnicate", ["SecRule", "SecAction"].into_iter()), "");
    }
}
