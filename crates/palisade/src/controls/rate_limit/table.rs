//! Who has used how much: a bounded map from key to the time at which the bucket is full again.
//!
//! One table a process, which outlives policies. 72 shards of 14,336 keys hold a million of them; a key costs 24 bytes
//! and one of index, 29 with the table's free places at the bound, so that the whole takes 30 MB at most and nothing
//! before it is used. An idle key, one whose bucket is full, says nothing and leaves first. When all are busy, new
//! addresses share one bucket per /16 (/48): whoever fills the table limits their own neighbours, not everybody. Who gets
//! a bucket of their own later begins it with what that shared one owes, so that a full table sets nobody free.
//!
//! A shard's time does not go back: the attempts that it sees are those of the model in some order of time, whatever the
//! order in which their requests began.
//!
//! What is counted in several buckets takes from all of them or from none, under the locks of all of them: a request that
//! one limit refuses is never seen by another, not even for a moment.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, MutexGuard};

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
    /// The latest time that it was asked at.
    latest: u64,
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
    /// Until when a shared bucket owes something, in the table's time.
    shared_until: AtomicU64,
}

/// One bucket that a request is counted in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket<'q> {
    /// Its own.
    pub(super) key: Key,
    /// The one it shares where there is no place for another key.
    pub(super) neighbours: Key,
    pub(super) quota: &'q Quota,
    /// Which limit of the plan this is.
    pub(super) limit: u8,
}

