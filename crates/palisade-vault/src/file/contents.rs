//! What is inside of the encryption: names, values, times, as JSON.

use std::collections::BTreeMap;

use palisade_base::{Secret, Timestamp};
use serde::{Deserialize, Serialize};

/// All secrets of a file, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents(BTreeMap<String, Item>);

/// One secret.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) value: Secret<String>,
    pub(super) changed: Timestamp,
}

#[derive(Deserialize)]
struct Document {
    version: u32,
    secrets: BTreeMap<String, Stored>,
}

#[derive(Deserialize)]
struct Stored {
    value: String,
    changed: i64,
}

#[derive(Serialize)]
struct DocumentOut<'a> {
    version: u32,
    secrets: BTreeMap<&'a str, StoredOut<'a>>,
}

#[derive(Serialize)]
struct StoredOut<'a> {
    value: &'a str,
    changed: i64,
}

impl Contents {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        // The error of the JSON reader may quote a value.
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| format!("not the JSON that was expected, line {}", error.line()))?;
        if document.version != 1 {
            return Err(format!("it is of version {}, which a newer Palisade writes", document.version));
        }
        let item = |stored: Stored| Item { value: Secret::new(stored.value), changed: Timestamp(stored.changed) };
        Ok(Self(document.secrets.into_iter().map(|(name, stored)| (name, item(stored))).collect()))
    }

    pub(super) fn write(&self) -> Secret<Vec<u8>> {
        let secrets = self
            .0
            .iter()
            .map(|(name, item)| (name.as_str(), StoredOut { value: item.value.expose(), changed: item.changed.0 }));
        let document = DocumentOut { version: 1, secrets: secrets.collect() };
        // Room for all of it at once, so that no copy is left behind by a buffer that grew.
        let bytes: usize = self.0.iter().map(|(name, item)| 64 + name.len() + 2 * item.value.expose().len()).sum();
        let mut out = Vec::with_capacity(64 + bytes);
        // Writing strings and numbers into memory does not fail.
        let _ = serde_json::to_writer(&mut out, &document);
        Secret::new(out)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Item> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Item)> {
        self.0.iter()
    }

    pub(super) fn insert(&mut self, name: String, item: Item) {
        self.0.insert(name, item);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
