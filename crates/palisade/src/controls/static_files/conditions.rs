//! Preconditions, ranges and encodings: what a request asks of a file, judged without touching one.
//!
//! Sources: RFC 9110 §8.8.3 (entity tags), §12.5.3 (`Accept-Encoding`), §13 (preconditions), §14 (ranges).

use std::time::SystemTime;

use http::header::{
    ACCEPT_ENCODING, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    RANGE,
};

use crate::context::Context;

/// What a request asks for besides the file. Empty for most requests.
#[derive(Debug, Default)]
pub(super) struct Ask {
    if_match: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
    if_range: Option<String>,
    range: Option<String>,
    /// The encodings that are acceptable, the best first.
    pub(super) encodings: Vec<Encoding>,
}

/// What is known of the bytes that would be sent.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The entity tag without `W/`.
    pub(super) tag: &'a str,
    /// Whether equal tags mean equal bytes.
    pub(super) strong: bool,
    /// `Last-Modified`, in whole seconds, where it is one that can be relied on.
    pub(super) modified: Option<SystemTime>,
    /// Bytes in all.
    pub(super) length: u64,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// All of it.
    Whole,
    /// The bytes from the first to before the second.
    Part(u64, u64),
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

impl Ask {
    /// Reads the headers of a request; those of ranges are for GET only.
    pub(super) fn read(headers: &HeaderMap, get: bool) -> Self {
        let text = |name: &HeaderName| Context::single(headers, name.as_str()).map(str::to_owned);
        let date = |name: &HeaderName| {
            headers.contains_key(name).then(|| httpdate::parse_http_date(&text(name)?).ok()).flatten()
        };
        let encodings = headers.contains_key(ACCEPT_ENCODING).then(|| joined(headers, &ACCEPT_ENCODING)).flatten();
        Self {
            if_match: joined(headers, &IF_MATCH),
            if_none_match: joined(headers, &IF_NONE_MATCH),
            if_modified_since: date(&IF_MODIFIED_SINCE),
            if_unmodified_since: date(&IF_UNMODIFIED_SINCE),
            if_range: if get { text(&IF_RANGE) } else { None },
            range: if get { text(&RANGE) } else { None },
            encodings: encodings.map(|list| acceptable(&String::from_utf8_lossy(&list))).unwrap_or_default(),
        }
    }

    /// What is sent of a file, in the order of RFC 9110 §13.2.2.
    pub(super) fn decide(&self, facts: &Facts<'_>) -> Decision {
        if let Some(list) = &self.if_match {
            if !names(list, facts.tag, facts.strong, true) {
                return Decision::Failed;
            }
        } else if let (Some(date), Some(modified)) = (self.if_unmodified_since, facts.modified)
            && modified > date
        {
            return Decision::Failed;
        }
        if let Some(list) = &self.if_none_match {
            if names(list, facts.tag, facts.strong, false) {
                return Decision::NotModified;
            }
        } else if let (Some(date), Some(modified)) = (self.if_modified_since, facts.modified)
            && modified <= date
        {
            return Decision::NotModified;
        }
        match &self.range {
            Some(range) if self.if_range.as_deref().is_none_or(|validator| same(validator, facts)) => {
                part(range, facts.length)
            }
            _ => Decision::Whole,
        }
    }
}

/// All values of a header that is a list, as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// Whether a list of entity tags has this one. Where `strongly` is asked for, a weak tag is equal to none.
fn names(list: &[u8], tag: &str, strong: bool, strongly: bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let weak = rest.strip_prefix(b"W/");
        let Some(quoted) = weak.unwrap_or(rest).strip_prefix(b"\"") else { return false };
        let Some(end) = quoted.iter().position(|byte| *byte == b'"') else { return false };
        if quoted[..end] == tag.as_bytes()[1..tag.len() - 1] && !(strongly && (weak.is_some() || !strong)) {
            return true;
        }
        rest = quoted[end + 1..].trim_ascii_start();
        match rest.strip_prefix(b",") {
            Some(next) => rest = next.trim_ascii_start(),
            None => return false,
        }
    }
    false
}

/// Whether the part that a client has is of these bytes: only then does another part fit to it (RFC 9110 §13.1.5).
fn same(validator: &str, facts: &Facts<'_>) -> bool {
    if validator.starts_with('"') {
        return facts.strong && validator == facts.tag;
    }
    httpdate::parse_http_date(validator).is_ok_and(|date| Some(date) == facts.modified)
}

