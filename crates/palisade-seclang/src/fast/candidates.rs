//! What the filter found in one transaction: pairs of rule and value.

use super::chains::Texts;
use super::known::{LONGEST, TX_NAMES};
use super::memory::Memory;
use super::wake::{Bell, Wake};
use crate::clock::{Clock, Deadline};
use crate::operator::Found;

/// Candidates of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// By rule: where its list begins in `links`, plus one.
    heads: Vec<u32>,
    touched: Vec<u32>,
    /// Value and the next link, plus one.
    links: Vec<(u32, u32)>,
    pub(super) texts: Texts,
    /// What the thread keeps, while a phase is evaluated.
    pub(crate) memory: Option<Box<Memory>>,
    /// Rules of the value at hand.
    pub(super) found: Vec<u32>,
    pub(super) judging: Judging,
    /// Until when values are looked at, while they are.
    pub(crate) deadline: Option<Deadline>,
    /// A value was looked at in part.
    pub(crate) is_cut: bool,
}

/// Buffers for links that are judged by themselves.
#[derive(Debug, Default)]
pub(super) struct Judging {
    pub(super) text: Vec<u8>,
    pub(super) other: Vec<u8>,
    pub(super) found: Found,
}

impl Candidates {
    pub(crate) fn clear(&mut self, rules: usize) {
        for rule in self.touched.drain(..) {
            if let Some(head) = self.heads.get_mut(rule as usize) {
                *head = 0;
            }
        }
        self.heads.resize(rules, 0);
        self.links.clear();
    }

    /// Whether the time for looking at values is over.
    pub(crate) fn is_late(&mut self, clock: &dyn Clock) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.is_over(clock))
    }

    /// The same in the middle of a value.
    pub(super) fn cuts(&mut self, clock: &dyn Clock) -> bool {
        self.is_cut |= self.is_late(clock);
        self.is_cut
    }

    /// Calls `hit` with what a new variable of `TX` meets, which is kept from one transaction to the next: such names are
    /// made of the names of headers.
    pub(crate) fn bells_of_name(&mut self, wake: &Wake, name: &[u8], mut hit: impl FnMut(Bell)) {
        if wake.has_no_names() {
            return;
        }
        let Some(known) = self.memory.as_mut().map(|memory| &mut memory.known).filter(|_| name.len() <= LONGEST) else {
            return wake.of_name(name).for_each(|bell| hit(*bell));
        };
        let hash = known.hash(TX_NAMES, name);
        if known.get(hash, TX_NAMES, name).is_none() {
            self.found.clear();
            self.found.extend(wake.of_name(name).map(|bell| bell.code()));
            known.put(hash, TX_NAMES, name, &self.found);
        }
        for code in known.get(hash, TX_NAMES, name).unwrap_or_default() {
            hit(Bell::of_code(*code));
        }
    }

    /// Adds a value; false: it was the last one added.
    pub(super) fn add(&mut self, rule: u32, value: u32) -> bool {
        let Some(head) = self.heads.get_mut(rule as usize) else { return false };
        if *head != 0 && self.links[*head as usize - 1].0 == value {
            return false;
        }
        if *head == 0 {
            self.touched.push(rule);
        }
        self.links.push((value, *head));
        *head = self.links.len() as u32;
        true
    }

    /// The candidate values of a rule.
    pub(crate) fn of(&self, rule: usize) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.heads.get(rule).copied().unwrap_or(0);
        std::iter::from_fn(move || {
            let (value, next) = *self.links.get((at as usize).checked_sub(1)?)?;
            at = next;
            Some(value)
        })
    }
}
