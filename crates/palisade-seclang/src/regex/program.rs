//! A marked pattern as steps, and the machine that takes them: it goes back where it was wrong, and counts.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::marks::{Mark, Marked, is_wide};
use super::{Allowance, StepLimit};
use crate::operator::ByteSet;

/// Most steps of a program.
const LONGEST: usize = 20_000;
/// Longest text that a look behind may take, as in PCRE.
const BEHIND: usize = 255;
/// Most ways back that are remembered at once.
const MOST_WAYS: usize = 1 << 20;
/// The place of a group that took nothing.
const UNSET: usize = usize::MAX;

/// One step.
#[derive(Debug)]
enum Step {
    /// This byte.
    Byte(u8),
    /// A byte of the set.
    Set(ByteSet),
    /// As many bytes of a set as can be, or as few.
    Run {
        set: ByteSet,
        least: usize,
        most: usize,
        greedy: bool,
    },
    /// The first way, and the second where that was wrong.
    Fork {
        first: usize,
        second: usize,
    },
    Jump(usize),
    /// Notes the place.
    Save(usize),
    /// Leaves a loop whose last round took nothing.
    Leave {
        slot: usize,
        out: usize,
    },
    Look(Look),
    /// The text that a group took.
    Same {
        group: usize,
        caseless: bool,
    },
    /// What follows up to `end` is a pattern of its own.
    Inner {
        kind: Inner,
        end: usize,
    },
    Done,
}

/// What a pattern within a pattern is for.
#[derive(Debug, Clone, Copy)]
enum Inner {
    Ahead { negated: bool },
    Behind { negated: bool, least: usize, most: usize },
    Atomic,
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    /// Two a group, then one a loop.
    slots: usize,
}

/// A way back.
#[derive(Debug)]
enum Way {
    /// Goes on with a step at a place.
    Resume { step: usize, at: usize },
    /// Goes on with a step at the end of a shorter run.
    Shorter { step: usize, least: usize, most: usize },
    /// Goes on behind a run with one byte more of it.
    Longer { step: usize, at: usize, left: usize },
    /// Only takes back a note.
    Restore { slot: usize, value: usize },
}

/// What the machine works with, for many searches.
#[derive(Debug)]
pub(super) struct Memory {
    slots: Vec<usize>,
    ways: Vec<Way>,
}

impl Program {
    /// Compiles a part of a marked pattern.
    ///
    /// # Errors
    /// Too long a pattern, or something that bytes do not have.
    pub(super) fn new(marked: &Marked, part: &Hir) -> Result<Program, String> {
        let slots = 2 * (marked.groups() + 1);
        let mut program = Program { steps: Vec::new(), slots };
        program.push(Step::Save(0))?;
        program.part(marked, part)?;
        program.push(Step::Save(1))?;
        program.push(Step::Done)?;
        Ok(program)
    }

