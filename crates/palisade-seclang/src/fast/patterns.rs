//! Many patterns and phrase lists over one text at once.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_automata::util::pool::Pool;
use regex_automata::{Input, MatchKind as RegexMatchKind, PatternSet, meta};
use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::mask::{self, PLAIN};

/// Bytes of a lazy automaton's states, each for one thread at a time. Too little is a cliff, not a slope.
const CACHE: usize = 2 << 20;

/// What one pattern is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// Of `@rx`, as translated.
    Regex(String),
    /// Of `@pm`.
    Words(Vec<Vec<u8>>),
}

/// A compiled set. Reports patterns by the number they have in the group.
#[derive(Debug)]
pub(crate) struct Set {
    regex: Option<(meta::Regex, Vec<u16>)>,
    words: Option<(AhoCorasick, Vec<u16>)>,
    sets: Option<
        Pool<
            PatternSet,
            Box<dyn Fn() -> PatternSet + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>,
        >,
    >,
}

impl Set {
    /// Compiles the patterns; with `plain`, only those that can match text made of plain bytes.
    pub(crate) fn new(patterns: &[Pattern], plain: bool) -> Result<Set, String> {
        let mut parsed = Vec::new();
        let mut numbers = Vec::new();
        let mut words: Vec<&[u8]> = Vec::new();
        let mut word_numbers = Vec::new();
        for (n, pattern) in patterns.iter().enumerate() {
            match pattern {
                Pattern::Regex(source) => {
                    let pattern = parse(source)?;
                    if !plain || pattern.is_plain() {
                        parsed.push(pattern.0);
                        numbers.push(n as u16);
                    }
                }
                Pattern::Words(list) => {
                    for word in list {
                        if !plain || word.iter().all(|b| mask::class(*b) & PLAIN != 0) {
                            words.push(word);
                            word_numbers.push(n as u16);
                        }
                    }
                }
            }
        }
        let regex = if parsed.is_empty() {
            None
        } else {
            let config = meta::Regex::config()
                .match_kind(RegexMatchKind::All)
                .nfa_size_limit(Some(128 << 20))
                .hybrid_cache_capacity(CACHE)
                .dfa(false)
                .onepass(false)
                .backtrack(false)
                .auto_prefilter(false)
                .utf8_empty(false);
            let regex =
                meta::Regex::builder().configure(config).build_many_from_hir(&parsed).map_err(|e| e.to_string())?;
            Some((regex, numbers))
        };
        let words = if words.is_empty() {
            None
        } else {
            // A full automaton is faster and, for the long lists of paths, tens of megabytes. Most values are plain.
            let most = if plain { 2000 } else { 300 };
            let kind = if words.len() > most { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
            let automaton = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .kind(Some(kind))
                .build(&words)
                .map_err(|e| e.to_string())?;
            Some((automaton, word_numbers))
        };
        let capacity = regex.as_ref().map_or(0, |(r, _)| r.pattern_len());
        let sets = (capacity > 0).then(|| {
            let make: Box<dyn Fn() -> PatternSet + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe> =
                Box::new(move || PatternSet::new(capacity));
            Pool::new(make)
        });
        Ok(Set { regex, words, sets })
    }

    /// Calls `hit` with each pattern that matches somewhere in `text`; words may be reported more than once.
    /// Only patterns, or only words, may be asked for.
    pub(crate) fn scan(&self, text: &[u8], patterns: bool, words: bool, mut hit: impl FnMut(u16)) {
        if let (Some((regex, numbers)), Some(pool)) = (&self.regex, &self.sets)
            && patterns
            // Most texts match nothing, and to find out that takes half as long as to find out what matches.
            && regex.is_match(Input::new(text))
        {
            let mut set = pool.get();
            set.clear();
            regex.which_overlapping_matches(&Input::new(text), &mut set);
            if !set.is_empty() {
                for pattern in set.iter() {
                    hit(numbers[pattern.as_usize()]);
                }
            }
        }
        if let Some((automaton, numbers)) = &self.words
            && words
            && automaton.is_match(text)
        {
            for found in automaton.find_overlapping_iter(text) {
                hit(numbers[found.pattern().as_usize()]);
            }
        }
    }

    /// Bytes on the heap, without lazy caches.
    pub(crate) fn memory(&self) -> usize {
        self.regex.as_ref().map_or(0, |(r, _)| r.memory_usage())
            + self.words.as_ref().map_or(0, |(w, _)| w.memory_usage())
    }
}

/// Questions about a pattern's language.
pub(crate) struct Parsed(Hir);

/// Parses a translated pattern as the sets compile it: it matches a text whenever the pattern matches the text in some
/// spelling of its letters, since transformations that change nothing but case are left out.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true)
        .multi_line(true)
        .nest_limit(200)
        .build()
        .parse(source)
        .map(|hir| Parsed(in_any_case(hir)))
        .map_err(|e| e.to_string())
}

