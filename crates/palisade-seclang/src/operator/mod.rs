//! Operators: what a rule asks of a value.

mod bytes;
mod digits;
mod ip;
mod numbers;
mod phrases;
mod strings;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::expand::Macro;
use crate::libinjection;
use crate::problem::did_you_mean;
use crate::regex::{Allowance, Groups, Regex, StepLimit};

pub(crate) use bytes::ByteSet;
pub(crate) use ip::Networks;
pub(crate) use numbers::Comparison;
pub(crate) use phrases::Phrases;
pub(crate) use strings::StringTest;

/// An operator with its argument, compiled.
#[derive(Debug, Clone)]
pub(crate) enum Operator {
    /// `@unconditionalMatch`, and what `SecAction` has.
    Always,
    /// `@noMatch`.
    Never,
    Rx(Regex),
    /// A pattern with macros in it, compiled when its text is known.
    RxMacro(Macro, PatternCache),
    RxGlobal(Regex),
    Phrases(Phrases),
    Text(StringTest, Macro),
    Number(Comparison, Macro),
    ByteRange(ByteSet),
    UrlEncoding,
    Utf8Encoding,
    DetectSqli,
    DetectXss,
    IpMatch(Networks),
    GeoLookup,
    Rbl(String),
    VerifyCc(Regex),
    VerifyCpf(Regex),
    VerifySsn(Regex),
    VerifySvnr(Regex),
}

/// Patterns that came out of macros, compiled once; bounded, because their number may depend on requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct PatternCache(Arc<Mutex<HashMap<Vec<u8>, Option<Regex>>>>);

impl PatternCache {
    fn get(&self, pattern: &[u8]) -> Option<Regex> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = map.get(pattern) {
            return known.clone();
        }
        if map.len() >= 64 {
            map.clear();
        }
        let regex = std::str::from_utf8(pattern).ok().and_then(|p| Regex::new(p, true, false).ok());
        map.insert(pattern.to_vec(), regex.clone());
        regex
    }
}

/// What the engine cannot know by itself. The default answers that nothing is known.
pub trait Lookups: Send + Sync + std::fmt::Debug {
    /// The facts of `GEO` for an address, such as `("COUNTRY_CODE", "AT")`; `None` when the address is unknown.
    fn geo(&self, address: std::net::IpAddr) -> Option<Vec<(String, String)>> {
        let _ = address;
        None
    }

    /// Whether a block list (`@rbl`) holds the address.
    fn listed(&self, list: &str, address: &str) -> bool {
        let _ = (list, address);
        false
    }
}

/// What a match left behind for `capture`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    /// Offsets into the value.
    pub(crate) groups: Groups,
    /// For operators whose capture is not a part of the value: a fingerprint, or the matches of a global search.
    pub(crate) texts: Vec<Vec<u8>>,
}

