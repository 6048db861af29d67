//! What a rule does to variables of `TX`, and what of a rule can be told before there is a request.

use crate::expand::{Macro, Part};
use crate::operator::Operator;
use crate::rule::{Change, Ctl, Disruption, Link, Name, Rule, Select};
use crate::ruleset::RuleSet;
use crate::variable::Var;

/// Variables of `TX` that a rule touches.
#[derive(Debug, Default, Clone)]
pub(crate) struct Touches {
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
}

/// Whether an operator says the same of the same value in every transaction, and of a text at once.
pub(crate) fn pure(operator: &Operator) -> bool {
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

/// Whether an operator never gives up at a step limit.
pub(crate) fn is_linear(operator: &Operator) -> bool {
    match operator {
        Operator::Rx(regex) => regex.is_linear(),
        Operator::RxMacro(..)
        | Operator::RxGlobal(_)
        | Operator::VerifyCc(_)
        | Operator::VerifyCpf(_)
        | Operator::VerifySsn(_)
        | Operator::VerifySvnr(_) => false,
        _ => true,
    }
}

/// Whether nothing but what it answers is left of a link that matched.
pub(crate) fn is_quiet(link: &Link) -> bool {
    is_linear(&link.operator)
        && !matches!(link.operator, Operator::GeoLookup)
        // Of what does not match there is nothing to capture.
        && (!link.capture || link.negated)
        && link.setvars.is_empty()
        && link.ctls.iter().all(|ctl| matches!(ctl, Ctl::Nothing))
        && link.init_collections.is_empty()
        && link.expiries.is_empty()
}

/// Whether a text has no macro but of `TX`.
pub(crate) fn only_tx(text: &Macro) -> bool {
    text.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Tx(_)))
}

/// What all of a rule reads and writes.
pub(crate) fn touches(rules: &RuleSet, rule: &Rule) -> Touches {
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
