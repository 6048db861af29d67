//! From the words of `SecRule` and `SecAction` to a [`Rule`], and what applies to all rules at the end.

use std::path::Path;
use std::sync::Arc;

use super::actions::{Action, actions};
use super::directives::{audit_mode, engine_mode, id_ranges, which_pattern};
use super::{Builder, PendingChain, exclusion, targets};
use crate::expand::Macro;
use crate::names::TxNames;
use crate::operator::Operator;
use crate::problem::{Place, did_you_mean};
use crate::rule::{Change, Ctl, Disruption, Link, Name, Processor, Rule, Scope, SetVar, Skip, Which};
use crate::transform::Transform;
use crate::variable::{Kind, Var};

type Wrong = (String, String);

/// Actions that change nothing about what a rule finds or does, and that this engine does not have, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("sanitiseArg", "the gateway's log hides secrets by their names"),
    ("sanitiseMatched", "the gateway's log hides secrets by their names"),
    ("sanitiseMatchedBytes", "the gateway's log hides secrets by their names"),
    ("sanitiseRequestHeader", "the gateway's log hides secrets by their names"),
    ("sanitiseResponseHeader", "the gateway's log hides secrets by their names"),
    ("deprecatevar", "variables last until they expire; `expirevar` says when"),
];

const KNOWN_ACTIONS: &[&str] = &[
    "id",
    "phase",
    "pass",
    "block",
    "deny",
    "drop",
    "allow",
    "redirect",
    "status",
    "log",
    "nolog",
    "auditlog",
    "noauditlog",
    "msg",
    "logdata",
    "tag",
    "ver",
    "rev",
    "severity",
    "t",
    "setvar",
    "expirevar",
    "initcol",
    "ctl",
    "chain",
    "skip",
    "skipAfter",
    "capture",
    "multiMatch",
    "maturity",
    "accuracy",
];

/// `1` to `5`, or the phase's name.
pub(super) fn phase(text: &str) -> Option<u8> {
    match text.to_ascii_lowercase().as_str() {
        "request" => Some(2),
        "response" => Some(4),
        "logging" => Some(5),
        text => text.parse().ok().filter(|p| (1..=5).contains(p)),
    }
}

pub(super) fn status(text: &str) -> Result<u16, Wrong> {
    text.parse()
        .ok()
        .filter(|s| (100..600).contains(s))
        .ok_or_else(|| (format!("`{text}` is not a status"), "write a number from 100 to 599".into()))
}

pub(super) fn transform(text: &str, chain: &mut Vec<Transform>) -> Result<(), Wrong> {
    if text.eq_ignore_ascii_case("none") {
        chain.clear();
        return Ok(());
    }
    let found = Transform::find(text).ok_or_else(|| {
        (format!("unknown transformation `{text}`"), did_you_mean(text, Transform::NAMES.iter().copied()))
    })?;
    chain.push(found);
    Ok(())
}

pub(super) fn disruption(name: &str, value: &str, names: &mut TxNames) -> Result<Option<Disruption>, Wrong> {
    Ok(Some(match name {
        "pass" => Disruption::Pass,
        "block" => Disruption::Default,
        "deny" => Disruption::Deny,
        "drop" => Disruption::Drop,
        "allow" => Disruption::Allow(match value {
            "" => Scope::All,
            "phase" => Scope::Phase,
            "request" => Scope::Request,
            other => {
                return Err((
                    format!("`allow:{other}` is not known"),
                    "write `allow`, `allow:phase` or `allow:request`".into(),
                ));
            }
        }),
        "redirect" => Disruption::Redirect(macro_of(value, names)?),
        "proxy" | "pause" | "exec" | "append" | "prepend" | "setenv" | "setsid" | "setuid" | "setrsc" | "xmlns"
        | "sanitise" => {
            return Err((
                format!("the action `{name}` is not supported"),
                "remove it; the gateway has controls of its own for this".into(),
            ));
        }
        _ => return Ok(None),
    }))
}

pub(super) fn severity(text: &str) -> Result<u8, Wrong> {
    const NAMES: [&str; 8] = ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];
    if let Ok(n @ 0..=7) = text.parse::<u8>() {
        return Ok(n);
    }
    NAMES
        .iter()
        .position(|n| n.eq_ignore_ascii_case(text))
        .map(|n| n as u8)
        .ok_or_else(|| (format!("`{text}` is not a severity"), did_you_mean(text, NAMES.into_iter())))
}

