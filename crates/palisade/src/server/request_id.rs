//! Request ids: ours, unique, sortable by time, safe in every sink.

use std::cell::RefCell;
use std::fmt;

use palisade_base::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;
const CAPACITY: usize = 48;

thread_local! {
    // Ids are names, not secrets: a small generator a thread, seeded by the system.
    static RANDOM: RefCell<SmallRng> = RefCell::new(SmallRng::from_rng(&mut rand::rng()));
}

/// 48 bits of time in milliseconds and 80 random bits in Crockford's base 32, lower case: 26 characters. An id that a
/// trusted proxy gave may be longer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    text: [u8; CAPACITY],
    length: u8,
}

impl RequestId {
    /// A new id.
    pub fn new(now: Timestamp) -> Self {
        let (high, low): (u16, u64) = RANDOM.with_borrow_mut(|random| (random.random(), random.random()));
        let millis = u128::from(now.0.unsigned_abs() & 0xffff_ffff_ffff);
        let mut bits = millis << 80 | u128::from(high) << 64 | u128::from(low);
        let mut text = [0; CAPACITY];
        for place in text[..LENGTH].iter_mut().rev() {
            *place = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        Self { text, length: LENGTH as u8 }
    }

    /// Takes over an id that a trusted proxy gave: 8 to 48 letters, digits and `-`, or nothing.
    pub fn adopt(given: &str) -> Option<Self> {
        let fits =
            (8..=CAPACITY).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        fits.then(|| {
            let mut text = [0; CAPACITY];
            text[..given.len()].copy_from_slice(given.as_bytes());
            Self { text, length: given.len() as u8 }
        })
    }

    /// When an id of our own was made: its first 48 bits.
    pub fn time_of(id: &str) -> Option<Timestamp> {
        if id.len() != LENGTH {
            return None;
        }
        let mut bits: u128 = 0;
        for byte in id.bytes() {
            let digit = ALPHABET.iter().position(|known| *known == byte)?;
            // 26 digits hold 130 bits; the first of ours is at most 7.
            bits = bits.checked_mul(32)? | digit as u128;
        }
        i64::try_from(bits >> 80).ok().map(Timestamp)
    }

    /// The id as bytes of ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_differ() {
        let (a, b, c) =
            (RequestId::new(Timestamp(1_000)), RequestId::new(Timestamp(2_000)), RequestId::new(Timestamp(2_000)));
        assert!(a.as_str() < b.as_str());
        assert_ne!(b, c);
        assert_eq!(RequestId::time_of(b.as_str()), Some(Timestamp(2_000)));
        assert_eq!(RequestId::time_of("zzzzzzzzzzzzzzzzzzzzzzzzzz"), None);
        assert_eq!(RequestId::time_of("x"), None);
        assert_eq!(RequestId::adopt("3f2b8a10-0000-4000-8000-000000000000").unwrap().as_str().len(), 36);
        for bad in ["", "short", "with space in it", "<script>alert(1)</script>", &"a".repeat(49)] {
            assert_eq!(RequestId::adopt(bad), None, "{bad}");
        }
        assert!(a.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
