//! Patterns with look-around or back-references, in time that is linear wherever the pattern lets it be.
//!
//! A pattern is matched in two parts. A *loose* pattern without either matches wherever the pattern does, and elsewhere: it is
//! the filter's, and one pass of its automaton, from the end of a text to its beginning, finds all places where a match may
//! begin. Only there does a machine that goes back where it was wrong look for the match itself. What most such patterns
//! begin with, as many blanks as there may be, is left out of the search and added to the match that was found: tried
//! from each blank, it alone makes the square of their number.

use regex_automata::hybrid::dfa::{Cache, DFA, OverlappingState};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use super::marks;
use super::program::{Memory, Program};
use super::{Allowance, Groups, NFA_LIMIT, StepLimit};
use crate::fast::patterns::in_any_case;
use crate::operator::ByteSet;

/// Bytes of which the automaton reads one while the machine takes a step.
const PER_STEP: usize = 16;

type Make<T> = Box<dyn Fn() -> T + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// What a search needs, kept for the next one.
type Kept = (Cache, Memory, Memory);

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Backtrack {
    /// All of the pattern.
    whole: Program,
    /// The pattern without `lead`.
    rest: Program,
    groups: usize,
    /// Bytes that the pattern begins with, any number of them.
    lead: Option<ByteSet>,
    /// The loose pattern of `rest`, read backwards.
    starts: DFA,
    pool: Pool<Kept, Make<Kept>>,
    /// The loose pattern's source.
    pub(super) loose: String,
}

impl Backtrack {
    /// Compiles a pattern; `None`: there is nothing in it that needs this engine.
    ///
    /// # Errors
    /// A mistake in the pattern, or something that the engine does not have.
    pub(super) fn new(pattern: &str, config: &syntax::Config) -> Result<Option<Backtrack>, String> {
        if !marks::needs_marks(pattern) {
            return Ok(None);
        }
        let marked = marks::parse(pattern, config)?;
        let (lead, rest) = split(&marked.hir);
        let loose = marked.loose(&rest);
        let whole = Program::new(&marked, &marked.hir)?;
        let rest = Program::new(&marked, &rest)?;
        let backwards = thompson::Config::new()
            .reverse(true)
            .utf8(false)
            .nfa_size_limit(Some(NFA_LIMIT))
            .which_captures(WhichCaptures::None);
        let nfa = thompson::Compiler::new().configure(backwards).build_from_hir(&loose).map_err(|e| e.to_string())?;
        let starts = DFA::builder()
            .configure(DFA::config().match_kind(MatchKind::All).skip_cache_capacity_check(true))
            .build_from_nfa(nfa)
            .map_err(|e| e.to_string())?;
        let make: Make<Kept> = {
            let (starts, all, some) = (starts.clone(), whole.slots(), rest.slots());
            Box::new(move || (starts.create_cache(), Memory::new(all), Memory::new(some)))
        };
        // Printed, and spelt as rules spell it: the filter's parser does not know Unicode.
        let loose = super::translate(&in_any_case(loose).to_string());
        let loose = if syntax::parse_with(&loose, config).is_ok() { loose } else { String::new() };
        Ok(Some(Backtrack { whole, rest, groups: marked.groups(), lead, starts, pool: Pool::new(make), loose }))
    }

