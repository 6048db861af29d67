//! `palisade openapi`: what the application's document says of who may do what, of a running gateway.

use palisade::control_socket::Request;
use serde_json::Value;

use super::output::{items, json, print, table, text};
use super::running;
use crate::args::{Global, Openapi};
use crate::exit::Done;

/// Exit code 1 when something waits, or no document was read.
pub(crate) fn run(global: &Global, openapi: &Openapi) -> anyhow::Result<Done> {
    match openapi {
        Openapi::Access => access(global),
        Openapi::Accept(accept) => {
            let request =
                Request::OpenapiAccept { upstream: accept.upstream.clone(), operations: accept.operations.clone() };
            let answer = running::ask(global, &request)?;
            if global.json {
                json(&answer)?;
            } else {
                let accepted = items(&answer["accepted"]);
                let lines: String = accepted.iter().map(|one| format!("accepted: {}\n", text(one))).collect();
                print(if lines.is_empty() { "nothing waits\n" } else { &lines });
            }
            Ok(Done::Ok)
        }
    }
}

fn access(global: &Global) -> anyhow::Result<Done> {
    let answer = running::ask(global, &Request::OpenapiAccess)?;
    let upstreams = items(&answer);
    let unsettled = upstreams.iter().any(|upstream| {
        upstream["read"] != true || items(&upstream["operations"]).iter().any(|one| !one["waiting"].is_null())
    });
    if global.json {
        json(&answer)?;
    } else {
        print(&upstreams.iter().map(shown).collect::<Vec<_>>().join("\n"));
    }
    Ok(if unsettled { Done::Findings } else { Done::Ok })
}

fn shown(upstream: &Value) -> String {
    let mut out = format!("{}\n", text(&upstream["upstream"]));
    if !upstream["problem"].is_null() {
        out += &format!("  the document cannot be read: {}\n", text(&upstream["problem"]));
    }
    let row = |one: &Value| {
        let waiting = match &one["waiting"] {
            Value::Null => String::new(),
            wanted => format!("WAITING: {}", text(wanted)),
        };
        vec![text(&one["method"]), text(&one["path"]), text(&one["for"]), waiting]
    };
    let rows: Vec<Vec<String>> = items(&upstream["operations"]).iter().map(row).collect();
    out.push_str(&table(&rows, 2));
    out
}