/// The part that `Range` asks for. Several parts at once, other units and what is malformed are answered with the whole,
/// as RFC 9110 §14.2 lets a server do: parts that overlap by the hundred were a way to multiply work (CVE-2011-3192).
fn part(range: &str, length: u64) -> Decision {
    let Some((unit, spec)) = range.split_once('=') else { return Decision::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Decision::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Decision::Whole };
    let number = |digits: &str| match digits {
        _ if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => None,
        // More than there can be is more than there is.
        _ => Some(digits.parse().unwrap_or(u64::MAX)),
    };
    match (first, last, number(first), number(last)) {
        ("", _, _, Some(0)) => Decision::Unsatisfiable,
        ("", _, _, Some(_)) if length == 0 => Decision::Unsatisfiable,
        ("", _, _, Some(suffix)) => Decision::Part(length.saturating_sub(suffix), length),
        (_, "", Some(first), _) if first >= length => Decision::Unsatisfiable,
        (_, "", Some(first), _) => Decision::Part(first, length),
        (_, _, Some(first), Some(last)) if first > last => Decision::Whole,
        (_, _, Some(first), Some(_)) if first >= length => Decision::Unsatisfiable,
        (_, _, Some(first), Some(last)) => Decision::Part(first, last.saturating_add(1).min(length)),
        _ => Decision::Whole,
    }
}

/// A compressed form of a file that may lie beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `.br`
    Brotli,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
}

impl Encoding {
    /// The better first.
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As `Content-Encoding` names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The ending of the file.
    pub(super) const fn ending(self) -> &'static [u8] {
        match self {
            Self::Brotli => b".br",
            Self::Zstd => b".zst",
            Self::Gzip => b".gz",
        }
    }
}

/// The encodings that a client takes, and takes rather than none, the best first.
fn acceptable(list: &str) -> Vec<Encoding> {
    let weights: Vec<(&str, u16)> = list
        .split(',')
        .filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?;
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some((name, quality.map_or(Some(1000), weight)?))
        })
        .collect();
    let of = |wanted: &str| weights.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|found| found.1);
    let any = of("*").unwrap_or(0);
    // Where nothing is said of it, the plain form is as good as the worst that is named.
    let plain = of("identity").unwrap_or(0);
    let mut taken: Vec<(Encoding, u16)> = Encoding::ALL
        .into_iter()
        .map(|encoding| (encoding, of(encoding.name()).unwrap_or(any)))
        .filter(|(_, weight)| *weight > 0 && *weight >= plain)
        .collect();
    taken.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    taken.into_iter().map(|(encoding, _)| encoding).collect()
}

