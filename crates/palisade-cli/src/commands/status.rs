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
    let ready = if status["ready"] == true { "ready" } else { "not ready" };
    let files = match items(&status["policy"]["files"]) {
        [] => "starter policy".to_owned(),
        _ => text(&status["policy"]["files"]),
    };
    let rows = [
        ("palisade", format!("{} (process {})", text(&status["version"]), text(&status["pid"]))),
        ("state", format!("{}, {ready}, {}", text(&status["phase"]), text(&status["mode"]))),
        ("started", text(&status["started"])),
        ("policy", format!("{files}, {} since {}", text(&status["policy"]["hash"]), text(&status["policy"]["since"]))),
        (
            "connections",
            format!("{} of {}", text(&status["connections"]["open"]), text(&status["connections"]["limit"])),
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
    section(&mut out, "upstreams", items(&status["upstreams"]), |one| {
        let reachable = if one["reachable"] == true { "reachable" } else { "NOT REACHABLE" };
        vec![text(&one["upstream"]), text(&one["url"]), reachable.to_owned()]
    });
    section(&mut out, "controls", items(&status["controls"]), |one| {
        let mode = if one["always_enforces"] == true { "always".to_owned() } else { text(&one["mode"]) };
        let routes: Vec<String> = items(&one["routes"])
            .iter()
            .map(|route| format!("{} on {} ({})", text(&route["mode"]), text(&route["route"]), text(&route["policy"])))
            .collect();
        vec![text(&one["control"]), mode, routes.join(", ")]
    });
    section(&mut out, "switches (`palisade set`)", items(&status["overrides"]), switch);
    section(&mut out, "certificates", items(&status["certificates"]), |one| {
        vec![
            text(&one["names"]),
            format!("{} days left", text(&one["days_left"])),
            format!("until {}", text(&one["not_after"])),
        ]
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
