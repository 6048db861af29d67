//! Hexadecimal and base64: `hexDecode`, `hexEncode`, `sqlHexDecode`, `base64Decode`, `base64DecodeExt`, `base64Encode`.

use crate::text::hex2;

/// Two digits a byte; a digit left over is dropped, and what is no digit counts by its low bits as C's macro does.
pub(crate) fn hex_decode(input: &[u8], out: &mut Vec<u8>) {
    let value =
        |b: u8| -> u8 { if b >= b'A' { (b & 0xdf).wrapping_sub(b'A').wrapping_add(10) } else { b.wrapping_sub(b'0') } };
    out.extend(input.chunks_exact(2).map(|c| value(c[0]).wrapping_mul(16).wrapping_add(value(c[1]))));
}

pub(crate) fn hex_encode(input: &[u8], out: &mut Vec<u8>) {
    for b in input {
        out.push(b"0123456789abcdef"[usize::from(b >> 4)]);
        out.push(b"0123456789abcdef"[usize::from(b & 15)]);
    }
}

/// `0x414243` becomes `ABC` wherever it occurs.
pub(crate) fn sql_hex_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        if b == b'0' && matches!(input.get(i + 1), Some(b'x' | b'X')) && hex2(input, i + 2).is_some() {
            i += 2;
            while let Some(byte) = hex2(input, i) {
                out.push(byte);
                i += 2;
            }
            continue;
        }
        out.push(b);
        i += 1;
    }
}

fn base64_value(b: u8) -> Option<u32> {
    Some(u32::from(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

fn decode_base64(characters: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0u32, 0u32);
    for value in characters {
        bits = bits << 6 | value;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
}

/// Decodes up to the first character that is not base64.
pub(crate) fn base64_decode(input: &[u8], out: &mut Vec<u8>) {
    decode_base64(input.iter().map_while(|b| base64_value(*b)), out);
}

/// Decodes and skips what is not base64, up to the padding.
pub(crate) fn base64_decode_ext(input: &[u8], out: &mut Vec<u8>) {
    decode_base64(input.iter().take_while(|b| **b != b'=').filter_map(|b| base64_value(*b)), out);
}

pub(crate) fn base64_encode(input: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in input.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(ALPHABET[(n >> (18 - 6 * i) & 63) as usize]);
            } else {
                out.push(b'=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_there_and_back() {
        for text in ["", "a", "ab", "abc", "abcd"] {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            base64_encode(text.as_bytes(), &mut there);
            base64_decode(&there, &mut back);
            assert_eq!(back, text.as_bytes());
        }
    }
}
