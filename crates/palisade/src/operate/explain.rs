//! `palisade explain`: what was decided about one request, by which rule, and what would allow it.

use serde_json::{Map, Value, json};

use super::remedy::{Request, remedy};
use super::rfc3339;
use crate::live::Handle;
use crate::observe::decisions::{Decision, Ending, KEPT_PASSED, KEPT_REFUSED, Known, PolicyFacts};
use crate::server::request_id::RequestId;

/// What is known of a request, by its id. `known` is `false` where nothing is, and `text` says why in every case.
pub fn explain(handle: &Handle, id: &str) -> Value {
    let live = handle.live();
    let decisions = live.policy.decisions();
    let in_force = live.policy.hash();
    match decisions.find(id) {
        Some(Known::Decided(decision, facts)) => {
            let mut value = decided(&decision, facts.as_deref(), in_force);
            let request = Request {
                method: &decision.method,
                host: &decision.host,
                path: &decision.path,
                client: &decision.client,
            };
            let verdicts: Vec<Value> = decision
                .verdicts
                .iter()
                .map(|judged| {
                    let fields: Map<String, Value> =
                        judged.fields.iter().map(|(name, value)| ((*name).to_owned(), json!(&**value))).collect();
                    json!({
                        "control": judged.control, "code": judged.code.name, "mode": judged.mode.as_str(),
                        "section": judged.code.section, "sentence": judged.code.sentence,
                        "why": judged.why, "fields": fields,
                        "remedy": remedy(&live, request, judged),
                    })
                })
                .collect();
            value["decisions"] = verdicts.into();
            value
        }
        Some(Known::Passed { status, route, policy, ending }) => {
            let (outcome, text) = match ending {
                Ending::Passed => ("passed", "it passed every control"),
                Ending::ClientGone => {
                    ("client_gone", "it passed every control; the client left before the answer had ended")
                }
                Ending::Broken => {
                    ("upstream_error", "it passed every control; the answer of the application broke off")
                }
            };
            json!({
                "request_id": id, "known": true, "outcome": outcome, "status": status, "text": text,
                "time": time_of(id),
                "route": route.as_ref().map(|(route, _)| &**route),
                "policy": route.as_ref().map(|(_, line)| &**line),
                "policy_hash": policy.as_ref().map(|facts| &*facts.hash),
                "policy_in_force": policy.as_ref().is_none_or(|facts| &*facts.hash == in_force),
                "decisions": [],
            })
        }
        None => unknown(handle, id),
    }
}

fn decided(decision: &Decision, facts: Option<&PolicyFacts>, in_force: &str) -> Value {
    let (outcome, text) = match (decision.refused, decision.verdicts.first()) {
        (true, Some(first)) if crate::observe::decisions::is_of_policy(first.code) => ("refused", "it was refused"),
        (true, Some(first)) if first.code.fault == crate::refusal::Fault::Upstream => {
            ("upstream_error", "the application could not answer it")
        }
        (true, _) => ("refused", "it could not be answered"),
        (false, _) => ("would_refuse", "it passed, and would have been refused where the control blocks"),
    };
    json!({
        "request_id": decision.id.as_str(), "known": true, "outcome": outcome, "text": text,
        "time": rfc3339(decision.time), "client": &*decision.client, "host": &*decision.host,
        "method": decision.method.as_str(), "path": &*decision.path, "status": decision.status.as_u16(),
        "route": &*decision.route, "policy": &*decision.line,
        "policy_hash": facts.map(|facts| &*facts.hash),
        "policy_in_force": facts.is_none_or(|facts| &*facts.hash == in_force),
    })
}

fn time_of(id: &str) -> Option<String> {
    RequestId::time_of(id).map(rfc3339)
}

fn unknown(handle: &Handle, id: &str) -> Value {
    let started = crate::server::status::started(handle);
    let text = match RequestId::time_of(id) {
        None => "this is no request id of Palisade: it is the `request_id` of the answer, 26 letters and digits".into(),
        Some(time) if time < started => format!(
            "the id is from {}, and this server started at {}: look for it in the logs",
            rfc3339(time),
            rfc3339(started)
        ),
        Some(time) => format!(
            "nothing is known of this request of {}: the last {KEPT_REFUSED} that were refused and {KEPT_PASSED} that \
             passed are kept, and those that have ended; the logs may know more",
            rfc3339(time)
        ),
    };
    json!({ "request_id": id, "known": false, "text": text, "time": time_of(id) })
}
