//! From a rule's targets to values.

use super::Transaction;
use crate::rule::{Select, Target};
use crate::store::{Item, List, Span};
use crate::text::push_number;
use crate::transform::Transform;
use crate::variable::{Kind, Var};

/// One value that a rule looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) var: Var,
    /// Empty for single values.
    pub(crate) key: Span,
    pub(crate) value: Span,
    /// The value as a number where it was counted.
    pub(crate) number: Option<i64>,
    /// Number of the value in the transaction; `u32::MAX` for what rules made.
    pub(crate) id: u32,
}

impl Value {
    pub(crate) const NONE: Value =
        Value { var: Var::MatchedVar, key: Span::EMPTY, value: Span::NONE, number: None, id: u32::MAX };
}

/// The lists behind a collection.
pub(crate) fn lists(var: Var) -> &'static [List] {
    match var.base() {
        Var::Args => &[List::ArgsGet, List::ArgsPost],
        Var::ArgsGet => &[List::ArgsGet],
        Var::ArgsPost => &[List::ArgsPost],
        Var::RequestCookies => &[List::Cookies],
        Var::RequestHeaders => &[List::Headers],
        Var::ResponseHeaders => &[List::ResponseHeaders],
        Var::Files => &[List::Files],
        Var::FilesNames => &[List::FilesNames],
        Var::FilesSizes => &[List::FilesSizes],
        Var::MultipartPartHeaders => &[List::PartHeaders],
        Var::Geo => &[List::Geo],
        _ => &[],
    }
}

impl Transaction {
    /// Appends the values of a target.
    pub(super) fn collect(&mut self, target: &Target, out: &mut Vec<Value>) {
        let var = target.var;
        let before = out.len();
        match var.kind() {
            Kind::Collection => {
                for list in lists(var) {
                    let keep = |item: &&Item| self.selected(&target.select, item.name);
                    out.extend(self.store.list(*list).iter().filter(keep).map(|item| Value {
                        var,
                        key: item.name,
                        value: item.value,
                        number: None,
                        id: item.id,
                    }));
                }
            }
            Kind::Names => {
                for list in lists(var) {
                    let keep = |item: &&Item| self.selected(&target.select, item.name);
                    out.extend(self.store.list(*list).iter().filter(keep).map(|item| Value {
                        var,
                        key: item.name,
                        value: item.name,
                        number: None,
                        id: item.id + 1,
                    }));
                }
            }
            Kind::Writable => self.collect_writable(target, out),
            Kind::Xml => {
                let list =
                    if matches!(target.select, Select::XmlAttributes) { List::XmlAttributes } else { List::XmlText };
                out.extend(self.store.list(list).iter().map(|item| Value {
                    var,
                    key: item.name,
                    value: item.value,
                    number: None,
                    id: item.id,
                }));
            }
            Kind::Match => self.collect_match(target, out),
            Kind::Scalar => {
                let value = self.scalar(var);
                if !value.is_none() {
                    out.push(Value { var, key: Span::EMPTY, value, number: None, id: var as u32 });
                }
            }
        }
        if target.count {
            self.count(target, before, out);
        }
    }

    /// Puts the number of a target's values, which begin at `from`, in their place.
    pub(super) fn count(&mut self, target: &Target, from: usize, out: &mut Vec<Value>) {
        let number = Some((out.len() - from) as i64);
        out.truncate(from);
        let key = match &target.select {
            Select::Key(key) => self.store.push(key),
            Select::Slot(slot) => self.rules.name_span(*slot as usize),
            _ => Span::EMPTY,
        };
        out.push(Value { var: target.var, key, value: Span::NONE, number, id: u32::MAX });
    }

    fn selected(&self, select: &Select, name: Span) -> bool {
        match select {
            Select::All => true,
            Select::Key(key) => key.len() == name.len as usize && select.has(self.bytes(name)),
            _ => select.has(self.bytes(name)),
        }
    }

    fn collect_writable(&self, target: &Target, out: &mut Vec<Value>) {
        let var = target.var;
        let value = |key, value| Value { var, key, value, number: None, id: u32::MAX };
        if let Some(slot) = var.persistent_slot() {
            out.extend(
                self.collections[slot]
                    .iter()
                    .filter(|(name, _)| self.selected(&target.select, *name))
                    .map(|(k, v)| value(k, v)),
            );
            return;
        }
        if let Select::Slot(slot) = target.select {
            if let Some(span) = self.tx.get(slot as usize).filter(|s| !s.is_none()) {
                out.push(value(self.rules.name_span(slot as usize), *span));
            }
            return;
        }
        let mut add = |slot: usize| {
            if let Some(span) = self.tx.get(slot).filter(|s| !s.is_none()) {
                out.push(value(self.rules.name_span(slot), *span));
            }
        };
        match &target.select {
            Select::Slots(_, slots) => slots.iter().for_each(|s| add(*s as usize)),
            select => (0..self.tx.len())
                .filter(|s| select.has(self.rules.names.name(*s as u32).as_bytes()))
                .for_each(&mut add),
        }
        for (name, span) in self.tx_more.iter() {
            if self.selected(&target.select, name) {
                out.push(value(name, span));
            }
        }
    }

