//! Rules that the filter does not cover, and what has to happen before they are evaluated.
//!
//! Such a rule sleeps as a transaction begins if it has a *condition*: a link that does not match yet, with nothing
//! before it in the chain that would leave a trace. Either all that has an influence on the link is known to be as it was
//! at the beginning (no such header, no such file, a variable that no rule has changed), or each value of it is judged
//! by itself when it comes, which for values that come again with other requests is done once. A rule is evaluated, as
//! ever, once all its conditions are met.

use std::sync::Arc;

use super::filter::{Classes, Filter};
use super::touches::is_quiet;
use crate::expand::{Macro, Part};
use crate::operator::Operator;
use crate::regex::Regex;
use crate::rule::{Link, Rule, Select, Target};
use crate::ruleset::RuleSet;
use crate::store::List;
use crate::transaction::Transaction;
use crate::variable::{Kind, Var};

/// Most conditions of a rule; more would not let it sleep longer.
const MOST: usize = 8;
/// The first slots of `TX` are set by whoever captures.
const CAPTURES: u32 = 10;

/// A condition that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bell {
    sleeper: u16,
    bit: u8,
}

impl Bell {
    /// As a number below 2³¹.
    pub(crate) fn code(self) -> u32 {
        u32::from(self.sleeper) << 8 | u32::from(self.bit)
    }

    pub(crate) fn of_code(code: u32) -> Bell {
        Bell { sleeper: (code >> 8) as u16, bit: code as u8 }
    }
}

/// A link that is judged on each value of a class.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) bell: Bell,
    pub(crate) rule: u32,
    pub(crate) link: u8,
}

/// All conditions.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// By sleeper: the rule, and its conditions as bits.
    sleepers: Vec<(u32, u8)>,
    /// What the first value of a class meets.
    by_class: Vec<Vec<Bell>>,
    /// What a change of a variable of `TX` meets.
    by_slot: Vec<Vec<Bell>>,
    /// What a new variable of `TX` meets whose name only a transaction knows.
    by_name: Vec<(Regex, Bell)>,
    /// What a variable of `IP` and the like meets.
    by_collection: [Vec<Bell>; 5],
    /// What a body meets, or anything odd about a request.
    by_body: Vec<Bell>,
    /// By class.
    judged: Vec<Vec<Judged>>,
    /// Whether a rule reads what another one matched before it.
    pub(crate) stale: bool,
}

/// What has an influence on a link.
#[derive(Default)]
struct Influences {
    classes: Classes,
    slots: Vec<u32>,
    names: Vec<Regex>,
    collections: Vec<usize>,
    body: bool,
}

impl Wake {
    /// Nothing sleeps.
    pub(crate) fn nothing() -> Wake {
        Wake {
            by_class: vec![Vec::new(); 64],
            judged: (0..64).map(|_| Vec::new()).collect(),
            stale: true,
            ..Wake::default()
        }
    }

    /// Finds the conditions of all rules that are evaluated and not filtered.
    pub(crate) fn new(rules: &Arc<RuleSet>, filter: &Filter) -> Wake {
        let live = || rules.phases.iter().flatten().map(|index| &rules.rules[*index as usize]);
        // Whoever reads what the rule before it matched sees whether that was evaluated.
        let stale = live().any(reads_before);
        let mut wake = Wake { by_slot: vec![Vec::new(); rules.names.len()], stale, ..Wake::nothing() };
        let mut start = Transaction::new(rules);
        for &index in rules.phases.iter().flatten().filter(|index| !filter.filtered[**index as usize]) {
            wake.rule(rules, filter, index, &mut start);
        }
        wake
    }

    fn rule(&mut self, rules: &Arc<RuleSet>, filter: &Filter, index: u32, start: &mut Transaction) {
        let Ok(sleeper) = u16::try_from(self.sleepers.len()) else { return };
        let mut needs = 0u8;
        for (n, link) in rules.rules[index as usize].links.iter().enumerate() {
            let count = needs.count_ones() as usize;
            let bell = Bell { sleeper, bit: 1 << count.min(MOST - 1) };
            if let Some(classes) = judged_classes(filter, link, n) {
                for class in (0..64).filter(|class| classes >> class & 1 == 1) {
                    self.judged[class].push(Judged { bell, rule: index, link: n as u8 });
                }
                needs |= bell.bit;
            } else if let Some(influences) = influences(rules, filter, link)
                && !start.try_link(rules, index as usize, link)
            {
                self.hang(bell, influences);
                needs |= bell.bit;
            }
            if !is_quiet(link) || self.stale || needs.count_ones() as usize == MOST {
                break;
            }
        }
        if needs != 0 {
            self.sleepers.push((index, needs));
        }
    }

    fn hang(&mut self, bell: Bell, influences: Influences) {
        for class in (0..64).filter(|class| influences.classes >> class & 1 == 1) {
            self.by_class[class].push(bell);
        }
        influences.slots.iter().for_each(|slot| self.by_slot[*slot as usize].push(bell));
        self.by_name.extend(influences.names.into_iter().map(|regex| (regex, bell)));
        influences.collections.iter().for_each(|collection| self.by_collection[*collection].push(bell));
        if influences.body {
            self.by_body.push(bell);
        }
    }