    /// Finds the first match that begins at or after `from`; without `groups` only whether there is one.
    pub(super) fn find(
        &self,
        text: &[u8],
        from: usize,
        groups: bool,
        allowance: &mut Allowance<'_>,
    ) -> Result<Option<Groups>, StepLimit> {
        let mut found: Groups = [None; 10];
        let from = from.min(text.len());
        allowance.grant(text.len() - from);
        let mut memory = self.pool.get();
        let (cache, whole, rest) = &mut *memory;
        for start in self.starts(text, from, cache, allowance)?.into_iter().rev() {
            if !self.rest.matches(text, start, rest, allowance)? {
                continue;
            }
            if !groups {
                return Ok(Some(found));
            }
            let mut first = start;
            if let Some(lead) = &self.lead {
                let before = text.get(from..start).unwrap_or_default();
                first -= before.iter().rev().take_while(|byte| lead.has(**byte)).count();
            }
            // What matches without the lead matches with it.
            let of = if self.whole.matches(text, first, whole, allowance)? { &*whole } else { &*rest };
            let groups = found.iter_mut().enumerate().take(self.groups + 1);
            groups.for_each(|(number, group)| *group = of.group(number));
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Where a match of the pattern without its lead may begin, the last place first.
    fn starts(
        &self,
        text: &[u8],
        from: usize,
        cache: &mut Cache,
        allowance: &mut Allowance<'_>,
    ) -> Result<Vec<usize>, StepLimit> {
        let input = Input::new(text).range(from..);
        let (mut state, mut starts, mut last) = (OverlappingState::start(), Vec::new(), text.len());
        loop {
            self.starts.try_search_overlapping_rev(cache, &input, &mut state).map_err(|_| StepLimit)?;
            let Some(found) = state.get_match() else { break };
            allowance.spend(1 + ((last - found.offset()) / PER_STEP) as u64)?;
            last = found.offset();
            starts.push(found.offset());
        }
        allowance.spend(((last - from) / PER_STEP) as u64)?;
        Ok(starts)
    }
}

/// Takes from the beginning of a pattern a run of bytes that may be empty. Where it matches without, it matches with it.
fn split(hir: &Hir) -> (Option<ByteSet>, Hir) {
    let HirKind::Concat(parts) = hir.kind() else { return (None, hir.clone()) };
    let [first, rest @ ..] = &parts[..] else { return (None, hir.clone()) };
    match first.kind() {
        HirKind::Repetition(Repetition { min: 0, max: None, sub, .. }) => {
            let HirKind::Class(Class::Bytes(class)) = sub.kind() else { return (None, hir.clone()) };
            let bytes = class.iter().flat_map(|range| range.start()..=range.end());
            (Some(ByteSet::of(bytes)), Hir::concat(rest.to_vec()))
        }
        _ => (None, hir.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Allowance, Groups, Regex, StepLimit};

    /// Rule 942130 of the Core Rule Set's version 3.3: a word, an operator, the same word; or another one.
    const TAUTOLOGY: &str = r#"(?i:[\s'\"`()]*?\b([\d\w]+)\b[\s'\"`()]*?(?:<(?:=(?:[\s'\"`()]*?(?!\b\1\b)[\d\w]+|>[\s'\"`()]*?(?:\b\1\b))|>?[\s'\"`()]*?(?!\b\1\b)[\d\w]+)|(?:not\s+(?:regexp|like)|is\s+not|>=?|!=|\^)[\s'\"`()]*?(?!\b\1\b)[\d\w]+|(?:(?:sounds\s+)?like|r(?:egexp|like)|=)[\s'\"`()]*?(?:\b\1\b)))"#;

    fn regex(pattern: &str) -> Regex {
        Regex::new(pattern, true, false).unwrap_or_else(|e| panic!("{pattern}: {e}"))
    }

    /// The first match, and the steps that it took.
    fn search(regex: &Regex, text: &[u8]) -> (Result<Option<Groups>, StepLimit>, u64) {
        let mut left = Allowance::FIRST;
        let found = regex.captures(text, &mut Allowance::new(&mut left, None));
        (found, Allowance::FIRST + Allowance::PER_BYTE * text.len() as u64 - left)
    }

    /// The pattern as another engine reads it.
    fn other(pattern: &str) -> fancy_regex::Regex {
        fancy_regex::Regex::new(&format!("(?sm){}", super::super::translate(pattern))).unwrap()
    }

    /// What it finds, of a text of ASCII.
    fn found(regex: &fancy_regex::Regex, text: &str) -> Option<Groups> {
        let found = regex.captures(text).unwrap()?;
        let mut groups: Groups = [None; 10];
        groups.iter_mut().enumerate().for_each(|(i, group)| *group = found.get(i).map(|m| (m.start(), m.end())));
        Some(groups)
    }

    const PATTERNS: [&str; 31] = [
        TAUTOLOGY,
        r"(a|b)\1",
        r"(?i)(ab?)-\1",
        r"(a*)(b?)\2\1c",
        r"((a)|b)+?\2$",
        r"(?:(a)|b)*\1",
        r"^(?!.*x)a",
        r"(?=(a+))\1b",
        r"(?=a)\w+(?!b)",
        r"(?<=b)a+",
        r"(?<!b)a",
        r"(?<=ab|c)b",
        r"(?<!a|bb)c$",
        r"(?<!^)\bb",
        r"(?>a+)b",
        r"(?>a|ab)c",
        r"a(?>b*?)c",
        r"(?:a(?=b)|b(?=c))+c?",
        r"\b(\w+)\b *= *\b\1\b",
        r"[ ']*(\w)[ ']*\1",
        r"[ ']*?(\w+) \1",
        r"x*(a)\1?",
        r"(a{1,3}?)\1b",
        r"(?:(a|ab)(c|bcd))(?=\1|$)",
        r"(?P<one>[ab])c\k<one>",
        r"(?P<one>[ab])(?P=one)",
        r"(.)(.)\2\1",
        r"(?:(?=a)a|b)*c",
        r"(?!)|a(?<=a)",
        r"(a)?(?:\1|x)c",
        r"(?:a?(?=b)b?)*c",
    ];

    /// All texts of so many letters.
    fn texts(letters: [&'static str; 5], length: u32) -> impl Iterator<Item = String> {
        let letter = move |n: u32, place: u32| letters[(n / 5u32.pow(place) % 5) as usize];
        (0..5u32.pow(length)).map(move |n| (0..length).map(|place| letter(n, place)).collect())
    }

    #[test]
    fn finds_what_another_engine_finds() {
        for pattern in PATTERNS {
            let (regex, other) = (regex(pattern), other(pattern));
            assert!(!regex.is_linear(), "{pattern}");
            for text in texts(["a", "b", "c", " ", "="], 5) {
                assert_eq!(search(&regex, text.as_bytes()).0, Ok(found(&other, &text)), "{pattern} {text:?}");
            }
        }
        assert_eq!(search(&regex(r"(a)(b)\g{-1}\g{1}"), b"xabba").0.unwrap().unwrap()[0], Some((1, 5)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn finds_what_another_engine_finds_in_longer_texts(which in 0..PATTERNS.len(), text in r"((?i:not|like|is|sounds)|[abcx1A =<>!'()\n-]|  ){0,24}") {
            let (pattern, regex) = (PATTERNS[which], regex(PATTERNS[which]));
            // In any case `s` is also a letter that is not one of bytes.
            let text: String = text.chars().filter(char::is_ascii).collect();
            let wanted = found(&other(pattern), &text);
            prop_assert_eq!(search(&regex, text.as_bytes()).0, Ok(wanted), "{} {:?}", pattern, text);
            prop_assert_eq!(regex.is_match(text.as_bytes()), Ok(wanted.is_some()));
        }
    }

    #[test]
    fn a_filter_may_use_what_stands_for_it() {
        use crate::fast::patterns::{Pattern, Set};
        for pattern in PATTERNS {
            let regex = regex(pattern);
            let set = Set::new(&[Pattern::Regex(regex.translated.clone())], false).unwrap();
            for text in texts(["a", "b", "C", " ", "="], 4) {
                let mut hit = false;
                set.scan(text.as_bytes(), true, true, |_| hit = true);
                assert!(hit || regex.is_match(text.as_bytes()) == Ok(false), "{pattern} {text:?}");
            }
        }
        assert!(regex(TAUTOLOGY).translated.len() > 20);
    }

    #[test]
    fn steps_are_as_many_as_bytes_however_they_lie() {
        let tautology = regex(TAUTOLOGY);
        for (text, end) in [
            (" ", "a=b"),
            ("'", "a<a"),
            ("a", "=b"),
            ("a ", "=b"),
            ("1=", "2"),
            ("a=b ", ""),
            ("not ", "like"),
            ("a is not ", ""),
            ("<>", ""),
            ("\"`()", "a=b"),
        ] {
            for many in [1000, 200_000] {
                let text = format!("{}{end}", text.repeat(many / text.len()));
                let (found, steps) = search(&tautology, text.as_bytes());
                let most = 60 * text.len() as u64 + 1000;
                assert!(found.is_ok() && steps < most, "{many} of {:?}: {found:?} after {steps}", &text[..10]);
            }
        }
        let blanks = format!("x{}Same = 'same", " ".repeat(2000));
        assert_eq!(
            search(&tautology, blanks.as_bytes()).0.unwrap().unwrap()[..2],
            [Some((1, 2013)), Some((2001, 2005))]
        );
    }

    #[test]
    fn what_is_not_linear_ends_at_the_allowance_or_in_time() {
        #[derive(Debug)]
        struct Late(std::sync::atomic::AtomicU64);
        impl crate::clock::Clock for Late {
            fn monotonic(&self) -> std::time::Duration {
                std::time::Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            }

            fn epoch(&self) -> u64 {
                0
            }
        }
        // From each word to the end and back.
        let square = regex(r"(\w+),.*;\1!");
        let words = |many: usize| format!("{};cc!", "ab,".repeat(many));
        let text = words(20_000);
        assert_eq!(search(&square, text.as_bytes()).0, Err(StepLimit));
        let clock = Late(0.into());
        let mut deadline = crate::clock::Deadline::new(&clock, std::time::Duration::from_millis(9), false);
        let mut left = u64::MAX / 2;
        let mut allowance = Allowance::new(&mut left, Some((&mut deadline, &clock)));
        assert_eq!(square.captures(text.as_bytes(), &mut allowance), Err(StepLimit));
        assert!(clock.0.load(std::sync::atomic::Ordering::Relaxed) < 20);
        // One after the other they take from the same allowance.
        let mut left = Allowance::FIRST;
        let small = words(100);
        let used = (0..100_000)
            .take_while(|_| square.captures(small.as_bytes(), &mut Allowance::new(&mut left, None)).is_ok())
            .count();
        assert!((1..100_000).contains(&used), "{used}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        for (pattern, why) in [
            (r"(a)(?(1)b|c)", "conditions"),
            (r"a\Kb", r"`\K`"),
            (r"a\Gb(?=c)", r"`\G`"),
            (r"(a)\2", "no group 2"),
            (r"(a)\k<b>", "no group `b`"),
            (r"(?<=a*)b", "look behind"),
            (r"(?=(", "unclosed group"),
            (r"(?:(?:(?=a)[bc]{200}){200}){200}", "too long"),
        ] {
            let Err(error) = Regex::new(pattern, true, false) else { panic!("{pattern} compiles") };
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }
}