pub(super) fn macro_of(text: &str, names: &mut TxNames) -> Result<Macro, Wrong> {
    let mut parsed = Macro::parse(text).map_err(|e| (e, "macros look like `%{tx.name}`".to_owned()))?;
    parsed.intern(names);
    Ok(parsed)
}

/// `tx.name` or `ip.name`.
fn writable(text: &str) -> Result<(Var, &str), Wrong> {
    let wrong =
        || (format!("`{text}` cannot be written"), "write `tx.name`, or a collection such as `ip.name`".to_owned());
    let (collection, name) = text.split_once(['.', ':']).ok_or_else(wrong)?;
    let var = Var::find(collection.trim()).filter(|v| v.kind() == Kind::Writable).ok_or_else(wrong)?;
    Ok((var, name))
}

fn set_var(text: &str, names: &mut TxNames) -> Result<SetVar, Wrong> {
    let text = text.trim();
    let (unset, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    // The name may hold macros, whose text may hold `=`; none in use does.
    let (target, value) = match text.split_once('=') {
        Some((target, value)) => (target.trim(), Some(value)),
        None => (text, None),
    };
    let (collection, name) = writable(target)?;
    let mut parsed = macro_of(name, names)?;
    let name = match parsed.literal() {
        Some(literal) if collection == Var::Tx => Name::Slot(names.slot(&String::from_utf8_lossy(literal))),
        _ => Name::Text(std::mem::take(&mut parsed)),
    };
    let change = match value {
        _ if unset => Change::Unset,
        None => Change::Set(macro_of("1", names)?),
        Some(value) => {
            let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
            if let Some(amount) = value.strip_prefix('+') {
                Change::Add(macro_of(amount, names)?)
            } else if let Some(amount) =
                value.strip_prefix('-').filter(|a| a.starts_with("%{") || a.bytes().all(|b| b.is_ascii_digit()))
            {
                Change::Subtract(macro_of(amount, names)?)
            } else {
                Change::Set(macro_of(value, names)?)
            }
        }
    };
    Ok(SetVar { collection, name, change })
}

fn ctl(text: &str) -> Result<Ctl, Wrong> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let on_off = |value: &str| match value.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err((format!("`{value}` is neither `On` nor `Off`"), String::new())),
    };
    let target = |make: &dyn Fn(&str) -> Result<Which, Wrong>| -> Result<Ctl, Wrong> {
        let (which, target) = value.split_once(';').ok_or_else(|| {
            (format!("`{name}` needs a variable after `;`"), "write, for example, `942100;ARGS:q`".to_owned())
        })?;
        let target = target.trim().trim_start_matches('!');
        Ok(Ctl::RemoveTarget(make(which)?, Arc::new(exclusion(target)?)))
    };
    Ok(match name.trim().to_ascii_lowercase().as_str() {
        "ruleengine" => Ctl::Engine(engine_mode(value)?),
        "requestbodyaccess" => Ctl::RequestBodyAccess(on_off(value)?),
        "responsebodyaccess" => Ctl::ResponseBodyAccess(on_off(value)?),
        "forcerequestbodyvariable" => Ctl::ForceRequestBody(on_off(value)?),
        "requestbodyprocessor" => Ctl::Processor(Processor::find(value).ok_or_else(|| {
            (format!("`{value}` is not a body processor"), "one of URLENCODED, MULTIPART, XML, JSON".to_owned())
        })?),
        "auditengine" => Ctl::AuditEngine(audit_mode(value)?),
        "ruleremovebyid" => Ctl::Remove(Which::Ids(id_ranges(value)?)),
        "ruleremovebytag" => Ctl::Remove(Which::Tag(which_pattern(value)?)),
        "ruleremovebymsg" => Ctl::Remove(Which::Message(which_pattern(value)?)),
        "ruleremovetargetbyid" => target(&|w| Ok(Which::Ids(id_ranges(w)?)))?,
        "ruleremovetargetbytag" => target(&|w| Ok(Which::Tag(which_pattern(w)?)))?,
        "ruleremovetargetbymsg" => target(&|w| Ok(Which::Message(which_pattern(w)?)))?,
        "debugloglevel" | "auditlogparts" => Ctl::Nothing,
        other => {
            return Err((
                format!("`ctl:{other}` is not supported"),
                did_you_mean(
                    other,
                    [
                        "ruleEngine",
                        "requestBodyAccess",
                        "responseBodyAccess",
                        "forceRequestBodyVariable",
                        "requestBodyProcessor",
                        "auditEngine",
                        "auditLogParts",
                        "ruleRemoveById",
                        "ruleRemoveByTag",
                        "ruleRemoveByMsg",
                        "ruleRemoveTargetById",
                        "ruleRemoveTargetByTag",
                        "ruleRemoveTargetByMsg",
                    ]
                    .into_iter(),
                ),
            ));
        }
    })
}

