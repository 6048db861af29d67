//! Looking at one value: what is known of it, what it becomes, what is found in that.

use super::candidates::{Candidates, Judging};
use super::chains::{LONG, Nodes};
use super::filter::{BELL, Classes, Filter};
use super::group::{Entry, Group};
use super::known::LONGEST;
use super::mask;
use super::wake::Judged;
use crate::expand::Macro;
use crate::libinjection;
use crate::regex::Allowance;
use crate::rule::Link;
use crate::ruleset::RuleSet;
use crate::transform::apply_chain;

impl Filter {
    /// Looks at one value; calls `hit` with each rule that has its first candidate or another one, and with the
    /// conditions that are met ([`BELL`]).
    pub(crate) fn look(
        &self,
        class: usize,
        id: u32,
        value: &[u8],
        (rules, judged): (&RuleSet, &[Judged]),
        out: &mut Candidates,
        mut hit: impl FnMut(u32),
    ) {
        let group = self.group_of.get(class).and_then(|g| self.groups.get(usize::from(*g)));
        let group = group.filter(|_| !value.is_empty());
        if group.is_none() && judged.is_empty() {
            return;
        }
        if value.len() > LONGEST || self.again >> class & 1 == 0 {
            return self.scan(group, class, id, value, (rules, judged), out, hit);
        }
        let Some(mut memory) = out.memory.take() else {
            return self.scan(group, class, id, value, (rules, judged), out, hit);
        };
        let hash = memory.known.hash(class, value);
        match memory.known.get(hash, class, value) {
            Some(found) => {
                for &found in found {
                    if found & BELL != 0 || out.add(found, id) {
                        hit(found);
                    }
                }
            }
            None => {
                let mut found = std::mem::take(&mut out.found);
                found.clear();
                self.scan(group, class, id, value, (rules, judged), out, |what| {
                    found.push(what);
                    hit(what);
                });
                memory.known.put(hash, class, value, &found);
                out.found = found;
            }
        }
        out.memory = Some(memory);
    }

    /// Looks at a value of which nothing is known.
    #[allow(clippy::too_many_arguments, reason = "the second half of one function")]
    fn scan(
        &self,
        group: Option<&Group>,
        class: usize,
        id: u32,
        value: &[u8],
        (rules, judged): (&RuleSet, &[Judged]),
        out: &mut Candidates,
        mut mark: impl FnMut(u32),
    ) {
        let map = rules.unicode_map.as_deref();
        for one in judged {
            if self.judge(&rules.rules[one.rule as usize].links[usize::from(one.link)], rules, value, out) {
                mark(one.bell.code() | BELL);
            }
        }
        let Some(group) = group else { return };
        let raw_mask = mask::mask(value, group.chains.base64);
        let triggers = group.triggers[class];
        if raw_mask & triggers == 0 {
            return self.text(group, class, (id, value), (raw_mask, Nodes::MAX), out, &mut mark);
        }
        if self.steps.needs && !group.may_hit(class, mask::after(raw_mask, triggers)) {
            return;
        }
        let mut texts = std::mem::take(&mut out.texts);
        let wanted = (group.wanted[class], triggers);
        group.chains.texts(wanted, map, (value, raw_mask), &mut texts, || out.cuts(&*rules.clock));
        for (i, text) in texts.list.iter().enumerate() {
            let bytes = texts.get(i, value);
            if bytes.len() > LONG && out.cuts(&*rules.clock) {
                break;
            }
            if !bytes.is_empty() && text.nodes != 0 {
                self.text(group, class, (id, bytes), (text.mask, text.nodes), out, &mut mark);
            }
        }
        out.texts = texts;
    }

    /// Looks at one of the texts that a value becomes.
    fn text(
        &self,
        group: &Group,
        class: usize,
        (id, bytes): (u32, &[u8]),
        (mask, nodes): (u64, Nodes),
        out: &mut Candidates,
        mark: &mut impl FnMut(u32),
    ) {
        let bit: Classes = 1 << class;
        let concerns = |e: &Entry| e.classes & bit != 0 && e.nodes & nodes != 0;
        let [patterns, words] = &group.gates[class];
        let (patterns, words) = (patterns.are_open(nodes, mask), words.are_open(nodes, mask));
        if patterns || words {
            let set = if mask & !mask::PLAIN == 0 && self.steps.plain { &group.plain } else { &group.full };
            set.scan(bytes, patterns, words, |pattern| {
                for entry in group.entries[usize::from(pattern)].iter().filter(|e| concerns(e)) {
                    if out.add(entry.rule, id) {
                        mark(entry.rule);
                    }
                }
            });
        }
        for (_, entry) in group.ranges.iter().filter(|(bad, e)| bad & mask != 0 && concerns(e)) {
            if out.add(entry.rule, id) {
                mark(entry.rule);
            }
        }
        let gates = self.steps.gates;
        if group.xss.iter().any(concerns) && (!gates || libinjection::may_be_xss(mask)) && libinjection::xss(bytes) {
            for entry in group.xss.iter().filter(|e| concerns(e)) {
                if out.add(entry.rule, id) {
                    mark(entry.rule);
                }
            }
        }
        // This is the text that the rule would see, so the question can be answered here and now.
        if group.sqli.iter().any(concerns)
            && (!gates || libinjection::may_be_sqli(bytes, mask))
            && libinjection::sqli(bytes).is_some()
        {
            for entry in group.sqli.iter().filter(|e| concerns(e)) {
                if out.add(entry.rule, id) {
                    mark(entry.rule);
                }
            }
        }
    }

    /// Whether a link matches a value.
    fn judge(&self, link: &Link, rules: &RuleSet, value: &[u8], out: &mut Candidates) -> bool {
        let Judging { text, other, found } = &mut out.judging;
        let value = if link.transforms.is_empty() {
            value
        } else {
            let map = rules.unicode_map.as_deref();
            apply_chain(&link.transforms, map, value, text, other, self.steps.triggers);
            text
        };
        let argument = link.operator.argument().and_then(Macro::literal).unwrap_or_default();
        // A link that is judged by itself is linear, and needs none.
        let mut none = 0;
        let around = (&*rules.lookups, &mut Allowance::new(&mut none, None));
        let matched = link.operator.matches(value, argument, around, false, found);
        // Whoever evaluates the rule notes that a step limit was reached.
        matched != Ok(link.negated)
    }
}
