//! Which rules may match which values.
//!
//! Each value of the request is looked at once, when the phase begins in which it is first seen. What comes out is a
//! list of candidates: pairs of rule and value. A rule that could be filtered and has no candidate is not evaluated at
//! all, one that has is evaluated on its candidates only. Candidates are a superset; the evaluator has the last word.

use std::collections::HashMap;

use super::chains::{Chains, Nodes, Texts};
use super::known::{LONGEST, TX_NAMES};
use super::mask;
use super::memory::Memory;
use super::needs::Needs;
use super::patterns::{Pattern, Set, parse};
use super::wake::{Bell, Judged, Wake};
use crate::expand::Macro;
use crate::libinjection;
use crate::operator::{Found, Operator};
use crate::rule::{Link, Rule, Select, Target};
use crate::ruleset::RuleSet;
use crate::settings::Steps;
use crate::store::List;
use crate::transform::{Transform, apply_chain};
use crate::variable::{Kind, Var};

/// What says of a hit that it is a condition ([`super::wake::Bell`]), not a rule.
pub(crate) const BELL: u32 = 1 << 31;

/// A set of kinds of values.
pub(crate) type Classes = u64;

/// Single values that are known before rules run.
const SCALARS: [Var; 12] = [
    Var::RequestUri,
    Var::RequestUriRaw,
    Var::RequestFilename,
    Var::RequestBasename,
    Var::RequestLine,
    Var::QueryString,
    Var::RequestMethod,
    Var::RequestProtocol,
    Var::RequestBody,
    Var::ResponseBody,
    Var::RemoteAddr,
    Var::ResponseStatus,
];
/// Classes of single values begin here; lists have two each (values, names) below.
const SCALAR_BASE: usize = 2 * List::COUNT;
/// Classes of headers that rules name begin here.
const HEADER_BASE: usize = SCALAR_BASE + SCALARS.len();

/// What requests are full of.
const ORDINARY: [&[u8]; 10] = [
    b"GET",
    b"HTTP/1.1",
    b"/api/items?page=2&q=garden+chairs",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"gzip, deflate",
    b"en-US,en;q=0.5",
    b"application/json",
    b"api.example.com",
    b"1024",
    b"keep-alive",
];

/// A rule that a pattern or a gate stands for.
#[derive(Debug, Clone, Copy)]
struct Entry {
    rule: u32,
    /// Chains after which it looks at the value.
    nodes: Nodes,
    classes: Classes,
}

/// What the patterns need that look at a class.
#[derive(Debug, Default, Clone)]
struct Gates {
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
    fn are_open(&self, nodes: Nodes, mask: u64) -> bool {
        self.any & mask != 0 && self.each.iter().any(|(needs, of)| needs.are_met(mask) && of & nodes != 0)
    }
}

/// Rules over classes that have most rules in common share one set of patterns.
#[derive(Debug)]
struct Group {
    chains: Chains,
    /// Nodes (with prefixes) that rules of a class need.
    wanted: [Nodes; 64],
    /// Triggers of those, by class.
    triggers: [u64; 64],
    /// By class: what a text needs to be scanned for patterns, and for words.
    gates: Vec<[Gates; 2]>,
    full: Set,
    plain: Set,
    /// By pattern.
    entries: Vec<Vec<Entry>>,
    sqli: Vec<Entry>,
    xss: Vec<Entry>,
    /// `@validateByteRange`: kinds of bytes that are not allowed.
    ranges: Vec<(u64, Entry)>,
}

/// The compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    groups: Vec<Group>,
    /// Group of each class; `u8::MAX`: no rule looks at it.
    group_of: [u8; 64],
    /// Names of headers with a class of their own, in lower case.
    headers: Vec<Box<[u8]>>,
    /// Which of them have a length, as bits.
    of_length: [u32; 32],
    /// Rules that are evaluated only on candidates.
    pub(crate) filtered: Vec<bool>,
    /// Classes whose values come again with other requests.
    again: Classes,
    steps: Steps,
}

