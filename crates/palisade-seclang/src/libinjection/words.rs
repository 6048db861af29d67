//! libinjection's table of SQL words and phrases, and its fingerprints.
//!
//! The data are libinjection's (`src/sqlparse_data.json`, Copyright 2012-2016 Nick Galbreath, BSD-3-Clause).

use std::sync::LazyLock;

static WORDS: LazyLock<Words> = LazyLock::new(|| Words::new(include_str!("keywords.txt")));
static FINGERPRINTS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut list: Vec<u64> = include_str!("fingerprints.txt").lines().map(|l| pack(l.as_bytes())).collect();
    list.sort_unstable();
    list
});

/// Slots of the hash table; a power of two, several times the number of words.
const SLOTS: usize = 8192;

/// An open hash table over upper-case words.
struct Words {
    slots: Vec<u16>,
    words: Vec<(&'static [u8], u8)>,
    /// Hashes of words and of the first words of phrases, as bits: a word whose bit is not set is neither.
    bits: [u64; SLOTS / 64],
}

impl Words {
    fn new(text: &'static str) -> Words {
        let mut table = Words { slots: vec![0; SLOTS], words: Vec::new(), bits: [0; SLOTS / 64] };
        for line in text.lines() {
            let (Some(kind), Some(word)) = (line.as_bytes().first(), line.as_bytes().get(2..)) else { continue };
            table.words.push((word, *kind));
            let number = table.words.len() as u16;
            let mut at = hash(word) as usize % SLOTS;
            while table.slots[at] != 0 {
                at = (at + 1) % SLOTS;
            }
            table.slots[at] = number;
            let first = word.split(|b| *b == b' ').next().unwrap_or(word);
            for hash in [hash(word), hash(first)] {
                table.bits[hash as usize % SLOTS / 64] |= 1 << (hash % 64);
            }
        }
        table
    }

    fn get(&self, word: &[u8]) -> Option<u8> {
        let mut at = hash(word) as usize % SLOTS;
        loop {
            let number = usize::from(self.slots[at]);
            let (known, kind) = self.words.get(number.checked_sub(1)?)?;
            if known.eq_ignore_ascii_case(word) {
                return Some(*kind);
            }
            at = (at + 1) % SLOTS;
        }
    }
}

/// FNV-1a over upper case: words are short, and nobody can choose them so that a probe gets long.
fn hash(word: &[u8]) -> u32 {
    word.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b.to_ascii_uppercase())).wrapping_mul(0x0100_0193))
}

/// The type of a word or phrase, in any case.
pub(super) fn lookup(word: &[u8]) -> Option<u8> {
    if word.len() > 32 { None } else { WORDS.get(word) }
}

/// Whether a word may be in the table or begin a phrase of it; false is sure.
pub(super) fn begins_something(word: &[u8]) -> bool {
    let hash = hash(word);
    word.len() <= 32 && WORDS.bits[hash as usize % SLOTS / 64] >> (hash % 64) & 1 == 1
}

fn pack(fingerprint: &[u8]) -> u64 {
    fingerprint.iter().take(8).fold(0, |n, b| n << 8 | u64::from(b.to_ascii_uppercase()))
}

/// Whether a fingerprint is one of an injection.
pub(super) fn is_injection(fingerprint: &[u8]) -> bool {
    FINGERPRINTS.binary_search(&pack(fingerprint)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_phrases_and_fingerprints() {
        assert_eq!(lookup(b"select"), Some(b'E'));
        assert_eq!(lookup(b"Group By"), Some(b'B'));
        assert_eq!(lookup(b"banana"), None);
        assert!(begins_something(b"group") && begins_something(b"UNION") && !begins_something(b"banana"));
        assert!(is_injection(b"1&1") && !is_injection(b"n,n"));
        // The gate rests on this: names, numbers, commas and dots alone are never an injection.
        let harmless = |l: &str| l.bytes().all(|b| b"N1,.".contains(&b));
        assert!(!include_str!("fingerprints.txt").lines().any(harmless));
    }
}