impl Operator {
    /// The names this engine knows.
    pub(crate) const NAMES: &'static [&'static str] = &[
        "beginsWith",
        "contains",
        "containsWord",
        "detectSQLi",
        "detectXSS",
        "endsWith",
        "eq",
        "ge",
        "geoLookup",
        "gt",
        "ipMatch",
        "ipMatchF",
        "ipMatchFromFile",
        "le",
        "lt",
        "noMatch",
        "pm",
        "pmf",
        "pmFromFile",
        "rbl",
        "rx",
        "rxGlobal",
        "streq",
        "strmatch",
        "unconditionalMatch",
        "validateByteRange",
        "validateUrlEncoding",
        "validateUtf8Encoding",
        "verifyCC",
        "verifyCPF",
        "verifySSN",
        "verifySVNR",
        "within",
    ];

    /// Compiles an operator. Files are looked for beside the rule file, `beside`.
    ///
    /// # Errors
    /// The message and the help for the rule's author.
    pub(crate) fn compile(name: &str, argument: &str, beside: Option<&Path>) -> Result<Operator, (String, String)> {
        let text = |argument: &str| Macro::parse(argument).map_err(|e| (e, String::new()));
        let regex = |argument: &str| {
            Regex::new(argument, true, false).map_err(|e| {
                (format!("the pattern cannot be compiled: {e}"), "patterns are PCRE; `\\` escapes a literal".to_owned())
            })
        };
        Ok(match name.to_ascii_lowercase().as_str() {
            "rx" => {
                // `%{` that names no variable is a part of the pattern (templates, OGNL).
                match Macro::parse(argument) {
                    Ok(parsed) if !parsed.is_literal() => Operator::RxMacro(parsed, PatternCache::default()),
                    _ => Operator::Rx(regex(argument)?),
                }
            }
            "rxglobal" => Operator::RxGlobal(regex(argument)?),
            "pm" => Operator::Phrases(Phrases::from_words(argument).map_err(|e| (e, String::new()))?),
            "pmfromfile" | "pmf" => Operator::Phrases(Phrases::from_files(argument, beside)?),
            "beginswith" => Operator::Text(StringTest::BeginsWith, text(argument)?),
            "endswith" => Operator::Text(StringTest::EndsWith, text(argument)?),
            "contains" | "strmatch" => Operator::Text(StringTest::Contains, text(argument)?),
            "containsword" => Operator::Text(StringTest::ContainsWord, text(argument)?),
            "streq" => Operator::Text(StringTest::Equal, text(argument)?),
            "within" => Operator::Text(StringTest::Within, text(argument)?),
            "eq" => Operator::Number(Comparison::Eq, text(argument)?),
            "ge" => Operator::Number(Comparison::Ge, text(argument)?),
            "gt" => Operator::Number(Comparison::Gt, text(argument)?),
            "le" => Operator::Number(Comparison::Le, text(argument)?),
            "lt" => Operator::Number(Comparison::Lt, text(argument)?),
            "validatebyterange" => Operator::ByteRange(
                ByteSet::parse(argument)
                    .map_err(|e| (e, "write numbers from 0 to 255 and ranges, such as `9,10,13,32-126`".to_owned()))?,
            ),
            "validateurlencoding" => Operator::UrlEncoding,
            "validateutf8encoding" => Operator::Utf8Encoding,
            "detectsqli" => Operator::DetectSqli,
            "detectxss" => Operator::DetectXss,
            "ipmatch" => Operator::IpMatch(
                Networks::parse(argument)
                    .map_err(|e| (e, "write addresses and networks with commas between".to_owned()))?,
            ),
            "ipmatchf" | "ipmatchfromfile" => Operator::IpMatch(Networks::from_file(argument, beside)?),
            "geolookup" => Operator::GeoLookup,
            "rbl" => Operator::Rbl(argument.trim().to_owned()),
            "unconditionalmatch" => Operator::Always,
            "nomatch" => Operator::Never,
            "verifycc" => Operator::VerifyCc(regex(argument)?),
            "verifycpf" => Operator::VerifyCpf(regex(argument)?),
            "verifyssn" => Operator::VerifySsn(regex(argument)?),
            "verifysvnr" => Operator::VerifySvnr(regex(argument)?),
            "inspectfile" | "fuzzyhash" | "gsblookup" | "rsub" | "validatedtd" | "validateschema" | "validatehash"
            | "ipmatchfromurl" => {
                return Err((
                    format!("the operator `@{name}` is not supported"),
                    "remove the rule, or say the same with `@rx`, `@pm` or a control of the gateway".to_owned(),
                ));
            }
            _ => return Err((format!("unknown operator `@{name}`"), did_you_mean(name, Self::NAMES.iter().copied()))),
        })
    }

    /// The argument that may hold macros.
    pub(crate) fn argument_mut(&mut self) -> Option<&mut Macro> {
        match self {
            Operator::Text(_, m) | Operator::Number(_, m) | Operator::RxMacro(m, _) => Some(m),
            _ => None,
        }
    }

    /// The argument that may hold macros.
    pub(crate) fn argument(&self) -> Option<&Macro> {
        match self {
            Operator::Text(_, m) | Operator::Number(_, m) | Operator::RxMacro(m, _) => Some(m),
            _ => None,
        }
    }

    /// Judges one value. `argument` is the expanded argument of [`Operator::argument`]; `found` is filled only where
    /// `capture` asks for it.
    pub(crate) fn matches(
        &self,
        value: &[u8],
        argument: &[u8],
        (lookups, allowance): (&dyn Lookups, &mut Allowance<'_>),
        capture: bool,
        found: &mut Found,
    ) -> Result<bool, StepLimit> {
        found.groups = [None; 10];
        found.texts.clear();
        let mut rx = |regex: &Regex, found: &mut Found| -> Result<bool, StepLimit> {
            // Groups cost several times a plain search, and most values do not match.
            if (!capture || regex.is_linear()) && !regex.is_match_within(value, allowance)? {
                return Ok(false);
            }
            if !capture {
                return Ok(true);
            }
            let groups = regex.captures(value, allowance)?;
            found.groups = groups.unwrap_or([None; 10]);
            Ok(groups.is_some())
        };
        Ok(match self {
            Operator::Always => true,
            Operator::Never | Operator::GeoLookup => false,
            Operator::Rx(regex) => rx(regex, found)?,
            Operator::RxMacro(_, cache) => match cache.get(argument) {
                Some(regex) => rx(&regex, found)?,
                None => false,
            },
            Operator::RxGlobal(regex) => {
                let mut at = 0;
                let mut any = false;
                while at <= value.len() {
                    let Some(groups) = regex.captures_from(value, at, allowance)? else { break };
                    let Some((start, end)) = groups[0] else { break };
                    any = true;
                    at = if end > start { end } else { end + 1 };
                    // Of empty matches only one at the beginning counts.
                    if start == end && start > 0 {
                        continue;
                    }
                    if !capture || found.texts.len() >= 10 {
                        break;
                    }
                    found.texts.extend(groups.iter().flatten().map(|(s, e)| value[*s..*e].to_vec()));
                }
                found.texts.truncate(10);
                any
            }
            Operator::Phrases(phrases) => match phrases.find(value) {
                Some(span) => {
                    found.groups[0] = Some(span);
                    true
                }
                None => false,
            },
            Operator::Text(test, _) => test.holds(value, argument),
            Operator::Number(comparison, _) => comparison.holds(crate::text::atoi(value), crate::text::atoi(argument)),
            Operator::ByteRange(allowed) => !allowed.all(value),
            Operator::UrlEncoding => bytes::bad_url_encoding(value),
            Operator::Utf8Encoding => !bytes::good_utf8(value),
            Operator::DetectSqli => match libinjection::sqli(value) {
                Some(fingerprint) => {
                    found.texts.push(fingerprint.as_bytes().to_vec());
                    true
                }
                None => false,
            },
            Operator::DetectXss => {
                let hit = libinjection::xss(value);
                if hit {
                    found.groups[0] = Some((0, value.len()));
                }
                hit
            }
            Operator::IpMatch(networks) => networks.contain(value),
            Operator::Rbl(list) => std::str::from_utf8(value).is_ok_and(|address| lookups.listed(list, address)),
            Operator::VerifyCc(regex) => digits::verify(regex, value, digits::credit_card, (allowance, found))?,
            Operator::VerifyCpf(regex) => digits::verify(regex, value, digits::cpf, (allowance, found))?,
            Operator::VerifySsn(regex) => digits::verify(regex, value, digits::ssn, (allowance, found))?,
            Operator::VerifySvnr(regex) => digits::verify(regex, value, digits::svnr, (allowance, found))?,
        })
    }
}
