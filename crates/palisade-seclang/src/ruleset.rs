//! A compiled rule set: what all transactions share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, SystemClock};
use crate::collections::Collections;
use crate::fast::filter::Filter;
use crate::fast::fold;
use crate::fast::prune;
use crate::fast::wake::Wake;
use crate::names::TxNames;
use crate::operator::{Lookups, Operator};
use crate::problem::{Place, Problems};
use crate::rule::{Ctl, Rule, Select, Skip, Target, Which};
use crate::settings::{Settings, Steps};
use crate::store::Span;
use crate::transaction::may_replay;
use crate::transform::UnicodeMap;
use crate::variable::Var;

/// Rules, compiled; immutable and cheap to share.
#[derive(Debug)]
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) names: TxNames,
    pub(crate) settings: Settings,
    pub(crate) unicode_map: Option<Arc<UnicodeMap>>,
    /// Evaluated rules of phases 1 to 5, as positions in `rules`.
    pub(crate) phases: [Vec<u32>; 5],
    /// Text that every transaction starts with.
    pub(crate) constants: Vec<u8>,
    /// The names of the slots of `TX` as they are spelled, in the constants.
    name_spans: Vec<Span>,
    /// `TX` at the start of every transaction, by slot.
    pub(crate) initial_tx: Vec<Span>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lookups: Arc<dyn Lookups>,
    /// Absent: collections last for one transaction.
    pub(crate) collections: Option<Arc<dyn Collections>>,
    /// What makes evaluation cheap; absent in a reference rule set.
    pub(crate) fast: Option<Fast>,
    pub(crate) files: Vec<PathBuf>,
    /// No other rule set of this process has it.
    pub(crate) number: u64,
}

/// The number of the next rule set.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The compiled short cuts.
#[derive(Debug)]
pub(crate) struct Fast {
    pub(crate) filter: Filter,
    /// Rules that sleep until something happens.
    pub(crate) wake: Wake,
    /// By rule: whether what it does where it does not match is remembered.
    pub(crate) replays: Vec<bool>,
    /// Positions of each phase's list that are always evaluated, as bits.
    pub(crate) always: [Vec<u64>; 5],
    /// Phase (from 0) and position in its list, by rule.
    pub(crate) position: Vec<(u8, u32)>,
    /// Transformations are left out where they change nothing.
    pub(crate) skips: bool,
}

/// Knows nothing.
#[derive(Debug)]
struct NoLookups;
impl Lookups for NoLookups {}

impl RuleSet {
    pub(crate) fn new(
        mut rules: Vec<Rule>,
        names: TxNames,
        settings: Settings,
        unicode_map: Option<Arc<UnicodeMap>>,
        (steps, reads): (Option<Steps>, Option<&[String]>),
    ) -> Result<RuleSet, Problems> {
        // All names are known now, so patterns over them are decided.
        for target in rules.iter_mut().flat_map(|r| &mut r.links).flat_map(|l| &mut l.targets) {
            if let (Var::Tx, Select::Pattern(regex)) = (target.var, &target.select) {
                let matching = |s: &u32| regex.is_match(names.name(*s).as_bytes()).unwrap_or(true);
                let slots = (0..names.len() as u32).filter(matching).collect();
                target.select = Select::Slots(regex.clone(), slots);
            }
        }
        // And so are all rules, which other rules remove.
        let meant = |which: &Which, rules: &[Rule]| -> Arc<[u32]> {
            rules.iter().enumerate().filter(|(_, r)| r.is(which)).map(|(i, _)| i as u32).collect()
        };
        for i in 0..rules.len() {
            let mut links = std::mem::take(&mut rules[i].links);
            for ctl in links.iter_mut().flat_map(|l| &mut l.ctls) {
                match ctl {
                    Ctl::Remove(which) => *ctl = Ctl::RemoveRules(meant(which, &rules)),
                    Ctl::RemoveTarget(which, exclusion) => {
                        *ctl = Ctl::RemoveTargets(meant(which, &rules), exclusion.clone())
                    }
                    _ => {}
                }
            }
            rules[i].links = links;
        }
        let mut phases: [Vec<u32>; 5] = Default::default();
        for (i, rule) in rules.iter().enumerate() {
            if let Some(list) = usize::from(rule.phase).checked_sub(1).and_then(|p| phases.get_mut(p)) {
                list.push(i as u32);
            }
        }
        let initial_tx = vec![Span::NONE; names.len()];
        let mut constants = Vec::new();
        let mut name_spans = Vec::new();
        for slot in 0..names.len() {
            let name = names.spelling(slot as u32).as_bytes();
            name_spans.push(Span { start: constants.len() as u32, len: name.len() as u32 }.constant());
            constants.extend_from_slice(name);
        }
        let rules = RuleSet {
            rules,
            names,
            settings,
            unicode_map,
            phases,
            constants,
            name_spans,
            initial_tx,
            clock: Arc::new(SystemClock::new()),
            lookups: Arc::new(NoLookups),
            collections: None,
            fast: None,
            files: Vec::new(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        };
        match steps {
            Some(steps) => rules.hasten(steps, reads),
            None => Ok(rules),
        }
    }

    /// Folds what is fixed and compiles the filter.
    fn hasten(self, steps: Steps, reads: Option<&[String]>) -> Result<RuleSet, Problems> {
        let mut rules = self;
        loop {
            let shared = Arc::new(rules);
            let folded = if steps.fold { fold::fold(&shared) } else { fold::nothing(&shared) };
            let Ok(unshared) = Arc::try_unwrap(shared) else { return Err(in_use()) };
            rules = unshared;
            for rule in &mut rules.rules {
                fold::settle(rule, &folded.settled, &folded.tx);
            }
            rules.phases = folded.phases;
            for (slot, value) in folded.tx.into_iter().enumerate() {
                rules.initial_tx[slot] = value.map_or(Span::NONE, |value| {
                    let start = rules.constants.len() as u32;
                    rules.constants.extend_from_slice(&value);
                    Span { start, len: value.len() as u32 }.constant()
                });
            }
            // What nobody writes any more is settled, too.
            if !steps.fold || !prune::prune(&mut rules, reads) {
                break;
            }
        }
        let live = rules.phases.iter().flatten().copied();
        let filter = Filter::new(&rules.rules, live, steps).map_err(|e| {
            let mut problems = Problems::default();
            let at = Place { file: "".into(), line: 0 };
            problems.error(
                &at,
                "",
                format!("the prefilter cannot be compiled: {e}"),
                "the patterns together are too large",
            );
            problems
        })?;
        let shared = Arc::new(rules);
        let wake = if steps.wake { Wake::new(&shared, &filter) } else { Wake::nothing() };
        let Ok(mut rules) = Arc::try_unwrap(shared) else { return Err(in_use()) };
        let replays = rules.rules.iter().map(|rule| !wake.stale && may_replay(&rules, rule)).collect();
        let mut position = vec![(u8::MAX, 0); rules.rules.len()];
        let mut always: [Vec<u64>; 5] = Default::default();
        for (phase, list) in rules.phases.iter().enumerate() {
            always[phase] = vec![0; list.len().div_ceil(64)];
            for (at, index) in list.iter().enumerate() {
                position[*index as usize] = (phase as u8, at as u32);
                if !filter.filtered[*index as usize] {
                    always[phase][at / 64] |= 1 << (at % 64);
                }
            }
        }
        for index in wake.sleeping() {
            let (phase, at) = position[index as usize];
            always[usize::from(phase)][at as usize / 64] &= !(1 << (at % 64));
        }
        rules.fast = Some(Fast { filter, wake, replays, always, position, skips: steps.triggers });
        Ok(rules)
    }

    /// The same rules with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> RuleSet {
        self.clock = clock;
        self
    }