impl Builder {
    pub(super) fn rule(&mut self, at: &Place, text: &str, words: &[String], path: Option<&Path>) {
        if let Some(name) = words.get(2).and_then(|operator| data_file(operator)) {
            if self.texts_only {
                self.problems.error(at, text, super::NO_FILES.0, super::NO_FILES.1);
                return;
            }
            self.files.push(path.and_then(Path::parent).map_or_else(|| name.into(), |folder| folder.join(name)));
        }
        let pending = self.chain.take();
        let before = self.problems.0.len();
        let is_action = words[0].eq_ignore_ascii_case("SecAction");
        let (variables, operator, list) = match (is_action, words) {
            (true, [_, list]) => (None, None, Some(list)),
            (false, [_, variables, operator]) => (Some(variables), Some(operator), None),
            (false, [_, variables, operator, list]) => (Some(variables), Some(operator), Some(list)),
            _ => {
                let help = if is_action {
                    "`SecAction \"actions\"`"
                } else {
                    "`SecRule VARIABLES \"@operator argument\" \"actions\"`; is a quote missing?"
                };
                self.problems.error(at, text, format!("`{}` with {} arguments", words[0], words.len() - 1), help);
                return;
            }
        };
        let (wanted, exclusions) = match variables.map(|v| targets::targets(v, &mut self.names)) {
            None => (Vec::new(), Vec::new()),
            Some(Ok(both)) => {
                if both.0.is_empty() {
                    self.problems.error(at, text, "the rule looks at no variable", "name at least one without `!`");
                }
                both
            }
            Some(Err((message, help))) => {
                self.problems.error(at, text, message, help);
                (Vec::new(), Vec::new())
            }
        };
        let (negated, operator) = match operator.map(|o| compile_operator(o, path, &mut self.names)) {
            None => (false, Operator::Always),
            Some(Ok(both)) => both,
            Some(Err((message, help))) => {
                self.problems.error(at, text, message, help);
                (false, Operator::Never)
            }
        };
        let list = match actions(list.map_or("", |l| l)) {
            Ok(list) => list,
            Err(e) => {
                self.problems.error(at, text, e, "actions are separated by commas; values with commas stand in `'…'`");
                Vec::new()
            }
        };
        let link = Link {
            place: at.clone(),
            targets: wanted,
            exclusions,
            transforms: Arc::new([]),
            operator,
            negated,
            multi_match: false,
            capture: false,
            setvars: Vec::new(),
            ctls: Vec::new(),
            init_collections: Vec::new(),
            expiries: Vec::new(),
        };
        let chained = list.iter().any(|a| a.name == "chain");
        match pending {
            Some(PendingChain::Broken) => {}
            Some(PendingChain::Good) => {
                if let Some(mut head) = self.rules.pop() {
                    let link = self.actions(at, text, &list, link, &mut head, true);
                    head.links.push(link);
                    self.rules.push(head);
                }
            }
            None => {
                let phase = list.iter().rev().find(|a| a.name == "phase").and_then(|a| a.value.as_deref());
                let phase = match phase.map(|p| (p, self::phase(p))) {
                    None => 2,
                    Some((_, Some(phase))) => phase,
                    Some((text_phase, None)) => {
                        self.problems.error(at, text, format!("`{text_phase}` is not a phase"), "phases are 1 to 5");
                        2
                    }
                };
                let default = &self.defaults[usize::from(phase) - 1];
                let mut rule = Rule {
                    id: 0,
                    phase,
                    links: Vec::new(),
                    disruption: Disruption::Default,
                    status: default.status,
                    log: default.log,
                    audit: default.audit,
                    message: None,
                    data: default.data.clone(),
                    tags: Vec::new(),
                    severity: default.severity,
                    version: None,
                    revision: None,
                    skip: Skip::No,
                };
                let link = self.actions(at, text, &list, link, &mut rule, false);
                rule.links.push(link);
                rule.tags.extend_from_slice(&self.defaults[usize::from(phase) - 1].tags);
                if rule.id == 0 {
                    self.problems.error(
                        at,
                        text,
                        "the rule has no `id`",
                        "add `id:NUMBER`; numbers up to 99999 are for local rules",
                    );
                } else if let Some(first) = self.ids.insert(rule.id, at.clone()) {
                    self.problems.error(
                        at,
                        text,
                        format!("rule {} exists already, in {first}", rule.id),
                        "give it another `id`, or remove one of the two",
                    );
                }
                if self.problems.0.len() == before {
                    self.rules.push(rule);
                }
            }
        }
        if chained {
            let good = self.problems.0.len() == before && !matches!(self.chain, Some(PendingChain::Broken));
            self.chain = Some(if good { PendingChain::Good } else { PendingChain::Broken });
        }
    }

