//! Times and patterns that stand in an expression as text, made into what they mean when it is read.

use palisade_base::Timestamp;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_syntax::hir::Look;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::environment::Type;
use crate::node::{Does, Node};
use crate::problem::{Problem, Span};

/// What a compiled pattern may take, in bytes: also a bound on the work for each byte that it looks at.
const MAX_PATTERN_BYTES: usize = 32 << 10;

/// Whether a text looks like a number.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 3339, as `timestamp` takes it.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(date.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Timestamp)
}

/// `1h30m`, `-1.5s`, `250ms`: milliseconds, as `duration` takes it.
pub(crate) fn length(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut whole: i64 = 0;
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        // In nanoseconds, so that a fraction of the smallest unit is still whole.
        let factor: i64 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let mut nanos = integer.parse::<i64>().ok()?.checked_mul(factor)?;
        let mut part = factor;
        for digit in fraction.bytes() {
            part /= 10;
            nanos = nanos.checked_add(i64::from(digit.checked_sub(b'0').filter(|d| *d < 10)?).checked_mul(part)?)?;
        }
        whole = whole.checked_add(nanos)?;
        rest = behind;
    }
    whole.checked_mul(sign).map(|nanos| nanos / 1_000_000)
}

/// A literal text beside a time or a length of time, as that.
pub(crate) fn as_kind(node: Node, kind: Type) -> Result<Node, Problem> {
    let function = if kind == Type::Time { "timestamp" } else { "duration" };
    let Does::Text(text) = &node.does else {
        let fix = format!("write `{function}(…)` round the string");
        return Err(Problem::new(node.at, format!("{kind} cannot be compared with a string"), fix));
    };
    let does = literal(text, kind, node.at)?;
    Ok(Node { at: node.at, does })
}

/// A time or length of time that stands there as text.
pub(crate) fn literal(text: &str, kind: Type, at: Span) -> Result<Does, Problem> {
    let does = if kind == Type::Time { time(text).map(Does::Time) } else { length(text).map(Does::Span) };
    let example = if kind == Type::Time { "2027-01-31T00:00:00Z" } else { "1h30m" };
    does.ok_or_else(|| Problem::new(at, format!("this is not {kind}"), format!("write it as `'{example}'`")))
}

/// A pattern, and whether it speaks of the whole text.
pub(crate) fn pattern(text: &str, at: Span) -> Result<(Regex, bool), Problem> {
    let bad = |why: String| {
        let fix = "write a regular expression of RE2's syntax: no look-around, no back references";
        Problem::new(at, format!("this pattern cannot be read: {why}"), fix)
    };
    let mut parser = regex_syntax::ParserBuilder::new().nest_limit(32).build();
    let parsed = parser.parse(text).map_err(|error| bad(reason(&error)))?;
    let properties = parsed.properties();
    let whole = properties.look_set_prefix().contains(Look::Start) && properties.look_set_suffix().contains(Look::End);
    let config = Regex::config()
        .nfa_size_limit(Some(MAX_PATTERN_BYTES))
        .hybrid_cache_capacity(256 << 10)
        .onepass_size_limit(Some(MAX_PATTERN_BYTES));
    let built = Regex::builder().configure(config).syntax(syntax::Config::new().nest_limit(32)).build(text);
    let regex = built.map_err(|_| {
        let fix = "write fewer or smaller repetitions, such as `{1,20}`";
        Problem::new(at, format!("this pattern takes more than {} KiB", MAX_PATTERN_BYTES >> 10), fix)
    })?;
    Ok((regex, whole))
}

fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "unknown syntax".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:00.25+01:00", Some(250)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2027-02-30T00:00:00Z", None),
            ("2027-01-01", None),
            ("", None),
        ] {
            assert_eq!(time(text).map(|time| time.0), expected, "{text}");
        }
        for (text, expected) in [
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            ("-250ms", Some(-250)),
            ("1500us", Some(1)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("1d", None),
            ("h", None),
            ("1..5s", None),
            ("99999999999999h", None),
        ] {
            assert_eq!(length(text), expected, "{text}");
        }
    }

    #[test]
    fn patterns_are_bounded_and_know_whether_they_mean_the_whole() {
        let whole = |text: &str| pattern(text, Span::default()).map(|(_, whole)| whole);
        assert!(whole("^a.*b$").unwrap() && whole("^(a|b)$").unwrap() && whole(r"\Aa\z").unwrap());
        assert!(!whole("^a|b$").unwrap() && !whole("a$").unwrap() && !whole("").unwrap() && !whole("(?m)^a$").unwrap());
        for bad in ["(", "a(?=b)", r"(a)\1", "[z-a]", "(a{100}){1000}", &"(".repeat(100)] {
            assert!(whole(bad).is_err(), "{bad}");
        }
    }
}
