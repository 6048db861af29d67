//! Which kinds of bytes a value has, in one word.
//!
//! A transformation changes a value only if the value has one of the transformation's *triggers*; a pattern may match
//! only if the value has bytes for it. Both questions are answered by the mask.

use std::sync::LazyLock;

use crate::transform::Transform;

pub(crate) const DIGIT: u64 = 1 << 32;
pub(crate) const LOWER: u64 = 1 << 33;
pub(crate) const UPPER: u64 = 1 << 34;
pub(crate) const SPACE: u64 = 1 << 35;
/// Tab, line feed and the like.
pub(crate) const OTHER_SPACE: u64 = 1 << 36;
pub(crate) const NUL: u64 = 1 << 37;
pub(crate) const CONTROL: u64 = 1 << 38;
pub(crate) const DELETE: u64 = 1 << 39;
pub(crate) const HIGH: u64 = 1 << 40;
/// Two spaces in a row.
pub(crate) const DOUBLE_SPACE: u64 = 1 << 41;
/// A space before `/` or `(`.
pub(crate) const SPACE_BEFORE: u64 = 1 << 42;
/// `//`, `/.`, `./`, or `..` at the end (of a longer name, too: ModSecurity goes a segment back for it), or nothing but `.`.
pub(crate) const PATH: u64 = 1 << 43;
/// Begins with enough base64 to decode to something that a rule looks for.
pub(crate) const BASE64: u64 = 1 << 44;
/// Not known to be harmless.
pub(crate) const ALWAYS: u64 = 1 << 63;

/// What names, words and numbers are made of. No slash: the long lists of paths are for values that have one.
pub(crate) const PLAIN: u64 = DIGIT
    | LOWER
    | UPPER
    | SPACE
    | DOUBLE_SPACE
    | SPACE_BEFORE
    | PATH
    | BASE64
    | bit(b'_')
    | bit(b'.')
    | bit(b',')
    | bit(b'@')
    | bit(b':')
    | bit(b'-');

const PUNCTUATION: &[u8; 32] = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// The bit of a punctuation sign.
pub(crate) const fn bit(b: u8) -> u64 {
    let mut i = 0;
    while i < PUNCTUATION.len() {
        if PUNCTUATION[i] == b {
            return 1 << i;
        }
        i += 1;
    }
    ALWAYS
}

/// The bit of any byte.
pub(crate) const fn class(b: u8) -> u64 {
    match b {
        b'0'..=b'9' => DIGIT,
        b'a'..=b'z' => LOWER,
        b'A'..=b'Z' => UPPER,
        b' ' => SPACE,
        b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => OTHER_SPACE,
        0 => NUL,
        0x7f => DELETE,
        1..=0x1f => CONTROL,
        0x80..=0xff => HIGH,
        _ => bit(b),
    }
}

static TABLE: LazyLock<[u64; 256]> = LazyLock::new(|| std::array::from_fn(|b| class(b as u8)));

/// The mask of a value. `base64` is the number of base64 characters at its beginning that matter (`usize::MAX`: none).
pub(crate) fn mask(value: &[u8], base64: usize) -> u64 {
    let table = &*TABLE;
    let mut mask = 0;
    for b in value {
        mask |= table[usize::from(*b)];
    }
    if mask & SPACE != 0 {
        for at in memchr::memchr_iter(b' ', value) {
            match value.get(at + 1) {
                Some(b' ') => mask |= DOUBLE_SPACE,
                Some(b'/' | b'(') => mask |= SPACE_BEFORE,
                _ => {}
            }
        }
    }
    if mask & bit(b'/') != 0 {
        for at in memchr::memchr_iter(b'/', value) {
            let next = value.get(at + 1);
            if matches!(next, Some(b'/' | b'.')) || at > 0 && value[at - 1] == b'.' {
                mask |= PATH;
                break;
            }
        }
    }
    if value == b"." || value.ends_with(b"..") {
        mask |= PATH;
    }
    if base64 <= value.len() && value.iter().take(base64).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    {
        mask |= BASE64;
    }
    mask
}

