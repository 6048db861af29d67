//! `@validateByteRange`, `@validateUrlEncoding`, `@validateUtf8Encoding`: they match what is not valid.

use crate::text::{atoi, hex};

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    /// `1-255,9`: numbers and ranges with commas between.
    pub(crate) fn parse(argument: &str) -> ByteSet {
        let mut set = [0u64; 4];
        for part in argument.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let bound = |text: &str| atoi(text.as_bytes()).clamp(0, 255) as usize;
            for b in bound(low)..=bound(high) {
                set[b / 64] |= 1 << (b % 64);
            }
        }
        ByteSet(set)
    }

    pub(crate) fn has(&self, b: u8) -> bool {
        self.0[usize::from(b) / 64] >> (b % 64) & 1 == 1
    }

    pub(crate) fn all(&self, value: &[u8]) -> bool {
        value.iter().all(|b| self.has(*b))
    }
}

/// Whether a `%` does not begin a valid escape.
pub(super) fn bad_url_encoding(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let digit = |i: usize| rest.get(at + i).copied().and_then(hex).is_some();
        if !(digit(1) && digit(2)) {
            return true;
        }
        rest = &rest[at + 3..];
    }
    false
}

/// UTF-8 without overlong forms, surrogates and what lies beyond Unicode.
pub(super) fn good_utf8(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok()
}
