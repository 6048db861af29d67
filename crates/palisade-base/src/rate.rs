//! Rates in slowapi's syntax: `"5/minute"`, `"10 per second"`, `"100/2 hours"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{BadValue, TextValue, text_value};

/// So many requests in a period. Guide section 8; the syntax is that of slowapi and `limits`.
///
/// ```
/// # use palisade_base::Rate;
/// let rate: Rate = "5/minute".parse().unwrap();
/// assert_eq!((rate.amount(), rate.period().as_secs()), (5, 60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    amount: u32,
    multiple: u32,
    unit: usize,
}

const UNITS: [(&str, u64); 6] =
    [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400), ("month", 2_592_000), ("year", 31_536_000)];

impl Rate {
    /// How many are allowed in a period, at least one.
    pub const fn amount(self) -> u32 {
        self.amount
    }

    /// The period.
    pub fn period(self) -> Duration {
        Duration::from_secs(UNITS[self.unit].1 * u64::from(self.multiple))
    }
}

impl TextValue for Rate {
    const FORMAT: &'static str = "rate";
    const NOUN: &'static str = "a rate";
    const EXAMPLES: &'static [&'static str] = &["600/minute", "10/second", "1000/day"];
}

impl FromStr for Rate {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        // As `limits` reads it: `5/minute`, `5 per minute`, `5per2minutes`, in any case.
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (amount, rest) = text.split_at(digits);
        if amount.is_empty() {
            return Err(BadValue::new("a rate begins with a whole number"));
        }
        let amount: u32 = amount.parse().map_err(|_| BadValue::new("the number of a rate is too large"))?;
        let rest = rest.trim_start();
        let per = || rest.get(..3).filter(|word| word.eq_ignore_ascii_case("per")).and(rest.get(3..));
        let rest = rest
            .strip_prefix('/')
            .or_else(per)
            .ok_or_else(|| BadValue::new("behind the number of a rate come `/` or `per`, and a period"))?;
        if amount == 0 {
            return Err(BadValue::new("a rate of zero would refuse everything"));
        }
        let rest = rest.trim();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (multiple, unit) = rest.split_at(digits);
        let multiple: u32 = match multiple {
            "" => 1,
            digits => {
                digits.parse().ok().filter(|n| *n > 0).ok_or_else(|| BadValue::new("the period is too long or zero"))?
            }
        };
        let unit = unit.trim().to_ascii_lowercase();
        let unit = UNITS
            .iter()
            .position(|(name, _)| unit.strip_suffix('s').unwrap_or(&unit) == *name)
            .ok_or_else(|| BadValue::new("the period is `second`, `minute`, `hour`, `day`, `month` or `year`"))?;
        if UNITS[unit].1 * u64::from(multiple) > 100 * 31_536_000 {
            return Err(BadValue::new("the period is longer than a hundred years"));
        }
        Ok(Self { amount, multiple, unit })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.multiple {
            1 => write!(f, "{}/{}", self.amount, UNITS[self.unit].0),
            n => write!(f, "{}/{n} {}s", self.amount, UNITS[self.unit].0),
        }
    }
}

text_value!(Rate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_slowapi() {
        let cases = [
            ("5/minute", 5, 60, "5/minute"),
            ("10 per second", 10, 1, "10/second"),
            ("100/2 hours", 100, 7200, "100/2 hours"),
            ("1/Day", 1, 86_400, "1/day"),
            ("3/15minutes", 3, 900, "3/15 minutes"),
            ("3 per 15 minute", 3, 900, "3/15 minutes"),
            (" 7PER Hours ", 7, 3600, "7/hour"),
            ("2 / month", 2, 2_592_000, "2/month"),
            ("1per2days", 1, 172_800, "1/2 days"),
        ];
        for (text, amount, seconds, shown) in cases {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.amount(), rate.period().as_secs(), rate.to_string().as_str()),
                (amount, seconds, shown),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "5/",
            "5 minute",
            "5 pe",
            "5 perminute perhour",
            "5/1.5 minutes",
            "٣/minute",
            "/minute",
            "0/minute",
            "5/fortnight",
            "-1/second",
            "5/0 minutes",
            "9999999999/second",
            "1/99999999 years",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