    fn actions(
        &mut self,
        at: &Place,
        text: &str,
        list: &[Action],
        mut link: Link,
        rule: &mut Rule,
        chained: bool,
    ) -> Link {
        let mut transforms =
            if chained { Vec::new() } else { self.defaults[usize::from(rule.phase) - 1].transforms.clone() };
        for action in list {
            if let Err((message, help)) = self.action(at, action, &mut link, rule, &mut transforms, chained) {
                self.problems.error(at, text, message, help);
            }
        }
        link.transforms = transforms.into();
        if rule.disruption == Disruption::Default {
            let default = &self.defaults[usize::from(rule.phase) - 1];
            rule.disruption = default.disruption.clone();
        }
        link
    }

    fn action(
        &mut self,
        at: &Place,
        action: &Action,
        link: &mut Link,
        rule: &mut Rule,
        transforms: &mut Vec<Transform>,
        chained: bool,
    ) -> Result<(), Wrong> {
        let names = &mut self.names;
        let name = action.name.as_str();
        let value = action.value.as_deref().unwrap_or("");
        match name {
            "id" if chained => {
                return Err((
                    "a chained rule has no `id` of its own".into(),
                    "only the first rule of a chain has one".into(),
                ));
            }
            "id" => {
                rule.id = value
                    .trim_matches('\'')
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| (format!("`{value}` is not a rule's number"), String::new()))?
            }
            "phase" => {}
            "status" => rule.status = Some(status(value)?),
            "log" => (rule.log, rule.audit) = (true, true),
            "nolog" => (rule.log, rule.audit) = (false, false),
            "auditlog" => rule.audit = true,
            "noauditlog" => rule.audit = false,
            "msg" => rule.message = Some(macro_of(value, names)?),
            "logdata" => rule.data = Some(macro_of(value, names)?),
            "tag" => rule.tags.push(macro_of(value, names)?),
            "ver" => rule.version = Some(value.into()),
            "rev" => rule.revision = Some(value.into()),
            "severity" => rule.severity = Some(severity(value)?),
            "t" => transform(value, transforms)?,
            "setvar" => link.setvars.push(set_var(value, names)?),
            "expirevar" => {
                let (target, seconds) =
                    value.split_once('=').ok_or_else(|| ("`expirevar` needs `=seconds`".to_owned(), String::new()))?;
                let (collection, name) = writable(target)?;
                link.expiries.push((collection, macro_of(name, names)?, macro_of(seconds, names)?));
            }
            "initcol" => {
                let (collection, key) =
                    value.split_once('=').ok_or_else(|| ("`initcol` needs `=key`".to_owned(), String::new()))?;
                let var = Var::find(collection).filter(|v| v.persistent_slot().is_some()).ok_or_else(|| {
                    (
                        format!("`{collection}` is not a collection that lasts"),
                        "one of `ip`, `global`, `session`, `user`, `resource`".to_owned(),
                    )
                })?;
                link.init_collections.push((var, macro_of(key, names)?));
            }
            "ctl" => link.ctls.push(ctl(value)?),
            "chain" => {}
            "capture" => link.capture = true,
            "multimatch" => link.multi_match = true,
            "skip" => {
                rule.skip = Skip::Count(
                    value.parse().map_err(|_| (format!("`{value}` is not a number of rules"), String::new()))?,
                )
            }
            "skipafter" => rule.skip = Skip::Label(value.to_owned()),
            // What a rule says about itself.
            "maturity" | "accuracy" => {}
            name => match disruption(name, value, names)? {
                Some(_) if chained => {
                    return Err((
                        format!("`{name}` in a chained rule"),
                        "what a chain does is said in its first rule".into(),
                    ));
                }
                Some(disruption) => rule.disruption = disruption,
                None => match WITHOUT_EFFECT.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    Some((known, why)) => {
                        self.settings.notes.push(format!("{at}: `{known}` has no effect: {why}"));
                    }
                    None => {
                        return Err((
                            format!("unknown action `{name}`"),
                            did_you_mean(name, KNOWN_ACTIONS.iter().copied()),
                        ));
                    }
                },
            },
        }
        Ok(())
    }

    /// Updates, then skips, then removals: what may name rules that come later.
    pub(super) fn finish(&mut self) {
        for (at, id, text) in std::mem::take(&mut self.action_updates) {
            self.update_actions(&at, id, &text);
        }
        for (at, which, wanted, excluded) in std::mem::take(&mut self.target_updates) {
            let mut any = false;
            for rule in self.rules.iter_mut().filter(|r| r.is(&which)) {
                any = true;
                rule.links[0].targets.extend(wanted.iter().cloned());
                rule.links[0].exclusions.extend(excluded.iter().cloned());
            }
            if !any {
                self.settings.notes.push(format!("{at}: no rule is updated by this line"));
            }
        }
        self.resolve_skips();
        // Removed rules keep their place, so that positions of labels stay true; they are simply never evaluated.
        for which in std::mem::take(&mut self.removals) {
            for rule in self.rules.iter_mut().filter(|r| r.is(&which)) {
                rule.phase = 0;
            }
        }
    }

    fn update_actions(&mut self, at: &Place, id: u64, text: &str) {
        let Some(index) = self.rules.iter().position(|r| r.id == id) else {
            self.problems.error(at, text, format!("there is no rule {id}"), "update a rule that exists");
            return;
        };
        match actions(text) {
            Ok(list) => {
                let mut rule = self.rules[index].clone();
                let mut link = rule.links.remove(0);
                let mut transforms = link.transforms.to_vec();
                for action in &list {
                    if let Err((message, help)) = self.action(at, action, &mut link, &mut rule, &mut transforms, false)
                    {
                        self.problems.error(at, text, message, help);
                    }
                }
                link.transforms = transforms.into();
                rule.links.insert(0, link);
                self.rules[index] = rule;
            }
            Err(e) => self.problems.error(at, text, e, ""),
        }
    }

    fn resolve_skips(&mut self) {
        for i in 0..self.rules.len() {
            let label = match &self.rules[i].skip {
                Skip::Label(label) => label,
                Skip::Count(n) => {
                    self.rules[i].skip = Skip::To(self.behind(i, *n));
                    continue;
                }
                Skip::No | Skip::To(_) => continue,
            };
            let marker = self
                .markers
                .iter()
                .filter(|(_, at)| *at as usize > i)
                .find(|(name, _)| name == label)
                .map(|(_, at)| *at);
            let number = || {
                let id: u64 = label.parse().ok()?;
                self.rules.iter().skip(i + 1).position(|r| r.id == id).map(|n| (i + 1 + n + 1) as u32)
            };
            match marker.or_else(number) {
                Some(to) => self.rules[i].skip = Skip::To(to),
                None => {
                    let (place, label) = (self.rules[i].place().clone(), label.clone());
                    self.problems.error(
                        &place,
                        &format!("skipAfter:{label}"),
                        format!("no marker `{label}` follows"),
                        "add `SecMarker`, or include the file that has it",
                    );
                }
            }
        }
    }

    /// The position behind as many rules of the same phase as follow a rule, or behind all that do. Counted as they are
    /// written: short cuts leave some of them out later, which are skipped no less.
    fn behind(&self, i: usize, many: u32) -> u32 {
        let phase = self.rules[i].phase;
        let later = self.rules.iter().enumerate().skip(i + 1).filter(|(_, rule)| rule.phase == phase);
        later.take(many as usize).last().map_or(i + 1, |(at, _)| at + 1) as u32
    }
}

/// The data file that an operator reads.
fn data_file(operator: &str) -> Option<&str> {
    let (name, argument) = operator.trim().trim_start_matches('!').strip_prefix('@')?.split_once(' ')?;
    let reads =
        ["pmFromFile", "pmf", "ipMatchFromFile", "ipMatchF"].iter().any(|known| known.eq_ignore_ascii_case(name));
    reads.then(|| argument.trim())
}

/// `@rx pattern`, `!@eq 1`, or a pattern alone.
fn compile_operator(text: &str, path: Option<&Path>, names: &mut TxNames) -> Result<(bool, Operator), Wrong> {
    let trimmed = text.trim_start();
    let (negated, rest) = match trimmed.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, trimmed),
    };
    let mut operator = match rest.strip_prefix('@') {
        Some(named) => {
            let end = named.find(|c: char| c.is_ascii_whitespace()).unwrap_or(named.len());
            let argument = named[end..].trim_start();
            Operator::compile(&named[..end], argument, path)?
        }
        None => Operator::compile("rx", rest, path)?,
    };
    if let Some(argument) = operator.argument_mut() {
        argument.intern(names);
    }
    Ok((negated, operator))
}