    fn collect_match(&mut self, target: &Target, out: &mut Vec<Value>) {
        let var = target.var;
        match var {
            Var::MatchedVars => {
                out.extend(self.matched_vars.iter().map(|v| Value { id: u32::MAX, ..*v }));
            }
            Var::MatchedVarsNames => {
                for i in 0..self.matched_vars.len() {
                    let named = self.matched_vars[i];
                    let value = self.name_of(&named);
                    out.push(Value { var, key: value, value, number: None, id: u32::MAX });
                }
            }
            Var::Rule => {
                if let Select::Key(key) = &target.select {
                    let value = self.rule_field(key);
                    out.push(Value { var, key: Span::EMPTY, value, number: None, id: u32::MAX });
                }
            }
            _ => {}
        }
    }

    /// `%{RULE.id}` and the like.
    pub(super) fn rule_field(&mut self, key: &[u8]) -> Span {
        let rules = self.rules.clone();
        let Some(rule) = rules.rules.get(self.current) else { return Span::EMPTY };
        match key {
            b"id" => self.number(rule.id as i64),
            b"severity" => rule.severity.map_or(Span::EMPTY, |s| self.number(i64::from(s))),
            b"rev" => self.store.push(rule.revision.as_deref().unwrap_or("").as_bytes()),
            b"ver" => self.store.push(rule.version.as_deref().unwrap_or("").as_bytes()),
            b"msg" => {
                let mut text = Vec::new();
                if let Some(message) = &rule.message {
                    self.expand(message, &mut text);
                }
                self.store.push(&text)
            }
            _ => Span::EMPTY,
        }
    }

    /// The text of a value's name: `ARGS:q`, `REQUEST_URI`, `&ARGS`.
    pub(super) fn name_of(&mut self, value: &Value) -> Span {
        let start = self.store.bytes.len();
        if value.number.is_some() {
            self.store.bytes.push(b'&');
        }
        self.store.bytes.extend_from_slice(value.var.name().as_bytes());
        if value.key.len > 0 {
            self.store.bytes.push(b':');
            let key = self.bytes(value.key).to_vec();
            self.store.bytes.extend_from_slice(&key);
        }
        self.store.since(start)
    }

    pub(super) fn number(&mut self, n: i64) -> Span {
        let start = self.store.bytes.len();
        push_number(&mut self.store.bytes, n);
        self.store.since(start)
    }

