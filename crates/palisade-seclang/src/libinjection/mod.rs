//! SQL and script injection by libinjection's method: tokens, folding, fingerprints; HTML contexts.

mod sqli;
mod tokens;
#[cfg(test)]
mod vectors;
mod words;

use crate::fast::mask::{self, bit};

/// An injection's fingerprint: up to five token types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    bytes: [u8; 8],
    len: u8,
}

impl Fingerprint {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The fingerprint when `value` is an SQL injection.
pub(crate) fn sqli(value: &[u8]) -> Option<Fingerprint> {
    sqli::detect(value)
}

/// Whether `value` would run a script in some place of an HTML page.
pub(crate) fn xss(value: &[u8]) -> bool {
    // The tokeniser is not ours. None of millions of inputs made it panic; should one, the value counts as an attack.
    std::panic::catch_unwind(|| libinjectionrs::detect_xss(value).is_injection()).unwrap_or(true)
}

/// Whether [`sqli`] has to be asked. Text of words, numbers, commas and dots in which no word is one of SQL's has a
/// fingerprint of names and numbers only, and no such fingerprint is an injection's.
pub(crate) fn may_be_sqli(value: &[u8], value_mask: u64) -> bool {
    const HARMLESS: u64 = mask::PLAIN & !(bit(b'@') | bit(b':') | bit(b'-'));
    if value_mask & !HARMLESS != 0 {
        return true;
    }
    value.split(|b| matches!(b, b' ' | b',')).filter(|w| !w.is_empty()).any(|word| {
        if matches!(word[0], b'0'..=b'9' | b'.') {
            return !word.iter().all(|b| b.is_ascii_digit() || *b == b'.');
        }
        words::begins_something(word)
            || memchr::memchr_iter(b'.', word).any(|dot| words::begins_something(&word[..dot]))
    })
}

/// Whether [`xss`] has to be asked: without a tag or an attribute there is no script.
pub(crate) fn may_be_xss(value_mask: u64) -> bool {
    value_mask & (bit(b'<') | bit(b'=')) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// What the gates let pass as harmless is harmless to the full functions.
        #[test]
        fn gates_lose_nothing(value in prop_oneof![
            "([a-zA-Z0-9_]{1,8}|union|select|or|and|1|0x1f|e|\\.){0,6}",
            "[a-zA-Z0-9_ ,.]{0,24}",
            "((or|and|union|select|all|from|group|by|in|not|is|null|x|1|2|[a-z]{1,4})[ ,.]){0,7}",
            "[-<>=a-z'\"/ `:(]{0,16}",
        ]) {
            let bytes = value.as_bytes();
            let value_mask = mask::mask(bytes, usize::MAX);
            if !may_be_sqli(bytes, value_mask) {
                prop_assert!(sqli(bytes).is_none(), "{value}");
            }
            if !may_be_xss(value_mask) {
                prop_assert!(!xss(bytes), "{value}");
            }
        }
    }
}