    fn push(&mut self, step: Step) -> Result<usize, String> {
        if self.steps.len() >= LONGEST {
            return Err("it is too long with all its repetitions".to_owned());
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn part(&mut self, marked: &Marked, part: &Hir) -> Result<(), String> {
        match part.kind() {
            HirKind::Empty => {}
            HirKind::Look(look) if is_wide(*look) => return Err("words of Unicode are not supported here".to_owned()),
            HirKind::Look(look) => {
                self.push(Step::Look(*look))?;
            }
            HirKind::Literal(literal) => {
                for byte in literal.0.iter() {
                    self.push(Step::Byte(*byte))?;
                }
            }
            HirKind::Class(class) => {
                self.push(Step::Set(set(class)?))?;
            }
            HirKind::Concat(parts) => {
                for part in parts {
                    self.part(marked, part)?;
                }
            }
            HirKind::Alternation(parts) => self.alternatives(marked, parts)?,
            HirKind::Repetition(repetition) => self.repetition(marked, repetition)?,
            HirKind::Capture(capture) => match marked.mark(capture) {
                Some(Mark::Same { group }) => {
                    let caseless = matches!(capture.sub.kind(), HirKind::Class(_));
                    self.push(Step::Same { group: group as usize, caseless })?;
                }
                Some(Mark::Ahead { negated }) => self.inner(marked, Inner::Ahead { negated }, &capture.sub)?,
                Some(Mark::Atomic) => self.inner(marked, Inner::Atomic, &capture.sub)?,
                Some(Mark::Behind { negated }) => {
                    let loose = marked.loose(&capture.sub);
                    let least = loose.properties().minimum_len().unwrap_or(0);
                    let most = loose.properties().maximum_len().filter(|most| *most <= BEHIND);
                    let most = most.ok_or("a look behind must not be longer than 255 bytes")?;
                    self.inner(marked, Inner::Behind { negated, least, most }, &capture.sub)?;
                }
                None => {
                    let group = marked.number(capture).unwrap_or(0) as usize;
                    self.push(Step::Save(2 * group))?;
                    self.part(marked, &capture.sub)?;
                    self.push(Step::Save(2 * group + 1))?;
                }
            },
        }
        Ok(())
    }

    fn inner(&mut self, marked: &Marked, kind: Inner, part: &Hir) -> Result<(), String> {
        let step = self.push(Step::Inner { kind, end: 0 })?;
        self.part(marked, part)?;
        self.push(Step::Done)?;
        let end = self.steps.len();
        self.steps[step] = Step::Inner { kind, end };
        Ok(())
    }

    fn alternatives(&mut self, marked: &Marked, parts: &[Hir]) -> Result<(), String> {
        let mut jumps = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            if n + 1 == parts.len() {
                self.part(marked, part)?;
                break;
            }
            let fork = self.push(Step::Fork { first: 0, second: 0 })?;
            self.part(marked, part)?;
            jumps.push(self.push(Step::Jump(0))?);
            self.steps[fork] = Step::Fork { first: fork + 1, second: self.steps.len() };
        }
        let end = self.steps.len();
        jumps.into_iter().for_each(|jump| self.steps[jump] = Step::Jump(end));
        Ok(())
    }

    fn repetition(&mut self, marked: &Marked, repetition: &Repetition) -> Result<(), String> {
        let Repetition { min, max, greedy, sub } = repetition;
        let (least, most) = (*min as usize, max.map_or(usize::MAX, |max| max as usize));
        let single = match sub.kind() {
            HirKind::Class(class) => Some(set(class)?),
            HirKind::Literal(literal) => match &*literal.0 {
                [byte] => Some(ByteSet::of([*byte])),
                _ => None,
            },
            _ => None,
        };
        if let Some(set) = single {
            self.push(Step::Run { set, least, most, greedy: *greedy })?;
            return Ok(());
        }
        for _ in 0..least {
            self.part(marked, sub)?;
        }
        let fork = |body: usize, out: usize| match greedy {
            true => Step::Fork { first: body, second: out },
            false => Step::Fork { first: out, second: body },
        };
        if most == usize::MAX {
            let slot = self.slots;
            self.slots += 1;
            let start = self.push(Step::Fork { first: 0, second: 0 })?;
            self.push(Step::Save(slot))?;
            self.part(marked, sub)?;
            let leave = self.push(Step::Leave { slot, out: 0 })?;
            self.push(Step::Jump(start))?;
            let out = self.steps.len();
            self.steps[leave] = Step::Leave { slot, out };
            self.steps[start] = fork(start + 1, out);
            return Ok(());
        }
        let mut forks = Vec::new();
        for _ in least..most {
            forks.push(self.push(Step::Fork { first: 0, second: 0 })?);
            self.part(marked, sub)?;
        }
        let out = self.steps.len();
        forks.into_iter().for_each(|at| self.steps[at] = fork(at + 1, out));
        Ok(())
    }

    /// How many places a search notes.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Whether the program matches from `at`; then the groups are in `memory`.
    pub(super) fn matches(
        &self,
        text: &[u8],
        at: usize,
        memory: &mut Memory,
        allowance: &mut Allowance<'_>,
    ) -> Result<bool, StepLimit> {
        memory.slots.fill(UNSET);
        memory.ways.clear();
        let mut machine = Machine { steps: &self.steps, text, memory, allowance };
        Ok(machine.run(0, at, None)?.is_some())
    }
}

impl Memory {
    /// For a program that notes so many places.
    pub(super) fn new(slots: usize) -> Memory {
        Memory { slots: vec![UNSET; slots], ways: Vec::new() }
    }

