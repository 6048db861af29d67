//! The trace that a request belongs to, as whoever asks has named it. Guide section 16.
//!
//! Source: W3C Trace Context, section 3.2 (`traceparent`).

use std::num::NonZeroU128;

/// The id of a trace. A number, so that nothing of the header's own text can reach a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// `00-` and 32 digits, `-` and 16, `-` and 2: all of version 00, and the start of any later one.
const LENGTH: usize = 55;

impl TraceId {
    /// The trace that a `traceparent` names; none where it is no valid one.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, more) = header.split_at_checked(LENGTH)?;
        let field = |from: usize, to: usize| hexadecimal(known.get(from..to)?);
        if [2, 35, 52].iter().any(|dash| known.get(*dash) != Some(&b'-')) {
            return None;
        }
        match field(0, 2)? {
            0 if !more.is_empty() => return None,
            // Later versions may go on behind another dash.
            1..=0xfe if more.first().is_some_and(|byte| *byte != b'-') => return None,
            0..=0xfe => {}
            _ => return None,
        }
        let trace = NonZeroU128::new(field(3, 35)?)?;
        let parent = field(36, 52)?;
        field(53, 55)?;
        (parent != 0).then_some(Self(trace))
    }

    /// Its 32 digits.
    pub fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (two, byte) in text.chunks_exact_mut(2).zip(self.0.get().to_be_bytes()) {
            two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
        }
        text
    }
}

/// A number of digits in lower case, as nothing else is valid.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_valid_header_names_its_trace() {
        for header in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-ff",
            // Later versions.
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be",
            "fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        ] {
            let trace = TraceId::parse(header.as_bytes()).unwrap_or_else(|| panic!("{header}"));
            assert_eq!(std::str::from_utf8(&trace.hex()), Ok(TRACE), "{header}");
        }
        let least = TraceId::parse(b"00-00000000000000000000000000000001-0000000000000001-00").unwrap();
        assert_eq!(&least.hex(), b"00000000000000000000000000000001");
    }

    #[test]
    fn anything_else_names_none() {
        for header in [
            "",
            "00",
            TRACE,
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            // Upper case, other digits, other signs between.
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
            "0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333\"-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319\u{e9}-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceId::parse(header.as_bytes()), None, "{header}");
        }
    }
}