    /// Rules that sleep as a transaction begins.
    pub(crate) fn sleeping(&self) -> impl Iterator<Item = u32> + '_ {
        self.sleepers.iter().map(|(rule, _)| *rule)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sleepers.len()
    }

    pub(crate) fn judged(&self, class: usize) -> &[Judged] {
        self.judged.get(class).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn of_class(&self, class: usize) -> &[Bell] {
        self.by_class.get(class).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn of_slot(&self, slot: usize) -> &[Bell] {
        self.by_slot.get(slot).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing waits for a variable whose name only a transaction knows.
    pub(crate) fn has_no_names(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn of_name<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a Bell> {
        self.by_name.iter().filter(|(regex, _)| regex.is_match(name).unwrap_or(true)).map(|(_, bell)| bell)
    }

    pub(crate) fn of_collection(&self, collection: usize) -> &[Bell] {
        self.by_collection.get(collection).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn of_body(&self) -> &[Bell] {
        &self.by_body
    }

    /// Notes in `rung` that a condition is met. `Some`: it was the last one that the rule needed.
    pub(crate) fn ring(&self, bell: Bell, rung: &mut [u8]) -> Option<u32> {
        let (rule, needs) = *self.sleepers.get(usize::from(bell.sleeper))?;
        let rung = rung.get_mut(usize::from(bell.sleeper))?;
        *rung |= bell.bit;
        (*rung == needs).then_some(rule)
    }
}

/// Classes of the values that a link looks at, if it can be judged on each of them by itself.
fn judged_classes(filter: &Filter, link: &Link, n: usize) -> Option<Classes> {
    let pure = match &link.operator {
        Operator::Rx(regex) => regex.is_linear(),
        Operator::Text(_, argument) | Operator::Number(_, argument) => argument.literal().is_some(),
        Operator::Phrases(_)
        | Operator::ByteRange(_)
        | Operator::UrlEncoding
        | Operator::Utf8Encoding
        | Operator::IpMatch(_)
        | Operator::DetectSqli
        | Operator::DetectXss => true,
        _ => false,
    };
    if !pure || link.multi_match || link.targets.is_empty() {
        return None;
    }
    let classes = link.targets.iter().try_fold(0, |classes, target| Some(classes | filter.single_class(target)?))?;
    // Judged in vain where the links before do not match.
    (n == 0 || filter.comes_again(classes)).then_some(classes)
}

/// What has an influence on a link; `None`: more than is watched.
fn influences(rules: &RuleSet, filter: &Filter, link: &Link) -> Option<Influences> {
    let mut all = Influences::default();
    if link.targets.is_empty() || matches!(link.operator, Operator::GeoLookup | Operator::Rbl(_)) {
        return None;
    }
    let slot = |slot: u32, all: &mut Influences| {
        all.slots.push(slot);
        slot >= CAPTURES
    };
    // What a transaction leaves out is not counted, so what is counted must not be there yet.
    let counts = |target: &Target, slot: u32| !target.count || rules.initial_tx[slot as usize].is_none();
    for part in link.operator.argument().into_iter().flat_map(|text| &text.parts) {
        match part {
            Part::Text(_) => {}
            Part::Tx(of) if slot(*of, &mut all) => {}
            _ => return None,
        }
    }
    for target in &link.targets {
        match (target.var, &target.select) {
            (Var::Tx, Select::Slot(of)) if counts(target, *of) && slot(*of, &mut all) => {}
            (Var::Tx, Select::Slots(regex, slots))
                if slots.iter().all(|of| counts(target, *of) && slot(*of, &mut all)) =>
            {
                all.names.push(regex.clone());
            }
            (Var::Tx, _) => return None,
            (var, _) if var.persistent_slot().is_some() => all.collections.extend(var.persistent_slot()),
            (Var::RequestBody | Var::ResponseBody, _) => all.classes |= filter.target_classes(target)?,
            (Var::ArgsCombinedSize, _) => {
                all.classes |= 1 << (2 * List::ArgsGet as usize) | 1 << (2 * List::ArgsPost as usize);
            }
            (var, _) if is_of_body(var) => all.body = true,
            (var, _) if matches!(var.kind(), Kind::Collection | Kind::Names | Kind::Xml) => {
                all.classes |= filter.target_classes(&Target { count: false, ..target.clone() })?;
            }
            _ => return None,
        }
    }
    Some(all)
}

/// Whether a single value is what it is at the beginning as long as there is no body and nothing odd.
fn is_of_body(var: Var) -> bool {
    matches!(
        var,
        Var::ReqbodyError
            | Var::ReqbodyErrorMsg
            | Var::ReqbodyProcessorError
            | Var::ReqbodyProcessorErrorMsg
            | Var::UrlencodedError
            | Var::InboundDataError
            | Var::FilesCombinedSize
            | Var::RequestBodyLength
    ) || (var.name().starts_with("MULTIPART_") && var.kind() == Kind::Scalar)
}

/// Whether a rule reads what another one matched before it.
pub(crate) fn reads_before(rule: &Rule) -> bool {
    let matched =
        |var: Var| matches!(var, Var::MatchedVar | Var::MatchedVarName | Var::MatchedVars | Var::MatchedVarsNames);
    let text = |text: &Macro| text.parts.iter().any(|part| matches!(part, Part::Var(var, _) if matched(*var)));
    let Some(first) = rule.links.first() else { return false };
    if first.targets.iter().any(|target| matched(target.var)) || first.operator.argument().is_some_and(text) {
        return true;
    }
    if !first.targets.is_empty() {
        return false;
    }
    let in_link = |link: &Link| link.targets.iter().any(|target| matched(target.var)) || link.texts().any(text);
    rule.log || rule.links.iter().any(in_link) || rule.redirect().is_some_and(text)
}
