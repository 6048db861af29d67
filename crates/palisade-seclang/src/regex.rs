//! Regular expressions as rules write them (PCRE), on an engine that runs in linear time.
//!
//! A pattern is rewritten where PCRE and the engine spell the same language differently. What no linear engine has
//! (look-around, back-references) runs on one that goes back where it was wrong, within an allowance of steps that grows with
//! the bytes that are looked at; its end counts as an error of that rule, which the caller turns into its `beyond_limit`.

mod backtrack;
mod marks;
mod program;

use std::sync::Arc;

use regex_automata::meta;
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::clock::{Clock, Deadline};
use backtrack::Backtrack;

/// Most bytes of a compiled pattern.
const NFA_LIMIT: usize = 16 << 20;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Regex {
    engine: Engine,
    shape: Shape,
    /// A pattern of the linear engine that matches wherever this one does: itself, unless this one is not linear.
    pub(crate) translated: String,
}

/// Languages that need no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// `^.*$`: every text, all of it.
    Whole,
    /// `^text`: each byte in one or two spellings.
    Prefix(Box<[[u8; 2]]>),
    Other,
}

#[derive(Debug, Clone)]
enum Engine {
    Linear(meta::Regex),
    Backtracking(Arc<Backtrack>),
}

/// The search was given up at the step limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepLimit;

/// Up to ten groups: group 0 is the whole match.
pub(crate) type Groups = [Option<(usize, usize)>; 10];

/// Steps that patterns which are not linear may still take, and when they are to ask for the time.
#[derive(Debug)]
pub(crate) struct Allowance<'a> {
    left: &'a mut u64,
    time: Option<(&'a mut Deadline, &'a dyn Clock)>,
    /// Steps since the time was asked for.
    unasked: u64,
}

impl<'a> Allowance<'a> {
    /// Steps that a transaction may take, however little there is to look at.
    pub(crate) const FIRST: u64 = 500_000;
    /// Steps that come with each byte which such a pattern looks at. One of the Core Rule Set takes up to thirty.
    const PER_BYTE: u64 = 64;
    /// Steps of a name or a tag, which no transaction's allowance is for.
    const ALONE: u64 = 20_000;
    /// Steps between two looks at the clock, less than a tenth of a millisecond.
    const UNASKED: u64 = 1 << 14;

