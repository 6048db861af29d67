//! Rules that look at the names of headers, remembered: with the same names they do not match again.
//!
//! `TX:/^header_name_/` of the Core Rule Set makes a variable of each name and looks through them all. What comes of it is
//! the same for the same names, as long as the rule looks at nothing else ([`may_replay`]).

use super::Transaction;
use crate::expand::{Macro, Part};
use crate::fast::memory::{LONGEST_NAMES, Outcome};
use crate::fast::touches::is_linear;
use crate::fast::wake::Bell;
use crate::operator::Operator;
use crate::rule::{Change, Ctl, Link, Name, Rule, Select};
use crate::ruleset::RuleSet;
use crate::store::{List, Span};
use crate::variable::Var;

/// `TX.0` to `TX.9`.
const CAPTURES: u32 = 10;

/// Whether a rule that does not match does the same for all requests with the same names of headers, in which no rule
/// before made variables whose names only a transaction knows.
pub(crate) fn may_replay(rules: &RuleSet, rule: &Rule) -> bool {
    let [first, .., last] = &rule.links[..] else { return false };
    let of_names = first.targets.iter().all(|target| target.var == Var::RequestHeadersNames && !target.count);
    let captures = first.capture && !first.negated && !first.targets.is_empty();
    // Captures are this rule's own once the first link matched.
    let own = |text: &Macro| {
        text.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Tx(slot) => *slot < CAPTURES && captures,
            Part::Var(var, _) => matches!(var, Var::MatchedVar | Var::MatchedVarName),
        })
    };
    let named = |name: &Name| match name {
        Name::Slot(_) => false,
        Name::Text(text) => {
            let prefix = match text.parts.first() {
                Some(Part::Text(prefix)) => prefix.to_ascii_lowercase(),
                _ => Vec::new(),
            };
            let any = (0..rules.names.len() as u32).any(|slot| rules.names.name(slot).as_bytes().starts_with(&prefix));
            !any && own(text)
        }
    };
    let leaves = |link: &Link| {
        link.init_collections.is_empty()
            && link.expiries.is_empty()
            && link.ctls.iter().all(|ctl| matches!(ctl, Ctl::Nothing))
            && link.setvars.iter().all(|set| {
                set.collection == Var::Tx && named(&set.name) && matches!(&set.change, Change::Set(to) if own(to))
            })
    };
    let pure =
        |link: &Link| is_linear(&link.operator) && !matches!(link.operator, Operator::GeoLookup | Operator::Rbl(_));
    let literal = |link: &Link| link.operator.argument().is_none_or(Macro::is_literal);
    let looks = |link: &Link| {
        link.targets.iter().all(|target| match (target.var, &target.select) {
            (Var::Tx, Select::Slots(_, slots)) => slots.is_empty(),
            (Var::Tx, Select::Slot(slot)) => *slot < CAPTURES && captures,
            (var, _) => matches!(var, Var::MatchedVar | Var::MatchedVarName | Var::MatchedVars),
        })
    };
    of_names
        && literal(first)
        && rule.links.iter().all(pure)
        && rule.links.iter().skip(1).all(|link| {
            looks(link) && link.operator.argument().is_none_or(own) && (captures || !link.capture)
        })
        // What the last link would do is done only where the rule matches.
        && rule.links.iter().take(rule.links.len() - 1).all(leaves)
        && last.targets.iter().all(|target| target.var != Var::MatchedVarsNames)
}

impl Transaction {
    /// Writes the names of all headers into `out`. False: there are none, or too many.
    fn header_names(&self, out: &mut Vec<u8>) -> bool {
        out.clear();
        for item in self.store.list(List::Headers) {
            let name = self.store.own(item.name);
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(name);
            if out.len() > LONGEST_NAMES {
                return false;
            }
        }
        !out.is_empty()
    }

    /// Whether what a rule does in this transaction may be remembered; then the names are in `names`.
    pub(super) fn may_remember(&self, rules: &RuleSet, rule: usize, names: &mut Vec<u8>) -> bool {
        rules.fast.as_ref().is_some_and(|fast| fast.replays.get(rule) == Some(&true))
            && self.scan.candidates.memory.is_some()
            && self.tx_more.is_empty()
            && !self.leaves_out()
            && self.header_names(names)
    }

    /// Does what a rule that does not match with these names does. False: it is not known.
    pub(super) fn replay(&mut self, rules: &RuleSet, rule: usize, names: &[u8]) -> bool {
        let (Some(memory), Some(fast)) = (self.scan.candidates.memory.take(), &rules.fast) else { return false };
        let known = match memory.outcomes.get(rule as u32, names) {
            Some(outcome) => {
                let all = self.store.push(&outcome.bytes);
                let piece = |(start, len): (u32, u32)| Span { start: all.start + start, len };
                let whole = all.len as usize == outcome.bytes.len();
                if whole {
                    for (name, value) in &outcome.variables {
                        self.tx_more.add(piece(*name), piece(*value), &self.store, &rules.constants);
                    }
                    for (slot, capture) in outcome.captures.iter().flatten().enumerate() {
                        if let Some(entry) = self.tx.get_mut(slot) {
                            *entry = capture.map_or(Span::NONE, piece);
                        }
                    }
                    self.scan.ring_codes(fast, &outcome.bells);
                }
                whole
            }
            None => false,
        };
        self.scan.candidates.memory = Some(memory);
        known
    }

    /// Remembers what a rule did that did not match.
    pub(super) fn remember_outcome(&mut self, rules: &RuleSet, rule: usize, names: &[u8]) {
        let (Some(mut memory), Some(fast)) = (self.scan.candidates.memory.take(), &rules.fast) else { return };
        let mut outcome = Outcome::new(rule as u32, names);
        for (name, value) in self.tx_more.iter() {
            let name = self.bytes(name);
            outcome.bells.extend(fast.wake.of_name(name).map(|bell| Bell::code(*bell)));
            let name = outcome.piece(name);
            let value = outcome.piece(self.bytes(value));
            outcome.variables.push((name, value));
        }
        // Something matched, so the first link did, and it captured or never does.
        if !self.matched_vars.is_empty() && rules.rules[rule].links[0].capture {
            outcome.captures = Some(std::array::from_fn(|slot| {
                self.tx_slot(slot).map(<[u8]>::to_vec).map(|text| outcome.piece(&text))
            }));
        }
        if outcome.bytes.len() <= 8 * LONGEST_NAMES {
            memory.outcomes.put(outcome);
        }
        self.scan.candidates.memory = Some(memory);
    }
}