/// Adds to each letter its other case. Not the same as parsing without regard to case, which takes `A` out of `[^a-z]`.
pub(crate) fn in_any_case(hir: Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Literal(literal) => Hir::concat(literal.0.iter().map(|byte| either_case(*byte)).collect()),
        HirKind::Class(Class::Bytes(mut class)) => {
            class.case_fold_simple();
            Hir::class(Class::Bytes(class))
        }
        HirKind::Class(Class::Unicode(mut class)) => {
            let letters = |c: &char| c.is_ascii_alphabetic();
            let inside = class.iter().flat_map(|range| (range.start()..=range.end()).take_while(char::is_ascii));
            let others: Vec<char> = inside.filter(letters).map(other_case).collect();
            others.into_iter().for_each(|c| class.push(ClassUnicodeRange::new(c, c)));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Repetition(Repetition { min, max, greedy, sub }) => {
            Hir::repetition(Repetition { min, max, greedy, sub: Box::new(in_any_case(*sub)) })
        }
        HirKind::Capture(Capture { index, name, sub }) => {
            Hir::capture(Capture { index, name, sub: Box::new(in_any_case(*sub)) })
        }
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(in_any_case).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.into_iter().map(in_any_case).collect()),
    }
}

fn either_case(byte: u8) -> Hir {
    let mut class = ClassBytes::new([ClassBytesRange::new(byte, byte)]);
    class.case_fold_simple();
    Hir::class(Class::Bytes(class))
}

fn other_case(letter: char) -> char {
    if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
}

impl Parsed {
    /// Whether some text of plain bytes matches.
    fn is_plain(&self) -> bool {
        plain(&self.0)
    }

    pub(crate) fn hir(&self) -> &Hir {
        &self.0
    }

    /// Whether the empty text may match.
    pub(crate) fn matches_empty(&self) -> bool {
        self.minimum() == 0
    }

    /// Length of the shortest match.
    pub(crate) fn minimum(&self) -> usize {
        self.0.properties().minimum_len().unwrap_or(usize::MAX)
    }
}

/// Whether the pattern has words over the plain bytes: classes and literals cut to them, nothing left is nothing matched.
fn plain(hir: &Hir) -> bool {
    let is_plain = |b: u8| mask::class(b) & PLAIN != 0;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().all(|b| is_plain(*b)),
        HirKind::Class(Class::Bytes(class)) => class.iter().any(|r| (r.start()..=r.end()).any(is_plain)),
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|r| (r.start()..=r.end()).take(256).any(|c| u8::try_from(c).is_ok_and(is_plain)))
        }
        HirKind::Repetition(repetition) => repetition.min == 0 || plain(&repetition.sub),
        HirKind::Capture(capture) => plain(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(plain),
        HirKind::Alternation(parts) => parts.iter().any(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_patterns() {
        for (pattern, want) in [
            (r"union.*select", true),
            (r"<script", false),
            (r"a(?:<|b)", true),
            (r"['\x22]x", false),
            (r"\s+a", true),
            (r"^\w*$", true),
        ] {
            assert_eq!(parse(pattern).unwrap().is_plain(), want, "{pattern}");
        }
    }

    /// A letter that a class leaves out is there in its other case, and the text may have been written in either.
    #[test]
    fn case_never_hides_a_match() {
        for pattern in ["[^a-z]cc", "(?i:[^a-z]c)|[^a-b]cc", "(?u:[^a-z]cc)", "Acc", "aCC"] {
            let set = Set::new(&[Pattern::Regex(pattern.into())], false).unwrap();
            let mut hits = 0;
            set.scan(b"Acc", true, true, |_| hits += 1);
            assert_eq!(hits, 1, "{pattern}");
        }
    }

    #[test]
    fn all_patterns_are_reported() {
        let patterns = [
            Pattern::Regex("a+b".into()),
            Pattern::Words(vec![b"Bad".to_vec(), b"<".to_vec()]),
            Pattern::Regex("^b".into()),
            Pattern::Regex("b".into()),
        ];
        let set = Set::new(&patterns, false).unwrap();
        let mut hits = Vec::new();
        set.scan(b"AAb\nbad<", true, true, |n| hits.push(n));
        hits.sort_unstable();
        hits.dedup();
        assert_eq!(hits, [0, 1, 2, 3]);
        let plain = Set::new(&patterns, true).unwrap();
        let mut hits = Vec::new();
        plain.scan(b"bad", true, true, |n| hits.push(n));
        assert!(hits.contains(&1) && !plain.memory().eq(&0));
    }
}
