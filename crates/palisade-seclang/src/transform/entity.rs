//! `htmlEntityDecode`: numeric entities and the five names that ModSecurity knows; the semicolon is optional.

/// Decodes each entity into one byte (the low byte of its number).
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        if b == b'&'
            && let Some((byte, len)) = entity(&input[i + 1..])
        {
            out.push(byte);
            i += 1 + len;
            if input.get(i) == Some(&b';') {
                i += 1;
            }
            continue;
        }
        out.push(b);
        i += 1;
    }
}

/// The entity that begins after the `&`: its byte and its length without the semicolon.
fn entity(rest: &[u8]) -> Option<(u8, usize)> {
    if let Some(number) = rest.strip_prefix(b"#") {
        let (prefix, digits, radix) = match number.first() {
            Some(b'x' | b'X') => (2, &number[1..], 16),
            _ => (1, number, 10),
        };
        let count = digits.iter().take_while(|b| char::from(**b).is_digit(radix)).count();
        if count == 0 {
            return None;
        }
        // As `strtol`: too large a number becomes the largest, whose low byte is 0xff.
        let value = digits[..count].iter().try_fold(0u64, |n, b| {
            n.checked_mul(u64::from(radix))?.checked_add(u64::from(char::from(*b).to_digit(radix)?))
        });
        let value = value.filter(|v| *v <= i64::MAX as u64).unwrap_or(i64::MAX as u64);
        return Some((value as u8, prefix + count));
    }
    let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let name = &rest[..len];
    [(&b"quot"[..], b'"'), (b"amp", b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"nbsp", 0xa0)]
        .into_iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known))
        .map(|(_, byte)| (byte, len))
}
