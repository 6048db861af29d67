//! Many patterns and phrase lists over one text at once.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_automata::util::pool::Pool;
use regex_automata::{Input, MatchKind as RegexMatchKind, PatternSet, meta};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::mask::{self, PLAIN};
use crate::regex::syntax_config;

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
        let mut sources = Vec::new();
        let mut numbers = Vec::new();
        let mut words: Vec<&[u8]> = Vec::new();
        let mut word_numbers = Vec::new();
        for (n, pattern) in patterns.iter().enumerate() {
            match pattern {
                Pattern::Regex(source) => {
                    if !plain || parse(source)?.is_plain() {
                        sources.push(source.as_str());
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
        let regex = if sources.is_empty() {
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
            let regex = meta::Regex::builder()
                .configure(config)
                .syntax(syntax_config(true).case_insensitive(true))
                .build_many(&sources)
                .map_err(|e| e.to_string())?;
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
    pub(crate) fn scan(&self, text: &[u8], mut hit: impl FnMut(u16)) {
        if let (Some((regex, numbers)), Some(pool)) = (&self.regex, &self.sets) {
            let mut set = pool.get();
            set.clear();
            regex.which_overlapping_matches(&Input::new(text), &mut set);
            if !set.is_empty() {
                for pattern in set.iter() {
                    hit(numbers[pattern.as_usize()]);
                }
            }
        }
        if let Some((automaton, numbers)) = &self.words {
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

/// Parses a translated pattern as the sets compile it.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true)
        .multi_line(true)
        .case_insensitive(true)
        .nest_limit(200)
        .build()
        .parse(source)
        .map(Parsed)
        .map_err(|e| e.to_string())
}

impl Parsed {
    /// Whether some text of plain bytes matches.
    fn is_plain(&self) -> bool {
        plain(&self.0)
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
        set.scan(b"AAb\nbad<", |n| hits.push(n));
        hits.sort_unstable();
        hits.dedup();
        assert_eq!(hits, [0, 1, 2, 3]);
        let plain = Set::new(&patterns, true).unwrap();
        let mut hits = Vec::new();
        plain.scan(b"bad", |n| hits.push(n));
        assert!(hits.contains(&1) && !plain.memory().eq(&0));
    }
}
