//! Showing new values to the filter, and asking it which rules and values are left.

use super::evaluate::VALUE;
use super::{Scan, Transaction};
use crate::fast::filter::{BELL, Filter};
use crate::fast::wake::Bell;
use crate::ruleset::{Fast, RuleSet};
use crate::store::List;

/// Bytes that are looked at before the time is asked for again, those that values cost by themselves among them.
const UNASKED: usize = 4096;

/// Every list, with whether the filter looks at its names too.
const LISTS: [(List, bool); 11] = [
    (List::ArgsGet, true),
    (List::ArgsPost, true),
    (List::Cookies, true),
    (List::Headers, true),
    (List::ResponseHeaders, true),
    (List::Files, false),
    (List::FilesNames, false),
    (List::FilesSizes, false),
    (List::PartHeaders, false),
    (List::XmlText, false),
    (List::XmlAttributes, false),
];

impl Scan {
    /// Makes everything new for a transaction.
    pub(super) fn begin(&mut self, fast: &Fast, rules: usize) {
        self.candidates.clear(rules);
        self.seen = [0; List::COUNT];
        self.scalars = 0;
        self.missed = 0;
        self.ids = 0;
        self.present = 0;
        self.rung.clear();
        self.rung.resize(fast.wake.len(), 0);
        for (visit, always) in self.visit.iter_mut().zip(&fast.always) {
            visit.clear();
            visit.extend_from_slice(always);
        }
    }

    /// Has a rule evaluated.
    fn mark(visit: &mut [Vec<u64>; 5], fast: &Fast, rule: u32) {
        let (phase, at) = fast.position[rule as usize];
        if let Some(word) = visit.get_mut(usize::from(phase)).and_then(|v| v.get_mut(at as usize / 64)) {
            *word |= 1 << (at % 64);
        }
    }

    /// Conditions are met.
    pub(super) fn ring<'a>(&mut self, fast: &Fast, bells: impl IntoIterator<Item = &'a Bell>) {
        for bell in bells {
            if let Some(rule) = fast.wake.ring(*bell, &mut self.rung) {
                Scan::mark(&mut self.visit, fast, rule);
            }
        }
    }

    /// Conditions are met that were written down as numbers.
    pub(super) fn ring_codes(&mut self, fast: &Fast, codes: &[u32]) {
        for code in codes {
            self.ring(fast, &[Bell::of_code(*code)]);
        }
    }

    /// There is a new variable of `TX`.
    pub(super) fn ring_name(&mut self, fast: &Fast, name: &[u8]) {
        let Scan { candidates, visit, rung, .. } = self;
        candidates.bells_of_name(&fast.wake, name, |bell| {
            if let Some(rule) = fast.wake.ring(bell, rung) {
                Scan::mark(visit, fast, rule);
            }
        });
    }
}

impl Transaction {
    /// Looks at all values that came since the phase before. False: the time is over.
    pub(super) fn scan_new(&mut self, rules: &RuleSet) -> bool {
        let Some(fast) = &rules.fast else { return true };
        self.scan.candidates.deadline = self.deadline;
        self.scan.candidates.is_cut = false;
        let in_time = self.scan_values(rules, fast);
        self.deadline = self.scan.candidates.deadline;
        self.late |= !in_time;
        in_time
    }

    /// Looks at the values. False: the time is over.
    fn scan_values(&mut self, rules: &RuleSet, fast: &Fast) -> bool {
        let clock = &*rules.clock;
        let mut unasked = 0;
        let Scan { candidates, visit, rung, seen, scalars, missed, present, ids, .. } = &mut self.scan;
        let mut hit = |what: u32| {
            let rule = match what & BELL {
                0 => Some(what),
                _ => fast.wake.ring(Bell::of_code(what & !BELL), rung),
            };
            if let Some(rule) = rule {
                Scan::mark(visit, fast, rule);
            }
        };
        let before = *present;
        for (i, (var, class)) in Filter::scalars().enumerate() {
            let span = self.scalars[var as usize];
            let judged = fast.wake.judged(class);
            // What is not there yet is empty to rules that look at it, but for bodies.
            let missing = span.is_none();
            if *scalars >> i & 1 == 1
                || missing && (judged.is_empty() || fast.filter.is_body(var) || *missed >> i & 1 == 1)
            {
                continue;
            }
            if missing {
                *missed |= 1 << i;
            } else {
                *scalars |= 1 << i;
                *present |= 1 << class;
            }
            let value = if missing { &[] } else { self.store.own(span) };
            fast.filter.look(class, var as u32, value, (rules, judged), candidates, &mut hit);
            unasked += value.len();
        }
        let lists = if std::mem::replace(ids, self.store.ids()) == self.store.ids() { &[][..] } else { &LISTS };
        for &(list, names) in lists {
            let items = self.store.list(list);
            let from = std::mem::replace(&mut seen[list as usize], items.len());
            for item in items.iter().skip(from) {
                if unasked > UNASKED {
                    unasked = 0;
                    if candidates.is_late(clock) {
                        return false;
                    }
                }
                unasked += 3 * VALUE + item.name.len as usize + item.value.len as usize;
                let class = match list {
                    List::Headers => fast.filter.header_value_class(self.store.own(item.name)),
                    _ => 2 * list as usize,
                };
                *present |= 1 << class;
                let judged = fast.wake.judged(class);
                fast.filter.look(class, item.id, self.store.own(item.value), (rules, judged), candidates, &mut hit);
                if names {
                    let class = 2 * list as usize + 1;
                    *present |= 1 << class;
                    fast.filter.look(class, item.id + 1, self.store.own(item.name), (rules, &[]), candidates, &mut hit);
                }
            }
        }
        if candidates.is_cut {
            return false;
        }
        let mut new = *present & !before;
        while new != 0 {
            let class = new.trailing_zeros() as usize;
            new &= new - 1;
            self.scan.ring(fast, fast.wake.of_class(class));
        }
        if self.body_length > 0 || !self.findings.is_empty() {
            self.scan.ring(fast, fast.wake.of_body());
        }
        true
    }

    /// Numbers of the rules that the filter could not leave out, with how many values each has to see. For tuning.
    pub fn candidates(&self) -> Vec<(u64, usize)> {
        let counts = (0..self.rules.rules.len()).map(|i| (self.rules.rules[i].id, self.scan.candidates.of(i).count()));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    /// The next position at or after `at` of a phase's list that has to be evaluated.
    pub(super) fn next_position(&self, phase: usize, at: usize) -> Option<usize> {
        let visit = &self.scan.visit[phase];
        let mut word = at / 64;
        let mut bits = visit.get(word)? & (!0 << (at % 64));
        while bits == 0 {
            word += 1;
            bits = *visit.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// Marks the candidate values of a rule; returns the mark.
    pub(super) fn mark_candidates(&mut self, rule: usize) -> u32 {
        self.scan.evaluation = self.scan.evaluation.wrapping_add(1);
        if self.scan.evaluation == 0 {
            self.scan.marks.clear();
            self.scan.evaluation = 1;
        }
        self.scan.marks.resize(self.scan.marks.len().max(self.store.ids()), 0);
        for value in self.scan.candidates.of(rule) {
            if let Some(mark) = self.scan.marks.get_mut(value as usize) {
                *mark = self.scan.evaluation;
            }
        }
        self.scan.evaluation
    }
}