    /// The same rules with a source of facts that the engine does not have.
    #[must_use]
    pub fn with_lookups(mut self, lookups: Arc<dyn Lookups>) -> RuleSet {
        self.lookups = lookups;
        self
    }

    /// The same rules with a place for collections that `initcol` opens. Without one they last for one transaction.
    #[must_use]
    pub fn with_collections(mut self, collections: Arc<dyn Collections>) -> RuleSet {
        self.collections = Some(collections);
        self
    }

    /// How many rules there are; a chain is one.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// How many rules are evaluated in a transaction at most, and how many of them only on values that a filter names.
    pub fn live_count(&self) -> (usize, usize) {
        let live = self.phases.iter().map(Vec::len).sum();
        let filtered = self.fast.as_ref().map_or(0, |f| f.filter.filtered.iter().filter(|x| **x).count());
        (live, filtered)
    }

    /// Numbers of the rules of a phase (1 to 5) that every transaction evaluates, whatever it holds. For tuning.
    pub fn always_evaluated(&self, phase: usize) -> Vec<u64> {
        let Some(at) = phase.checked_sub(1).filter(|at| *at < self.phases.len()) else { return Vec::new() };
        let always = |at_rule: usize| {
            let fast = self.fast.as_ref();
            fast.is_none_or(|fast| fast.always[at][at_rule / 64] >> (at_rule % 64) & 1 == 1)
        };
        let list = self.phases[at].iter().enumerate().filter(|(at_rule, _)| always(*at_rule));
        list.map(|(_, index)| self.rules[*index as usize].id).collect()
    }

    /// Numbers of the rules that are evaluated and ask for what only [`Lookups`] can tell: where an address is
    /// (`@geoLookup`), whether a list holds it (`@rbl`). Without lookups they never match. Left out are those that a
    /// setting switches on which is not set.
    pub fn asks_elsewhere(&self) -> Vec<u64> {
        let unset = |target: &Target| match target.select {
            Select::Slot(slot) => {
                self.initial_tx.get(slot as usize).is_none_or(|value| value.is_none() || value.len == 0)
            }
            _ => false,
        };
        let asks = |rule: &&Rule| {
            let off = rule.links.len() > 1 && rule.links[0].targets.iter().all(|target| !target.count && unset(target));
            !off && rule.links.iter().any(|link| matches!(link.operator, Operator::GeoLookup | Operator::Rbl(_)))
        };
        let live = self.phases.iter().flatten().filter_map(|index| self.rules.get(*index as usize));
        live.filter(asks).map(|rule| rule.id).collect()
    }

    /// Whether rules look at answers: if not, a transaction may end ([`Transaction::logging`](crate::Transaction::logging)) with its request.
    pub fn reads_answers(&self) -> bool {
        prune::reads_answers(self)
    }

    /// Bytes of the filter's automata, without what they cache while they run.
    pub fn filter_memory(&self) -> usize {
        self.fast.as_ref().map_or(0, |f| f.filter.memory())
    }

    /// What directives set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn name_span(&self, slot: usize) -> Span {
        self.name_spans.get(slot).copied().unwrap_or(Span::EMPTY)
    }
}

/// Whoever evaluated rules while they were compiled has let go of them, so this does not happen.
fn in_use() -> Problems {
    let mut problems = Problems::default();
    problems.error(&Place { file: "".into(), line: 0 }, "", "the rules are still in use", "");
    problems
}

/// The position in `list` at which evaluation goes on after a rule skips.
pub(crate) fn skip_position(list: &[u32], at: usize, skip: &Skip) -> usize {
    match skip {
        Skip::No | Skip::Count(_) | Skip::Label(_) => at + 1,
        Skip::To(rule) => list.partition_point(|i| i < rule).max(at + 1),
    }
}
