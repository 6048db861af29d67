//! `palisade report`: what was refused or would have been, and what would allow it.

use std::fmt::Write as _;

use palisade::control_socket::Request;
use serde_json::Value;

use super::output::{items, json, print, remedy, text};
use super::running;
use crate::args::{Global, Report};
use crate::exit::Done;

/// Prints the groups, the largest first.
pub(crate) fn run(global: &Global, report: &Report) -> anyhow::Result<Done> {
    let answer = running::ask(global, &Request::Report { control: report.control.clone() })?;
    if global.json {
        json(&answer)?;
    } else {
        print(&shown(&answer));
    }
    Ok(Done::Ok)
}

fn shown(answer: &Value) -> String {
    let mut out = format!(
        "{} requests since {}: {} refused, {} would have been\n",
        text(&answer["requests"]),
        text(&answer["since"]),
        text(&answer["refused"]),
        text(&answer["would_refuse"])
    );
    for group in items(&answer["groups"]) {
        let verb = if group["mode"] == "block" { "refused" } else { "would have been refused" };
        let _ = writeln!(
            out,
            "\n{} × `{}` {verb} on route `{}` ({})",
            text(&group["count"]),
            text(&group["code"]),
            text(&group["route"]),
            text(&group["sentence"]),
        );
        for request in items(&group["requests"]) {
            let _ = writeln!(
                out,
                "  {} {}  {}: {}",
                text(&request["method"]),
                text(&request["path"]),
                text(&request["host"]),
                text(&request["why"])
            );
        }
        let _ = writeln!(out, "  clients: {}", text(&group["clients"]));
        let _ = writeln!(out, "  request ids: {}", text(&group["request_ids"]));
        for change in items(&group["remedies"]) {
            out.push_str(&remedy(change, 2));
        }
    }
    let more = answer["groups_not_shown"].as_u64().unwrap_or(0);
    if more > 0 {
        let _ = writeln!(out, "\n{more} smaller groups are not shown; `--control NAME` shows one control");
    }
    out
}
