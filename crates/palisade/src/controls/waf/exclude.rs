//! What an operator's exclusions leave out, and the exclusion that would let a match pass.

use std::sync::Arc;

use palisade_policy::Problems;
use palisade_seclang::{LeaveOut, RuleSet};

use super::config::Exclude;
use crate::policy::values::PathPattern;

/// An exclusion, prepared for every rule set.
#[derive(Debug)]
pub(super) struct Excluded {
    pub(super) path: Option<PathPattern>,
    pub(super) by_set: Vec<LeaveOut>,
}

pub(super) fn compile(written: &[Exclude], sets: &[Arc<RuleSet>], problems: &mut Problems) -> Vec<Excluded> {
    let mut excluded = Vec::new();
    for (place, exclude) in written.iter().enumerate() {
        let key = format!("waf.exclude[{place}]");
        if exclude.field.is_none() && exclude.rules.is_empty() {
            problems.error(
                &key,
                "this would leave out every rule",
                "name a `field` or `rules`; to switch the WAF off for a path, write `waf = { mode = \"off\" }` in its route",
            );
            continue;
        }
        let variables = exclude.field.as_deref().map(variables).unwrap_or_default();
        let by_set: Result<Vec<_>, String> =
            sets.iter().map(|rules| rules.leave_out(&exclude.rules, &variables)).collect();
        match by_set {
            Ok(by_set) => excluded.push(Excluded { path: exclude.path.clone(), by_set }),
            Err(why) => {
                let fix = "numbers, ranges and tags are those of the rule files; kinds are `xss`, `sqli`, `rce`, `lfi`";
                problems.error(&key, why, fix);
            }
        }
    }
    excluded
}

/// A field in the names of the rule language.
fn variables(field: &str) -> Vec<String> {
    let named = |collections: &[&str], name: &str| {
        let name = if name.contains('*') { pattern(name) } else { name.to_owned() };
        collections.iter().map(|collection| format!("{collection}:{name}")).collect()
    };
    let is_variable = |text: &str| {
        let name = text.split(':').next().unwrap_or_default();
        name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    match field.split_once('.') {
        _ if is_variable(field) => vec![field.to_owned()],
        _ if field == "xml" => vec!["XML:/*".into(), "XML://@*".into()],
        Some(("header", name)) => named(&["REQUEST_HEADERS"], name),
        Some(("cookie", name)) => named(&["REQUEST_COOKIES"], name),
        _ => named(&["ARGS", "ARGS_GET", "ARGS_POST"], field),
    }
}

/// A name with `*` as a pattern of the rule language.
fn pattern(name: &str) -> String {
    let escaped: Vec<String> = name
        .split('*')
        .map(|part| {
            part.chars().fold(String::new(), |mut out, c| {
                if !c.is_alphanumeric() && c != '_' && c != '-' {
                    out.push('\\');
                }
                out.push(c);
                out
            })
        })
        .collect();
    format!("/^{}$/", escaped.join(".*"))
}

/// The field that a rule looked at, in the words of the policy: the other way round.
pub(super) fn field(target: &str) -> Option<String> {
    let (collection, name) = target.split_once(':').unwrap_or((target, ""));
    match collection {
        "ARGS" | "ARGS_GET" | "ARGS_POST" if !name.is_empty() => Some(name.to_owned()),
        "REQUEST_HEADERS" if !name.is_empty() => Some(format!("header.{name}")),
        "REQUEST_COOKIES" if !name.is_empty() => Some(format!("cookie.{name}")),
        "XML" => Some("xml".to_owned()),
        "REQUEST_BODY"
        | "REQUEST_URI"
        | "REQUEST_URI_RAW"
        | "REQUEST_FILENAME"
        | "REQUEST_BASENAME"
        | "REQUEST_LINE"
        | "QUERY_STRING"
        | "ARGS_NAMES"
        | "REQUEST_HEADERS_NAMES"
        | "REQUEST_COOKIES_NAMES" => Some(collection.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_variables_and_back() {
        for (text, first) in [
            ("password", "ARGS:password"),
            ("json.body", "ARGS:json.body"),
            ("json.tags.*", "ARGS:/^json\\.tags\\..*$/"),
            ("header.User-Agent", "REQUEST_HEADERS:User-Agent"),
            ("cookie.theme", "REQUEST_COOKIES:theme"),
            ("xml", "XML:/*"),
            ("REQUEST_BODY", "REQUEST_BODY"),
        ] {
            let named = variables(text);
            assert_eq!(named[0], first);
            if !text.contains('*') {
                assert_eq!(field(&named[0]).as_deref(), Some(text));
            }
        }
    }
}