    /// What a group took in the last match.
    pub(super) fn group(&self, group: usize) -> Option<(usize, usize)> {
        let (start, end) = (*self.slots.get(2 * group)?, *self.slots.get(2 * group + 1)?);
        (start != UNSET && end != UNSET).then_some((start, end))
    }
}

/// The bytes of a class.
fn set(class: &Class) -> Result<ByteSet, String> {
    match class {
        Class::Bytes(class) => Ok(ByteSet::of(class.iter().flat_map(|range| range.start()..=range.end()))),
        Class::Unicode(class) if class.is_ascii() => {
            let bytes = class.iter().flat_map(|range| range.start() as u8..=range.end() as u8);
            Ok(ByteSet::of(bytes))
        }
        Class::Unicode(_) => Err("classes of Unicode are not supported here".to_owned()),
    }
}

/// A run of a program.
struct Machine<'m, 'a> {
    steps: &'m [Step],
    text: &'m [u8],
    memory: &'m mut Memory,
    allowance: &'m mut Allowance<'a>,
}

impl Machine<'_, '_> {
    /// Takes steps until they are done, at `end` where that is given; returns where.
    fn run(&mut self, mut step: usize, mut at: usize, end: Option<usize>) -> Result<Option<usize>, StepLimit> {
        let base = self.memory.ways.len();
        let steps = self.steps;
        loop {
            self.allowance.spend(1)?;
            let next = match &steps[step] {
                Step::Byte(byte) => (self.text.get(at) == Some(byte)).then_some((step + 1, at + 1)),
                Step::Set(set) => self.text.get(at).is_some_and(|byte| set.has(*byte)).then_some((step + 1, at + 1)),
                Step::Run { set, least, most, greedy } => self.take_run(set, (*least, *most, *greedy), step, at)?,
                Step::Fork { first, second } => {
                    self.remember(Way::Resume { step: *second, at })?;
                    Some((*first, at))
                }
                Step::Jump(to) => Some((*to, at)),
                Step::Save(slot) => {
                    self.save(*slot, at)?;
                    Some((step + 1, at))
                }
                Step::Leave { slot, out } => {
                    let empty = self.memory.slots[*slot] == at;
                    Some((if empty { *out } else { step + 1 }, at))
                }
                Step::Look(look) => holds(*look, self.text, at).then_some((step + 1, at)),
                Step::Same { group, caseless } => self.same(*group, *caseless, at)?.map(|to| (step + 1, to)),
                Step::Inner { kind, end } => self.inner(*kind, step + 1, at)?.map(|to| (*end, to)),
                Step::Done if end.is_none_or(|end| end == at) => return Ok(Some(at)),
                Step::Done => None,
            };
            match next.or_else(|| self.back(base)) {
                Some(next) => (step, at) = next,
                None => return Ok(None),
            }
        }
    }

    fn remember(&mut self, way: Way) -> Result<(), StepLimit> {
        if self.memory.ways.len() >= MOST_WAYS {
            return Err(StepLimit);
        }
        self.memory.ways.push(way);
        Ok(())
    }

    fn save(&mut self, slot: usize, at: usize) -> Result<(), StepLimit> {
        let value = std::mem::replace(&mut self.memory.slots[slot], at);
        self.remember(Way::Restore { slot, value })
    }

    /// Goes back to the last choice that was made since `base`.
    fn back(&mut self, base: usize) -> Option<(usize, usize)> {
        while self.memory.ways.len() > base {
            match self.memory.ways.pop()? {
                Way::Resume { step, at } => return Some((step, at)),
                Way::Shorter { step, least, most } => {
                    if most > least {
                        self.memory.ways.push(Way::Shorter { step, least, most: most - 1 });
                    }
                    return Some((step, most));
                }
                Way::Longer { step, at, left } => {
                    let Some(Step::Run { set, .. }) = self.steps.get(step) else { continue };
                    if self.text.get(at).is_some_and(|byte| set.has(*byte)) {
                        if left > 1 {
                            self.memory.ways.push(Way::Longer { step, at: at + 1, left: left - 1 });
                        }
                        return Some((step + 1, at + 1));
                    }
                }
                Way::Restore { slot, value } => self.memory.slots[slot] = value,
            }
        }
        None
    }

