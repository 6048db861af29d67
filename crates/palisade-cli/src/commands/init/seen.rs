//! What runs of `palisade serve` have seen here: from the one that runs, or from the file the last one left.

use std::cmp::Reverse;
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
        // The largest of a path first: it is the one that counts.
        let mut bodies: Vec<&Value> = items(&self.value["large_bodies"]).iter().collect();
        bodies.sort_by_key(|large| Reverse(large["bytes"].as_u64()));
        for large in bodies {
            let (path, bytes) = (text(&large["path"]), large["bytes"].as_u64().unwrap_or(0));
            if path.parse::<PathPattern>().is_err() || bytes == 0 {
                continue;
            }
            let size = format!("{}MiB", bytes.div_ceil(1 << 20));
            let count = text(&large["count"]);
            let method = text(&large["method"]);
            if ask(&format!("`{method} {path}` got {count} bodies of up to {size}. Allow that?"))? {
                let note = format!("{count} bodies of up to {size} were seen");
                allow(&mut allowed, path, &format!("limits = {{ body = \"{size}\" }}"), note);
            }
        }
        for group in items(&self.value["groups"]) {
            let count = text(&group["count"]);
            let code = text(&group["code"]);
            for request in items(&group["requests"]) {
                let change = &request["remedy"];
                // Only what the starter policy's default route judged: one of an earlier file is in that file.
                let Some(toml) = change["toml"].as_str().filter(|_| change["place"] == "[[route]]") else { continue };
                let keys: Vec<&str> = route_keys(toml).collect();
                if keys.is_empty() {
                    continue;
                }
                let (method, path) = (text(&request["method"]), text(&request["path"]));
                let path = path.replace("[redacted]", "{value}");
                if path.parse::<PathPattern>().is_err() {
                    continue;
                }
                let question = format!(
                    "`{method} {path}` would be refused ({code}, {count} requests). Allow it with `{}`?",
                    keys.join("`, `")
                );
                if ask(&question)? {
                    for key in keys {
                        let note = format!("{code}: {count} requests would have been refused");
                        allow(&mut allowed, path.clone(), key, note);
                    }
                }
            }
        }
        Ok(allowed)
    }
}

/// The keys of the first proposed route that are not its path or methods.
fn route_keys(toml: &str) -> impl Iterator<Item = &str> {
    let route = toml.lines().take_while(|line| !line.is_empty());
    route.filter(|line| line.contains(" = ") && !line.starts_with("path = ") && !line.starts_with("methods = "))
}

/// One route a path: keys of the same one stand together, and none twice. A route stands above those that take its paths
/// too, since the first whose path fits decides.
pub(super) fn allow(allowed: &mut Vec<Allowed>, path: String, key: &str, note: String) {
    if let Some(known) = allowed.iter_mut().find(|known| known.path == path) {
        if add(&mut known.keys, key) && !known.notes.contains(&note) {
            known.notes.push(note);
        }
        return;
    }
    let pattern = path.parse::<PathPattern>().ok();
    let takes = |wider: &Allowed| {
        let (wider, pattern) = (wider.path.parse::<PathPattern>().ok(), pattern.as_ref());
        wider.zip(pattern).is_some_and(|(wider, pattern)| wider.covers(pattern))
    };
    let place = allowed.iter().position(takes).unwrap_or(allowed.len());
    allowed.insert(place, Allowed { path, keys: vec![key.to_owned()], notes: vec![note] });
}

/// Adds a key to those of a route; what is there already stays. Tables of one name become one.
fn add(keys: &mut Vec<String>, key: &str) -> bool {
    let name = |key: &str| key.split(" = ").next().unwrap_or_default().to_owned();
    let Some(there) = keys.iter_mut().find(|there| name(there) == name(key)) else {
        keys.push(key.to_owned());
        return true;
    };
    let (Some(old), Some(new)) = (members(there), members(key)) else { return false };
    if new.split(", ").any(|new| old.split(", ").any(|old| name(old) == name(new))) {
        return false;
    }
    *there = format!("{} = {{ {old}, {new} }}", name(there));
    true
}

/// What is in a table of one line.
fn members(key: &str) -> Option<&str> {
    key.split_once(" = { ")?.1.strip_suffix(" }")
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
        let of_depth = route("[[route]]\npath = \"/up/{id:int}\"\nlimits = { json_depth = 128 }");
        let of_all = route(
            "[[route]]\npath = \"/*\"\nmethods = [\"GET\"]\nencoded_slash = true\npath_parameters = true\n\n[[route]]   # its other methods\npath = \"/*\"\nx = 1",
        );
        let seen = Seen::of(json!({
            "requests": 9, "upstream": "http://127.0.0.1:9",
            "large_bodies": [
                { "method": "PATCH", "path": "/up/{id:int}", "count": 1, "bytes": 2_000_000 },
                { "method": "POST", "path": "/up/{id:int}", "count": 2, "bytes": 3_000_000 },
            ],
            "groups": [{
                "code": "rate_limit.exceeded", "count": 4,
                // The same path under two hosts, and one for which nothing is proposed.
                "requests": [
                    { "method": "GET", "path": "/*", "remedy": of_all },
                    { "method": "GET", "path": "/a", "remedy": of_a }, { "method": "GET", "path": "/a", "remedy": of_a },
                    { "method": "GET", "path": "/b", "remedy": null },
                    { "method": "POST", "path": "/up/{id:int}", "remedy": of_up },
                    { "method": "POST", "path": "/up/{id:int}", "remedy": of_depth },
                ],
                "remedies": [of_a, of_up],
            }],
        }));
        let routes = seen.routes(|_| Ok(true)).unwrap();
        let shown: Vec<_> = routes.iter().map(|route| (route.path.as_str(), route.keys.join("; "))).collect();
        assert_eq!(
            shown,
            [
                ("/up/{id:int}", "limits = { body = \"3MiB\", json_depth = 128 }".to_owned()),
                ("/a", "rate_limit = { mode = \"detect\" }".to_owned()),
                // Below those that it would take the paths of.
                ("/*", "encoded_slash = true; path_parameters = true".to_owned()),
            ]
        );
        assert!(seen.routes(|_| Ok(false)).unwrap().is_empty());
        assert!(Seen::of(Value::Null).routes(|_| Ok(true)).unwrap().is_empty());
    }
}
