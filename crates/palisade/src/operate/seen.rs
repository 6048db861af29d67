//! What a run has seen, kept for `palisade init`.

use serde_json::{Value, json};

use super::report::group_value;
use super::rfc3339;
use crate::live::Handle;
use crate::observe::decisions::is_of_policy;
use crate::stack::Inner;

/// The file in the state directory.
pub const FILE: &str = "seen.json";
const MAX_GROUPS: usize = 100;

/// What the strict policy has to allow for what was seen to go on: requests that the application answered and a control
/// would have refused, and large bodies.
pub fn seen(handle: &Handle) -> Value {
    let live = handle.live();
    let all = live.policy.decisions().summary();
    let groups: Vec<Value> = all
        .groups
        .iter()
        .filter(|(key, group)| key.mode == "detect" && is_of_policy(group.code))
        .take(MAX_GROUPS)
        .map(|(key, group)| group_value(&live, key, group, usize::MAX))
        .collect();
    let large: Vec<Value> = all
        .large
        .iter()
        .map(|((method, path), large)| {
            json!({ "method": method, "path": &**path, "count": large.count, "bytes": large.bytes })
        })
        .collect();
    let upstream = match live.inner() {
        Inner::Proxy(_) => live.policy.config().upstream.url.as_ref().map(ToString::to_string),
        Inner::Router(_) | Inner::Nothing => None,
    };
    json!({
        "version": 1, "until": rfc3339(handle.clock().now()),
        "upstream": upstream, "command": live.policy.config().upstream.command,
        "requests": all.requests, "refused": all.refused, "would_refuse": all.would_refuse,
        "groups": groups, "large_bodies": large,
    })
}

/// Writes it to the state directory, where there was anything to see.
///
/// # Errors
/// What the system said.
pub fn save(handle: &Handle) -> std::io::Result<()> {
    let live = handle.live();
    if live.policy.decisions().counts().0 == 0 {
        return Ok(());
    }
    let text = serde_json::to_vec_pretty(&seen(handle))?;
    crate::control_socket::write_private(&live.policy.state_dir().join(FILE), &text)
}