    /// A single value. Some are made when they are asked for.
    pub(super) fn scalar(&mut self, var: Var) -> Span {
        let flag = |s: &mut Self, on: bool| s.store.push(if on { b"1" } else { b"0" });
        match var {
            Var::MatchedVar => return self.matched_text(),
            Var::MatchedVarName => {
                let value = self.matched;
                if value.value.is_none() && value.number.is_none() {
                    return Span::NONE;
                }
                return self.name_of(&value);
            }
            Var::ArgsCombinedSize => {
                let size: u64 = [List::ArgsGet, List::ArgsPost]
                    .iter()
                    .flat_map(|l| self.store.list(*l))
                    .map(|i| u64::from(i.name.len) + u64::from(i.value.len))
                    .sum();
                return self.number(size as i64);
            }
            Var::FilesCombinedSize => {
                let size: i64 =
                    self.store.list(List::FilesSizes).iter().map(|i| crate::text::atoi(self.store.own(i.value))).sum();
                return self.number(size);
            }
            Var::RequestBodyLength => return self.number(self.body_length as i64),
            Var::ReqbodyProcessor => return self.store.push(self.processor.map_or("", |p| p.name()).as_bytes()),
            Var::ReqbodyError | Var::ReqbodyProcessorError => {
                let error = self.findings.iter().any(|f| f.is_error());
                return flag(self, error);
            }
            Var::ReqbodyErrorMsg | Var::ReqbodyProcessorErrorMsg => {
                let text = self.findings.iter().find(|f| f.is_error()).map(|f| f.to_string()).unwrap_or_default();
                return self.store.push(text.as_bytes());
            }
            Var::UrlencodedError => {
                let error = self.findings.contains(&crate::body::Finding::FormEscape);
                return flag(self, error);
            }
            Var::MultipartStrictError => return flag(self, self.flags.strict_error()),
            Var::MultipartUnmatchedBoundary => return flag(self, self.flags.unmatched_boundary),
            Var::MultipartBoundaryQuoted => return flag(self, self.flags.boundary_quoted),
            Var::MultipartBoundaryWhitespace => return flag(self, self.flags.boundary_whitespace),
            Var::MultipartDataBefore => return flag(self, self.flags.data_before),
            Var::MultipartDataAfter => return flag(self, self.flags.data_after),
            Var::MultipartHeaderFolding => return flag(self, self.flags.header_folding),
            Var::MultipartInvalidHeaderFolding => return flag(self, self.flags.invalid_header_folding),
            Var::MultipartLfLine => return flag(self, self.flags.lf_line),
            Var::MultipartCrlfLfLines => return flag(self, self.flags.lf_line && self.flags.crlf_line),
            Var::MultipartMissingSemicolon => return flag(self, self.flags.missing_semicolon),
            Var::MultipartInvalidQuoting => return flag(self, self.flags.invalid_quoting),
            Var::MultipartInvalidPart => return flag(self, self.flags.invalid_part),
            Var::MultipartFileLimitExceeded => return flag(self, false),
            Var::MultipartName => return self.store.list(List::FilesNames).last().map_or(Span::EMPTY, |i| i.value),
            Var::MultipartFilename => return self.store.list(List::Files).last().map_or(Span::EMPTY, |i| i.value),
            Var::InboundDataError | Var::OutboundDataError if self.scalars[var as usize].is_none() => {
                return flag(self, false);
            }
            // As ModSecurity 3, which knows no path behind a script.
            Var::PathInfo => return self.scalar(Var::RequestFilename),
            Var::AuthType | Var::RemoteUser => return self.authorization(var),
            Var::HighestSeverity => return self.number(i64::from(self.highest_severity)),
            Var::Webappid => {
                let rules = self.rules.clone();
                return self.store.push(rules.settings.web_app.as_bytes());
            }
            Var::ServerName => {
                let host = self
                    .store
                    .list(List::Headers)
                    .iter()
                    .find(|i| self.store.own(i.name).eq_ignore_ascii_case(b"host"));
                let host = host.map_or(Span::EMPTY, |i| i.value);
                let text = self.store.own(host);
                // The colons of an address in brackets are its own; without the second one nobody knows.
                let from = match text.first() {
                    Some(b'[') => memchr::memchr(b']', text).unwrap_or(text.len()),
                    _ => 0,
                };
                let port = memchr::memchr(b':', &text[from..]);
                return host.slice(0, port.map_or(text.len(), |at| from + at));
            }
            Var::StatusLine => {
                let line = format!(
                    "{} {}",
                    String::from_utf8_lossy(self.bytes(self.scalars[Var::ResponseProtocol as usize])),
                    String::from_utf8_lossy(self.bytes(self.scalars[Var::ResponseStatus as usize])),
                );
                return self.store.push(line.as_bytes());
            }
            Var::Duration => {
                let passed = self.rules.clock.monotonic().saturating_sub(self.started);
                return self.number(passed.as_micros() as i64);
            }
            Var::TimeEpoch
            | Var::Time
            | Var::TimeHour
            | Var::TimeMin
            | Var::TimeSec
            | Var::TimeDay
            | Var::TimeMon
            | Var::TimeWday
            | Var::TimeYear => {
                let text = time_text(var, self.rules.clock.epoch());
                return self.store.push(text.as_bytes());
            }
            _ => {}
        }
        let span = self.scalars[var as usize];
        match var {
            // Without a body there is nothing that could be empty.
            Var::RequestBody | Var::ResponseBody => span,
            _ if span.is_none() => Span::EMPTY,
            _ => span,
        }
    }

    /// The scheme of `Authorization`, or the name in it that nobody has verified (RFC 7617).
    fn authorization(&mut self, var: Var) -> Span {
        let mut headers = self.store.list(List::Headers).iter();
        let Some(header) = headers.find(|item| self.store.own(item.name).eq_ignore_ascii_case(b"authorization")) else {
            return Span::EMPTY;
        };
        let value = header.value;
        let text = self.store.own(value);
        let scheme = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        if var == Var::AuthType {
            return value.slice(0, scheme);
        }
        if !text[..scheme].eq_ignore_ascii_case(b"basic") {
            return Span::EMPTY;
        }
        let mut pair = Vec::new();
        Transform::Base64Decode.apply(None, text[scheme..].trim_ascii(), &mut pair);
        match memchr::memchr(b':', &pair) {
            Some(at) => self.store.push(&pair[..at]),
            None => Span::EMPTY,
        }
    }

    /// `MATCHED_VAR`.
    pub(super) fn matched_text(&mut self) -> Span {
        match self.matched.number {
            Some(n) => self.number(n),
            None => self.matched.value,
        }
    }
}

/// Parts of the time, in UTC.
fn time_text(var: Var, epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Days to a date, by Howard Hinnant's `civil_from_days`.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    match var {
        Var::TimeEpoch => epoch.to_string(),
        Var::Time => format!("{hour:02}:{minute:02}:{second:02}"),
        Var::TimeHour => hour.to_string(),
        Var::TimeMin => minute.to_string(),
        Var::TimeSec => second.to_string(),
        Var::TimeDay => day.to_string(),
        Var::TimeMon => (month - 1).to_string(),
        Var::TimeWday => ((days + 4) % 7).to_string(),
        Var::TimeYear => year.to_string(),
        _ => String::new(),
    }
}
