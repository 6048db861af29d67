//! `palisade explain`: what was decided about one request.

use std::fmt::Write as _;

use palisade::control_socket::Request;
use serde_json::Value;

use super::output::{indented, items, json, print, remedy, text};
use super::running;
use crate::args::{Explain, Global};
use crate::exit::Done;

/// Exit code 1: nothing is known of the request.
pub(crate) fn run(global: &Global, explain: &Explain) -> anyhow::Result<Done> {
    let answer = running::ask(global, &Request::Explain { id: explain.id.clone() })?;
    if global.json {
        json(&answer)?;
    } else {
        print(&shown(&answer));
    }
    Ok(if answer["known"] == true { Done::Ok } else { Done::Findings })
}

fn shown(answer: &Value) -> String {
    let mut out = format!("request {}: {}\n", text(&answer["request_id"]), text(&answer["text"]));
    if answer["known"] != true {
        return out;
    }
    // Of a head that could not be read nothing is known.
    if answer["path"].as_str().is_some_and(|path| !path.is_empty()) {
        let _ = writeln!(out, "  {} {}", text(&answer["method"]), text(&answer["path"]));
    }
    for (name, key) in
        [("time", "time"), ("client", "client"), ("host", "host"), ("status", "status"), ("route", "route")]
    {
        if !answer[key].is_null() && answer[key] != "" {
            let _ = writeln!(out, "  {name:<8} {}", text(&answer[key]));
        }
    }
    if !answer["policy"].is_null() && answer["policy"] != answer["route"] {
        let _ = writeln!(out, "  {:<8} {}", "rule", text(&answer["policy"]));
    }
    if answer["policy_in_force"] == false {
        let _ = writeln!(out, "  decided under an earlier policy ({})", text(&answer["policy_hash"]));
    }
    for decision in items(&answer["decisions"]) {
        let verb = if decision["mode"] == "block" { "refused by" } else { "would have been refused by" };
        let _ = writeln!(
            out,
            "\n{verb} `{}`: {} (`{}`, guide section {})",
            text(&decision["control"]),
            text(&decision["sentence"]),
            text(&decision["code"]),
            text(&decision["section"])
        );
        out.push_str(&indented(&text(&decision["why"]), 2));
        for (name, value) in decision["fields"].as_object().into_iter().flatten() {
            let _ = writeln!(out, "  {name}: {}", text(value));
        }
        out.push_str(&remedy(&decision["remedy"], 2));
    }
    out
}
