//! Rules that read configuration only are evaluated once, when rules are compiled.
//!
//! Nearly half of the Core Rule Set sets defaults and skips whole sections by paranoia level. A rule is *fixed* if
//! nothing of a request can change what it does; fixed rules run here, and their variables become what every
//! transaction starts with. Everything in doubt stays.

use std::sync::Arc;

use super::touches::{Touches, is_quiet, only_tx, pure, touches};
use crate::expand::{Macro, Part};
use crate::rule::{Change, Ctl, Disruption, Link, Name, Rule, Select, Skip, Target};
use crate::ruleset::{RuleSet, skip_position};
use crate::transaction::Transaction;
use crate::variable::Var;

/// `TX.0` to `TX.9`.
const CAPTURES: usize = 10;

/// What is left to do for each transaction.
pub(crate) struct Folded {
    pub(crate) phases: [Vec<u32>; 5],
    /// Values of `TX` by slot.
    pub(crate) tx: Vec<Option<Vec<u8>>>,
    /// Slots that no transaction changes.
    pub(crate) settled: Vec<bool>,
}

/// Leaves everything to the transactions.
pub(crate) fn nothing(rules: &RuleSet) -> Folded {
    Folded { phases: rules.phases.clone(), tx: Vec::new(), settled: vec![false; rules.names.len()] }
}

/// Runs what is fixed.
pub(crate) fn fold(rules: &Arc<RuleSet>) -> Folded {
    let touches: Vec<Touches> = rules.rules.iter().map(|r| touches(rules, r)).collect();
    let mut phases = rules.phases.clone();
    let ctls = || rules.rules.iter().flat_map(|rule| &rule.links).flat_map(|link| &link.ctls);
    let bodies = rules.settings.response_body || ctls().any(|ctl| matches!(ctl, Ctl::ResponseBodyAccess(true)));
    // Sections that are skipped for good may hold the very rules that made others doubtful, so this is repeated.
    loop {
        let fixed = fixed_rules(rules, &touches, &phases);
        let (mut next, mut transaction, skipped) = run(rules, &phases, &fixed);
        let settled = settled(rules, &touches, &next, &fixed);
        let mut dead = false;
        for list in &mut next {
            list.retain(|index| {
                let out =
                    !fixed[*index as usize] && is_dead(rules, *index as usize, (&settled, bodies), &mut transaction);
                dead |= out;
                !out
            });
        }
        if !skipped && !dead {
            let tx = (0..rules.names.len()).map(|slot| transaction.tx_slot(slot).map(<[u8]>::to_vec)).collect();
            // Only rules that stay may still need the variables that fixed rules set; those are in `tx`.
            return Folded { phases: without_fixed(&next, &fixed), tx, settled };
        }
        phases = next;
    }
}

/// The slots that no rule which stays writes.
fn settled(rules: &RuleSet, touches: &[Touches], phases: &[Vec<u32>; 5], fixed: &[bool]) -> Vec<bool> {
    let mut settled = vec![true; rules.names.len()];
    settled.iter_mut().take(CAPTURES).for_each(|s| *s = false);
    for index in phases.iter().flatten().filter(|i| !fixed[**i as usize]) {
        touches[*index as usize].writes.iter().for_each(|slot| settled[*slot as usize] = false);
    }
    settled
}

/// Whether a rule can never match: a link asks something of settled variables that is not so, and what comes before it
/// leaves no trace; or it asks for bodies of answers, and nobody reads those. `transaction` has the variables as they stay.
fn is_dead(
    rules: &Arc<RuleSet>,
    index: usize,
    (settled, bodies): (&[bool], bool),
    transaction: &mut Transaction,
) -> bool {
    for link in &rules.rules[index].links {
        let of_body = |target: &Target| target.var == Var::ResponseBody && !target.count;
        if !bodies && !link.targets.is_empty() && link.targets.iter().all(of_body) {
            return true;
        }
        let constant = !link.targets.is_empty()
            && link.exclusions.is_empty()
            && pure(&link.operator)
            // What a transaction leaves out of the rule lets it match less, but for a count.
            && link.targets.iter().all(|target| {
                target.var == Var::Tx
                    && matches!(target.select, Select::Slot(slot)
                        if settled[slot as usize] && !(target.count && transaction.tx_slot(slot as usize).is_some()))
            })
            && link.operator.argument().is_none_or(|text| {
                text.parts.iter().all(|part| match part {
                    Part::Text(_) => true,
                    Part::Tx(slot) => settled[*slot as usize],
                    Part::Var(..) => false,
                })
            });
        if constant && !transaction.try_link(rules, index, link) {
            return true;
        }
        if !is_quiet(link) {
            return false;
        }
    }
    false
}

