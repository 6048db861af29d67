//! Names of `TX` variables, numbered when rules are compiled.

use std::collections::HashMap;

/// Each name that a rule writes out gets a slot; names made of macros are found by text at run time.
#[derive(Debug, Clone, Default)]
pub(crate) struct TxNames {
    slots: HashMap<Box<str>, u32>,
    /// In lower case.
    names: Vec<Box<str>>,
    /// As they were written first; in a macro, that is in lower case.
    spellings: Vec<Box<str>>,
}

impl TxNames {
    /// `TX.0` to `TX.9`, the captures, have the first ten slots.
    pub(crate) fn new() -> TxNames {
        let mut names = TxNames::default();
        for digit in 0..10 {
            names.slot(&digit.to_string());
        }
        names
    }

    /// The slot of a name, made when it is new. Case does not count.
    pub(crate) fn slot(&mut self, name: &str) -> u32 {
        let key: Box<str> = name.to_ascii_lowercase().into();
        if let Some(slot) = self.slots.get(&key) {
            return *slot;
        }
        let slot = self.names.len() as u32;
        self.names.push(key.clone());
        self.spellings.push(name.into());
        self.slots.insert(key, slot);
        slot
    }

    /// The slot of a name (in lower case) that rules write out.
    pub(crate) fn find(&self, lower: &[u8]) -> Option<u32> {
        self.slots.get(std::str::from_utf8(lower).ok()?).copied()
    }

    /// A name in lower case.
    pub(crate) fn name(&self, slot: u32) -> &str {
        self.names.get(slot as usize).map_or("", |n| n)
    }

    /// A name as it was written first: for messages and for other names that are made of it.
    pub(crate) fn spelling(&self, slot: u32) -> &str {
        self.spellings.get(slot as usize).map_or("", |n| n)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}