    /// What is `left` of an allowance, until a time.
    pub(crate) fn new(left: &'a mut u64, time: Option<(&'a mut Deadline, &'a dyn Clock)>) -> Allowance<'a> {
        Allowance { left, time, unasked: 0 }
    }

    /// There is more to look at.
    fn grant(&mut self, bytes: usize) {
        *self.left = self.left.saturating_add(Self::PER_BYTE * bytes as u64);
    }

    /// Takes steps.
    fn spend(&mut self, steps: u64) -> Result<(), StepLimit> {
        *self.left = self.left.checked_sub(steps).ok_or(StepLimit)?;
        self.unasked += steps;
        if self.unasked >= Self::UNASKED {
            self.unasked = 0;
            if self.time.as_mut().is_some_and(|(deadline, clock)| deadline.is_over(*clock)) {
                return Err(StepLimit);
            }
        }
        Ok(())
    }
}

impl Regex {
    /// Compiles a pattern in `(?s)` mode; `multi_line` adds `(?m)`, `caseless` adds `(?i)`.
    pub(crate) fn new(pattern: &str, multi_line: bool, caseless: bool) -> Result<Regex, String> {
        let translated = translate(pattern);
        let config = syntax_config(multi_line).case_insensitive(caseless);
        let linear = meta::Regex::builder()
            .configure(meta::Regex::config().nfa_size_limit(Some(NFA_LIMIT)).utf8_empty(false).dfa(false))
            .syntax(config)
            .build(&translated);
        let (engine, shape, translated) = match linear {
            Ok(regex) => {
                let shape = Shape::of(&translated, multi_line, caseless);
                (Engine::Linear(regex), shape, translated)
            }
            Err(error) => match Backtrack::new(&translated, &config)? {
                Some(regex) => {
                    let loose = regex.loose.clone();
                    (Engine::Backtracking(Arc::new(regex)), Shape::Other, loose)
                }
                None => return Err(syntax_message(&error)),
            },
        };
        Ok(Regex { engine, shape, translated })
    }

    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.engine, Engine::Linear(_))
    }

    /// Whether a name or a tag matches; one of a value is asked for within a transaction's allowance.
    pub(crate) fn is_match(&self, haystack: &[u8]) -> Result<bool, StepLimit> {
        let mut alone = Allowance::ALONE;
        self.is_match_within(haystack, &mut Allowance::new(&mut alone, None))
    }

    pub(crate) fn is_match_within(&self, haystack: &[u8], allowance: &mut Allowance<'_>) -> Result<bool, StepLimit> {
        match &self.shape {
            Shape::Whole => return Ok(true),
            Shape::Prefix(prefix) => {
                return Ok(haystack.len() >= prefix.len()
                    && haystack.iter().zip(&**prefix).all(|(byte, spellings)| spellings.contains(byte)));
            }
            Shape::Other => {}
        }
        match &self.engine {
            Engine::Linear(regex) => Ok(regex.is_match(Input::new(haystack).anchored(Anchored::No))),
            Engine::Backtracking(regex) => Ok(regex.find(haystack, 0, false, allowance)?.is_some()),
        }
    }

    /// The first match and its groups.
    pub(crate) fn captures(&self, haystack: &[u8], allowance: &mut Allowance<'_>) -> Result<Option<Groups>, StepLimit> {
        let mut groups: Groups = [None; 10];
        if self.shape == Shape::Whole {
            groups[0] = Some((0, haystack.len()));
            return Ok(Some(groups));
        }
        if let Engine::Linear(regex) = &self.engine
            && regex.captures_len() == 1
        {
            // The match alone costs a fraction of groups.
            groups[0] = regex.search(&Input::new(haystack)).map(|found| (found.start(), found.end()));
            return Ok(groups[0].map(|_| groups));
        }
        self.captures_from(haystack, 0, allowance)
    }

    /// The first match at or after `start`.
    pub(crate) fn captures_from(
        &self,
        haystack: &[u8],
        start: usize,
        allowance: &mut Allowance<'_>,
    ) -> Result<Option<Groups>, StepLimit> {
        let mut groups: Groups = [None; 10];
        match &self.engine {
            Engine::Linear(regex) => {
                let mut captures: Captures = regex.create_captures();
                regex.search_captures(&Input::new(haystack).range(start.min(haystack.len())..), &mut captures);
                if !captures.is_match() {
                    return Ok(None);
                }
                for (i, slot) in groups.iter_mut().enumerate().take(captures.group_len()) {
                    *slot = captures.get_group(i).map(|s| (s.start, s.end));
                }
                Ok(Some(groups))
            }
            Engine::Backtracking(regex) => regex.find(haystack, start, true, allowance),
        }
    }
}

/// The syntax that every pattern of a rule is read with.
pub(crate) fn syntax_config(multi_line: bool) -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true).multi_line(multi_line).nest_limit(200)
}

impl Shape {
    fn of(translated: &str, multi_line: bool, caseless: bool) -> Shape {
        let parsed = syntax::parse_with(translated, &syntax_config(multi_line).case_insensitive(caseless));
        let Ok(parsed) = parsed else { return Shape::Other };
        let HirKind::Concat(parts) = parsed.kind() else { return Shape::Other };
        match &parts[..] {
            [first, middle, last]
                if matches!(first.kind(), HirKind::Look(Look::Start | Look::StartLF))
                    && matches!(last.kind(), HirKind::Look(Look::End | Look::EndLF))
                    && is_anything(middle) =>
            {
                Shape::Whole
            }
            [first, rest @ ..] if matches!(first.kind(), HirKind::Look(Look::Start)) => {
                let mut prefix = Vec::new();
                match rest.iter().all(|part| spell(part, &mut prefix)) {
                    true => Shape::Prefix(prefix.into()),
                    false => Shape::Other,
                }
            }
            _ => Shape::Other,
        }
    }
}

/// Whether a part is `.*`, as long as can be.
fn is_anything(part: &Hir) -> bool {
    match part.kind() {
        HirKind::Repetition(repetition) => {
            let all = matches!(repetition.sub.kind(), HirKind::Class(Class::Bytes(class))
                if matches!(class.ranges(), [range] if range.start() == 0 && range.end() == u8::MAX));
            repetition.min == 0 && repetition.max.is_none() && repetition.greedy && all
        }
        _ => false,
    }
}

