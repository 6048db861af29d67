//! Rules that read configuration only are evaluated once, when rules are compiled.
//!
//! Nearly half of the Core Rule Set sets defaults and skips whole sections by paranoia level. A rule is *fixed* if
//! nothing of a request can change what it does; fixed rules run here, and their variables become what every
//! transaction starts with. Everything in doubt stays.

use std::sync::Arc;

use crate::expand::{Macro, Part};
use crate::operator::Operator;
use crate::rule::{Change, Ctl, Disruption, Link, Name, Rule, Select, Skip};
use crate::ruleset::{RuleSet, skip_position};
use crate::transaction::Transaction;
use crate::variable::Var;

/// What is left to do for each transaction.
pub(crate) struct Folded {
    pub(crate) phases: [Vec<u32>; 5],
    /// Values of `TX` by slot.
    pub(crate) tx: Vec<Option<Vec<u8>>>,
}

/// Variables of `TX` that a rule touches.
#[derive(Debug, Default, Clone)]
struct Touches {
    reads: Vec<u32>,
    writes: Vec<u32>,
}

/// Leaves everything to the transactions.
pub(crate) fn nothing(rules: &RuleSet) -> Folded {
    Folded { phases: rules.phases.clone(), tx: Vec::new() }
}

/// Runs what is fixed.
pub(crate) fn fold(rules: &Arc<RuleSet>) -> Folded {
    let mut phases = rules.phases.clone();
    // Sections that are skipped for good may hold the very rules that made others doubtful, so this is repeated.
    loop {
        let fixed = fixed_rules(rules, &phases);
        let (folded, skipped) = run(rules, &phases, &fixed);
        if !skipped {
            // Only rules that stay may still need the variables that fixed rules set; those are in `tx`.
            return Folded { phases: without_fixed(&folded.phases, &fixed), tx: folded.tx };
        }
        phases = folded.phases;
    }
}

fn without_fixed(phases: &[Vec<u32>; 5], fixed: &[bool]) -> [Vec<u32>; 5] {
    std::array::from_fn(|p| phases[p].iter().copied().filter(|i| !fixed[*i as usize]).collect())
}

/// Evaluates the fixed rules. Returns the lists without what they skip, `TX`, and whether anything was skipped.
fn run(rules: &Arc<RuleSet>, phases: &[Vec<u32>; 5], fixed: &[bool]) -> (Folded, bool) {
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
    let tx = (0..rules.names.len()).map(|slot| transaction.tx_slot(slot).map(<[u8]>::to_vec)).collect();
    (Folded { phases: next, tx }, skipped_any)
}

/// Which rules are fixed, as a fixpoint: what touches something doubtful is doubtful.
fn fixed_rules(rules: &Arc<RuleSet>, phases: &[Vec<u32>; 5]) -> Vec<bool> {
    let order: Vec<u32> = phases.iter().flatten().copied().collect();
    let touches: Vec<Touches> = rules.rules.iter().map(|r| touches(rules, r)).collect();
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
    let mut written = vec![false; rules.names.len()];
    loop {
        let before = fixed.iter().filter(|f| **f).count();
        // The ten captures belong to whoever matched last.
        written.iter_mut().take(10).for_each(|w| *w = true);
        for &index in order.iter().filter(|i| !fixed[**i as usize]) {
            for slot in &touches[index as usize].writes {
                written[*slot as usize] = true;
            }
        }
        let mut read_so_far = vec![false; rules.names.len()];
        for &index in &order {
            let touch = &touches[index as usize];
            if fixed[index as usize] {
                let doubtful = touch.reads.iter().chain(&touch.writes).any(|s| written[*s as usize])
                    || touch.writes.iter().any(|s| read_so_far[*s as usize]);
                if doubtful {
                    fixed[index as usize] = false;
                }
            }
            if !fixed[index as usize] {
                for slot in &touch.reads {
                    read_so_far[*slot as usize] = true;
                }
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

fn pure(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::Always
            | Operator::Never
            | Operator::Rx(_)
            | Operator::Text(..)
            | Operator::Number(..)
            | Operator::Phrases(_)
    )
}

fn only_tx(text: &Macro) -> bool {
    text.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Tx(_)))
}

fn touches(rules: &RuleSet, rule: &Rule) -> Touches {
    let mut out = Touches::default();
    let mut read = |m: &Macro| {
        for part in &m.parts {
            if let Part::Tx(slot) = part {
                out.reads.push(*slot);
            }
        }
    };
    rule.message.iter().chain(&rule.data).chain(&rule.tags).for_each(&mut read);
    if let Disruption::Redirect(to) = &rule.disruption {
        read(to);
    }
    for link in &rule.links {
        link_touches(rules, link, &mut out);
    }
    out
}

fn link_touches(rules: &RuleSet, link: &Link, out: &mut Touches) {
    let read = |m: &Macro, out: &mut Touches| {
        for part in &m.parts {
            if let Part::Tx(slot) = part {
                out.reads.push(*slot);
            }
        }
    };
    if let Some(argument) = link.operator.argument() {
        read(argument, out);
    }
    for target in link.targets.iter().filter(|t| t.var == Var::Tx) {
        match &target.select {
            Select::Slot(slot) => out.reads.push(*slot),
            select => {
                out.reads.extend((0..rules.names.len() as u32).filter(|s| select.has(rules.names.name(*s).as_bytes())))
            }
        }
    }
    for (_, key) in &link.init_collections {
        read(key, out);
    }
    for (_, name, seconds) in &link.expiries {
        read(name, out);
        read(seconds, out);
    }
    if link.capture {
        out.writes.extend(0..10);
    }
    for set in &link.setvars {
        match &set.change {
            Change::Set(m) => read(m, out),
            Change::Add(m) | Change::Subtract(m) => {
                read(m, out);
                if let Name::Slot(slot) = set.name {
                    out.reads.push(slot);
                }
            }
            Change::Unset => {}
        }
        if set.collection != Var::Tx {
            continue;
        }
        match &set.name {
            Name::Slot(slot) => out.writes.push(*slot),
            Name::Text(text) => {
                read(text, out);
                // The name is known only in a transaction; its beginning says which slots it may be.
                let prefix: &[u8] = match text.parts.first() {
                    Some(Part::Text(prefix)) => prefix,
                    _ => b"",
                };
                let prefix = prefix.to_ascii_lowercase();
                out.writes.extend(
                    (0..rules.names.len() as u32).filter(|s| rules.names.name(*s).as_bytes().starts_with(&prefix)),
                );
            }
        }
    }
}
