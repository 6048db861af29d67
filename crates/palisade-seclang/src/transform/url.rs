//! `urlDecode`, `urlDecodeUni`, `urlEncode`.

use super::UnicodeMap;
use crate::text::hex2;

/// `%HH` and `+`; what is not a valid escape stays.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        match b {
            b'%' => {
                if let Some(byte) = hex2(input, i + 1) {
                    out.push(byte);
                    i += 3;
                    continue;
                }
                out.push(b'%');
            }
            b'+' => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
}

/// As [`decode`], and `%uHHHH` as IIS reads it: through the code page's map, else the low byte, full-width ASCII folded.
pub(crate) fn decode_uni(map: Option<&UnicodeMap>, input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        match b {
            b'%' => match input.get(i + 1) {
                Some(b'u' | b'U') => match (hex2(input, i + 2), hex2(input, i + 4)) {
                    (Some(high), Some(low)) => {
                        out.push(map.and_then(|m| m.get(high, low)).unwrap_or_else(|| fold_full_width(high, low)));
                        i += 6;
                        continue;
                    }
                    _ => {
                        out.extend_from_slice(&input[i..i + 2]);
                        i += 2;
                        continue;
                    }
                },
                _ => {
                    if let Some(byte) = hex2(input, i + 1) {
                        out.push(byte);
                        i += 3;
                        continue;
                    }
                    out.push(b'%');
                }
            },
            b'+' => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
}

/// The one byte that a `\uHHHH` or `%uHHHH` becomes: U+FF01 to U+FF5E are ASCII in a wide coat.
pub(super) fn fold_full_width(high: u8, low: u8) -> u8 {
    if high == 0xff && low > 0 && low < 0x5f { low + 0x20 } else { low }
}

/// Everything but letters, digits and `*` as `%hh`; a space as `+`.
pub(crate) fn encode(input: &[u8], out: &mut Vec<u8>) {
    for &b in input {
        match b {
            b' ' => out.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(b),
            b => {
                out.push(b'%');
                out.push(b"0123456789abcdef"[usize::from(b >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(b & 15)]);
            }
        }
    }
}
