//! The meaning of the language: rules in order, links, transformations, actions.

use std::net::IpAddr;
use std::sync::Arc;

use super::values::Value;
use super::{Allowed, Match, Outcome, Transaction, Verdict};
use crate::body::Finding;
use crate::fast::known::LONGEST;
use crate::fast::memory;
use crate::operator::Operator;
use crate::regex::Allowance;
use crate::rule::{Ctl, Disruption, EngineMode, Link, Rule, Scope};
use crate::ruleset::{RuleSet, skip_position};
use crate::store::{List, Span};
use crate::text::push_number;
use crate::transform::{Transform, apply_chain};
use crate::variable::Var;

/// Bytes of a transaction of which no rule takes long.
pub(super) const LITTLE: usize = 8 << 10;
/// Bytes that a rule looks at before the time is asked for again; a value counts for some more than it has.
const UNASKED: usize = 16 << 10;
/// What a value costs beside its bytes, in bytes.
pub(super) const VALUE: usize = 64;

impl Transaction {
    /// Evaluates the rules of one phase.
    pub(super) fn phase(&mut self, phase: u8) {
        if self.engine == EngineMode::Off || (self.verdict.is_some() && phase != 5) {
            return;
        }
        match (self.allowed, phase) {
            (Allowed::All, 1..=4) | (Allowed::Request, 1..=2) => return,
            _ => {}
        }
        let rules = self.rules.clone();
        let keeps = rules.fast.as_ref().is_some_and(|fast| fast.filter.keeps());
        if keeps {
            self.scan.candidates.memory = Some(memory::take(rules.number));
        }
        self.walk(&rules, phase);
        if let Some(memory) = self.scan.candidates.memory.take() {
            memory::give_back(rules.number, memory);
        }
    }

    /// Evaluates the rules of a phase that are to be evaluated.
    fn walk(&mut self, rules: &Arc<RuleSet>, phase: u8) {
        let Some(list) = rules.phases.get(usize::from(phase) - 1) else { return };
        let in_time = self.scan_new(rules);
        if self.store.full {
            self.output().find(Finding::OutOfMemory);
        }
        if !in_time {
            let next = self.next_position(usize::from(phase) - 1, 0).unwrap_or(0);
            if let Some(index) = list.get(next) {
                self.output().find(Finding::Budget { rule: rules.rules[*index as usize].id });
            }
            return;
        }
        // A rule takes as long as what it looks at is long: of little, the clock would be most of the work.
        let every: u32 = if self.store.bytes.len() > LITTLE { 1 } else { 16 };
        let (mut at, mut count) = (0, 0u32);
        loop {
            if rules.fast.is_some() {
                match self.next_position(usize::from(phase) - 1, at) {
                    Some(next) => at = next,
                    None => return,
                }
            }
            let Some(&index) = list.get(at) else { return };
            let index = index as usize;
            let rule = &rules.rules[index];
            if count.is_multiple_of(every) && self.is_late() {
                self.output().find(Finding::Budget { rule: rule.id });
                return;
            }
            count = count.wrapping_add(1);
            let matched = !self.is_removed(index) && self.evaluate(rules, index, rule);
            if self.late {
                // What the rule did not look at nobody has.
                self.output().find(Finding::Budget { rule: rule.id });
            }
            if !matched && !self.late {
                at += 1;
                continue;
            }
            if !matched || self.act(rule, phase) || self.late {
                return;
            }
            at = skip_position(list, at, &rule.skip);
        }
    }

    /// Evaluates one rule by itself, for rules that need no request.
    pub(crate) fn try_rule(&mut self, rules: &Arc<RuleSet>, index: usize) -> bool {
        let matched = self.evaluate(rules, index, &rules.rules[index]);
        self.matches.clear();
        matched
    }

    /// Whether one link of a rule matches, without what it would do then.
    pub(crate) fn try_link(&mut self, rules: &Arc<RuleSet>, index: usize, link: &Link) -> bool {
        let link = Link {
            setvars: Vec::new(),
            ctls: Vec::new(),
            init_collections: Vec::new(),
            expiries: Vec::new(),
            capture: false,
            ..link.clone()
        };
        self.link(rules, index, &rules.rules[index], &link, usize::MAX, false)
    }

    /// Whether the budget is used up.
    pub(super) fn is_late(&mut self) -> bool {
        self.late |= self.deadline.as_mut().is_some_and(|deadline| deadline.is_over(&*self.rules.clock));
        self.late
    }