/// Appends the spellings of a literal; false: it is none.
fn spell(part: &Hir, out: &mut Vec<[u8; 2]>) -> bool {
    match part.kind() {
        HirKind::Literal(literal) => out.extend(literal.0.iter().map(|byte| [*byte; 2])),
        HirKind::Class(Class::Bytes(class)) => {
            let bytes: Vec<u8> = class.iter().flat_map(|range| range.start()..=range.end()).take(3).collect();
            match bytes[..] {
                [one] => out.push([one; 2]),
                [one, other] => out.push([one, other]),
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}

fn syntax_message(error: &meta::BuildError) -> String {
    let text = match error.syntax_error() {
        Some(e) => e.to_string(),
        None => error.to_string(),
    };
    // The parser's message shows the pattern over several lines; its last line is the reason.
    text.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned()
}

/// What was read last within a character class: it decides what a `-` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A byte, with which a range may begin.
    Byte,
    /// The `-` of a range, whose end comes next.
    Dash,
    /// The class's beginning, a range, or a set such as `\w`: a `-` stands for itself.
    Other,
}

impl Before {
    /// After one byte more.
    fn byte(self) -> Before {
        match self {
            Before::Dash => Before::Other,
            Before::Byte | Before::Other => Before::Byte,
        }
    }
}

/// Rewrites PCRE spelling into the engine's.
pub(crate) fn translate(pattern: &str) -> String {
    let bytes = pattern.as_bytes();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut i = 0;
    let mut class_start: Option<usize> = None; // index in `out` just after `[` or `[^`
    let mut before = Before::Other;
    while let Some(&b) = bytes.get(i) {
        let next = bytes.get(i + 1).copied();
        match b {
            // Quoted up to `\E`: each byte stands for itself.
            b'\\' if next == Some(b'Q') => {
                let length = pattern[i + 2..].find("\\E").unwrap_or(pattern.len() - i - 2);
                for quoted in &bytes[i + 2..i + 2 + length] {
                    out.push_str(&format!("\\x{quoted:02x}"));
                    before = before.byte();
                }
                i += 2 + length;
                continue;
            }
            b'\\' if next == Some(b'E') => {
                i += 2;
                continue;
            }
            b'\\' => {
                before = if next.is_some_and(is_set) { Before::Other } else { before.byte() };
                i += translate_escape(bytes, i, class_start.is_some(), &mut out);
                continue;
            }
            b if b >= 0x80 => {
                out.push_str(&format!("\\x{b:02x}"));
                before = before.byte();
            }
            _ if class_start.is_some() => {
                let start = class_start.unwrap_or(0);
                if let Some(length) = posix_class(&bytes[i..]) {
                    out.push_str(&pattern[i..i + length]);
                    before = Before::Other;
                    i += length;
                    continue;
                }
                if b == b'-' && before == Before::Byte && ends_range(&bytes[i + 1..]) {
                    out.push('-');
                    before = Before::Dash;
                    i += 1;
                    continue;
                }
                match b {
                    b']' if out.len() == start => out.push_str("\\]"),
                    b']' => {
                        out.push(']');
                        class_start = None;
                    }
                    // The engine reads nested classes and set operators (`--` among them), which PCRE does not have.
                    b'[' | b'-' | b'&' | b'~' => {
                        out.push('\\');
                        out.push(b as char);
                    }
                    _ => out.push(b as char),
                }
                before = before.byte();
            }
            b'(' if pattern[i..].starts_with("(?#") => {
                // A comment.
                i += pattern[i..].find(')').map_or(pattern.len() - i, |len| len + 1);
                continue;
            }
            b'[' => {
                out.push('[');
                if next == Some(b'^') {
                    out.push('^');
                    i += 1;
                }
                class_start = Some(out.len());
                before = Before::Other;
            }
            b'{' if !is_quantifier(bytes, i) => out.push_str("\\{"),
            b'}' if !closes_quantifier(bytes, i) => out.push_str("\\}"),
            // Possessive: `x*+` would be read as `(x*)+`, which is the same set of strings but slower.
            b'+' if i > 0 && is_possessive(bytes, i) => {}
            _ => out.push(b as char),
        }
        i += 1;
    }
    out
}

/// Length of the POSIX class that a text within a class begins with, such as `[:alpha:]`.
fn posix_class(text: &[u8]) -> Option<usize> {
    let name = text.strip_prefix(b"[:")?;
    let end = name.iter().position(|b| *b == b']')?;
    name[..end].ends_with(b":").then_some(end + 3)
}

/// Whether what follows a `-` within a class is a byte, with which a range may end.
fn ends_range(rest: &[u8]) -> bool {
    match rest {
        [] | [b']', ..] => false,
        [b'\\', escape, ..] => !is_set(*escape),
        _ => posix_class(rest).is_none(),
    }
}

/// Whether the escape of a letter stands for several bytes; none of them begins or ends a range.
fn is_set(escape: u8) -> bool {
    matches!(escape.to_ascii_lowercase(), b'd' | b'h' | b's' | b'v' | b'w')
}

/// Whether the `+` at `i` follows a whole quantifier.
fn is_possessive(bytes: &[u8], i: usize) -> bool {
    match bytes.get(i - 1) {
        Some(b'*' | b'+' | b'?') => !(escaped(bytes, i - 1) || bytes[i - 1] == b'?' && i >= 2 && bytes[i - 2] == b'('),
        Some(b'}') => closes_quantifier(bytes, i - 1),
        _ => false,
    }
}

fn escaped(bytes: &[u8], i: usize) -> bool {
    bytes[..i].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

fn is_quantifier(bytes: &[u8], open: usize) -> bool {
    let Some(len) = bytes[open..].iter().position(|b| *b == b'}') else { return false };
    let inner = &bytes[open + 1..open + len];
    let mut parts = inner.splitn(2, |b| *b == b',');
    let low = parts.next().unwrap_or(b"");
    let high = parts.next();
    open > 0
        && !low.is_empty()
        && low.iter().all(u8::is_ascii_digit)
        && high.is_none_or(|h| h.iter().all(u8::is_ascii_digit))
}

fn closes_quantifier(bytes: &[u8], close: usize) -> bool {
    match bytes[..close].iter().rposition(|b| *b == b'{') {
        Some(open) => {
            !escaped(bytes, open)
                && is_quantifier(bytes, open)
                && bytes[open..].iter().position(|b| *b == b'}') == Some(close - open)
        }
        None => false,
    }
}

/// Translates the escape at `i`; returns its length in the pattern.
fn translate_escape(bytes: &[u8], i: usize, in_class: bool, out: &mut String) -> usize {
    let Some(&c) = bytes.get(i + 1) else {
        out.push_str("\\\\");
        return 1;
    };
    match c {
        b'x' if bytes.get(i + 2) == Some(&b'{') => {
            let digits: String =
                bytes[i + 3..].iter().take_while(|b| b.is_ascii_hexdigit()).map(|b| *b as char).collect();
            match u32::from_str_radix(&digits, 16) {
                Ok(n) if n < 256 && bytes.get(i + 3 + digits.len()) == Some(&b'}') => {
                    out.push_str(&format!("\\x{n:02x}"));
                    digits.len() + 4
                }
                _ => {
                    out.push_str("\\x");
                    2
                }
            }
        }
        b'x' => {
            let n = bytes[i + 2..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
            let digits: String = bytes[i + 2..i + 2 + n].iter().map(|b| *b as char).collect();
            out.push_str(&format!("\\x{digits:0>2}"));
            2 + n
        }
        // A group by its number or its name.
        b'g' | b'k' if bytes.get(i + 2) == Some(&b'{') => {
            let rest = &bytes[i + 2..];
            let length = 2 + rest.iter().position(|b| *b == b'}').map_or(1, |end| end + 1);
            out.extend(bytes[i..i + length].iter().map(|b| *b as char));
            length
        }
        b'v' => {
            out.push_str(if in_class { r"\n\x0b\x0c\r\x85" } else { r"[\n\x0b\x0c\r\x85]" });
            2
        }
        b'h' => {
            out.push_str(if in_class { r"\t\x20\xa0" } else { r"[\t\x20\xa0]" });
            2
        }
        b'e' => {
            out.push_str(r"\x1b");
            2
        }
        b'0' => {
            let n = bytes[i + 1..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let value = bytes[i + 1..i + 1 + n].iter().fold(0u32, |v, b| v * 8 + u32::from(b - b'0'));
            out.push_str(&format!("\\x{:02x}", value & 0xff));
            1 + n
        }
        // PCRE has neither within a class. `\N{…}` names a character, unless the braces count.
        b'N' if !in_class && (bytes.get(i + 2) != Some(&b'{') || is_quantifier(bytes, i + 2)) => {
            out.push_str(r"[^\n]");
            2
        }
        b'R' if !in_class => {
            out.push_str(r"(?>\r\n|\n|\x0b|\f|\r|\x85)");
            2
        }
        b'Z' if !in_class => {
            out.push_str(r"(?:\n?\z)");
            2
        }
        b'b' if in_class => {
            out.push_str(r"\x08");
            2
        }
        // Letters whose escape means nothing in PCRE stand for themselves, and so do `<` and `>`.
        b'<' | b'>' | b'/' | b'"' | b'\'' | b'`' | b'@' | b'!' | b'%' | b',' | b':' | b';' | b'=' | b'_' | b' ' => {
            if c == b' ' {
                out.push_str(r"\x20")
            } else {
                out.push(c as char)
            }
            2
        }
        b'i' | b'j' | b'l' | b'm' | b'o' | b'q' | b'u' | b'y' | b'I' | b'J' | b'M' | b'O' | b'T' | b'Y' => {
            out.push(c as char);
            2
        }
        c if c >= 0x80 => {
            out.push_str(&format!("\\x{c:02x}"));
            2
        }
        _ => {
            out.push('\\');
            out.push(c as char);
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first match within a transaction's allowance.
    fn captures(regex: &Regex, text: &[u8]) -> Option<Groups> {
        let mut left = Allowance::FIRST;
        regex.captures(text, &mut Allowance::new(&mut left, None)).unwrap()
    }

    #[test]
    fn pcre_spellings() {
        for (pattern, yes, no) in [
            (r"{{.*?}}", &b"a{{1}}"[..], &b"{1}"[..]),
            (r"^a{2,3}$", b"aaa", b"a"),
            (r"[[\]]x", b"[x", b"ax"),
            (r"[^[a]", b"b", b"["),
            (r"\x{bc}", b"\xbc", b"bc"),
            ("\u{b4}", b"\xc2\xb4", b"\xb4"),
            (r"[\<\>]", b"<", b"b"),
            (r"a\vb", b"a\nb", b"avb"),
            (r"<\?(?!xml)", b"<?php", b"<?xml"),
            (r"(a)\1", b"aa", b"ab"),
            (r"a*+b", b"aab", b"c"),
            (r"${a", b"", b""),
            (r"[a&&b]", b"&", b"c"),
            (r"a.b", b"a\nb", b"ab"),
            (r"[]a]", b"]", b"b"),
            (r"\u003c", b"u003c", b"<"),
            (r"a(?#b[)c", b"ac", b"abc"),
            (r"^[+--]$", b",", b"*"),
            (r"^[+--](?!a)", b",", b",a"),
            (r"^[a-c--/]$", b".", b"d"),
            (r"^[\w-.]$", b"-", b"/"),
            (r"^[\d-x]$", b"-", b"e"),
            (r"^[+-\d]$", b"-", b","),
            (r"^[+-[:digit:]]$", b"-", b","),
            (r"^\Q[a]+\E+$", b"[a]++", b"a"),
            (r"^[\Qa-c\E]$", b"-", b"b"),
            (r"^a\N{2}$", b"a\rb", b"a\nb"),
            (r"^a\Rb$", b"a\r\nb", b"a\tb"),
            (r"^\R\n", b"\n\n", b"\r\n"),
        ] {
            let regex = Regex::new(pattern, false, false).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            if !yes.is_empty() {
                assert_eq!(regex.is_match(yes), Ok(true), "{pattern}");
            }
            assert_eq!(regex.is_match(no), Ok(false), "{pattern} as {}", regex.translated);
        }
        assert!(Regex::new("(", false, false).is_err());
        assert!(Regex::new("(?=(", false, false).is_err());
        for unknown in [r"[z--]", r"\N{DASH}", r"[\N]", r"[\R]"] {
            assert!(Regex::new(unknown, false, false).is_err(), "{unknown}");
        }
    }

    #[test]
    fn shapes_find_what_the_engine_finds() {
        let texts = [&b""[..], b"a", b"head", b"HEAD_x", b"a\nhead", b"a\n", b"\n", b"x\nb\n", b"\xff\n"];
        for (pattern, multi_line, caseless, shape) in [
            ("^.*$", true, false, Some("Whole")),
            ("^.*$", false, true, Some("Whole")),
            ("^.*?$", true, false, None),
            ("^.+$", true, false, None),
            ("^head", false, true, Some("Prefix")),
            ("^head", true, true, None),
            ("^[hx]ea", false, false, Some("Prefix")),
            ("^[abc]", false, false, None),
            ("^head$", false, true, None),
        ] {
            let regex = Regex::new(pattern, multi_line, caseless).unwrap();
            let known = shape.is_some_and(|shape| format!("{:?}", regex.shape).starts_with(shape));
            assert_eq!(known, shape.is_some(), "{pattern}: {:?}", regex.shape);
            let plain = Regex { shape: Shape::Other, ..regex.clone() };
            for text in texts {
                assert_eq!(regex.is_match(text), plain.is_match(text), "{pattern} {text:?}");
                assert_eq!(captures(&regex, text), captures(&plain, text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn groups_are_byte_offsets_in_both_engines() {
        let want = Some((2, 3));
        for pattern in [r"\xff(a)", r"\xff(a)(?!b)"] {
            let regex = Regex::new(pattern, false, false).unwrap();
            assert_eq!(captures(&regex, b"\xc2\xffac").unwrap()[1], want, "{pattern}");
        }
    }
}
