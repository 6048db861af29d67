//! The smallest change that would let a request pass, as lines that can be pasted.

use http::Method;
use serde_json::{Value, json};

use crate::control::{Asked, Remedy};
use crate::controls::headers::DOCS;
use crate::observe::decisions::{Judged, folder, is_of_policy};
use crate::observe::redact;
use crate::policy::Rule;
use crate::policy::values::PathPattern;
use crate::stack::Live;

/// A request as it was kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) host: &'a str,
    /// A path, or a pattern of paths.
    pub(super) path: &'a str,
    pub(super) client: &'a str,
}

/// The change for one verdict. `kind` is `policy`, with `place` and `toml`, or `elsewhere`; `text` says it in a sentence.
pub(super) fn remedy(live: &Live, request: Request<'_>, judged: &Judged) -> Value {
    let policy = &live.policy;
    // The rule of today's policy: what was decided under an earlier one is allowed by a change of this one.
    let rule = policy.rule(policy.rules().find(request.host, request.path, request.method).id());
    let Request { method, host, path, client } = request;
    let asked = Asked { judged, method, host, path, client, policy, rule };
    let own = live.control(judged.control).and_then(|control| control.remedy(&asked));
    match own.unwrap_or_else(|| general(judged)) {
        Remedy::Route(key) => route(rule, request, &key),
        Remedy::Section(lines) => {
            let header = lines.lines().next().unwrap_or_default().to_owned();
            json!({
                "kind": "policy", "place": header, "toml": lines,
                "text": format!("write in `{header}` of the policy"),
            })
        }
        Remedy::Elsewhere(text) => json!({ "kind": "elsewhere", "text": text }),
    }
}

fn general(judged: &Judged) -> Remedy {
    if *judged.code == DOCS {
        // Enforced with `[headers]` switched off, too: then nobody else answers for it.
        return Remedy::Section("[headers]\ndocs = \"open\"".to_owned());
    }
    let info = crate::controls::INFOS.iter().find(|info| info.name == judged.control);
    match info {
        Some(info) if info.judges => Remedy::Route(format!("{} = {{ mode = \"detect\" }}", info.name)),
        Some(info) => Remedy::Elsewhere(format!(
            "`{}` always enforces; the request has to change: {}",
            info.name, judged.code.sentence
        )),
        None if is_of_policy(judged.code) => {
            Remedy::Elsewhere(format!("the request has to change: {}", judged.code.sentence))
        }
        None => Remedy::Elsewhere(format!("no rule decided this: {}", judged.code.sentence)),
    }
}

/// A key of a route: in the route that took the request, or in one of its own.
fn route(rule: &Rule, request: Request<'_>, key: &str) -> Value {
    if rule.id != 0 && !rule.implied {
        let label = &rule.label;
        return json!({
            "kind": "policy", "place": &*rule.line, "toml": key,
            "text": format!("write in the `[[route]]` at {} (it holds for all of `{label}`)", rule.line),
        });
    }
    let path = folder(request.path).unwrap_or_else(|| request.path.to_owned());
    let whole = |segment| if str::contains(segment, redact::REDACTED) { "{value}" } else { segment };
    let path = path.split('/').map(whole).collect::<Vec<_>>().join("/");
    let path = if path.parse::<PathPattern>().is_ok() { path } else { "/*".to_owned() };
    let method = request.method.as_str();
    // A route claims its path for all methods, so that the others need a line of their own to stay as they are.
    let toml = if key.starts_with("methods") {
        format!("[[route]]\npath = \"{path}\"\n{key}")
    } else {
        format!(
            "[[route]]\npath = \"{path}\"\nmethods = [\"{method}\"]\n{key}\n\n[[route]]   # its other methods, as before\npath = \"{path}\""
        )
    };
    json!({ "kind": "policy", "place": "[[route]]", "toml": toml, "text": "add to the policy" })
}
