//! `utf8toUnicode`, and the code page maps of `SecUnicodeMapFile`.

/// Characters beyond ASCII as `%uHHHH`; bytes that are not UTF-8 stay.
///
/// As ModSecurity, which does not ask whether a character may be written so: one in more bytes than it needs is what some
/// application reads, and its first byte stands behind it then, as behind half of a surrogate pair. One beyond Unicode has
/// that byte before it.
pub(crate) fn utf8_to_unicode(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some((&b, tail)) = rest.split_first() {
        if b < 0x80 {
            out.push(b);
            rest = tail;
            continue;
        }
        match decode(rest) {
            Some((character, len)) => {
                if b >= 0xf5 {
                    out.push(b);
                }
                out.extend_from_slice(format!("%u{character:04x}").as_bytes());
                let least = [0x80, 0x800, 0x1_0000][len - 2];
                if character < least {
                    out.push(b);
                }
                if (0xd800..=0xdfff).contains(&character) {
                    out.push(b);
                }
                rest = &rest[len..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
}

/// The number that the first bytes stand for by their bits, and how many they are: two to four.
fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let (len, bits) = match bytes.first()? {
        first @ 0xc0..=0xdf => (2, first & 0x1f),
        first @ 0xe0..=0xef => (3, first & 0x0f),
        first @ 0xf0..=0xf7 => (4, first & 0x07),
        _ => return None,
    };
    let more = bytes.get(1..len)?;
    let follow = more.iter().all(|byte| byte & 0xc0 == 0x80);
    follow.then(|| (more.iter().fold(u32::from(bits), |n, byte| n << 6 | u32::from(byte & 0x3f)), len))
}

/// Which byte a code page's best-fit mapping makes of a character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnicodeMap(Vec<Option<u8>>);

impl UnicodeMap {
    /// Reads the block of `code_page` from the text of a mapping file.
    pub(crate) fn parse(text: &str, code_page: u32) -> Option<UnicodeMap> {
        let mut map = vec![None; 0x1_0000];
        let mut inside = false;
        let mut found = false;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let first = line.split_whitespace().next().unwrap_or("");
            if !first.contains(':') && first.bytes().all(|b| b.is_ascii_digit()) {
                inside = first.parse() == Ok(code_page);
                found |= inside;
                continue;
            }
            if !inside {
                continue;
            }
            for pair in line.split_whitespace() {
                let Some((from, to)) = pair.split_once(':') else { continue };
                if let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), u8::from_str_radix(to, 16))
                    && let Some(slot) = map.get_mut(from)
                {
                    *slot = Some(to);
                }
            }
        }
        found.then_some(UnicodeMap(map))
    }

    pub(crate) fn get(&self, high: u8, low: u8) -> Option<u8> {
        self.0.get(usize::from(high) << 8 | usize::from(low)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_read_by_their_bits() {
        for (input, wanted) in [
            (&b"a\xc2\xb4b"[..], &b"a%u00b4b"[..]),
            (b"\xef\xbc\x9c", b"%uff1c"),
            (b"\xf0\x9f\x98\x80", b"%u1f600"),
            // Longer than need be.
            (b"\xc0\xbcscript", b"%u003c\xc0script"),
            (b"\xe0\x80\xbcscript", b"%u003c\xe0script"),
            (b"\xf0\x80\x80\xbcscript", b"%u003c\xf0script"),
            (b"\xf0\x82\x82\xac", b"%u20ac\xf0"),
            (b"\xe0\x82\xb4", b"%u00b4\xe0"),
            // Half of a surrogate pair, and beyond Unicode.
            (b"\xed\xa0\x80", b"%ud800\xed"),
            (b"\xf4\x90\x80\x80", b"%u110000"),
            (b"\xf5\x80\x80\x80", b"\xf5%u140000"),
            // No characters.
            (b"\xc3a", b"\xc3a"),
            (b"\xe2\x82", b"\xe2\x82"),
            (b"\x80\xff\xf8\x80\x80\x80\x80", b"\x80\xff\xf8\x80\x80\x80\x80"),
        ] {
            let mut out = Vec::new();
            utf8_to_unicode(input, &mut out);
            assert_eq!(out.escape_ascii().to_string(), wanted.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_code_page_is_read_from_its_block() {
        let map = UnicodeMap::parse("1250 (x)\n00a1:21\n\n20127 (US-ASCII)\n00a0:20 ff1c:3c\n", 20127).unwrap();
        assert_eq!((map.get(0, 0xa0), map.get(0xff, 0x1c), map.get(0, 0xa1)), (Some(0x20), Some(0x3c), None));
        assert_eq!(UnicodeMap::parse("", 20127), None);
    }
}
