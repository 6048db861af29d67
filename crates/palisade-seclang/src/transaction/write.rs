//! What rules write: variables, macros, collections.

use super::Transaction;
use crate::collections::Entry;
use crate::expand::{Macro, Part};
use crate::rule::{Change, Name, Select, SetVar, Target};
use crate::store::Span;
use crate::text::{atoi, push_number};
use crate::variable::Var;

/// Most variables whose names rules make from requests.
const MOST_NAMES: usize = 4096;

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
        let Some(key) = key else { return self.scalar(var) };
        if var == Var::Rule {
            return self.rule_field(key.as_bytes());
        }
        let select = Select::Key(key.as_bytes().into());
        let mut values = Vec::new();
        self.collect(&Target { var, select, count: false }, &mut values);
        values.first().map_or(Span::NONE, |v| v.value)
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
                    (None, None) => self.find_named(&self.tx_more, name),
                    (None, Some(c)) => self.find_named(&self.collections[c], name),
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
        let list = self.named_list(action.collection);
        let at = list.iter().position(|(n, _)| self.bytes(*n).eq_ignore_ascii_case(name));
        let list_len = list.len();
        match at {
            Some(at) if new.is_none() => {
                self.named_list_mut(action.collection).remove(at);
            }
            Some(at) => self.named_list_mut(action.collection)[at].1 = new,
            None if new.is_none() || list_len >= MOST_NAMES => {}
            None => {
                let name = self.store.push(name);
                self.named_list_mut(action.collection).push((name, new));
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

    fn named_list(&self, collection: Var) -> &Vec<(Span, Span)> {
        match collection.persistent_slot() {
            Some(c) => &self.collections[c],
            None => &self.tx_more,
        }
    }

    fn named_list_mut(&mut self, collection: Var) -> &mut Vec<(Span, Span)> {
        match collection.persistent_slot() {
            Some(c) => &mut self.collections[c],
            None => &mut self.tx_more,
        }
    }

    fn find_named(&self, list: &[(Span, Span)], name: &[u8]) -> Span {
        list.iter()
            .find(|(n, _)| n.len as usize == name.len() && self.bytes(*n).eq_ignore_ascii_case(name))
            .map_or(Span::NONE, |(_, value)| *value)
    }

    pub(super) fn find_tx(&self, lower: &[u8]) -> Option<Span> {
        let span = match self.rules.names.find(lower) {
            Some(slot) => self.tx.get(slot as usize).copied().unwrap_or(Span::NONE),
            None => self.find_named(&self.tx_more, lower),
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
            for entry in kept.load(collection.name(), &text).into_iter().filter(|e| e.expires > now).take(MOST_NAMES) {
                let name = self.store.push(&entry.name);
                let value = self.store.push(&entry.value);
                self.collections[slot].push((name, value));
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
                    let name = self.bytes(*name).to_vec();
                    let own = self.expiries.iter().find(|(s, n, _)| *s == slot && n.eq_ignore_ascii_case(&name));
                    Entry { expires: own.map_or(end, |(_, _, at)| *at), value: self.bytes(*value).to_vec(), name }
                })
                .collect();
            kept.save(collection.name(), &key, entries);
        }
    }
}
