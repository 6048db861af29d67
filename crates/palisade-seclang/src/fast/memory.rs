//! What a thread keeps from one transaction to the next, by rule set.
//!
//! Everything here is a pure function of the rules and of what it is kept under, compared in full; everything is bounded
//! in number and in length.

use std::cell::RefCell;
use std::sync::Arc;

use super::known::{Key, Known};
use crate::transform::Transform;

/// Rule sets of which a thread keeps something; the one used longest ago goes.
const SETS: usize = 4;
/// How many digests are kept, and how many outcomes.
const DIGESTS: usize = 32;
const OUTCOMES: usize = 64;
/// Longest names of the headers of a request, all together, that an outcome is kept under.
pub(crate) const LONGEST_NAMES: usize = 1024;

thread_local! {
    static KEPT: RefCell<Vec<(u64, Box<Memory>)>> = const { RefCell::new(Vec::new()) };
}

/// What is kept.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) known: Known,
    pub(crate) digests: Digests,
    pub(crate) outcomes: Outcomes,
}

/// Takes what this thread keeps of a rule set.
pub(crate) fn take(set: u64) -> Box<Memory> {
    let kept = KEPT.with_borrow_mut(|kept| {
        let at = kept.iter().rposition(|(of, _)| *of == set)?;
        Some(kept.remove(at).1)
    });
    kept.unwrap_or_else(|| Box::new(Memory { known: Known::new(), digests: Digests::new(), outcomes: Outcomes::new() }))
}

/// Gives it back.
pub(crate) fn give_back(set: u64, memory: Box<Memory>) {
    KEPT.with_borrow_mut(|kept| {
        if kept.len() >= SETS {
            kept.remove(0);
        }
        kept.push((set, memory));
    });
}

/// Texts that chains with a digest made: of a client's name, for one, to know it by.
#[derive(Debug)]
pub(crate) struct Digests {
    places: Vec<Digest>,
    key: Key,
}

#[derive(Debug, Default, Clone)]
struct Digest {
    chain: Option<Arc<[Transform]>>,
    value: Vec<u8>,
    text: Vec<u8>,
}

impl Digests {
    fn new() -> Digests {
        Digests { places: vec![Digest::default(); DIGESTS], key: Key::new() }
    }

    /// What a chain makes of a value: `make` appends it where it is not known.
    pub(crate) fn get(&mut self, chain: &Arc<[Transform]>, value: &[u8], make: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let at = self.key.hash(0, value) as usize % DIGESTS;
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

/// What rules that look at the names of headers, and did not match, left behind.
#[derive(Debug)]
pub(crate) struct Outcomes {
    places: Vec<Option<Outcome>>,
    key: Key,
}

/// A piece of [`Outcome::bytes`].
pub(crate) type Piece = (u32, u32);

/// What a rule left behind.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    rule: u32,
    /// The names, each with its length before.
    names: Vec<u8>,
    /// The text of all variables.
    pub(crate) bytes: Vec<u8>,
    /// Variables of `TX`: name and value.
    pub(crate) variables: Vec<(Piece, Piece)>,
    /// The ten captures, if the rule captured.
    pub(crate) captures: Option<[Option<Piece>; 10]>,
    /// Conditions that its variables meet.
    pub(crate) bells: Vec<u32>,
}

impl Outcome {
    pub(crate) fn new(rule: u32, names: &[u8]) -> Outcome {
        Outcome {
            rule,
            names: names.to_vec(),
            bytes: Vec::new(),
            variables: Vec::new(),
            captures: None,
            bells: Vec::new(),
        }
    }

    /// Adds a text.
    pub(crate) fn piece(&mut self, text: &[u8]) -> Piece {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        (start, text.len() as u32)
    }
}

impl Outcomes {
    fn new() -> Outcomes {
        Outcomes { places: vec![None; OUTCOMES], key: Key::new() }
    }

    fn place(&self, rule: u32, names: &[u8]) -> usize {
        self.key.hash(rule as usize, names) as usize % OUTCOMES
    }

    pub(crate) fn get(&self, rule: u32, names: &[u8]) -> Option<&Outcome> {
        let known = self.places.get(self.place(rule, names))?.as_ref()?;
        (known.rule == rule && known.names == names).then_some(known)
    }

    pub(crate) fn put(&mut self, outcome: Outcome) {
        let place = self.place(outcome.rule, &outcome.names);
        if let Some(known) = self.places.get_mut(place) {
            *known = Some(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_outcome_is_of_its_rule_and_names() {
        let mut outcomes = Outcomes::new();
        outcomes.put(Outcome::new(3, b"a"));
        assert!(outcomes.get(3, b"a").is_some());
        assert!(outcomes.get(3, b"b").is_none() && outcomes.get(4, b"a").is_none());
    }

    #[test]
    fn a_thread_keeps_few_rule_sets() {
        std::thread::spawn(|| {
            for set in 0..20 {
                let mut memory = take(set);
                memory.outcomes.put(Outcome::new(set as u32, b""));
                give_back(set, memory);
            }
            KEPT.with_borrow(|kept| assert_eq!(kept.len(), SETS));
            assert!(take(19).outcomes.get(19, b"").is_some());
            assert!(take(3).outcomes.get(3, b"").is_none());
        })
        .join()
        .unwrap();
    }
}