    fn is_removed(&self, index: usize) -> bool {
        self.removed.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether all links of a rule match; their immediate actions are done on the way.
    fn evaluate(&mut self, rules: &Arc<RuleSet>, index: usize, rule: &Rule) -> bool {
        let mut names = std::mem::take(&mut self.scratch.names);
        let remembers = self.may_remember(rules, index, &mut names);
        let matched = if remembers && self.replay(rules, index, &names) {
            false
        } else {
            let matched = self.judge_rule(rules, index, rule);
            // What was not judged to its end is not what the rule does.
            if remembers && !matched && !self.late {
                self.remember_outcome(rules, index, &names);
            }
            matched
        };
        self.scratch.names = names;
        matched
    }

    fn judge_rule(&mut self, rules: &Arc<RuleSet>, index: usize, rule: &Rule) -> bool {
        self.current = index;
        self.matched_vars.clear();
        self.matched_range = None;
        for (n, link) in rule.links.iter().enumerate() {
            if !self.link(rules, index, rule, link, n, n + 1 == rule.links.len()) {
                return false;
            }
        }
        if rule.log {
            let record = self.record(rule);
            self.matches.push(record);
        }
        if let Some(severity) = rule.severity {
            self.highest_severity = self.highest_severity.min(severity);
        }
        true
    }

    fn link(&mut self, rules: &Arc<RuleSet>, index: usize, rule: &Rule, link: &Link, n: usize, last: bool) -> bool {
        if link.targets.is_empty() {
            self.link_actions(rules, link);
            return true;
        }
        let mut values = std::mem::take(&mut self.scratch.values);
        values.clear();
        for target in &link.targets {
            let from = values.len();
            if target.count && (!link.exclusions.is_empty() || self.leaves_out()) {
                // What is left out is not counted.
                let whole = crate::rule::Target { count: false, ..target.clone() };
                self.collect(&whole, &mut values);
                self.exclude(index, link, &mut values, from);
                self.count(target, from, &mut values);
            } else {
                self.collect(target, &mut values);
                self.exclude(index, link, &mut values, from);
            }
        }
        let filtered = n == 0 && rules.fast.as_ref().is_some_and(|f| f.filter.filtered[index]);
        if filtered {
            let mark = self.mark_candidates(index);
            values.retain(|v| self.scan.marks.get(v.id as usize) == Some(&mark));
        }
        let (mut any, mut unasked) = (false, 0);
        for value in &values {
            // One rule may look at as much as all the others.
            if unasked > UNASKED || self.late {
                unasked = 0;
                if self.is_late() {
                    break;
                }
            }
            unasked += VALUE + value.value.len as usize;
            if self.value(rules, rule, link, value, last) {
                any = true;
            }
        }
        self.scratch.values = values;
        any
    }

    pub(super) fn leaves_out(&self) -> bool {
        !self.removed_targets.is_empty() || !self.left_out.is_empty()
    }

    fn exclude(&self, index: usize, link: &Link, values: &mut Vec<Value>, from: usize) {
        if link.exclusions.is_empty() && !self.leaves_out() {
            return;
        }
        let mut kept = from;
        for i in from..values.len() {
            let value = values[i];
            let key = self.bytes(value.key);
            let static_out = link.exclusions.iter().any(|e| e.covers(value.var, key));
            let out = static_out
                || self.removed_targets.iter().any(|(rule, e)| *rule as usize == index && e.covers(value.var, key))
                || self
                    .left_out
                    .iter()
                    .any(|out| out.0.has(index) && out.0.variables.iter().any(|e| e.covers(value.var, key)));
            if !out {
                values[kept] = value;
                kept += 1;
            }
        }
        values.truncate(kept);
    }

    /// Judges one value; on a match the link's actions are done.
    fn value(&mut self, rules: &Arc<RuleSet>, rule: &Rule, link: &Link, value: &Value, last: bool) -> bool {
        // A count is compared as a number, without text.
        if let (Some(n), Operator::Number(comparison, argument)) = (value.number, &link.operator)
            && link.transforms.is_empty()
        {
            let right = match argument.literal() {
                Some(literal) => crate::text::atoi(literal),
                None => {
                    let mut buffer = std::mem::take(&mut self.scratch.argument);
                    buffer.clear();
                    self.expand(argument, &mut buffer);
                    let right = crate::text::atoi(&buffer);
                    self.scratch.argument = buffer;
                    right
                }
            };
            if comparison.holds(n, right) == link.negated {
                return false;
            }
            self.matched = *value;
            self.matched_range = None;
            self.matched_vars.push(*value);
            self.link_actions(rules, link);
            return true;
        }
        if link.transforms.is_empty() && value.number.is_none() {
            return self.judge(rules, rule, link, value, &[], Some(value.value), last);
        }
        let mut out = std::mem::take(&mut self.scratch.out);
        let mut spare = std::mem::take(&mut self.scratch.spare);
        out.clear();
        match value.number {
            Some(n) => push_number(&mut out, n),
            None => out.extend_from_slice(self.bytes(value.value)),
        }
        let mut matched = false;
        if link.multi_match {
            // Every stage that changes the value is judged, the raw one first.
            let raw = value.number.is_none().then_some(value.value);
            matched = self.judge(rules, rule, link, value, &out, raw, last);
            for transform in link.transforms.iter() {
                spare.clear();
                transform.apply(rules.unicode_map.as_deref(), &out, &mut spare);
                let changed = spare != out;
                std::mem::swap(&mut out, &mut spare);
                if changed && self.judge(rules, rule, link, value, &out, None, last) {
                    matched = true;
                }
            }
        } else {
            let input = std::mem::take(&mut out);
            let mut result = std::mem::take(&mut spare);
            let mut other = std::mem::take(&mut self.scratch.third);
            let map = rules.unicode_map.as_deref();
            let fast = rules.fast.as_ref();
            let skips = fast.is_some_and(|fast| fast.skips);
            if value.var == Var::RequestHeaders
                && input.len() <= LONGEST
                && link.transforms.iter().any(|one| matches!(one, Transform::Sha1 | Transform::Md5))
                && let Some(memory) = &mut self.scan.candidates.memory
            {
                let text = memory.digests.get(&link.transforms, &input, |out| {
                    apply_chain(&link.transforms, map, &input, out, &mut other, skips);
                });
                result.clear();
                result.extend_from_slice(text);
            } else {
                apply_chain(&link.transforms, map, &input, &mut result, &mut other, skips);
            }
            self.scratch.third = other;
            out = result;
            spare = input;
            matched |= self.judge(rules, rule, link, value, &out, None, last);
        }
        self.scratch.out = out;
        self.scratch.spare = spare;
        matched
    }

    /// Judges `text`, or the stored value `raw` where nothing was changed.
    #[allow(clippy::too_many_arguments, reason = "one call chain, hot; a struct would only rename the arguments")]
    fn judge(
        &mut self,
        rules: &Arc<RuleSet>,
        rule: &Rule,
        link: &Link,
        value: &Value,
        text: &[u8],
        raw: Option<Span>,
        last: bool,
    ) -> bool {
        let mut expanded = std::mem::take(&mut self.scratch.argument);
        let argument = match link.operator.argument() {
            None => &[][..],
            Some(wanted) => match wanted.literal() {
                Some(literal) => literal,
                None => {
                    expanded.clear();
                    self.expand(wanted, &mut expanded);
                    &expanded
                }
            },
        };
        let capture = link.capture || (last && rule.log);
        let result = match &link.operator {
            Operator::GeoLookup => {
                let address = raw.map_or(text, |r| self.bytes(r)).to_vec();
                Ok(self.geo_lookup(&address))
            }
            operator => {
                let time = self.deadline.as_mut().map(|deadline| (deadline, &*rules.clock));
                operator.matches(
                    raw.map_or(text, |r| self.store.get(r, &rules.constants)),
                    argument,
                    (&*rules.lookups, &mut Allowance::new(&mut self.steps, time)),
                    capture && !link.negated,
                    &mut self.scratch.found,
                )
            }
        };
        self.scratch.argument = expanded;
        let hit = match result {
            Ok(hit) => hit != link.negated,
            Err(_) => {
                // It asks for the time, too, and whoever walks through the rules says so.
                if !self.is_late() {
                    self.output().find(Finding::StepLimit { rule: rule.id });
                }
                false
            }
        };
        if !hit {
            return false;
        }
        let stored = raw.unwrap_or_else(|| self.store.push(text));
        self.matched = Value { value: stored, number: None, ..*value };
        self.matched_range = if link.negated { None } else { self.scratch.found.groups[0] };
        if link.capture && !link.negated {
            self.set_captures(stored);
        }
        self.matched_vars.push(self.matched);
        self.link_actions(rules, link);
        true
    }

    fn geo_lookup(&mut self, text: &[u8]) -> bool {
        let Some(address) = std::str::from_utf8(text).ok().and_then(|t| t.parse::<IpAddr>().ok()) else { return false };
        let Some(facts) = self.rules.lookups.geo(address) else { return false };
        self.store.lists[List::Geo as usize].clear();
        for (name, value) in facts {
            self.store.add_bytes(List::Geo, name.as_bytes(), value.as_bytes());
        }
        true
    }

    /// What a link does as soon as it matches.
    fn link_actions(&mut self, rules: &Arc<RuleSet>, link: &Link) {
        for (collection, key) in &link.init_collections {
            self.open_collection(*collection, key);
        }
        for action in &link.setvars {
            self.set_var(action);
        }
        for (collection, name, seconds) in &link.expiries {
            self.expire(*collection, name, seconds);
        }
        for ctl in &link.ctls {
            self.ctl(rules, ctl);
        }
    }

    fn ctl(&mut self, rules: &Arc<RuleSet>, ctl: &Ctl) {
        match ctl {
            Ctl::Engine(mode) => self.engine = *mode,
            Ctl::RequestBodyAccess(on) => self.request_body = *on,
            Ctl::ResponseBodyAccess(on) => self.response_body = *on,
            Ctl::Processor(processor) => self.processor = Some(*processor),
            Ctl::ForceRequestBody(on) => self.force_body = *on,
            Ctl::AuditEngine(mode) => self.audit = *mode,
            Ctl::RemoveRules(which) => {
                self.removed.resize(rules.rules.len().div_ceil(64), 0);
                for index in which.iter() {
                    self.removed[*index as usize / 64] |= 1 << (index % 64);
                }
            }
            Ctl::RemoveTargets(which, exclusion) => {
                self.removed_targets.extend(which.iter().map(|index| (*index, exclusion.clone())));
            }
            // Resolved when the rules were compiled.
            Ctl::Remove(_) | Ctl::RemoveTarget(..) | Ctl::Nothing => {}
        }
    }

    /// What a rule does once all its links matched. True: the phase is over.
    fn act(&mut self, rule: &Rule, phase: u8) -> bool {
        if self.engine == EngineMode::Off {
            return true;
        }
        let (outcome, location) = match &rule.disruption {
            Disruption::Pass | Disruption::Default => return false,
            Disruption::Allow(scope) => {
                if self.engine == EngineMode::DetectionOnly {
                    return false;
                }
                self.allowed = match scope {
                    Scope::Phase => self.allowed,
                    Scope::Request => Allowed::Request,
                    Scope::All => Allowed::All,
                };
                return true;
            }
            Disruption::Deny => (Outcome::Refuse, None),
            Disruption::Drop => (Outcome::Drop, None),
            Disruption::Redirect(to) => {
                let mut location = Vec::new();
                self.expand(to, &mut location);
                (Outcome::Redirect, Some(String::from_utf8_lossy(&location).into_owned()))
            }
        };
        let default = if outcome == Outcome::Redirect { 302 } else { 403 };
        let verdict = Verdict { rule: rule.id, status: rule.status.unwrap_or(default), outcome, location };
        if self.engine == EngineMode::DetectionOnly || phase == 5 {
            if self.detected.is_none() && phase != 5 {
                self.detected = Some(verdict);
            }
            return false;
        }
        self.verdict = Some(verdict);
        true
    }

    fn record(&mut self, rule: &Rule) -> Match {
        let matched = self.matched;
        let mut message = Vec::new();
        if let Some(text) = &rule.message {
            self.expand(text, &mut message);
        }
        let mut data = Vec::new();
        if let Some(text) = &rule.data {
            self.expand(text, &mut data);
        }
        let mut tags = Vec::new();
        for tag in &rule.tags {
            let mut text = Vec::new();
            self.expand(tag, &mut text);
            tags.push(text);
        }
        let target = self.name_of(&matched);
        let target = String::from_utf8_lossy(self.store.own(target)).into_owned();
        let text = self.matched_text();
        let span = self.matched_range;
        let value = if text.is_none() { &[][..] } else { self.bytes(text) };
        Match::new(rule, message, data, &tags, target, value, span)
    }
}
