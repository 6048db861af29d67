//! What no linear engine has, found in a pattern's text and marked, so that the linear engine's parser reads the rest.
//!
//! A group that looks around, or keeps what it took, becomes a named group of the parser; so does a back-reference. The
//! tree that comes out of the parser has them as groups whose names say what they stand for.

use std::collections::HashMap;

use regex_automata::util::syntax;
use regex_syntax::hir::{Capture, Hir, HirKind, Look, Repetition};

use crate::fast::patterns::in_any_case;

/// The beginning of the names of marks, which no rule's author gives a group.
const NAME: &str = "__mark";
/// Nesting of groups that refer to each other; deeper ones stand for any text.
const DEEPEST: u32 = 8;

/// What a marked group stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// `(?=…)` and `(?!…)`.
    Ahead { negated: bool },
    /// `(?<=…)` and `(?<!…)`.
    Behind { negated: bool },
    /// `(?>…)`: what was taken first stays.
    Atomic,
    /// The text of a group.
    Same { group: u32 },
}

/// A pattern's tree with its marks.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) hir: Hir,
    marks: Vec<Mark>,
    /// By the parser's number of a group: the number that the pattern's author counts.
    numbers: Vec<Option<u32>>,
}

/// Who a back-reference means.
enum Whom {
    Number(u32),
    Name(String),
}

/// What is found on the way through a pattern.
#[derive(Default)]
struct Marker {
    out: String,
    marks: Vec<Mark>,
    /// Back-references, by the number of their mark: known once all groups are.
    references: Vec<(usize, Whom)>,
    names: HashMap<String, u32>,
    numbers: Vec<Option<u32>>,
    groups: u32,
}

impl Marker {
    fn open(&mut self, mark: Mark) {
        self.out.push_str(&format!("(?P<{NAME}{}>", self.marks.len()));
        self.marks.push(mark);
        self.numbers.push(None);
    }

    fn group(&mut self, name: Option<&str>) {
        self.groups += 1;
        self.numbers.push(Some(self.groups));
        self.out.push('(');
        if let Some(name) = name {
            self.names.insert(name.to_owned(), self.groups);
        }
    }

    fn reference(&mut self, whom: Whom) {
        self.references.push((self.marks.len(), whom));
        self.open(Mark::Same { group: 0 });
        // A letter tells whether case counts where the reference stands.
        self.out.push_str("a)");
    }
}

/// Whether a pattern has anything to mark.
pub(super) fn needs_marks(pattern: &str) -> bool {
    let escaped = |b: &u8| b.is_ascii_digit() && *b != b'0' || matches!(b, b'k' | b'g' | b'K' | b'G');
    pattern.as_bytes().windows(2).any(|pair| pair[0] == b'\\' && escaped(&pair[1]))
        || ["(?=", "(?!", "(?<=", "(?<!", "(?>", "(?(", "(?P="].iter().any(|start| pattern.contains(start))
}

/// Marks a pattern and parses it.
///
/// # Errors
/// Something of PCRE that this engine does not have, or a mistake of the pattern.
pub(super) fn parse(pattern: &str, config: &syntax::Config) -> Result<Marked, String> {
    let mut marker = Marker { numbers: vec![Some(0)], ..Marker::default() };
    let bytes = pattern.as_bytes();
    let (mut i, mut in_class) = (0, false);
    while let Some(&byte) = bytes.get(i) {
        let rest = &pattern[i..];
        match byte {
            b'\\' if !in_class => {
                i += escape(rest, &mut marker)?;
                continue;
            }
            b'\\' => {
                let two = rest.get(..2).unwrap_or(rest);
                marker.out.push_str(two);
                i += two.len();
                continue;
            }
            b'[' if in_class && rest.starts_with("[:") => {
                let length = rest.find(":]").map_or(1, |end| end + 2);
                marker.out.push_str(&rest[..length]);
                i += length;
                continue;
            }
            // Other brackets within a class were escaped when the pattern was translated.
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => {
                i += open(rest, &mut marker)?;
                continue;
            }
            _ => {}
        }
        marker.out.push(char::from(byte));
        i += 1;
    }
    for (mark, whom) in std::mem::take(&mut marker.references) {
        let group = match whom {
            Whom::Number(group) => group,
            Whom::Name(name) => {
                *marker.names.get(&name).ok_or_else(|| format!("there is no group `{name}` to refer to"))?
            }
        };
        if group == 0 || group > marker.groups {
            return Err(format!("there is no group {group} to refer to"));
        }
        marker.marks[mark] = Mark::Same { group };
    }
    let hir = syntax::parse_with(&marker.out, config).map_err(|error| last_line(&error.to_string()))?;
    Ok(Marked { hir, marks: marker.marks, numbers: marker.numbers })
}

/// The parser's messages show the pattern over several lines; the last is the reason.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned()
}

/// Takes an opening parenthesis with what says what it opens; returns its length.
fn open(rest: &str, marker: &mut Marker) -> Result<usize, String> {
    let marks = [
        ("(?=", Mark::Ahead { negated: false }),
        ("(?!", Mark::Ahead { negated: true }),
        ("(?<=", Mark::Behind { negated: false }),
        ("(?<!", Mark::Behind { negated: true }),
        ("(?>", Mark::Atomic),
    ];
    if let Some((start, mark)) = marks.into_iter().find(|(start, _)| rest.starts_with(start)) {
        marker.open(mark);
        return Ok(start.len());
    }
    if let Some(name) = rest.strip_prefix("(?P=") {
        let name = name.split(')').next().unwrap_or("");
        marker.reference(Whom::Name(name.to_owned()));
        return Ok("(?P=)".len() + name.len());
    }
    for start in ["(?P<", "(?<", "(?'"] {
        if let Some(name) = rest.strip_prefix(start) {
            let name = name.split(['>', '\'']).next().unwrap_or("");
            marker.group(Some(name));
            return Ok(start.len() + name.len() + 1);
        }
    }
    if ["(?(", "(?R", "(?|", "(?&", "(?P>"].iter().any(|start| rest.starts_with(start)) {
        return Err("conditions, recursion and groups that share a number are not supported".to_owned());
    }
    match rest.starts_with("(?") {
        // Flags, or a group that takes nothing down.
        true => marker.out.push('('),
        false => marker.group(None),
    }
    Ok(1)
}

