//! What rules keep from one request to the next: `initcol` opens a collection, such as `IP` of an address.
//!
//! One memory a gateway, for all its rule sets. It outlives policies, so that a reload forgets no counter, and is bounded
//! whatever rules keep of what clients send.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use palisade_seclang::{Collections, Entry, MemoryCollections};

/// Most collections; when they are that many, another one leaves.
const MOST: usize = 10_000;
/// Most bytes of the variables of one.
const BYTES: usize = 4 << 10;
/// Longer keys are kept by their digest.
const KEY: usize = 64;
/// What a variable takes beside its name and value.
const OF_ENTRY: usize = 96;

/// All collections.
#[derive(Debug)]
pub(super) struct Memory(MemoryCollections);

impl Default for Memory {
    fn default() -> Self {
        Self(MemoryCollections::new(MOST))
    }
}

/// The memory as one rule set sees it.
#[derive(Debug)]
pub(super) struct Keeper {
    memory: Arc<Memory>,
    used: AtomicBool,
}

impl Keeper {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, used: AtomicBool::new(false) }
    }

    /// Whether a rule has opened a collection: transactions of other rules have nothing to keep.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

impl Collections for Keeper {
    fn load(&self, collection: &str, key: &[u8]) -> Vec<Entry> {
        self.used.store(true, Ordering::Relaxed);
        self.memory.0.load(collection, &short(key))
    }

    fn save(&self, collection: &str, key: &[u8], entries: Vec<Entry>) {
        let (mut entries, mut room) = (entries, BYTES);
        // In the order in which they were made: what a client adds pushes no counter out.
        entries.retain(|entry| {
            let bytes = entry.name.len().saturating_add(entry.value.len()).saturating_add(OF_ENTRY);
            let fits = bytes <= room;
            room = room.saturating_sub(if fits { bytes } else { 0 });
            fits
        });
        self.memory.0.save(collection, &short(key), entries);
    }
}

/// A key may hold whatever a client sends.
fn short(key: &[u8]) -> Cow<'_, [u8]> {
    if key.len() <= KEY { Cow::Borrowed(key) } else { Cow::Owned(digest(&SHA256, key).as_ref().to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, bytes: usize) -> Entry {
        Entry { name: name.into(), value: vec![b'1'; bytes], expires: u64::MAX }
    }

    fn names(kept: &Keeper, key: &[u8]) -> Vec<String> {
        kept.load("IP", key).into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let memory = Arc::new(Memory::default());
        let (kept, other) = (Keeper::new(Arc::clone(&memory)), Keeper::new(memory));
        assert!(!kept.is_used());
        kept.save("IP", b"a", vec![entry("count", 1), entry("long", BYTES), entry("text", 100)]);
        assert_eq!(names(&kept, b"a"), ["count", "text"], "one that is too long leaves no other out");
        assert_eq!(names(&other, b"a"), ["count", "text"], "one memory for all rule sets");
        assert!(kept.is_used());
        kept.save("IP", b"b", (0..1000).map(|n| entry(&n.to_string(), 0)).collect());
        let many = names(&kept, b"b");
        assert!((10..=BYTES / OF_ENTRY).contains(&many.len()) && many[0] == "0", "{many:?}");
        kept.save("IP", &[b'k'; 100_000], vec![entry("count", 1)]);
        assert_eq!(names(&kept, &[b'k'; 100_000]), ["count"]);
        assert!(names(&kept, &[b'k'; 100_001]).is_empty() && short(&[b'k'; 100_000]).len() <= KEY);
        for n in 0..MOST + 100 {
            kept.save("IP", n.to_string().as_bytes(), vec![entry("count", 1)]);
        }
        let left = (0..MOST + 100).filter(|n| !names(&kept, n.to_string().as_bytes()).is_empty()).count();
        assert!(left <= MOST && left > MOST / 2, "{left}");
    }
}
