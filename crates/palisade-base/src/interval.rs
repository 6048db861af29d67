//! Lengths of time: `"250ms"`, `"5s"`, `"15m"`, `"12h"`, `"7d"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{BadValue, TextValue, text_value};

/// A length of time as the policy writes it.
///
/// ```
/// # use palisade_base::Interval;
/// # use std::time::Duration;
/// assert_eq!("15m".parse::<Interval>().unwrap().duration(), Duration::from_secs(900));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1), ("w", 604_800_000)];

impl Interval {
    /// So many seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The same as a `Duration`.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl TextValue for Interval {
    const FORMAT: &'static str = "interval";
    const NOUN: &'static str = "a length of time";
    const EXAMPLES: &'static [&'static str] = &["5s", "250ms", "15m", "7d"];
}

impl FromStr for Interval {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| BadValue::new("a length of time begins with a whole number"))?;
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim())
            .map(|(_, factor)| *factor)
            .ok_or_else(|| BadValue::new("the unit is one of `ms`, `s`, `m`, `h`, `d`, `w`"))?;
        let millis = number.checked_mul(factor).filter(|millis| *millis <= 100 * 366 * 86_400_000);
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| BadValue::new("the time is longer than a hundred years"))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, factor) = UNITS[..5]
            .iter()
            .find(|(_, factor)| millis >= u128::from(*factor) && millis.is_multiple_of(u128::from(*factor)))
            .copied()
            .unwrap_or(("s", 1_000));
        write!(f, "{}{unit}", millis / u128::from(factor))
    }
}

text_value!(Interval);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_need_a_unit_and_are_written_back() {
        let cases = [
            ("250ms", 250, "250ms"),
            ("5s", 5_000, "5s"),
            ("60s", 60_000, "1m"),
            ("12h", 43_200_000, "12h"),
            ("1w", 604_800_000, "7d"),
            ("0s", 0, "0s"),
        ];
        for (text, millis, shown) in cases {
            let interval: Interval = text.parse().unwrap();
            assert_eq!((interval.duration().as_millis(), interval.to_string().as_str()), (millis, shown), "{text}");
        }
        for bad in ["", "5", "s", "5 sec", "1M", "1.5s", "-5s", "99999999999d"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
    }
}