/// Buckets of one request at most: eight rates of the default and eight by header, each with a wide one for IPv6.
pub(super) const MOST: usize = 32;

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
        let shared_until = AtomicU64::new(0);
        Self {
            shards: make(shards),
            wide: make(WIDE_SHARDS),
            shard_keys,
            wide_keys,
            hasher,
            secret,
            start,
            shared_until,
        }
    }

    /// A point of the monotonic clock as the table counts it: nanoseconds since its start.
    pub(super) fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A value of a client's choice as a subject: a keyed hash, so that nobody can find two that are one.
    pub(super) fn subject(&self, value: &[u8]) -> u64 {
        self.hasher.hash_one(value)
    }

    /// Takes `cost` units from each of the buckets at `now`, or from none. Says which has least left, or which refused.
    pub(super) fn take_all<'b, 'q>(
        &self,
        buckets: impl IntoIterator<Item = &'b Bucket<'q>, IntoIter: Clone>,
        cost: u32,
        now: u64,
    ) -> Option<(Bucket<'q>, Outcome)>
    where
        'q: 'b,
    {
        let buckets = buckets.into_iter();
        let mut first = buckets.clone();
        let one = first.next()?;
        if first.next().is_none() {
            return Some((*one, self.take(one, cost, now).0));
        }
        // Always in the same order, so that two requests never wait for each other.
        let mut order = [usize::MAX; MOST];
        for (place, bucket) in order.iter_mut().zip(buckets.clone()) {
            *place = place_of(&self.shards, self.hash(bucket.key));
        }
        order.sort_unstable();
        let mut locked: [Option<MutexGuard<'_, Shard>>; MOST] = [const { None }; MOST];
        for number in 0..MOST {
            if order[number] == usize::MAX {
                break;
            }
            if number == 0 || order[number - 1] != order[number] {
                locked[number] = Some(self.shards[order[number]].lock());
            }
        }
        let mut least: Option<(Bucket<'q>, Outcome)> = None;
        let mut refused: Option<(Bucket<'q>, Outcome)> = None;
        let mut stores = [Store::Shared; MOST];
        for (store, bucket) in stores.iter_mut().zip(buckets.clone()) {
            let hash = self.hash(bucket.key);
            let Some(shard) = own(&order, &mut locked, place_of(&self.shards, hash)) else { continue };
            let now = shard.at(now);
            let known = shard.slots.find(hash, |slot| slot.key == bucket.key).map(|slot| slot.full_at);
            let full_at = match known {
                Some(full_at) => full_at,
                None if shard.slots.len() >= self.shard_keys && !shard.sweep(now) => continue,
                None => self.owed(bucket, now),
            };
            let outcome = bucket.quota.take(full_at, cost, now);
            let Some(full_at) = outcome.store else {
                if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key == bucket.key) {
                    slot.full_at = slot.full_at.min(outcome.owed);
                }
                // Of several that refuse, the one that does longest: whoever comes back then is not refused again.
                if refused.is_none_or(|(_, other)| outcome.wait > other.wait) {
                    refused = Some((*bucket, outcome));
                }
                continue;
            };
            *store = Store::Own(full_at);
            if least.is_none_or(|(_, least)| outcome.left < least.left) {
                least = Some((*bucket, outcome));
            }
        }
        if refused.is_some() {
            return refused;
        }
        // Shared buckets are the exception, and an approximation anyway: taken one by one, given back on a refusal.
        for (number, (store, bucket)) in stores.iter().zip(buckets.clone()).enumerate() {
            if !matches!(store, Store::Shared) {
                continue;
            }
            let outcome = self.take_shared(bucket, cost, now);
            if outcome.store.is_none() {
                for (_, bucket) in
                    stores.iter().zip(buckets).take(number).filter(|(store, _)| matches!(store, Store::Shared))
                {
                    self.give_back_shared(bucket, cost);
                }
                return Some((*bucket, outcome));
            }
            if least.is_none_or(|(_, least)| outcome.left < least.left) {
                least = Some((*bucket, outcome));
            }
        }
        for (store, bucket) in stores.iter().zip(buckets) {
            let Store::Own(full_at) = *store else { continue };
            let (key, hash) = (bucket.key, self.hash(bucket.key));
            let Some(shard) = own(&order, &mut locked, place_of(&self.shards, hash)) else { continue };
            match shard.slots.find_mut(hash, |slot| slot.key == key) {
                Some(slot) => slot.full_at = full_at,
                None => drop(shard.slots.insert_unique(hash, Slot { key, full_at }, |slot| self.hash(slot.key))),
            }
        }
        least
    }

    /// Takes `cost` units from one bucket.
    pub(super) fn take(&self, bucket: &Bucket<'_>, cost: u32, now: u64) -> (Outcome, Place) {
        let hash = self.hash(bucket.key);
        let mut shard = self.shards[place_of(&self.shards, hash)].lock();
        let owed = |now| self.owed(bucket, now);
        if let Some(outcome) =
            self.take_in(&mut shard, self.shard_keys, bucket.key, hash, bucket.quota, cost, (now, owed))
        {
            return (outcome, Place::Own);
        }
        drop(shard);
        (self.take_shared(bucket, cost, now), Place::Shared)
    }

    /// When a bucket that is new here is full: at once, unless its neighbours share one that is not.
    fn owed(&self, bucket: &Bucket<'_>, now: u64) -> u64 {
        if self.shared_until.load(Ordering::Relaxed) <= now { now } else { self.owed_by_neighbours(bucket, now) }
    }

    #[cold]
    fn owed_by_neighbours(&self, bucket: &Bucket<'_>, now: u64) -> u64 {
        let find = |key: Key| {
            let hash = self.hash(key);
            let shard = self.wide[place_of(&self.wide, hash)].lock();
            shard.slots.find(hash, |slot| slot.key == key).map(|slot| slot.full_at)
        };
        find(bucket.neighbours).or_else(|| find(rest(bucket))).unwrap_or(now)
    }

    #[cold]
    fn take_shared(&self, bucket: &Bucket<'_>, cost: u32, now: u64) -> Outcome {
        let Bucket { neighbours, quota, .. } = *bucket;
        let take = |key: Key, bound: usize| {
            let hash = self.hash(key);
            let mut shard = self.wide[place_of(&self.wide, hash)].lock();
            self.take_in(&mut shard, bound, key, hash, quota, cost, (now, |now| now))
        };
        let outcome = take(neighbours, self.wide_keys)
            // More networks than places: one bucket for the rest of the world. There are few limits, so these always fit.
            .or_else(|| take(rest(bucket), usize::MAX))
            .unwrap_or(Outcome { store: None, owed: now, left: 0, wait: SWEEP_NANOS });
        if let Some(full_at) = outcome.store {
            self.shared_until.fetch_max(full_at, Ordering::Relaxed);
        }
        outcome
    }

    /// `None`: the shard is full of busy keys, and this is not one of them.
    #[expect(clippy::too_many_arguments, reason = "one place, called with what its callers have at hand")]
    fn take_in(
        &self,
        shard: &mut Shard,
        bound: usize,
        key: Key,
        hash: u64,
        quota: &Quota,
        cost: u32,
        (now, new): (u64, impl FnOnce(u64) -> u64),
    ) -> Option<Outcome> {
        let now = shard.at(now);
        if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key == key) {
            let outcome = quota.take(slot.full_at, cost, now);
            if let Some(full_at) = outcome.store {
                slot.full_at = full_at;
            } else {
                slot.full_at = slot.full_at.min(outcome.owed);
            }
            return Some(outcome);
        }
        if shard.slots.len() >= bound && !shard.sweep(now) {
            return None;
        }
        let outcome = quota.take(new(now), cost, now);
        if let Some(full_at) = outcome.store {
            shard.slots.insert_unique(hash, Slot { key, full_at }, |slot| self.hash(slot.key));
        }
        Some(outcome)
    }

    /// Gives `cost` units back to a shared bucket.
    fn give_back_shared(&self, bucket: &Bucket<'_>, cost: u32) {
        let hash = self.hash(bucket.neighbours);
        let mut shard = self.wide[place_of(&self.wide, hash)].lock();
        if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key == bucket.neighbours) {
            slot.full_at = slot.full_at.saturating_sub(bucket.quota.worth(cost));
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
fn place_of(shards: &[Mutex<Shard>], hash: u64) -> usize {
    let bits = (hash >> 24) & 0xffff_ffff;
    let place = (bits * shards.len() as u64) >> 32;
    usize::try_from(place).unwrap_or_default()
}

/// The bucket of all networks that have none.
fn rest(bucket: &Bucket<'_>) -> Key {
    Key { limit: bucket.neighbours.limit, subject: u64::MAX }
}

#[derive(Debug, Clone, Copy)]
enum Store {
    Own(u64),
    Shared,
}

/// A shard among those that are locked.
fn own<'l>(
    order: &[usize; MOST],
    locked: &'l mut [Option<MutexGuard<'_, Shard>>; MOST],
    place: usize,
) -> Option<&'l mut Shard> {
    let number = order.partition_point(|other| *other < place);
    locked.get_mut(number)?.as_deref_mut()
}

