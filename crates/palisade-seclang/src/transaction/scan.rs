//! Showing new values to the filter, and asking it which rules and values are left.

use super::Transaction;
use crate::fast::filter::Filter;
use crate::ruleset::RuleSet;
use crate::store::List;

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

impl Transaction {
    /// Looks at all values that came since the phase before.
    pub(super) fn scan_new(&mut self, rules: &RuleSet) {
        let Some(fast) = &rules.fast else { return };
        let map = rules.unicode_map.as_deref();
        let visit = &mut self.scan.visit;
        let mut mark = |rule: u32| {
            let (phase, at) = fast.position[rule as usize];
            if let Some(word) = visit.get_mut(usize::from(phase)).and_then(|v| v.get_mut(at as usize / 64)) {
                *word |= 1 << (at % 64);
            }
        };
        for (i, (var, class)) in Filter::scalars().enumerate() {
            let span = self.scalars[var as usize];
            if self.scan.scalars >> i & 1 == 0 && !span.is_none() {
                self.scan.scalars |= 1 << i;
                fast.filter.look(class, var as u32, self.store.own(span), map, &mut self.scan.candidates, &mut mark);
            }
        }
        for (list, names) in LISTS {
            let from = std::mem::replace(&mut self.scan.seen[list as usize], self.store.list(list).len());
            for (i, item) in self.store.list(list).iter().enumerate().skip(from) {
                // The walk that follows notices the deadline and reports it.
                if i % 16 == 15 && self.deadline.as_mut().is_some_and(|deadline| deadline.is_over(&*rules.clock)) {
                    return;
                }
                let class = match list {
                    List::Headers => fast.filter.header_value_class(self.store.own(item.name)),
                    _ => 2 * list as usize,
                };
                fast.filter.look(class, item.id, self.store.own(item.value), map, &mut self.scan.candidates, &mut mark);
                if names {
                    let class = 2 * list as usize + 1;
                    fast.filter.look(
                        class,
                        item.id + 1,
                        self.store.own(item.name),
                        map,
                        &mut self.scan.candidates,
                        &mut mark,
                    );
                }
            }
        }
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
