//! Who has used how much: a bounded map from key to the time at which the bucket is full again.
//!
//! One table a process, which outlives policies. 72 shards of 14,336 keys hold a million of them; a key costs 24 bytes
//! and one of index, 29 with the table's free places at the bound, so that the whole takes 30 MB at most and nothing
//! before it is used. An idle key, one whose bucket is full, says nothing and leaves first. When all are busy, new
//! addresses share one bucket per /16 (/48): whoever fills the table limits their own neighbours, not everybody.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use super::gcra::{Outcome, Quota};

/// What is counted: a limit of the policy, and who.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The limit, by a number that stays the same over reloads.
    pub(super) limit: u64,
    /// Who: an address, a network, or the hash of a header's value.
    pub(super) subject: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    full_at: u64,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashTable<Slot>,
    /// Not searched for idle keys again before this time, so that a flood of new keys cannot buy work with each.
    sweep_at: u64,
}

const SHARDS: usize = 72;
const SHARD_KEYS: usize = 14_336;
const WIDE_SHARDS: usize = 16;
const WIDE_KEYS: usize = 7_168;
const SWEEP_NANOS: u64 = 1_000_000_000;

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    wide: Box<[Mutex<Shard>]>,
    shard_keys: usize,
    wide_keys: usize,
    hasher: RandomState,
    secret: [u64; 2],
    start: Instant,
}

/// Where a key was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In its own bucket.
    Own,
    /// In the bucket that it shares with its neighbours.
    Shared,
}

