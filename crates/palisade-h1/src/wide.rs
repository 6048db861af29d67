//! The classes of bytes that a head consists of, a word of eight bytes at a time.
//!
//! Most of what the judgement of a head costs is looking at each of its bytes once. Vector instructions would need `unsafe`.

/// Bytes looked at in one step.
pub(crate) const WIDTH: usize = 8;

const ONES: u64 = u64::from_ne_bytes([1; WIDTH]);
const HIGH: u64 = u64::from_ne_bytes([0x80; WIDTH]);

// Each of these sets the high bit of the bytes that it finds, and perhaps of others above the first of them in memory: borrows
// travel upwards. Only the first is asked for.

/// Bytes below `limit`, which is at most 0x80.
#[inline]
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * limit as u64) & !word
}

#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// The first byte from `at` on that is a control character (below 0x20, or DEL), or where less than a word is left.
#[inline]
pub(crate) fn skip_text(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| below(word, 0x20) | equal(word, 0x7f))
}

/// The first byte from `at` on that is neither a letter nor `-`, one of which is nearly every byte of a field name, or where less
/// than a word is left. It may still be in a name (digits, `_`).
#[inline]
pub(crate) fn skip_name(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| {
        // Without the high bits nothing carries from byte to byte, so that these tests are exact.
        let lower = (word | (ONES * 0x20)) & !HIGH;
        let from_a = lower + ONES * (0x80 - u64::from(b'a'));
        let beyond_z = lower + ONES * (0x80 - u64::from(b'z') - 1);
        let dash = word ^ (ONES * u64::from(b'-'));
        let no_dash = ((dash & !HIGH) + ONES * 0x7f) | dash;
        (!from_a | beyond_z | word) & no_dash
    })
}

/// The first byte from `at` on that a request target may not have, or not without a closer look: `"`, `#`, `<`, `>`, a backtick,
/// and what is not visible; or where less than a word is left.
#[inline]
pub(crate) fn skip_target(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| {
        let hidden = below(word, 0x21) | equal(word, 0x7f) | word;
        let quote_or_hash = equal(word & (ONES * 0xfe), b'"');
        let angle = equal(word & (ONES * 0xfd), b'<');
        hidden | quote_or_hash | angle | equal(word, b'`')
    })
}

#[inline]
fn skip(bytes: &[u8], at: usize, hits: impl Fn(u64) -> u64) -> usize {
    let mut at = at;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let hits = hits(u64::from_le_bytes(*word)) & HIGH;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / WIDTH;
        }
        at += WIDTH;
    }
    at
}

/// Whether `bytes` is `lower`, ignoring case. For tokens only: a byte that differs in bit 5 alone from a `-` is a control character.
#[inline]
pub(crate) fn is<const N: usize>(bytes: &[u8], lower: &[u8; N]) -> bool {
    let Some(bytes) = bytes.as_array::<N>() else { return false };
    let mut differs = 0;
    for (a, b) in bytes.iter().zip(lower) {
        differs |= (a | 0x20) ^ b;
    }
    differs == 0
}

/// The same for one byte, for tables.
pub(crate) const fn is_unusual_in_target(b: u8) -> bool {
    !b.is_ascii_graphic() || matches!(b, b'"' | b'#' | b'<' | b'>' | b'`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for b in 0..=255u8 {
            for at in 0..WIDTH {
                for rest in [b'a', b, 0, 0xff, 0x80, 0x7f, 0x1f, 0x20, b'`', b'{'] {
                    let mut block = [b'a'; WIDTH];
                    block[at..].fill(rest);
                    block[at] = b;
                    let expected = |class: fn(u8) -> bool| block.iter().position(|&b| class(b)).unwrap_or(WIDTH);
                    assert_eq!(skip_text(&block, 0), expected(|b| b.is_ascii_control()), "{block:x?}");
                    assert_eq!(skip_name(&block, 0), expected(|b| !b.is_ascii_alphabetic() && b != b'-'), "{block:x?}");
                    assert_eq!(skip_target(&block, 0), expected(is_unusual_in_target), "{block:x?}");
                }
            }
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert!(
            is(b"Keep-Alive", b"keep-alive") && is(b"KEEP-ALIVE", b"keep-alive") && is(b"keep-alive", b"keep-alive")
        );
        for other in [&b"keep-aliv"[..], b"keep-alive ", b"keep_alive", b"keep-alivf", b"", b"\xebeep-alive"] {
            assert!(!is(other, b"keep-alive"), "{other:?}");
        }
    }
}
