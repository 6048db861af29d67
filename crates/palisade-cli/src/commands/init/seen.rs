//! What runs of `palisade serve` have seen here: from the one that runs, or from the file the last one left.

use std::fs;
use std::path::Path;

use palisade::control_socket::{self, Request};
use palisade::operate::SEEN_FILE;
use palisade::policy::values::PathPattern;
use serde_json::Value;

use super::super::output::{items, text};
use super::write::Allowed;
use crate::args::Global;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where the application listened.
    pub(super) upstream: Option<String>,
    /// The command that started it, where Palisade did.
    pub(super) command: Vec<String>,
    /// How many requests there were.
    pub(super) requests: u64,
    value: Value,
}

const MAX_FILE: u64 = 4 << 20;

impl Seen {
    /// Asks the running gateway, else reads the file.
    pub(super) fn read(_: &Global, state: &Path) -> Self {
        let of_file = || {
            let path = state.join(SEEN_FILE);
            let small = fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() <= MAX_FILE);
            small.and_then(|_| serde_json::from_slice(&fs::read(path).ok()?).ok())
        };
        let value = control_socket::call(state, &Request::Seen).ok().or_else(of_file).unwrap_or_default();
        Self::of(value)
    }

    fn of(value: Value) -> Self {
        Self {
            upstream: value["upstream"].as_str().map(str::to_owned),
            command: items(&value["command"]).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect(),
            requests: value["requests"].as_u64().unwrap_or(0),
            value,
        }
    }

    /// The exceptions that what was seen needs. `ask` decides about each.
    pub(super) fn routes(&self, mut ask: impl FnMut(&str) -> anyhow::Result<bool>) -> anyhow::Result<Vec<Allowed>> {
        let mut allowed: Vec<Allowed> = Vec::new();
        for large in items(&self.value["large_bodies"]) {
            let (path, bytes) = (text(&large["path"]), large["bytes"].as_u64().unwrap_or(0));
            if path.parse::<PathPattern>().is_err() || bytes == 0 {
                continue;
            }
            let size = format!("{}MiB", bytes.div_ceil(1 << 20));
            let count = text(&large["count"]);
            let method = text(&large["method"]);
            if ask(&format!("`{method} {path}` got {count} bodies of up to {size}. Allow that?"))? {
                let note = format!("{count} bodies of up to {size} were seen");
                allow(&mut allowed, path, format!("limits = {{ body = \"{size}\" }}"), note);
            }
        }
        for group in items(&self.value["groups"]) {
            let count = text(&group["count"]);
            let code = text(&group["code"]);
            for request in items(&group["requests"]) {
                let change = &request["remedy"];
                // Only what the starter policy's default route judged: one of an earlier file is in that file.
                let Some(key) = change["toml"].as_str().filter(|_| change["place"] == "[[route]]").and_then(route_key)
                else {
                    continue;
                };
                let (method, path) = (text(&request["method"]), text(&request["path"]));
                let path = path.replace("[redacted]", "{value}");
                if path.parse::<PathPattern>().is_err() {
                    continue;
                }
                let question =
                    format!("`{method} {path}` would be refused ({code}, {count} requests). Allow it with `{key}`?");
                if ask(&question)? {
                    allow(
                        &mut allowed,
                        path,
                        key.to_owned(),
                        format!("{code}: {count} requests would have been refused"),
                    );
                }
            }
        }
        Ok(allowed)
    }
}

/// The key of a proposed route that is not its path or methods.
fn route_key(toml: &str) -> Option<&str> {
    toml.lines().find(|line| line.contains('=') && !line.starts_with("path") && !line.starts_with("methods"))
}

/// One route a path: keys of the same one stand together, and none twice.
pub(super) fn allow(allowed: &mut Vec<Allowed>, path: String, key: String, note: String) {
    let name = |key: &str| key.split('=').next().unwrap_or_default().trim().to_owned();
    match allowed.iter_mut().find(|known| known.path == path) {
        Some(known) if known.keys.iter().any(|there| name(there) == name(&key)) => {}
        Some(known) => {
            known.keys.push(key);
            known.notes.push(note);
        }
        None => allowed.push(Allowed { path, keys: vec![key], notes: vec![note] }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_seen_becomes_routes() {
        let route = |toml: &str| json!({ "place": "[[route]]", "toml": toml });
        let of_a = route("[[route]]\npath = \"/a\"\nmethods = [\"GET\"]\nrate_limit = { mode = \"detect\" }");
        let of_up = route("[[route]]\npath = \"/up/{id:int}\"\nlimits = { body = \"9MiB\" }");
        let seen = Seen::of(json!({
            "requests": 9, "upstream": "http://127.0.0.1:9",
            "large_bodies": [{ "method": "POST", "path": "/up/{id:int}", "count": 2, "bytes": 3_000_000 }],
            "groups": [{
                "code": "rate_limit.exceeded", "count": 4,
                // The same path under two hosts, and one for which nothing is proposed.
                "requests": [
                    { "method": "GET", "path": "/a", "remedy": of_a }, { "method": "GET", "path": "/a", "remedy": of_a },
                    { "method": "GET", "path": "/b", "remedy": null },
                    { "method": "POST", "path": "/up/{id:int}", "remedy": of_up },
                ],
                "remedies": [of_a, of_up],
            }],
        }));
        let routes = seen.routes(|_| Ok(true)).unwrap();
        let shown: Vec<_> = routes.iter().map(|route| (route.path.as_str(), route.keys.join("; "))).collect();
        assert_eq!(
            shown,
            [
                ("/up/{id:int}", "limits = { body = \"3MiB\" }".to_owned()),
                ("/a", "rate_limit = { mode = \"detect\" }".to_owned()),
            ]
        );
        assert!(seen.routes(|_| Ok(false)).unwrap().is_empty());
        assert!(Seen::of(Value::Null).routes(|_| Ok(true)).unwrap().is_empty());
    }
}