/// Without one of these bits, the transformation changes nothing but case.
pub(crate) fn trigger(transform: Transform) -> u64 {
    match transform {
        Transform::Lowercase | Transform::Uppercase => 0,
        Transform::UrlDecode | Transform::UrlDecodeUni => bit(b'%') | bit(b'+'),
        Transform::HtmlEntityDecode => bit(b'&'),
        Transform::JsDecode | Transform::CssDecode | Transform::EscapeSeqDecode => bit(b'\\'),
        Transform::Utf8ToUnicode => HIGH,
        Transform::RemoveNulls | Transform::ReplaceNulls => NUL,
        Transform::CmdLine => {
            bit(b'"')
                | bit(b'\'')
                | bit(b'\\')
                | bit(b'^')
                | bit(b',')
                | bit(b';')
                | OTHER_SPACE
                | DOUBLE_SPACE
                | SPACE_BEFORE
        }
        Transform::CompressWhitespace => OTHER_SPACE | DOUBLE_SPACE | HIGH,
        Transform::RemoveWhitespace => SPACE | OTHER_SPACE | HIGH,
        Transform::ReplaceComments => bit(b'*'),
        Transform::RemoveComments | Transform::RemoveCommentsChar => bit(b'*') | bit(b'#') | bit(b'-'),
        Transform::NormalisePath => PATH,
        Transform::NormalisePathWin => PATH | bit(b'\\'),
        Transform::Trim | Transform::TrimLeft | Transform::TrimRight => SPACE | OTHER_SPACE,
        Transform::Base64Decode => BASE64,
        _ => ALWAYS,
    }
}

/// What a value may have once transformations were applied whose triggers these are: escapes may stand for anything, what
/// else is changed becomes spaces, goes, or comes to stand beside something else.
pub(crate) fn after(mask: u64, triggers: u64) -> u64 {
    const ESCAPES: u64 = bit(b'%') | bit(b'&') | bit(b'\\') | HIGH | BASE64 | ALWAYS;
    const MOVED: u64 = SPACE | DOUBLE_SPACE | SPACE_BEFORE | PATH | BASE64 | LOWER | UPPER;
    match mask & triggers {
        0 => mask,
        some if some & ESCAPES != 0 || triggers & (ALWAYS | BASE64) != 0 => u64::MAX,
        _ => mask | MOVED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_byte_has_one_bit() {
        for b in 0..=255u8 {
            assert_eq!(class(b).count_ones(), 1, "{b}");
            assert_ne!(class(b), ALWAYS, "{b}");
        }
    }

    proptest! {
        /// The promise that the whole fast path rests on.
        #[test]
        fn without_a_trigger_nothing_changes_but_case(
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..12),
                "[a-zA-Z0-9 ./:_@,-]{0,20}".prop_map(String::into_bytes),
                r"[a-c%+&#;\\x0-3'*/ .(-]{0,10}".prop_map(String::into_bytes),
                r"[/.a]{0,8}".prop_map(String::into_bytes),
            ],
        ) {
            let mask = mask(&value, usize::MAX);
            let mut out = Vec::new();
            for transform in Transform::ALL {
                let trigger = trigger(*transform);
                if trigger & (ALWAYS | BASE64) != 0 {
                    continue;
                }
                out.clear();
                transform.apply(None, &value, &mut out);
                let reach = after(mask, trigger) | LOWER | UPPER;
                let made = super::mask(&out, usize::MAX);
                prop_assert!(made & !reach == 0, "{} of {:?} gives {:?}", transform.name(), value, out);
                if trigger & mask == 0 {
                    prop_assert!(out.eq_ignore_ascii_case(&value), "{} of {:?} gives {:?}", transform.name(), value, out);
                }
            }
        }
    }
}
