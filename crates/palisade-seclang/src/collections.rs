//! Collections that outlive a transaction: `IP`, `GLOBAL`, `SESSION`, `USER`, `RESOURCE` after `initcol`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A variable of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The variable's name.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Seconds since 1970 at which it ends.
    pub expires: u64,
}

/// Where collections are kept between transactions. Calls must not block: they are made while a request waits.
pub trait Collections: Send + Sync + std::fmt::Debug {
    /// The variables of the collection `collection` (`IP`, …) under `key`; those that have ended may be left out.
    fn load(&self, collection: &str, key: &[u8]) -> Vec<Entry>;

    /// Replaces them.
    fn save(&self, collection: &str, key: &[u8], entries: Vec<Entry>);
}

/// A collection's name and its key.
type Key = (String, Vec<u8>);

/// Collections in memory, at most as many as it is told; when they are that many, one that has ended leaves, or any.
#[derive(Debug)]
pub struct MemoryCollections {
    most: usize,
    map: Mutex<HashMap<Key, Vec<Entry>>>,
}

impl MemoryCollections {
    /// Room for `most` collections.
    pub fn new(most: usize) -> MemoryCollections {
        MemoryCollections { most: most.max(1), map: Mutex::default() }
    }
}

impl Collections for MemoryCollections {
    fn load(&self, collection: &str, key: &[u8]) -> Vec<Entry> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&(collection.to_owned(), key.to_vec())).cloned().unwrap_or_default()
    }

    fn save(&self, collection: &str, key: &[u8], entries: Vec<Entry>) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (collection.to_owned(), key.to_vec());
        if entries.is_empty() {
            map.remove(&key);
            return;
        }
        if map.len() >= self.most && !map.contains_key(&key) {
            // A map's order is random to those who choose the keys.
            if let Some(victim) = map.keys().next().cloned() {
                map.remove(&victim);
            }
        }
        map.insert(key, entries);
    }
}
