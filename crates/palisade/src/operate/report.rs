//! `palisade report`: what was refused or would have been, in groups, with the lines of policy that would allow it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use palisade_base::Rate;
use serde_json::{Value, json};

use super::remedy::{Request, remedy};
use super::rfc3339;
use crate::controls::headers::URL_TOKEN;
use crate::controls::rate_limit::STRICT_RATE;
use crate::live::Handle;
use crate::observe::decisions::{Group, GroupKey, SAMPLES, Summary, is_of_policy};
use crate::refusal::Code;
use crate::stack::Live;

/// Groups that one report names; the rest are counted.
const MAX_GROUPS: usize = 200;

/// Everything that was refused or would have been since the start, of one control where it is named.
pub fn report(handle: &Handle, control: Option<&str>) -> Value {
    let live = handle.live();
    let all = live.policy.decisions().summary();
    let mut groups: Vec<(&GroupKey, &Group)> =
        all.groups.iter().filter(|(key, _)| control.is_none_or(|wanted| wanted == key.control)).collect();
    groups.sort_by_key(|(key, group)| (Reverse(group.count), *key));
    let more = groups.len().saturating_sub(MAX_GROUPS);
    let shown = groups.iter().take(MAX_GROUPS).map(|(key, group)| group_value(&live, key, group, SAMPLES));
    let shown: Vec<Value> = shown.collect();
    json!({
        "since": rfc3339(crate::server::status::started(handle)),
        "requests": all.requests, "refused": all.refused, "would_refuse": all.would_refuse,
        "groups": shown, "groups_not_shown": more, "not_grouped": all.other,
    })
}

/// A group with so many of its requests at most.
pub(super) fn group_value(live: &Live, key: &GroupKey, group: &Group, most: usize) -> Value {
    let mut remedies: Vec<Value> = Vec::new();
    let requests: Vec<Value> = group
        .requests
        .iter()
        .take(most)
        .map(|example| {
            let change = is_of_policy(example.judged.code).then(|| {
                let client = group.clients.first().map_or("", |client| client);
                let request = Request { method: &example.method, host: &example.host, path: &example.path, client };
                remedy(live, request, &example.judged)
            });
            if let Some(change) = &change
                && !remedies.contains(change)
            {
                remedies.push(change.clone());
            }
            json!({
                "method": example.method.as_str(), "host": &*example.host, "path": &*example.path,
                "why": example.judged.why, "remedy": change,
            })
        })
        .collect();
    json!({
        "control": key.control, "code": key.code, "mode": key.mode, "route": &*key.route, "policy": &*group.line,
        "section": group.code.section, "sentence": group.code.sentence,
        "count": group.count, "first": rfc3339(group.first), "last": rfc3339(group.last),
        "request_ids": group.samples.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "clients": group.clients, "requests": requests, "remedies": remedies,
    })
}

/// What is said when a server under the starter policy, or with `--detect`, ends: how many requests the strict policy
/// would have refused, by control. Nothing where there was no request.
pub fn summary(handle: &Handle) -> Option<String> {
    let live = handle.live();
    text(&live.policy.decisions().summary(), live.policy.env().starter)
}

fn text(all: &Summary, starter: bool) -> Option<String> {
    if all.requests == 0 {
        return None;
    }
    let mut by_control: BTreeMap<&str, u64> = BTreeMap::new();
    // Watched by the strict policy too, unless somebody writes more.
    let watched = |code: &Code| *code == URL_TOKEN;
    let judged = |key: &GroupKey, code: &Code| key.mode == "detect" && is_of_policy(code) && !watched(code);
    for (key, group) in all.groups.iter().filter(|(key, group)| judged(key, group.code)) {
        *by_control.entry(key.control).or_default() += group.count;
    }
    let large: u64 = all.large.values().map(|large| large.count).sum();
    if large > 0 {
        *by_control.entry("limits").or_default() += large;
    }
    let mut out = String::new();
    // What the application did not answer was refused by nobody.
    let failed = |key: &GroupKey, group: &Group| key.mode == "block" && !is_of_policy(group.code);
    let failed: u64 = all.groups.iter().filter(|(key, group)| failed(key, group)).map(|(_, group)| group.count).sum();
    let _ = write!(out, "\n{} seen, {} refused", plural(all.requests), all.refused.saturating_sub(failed));
    if failed > 0 {
        let _ = write!(out, ", {failed} without an answer of the application: the log says why");
    }
    out.push_str(".\n");
    if by_control.is_empty() {
        out.push_str("The strict policy would have refused nothing else.\n");
    } else {
        out.push_str("The strict policy would also have refused, by control:\n");
        for (control, count) in by_control {
            let _ = writeln!(out, "  {control:<16} {count:>8}");
        }
    }
    // Fewer requests than one address may send at once exceed no limit.
    let exceeds = |rate: Rate| all.requests > u64::from(rate.amount());
    if starter && STRICT_RATE.parse::<Rate>().is_ok_and(exceeds) {
        let _ = writeln!(out, "Its limit of {STRICT_RATE} by address was not counted: all clients here share one.");
    }
    out.push_str("`palisade init` writes the strict policy that fits what was seen.\n");
    Some(out)
}

