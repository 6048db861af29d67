//! `palisade report`: what was refused or would have been, in groups, with the lines of policy that would allow it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::remedy::{Request, remedy};
use super::rfc3339;
use crate::controls::headers::URL_TOKEN;
use crate::live::Handle;
use crate::observe::decisions::{Group, GroupKey, Summary, is_of_policy};
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
    let shown: Vec<Value> = groups.iter().take(MAX_GROUPS).map(|(key, group)| group_value(&live, key, group)).collect();
    json!({
        "since": rfc3339(crate::server::status::started(handle)),
        "requests": all.requests, "refused": all.refused, "would_refuse": all.would_refuse,
        "groups": shown, "groups_not_shown": more, "not_grouped": all.other,
    })
}

pub(super) fn group_value(live: &Live, key: &GroupKey, group: &Group) -> Value {
    let mut remedies: Vec<Value> = Vec::new();
    let requests: Vec<Value> = group
        .requests
        .iter()
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
    text(&live.policy.decisions().summary())
}

fn text(all: &Summary) -> Option<String> {
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
    out.push_str("`palisade init` writes the strict policy that fits what was seen.\n");
    Some(out)
}

fn plural(requests: u64) -> String {
    if requests == 1 { "1 request".into() } else { format!("{requests} requests") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_report_counts_by_control() {
        assert_eq!(text(&Summary::default()), None);
        let mut all = Summary { requests: 3, refused: 1, ..Summary::default() };
        assert!(text(&all).unwrap().contains("would have refused nothing else"));
        let large = crate::observe::decisions::Large { count: 2, bytes: 5 << 20 };
        all.large.insert(("POST".into(), "/upload".into()), large);
        let said = text(&all).unwrap();
        assert!(
            said.contains("3 requests seen, 1 refused.") && said.contains("  limits                  2\n"),
            "{said}"
        );
        assert!(said.contains("`palisade init`"));
    }
}
