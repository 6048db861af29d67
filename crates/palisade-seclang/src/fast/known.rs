//! What the filter said of a value before.
//!
//! Clients send the same names and headers again and again: what they are candidates for is kept from one transaction to the
//! next, by the transaction that is used again. Never for what a request is about: the values of its arguments and cookies,
//! its body and its target.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use crate::transform::Transform;

/// Longer values are not kept: `User-Agent` of today's browsers fits.
pub(crate) const LONGEST: usize = 160;
/// How many values are kept. One that comes to the place of another takes it.
const PLACES: usize = 256;

/// How many digests are kept.
const DIGESTS: usize = 32;
/// The class of names of variables of `TX` that rules make.
pub(crate) const TX_NAMES: usize = 64;

/// Values with the rules that they are candidates for.
#[derive(Debug)]
pub(crate) struct Known {
    places: Vec<Place>,
    hasher: RandomState,
}

#[derive(Debug, Clone)]
struct Place {
    class: u8,
    value: Vec<u8>,
    rules: Vec<u32>,
}

impl Known {
    pub(crate) fn new() -> Known {
        let place = Place { class: u8::MAX, value: Vec::new(), rules: Vec::new() };
        Known { places: vec![place; PLACES], hasher: RandomState::new() }
    }

    /// Where a value of a class belongs.
    pub(crate) fn place(&self, class: usize, value: &[u8]) -> usize {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_usize(class);
        hasher.write(value);
        hasher.finish() as usize % PLACES
    }

    /// The rules of a value, if it is known.
    pub(crate) fn get(&self, place: usize, class: usize, value: &[u8]) -> Option<&[u32]> {
        let known = self.places.get(place)?;
        (usize::from(known.class) == class && known.value == value).then_some(&known.rules)
    }

    /// Keeps the rules of a value.
    pub(crate) fn put(&mut self, place: usize, class: usize, value: &[u8], rules: &[u32]) {
        let Some(known) = self.places.get_mut(place) else { return };
        known.class = class as u8;
        known.value.clear();
        known.value.extend_from_slice(value);
        known.rules.clear();
        known.rules.extend_from_slice(rules);
    }
}

/// Texts that chains with a digest made: of a client's name, for one, to know it by.
#[derive(Debug)]
pub(crate) struct Digests {
    places: Vec<Digest>,
    hasher: RandomState,
}

#[derive(Debug, Default, Clone)]
struct Digest {
    chain: Option<Arc<[Transform]>>,
    value: Vec<u8>,
    text: Vec<u8>,
}

impl Digests {
    pub(crate) fn new() -> Digests {
        Digests { places: vec![Digest::default(); DIGESTS], hasher: RandomState::new() }
    }

    /// What a chain makes of a value: `make` appends it where it is not known.
    pub(crate) fn get(&mut self, chain: &Arc<[Transform]>, value: &[u8], make: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(value);
        let at = hasher.finish() as usize % DIGESTS;
        let place = &mut self.places[at];
        if !place.chain.as_ref().is_some_and(|known| Arc::ptr_eq(known, chain)) || place.value != value {
            place.chain = Some(Arc::clone(chain));
            place.value.clear();
            place.value.extend_from_slice(value);
            place.text.clear();
            make(&mut place.text);
        }
        &place.text
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
            let place = known.place(7, value.as_bytes());
            known.put(place, 7, value.as_bytes(), &[n, n + 1]);
            assert_eq!(known.get(place, 7, value.as_bytes()), Some(&[n, n + 1][..]));
            assert_eq!(known.get(place, 8, value.as_bytes()), None);
            assert_eq!(known.get(place, 7, format!("value{n}0").as_bytes()), None);
        }
        assert_eq!(known.places.len(), PLACES);
    }

    #[test]
    fn a_digest_is_of_its_chain_and_value() {
        let mut digests = Digests::new();
        let chains: [Arc<[Transform]>; 2] = [[Transform::Sha1][..].into(), [Transform::Sha1][..].into()];
        for round in 0..2 {
            for n in 0..100u8 {
                for (i, chain) in chains.iter().enumerate() {
                    let text = digests.get(chain, &[n], |out| out.extend_from_slice(&[n, i as u8]));
                    assert_eq!(text, [n, i as u8], "{round}");
                }
            }
        }
        let again = digests.get(&chains[1], &[99], |_| panic!("it is known"));
        assert_eq!(again, [99, 1]);
    }
}