/// A weight in thousandths; none where it is malformed.
fn weight(text: &str) -> Option<u16> {
    let value: f32 = text.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    Some((value * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 86_400;

    fn ask(headers: &[(&'static str, &str)]) -> Ask {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_str(value).unwrap());
        }
        Ask::read(&map, true)
    }

    #[test]
    fn preconditions_in_their_order() {
        use Decision::{Failed, NotModified, Part, Whole};
        let day = |days: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY));
        let (before, same, after) = (day(9), day(10), day(11));
        let (before, same, after) = (before.as_str(), same.as_str(), after.as_str());
        type Case<'a> = (&'a [(&'static str, &'a str)], Decision);
        let cases: &[Case] = &[
            (&[], Whole),
            (&[("if-none-match", "\"t\"")], NotModified),
            (&[("if-none-match", "W/\"t\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"x\", W/\"y\" ,\"t\"")], NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"t\"")], NotModified),
            (&[("if-none-match", "\"x\"")], Whole),
            (&[("if-none-match", "t")], Whole),
            (&[("if-none-match", "\"t")], Whole),
            (&[("if-none-match", "")], Whole),
            // The tag decides, whatever the date says.
            (&[("if-none-match", "\"x\""), ("if-modified-since", after)], Whole),
            (&[("if-modified-since", same)], NotModified),
            (&[("if-modified-since", after)], NotModified),
            (&[("if-modified-since", before)], Whole),
            (&[("if-modified-since", "yesterday")], Whole),
            (&[("if-modified-since", "Sunday, 11-Jan-70 00:00:00 GMT")], NotModified),
            (&[("if-match", "\"t\"")], Whole),
            (&[("if-match", "*")], Whole),
            (&[("if-match", "W/\"t\"")], Failed),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "\"x\""), ("if-none-match", "\"t\"")], Failed),
            (&[("if-match", "\"t\""), ("if-none-match", "\"t\"")], NotModified),
            (&[("if-unmodified-since", before)], Failed),
            (&[("if-unmodified-since", same)], Whole),
            (&[("if-match", "\"t\""), ("if-unmodified-since", before)], Whole),
            (&[("range", "bytes=0-4")], Part(0, 5)),
            (&[("range", "bytes=0-4"), ("if-range", "\"t\"")], Part(0, 5)),
            (&[("range", "bytes=0-4"), ("if-range", "\"x\"")], Whole),
            (&[("range", "bytes=0-4"), ("if-range", "W/\"t\"")], Whole),
            (&[("range", "bytes=0-4"), ("if-range", same)], Part(0, 5)),
            (&[("range", "bytes=0-4"), ("if-range", after)], Whole),
            (&[("range", "bytes=0-4"), ("if-none-match", "\"t\"")], NotModified),
            (&[("range", "bytes=0-4"), ("range", "bytes=5-6")], Whole),
        ];
        let modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(10 * DAY));
        for (headers, expected) in cases {
            let facts = Facts { tag: "\"t\"", strong: true, modified, length: 100 };
            assert_eq!(ask(headers).decide(&facts), *expected, "{headers:?}");
        }
        let weak = Facts { tag: "\"t\"", strong: false, modified, length: 100 };
        assert_eq!(ask(&[("if-none-match", "\"t\"")]).decide(&weak), NotModified);
        assert_eq!(ask(&[("if-match", "\"t\"")]).decide(&weak), Failed);
        assert_eq!(ask(&[("range", "bytes=0-4"), ("if-range", "\"t\"")]).decide(&weak), Whole);
        let young = Facts { modified: None, ..weak };
        let now = httpdate::fmt_http_date(SystemTime::now());
        assert_eq!(ask(&[("range", "bytes=0-4"), ("if-range", &now)]).decide(&young), Whole);
        assert_eq!(ask(&[("if-modified-since", &now)]).decide(&young), Whole);
    }

    #[test]
    fn ranges() {
        use Decision::{Part, Unsatisfiable, Whole};
        for (range, length, expected) in [
            ("bytes=0-0", 10, Part(0, 1)),
            ("bytes=0-", 10, Part(0, 10)),
            ("bytes=9-", 10, Part(9, 10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=3-99", 10, Part(3, 10)),
            ("bytes=10-11", 10, Unsatisfiable),
            ("bytes=-3", 10, Part(7, 10)),
            ("bytes=-99", 10, Part(0, 10)),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("BYTES=1-2", 10, Part(1, 3)),
            ("bytes= 1-2", 10, Part(1, 3)),
            ("bytes=0-18446744073709551615", 10, Part(0, 10)),
            ("bytes=0-99999999999999999999999", 10, Part(0, 10)),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-99999999999999999999999", 10, Part(0, 10)),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=,", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(part(range, length), expected, "{range} of {length}");
        }
    }

    #[test]
    fn encodings() {
        use Encoding::{Brotli, Gzip, Zstd};
        for (list, expected) in [
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip][..]),
            ("gzip", &[Gzip]),
            ("GZIP", &[Gzip]),
            ("gzip;q=1, br;q=0.5", &[Gzip, Brotli]),
            ("gzip;q=0, br", &[Brotli]),
            ("*", &[Brotli, Zstd, Gzip]),
            ("*;q=0", &[]),
            ("*, br;q=0", &[Zstd, Gzip]),
            ("identity", &[]),
            ("identity;q=1, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip", &[Gzip]),
            ("identity;q=0, gzip;q=0.001", &[Gzip]),
            ("gzip;q=2", &[]),
            ("gzip;q=x", &[]),
            ("gzip; q=0.8 , br ; q=0.9", &[Brotli, Gzip]),
            ("", &[]),
            ("deflate", &[]),
        ] {
            assert_eq!(acceptable(list), expected, "{list}");
        }
    }
}
