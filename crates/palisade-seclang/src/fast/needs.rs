//! Kinds of bytes that a pattern cannot do without.
//!
//! Most patterns ask for some sign that most values do not have: a quote, a bracket, a percent sign. A text in which no
//! pattern finds all that it needs is not scanned.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::mask::{self, DIGIT, LOWER, SPACE, UPPER};
use super::patterns::{Pattern, parse};

/// Most sets that are kept of a pattern.
const KEPT: usize = 3;

/// Sets of kinds of bytes: a text that matches has a byte of each. Unused ones hold everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs([u64; KEPT]);

impl Needs {
    pub(crate) const NOTHING: Needs = Needs([u64::MAX; KEPT]);

    pub(crate) fn of(pattern: &Pattern) -> Result<Needs, String> {
        let sets = match pattern {
            Pattern::Regex(source) => sets(parse(source)?.hir()),
            Pattern::Words(words) => any_of(words.iter().map(|word| all_of(word.iter().map(|byte| letter(*byte))))),
        };
        let mut needs = Needs::NOTHING;
        needs.0.iter_mut().zip(sets).for_each(|(need, set)| *need = set);
        Ok(needs)
    }

    /// The set that the fewest texts meet.
    pub(crate) fn rarest(&self) -> u64 {
        self.0[0]
    }

    /// How common what is needed is.
    pub(crate) fn weight(&self) -> u32 {
        weight(self.0[0])
    }

    /// Whether a text that has these kinds of bytes, and is not empty, may match.
    pub(crate) fn are_met(&self, mask: u64) -> bool {
        self.0.iter().all(|need| need & mask != 0)
    }
}

/// A byte's kind, for a letter in either case.
fn letter(byte: u8) -> u64 {
    if byte.is_ascii_alphabetic() { LOWER | UPPER } else { mask::class(byte) }
}

/// How common the kinds of a set are.
fn weight(set: u64) -> u32 {
    let common = [(LOWER, 60), (UPPER, 40), (DIGIT, 30), (SPACE, 30)];
    let signs = [(b'/', 20), (b'.', 20), (b'-', 10), (b'_', 10), (b'=', 5), (b'&', 5), (b'?', 5), (b':', 5), (b',', 5)];
    let signs = signs.map(|(sign, weight)| (mask::class(sign), weight));
    let known: u32 = common.into_iter().chain(signs).filter(|(bit, _)| set & bit != 0).map(|(_, weight)| weight).sum();
    known + set.count_ones()
}

/// The sets of a pattern, the rarest first.
fn sets(hir: &Hir) -> Vec<u64> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => all_of(literal.0.iter().map(|byte| mask::class(*byte))),
        HirKind::Class(Class::Bytes(class)) => {
            vec![
                class.iter().flat_map(|range| range.start()..=range.end()).fold(0, |set, byte| set | mask::class(byte)),
            ]
        }
        HirKind::Class(Class::Unicode(class)) => vec![class.iter().fold(0, |set, range| {
            let ascii = (range.start()..=range.end()).take_while(char::is_ascii);
            let high = if range.end().is_ascii() { 0 } else { mask::HIGH };
            ascii.fold(set | high, |set, c| set | mask::class(c as u8))
        })],
        HirKind::Repetition(repetition) if repetition.min > 0 => sets(&repetition.sub),
        HirKind::Repetition(_) => Vec::new(),
        HirKind::Capture(capture) => sets(&capture.sub),
        HirKind::Concat(parts) => all_of(parts.iter().flat_map(sets)),
        HirKind::Alternation(parts) => any_of(parts.iter().map(sets)),
    }
}

fn all_of(sets: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut all: Vec<u64> = Vec::new();
    for set in sets {
        // One that holds another asks for nothing more.
        if !all.iter().any(|known| known & !set == 0) {
            all.retain(|known| set & !known != 0);
            all.push(set);
        }
    }
    all.sort_by_key(|set| weight(*set));
    all
}

/// Each alternative needs a byte of its own rarest set, so all of them one of these sets together; and so on.
fn any_of(alternatives: impl Iterator<Item = Vec<u64>>) -> Vec<u64> {
    let mut all: Option<Vec<u64>> = None;
    for sets in alternatives {
        all = Some(match all {
            None => sets,
            Some(known) => known.iter().zip(&sets).map(|(a, b)| a | b).collect(),
        });
    }
    all_of(all.unwrap_or_default().into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fast::patterns::Set;
    use proptest::prelude::*;

    const PATTERNS: [&str; 12] = [
        r"<script[^>]*>",
        r"(?i)union\s+select",
        r"['\x22=]\s*or",
        r"\.\.[/\\]",
        r"a|b\(|$",
        r"(?:https?|ftp)://[0-9]+",
        r"x{0,3}%",
        r"(?:;|\{|\|\|)\s*[a-z]+\b",
        r"^(\w+)@",
        r"[^a-z]{2}",
        r"(?u:\w)-",
        r"\x00|[\x80-\xff]",
    ];

    #[test]
    fn needs_are_the_rarest() {
        let needs = |pattern: &str| Needs::of(&Pattern::Regex(pattern.into())).unwrap();
        assert!(!needs("<script>").are_met(LOWER | SPACE) && needs("<script>").are_met(u64::MAX));
        assert!(!needs("a[(]|b[{]").are_met(mask::mask(b"ab)}", usize::MAX)));
        assert!(needs("a[(]|b[{]").are_met(mask::mask(b"a{", usize::MAX)));
        assert_eq!(needs("a?"), Needs::NOTHING);
        let words = Needs::of(&Pattern::Words(vec![b".env".to_vec(), b"/etc".to_vec()])).unwrap();
        assert!(!words.are_met(LOWER | UPPER | DIGIT) && words.are_met(mask::mask(b"x/y", usize::MAX)));
    }

    proptest! {
        /// What a text lacks that a pattern needs, it is not matched for.
        #[test]
        fn nothing_matches_without_what_it_needs(text in prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..8),
            r"[a-cA-C<>'%./|;{(=@ -]{1,10}".prop_map(String::into_bytes),
            proptest::sample::select(vec!["<SCRIPT x>", "UNION  SELECT", "'  or", "..\\", "ftp://1", "||  ls", "a@"]).prop_map(|s| s.as_bytes().to_vec()),
        ]) {
            let patterns: Vec<Pattern> = PATTERNS.iter().map(|p| Pattern::Regex((*p).into()))
                .chain([Pattern::Words(vec![b"a.b".to_vec(), b"Cb".to_vec()])]).collect();
            for pattern in patterns {
                let mut hit = false;
                Set::new(std::slice::from_ref(&pattern), false).unwrap().scan(&text, true, true, |_| hit = true);
                let met = Needs::of(&pattern).unwrap().are_met(mask::mask(&text, usize::MAX));
                prop_assert!(met || !hit, "{:?} {:?}", pattern, text);
            }
        }
    }
}
