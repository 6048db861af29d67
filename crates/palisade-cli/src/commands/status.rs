//! `palisade status`: how the running gateway is doing.

use std::fmt::Write as _;

use palisade::control_socket::Request;
use serde_json::Value;

use super::output::{items, json, print, table, text};
use super::running;
use crate::args::Global;
use crate::exit::Done;

/// Exit code 1 when no gateway runs here.
pub(crate) fn run(global: &Global) -> anyhow::Result<Done> {
    let answer = running::ask(global, &Request::Status)?;
    if global.json {
        json(&answer)?;
    } else {
        print(&shown(&answer));
    }
    Ok(Done::Ok)
}

fn shown(status: &Value) -> String {
    let mut out = String::new();
    let ready = match status["not_ready"].as_str() {
        None => "ready".to_owned(),
        Some(why) => format!("NOT READY: {why}"),
    };
    let files = match items(&status["policy_files"]) {
        [] => "starter policy".to_owned(),
        _ => text(&status["policy_files"]),
    };
    let rows = [
        ("palisade", format!("{} (process {})", text(&status["version"]), text(&status["pid"]))),
        ("state", format!("{}, {ready}, {}", text(&status["phase"]), text(&status["mode"]))),
        ("started", text(&status["started"])),
        ("policy", format!("{files}, {} since {}", text(&status["policy_hash"]), text(&status["policy_since"]))),
        (
            "connections",
            format!("{} of {}", text(&status["connections"]["open"]), text(&status["connections"]["limit"])),
        ),
        (
            "in progress",
            format!(
                "{} of {} requests",
                text(&status["in_progress"]["requests"]),
                text(&status["in_progress"]["limit"])
            ),
        ),
        (
            "requests",
            format!(
                "{}, {} refused, {} would have been",
                text(&status["requests"]["seen"]),
                text(&status["requests"]["refused"]),
                text(&status["requests"]["would_refuse"])
            ),
        ),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    out.push_str(&table(&rows, 0));

    let listeners = items(&status["listeners"]);
    section(&mut out, "listeners", listeners, |one| vec![text(&one["listener"]), text(&one["address"])]);
    if !status["upstream"].is_null() {
        section(&mut out, "upstream", std::slice::from_ref(&status["upstream"]), |one| {
            let reachable = if one["reachable"] == true { "reachable" } else { "NOT REACHABLE" };
            vec![text(&one["target"]), reachable.to_owned()]
        });
    }
    let upstreams: Vec<Value> = status["upstreams"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, one)| serde_json::json!({ "name": name, "state": one }))
        .collect();
    section(&mut out, "upstreams", &upstreams, |one| {
        let state = &one["state"];
        let reachable = match state["reason"].as_str() {
            Some(reason) => format!("NOT REACHABLE: {reason}"),
            None => "reachable".to_owned(),
        };
        vec![text(&one["name"]), text(&state["target"]), reachable]
    });
    section(&mut out, "dependencies", items(&status["dependencies"]), |one| {
        let state = match one["state"].as_str() {
            Some("away") => format!("AWAY: {}", text(&one["reason"])),
            _ => text(&one["state"]),
        };
        let used: Vec<String> = items(&one["used_by"])
            .iter()
            .map(|used| format!("{}: {}", text(&used["control"]), text(&used["when_away"])))
            .collect();
        let since = one["since"].as_str().map_or_else(String::new, |since| format!(" since {since}"));
        let decided = one["decided_without"].as_u64();
        vec![
            text(&one["dependency"]),
            text(&one["target"]),
            format!("{state}{since}"),
            format!("when away {}", used.join(", ")),
            decided.map_or_else(String::new, |count| format!("{count} requests decided without it")),
        ]
    });
    let modes: Vec<Value> = palisade::controls::INFOS
        .iter()
        .map(|info| match status["modes"].get(info.name) {
            Some(mode) => serde_json::json!({ "control": info.name, "mode": mode["mode"], "routes": mode["routes"] }),
            None => serde_json::json!({ "control": info.name, "mode": "always", "routes": [] }),
        })
        .collect();
    section(&mut out, "controls", &modes, |one| {
        let routes: Vec<String> = items(&one["routes"])
            .iter()
            .map(|route| format!("{} on {} ({})", text(&route["mode"]), text(&route["route"]), text(&route["policy"])))
            .collect();
        vec![text(&one["control"]), text(&one["mode"]), routes.join(", ")]
    });
    section(&mut out, "switches (`palisade set`)", items(&status["overrides"]), switch);
    section(&mut out, "certificates", items(&status["certificates"]), |one| {
        let days = one["expires_in_seconds"].as_i64().unwrap_or(0).div_euclid(86_400);
        let left = if one["valid"] == true { format!("{days} days left") } else { "NOT VALID".to_owned() };
        vec![text(&one["names"]), left, format!("until {}", text(&one["not_after"])), text(&one["source"])]
    });
    out
}

/// One switch as columns.
pub(super) fn switch(one: &Value) -> Vec<String> {
    let route = if one["route"].is_null() { "everywhere".to_owned() } else { format!("on {}", text(&one["route"])) };
    vec![
        format!("{}={}", text(&one["control"]), text(&one["mode"])),
        route,
        format!("until {}", text(&one["until"])),
        text(&one["reason"]),
    ]
}

fn section(out: &mut String, title: &str, all: &[Value], row: impl Fn(&Value) -> Vec<String>) {
    if all.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let _ = writeln!(out, "\n{title}");
    out.push_str(&table(&rows, 2));
}
