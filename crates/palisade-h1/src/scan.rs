//! One pass over the bytes of a field line. Everything else in this crate that reads heads or trailers goes through here.

use crate::Violation;
use crate::wide;

/// One line of a header or trailer section. All numbers are offsets into the slice that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// `name: value`, the value without the white space around it.
    Field { name: (usize, usize), value: (usize, usize), next: usize },
    /// The empty line that ends the section.
    End { next: usize },
    /// Nothing wrong so far, but the line is not complete.
    Partial,
}

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const ODD_TARGET: u8 = 4;
const TEXT: u8 = 8;

/// What each byte may be part of: a table look-up is one load, and one branch per byte is what a head costs.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        // RFC 9110 §5.6.2.
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            table[i] |= TOKEN;
        }
        // Wider than RFC 3986: what clients send although they should not (`|`, `{`) is the path check's to judge. `#` is
        // not: a fragment is dropped by one parser and kept by the next.
        if !wide::is_unusual_in_target(b) {
            table[i] |= TARGET | ODD_TARGET;
        }
        if b >= 0x20 && b != 0x7f {
            table[i] |= TEXT;
        }
        // Allowed by some in the path, by some in the query: looked at more closely.
        if matches!(b, b'"' | b'`' | 0x80..) {
            table[i] |= ODD_TARGET;
        }
        i += 1;
    }
    table
}

/// The offset of the first byte from `at` on that is not in a token.
#[inline]
pub(crate) fn token_end(bytes: &[u8], at: usize) -> usize {
    let usual = wide::skip_name(bytes, at);
    match bytes.get(usual) {
        // How nearly every name ends.
        Some(b':') => usual,
        _ => end_of(bytes, usual, TOKEN),
    }
}

/// The offset of the first byte from `at` on that cannot be in a request target, and whether some before it is unusual.
#[inline]
pub(crate) fn target_end(bytes: &[u8], at: usize) -> (usize, bool) {
    let end = end_of(bytes, wide::skip_target(bytes, at), TARGET);
    match bytes.get(end) {
        Some(&b) if CLASS[usize::from(b)] & ODD_TARGET != 0 => (end_of(bytes, end, ODD_TARGET), true),
        _ => (end, false),
    }
}

/// The offset of the first control character (below 0x20, or DEL) from `at` on, or the length.
#[inline]
pub(crate) fn control_at(bytes: &[u8], at: usize) -> usize {
    end_of(bytes, wide::skip_text(bytes, at), TEXT)
}

/// Byte by byte: the rest of a block, and what is unusual.
#[inline]
fn end_of(bytes: &[u8], at: usize, class: u8) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|&b| CLASS[usize::from(b)] & class == 0).unwrap_or(rest.len())
}

/// Reads the field line that starts at `at`.
#[inline]
pub(crate) fn field_line(bytes: &[u8], at: usize) -> Result<Line, Violation> {
    let colon = token_end(bytes, at);
    let Some(&after_name) = bytes.get(colon) else { return Ok(Line::Partial) };
    if after_name != b':' || colon == at {
        return not_a_field(bytes, at, colon, after_name);
    }
    let mut start = colon + 1;
    while matches!(bytes.get(start), Some(b' ' | b'\t')) {
        start += 1;
    }
    let mut end = start;
    let next = loop {
        end = control_at(bytes, end);
        match bytes.get(end) {
            None => return Ok(Line::Partial),
            Some(b'\t') => end += 1,
            Some(b'\r') => match bytes.get(end + 1) {
                None => return Ok(Line::Partial),
                Some(b'\n') => break end + 2,
                Some(_) => return Err(Violation::BareCr),
            },
            Some(b'\n') => return Err(Violation::BareLf),
            Some(_) => return Err(Violation::ControlCharacter),
        }
    };
    while end > start && matches!(bytes.get(end - 1), Some(b' ' | b'\t')) {
        end -= 1;
    }
    Ok(Line::Field { name: (at, colon), value: (start, end), next })
}

/// The end of the section, or what is wrong with the line. `stop` is the first byte that is not in a name.
#[cold]
fn wrong(stop: u8, at_start: bool) -> Violation {
    match stop {
        b' ' | b'\t' if at_start => Violation::ObsFold,
        b' ' | b'\t' => Violation::SpaceBeforeColon,
        b'\n' => Violation::BareLf,
        0..0x20 | 0x7f => Violation::ControlCharacter,
        _ => Violation::BadHeaderName,
    }
}

#[cold]
fn not_a_field(bytes: &[u8], at: usize, stop: usize, byte: u8) -> Result<Line, Violation> {
    if byte != b'\r' {
        return Err(wrong(byte, stop == at));
    }
    match bytes.get(stop + 1) {
        None => Ok(Line::Partial),
        Some(b'\n') if stop == at => Ok(Line::End { next: stop + 2 }),
        Some(b'\n') => Err(Violation::BadHeaderName),
        Some(_) => Err(Violation::BareCr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_at_every_offset() {
        for len in 0..40 {
            for at in 0..len {
                for control in (0u8..0x20).chain([0x7f]) {
                    for filler in [b'a', 0x80, 0xff, 0x20, 0x7e] {
                        let mut bytes = vec![filler; len];
                        bytes[at] = control;
                        assert_eq!(control_at(&bytes, 0), at, "{control:#x} in {filler:#x}");
                        assert_eq!(control_at(&bytes, at + 1), len);
                    }
                }
            }
        }
    }
}
