//! Patterns over values of the same kind, compiled together.

use std::collections::HashMap;

use super::chains::{Chains, Nodes};
use super::filter::Classes;
use super::mask;
use super::needs::Needs;
use super::patterns::{Pattern, Set, parse};
use crate::libinjection;
use crate::operator::Operator;
use crate::rule::Rule;
use crate::settings::Steps;
use crate::transform::Transform;

/// A rule that a pattern or a gate stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) rule: u32,
    /// Chains after which it looks at the value.
    pub(super) nodes: Nodes,
    pub(super) classes: Classes,
}

/// What the patterns need that look at a class.
#[derive(Debug, Default, Clone)]
pub(super) struct Gates {
    /// Any of the rarest needs of any pattern.
    any: u64,
    /// The needs, with the chains after which their patterns look; what is met most often first.
    each: Vec<(Needs, Nodes)>,
}

impl Gates {
    fn add(&mut self, needs: Needs, nodes: Nodes) {
        self.any |= needs.rarest();
        match self.each.iter_mut().find(|(known, _)| *known == needs) {
            Some((_, known)) => *known |= nodes,
            None => self.each.push((needs, nodes)),
        }
        self.each.sort_by_key(|(needs, _)| std::cmp::Reverse(needs.weight()));
    }

    /// Whether a text with these kinds of bytes may match one of the patterns.
    pub(super) fn are_open(&self, nodes: Nodes, mask: u64) -> bool {
        self.any & mask != 0 && self.each.iter().any(|(needs, of)| needs.are_met(mask) && of & nodes != 0)
    }
}

/// Rules over classes that have most rules in common share one set of patterns.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) chains: Chains,
    /// Nodes (with prefixes) that rules of a class need.
    pub(super) wanted: [Nodes; 64],
    /// Triggers of those, by class.
    pub(super) triggers: [u64; 64],
    /// By class: what a text needs to be scanned for patterns, and for words.
    pub(super) gates: Vec<[Gates; 2]>,
    pub(super) full: Set,
    pub(super) plain: Set,
    /// By pattern.
    pub(super) entries: Vec<Vec<Entry>>,
    pub(super) sqli: Vec<Entry>,
    pub(super) xss: Vec<Entry>,
    /// `@validateByteRange`: kinds of bytes that are not allowed.
    pub(super) ranges: Vec<(u64, Entry)>,
}

impl Group {
    /// Compiles what rules ask of the classes in `members`; `unfiltered` gets the rules that do not fit.
    pub(super) fn new(
        rules: &[Rule],
        classes_of: &HashMap<u32, Classes>,
        members: Classes,
        unfiltered: &mut Vec<u32>,
        steps: Steps,
    ) -> Result<Group, String> {
        let mut group = Group {
            chains: Chains::new(steps),
            wanted: [1; 64],
            triggers: [0; 64],
            gates: vec![Default::default(); 64],
            full: Set::new(&[], false)?,
            plain: Set::new(&[], true)?,
            entries: Vec::new(),
            sqli: Vec::new(),
            xss: Vec::new(),
            ranges: Vec::new(),
        };
        let mut patterns: Vec<Pattern> = Vec::new();
        let mut numbers: HashMap<Pattern, usize> = HashMap::new();
        let mut order: Vec<(&u32, &Classes)> =
            classes_of.iter().filter(|(r, c)| **c & members != 0 && !unfiltered.contains(r)).collect();
        order.sort();
        for (&index, &classes) in order {
            let link = &rules[index as usize].links[0];
            // Results of these are of their own length and alphabet: nothing would ever be plain.
            let odd = link.transforms.iter().any(|t| mask::trigger(*t) == mask::ALWAYS);
            let path = if odd { None } else { group.chains.add(&link.transforms) };
            let Some(path) = path else {
                unfiltered.push(index);
                continue;
            };
            let last = path.last().copied().unwrap_or(0);
            let nodes: Nodes = if link.multi_match { Chains::closure(&path) } else { 1 << last };
            let entry = Entry { rule: index, nodes, classes };
            for class in 0..64 {
                if (classes & members) >> class & 1 == 1 {
                    group.wanted[class] |= Chains::closure(&path);
                }
            }
            if link.transforms.contains(&Transform::Base64Decode) {
                let least = match &link.operator {
                    Operator::Rx(regex) => parse(&regex.translated)?.minimum(),
                    Operator::Phrases(phrases) => phrases.words.iter().map(Vec::len).min().unwrap_or(0),
                    // The others may find something in a single byte.
                    _ => 0,
                };
                // What is decoded may grow again afterwards.
                let grows = link.transforms.contains(&Transform::Utf8ToUnicode);
                let least = if grows { 1 } else { least.saturating_mul(8) / 6 };
                group.chains.base64 = group.chains.base64.min(least).max(1);
            }
            let pattern = match &link.operator {
                Operator::Rx(regex) => Pattern::Regex(regex.translated.clone()),
                Operator::Phrases(phrases) => Pattern::Words(phrases.words.clone()),
                Operator::DetectSqli => {
                    group.sqli.push(entry);
                    continue;
                }
                Operator::DetectXss => {
                    group.xss.push(entry);
                    continue;
                }
                Operator::ByteRange(allowed) => {
                    let bad = (0..=255u8).filter(|b| !allowed.has(*b)).fold(0, |m, b| m | mask::class(b));
                    group.ranges.push((bad, entry));
                    continue;
                }
                _ => continue,
            };
            let number = *numbers.entry(pattern.clone()).or_insert_with(|| {
                patterns.push(pattern);
                group.entries.push(Vec::new());
                patterns.len() - 1
            });
            group.entries[number].push(entry);
        }
        for (pattern, entries) in patterns.iter().zip(&group.entries) {
            let needs = if steps.needs { Needs::of(pattern)? } else { Needs::NOTHING };
            let kind = usize::from(matches!(pattern, Pattern::Words(_)));
            for (class, gates) in group.gates.iter_mut().enumerate() {
                let of_class = entries.iter().filter(|entry| entry.classes >> class & 1 == 1);
                let nodes = of_class.fold(0, |nodes, entry| nodes | entry.nodes);
                if nodes != 0 {
                    gates[kind].add(needs, nodes);
                }
            }
        }
        group.chains.finish();
        group.triggers = group.wanted.map(|wanted| group.chains.triggers(wanted));
        group.full = Set::new(&patterns, false)?;
        group.plain = Set::new(&patterns, true)?;
        Ok(group)
    }

    /// Whether anything may be found in a value whose texts have no more kinds of bytes than these.
    pub(super) fn may_hit(&self, class: usize, mask: u64) -> bool {
        let concerns = |entry: &Entry| entry.classes >> class & 1 == 1;
        self.sqli.iter().any(concerns)
            || libinjection::may_be_xss(mask) && self.xss.iter().any(concerns)
            || self.ranges.iter().any(|(bad, entry)| bad & mask != 0 && concerns(entry))
            || self.gates[class].iter().any(|gates| gates.are_open(Nodes::MAX, mask))
    }
}