/// Takes an escape outside of classes; returns its length.
fn escape(rest: &str, marker: &mut Marker) -> Result<usize, String> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let Some(&kind) = rest.as_bytes().get(1) else { return Err("it ends in a backslash".to_owned()) };
    match kind {
        b'1'..=b'9' => {
            // As PCRE: of more than one digit only where there are as many groups so far.
            let all = digits(&rest[1..]).min(2);
            let number = |length: usize| rest[1..1 + length].parse().unwrap_or(u32::MAX);
            let length = if number(all) <= marker.groups { all } else { 1 };
            marker.reference(Whom::Number(number(length)));
            Ok(1 + length)
        }
        b'g' | b'k' => {
            let inner = &rest[2..];
            let (text, length) = match inner.as_bytes().first() {
                Some(b'{' | b'<' | b'\'') => {
                    let end = inner[1..].find(['}', '>', '\'']).ok_or("a reference that does not end")?;
                    (&inner[1..1 + end], end + 2)
                }
                _ => (&inner[..digits(inner)], digits(inner)),
            };
            let whom = match (text.strip_prefix('-').map(str::parse::<u32>), text.parse()) {
                // Counted back from here.
                (Some(Ok(back)), _) => Whom::Number((marker.groups + 1).saturating_sub(back)),
                (_, Ok(number)) => Whom::Number(number),
                _ if text.is_empty() => return Err(format!("`\\{}` without a group", char::from(kind))),
                _ => Whom::Name(text.to_owned()),
            };
            marker.reference(whom);
            Ok(2 + length)
        }
        b'K' | b'G' => Err(format!("`\\{}` is not supported", char::from(kind))),
        _ => {
            marker.out.push_str(&rest[..2]);
            Ok(2)
        }
    }
}

impl Marked {
    /// What a group of the tree stands for; `None`: it is one of the author's.
    pub(super) fn mark(&self, capture: &Capture) -> Option<Mark> {
        let number = capture.name.as_ref()?.strip_prefix(NAME)?;
        self.marks.get(number.parse::<usize>().ok()?).copied()
    }

    /// The number of one of the author's groups.
    pub(super) fn number(&self, capture: &Capture) -> Option<u32> {
        self.numbers.get(capture.index as usize).copied().flatten()
    }

    /// How many groups the author made.
    pub(super) fn groups(&self) -> usize {
        self.numbers.iter().flatten().count() - 1
    }

    /// A pattern without marks that matches wherever the part does: whatever is looked at around is left out, and a
    /// reference is any text that its group may match.
    pub(super) fn loose(&self, part: &Hir) -> Hir {
        self.loosen(part, 0)
    }

    fn loosen(&self, part: &Hir, depth: u32) -> Hir {
        let all = |parts: &[Hir]| parts.iter().map(|part| self.loosen(part, depth)).collect();
        match part.kind() {
            HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => part.clone(),
            HirKind::Repetition(repetition) => {
                Hir::repetition(Repetition { sub: Box::new(self.loosen(&repetition.sub, depth)), ..repetition.clone() })
            }
            HirKind::Concat(parts) => Hir::concat(all(parts)),
            HirKind::Alternation(parts) => Hir::alternation(all(parts)),
            HirKind::Capture(capture) => match self.mark(capture) {
                Some(Mark::Ahead { .. } | Mark::Behind { .. }) => Hir::empty(),
                Some(Mark::Same { group }) => match find(self, &self.hir, group) {
                    Some(of) if depth < DEEPEST => blind(&in_any_case(self.loosen(of, depth + 1))),
                    _ => anything(),
                },
                Some(Mark::Atomic) | None => self.loosen(&capture.sub, depth),
            },
        }
    }
}

/// What a group holds.
fn find<'h>(marked: &Marked, part: &'h Hir, group: u32) -> Option<&'h Hir> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => None,
        HirKind::Repetition(repetition) => find(marked, &repetition.sub, group),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().find_map(|part| find(marked, part, group)),
        HirKind::Capture(capture) if marked.number(capture) == Some(group) => Some(&capture.sub),
        HirKind::Capture(capture) => find(marked, &capture.sub, group),
    }
}

/// The same without looking at where it stands, since the text of a group may come again anywhere.
fn blind(part: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(blind).collect();
    match part.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => part.clone(),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(blind(&repetition.sub)), ..repetition.clone() })
        }
        HirKind::Capture(capture) => blind(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

fn anything() -> Hir {
    Hir::repetition(Repetition {
        min: 0,
        max: None,
        greedy: true,
        sub: Box::new(Hir::dot(regex_syntax::hir::Dot::AnyByte)),
    })
}

/// Whether a look-around of the parser needs to know of Unicode, which bytes do not have.
pub(super) fn is_wide(look: Look) -> bool {
    matches!(
        look,
        Look::WordUnicode
            | Look::WordUnicodeNegate
            | Look::WordStartUnicode
            | Look::WordEndUnicode
            | Look::WordStartHalfUnicode
            | Look::WordEndHalfUnicode
    )
}