impl Table {
    /// An empty table whose time begins at `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self::sized(start, SHARDS, SHARD_KEYS, WIDE_KEYS)
    }

    fn sized(start: Instant, shards: usize, shard_keys: usize, wide_keys: usize) -> Self {
        let hasher = RandomState::new();
        let secret = [hasher.hash_one(1u8), hasher.hash_one(2u8) | 1];
        let make = |count: usize| (0..count).map(|_| Mutex::default()).collect();
        Self { shards: make(shards), wide: make(WIDE_SHARDS), shard_keys, wide_keys, hasher, secret, start }
    }

    /// A point of the monotonic clock as the table counts it: nanoseconds since its start.
    pub(super) fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A value of a client's choice as a subject: a keyed hash, so that nobody can find two that are one.
    pub(super) fn subject(&self, value: &[u8]) -> u64 {
        self.hasher.hash_one(value)
    }

    /// Takes `cost` units for `key` at `now`, or for `neighbours` where there is no place for another key.
    pub(super) fn take(&self, key: Key, neighbours: Key, quota: &Quota, cost: u32, now: u64) -> (Outcome, Place) {
        let hash = self.hash(key);
        let shard = pick(&self.shards, hash);
        if let Some(outcome) = self.take_in(shard, self.shard_keys, key, hash, quota, cost, now) {
            return (outcome, Place::Own);
        }
        (self.take_shared(neighbours, quota, cost, now), Place::Shared)
    }

    #[cold]
    fn take_shared(&self, neighbours: Key, quota: &Quota, cost: u32, now: u64) -> Outcome {
        let hash = self.hash(neighbours);
        if let Some(outcome) = self.take_in(pick(&self.wide, hash), self.wide_keys, neighbours, hash, quota, cost, now)
        {
            return outcome;
        }
        // More networks than places: one bucket for the rest of the world. There are few limits, so these always fit.
        let rest = Key { limit: neighbours.limit, subject: u64::MAX };
        let hash = self.hash(rest);
        self.take_in(pick(&self.wide, hash), usize::MAX, rest, hash, quota, cost, now).unwrap_or(Outcome {
            store: None,
            left: 0,
            wait: SWEEP_NANOS,
        })
    }

    /// `None`: the shard is full of busy keys, and this is not one of them.
    #[expect(clippy::too_many_arguments, reason = "one place, called with what its callers have at hand")]
    fn take_in(
        &self,
        shard: &Mutex<Shard>,
        bound: usize,
        key: Key,
        hash: u64,
        quota: &Quota,
        cost: u32,
        now: u64,
    ) -> Option<Outcome> {
        let mut shard = shard.lock();
        if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key == key) {
            let outcome = quota.take(slot.full_at, cost, now);
            if let Some(full_at) = outcome.store {
                slot.full_at = full_at;
            }
            return Some(outcome);
        }
        if shard.slots.len() >= bound && !shard.sweep(now) {
            return None;
        }
        let outcome = quota.take(now, cost, now);
        if let Some(full_at) = outcome.store {
            shard.slots.insert_unique(hash, Slot { key, full_at }, |slot| self.hash(slot.key));
        }
        Some(outcome)
    }

    /// Gives `cost` units back, because another limit refused what they were taken for.
    pub(super) fn give_back(&self, key: Key, neighbours: Key, place: Place, quota: &Quota, cost: u32) {
        let (key, shards) = match place {
            Place::Own => (key, &self.shards),
            Place::Shared => (neighbours, &self.wide),
        };
        let hash = self.hash(key);
        let mut shard = pick(shards, hash).lock();
        if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key == key) {
            slot.full_at = slot.full_at.saturating_sub(quota.worth(cost));
        }
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().chain(&self.wide).map(|shard| shard.lock().slots.len()).sum()
    }

    fn hash(&self, key: Key) -> u64 {
        // Two multiplications with secrets: subjects are chosen by clients, and a client must not choose their places.
        let mixed = fold(key.subject ^ self.secret[0], key.limit ^ self.secret[1]);
        fold(mixed ^ self.secret[1], 0x9e37_79b9_7f4a_7c15 ^ self.secret[0])
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// By bits that the table inside uses neither for its places nor for its tags.
fn pick(shards: &[Mutex<Shard>], hash: u64) -> &Mutex<Shard> {
    let bits = (hash >> 24) & 0xffff_ffff;
    let place = (bits * shards.len() as u64) >> 32;
    &shards[usize::try_from(place).unwrap_or_default()]
}

impl Shard {
    /// Makes place by dropping idle keys. False: none was idle, or it was looked for a moment ago.
    fn sweep(&mut self, now: u64) -> bool {
        if now < self.sweep_at {
            return false;
        }
        self.sweep_at = now.saturating_add(SWEEP_NANOS);
        let before = self.slots.len();
        self.slots.retain(|slot| slot.full_at > now);
        self.slots.len() < before
    }
}

/// How many requests of a key are on their way just now.
#[derive(Debug, Default)]
pub(super) struct Flights {
    shards: [Mutex<HashTable<(Key, u32)>>; 16],
    hasher: RandomState,
}

/// A bound that real limits on connections reach first.
const FLIGHT_KEYS: usize = 65_536;

impl Flights {
    /// Takes a place for one more, where fewer than `most` are on their way.
    pub(super) fn take(&self, key: Key, most: u32) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[(hash >> 24) as usize % 16].lock();
        let full = shard.len() >= FLIGHT_KEYS;
        match shard.entry(hash, |(other, _)| *other == key, |(other, _)| self.hasher.hash_one(other)) {
            Entry::Occupied(mut entry) => {
                let (_, count) = entry.get_mut();
                let free = *count < most;
                *count += u32::from(free);
                free
            }
            Entry::Vacant(_) if full || most == 0 => false,
            Entry::Vacant(entry) => {
                entry.insert((key, 1));
                true
            }
        }
    }

    /// Gives the place back.
    pub(super) fn give_back(&self, key: Key) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[(hash >> 24) as usize % 16].lock();
        if let Ok(mut entry) = shard.find_entry(hash, |(other, _)| *other == key) {
            let (_, count) = entry.get_mut();
            *count = count.saturating_sub(1);
            if *count == 0 {
                entry.remove();
            }
        }
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const SECOND: u64 = 1_000_000_000;

    fn key(subject: u64) -> Key {
        Key { limit: 7, subject }
    }

    #[test]
    fn exact_under_sixty_four_threads() {
        let table = Table::new(Instant::now());
        let quota = Quota::new("1000/minute".parse().unwrap(), 1000).unwrap();
        let (passed, left_zero) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let (outcome, place) = table.take(key(1), key(2), &quota, 1, 5);
                        assert_eq!(place, Place::Own);
                        if outcome.store.is_some() {
                            passed.fetch_add(1, Ordering::Relaxed);
                            left_zero.fetch_add(u64::from(outcome.left == 0), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((passed.into_inner(), left_zero.into_inner()), (1000, 1));
        // 30 s later exactly half of it is back.
        let again = (0..2000).filter(|_| table.take(key(1), key(2), &quota, 1, 5 + 30 * SECOND).0.store.is_some());
        assert_eq!(again.count(), 500);
    }

    #[test]
    fn idle_keys_leave_first_and_newcomers_share() {
        let table = Table::sized(Instant::now(), 1, 100, 4);
        let quota = Quota::new("2/minute".parse().unwrap(), 2).unwrap();
        let take = |subject: u64, network: u64, now: u64| table.take(key(subject), key(network << 32), &quota, 1, now);
        for subject in 0..100 {
            assert_eq!(take(subject, 1, SECOND).1, Place::Own);
        }
        // All busy: newcomers of one network share a bucket, those who are known keep theirs.
        assert_eq!((take(200, 1, SECOND).1, take(201, 1, SECOND).1), (Place::Shared, Place::Shared));
        assert!(take(202, 1, SECOND).0.store.is_none());
        assert!(take(203, 2, SECOND).0.store.is_some());
        assert!(take(50, 1, SECOND).0.store.is_some() && take(50, 1, SECOND).0.store.is_none());
        // More networks than places: bounded all the same.
        for network in 3..500 {
            take(1000 + network, network, SECOND);
        }
        assert!(table.len() <= 100 + 16 * 4 + 1, "{}", table.len());
        // Two periods later everybody is idle, and one sweep makes place.
        assert_eq!(take(300, 1, 200 * SECOND).1, Place::Own);
        assert_eq!(table.shards[0].lock().slots.len(), 1);
    }

    #[test]
    fn a_million_keys_have_places() {
        let table = Table::new(Instant::now());
        let quota = Quota::new("1000/minute".parse().unwrap(), 1000).unwrap();
        let shared = (0..1_000_000u64)
            .filter(|subject| table.take(key(*subject), key(subject >> 16), &quota, 1, 1).1 == Place::Shared)
            .count();
        assert!(shared < 1000, "{shared}");
        for subject in 1_000_000..1_300_000u64 {
            table.take(key(subject), key(subject >> 16), &quota, 1, 1);
        }
        assert!(table.len() <= SHARDS * SHARD_KEYS + 300_000 / 65_536 + 20, "{}", table.len());
        let capacity: usize = table.shards.iter().map(|shard| shard.lock().slots.capacity()).sum();
        assert!(capacity <= SHARDS * SHARD_KEYS, "{capacity}");
        assert_eq!(std::mem::size_of::<Slot>(), 24);
    }

    #[test]
    fn what_was_taken_can_be_given_back() {
        let table = Table::new(Instant::now());
        let quota = Quota::new("1/minute".parse().unwrap(), 1).unwrap();
        assert!(table.take(key(1), key(2), &quota, 1, 1).0.store.is_some());
        assert!(table.take(key(1), key(2), &quota, 1, 1).0.store.is_none());
        table.give_back(key(1), key(2), Place::Own, &quota, 1);
        assert!(table.take(key(1), key(2), &quota, 1, 1).0.store.is_some());
    }

    #[test]
    fn flights_are_counted_and_forgotten() {
        let flights = Flights::default();
        assert!(flights.take(key(1), 2) && flights.take(key(1), 2) && !flights.take(key(1), 2));
        flights.give_back(key(1));
        assert!(flights.take(key(1), 2));
        flights.give_back(key(1));
        flights.give_back(key(1));
        assert_eq!(flights.len(), 0);
    }
}
