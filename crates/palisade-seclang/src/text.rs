//! Small things that parsers of rules, operators and transformations share.

/// C's `atoi` as rules rely on it: leading white space, a sign, digits; anything else is 0. Saturates.
pub(crate) fn atoi(text: &[u8]) -> i64 {
    let mut bytes = text.iter().skip_while(|b| b.is_ascii_whitespace() || **b == 0x0b).peekable();
    let negative = match bytes.peek() {
        Some(b'-') => {
            bytes.next();
            true
        }
        Some(b'+') => {
            bytes.next();
            false
        }
        _ => false,
    };
    let mut n: i64 = 0;
    for b in bytes.take_while(|b| b.is_ascii_digit()) {
        n = n.saturating_mul(10).saturating_add(i64::from(b - b'0'));
    }
    if negative { -n } else { n }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// The value of two hexadecimal digits at `at`.
pub(crate) fn hex2(input: &[u8], at: usize) -> Option<u8> {
    Some(hex(*input.get(at)?)? << 4 | hex(*input.get(at + 1)?)?)
}

/// C's `isspace` in the C locale.
pub(crate) fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Whether `needle` occurs in `haystack`; the empty needle does.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // To prepare a search costs more than to look through so little.
    if haystack.len() <= 128 {
        return needle.first().is_none_or(|first| {
            let last = (haystack.len() + 1).saturating_sub(needle.len());
            memchr::memchr_iter(*first, &haystack[..last]).any(|at| haystack[at..].starts_with(needle))
        });
    }
    memchr::memmem::find(haystack, needle).is_some()
}

/// Appends a decimal number without going through `fmt`.
pub(crate) fn push_number(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_texts_hold_what_long_ones_hold() {
        let long = [b'-'; 200];
        for (haystack, needle, want) in [
            ("", "", true),
            ("", "a", false),
            ("abab", "bab", true),
            ("abab", "baba", false),
            ("ab", "ab", true),
            ("ab", "", true),
        ] {
            let (haystack, needle) = (haystack.as_bytes(), needle.as_bytes());
            assert_eq!(contains(haystack, needle), want);
            assert_eq!(contains(&[haystack, &long].concat(), needle), want);
        }
    }

    #[test]
    fn numbers() {
        for (text, want) in [("12", 12), (" -3x", -3), ("+7", 7), ("x", 0), ("", 0), ("99999999999999999999", i64::MAX)]
        {
            assert_eq!(atoi(text.as_bytes()), want);
        }
        for n in [0, 7, -1, 1234567890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_number(&mut out, n);
            assert_eq!(out, n.to_string().as_bytes());
        }
    }
}