impl Shard {
    /// The time of an attempt, which never goes back here: requests do not come in the order in which they began. As of a
    /// moment ago a bucket would seem to owe less than it does by now, and those that come next would get the difference.
    fn at(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        self.latest
    }

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
    use std::iter::repeat_with;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::super::gcra::Model;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(subject: u64) -> Key {
        Key { limit: 7, subject }
    }

    fn bucket(subject: u64, neighbours: u64, quota: &Quota) -> Bucket<'_> {
        Bucket { key: key(subject), neighbours: key(neighbours), quota, limit: 0 }
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
                        let (outcome, place) = table.take(&bucket(1, 2, &quota), 1, 5);
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
        let again = (0..2000).filter(|_| table.take(&bucket(1, 2, &quota), 1, 5 + 30 * SECOND).0.store.is_some());
        assert_eq!(again.count(), 500);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn in_no_order_of_time_more_passes_than_in_the_model(
            burst in 1u32..12,
            asked in prop::collection::vec((0u64..3000, 1u32..3), 1..300),
        ) {
            let quota = Quota::new("1000/second".parse().unwrap(), burst).unwrap();
            let table = Table::new(Instant::now());
            let (mut model, mut latest) = (Model::default(), 0);
            for (permille, cost) in asked {
                let now = SECOND + quota.tolerance() * permille / 1000;
                latest = now.max(latest);
                // More than there ever is is refused without a look at the time.
                let cost = cost.min(burst);
                let passes = table.take(&bucket(1, 2, &quota), cost, now).0.store.is_some();
                prop_assert_eq!(passes, model.take(SECOND / 1000, burst as usize, cost, latest));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn sixty_four_threads_get_what_the_model_gives_whatever_time_they_began_at(
            burst in 2u32..12,
            began in prop::collection::vec(0u64..1000, 64 * 8),
        ) {
            let quota = Quota::new("1000/second".parse().unwrap(), burst).unwrap();
            let plenty = Quota::new("100000/second".parse().unwrap(), 100_000).unwrap();
            let table = Table::new(Instant::now());
            let ask = |now: u64| table.take(&bucket(1, 2, &quota), 1, now).0.store.is_some();
            let beside = |now: u64| {
                let both = [bucket(1, 2, &quota), Bucket { limit: 1, ..bucket(3, 2, &plenty) }];
                table.take_all(&both, 1, now).is_some_and(|(_, outcome)| outcome.store.is_some())
            };
            let mut model = Model::default();
            let mut modelled = |now: u64| model.take(SECOND / 1000, burst as usize, 1, now);
            // Empty at first, and not full again before the last of them: in every order just as many pass.
            for _ in 0..burst {
                prop_assert!(ask(SECOND) && modelled(SECOND));
            }
            let times: Vec<u64> =
                began.iter().map(|permille| SECOND + quota.tolerance() * permille / 1000).collect();
            let latest = times.iter().copied().fold(SECOND, u64::max);
            let passed = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for (number, times) in times.chunks(8).enumerate() {
                    let (ask, beside, passed) = (&ask, &beside, &passed);
                    scope.spawn(move || {
                        for now in times {
                            let passes = if number % 2 == 0 { ask(*now) } else { beside(*now) };
                            passed.fetch_add(u64::from(passes), Ordering::Relaxed);
                        }
                    });
                }
            });
            let rest = repeat_with(|| ask(latest)).take_while(|passes| *passes).count() as u64;
            let expected = repeat_with(|| modelled(latest)).take_while(|passes| *passes).count() as u64;
            prop_assert_eq!(passed.into_inner() + rest, expected);
        }
    }

    #[test]
    fn a_refused_late_comer_lowers_no_debt() {
        let table = Table::new(Instant::now());
        let quota = Quota::new("1/second".parse().unwrap(), 1).unwrap();
        let ask = |now: u64| table.take(&bucket(1, 2, &quota), 1, now * SECOND).0.store.is_some();
        assert_eq!([ask(10), ask(9), ask(10), ask(11)], [true, false, false, true]);
        // A look that takes nothing does not either.
        table.take(&bucket(1, 2, &quota), 0, 9 * SECOND);
        assert_eq!([ask(11), ask(12)], [false, true]);
    }

    #[test]
    fn idle_keys_leave_first_and_newcomers_share() {
        let table = Table::sized(Instant::now(), 1, 100, 4);
        let quota = Quota::new("2/minute".parse().unwrap(), 2).unwrap();
        let take = |subject: u64, network: u64, now: u64| table.take(&bucket(subject, network << 32, &quota), 1, now);
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
            .filter(|subject| table.take(&bucket(*subject, subject >> 16, &quota), 1, 1).1 == Place::Shared)
            .count();
        assert!(shared < 1000, "{shared}");
        for subject in 1_000_000..1_300_000u64 {
            table.take(&bucket(subject, subject >> 16, &quota), 1, 1);
        }
        assert!(table.len() <= SHARDS * SHARD_KEYS + 300_000 / 65_536 + 20, "{}", table.len());
        let capacity: usize = table.shards.iter().map(|shard| shard.lock().slots.capacity()).sum();
        assert!(capacity <= SHARDS * SHARD_KEYS, "{capacity}");
        assert_eq!(std::mem::size_of::<Slot>(), 24);
    }

    #[test]
    fn all_buckets_or_none_also_for_those_who_look_at_the_same_moment() {
        // An address with plenty, and two tenants of which one has used up its own: whatever that one tries, the other
        // never finds a unit of the address missing.
        let table = Table::new(Instant::now());
        let address = Quota::new("1000/hour".parse().unwrap(), 1000).unwrap();
        let tenant = Quota::new("1/hour".parse().unwrap(), 1).unwrap();
        let plenty = Quota::new("5000/hour".parse().unwrap(), 5000).unwrap();
        let ask = |who: u64, quota: &Quota| {
            let both = [bucket(1, 2, &address), Bucket { limit: 1, ..bucket(who, 2, quota) }];
            let (bucket, outcome) = table.take_all(&both, 1, 5).unwrap();
            (bucket.limit, outcome)
        };
        assert!(ask(10, &tenant).1.store.is_some());
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..64 {
                let (ask, passed) = (&ask, &passed);
                let (tenant, plenty) = (&tenant, &plenty);
                scope.spawn(move || {
                    for _ in 0..100 {
                        if thread % 2 == 0 {
                            let (refused, outcome) = ask(10, tenant);
                            assert_eq!((refused, outcome.store), (1, None));
                        } else {
                            let (least, outcome) = ask(11, plenty);
                            let before = passed.fetch_add(u64::from(outcome.store.is_some()), Ordering::Relaxed);
                            assert_eq!(least, 0);
                            assert!(outcome.store.is_some() || before >= 999 - 32, "refused after {before}");
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 999);
        assert!(table.take(&bucket(1, 2, &address), 1, 5).0.store.is_none());
    }

    #[test]
    fn of_several_that_refuse_the_longest_is_told() {
        let table = Table::new(Instant::now());
        let second = Quota::new("1/second".parse().unwrap(), 1).unwrap();
        let day = Quota::new("1/day".parse().unwrap(), 1).unwrap();
        for (number, limits) in [(10, [&second, &day]), (20, [&day, &second])] {
            let both = [bucket(number, 2, limits[0]), bucket(number + 1, 4, limits[1])];
            table.take_all(&both, 1, 1);
            let (_, outcome) = table.take_all(&both, 1, 1).unwrap();
            assert_eq!((outcome.store, outcome.wait), (None, 86_400 * SECOND));
        }
    }

    #[test]
    fn a_full_table_sets_nobody_free() {
        // A model beside the table: of each address the units it got, by time. Twice as many as fit, over ten minutes.
        const CAPACITY: u64 = 2000;
        let table = Table::sized(Instant::now(), 4, 500, 64);
        let quota = Quota::new("3/minute".parse().unwrap(), 3).unwrap();
        let ask =
            |who: u64, now: u64| table.take(&bucket(who, (1 << 40) + (who >> 8), &quota), 1, now).0.store.is_some();
        let mut got = vec![Vec::new(); 2 * CAPACITY as usize];
        let mut limited = 0;
        for round in 0..60 {
            let now = (1 + round * 10) * SECOND;
            // Those of before come again and again; the flood moves through the rest.
            let flood = (round * 200) % CAPACITY;
            for who in (0..CAPACITY / 4).chain(CAPACITY + flood..CAPACITY + flood + 1500.min(CAPACITY - flood)) {
                for _ in 0..5 {
                    if ask(who, now) {
                        got[usize::try_from(who).unwrap()].push(now);
                    } else {
                        limited += 1;
                    }
                }
            }
        }
        assert!(limited > 10_000);
        for (who, times) in got.iter().enumerate() {
            for (number, end) in times.iter().enumerate() {
                // In any stretch of time: what is there from rest, and what comes back within it.
                let earliest = times[number.saturating_sub(20)..=number].iter();
                for (more, start) in (0..=number.min(20)).rev().zip(earliest) {
                    let allowed = 3 + (end - start) / (20 * SECOND);
                    assert!((more as u64) < allowed, "{who}: {} within {} s", more + 1, (end - start) / SECOND);
                }
            }
        }
        assert!(table.len() as u64 <= CAPACITY + 16 * 64 + 1);
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
