//! A compiled rule set: what all transactions share.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::names::TxNames;
use crate::operator::Lookups;
use crate::problem::Problems;
use crate::rule::{Ctl, Rule, Skip, Which};
use crate::settings::Settings;
use crate::store::Span;
use crate::transform::UnicodeMap;

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
    /// The names of the slots of `TX`, in the constants.
    name_spans: Vec<Span>,
    /// `TX` at the start of every transaction, by slot.
    pub(crate) initial_tx: Vec<Span>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lookups: Arc<dyn Lookups>,
    pub(crate) fast: bool,
}

/// Knows nothing.
#[derive(Debug)]
struct NoLookups;
impl Lookups for NoLookups {}

impl RuleSet {
    pub(crate) fn new(
        rules: Vec<Rule>,
        names: TxNames,
        settings: Settings,
        unicode_map: Option<Arc<UnicodeMap>>,
        fast: bool,
    ) -> Result<RuleSet, Problems> {
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
            let name = names.name(slot as u32).as_bytes();
            name_spans.push(Span { start: constants.len() as u32, len: name.len() as u32 }.constant());
            constants.extend_from_slice(name);
        }
        Ok(RuleSet {
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
            fast,
        })
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

    /// How many rules there are; a chain is one.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// What directives set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn name_span(&self, slot: usize) -> Span {
        self.name_spans.get(slot).copied().unwrap_or(Span::EMPTY)
    }

    /// The rules that `which` means.
    pub(crate) fn which<'a>(&'a self, which: &'a Which) -> impl Iterator<Item = usize> + 'a {
        self.rules.iter().enumerate().filter(|(_, r)| r.is(which)).map(|(i, _)| i)
    }
}

/// The position in `list` at which evaluation goes on after a rule skips.
pub(crate) fn skip_position(list: &[u32], at: usize, skip: &Skip) -> usize {
    match skip {
        Skip::No | Skip::Label(_) => at + 1,
        Skip::Count(n) => (at + 1 + *n as usize).min(list.len()),
        Skip::To(rule) => list.partition_point(|i| i < rule).max(at + 1),
    }
}

/// Whether a rule changes other rules at run time.
pub(crate) fn has_ctl(rule: &Rule) -> bool {
    rule.links.iter().any(|l| l.ctls.iter().any(|c| !matches!(c, Ctl::Nothing | Ctl::AuditParts(_))))
}