fn without_fixed(phases: &[Vec<u32>; 5], fixed: &[bool]) -> [Vec<u32>; 5] {
    std::array::from_fn(|p| phases[p].iter().copied().filter(|i| !fixed[*i as usize]).collect())
}

/// Evaluates the fixed rules. Returns the lists without what they skip, the transaction, and whether anything was skipped.
fn run(rules: &Arc<RuleSet>, phases: &[Vec<u32>; 5], fixed: &[bool]) -> ([Vec<u32>; 5], Transaction, bool) {
    let mut transaction = Transaction::new(rules);
    let mut skipped_any = false;
    let mut next: [Vec<u32>; 5] = Default::default();
    for (list, kept) in phases.iter().zip(&mut next) {
        let mut at = 0;
        while let Some(&index) = list.get(at) {
            kept.push(index);
            let rule = &rules.rules[index as usize];
            if fixed[index as usize] && transaction.try_rule(rules, index as usize) && rule.skip != Skip::No {
                let to = skip_position(list, at, &rule.skip);
                skipped_any |= to > at + 1;
                at = to;
            } else {
                at += 1;
            }
        }
    }
    (next, transaction, skipped_any)
}

/// Which rules are fixed, as a fixpoint: what touches something doubtful is doubtful.
fn fixed_rules(rules: &Arc<RuleSet>, touches: &[Touches], phases: &[Vec<u32>; 5]) -> Vec<bool> {
    let order: Vec<u32> = phases.iter().flatten().copied().collect();
    let mut fixed: Vec<bool> = rules.rules.iter().map(may_be_fixed).collect();
    let mut allowed = false;
    for &index in &order {
        let rule = &rules.rules[index as usize];
        // After an `allow` that a request may or may not reach, nothing that writes is sure.
        if allowed && !touches[index as usize].writes.is_empty() {
            fixed[index as usize] = false;
        }
        allowed |= matches!(rule.disruption, Disruption::Allow(_));
        // A transaction may end before a later phase, so only phase 1 may prepare variables.
        if rule.phase > 1 && !touches[index as usize].writes.is_empty() {
            fixed[index as usize] = false;
        }
    }
    loop {
        let before = fixed.iter().filter(|f| **f).count();
        let mut ever = vec![false; rules.names.len()];
        // The ten captures belong to whoever matched last.
        ever.iter_mut().take(CAPTURES).for_each(|w| *w = true);
        let mut so_far = ever.clone();
        for &index in order.iter().filter(|i| !fixed[**i as usize]) {
            touches[index as usize].writes.iter().for_each(|slot| ever[*slot as usize] = true);
        }
        let mut read_so_far = vec![false; rules.names.len()];
        let mut may_end = false;
        for &index in &order {
            let touch = &touches[index as usize];
            // What is written later does not change what was read or written before. But where a transaction may have
            // ended before, rules that record see whether it was.
            let written = if may_end { &ever } else { &so_far };
            if fixed[index as usize] {
                let doubtful = touch.reads.iter().chain(&touch.writes).any(|s| written[*s as usize])
                    || touch.writes.iter().any(|s| read_so_far[*s as usize]);
                if doubtful {
                    fixed[index as usize] = false;
                }
            }
            if !fixed[index as usize] {
                touch.reads.iter().for_each(|slot| read_so_far[*slot as usize] = true);
                touch.writes.iter().for_each(|slot| so_far[*slot as usize] = true);
                may_end |= ends(&rules.rules[index as usize]);
            }
        }
        for list in phases {
            for (at, &index) in list.iter().enumerate().filter(|(_, i)| !fixed[**i as usize]).collect::<Vec<_>>() {
                let rule = &rules.rules[index as usize];
                if rule.skip != Skip::No {
                    // What only skips, and not beyond the end of what may be skipped anyway, does the same either way.
                    let end = skip_position(list, at, &rule.skip).max(at + 1).min(list.len());
                    for (inside, &skipped) in list.iter().enumerate().take(end).skip(at + 1) {
                        let beyond = skip_position(list, inside, &rules.rules[skipped as usize].skip) > end;
                        if beyond || !touches[skipped as usize].writes.is_empty() {
                            fixed[skipped as usize] = false;
                        }
                    }
                }
                for ctl in rule.links.iter().flat_map(|l| &l.ctls) {
                    if let Ctl::RemoveRules(which) | Ctl::RemoveTargets(which, _) = ctl {
                        which.iter().for_each(|index| fixed[*index as usize] = false);
                    }
                }
            }
        }
        // A fixed rule that matches and has to be reported, or to refuse, does so in every transaction.
        let mut transaction = Transaction::new(rules);
        for list in phases {
            let mut at = 0;
            while let Some(&index) = list.get(at) {
                let rule = &rules.rules[index as usize];
                if fixed[index as usize] && transaction.try_rule(rules, index as usize) {
                    let refuses = !matches!(rule.disruption, Disruption::Pass | Disruption::Default);
                    if rule.log || refuses || rule.severity.is_some() {
                        fixed[index as usize] = false;
                    }
                    at = skip_position(list, at, &rule.skip);
                } else {
                    at += 1;
                }
            }
        }
        if fixed.iter().filter(|f| **f).count() == before {
            return fixed;
        }
    }
}

