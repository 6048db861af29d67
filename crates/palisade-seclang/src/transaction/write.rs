//! What rules write: variables, macros, collections.

use super::Transaction;
use super::values::{Value, lists};
use crate::body::Finding;
use crate::collections::Entry;
use crate::expand::{Macro, Part};
use crate::rule::{Change, Name, Select, SetVar, Target};
use crate::store::{List, Span};
use crate::text::{atoi, push_number};
use crate::variable::{Kind, Var};

/// Variables that are kept of one collection beyond this transaction.
const MOST_KEPT: usize = 4096;
/// Most variables whose names rules make from requests, for each argument that there may be, and no fewer than are kept:
/// rules of the Core Rule Set make one of each, and miss what they look for where there is none.
const NAMES_PER_ARGUMENT: usize = 4;

impl Transaction {
    /// Appends the text of a macro to `out`.
    pub(super) fn expand(&mut self, text: &Macro, out: &mut Vec<u8>) {
        for part in &text.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Tx(slot) => {
                    if let Some(span) = self.tx.get(*slot as usize).filter(|s| !s.is_none()) {
                        out.extend_from_slice(self.store.get(*span, &self.rules.constants));
                    }
                }
                Part::Var(var, key) => {
                    let span = self.macro_value(*var, key.as_deref());
                    if !span.is_none() {
                        out.extend_from_slice(self.store.get(span, &self.rules.constants));
                    }
                }
            }
        }
    }

    fn macro_value(&mut self, var: Var, key: Option<&str>) -> Span {
        let Some(key) = key else { return self.first_value(var) };
        if var == Var::Rule {
            return self.rule_field(key.as_bytes());
        }
        let select = Select::Key(key.as_bytes().into());
        let mut values = Vec::new();
        self.collect(&Target { var, select, count: false }, &mut values);
        values.first().map_or(Span::NONE, |v| v.value)
    }

    /// A single value, or the first one of a collection. Each of its values may ask, so the others are not touched.
    fn first_value(&mut self, var: Var) -> Span {
        let first = |of: &[List]| of.iter().find_map(|list| self.store.list(*list).first()).copied();
        match var.kind() {
            Kind::Scalar => self.scalar(var),
            Kind::Collection => first(lists(var)).map_or(Span::NONE, |item| item.value),
            Kind::Names => first(lists(var)).map_or(Span::NONE, |item| item.name),
            Kind::Xml => first(&[List::XmlText]).map_or(Span::NONE, |item| item.value),
            Kind::Match => match (self.matched_vars.first().copied(), var) {
                (Some(value), Var::MatchedVarsNames) => self.name_of(&value),
                (Some(Value { number: Some(number), .. }), Var::MatchedVars) => self.number(number),
                (Some(value), Var::MatchedVars) => value.value,
                _ => Span::NONE,
            },
            // Refused when the rule was read.
            Kind::Writable => Span::NONE,
        }
    }

    pub(super) fn set_var(&mut self, action: &SetVar) {
        let mut name = std::mem::take(&mut self.scratch.name);
        let mut text = std::mem::take(&mut self.scratch.text);
        self.set_named(action, &mut name, &mut text);
        self.scratch.name = name;
        self.scratch.text = text;
    }

    /// `name` and `text` are buffers.
    fn set_named(&mut self, action: &SetVar, name: &mut Vec<u8>, text: &mut Vec<u8>) {
        let slot = match &action.name {
            Name::Slot(slot) => Some(*slot as usize),
            Name::Text(wanted) => {
                name.clear();
                self.expand(wanted, name);
                match action.collection {
                    Var::Tx => {
                        text.clear();
                        text.extend(name.iter().map(u8::to_ascii_lowercase));
                        self.rules.names.find(text).map(|s| s as usize)
                    }
                    _ => None,
                }
            }
        };
        let new = match &action.change {
            Change::Unset => Span::NONE,
            Change::Set(value) => match &value.parts[..] {
                [] => Span::EMPTY,
                [Part::Text(literal)] => self.store.push(literal),
                [Part::Tx(from)] => {
                    let from = self.tx.get(*from as usize).copied().unwrap_or(Span::NONE);
                    if from.is_none() { Span::EMPTY } else { from }
                }
                _ => {
                    text.clear();
                    self.expand(value, text);
                    self.store.push(text)
                }
            },
            Change::Add(amount) | Change::Subtract(amount) => {
                let by = match amount.literal() {
                    Some(literal) => atoi(literal),
                    None => {
                        text.clear();
                        self.expand(amount, text);
                        atoi(text)
                    }
                };
                let by = if matches!(action.change, Change::Add(_)) { by } else { by.saturating_neg() };
                let old = match (slot, action.collection.persistent_slot()) {
                    (Some(slot), _) => self.tx.get(slot).copied().unwrap_or(Span::NONE),
                    (None, None) => self.tx_more.value(name, &self.store, &self.rules.constants),
                    (None, Some(c)) => self.collections[c].value(name, &self.store, &self.rules.constants),
                };
                let old = if old.is_none() { 0 } else { atoi(self.bytes(old)) };
                let start = self.store.bytes.len();
                push_number(&mut self.store.bytes, old.saturating_add(by));
                self.store.since(start)
            }
        };
        if let Some(slot) = slot {
            self.set_slot(slot, new);
            return;
        }
        if let Some(fast) = &self.rules.fast {
            match action.collection.persistent_slot() {
                Some(collection) => self.scan.ring(fast, fast.wake.of_collection(collection)),
                None => self.scan.ring_name(fast, name),
            }
        }
        let limit = self.rules.settings.arguments.saturating_mul(NAMES_PER_ARGUMENT).max(MOST_KEPT);
        let named = match action.collection.persistent_slot() {
            Some(c) => &mut self.collections[c],
            None => &mut self.tx_more,
        };
        match named.place(name, &self.store, &self.rules.constants) {
            Some(place) => named.set(place, new),
            None if new.is_none() => {}
            None if named.len() >= limit => self.output().find(Finding::TooManyVariables { limit }),
            None => {
                let name = self.store.push(name);
                named.add(name, new, &self.store, &self.rules.constants);
            }
        }
    }

    /// Sets a variable of `TX`. Rules that wait for a change of it wait no longer.
    fn set_slot(&mut self, slot: usize, new: Span) {
        let Some(entry) = self.tx.get_mut(slot) else { return };
        *entry = new;
        let Some(fast) = &self.rules.fast else { return };
        let bells = fast.wake.of_slot(slot);
        if bells.is_empty() {
            return;
        }
        let (store, constants) = (&self.store, &self.rules.constants);
        let first = self.rules.initial_tx[slot];
        if first.is_none() != new.is_none() || store.get(first, constants) != store.get(new, constants) {
            self.scan.ring(fast, bells);
        }
    }

    pub(super) fn find_tx(&self, lower: &[u8]) -> Option<Span> {
        let span = match self.rules.names.find(lower) {
            Some(slot) => self.tx.get(slot as usize).copied().unwrap_or(Span::NONE),
            None => self.tx_more.value(lower, &self.store, &self.rules.constants),
        };
        (!span.is_none()).then_some(span)
    }

    /// Sets `TX.0` to `TX.9`; those that the match does not have are removed.
    pub(super) fn set_captures(&mut self, value: Span) {
        let found = std::mem::take(&mut self.scratch.found);
        for i in 0..10 {
            let span = match (found.texts.get(i), found.groups[i]) {
                (Some(text), _) => self.store.push(text),
                (None, Some((start, end))) => value.slice(start, end),
                (None, None) => Span::NONE,
            };
            if let Some(entry) = self.tx.get_mut(i) {
                *entry = span;
            }
        }
        self.scratch.found = found;
    }

    /// `initcol`: fetches what was kept under the key. A collection is opened once.
    pub(super) fn open_collection(&mut self, collection: Var, key: &Macro) {
        let Some(slot) = collection.persistent_slot().filter(|s| self.opened[*s].is_none()) else { return };
        let mut text = Vec::new();
        self.expand(key, &mut text);
        if let Some(kept) = self.rules.collections.clone() {
            let now = self.rules.clock.epoch();
            for entry in kept.load(collection.name(), &text).into_iter().filter(|e| e.expires > now).take(MOST_KEPT) {
                let name = self.store.push(&entry.name);
                let value = self.store.push(&entry.value);
                self.collections[slot].add(name, value, &self.store, &self.rules.constants);
                self.expiries.push((slot, entry.name, entry.expires));
                if let Some(fast) = &self.rules.fast {
                    self.scan.ring(fast, fast.wake.of_collection(slot));
                }
            }
        }
        self.opened[slot] = Some(text);
    }

    /// `expirevar`. Variables of `TX` end with the transaction anyway.
    pub(super) fn expire(&mut self, collection: Var, name: &Macro, seconds: &Macro) {
        let Some(slot) = collection.persistent_slot() else { return };
        let (mut text, mut amount) = (Vec::new(), Vec::new());
        self.expand(name, &mut text);
        self.expand(seconds, &mut amount);
        let at = self.rules.clock.epoch().saturating_add(atoi(&amount).max(0) as u64);
        self.expiries.retain(|(s, n, _)| !(*s == slot && n.eq_ignore_ascii_case(&text)));
        self.expiries.push((slot, text, at));
    }

    /// Keeps the collections that were opened.
    pub(super) fn save_collections(&mut self) {
        let Some(kept) = self.rules.collections.clone() else { return };
        let end = self.rules.clock.epoch().saturating_add(self.rules.settings.collection_timeout);
        for collection in [Var::Ip, Var::Global, Var::Session, Var::User, Var::Resource] {
            let Some(slot) = collection.persistent_slot() else { continue };
            let Some(key) = self.opened[slot].take() else { continue };
            let entries = self.collections[slot]
                .iter()
                .map(|(name, value)| {
                    let name = self.bytes(name).to_vec();
                    let own = self.expiries.iter().find(|(s, n, _)| *s == slot && n.eq_ignore_ascii_case(&name));
                    Entry { expires: own.map_or(end, |(_, _, at)| *at), value: self.bytes(value).to_vec(), name }
                })
                .collect();
            kept.save(collection.name(), &key, entries);
        }
    }
}