/// Candidates of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// By rule: where its list begins in `links`, plus one.
    heads: Vec<u32>,
    touched: Vec<u32>,
    /// Value and the next link, plus one.
    links: Vec<(u32, u32)>,
    texts: Texts,
    /// What the thread keeps, while a phase is evaluated.
    pub(crate) memory: Option<Box<Memory>>,
    /// Rules of the value at hand.
    found: Vec<u32>,
    judging: Judging,
}

/// Buffers for links that are judged by themselves.
#[derive(Debug, Default)]
struct Judging {
    text: Vec<u8>,
    other: Vec<u8>,
    found: Found,
}

impl Candidates {
    pub(crate) fn clear(&mut self, rules: usize) {
        for rule in self.touched.drain(..) {
            if let Some(head) = self.heads.get_mut(rule as usize) {
                *head = 0;
            }
        }
        self.heads.resize(rules, 0);
        self.links.clear();
    }

    /// Calls `hit` with what a new variable of `TX` meets, which is kept from one transaction to the next: such names are
    /// made of the names of headers.
    pub(crate) fn bells_of_name(&mut self, wake: &Wake, name: &[u8], mut hit: impl FnMut(Bell)) {
        if wake.has_no_names() {
            return;
        }
        let Some(known) = self.memory.as_mut().map(|memory| &mut memory.known).filter(|_| name.len() <= LONGEST) else {
            return wake.of_name(name).for_each(|bell| hit(*bell));
        };
        let hash = known.hash(TX_NAMES, name);
        if known.get(hash, TX_NAMES, name).is_none() {
            self.found.clear();
            self.found.extend(wake.of_name(name).map(|bell| bell.code()));
            known.put(hash, TX_NAMES, name, &self.found);
        }
        for code in known.get(hash, TX_NAMES, name).unwrap_or_default() {
            hit(Bell::of_code(*code));
        }
    }

    fn add(&mut self, rule: u32, value: u32) -> bool {
        let Some(head) = self.heads.get_mut(rule as usize) else { return false };
        if *head != 0 && self.links[*head as usize - 1].0 == value {
            return false;
        }
        if *head == 0 {
            self.touched.push(rule);
        }
        self.links.push((value, *head));
        *head = self.links.len() as u32;
        true
    }

    /// The candidate values of a rule.
    pub(crate) fn of(&self, rule: usize) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.heads.get(rule).copied().unwrap_or(0);
        std::iter::from_fn(move || {
            let (value, next) = *self.links.get((at as usize).checked_sub(1)?)?;
            at = next;
            Some(value)
        })
    }
}

impl Group {
    /// Whether anything may be found in a value whose texts have no more kinds of bytes than these.
    fn may_hit(&self, class: usize, mask: u64) -> bool {
        let concerns = |entry: &Entry| entry.classes >> class & 1 == 1;
        self.sqli.iter().any(concerns)
            || libinjection::may_be_xss(mask) && self.xss.iter().any(concerns)
            || self.ranges.iter().any(|(bad, entry)| bad & mask != 0 && concerns(entry))
            || self.gates[class].iter().any(|gates| gates.are_open(Nodes::MAX, mask))
    }
}

