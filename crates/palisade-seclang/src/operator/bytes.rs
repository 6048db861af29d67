//! `@validateByteRange`, `@validateUrlEncoding`, `@validateUtf8Encoding`: they match what is not valid.

use crate::text::hex;

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    /// The set of some bytes.
    pub(crate) fn of(bytes: impl IntoIterator<Item = u8>) -> ByteSet {
        let mut set = [0u64; 4];
        bytes.into_iter().for_each(|b| set[usize::from(b) / 64] |= 1 << (b % 64));
        ByteSet(set)
    }

    /// `1-255,9`: numbers and ranges with commas between.
    ///
    /// # Errors
    /// What is neither, which would allow other bytes than its author thinks.
    pub(crate) fn parse(argument: &str) -> Result<ByteSet, String> {
        let mut bytes = Vec::new();
        for part in argument.split(',').map(str::trim) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let bound = |text: &str| text.trim().parse::<u8>();
            match (bound(low), bound(high)) {
                (Ok(low), Ok(high)) if low <= high => bytes.extend(low..=high),
                _ => return Err(format!("`{part}` is not a byte, and not a range of bytes")),
            }
        }
        Ok(ByteSet::of(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_which_bytes_or_is_a_mistake() {
        for (argument, inside, outside) in [
            ("1-255", &b"a\xff\x01"[..], &b"\0"[..]),
            ("9, 10,13 ,32 - 126", b"\t a~", b"\x0b\x7f"),
            ("0-0", b"\0", b"0"),
        ] {
            let set = ByteSet::parse(argument).unwrap();
            assert!(set.all(inside) && !outside.iter().any(|b| set.has(*b)), "{argument}");
        }
        for argument in ["", "abc", "32-abc", "a-126", "1-256", "-1", "9-", "32-126,", "126-32", "1-2-3", "0x20-0x7e"] {
            assert!(ByteSet::parse(argument).is_err(), "{argument}");
        }
    }
}
