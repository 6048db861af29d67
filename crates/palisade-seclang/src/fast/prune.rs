//! What changes nothing or nobody reads is not written, and rules that then do nothing are not evaluated.
//!
//! Whoever asks for a transaction's variables says before which those are ([`Builder::reads`](crate::Builder::reads)).
//! The Core Rule Set keeps sums for its reports and a digest of the client's name for collections that few use.

use super::touches::{is_quiet, touches};
use crate::expand::{Macro, Part};
use crate::rule::{Change, Disruption, Link, Name, Rule, Select, SetVar, Skip};
use crate::ruleset::{RuleSet, skip_position};
use crate::store::Store;
use crate::text::atoi;
use crate::variable::Var;

/// Who reads what, of all rules that are evaluated.
struct Readers {
    /// By slot of `TX`.
    slots: Vec<bool>,
    /// Of `IP` and the like: read or written.
    collections: [bool; 5],
    /// What the rule before matched.
    stale: bool,
}

/// Leaves out what changes nothing and what nobody reads; `reads` names the variables of `TX` that are asked for from
/// outside, if that is known. Whether there was something.
pub(crate) fn prune(rules: &mut RuleSet, reads: Option<&[String]>) -> bool {
    let mut any = forget_sums(rules);
    let Some(reads) = reads else { return any };
    loop {
        let readers = readers(rules, reads);
        let mut changed = false;
        for index in rules.phases.iter().flatten() {
            for link in &mut rules.rules[*index as usize].links {
                changed |= forget(link, &readers);
            }
        }
        for list in &mut rules.phases {
            let mut at = 0;
            while let Some(index) = list.get(at) {
                if !readers.stale && does_nothing(&rules.rules[*index as usize], list, at) {
                    list.remove(at);
                    changed = true;
                } else {
                    at += 1;
                }
            }
        }
        if !changed {
            return any;
        }
        any = true;
    }
}

/// Takes out what adds nothing to a number that nobody else changes.
fn forget_sums(rules: &mut RuleSet) -> bool {
    let mut same: Vec<bool> = rules
        .initial_tx
        .iter()
        .map(|span| {
            let text = Store::default().get(*span, &rules.constants).to_vec();
            text == atoi(&text).to_string().as_bytes()
        })
        .collect();
    let adds_nothing = |set: &SetVar| match &set.change {
        Change::Add(amount) | Change::Subtract(amount) => amount.literal().is_some_and(|text| atoi(text) == 0),
        _ => false,
    };
    for index in rules.phases.iter().flatten() {
        let rule = &rules.rules[*index as usize];
        let mut other = touches(rules, rule).writes;
        for set in rule.links.iter().flat_map(|link| &link.setvars).filter(|set| adds_nothing(set)) {
            if let (Name::Slot(slot), Var::Tx) = (&set.name, set.collection)
                && let Some(at) = other.iter().position(|written| written == slot)
            {
                other.swap_remove(at);
            }
        }
        other.iter().for_each(|slot| same[*slot as usize] = false);
    }
    let mut any = false;
    for index in rules.phases.iter().flatten() {
        for link in &mut rules.rules[*index as usize].links {
            let before = link.setvars.len();
            link.setvars.retain(|set| {
                let slot =
                    if let (Name::Slot(slot), Var::Tx) = (&set.name, set.collection) { Some(*slot) } else { None };
                !slot.is_some_and(|slot| same[slot as usize] && adds_nothing(set))
            });
            any |= link.setvars.len() < before;
        }
    }
    any
}

fn readers(rules: &RuleSet, reads: &[String]) -> Readers {
    let named = |slot: usize| reads.iter().any(|name| name.eq_ignore_ascii_case(rules.names.name(slot as u32)));
    let mut readers = Readers {
        slots: (0..rules.names.len()).map(named).collect(),
        collections: [false; 5],
        stale: rules.phases.iter().flatten().any(|index| super::wake::reads_before(&rules.rules[*index as usize])),
    };
    for index in rules.phases.iter().flatten() {
        let rule = &rules.rules[*index as usize];
        rule.says().for_each(|text| readers.text(text));
        rule.links.iter().for_each(|link| readers.link(rules, link));
    }
    readers
}

impl Readers {
    fn text(&mut self, text: &Macro) {
        for part in &text.parts {
            match part {
                Part::Text(_) => {}
                Part::Tx(slot) => self.slots[*slot as usize] = true,
                Part::Var(var, _) => self.collection(*var),
            }
        }
    }

    fn collection(&mut self, var: Var) {
        if let Some(at) = var.persistent_slot() {
            self.collections[at] = true;
        }
    }

    fn link(&mut self, rules: &RuleSet, link: &Link) {
        // That a sum is read to be written again says nothing of whether anyone wants it.
        link.texts().for_each(|text| self.text(text));
        link.expiries.iter().for_each(|(collection, ..)| self.collection(*collection));
        link.setvars.iter().for_each(|set| self.collection(set.collection));
        for target in &link.targets {
            self.collection(target.var);
            match (target.var, &target.select) {
                (Var::Tx, Select::Slot(slot)) => self.slots[*slot as usize] = true,
                (Var::Tx, select) => (0..rules.names.len()).for_each(|slot| {
                    self.slots[slot] |= select.has(rules.names.name(slot as u32).as_bytes());
                }),
                _ => {}
            }
        }
    }
}

/// Takes from a link what nobody reads; whether there was such a thing.
fn forget(link: &mut Link, readers: &Readers) -> bool {
    let before = link.setvars.len() + link.init_collections.len();
    link.setvars.retain(|set| match (&set.name, set.collection) {
        (Name::Slot(slot), Var::Tx) => readers.slots[*slot as usize],
        _ => true,
    });
    link.init_collections.retain(|(var, _)| var.persistent_slot().is_none_or(|at| readers.collections[at]));
    link.setvars.len() + link.init_collections.len() < before
}

/// Whether it makes no difference that a rule matches.
fn does_nothing(rule: &Rule, list: &[u32], at: usize) -> bool {
    let skips = rule.skip != Skip::No && skip_position(list, at, &rule.skip) > at + 1;
    !rule.log
        && rule.severity.is_none()
        && matches!(rule.disruption, Disruption::Pass | Disruption::Default)
        && !skips
        && rule.links.iter().all(is_quiet)
}

/// Whether rules look at answers, or at what is known only then; otherwise a transaction may end with its request.
pub(crate) fn reads_answers(rules: &RuleSet) -> bool {
    let of_answer = |var: Var| {
        let name = var.name();
        name.starts_with("RESPONSE_")
            || name.starts_with("TIME")
            || matches!(var, Var::StatusLine | Var::OutboundDataError | Var::Duration)
    };
    let text = |text: &Macro| text.parts.iter().any(|part| matches!(part, Part::Var(var, _) if of_answer(*var)));
    let [_, _, third, fourth, fifth] = &rules.phases;
    let looks = |index: &u32| {
        let rule = &rules.rules[*index as usize];
        let in_link = |link: &Link| {
            link.targets.iter().any(|target| of_answer(target.var))
                || link.texts().any(text)
                // How long something lives is counted from then.
                || !link.expiries.is_empty()
        };
        rule.says().any(text) || rule.links.iter().any(in_link)
    };
    !third.is_empty() || !fourth.is_empty() || fifth.iter().any(looks)
}