impl Filter {
    /// Compiles the filter for the rules in `live`.
    pub(crate) fn new(rules: &[Rule], live: impl Iterator<Item = u32> + Clone, steps: Steps) -> Result<Filter, String> {
        let mut filter = Filter {
            groups: Vec::new(),
            group_of: [u8::MAX; 64],
            headers: Vec::new(),
            of_length: [0; 32],
            filtered: vec![false; rules.len()],
            again: 0,
            steps,
        };
        if !steps.filter {
            return Ok(filter);
        }
        // Those that first links ask for are the most wanted.
        for first in [true, false] {
            let (skip, take) = if first { (0, 1) } else { (1, usize::MAX) };
            let links = live.clone().flat_map(|index| rules[index as usize].links.iter().skip(skip).take(take));
            for target in links.flat_map(|link| &link.targets) {
                if let (Var::RequestHeaders, Select::Key(key)) = (target.var, &target.select)
                    && !filter.headers.contains(key)
                    && HEADER_BASE + filter.headers.len() < 64
                {
                    filter.headers.push(key.clone());
                }
            }
        }
        for (i, header) in filter.headers.iter().enumerate() {
            filter.of_length[header.len() % 32] |= 1 << i;
        }
        let mut classes_of: HashMap<u32, Classes> = HashMap::new();
        for index in live {
            let link = &rules[index as usize].links[0];
            if let Some(classes) = filter.rule_classes(link) {
                classes_of.insert(index, classes);
            }
        }
        // What is like an argument, what else comes with a request, what comes back.
        let arguments: Classes = [List::ArgsGet, List::ArgsPost, List::Cookies, List::XmlText, List::XmlAttributes]
            .iter()
            .fold(0, |c, l| c | 3 << (2 * *l as usize))
            | filter.scalar_class(Var::RequestBody).unwrap_or(0)
            | filter.header_class(b"user-agent").unwrap_or(0)
            | filter.header_class(b"referer").unwrap_or(0);
        let response: Classes = 3 << (2 * List::ResponseHeaders as usize)
            | filter.scalar_class(Var::ResponseBody).unwrap_or(0)
            | filter.scalar_class(Var::ResponseStatus).unwrap_or(0);
        let mut unfiltered = Vec::new();
        for members in [arguments, !(arguments | response), response] {
            let group = filter.group(rules, &classes_of, members, &mut unfiltered)?;
            let number = filter.groups.len() as u8;
            let used =
                classes_of.iter().filter(|(r, _)| !unfiltered.contains(r)).fold(0, |all, (_, c)| all | c) & members;
            for class in 0..64 {
                if used >> class & 1 == 1 {
                    filter.group_of[class] = number;
                }
            }
            filter.groups.push(group);
        }
        let again = [Var::RequestMethod, Var::RequestProtocol, Var::RemoteAddr, Var::ResponseStatus];
        let again = again.into_iter().filter_map(|var| filter.scalar_class(var));
        let lists = [List::Headers, List::ResponseHeaders].iter().fold(0, |c, l| c | 3 << (2 * *l as usize));
        let names = [List::ArgsGet, List::ArgsPost, List::Cookies].iter().fold(0, |c, l| c | 2 << (2 * *l as usize));
        let headers = (0..filter.headers.len()).fold(0, |c, i| c | 1 << (HEADER_BASE + i));
        filter.again = if steps.known { again.fold(lists | names | headers, |all, class| all | class) } else { 0 };
        for rule in classes_of.keys().filter(|r| !unfiltered.contains(r)) {
            filter.filtered[*rule as usize] = true;
        }
        Ok(filter)
    }

    fn header_class(&self, name: &[u8]) -> Option<Classes> {
        self.headers.iter().position(|h| h.eq_ignore_ascii_case(name)).map(|i| 1 << (HEADER_BASE + i))
    }

    fn scalar_class(&self, var: Var) -> Option<Classes> {
        SCALARS.iter().position(|s| *s == var).map(|i| 1 << (SCALAR_BASE + i))
    }

    /// The classes that a rule's first link looks at; `None` if the rule cannot be filtered.
    fn rule_classes(&self, link: &Link) -> Option<Classes> {
        if link.negated || link.targets.is_empty() {
            return None;
        }
        match &link.operator {
            Operator::Rx(regex) if regex.is_linear() && !parse(&regex.translated).ok()?.matches_empty() => {}
            Operator::Phrases(_) | Operator::DetectSqli | Operator::DetectXss | Operator::ByteRange(_) => {}
            _ => return None,
        }
        let classes =
            link.targets.iter().try_fold(0, |classes, target| Some(classes | self.target_classes(target)?))?;
        // A pattern that ordinary values match, on a few values only, is cheaper asked directly.
        let lists: Classes = (1 << SCALAR_BASE) - 1;
        if let Operator::Rx(regex) = &link.operator
            && classes & lists == 0
            && ORDINARY.iter().any(|v| regex.is_match(v).unwrap_or(true))
        {
            return None;
        }
        Some(classes)
    }

    /// The class of a target that is one value, or the values of one header.
    pub(crate) fn single_class(&self, target: &Target) -> Option<Classes> {
        match (target.var, &target.select) {
            _ if target.count => None,
            (Var::RequestHeaders, Select::Key(key)) => self.header_class(key),
            (var, _) if var.kind() == Kind::Scalar => self.scalar_class(var),
            _ => None,
        }
    }

