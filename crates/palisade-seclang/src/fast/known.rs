//! What the filter said of a value before.
//!
//! Clients send the same names and headers again and again: what they are candidates for is kept from one transaction to the
//! next, by the thread. Never for what a request is about: the values of its arguments and cookies, its body and its target.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

/// Longer values are not kept: `User-Agent` of today's browsers fits.
pub(crate) const LONGEST: usize = 160;
/// The class of names of variables of `TX` that rules make.
pub(crate) const TX_NAMES: usize = 64;

/// Values that share a place's number; one that comes to a full place takes another's.
const WAYS: usize = 4;
const PLACES: usize = 128;

/// A hash under a key that nobody can guess. Who finds two values of the same hash all the same pushes one out with the
/// other, and no more.
#[derive(Debug, Clone)]
pub(crate) struct Key(u64, u64);

impl Key {
    pub(crate) fn new() -> Key {
        let random = || RandomState::new().build_hasher().finish();
        Key(random(), random() | 1)
    }

    pub(crate) fn hash(&self, class: usize, value: &[u8]) -> u64 {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let mut hash = fold(self.0 ^ class as u64 ^ (value.len() as u64) << 32, self.1);
        let (words, rest) = value.as_chunks::<8>();
        for word in words {
            hash = fold(hash ^ u64::from_le_bytes(*word), self.1);
        }
        let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        fold(fold(hash ^ tail, self.1), self.0 | 1)
    }
}

/// Values with what they met: rules, conditions.
#[derive(Debug)]
pub(crate) struct Known {
    /// Hashes, place by place: one line of memory tells whether it is worth looking.
    hashes: Vec<[u64; WAYS]>,
    values: Vec<Value>,
    key: Key,
}

#[derive(Debug, Clone)]
struct Value {
    class: u8,
    value: Vec<u8>,
    hits: Vec<u32>,
}

impl Known {
    pub(crate) fn new() -> Known {
        let nothing = Value { class: u8::MAX, value: Vec::new(), hits: Vec::new() };
        Known { hashes: vec![[0; WAYS]; PLACES], values: vec![nothing; PLACES * WAYS], key: Key::new() }
    }

    pub(crate) fn hash(&self, class: usize, value: &[u8]) -> u64 {
        self.key.hash(class, value)
    }

    /// What a value met, if it is known.
    pub(crate) fn get(&self, hash: u64, class: usize, value: &[u8]) -> Option<&[u32]> {
        let place = hash as usize % PLACES;
        let way = self.hashes.get(place)?.iter().position(|known| *known == hash)?;
        let known = self.values.get(place * WAYS + way)?;
        (usize::from(known.class) == class && known.value == value).then_some(&known.hits)
    }

    /// Keeps what a value met.
    pub(crate) fn put(&mut self, hash: u64, class: usize, value: &[u8], hits: &[u32]) {
        let place = hash as usize % PLACES;
        let Some(hashes) = self.hashes.get_mut(place) else { return };
        let same = hashes.iter().position(|known| *known == hash);
        let free = || hashes.iter().position(|known| *known == 0);
        let way = same.or_else(free).unwrap_or((hash >> 32) as usize % WAYS);
        hashes[way] = hash;
        let Some(known) = self.values.get_mut(place * WAYS + way) else { return };
        known.class = class as u8;
        known.value.clear();
        known.value.extend_from_slice(value);
        known.hits.clear();
        known.hits.extend_from_slice(hits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_in_its_class_and_only_whole() {
        let mut known = Known::new();
        for n in 0..10_000u32 {
            let value = format!("value{n}");
            let hash = known.hash(7, value.as_bytes());
            known.put(hash, 7, value.as_bytes(), &[n, n + 1]);
            assert_eq!(known.get(hash, 7, value.as_bytes()), Some(&[n, n + 1][..]));
            assert_eq!(known.get(hash, 8, value.as_bytes()), None);
            assert_eq!(known.get(hash, 7, format!("value{n}0").as_bytes()), None);
        }
        assert_eq!(known.values.len(), PLACES * WAYS);
    }

    /// A handful of values that every request has do not push each other out.
    #[test]
    fn a_few_values_stay() {
        let mut known = Known::new();
        let values: Vec<String> = (0..40).map(|n| format!("header {n}")).collect();
        for value in &values {
            let hash = known.hash(1, value.as_bytes());
            known.put(hash, 1, value.as_bytes(), &[]);
        }
        let there = |value: &&String| known.get(known.hash(1, value.as_bytes()), 1, value.as_bytes()).is_some();
        assert!(values.iter().filter(there).count() >= 38);
    }

    #[test]
    fn hashes_differ_by_class_length_and_byte() {
        let key = Key::new();
        let mut hashes: Vec<u64> = [&b""[..], b"\0", b"\0\0", b"abcdefgh", b"abcdefgh\0", b"abcdefgi", b"bbcdefghi"]
            .iter()
            .flat_map(|value| [key.hash(0, value), key.hash(1, value)])
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 14);
    }
}
