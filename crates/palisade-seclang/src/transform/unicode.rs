//! `utf8toUnicode`, and the code page maps of `SecUnicodeMapFile`.

/// Characters beyond ASCII as `%uHHHH`; bytes that are not UTF-8 stay.
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
                out.extend_from_slice(b"%u");
                let text = format!("{:04x}", u32::from(character));
                out.extend_from_slice(text.as_bytes());
                rest = &rest[len..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    (2..=4).find_map(|len| {
        let text = std::str::from_utf8(bytes.get(..len)?).ok()?;
        Some((text.chars().next()?, len))
    })
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
    fn a_code_page_is_read_from_its_block() {
        let map = UnicodeMap::parse("1250 (x)\n00a1:21\n\n20127 (US-ASCII)\n00a0:20 ff1c:3c\n", 20127).unwrap();
        assert_eq!((map.get(0, 0xa0), map.get(0xff, 0x1c), map.get(0, 0xa1)), (Some(0x20), Some(0x3c), None));
        assert_eq!(UnicodeMap::parse("", 20127), None);
    }
}