/// Whether a rule may end the transaction, or its evaluation.
fn ends(rule: &Rule) -> bool {
    !matches!(rule.disruption, Disruption::Pass | Disruption::Default)
        || rule.links.iter().flat_map(|link| &link.ctls).any(|ctl| matches!(ctl, Ctl::Engine(_)))
}

/// Whether a rule looks at nothing but `TX` by name, and does nothing but set it and skip.
fn may_be_fixed(rule: &Rule) -> bool {
    rule.links.iter().all(|link| {
        link.targets.iter().all(|t| t.var == Var::Tx && matches!(t.select, Select::Slot(_)))
            && link.exclusions.is_empty()
            && !link.capture
            && link.ctls.iter().all(|c| matches!(c, Ctl::Nothing))
            && link.init_collections.is_empty()
            && link.expiries.is_empty()
            && link.operator.argument().is_none_or(only_tx)
            && pure(&link.operator)
            && link.setvars.iter().all(|s| {
                s.collection == Var::Tx
                    && matches!(s.name, Name::Slot(_))
                    && match &s.change {
                        Change::Set(m) | Change::Add(m) | Change::Subtract(m) => only_tx(m),
                        Change::Unset => true,
                    }
            })
    })
}

/// Writes the values of settled variables into a rule's texts.
pub(crate) fn settle(rule: &mut Rule, settled: &[bool], tx: &[Option<Vec<u8>>]) {
    // Tags stay as they are: rules are named by them.
    let texts = rule.message.iter_mut().chain(&mut rule.data);
    let links = rule.links.iter_mut().flat_map(|link| {
        let Link { setvars, init_collections, expiries, operator, .. } = link;
        let set = setvars.iter_mut().flat_map(|set| {
            let name = match &mut set.name {
                Name::Text(text) => Some(text),
                Name::Slot(_) => None,
            };
            let change = match &mut set.change {
                Change::Set(text) | Change::Add(text) | Change::Subtract(text) => Some(text),
                Change::Unset => None,
            };
            name.into_iter().chain(change)
        });
        let expiries = expiries.iter_mut().flat_map(|(_, name, seconds)| [name, seconds]);
        set.chain(init_collections.iter_mut().map(|(_, key)| key)).chain(expiries).chain(operator.argument_mut())
    });
    for text in texts.chain(links) {
        settle_text(text, settled, tx);
    }
    if let Disruption::Redirect(to) = &mut rule.disruption {
        settle_text(to, settled, tx);
    }
}

fn settle_text(text: &mut Macro, settled: &[bool], tx: &[Option<Vec<u8>>]) {
    let mut parts: Vec<Part> = Vec::new();
    for part in text.parts.drain(..) {
        let part = match part {
            Part::Tx(slot) if settled.get(slot as usize) == Some(&true) => {
                Part::Text(tx.get(slot as usize).cloned().flatten().unwrap_or_default().into())
            }
            other => other,
        };
        match (parts.last_mut(), &part) {
            (Some(Part::Text(before)), Part::Text(more)) => *before = [&**before, &**more].concat().into(),
            _ => parts.push(part),
        }
    }
    text.parts = parts;
}
