//! Which rules may match which values.
//!
//! Each value of the request is looked at once, when the phase begins in which it is first seen. What comes out is a
//! list of candidates: pairs of rule and value. A rule that could be filtered and has no candidate is not evaluated at
//! all, one that has is evaluated on its candidates only. Candidates are a superset; the evaluator has the last word.

use std::collections::HashMap;

use super::group::Group;
use super::patterns::parse;
use crate::operator::Operator;
use crate::rule::{Link, Rule, Select, Target};
use crate::settings::Steps;
use crate::store::List;
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

/// The compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(super) groups: Vec<Group>,
    /// Group of each class; `u8::MAX`: no rule looks at it.
    pub(super) group_of: [u8; 64],
    /// Names of headers with a class of their own, in lower case.
    headers: Vec<Box<[u8]>>,
    /// Which of them have a length, as bits.
    of_length: [u32; 32],
    /// Rules that are evaluated only on candidates.
    pub(crate) filtered: Vec<bool>,
    /// Classes whose values come again with other requests.
    pub(super) again: Classes,
    pub(super) steps: Steps,
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
        // What is like an argument, what is long and looked at by few, what else comes with a request, what comes back.
        let arguments: Classes = [List::ArgsGet, List::ArgsPost, List::Cookies, List::XmlText]
            .iter()
            .fold(0, |c, l| c | 3 << (2 * *l as usize))
            | filter.header_class(b"user-agent").unwrap_or(0)
            | filter.header_class(b"referer").unwrap_or(0);
        let response: Classes = 3 << (2 * List::ResponseHeaders as usize)
            | filter.scalar_class(Var::ResponseBody).unwrap_or(0)
            | filter.scalar_class(Var::ResponseStatus).unwrap_or(0);
        let bodies: Classes =
            3 << (2 * List::XmlAttributes as usize) | filter.scalar_class(Var::RequestBody).unwrap_or(0);
        let mut unfiltered = Vec::new();
        for members in [arguments, bodies, !(arguments | bodies | response), response] {
            let group = Group::new(rules, &classes_of, members, &mut unfiltered, steps)?;
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
            // One that is not linear has a pattern that is, and that matches wherever it does.
            Operator::Rx(regex) if !parse(&regex.translated).ok()?.matches_empty() => {}
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

    /// Bytes on the heap, without lazy caches.
    pub(crate) fn memory(&self) -> usize {
        self.groups.iter().map(|g| g.full.memory() + g.plain.memory()).sum()
    }
}