    /// Takes a run of bytes: as many as can be, with the way back to fewer, or as few.
    fn take_run(
        &mut self,
        set: &ByteSet,
        (least, most, greedy): (usize, usize, bool),
        step: usize,
        at: usize,
    ) -> Result<Option<(usize, usize)>, StepLimit> {
        let rest = self.text.get(at..).unwrap_or_default();
        let wanted = if greedy { most } else { least };
        let taken = rest.iter().take(wanted).take_while(|byte| set.has(**byte)).count();
        self.allowance.spend(taken as u64)?;
        if taken < least {
            return Ok(None);
        }
        if greedy && taken > least {
            self.remember(Way::Shorter { step: step + 1, least: at + least, most: at + taken - 1 })?;
        } else if !greedy && most > least {
            self.remember(Way::Longer { step, at: at + taken, left: most - least })?;
        }
        Ok(Some((step + 1, at + taken)))
    }

    /// Takes the text that a group took; returns where it ends.
    fn same(&mut self, group: usize, caseless: bool, at: usize) -> Result<Option<usize>, StepLimit> {
        let Some((start, end)) = self.memory.group(group) else { return Ok(None) };
        let (Some(wanted), Some(rest)) = (self.text.get(start..end), self.text.get(at..)) else { return Ok(None) };
        let Some(found) = rest.get(..wanted.len()) else { return Ok(None) };
        // A comparison ends at the first difference.
        let alike =
            found.iter().zip(wanted).take_while(|(a, b)| a == b || caseless && a.eq_ignore_ascii_case(b)).count();
        self.allowance.spend(alike as u64)?;
        Ok((alike == wanted.len()).then_some(at + alike))
    }

    /// Runs a pattern within the pattern; returns where the outer one goes on.
    fn inner(&mut self, kind: Inner, step: usize, at: usize) -> Result<Option<usize>, StepLimit> {
        let base = self.memory.ways.len();
        let (found, negated) = match kind {
            Inner::Atomic => (self.run(step, at, None)?, false),
            Inner::Ahead { negated } => (self.run(step, at, None)?.map(|_| at), negated),
            Inner::Behind { negated, least, most } => {
                let mut found = None;
                for length in least..=most.min(at) {
                    if self.run(step, at - length, Some(at))?.is_some() {
                        found = Some(at);
                        break;
                    }
                }
                (found, negated)
            }
        };
        match (found, negated) {
            (Some(_), true) => {
                // What it noted on its way does not count.
                for way in self.memory.ways.drain(base..).rev() {
                    if let Way::Restore { slot, value } = way {
                        self.memory.slots[slot] = value;
                    }
                }
                Ok(None)
            }
            (None, true) => Ok(Some(at)),
            (found, false) => {
                // It chose, and nothing else is tried; its notes are taken back with those around.
                let mut kept = base;
                for way in base..self.memory.ways.len() {
                    if matches!(self.memory.ways[way], Way::Restore { .. }) {
                        self.memory.ways.swap(kept, way);
                        kept += 1;
                    }
                }
                self.memory.ways.truncate(kept);
                Ok(found)
            }
        }
    }
}

/// Whether an assertion holds at a place.
fn holds(look: Look, text: &[u8], at: usize) -> bool {
    let byte = |at: usize| text.get(at).copied();
    let before = at.checked_sub(1).and_then(byte);
    let after = byte(at);
    let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let (left, right) = (is_word(before), is_word(after));
    match look {
        Look::Start => at == 0,
        Look::End => at == text.len(),
        Look::StartLF => matches!(before, None | Some(b'\n')),
        Look::EndLF => matches!(after, None | Some(b'\n')),
        Look::StartCRLF => match before {
            None | Some(b'\n') => true,
            Some(b'\r') => after != Some(b'\n'),
            Some(_) => false,
        },
        Look::EndCRLF => match after {
            None | Some(b'\r') => true,
            Some(b'\n') => before != Some(b'\r'),
            Some(_) => false,
        },
        Look::WordAscii => left != right,
        Look::WordAsciiNegate => left == right,
        Look::WordStartAscii => !left && right,
        Look::WordEndAscii => left && !right,
        Look::WordStartHalfAscii => !left,
        Look::WordEndHalfAscii => !right,
        // Refused when the program was compiled.
        Look::WordUnicode
        | Look::WordUnicodeNegate
        | Look::WordStartUnicode
        | Look::WordEndUnicode
        | Look::WordStartHalfUnicode
        | Look::WordEndHalfUnicode => false,
    }
}
