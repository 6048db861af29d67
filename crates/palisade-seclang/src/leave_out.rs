//! What is left out of transactions from outside the rules: an operator's exclusions, by rule and by field.

use std::path::PathBuf;
use std::sync::Arc;

use crate::expand::{Macro, Part};
use crate::parse::exclusion;
use crate::rule::{Exclusion, Rule, Which};
use crate::ruleset::RuleSet;

/// Rules that some transactions leave out, wholly or for some variables. Made by [`RuleSet::leave_out`], applied by
/// [`Transaction::leave_out`](crate::Transaction::leave_out).
#[derive(Debug, Clone)]
pub struct LeaveOut(pub(crate) Arc<Left>);

#[derive(Debug)]
pub(crate) struct Left {
    /// The rules, as bits by position.
    pub(crate) rules: Vec<u64>,
    /// The variables; none: the rules are left out wholly.
    pub(crate) variables: Vec<Exclusion>,
}

impl Left {
    pub(crate) fn has(&self, rule: usize) -> bool {
        self.rules.get(rule / 64).is_some_and(|word| word >> (rule % 64) & 1 == 1)
    }
}

impl RuleSet {
    /// Prepares to leave rules out. `rules` are numbers (`942100`), ranges of them (`942000-942999`), tags
    /// (`attack-xss`), or the end of a tag of the form `attack-…` (`xss`); none means all. `variables` are written as in
    /// a rule (`ARGS:password`); none means that the rules are not evaluated at all.
    ///
    /// # Errors
    /// What names no rule, or no variable.
    pub fn leave_out(&self, rules: &[String], variables: &[String]) -> Result<LeaveOut, String> {
        let mut bits = vec![0_u64; self.rules.len().div_ceil(64)];
        let mut add = |wanted: &dyn Fn(&Rule) -> bool| {
            let mut any = false;
            for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| wanted(rule)) {
                bits[index / 64] |= 1 << (index % 64);
                any = any || !rule.links.is_empty();
            }
            any
        };
        if rules.is_empty() {
            add(&|_| true);
        }
        for name in rules {
            let (low, high) = name.split_once('-').unwrap_or((name, name));
            let found = match (low.trim().parse::<u64>(), high.trim().parse::<u64>()) {
                (Ok(low), Ok(high)) => add(&|rule| rule.is(&Which::Ids(vec![(low, high)]))),
                _ => add(&|rule| rule.tags.iter().any(|tag| is_tag(tag, name))),
            };
            if !found {
                return Err(format!("no rule has the number or tag `{name}`"));
            }
        }
        let variables = variables
            .iter()
            .map(|text| exclusion(text))
            .collect::<Result<_, _>>()
            .map_err(|(message, help)| if help.is_empty() { message } else { format!("{message}; {help}") })?;
        Ok(LeaveOut(Arc::new(Left { rules: bits, variables })))
    }

    /// Whether a phase (1 to 5) has rules that may be evaluated: one without need not be fed.
    pub fn has_phase(&self, phase: usize) -> bool {
        phase.checked_sub(1).and_then(|at| self.phases.get(at)).is_some_and(|list| !list.is_empty())
    }

    /// Files that were read, data files included, in the order of reading, and where `IncludeOptional` found none.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn is_tag(tag: &Macro, name: &str) -> bool {
    let [Part::Text(text)] = &*tag.parts else { return false };
    text.eq_ignore_ascii_case(name.as_bytes())
        || text.strip_prefix(b"attack-").is_some_and(|kind| kind.eq_ignore_ascii_case(name.as_bytes()))
}