fn plural(requests: u64) -> String {
    if requests == 1 { "1 request".into() } else { format!("{requests} requests") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing_local::{App, request};

    #[test]
    fn the_end_report_counts_by_control() {
        assert_eq!(text(&Summary::default(), true), None);
        let mut all = Summary { requests: 3, refused: 1, ..Summary::default() };
        assert!(text(&all, true).unwrap().contains("would have refused nothing else"));
        let large = crate::observe::decisions::Large { count: 2, bytes: 5 << 20 };
        all.large.insert(("POST".into(), "/upload".into()), large);
        let said = text(&all, true).unwrap();
        assert!(
            said.contains("3 requests seen, 1 refused.") && said.contains("  limits                  2\n"),
            "{said}"
        );
        assert!(said.contains("`palisade init`"));
    }

    #[test]
    fn what_was_not_counted_is_said_where_it_could_matter() {
        let said = |requests, starter| {
            let all = Summary { requests, ..Summary::default() };
            text(&all, starter).unwrap().contains("limit of 1000/minute by address was not counted")
        };
        assert!(said(1001, true));
        assert!(!said(1000, true), "nobody can have exceeded it");
        assert!(!said(1001, false), "a policy of one's own counts it");
    }

    #[tokio::test]
    async fn what_the_starter_policy_loosens_is_counted() {
        let app = App::starter();
        let json = async |depth: usize, spaces: usize| {
            let body = "[".repeat(depth) + &" ".repeat(spaces) + &"]".repeat(depth);
            let request = request("POST", "/echo", &[("content-type", "application/json")], body.into());
            app.send("127.0.0.1", request).await.status
        };
        assert_eq!(app.get("127.0.0.1", "/files/a%2Fb").await.status, 200);
        assert_eq!(app.get("127.0.0.1", "/files/c%2fd").await.status, 200);
        assert_eq!(app.get("127.0.0.1", "/cars;color=red%2Fblue").await.status, 200);
        assert_eq!(app.get("127.0.0.1", "/shop/a%3Bb").await.status, 200);
        assert_eq!(app.get("127.0.0.1", "/files/e;f").await.status, 200);
        assert_eq!(app.get("127.0.0.1", "/shop/plain").await.status, 200);
        assert_eq!(json(32, 0).await, 200);
        assert_eq!(json(33, 0).await, 200);
        assert_eq!(json(129, 0).await, 400, "the limit in force is held all the same");
        let all = app.handle.live().policy.decisions().summary();
        assert_eq!((all.requests, all.refused, all.would_refuse), (9, 1, 6));
        let said = text(&all, true).unwrap();
        for (control, count) in [("integrity", 5), ("limits", 1)] {
            assert!(said.contains(&format!("\n  {control:<16} {count:>8}\n")), "{said}");
        }
        assert_eq!(json(33, 2 << 20).await, 200);
        let seen = crate::operate::seen(&app.handle);
        assert_eq!(seen["large_bodies"][0]["path"], "/echo", "what is deep may be large as well: {seen}");
        let remedies: Vec<(&str, &str)> = seen["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["requests"].as_array().unwrap())
            .map(|request| (request["path"].as_str().unwrap(), request["remedy"]["toml"].as_str().unwrap()))
            .collect();
        for (path, keys) in [
            ("/files/*", "encoded_slash = true\n"),
            ("/files/*", "path_parameters = true\n"),
            ("/*", "encoded_slash = true\npath_parameters = true\n"),
            ("/shop/*", "path_parameters = true\n"),
            ("/echo", "limits = { json_depth = 128 }\n"),
        ] {
            let line = format!("path = \"{path}\"\n");
            let fits = |(of, toml): &(&str, &str)| *of == path && toml.contains(keys) && toml.contains(&line);
            assert!(remedies.iter().any(fits), "{path}: {remedies:?}");
        }
        assert_eq!(remedies.len(), 5, "{remedies:?}");
    }

    /// What a policy of one's own allows is meant, and watched by nobody.
    #[tokio::test]
    async fn the_same_in_a_file_is_nobodys_business() {
        let app = App::start(crate::policy::STARTER);
        assert_eq!(app.get("127.0.0.1", "/files/a%2Fb;c").await.status, 200);
        assert_eq!(app.handle.live().policy.decisions().summary().would_refuse, 0);
        let starter = App::starter().handle.live().controls();
        assert_eq!(app.handle.live().controls().len() + 2, starter.len(), "{starter:?}");
    }
}