    /// Whether anything is kept from one transaction to the next.
    pub(crate) fn keeps(&self) -> bool {
        self.steps.known
    }

    /// Whether all values of some classes come again with other requests, and what is said of them is kept.
    pub(crate) fn comes_again(&self, classes: Classes) -> bool {
        classes & !self.again == 0
    }

    pub(crate) fn target_classes(&self, target: &Target) -> Option<Classes> {
        if target.count {
            return None;
        }
        let values = |list: List| 1u64 << (2 * list as usize);
        match target.var.kind() {
            Kind::Collection | Kind::Names => {
                if target.var == Var::Geo {
                    return None;
                }
                if target.var == Var::RequestHeaders {
                    let all = (0..self.headers.len()).fold(values(List::Headers), |c, i| c | 1 << (HEADER_BASE + i));
                    return match &target.select {
                        Select::Key(key) => self.header_class(key),
                        _ => Some(all),
                    };
                }
                let names = u32::from(target.var.kind() == Kind::Names);
                Some(crate::transaction::lists(target.var).iter().fold(0, |c, l| c | values(*l) << names))
            }
            Kind::Xml if matches!(target.select, Select::XmlAttributes) => Some(values(List::XmlAttributes)),
            Kind::Xml => Some(values(List::XmlText)),
            Kind::Scalar => self.scalar_class(target.var),
            _ => None,
        }
    }

    fn group(
        &self,
        rules: &[Rule],
        classes_of: &HashMap<u32, Classes>,
        members: Classes,
        unfiltered: &mut Vec<u32>,
    ) -> Result<Group, String> {
        let mut group = Group {
            chains: Chains::new(self.steps),
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
            if link.transforms.contains(&Transform::Base64Decode) {
                let least = match &pattern {
                    Pattern::Regex(source) => parse(source)?.minimum(),
                    Pattern::Words(words) => words.iter().map(Vec::len).min().unwrap_or(0),
                };
                // What is decoded may grow again afterwards.
                let grows = link.transforms.contains(&Transform::Utf8ToUnicode);
                let least = if grows { 1 } else { least.saturating_mul(8) / 6 };
                group.chains.base64 = group.chains.base64.min(least).max(1);
            }
            let number = *numbers.entry(pattern.clone()).or_insert_with(|| {
                patterns.push(pattern);
                group.entries.push(Vec::new());
                patterns.len() - 1
            });
            group.entries[number].push(entry);
        }
        for (pattern, entries) in patterns.iter().zip(&group.entries) {
            let needs = if self.steps.needs { Needs::of(pattern)? } else { Needs::NOTHING };
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

    /// The class of a header's value.
    pub(crate) fn header_value_class(&self, name: &[u8]) -> usize {
        let mut left = self.of_length[name.len() % 32];
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            if self.headers[i].eq_ignore_ascii_case(name) {
                return HEADER_BASE + i;
            }
            left &= left - 1;
        }
        2 * List::Headers as usize
    }

    /// Single values with their classes.
    pub(crate) fn scalars() -> impl Iterator<Item = (Var, usize)> {
        SCALARS.iter().enumerate().map(|(i, v)| (*v, SCALAR_BASE + i))
    }

    /// Whether a single value is absent, not empty, without a body.
    pub(crate) fn is_body(&self, var: Var) -> bool {
        matches!(var, Var::RequestBody | Var::ResponseBody)
    }

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
        group.chains.texts((group.wanted[class], triggers), map, (value, raw_mask), &mut texts);
        for (i, text) in texts.list.iter().enumerate() {
            let bytes = texts.get(i, value);
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
        let matched = link.operator.matches(value, argument, &*rules.lookups, false, found);
        // Whoever evaluates the rule notes that a step limit was reached.
        matched.map_or(true, |matched| matched != link.negated)
    }

    /// Bytes on the heap, without lazy caches.
    pub(crate) fn memory(&self) -> usize {
        self.groups.iter().map(|g| g.full.memory() + g.plain.memory()).sum()
    }
}
