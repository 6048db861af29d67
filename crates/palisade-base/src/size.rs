//! Sizes in bytes: `"512"`, `"32KiB"`, `"10MiB"`, `"2GiB"`.

use std::fmt;
use std::str::FromStr;

use crate::{BadValue, TextValue, text_value};

/// A number of bytes. Units are powers of two (`KiB`, `MiB`, `GiB`); `KB` and `MB` are refused, because people
/// disagree on what they mean.
///
/// ```
/// # use palisade_base::ByteSize;
/// assert_eq!("1MiB".parse::<ByteSize>().unwrap().bytes(), 1_048_576);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// So many kibibytes.
    pub const fn kib(kibibytes: u64) -> Self {
        Self(kibibytes << 10)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; the largest one where it does not fit.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether this is no byte at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl TextValue for ByteSize {
    const FORMAT: &'static str = "byte-size";
    const NOUN: &'static str = "a size";
    const EXAMPLES: &'static [&'static str] = &["1MiB", "32KiB", "2GiB"];
}

impl FromStr for ByteSize {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| BadValue::new("a size begins with a whole number"))?;
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(|| BadValue::new("the unit is one of `B`, `KiB`, `MiB`, `GiB`"))?
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| BadValue::new("the size is too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

text_value!(ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_two_and_written_back() {
        let cases = [
            ("0", 0, "0B"),
            ("512", 512, "512B"),
            ("32KiB", 32768, "32KiB"),
            ("1 MiB", 1 << 20, "1MiB"),
            ("2gib", 2 << 30, "2GiB"),
        ];
        for (text, bytes, shown) in cases {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for bad in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615GiB", "1MiB x"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
