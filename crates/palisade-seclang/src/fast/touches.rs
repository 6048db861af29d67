//! What a rule does to variables of `TX`, and what of a rule can be told before there is a request.

use crate::expand::{Macro, Part};
use crate::operator::Operator;
use crate::rule::{Change, Ctl, Link, Name, Rule, Select};
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
    rule.says().for_each(|text| reads(text, &mut out));
    for link in &rule.links {
        link_touches(rules, link, &mut out);
    }
    out
}

fn reads(text: &Macro, out: &mut Touches) {
    out.reads.extend(text.parts.iter().filter_map(|part| match part {
        Part::Tx(slot) => Some(*slot),
        _ => None,
    }));
}

fn link_touches(rules: &RuleSet, link: &Link, out: &mut Touches) {
    link.texts().for_each(|text| reads(text, out));
    for target in link.targets.iter().filter(|t| t.var == Var::Tx) {
        match &target.select {
            Select::Slot(slot) => out.reads.push(*slot),
            select => {
                out.reads.extend((0..rules.names.len() as u32).filter(|s| select.has(rules.names.name(*s).as_bytes())))
            }
        }
    }
    if link.capture {
        out.writes.extend(0..10);
    }
    for set in &link.setvars {
        if let (Change::Add(_) | Change::Subtract(_), Name::Slot(slot)) = (&set.change, &set.name) {
            out.reads.push(*slot);
        }
        if set.collection != Var::Tx {
            continue;
        }
        match &set.name {
            Name::Slot(slot) => out.writes.push(*slot),
            Name::Text(text) => {
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
