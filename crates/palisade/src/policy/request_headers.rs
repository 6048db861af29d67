//! `request_headers`: what the policy adds to requests on their way to an application, and takes away.
//!
//! Guide section 21. A header that any route or upstream sets belongs to the gateway on all of them: what a client sends
//! under that name, in any spelling that a server could fold into it, never arrives. Threats 5.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use palisade_base::SecretRef;
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Env;
use super::template::{NoValue, Template};
use super::values::PathPattern;
use crate::context::Context;
use crate::refusal::{Code, Refusal};

/// A header for the application could not be made, as the request lacks what it is made of.
pub static MISSING_VALUE: Code = Code::client(
    "upstream.missing_value",
    StatusCode::FORBIDDEN,
    21,
    "this request lacks something that the application behind this gateway is to be told",
);

/// What happens to the headers of requests on their way to the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestHeaders {
    /// Headers that are set: `{ X-Tenant = "{path.tenant}" }`. The value is text with names in braces:
    /// `{client.address}`, `{scheme}`, `{host}`, `{method}`, `{path}`, `{path.NAME}` (a segment of the route's path),
    /// `{request_id}`, `{route}`, `{tls.server_name}`, `{tls.version}`, and with `[auth]` `{user.id}`, `{user.app_id}`,
    /// `{user.name}`, `{user.email}` (where it was proved), `{user.claims.NAME}` (of another issuer's token). A request without the value is refused, unless
    /// a default is written: `{tls.server_name|none}`. Or a secret: `{ secret = "billing-token" }`.
    pub set: BTreeMap<String, Value>,
    /// Headers that are taken away.
    pub remove: Vec<String>,
}

/// What a header is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RequestHeader")]
pub enum Value {
    /// A text, the same or made for each request.
    #[schemars(extend("x-public" = true))]
    Text(Template),
    /// A secret.
    Secret(SecretRef),
}

/// Headers that no policy sets or removes: they are the connection's, or the gateway itself says them.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "forwarded"
            | "x-request-id"
            | "x-script-name"
            | "palisade-assertion"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("sec-websocket-")
}

/// What was written for the requests of one route, ready.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Made)>,
}

#[derive(Debug)]
enum Made {
    Fixed(HeaderValue),
    Template(Template),
}

impl Prepared {
    /// Adds what one place of the policy says (`at`: its key path); what comes later wins. `pattern`: the path whose
    /// segments templates may name.
    pub(crate) fn add(
        &mut self,
        said: &RequestHeaders,
        at: &str,
        pattern: Option<&PathPattern>,
        env: &Env,
        logins: bool,
        problems: &mut Problems,
    ) {
        for (place, text) in said.remove.iter().enumerate() {
            let key = format!("{at}.remove[{place}]");
            let Some(name) = name(text, &key, problems) else { continue };
            if name == http::header::HOST {
                problems.error(&key, "no request is without `Host`", "set it, or leave it as the client sent it");
            }
            if said.set.keys().any(|set| fold(set) == fold(text)) {
                let message = format!("`{text}` is removed and set");
                problems.error(&key, message, "a header that is set replaces what was there; take it out of `remove`");
            }
            self.set.retain(|(set, _)| *set != name);
            self.remove.push(name);
        }
        for (text, value) in &said.set {
            let key =
                if text.contains(['.', '[']) { format!("{at}.set.\"{text}\"") } else { format!("{at}.set.{text}") };
            let Some(name) = name(text, &key, problems) else { continue };
            let made = match value {
                Value::Secret(secret) => match env.secrets.get(&secret.secret) {
                    Ok(secret) => HeaderValue::from_str(secret.expose().trim_end()).ok().map_or_else(
                        || {
                            problems.error(&key, "this secret cannot be the value of a header", "store another one");
                            None
                        },
                        |mut value| {
                            value.set_sensitive(true);
                            Some(Made::Fixed(value))
                        },
                    ),
                    Err(error) => {
                        problems.error(&key, error.to_string(), "store the secret, or take the line out");
                        None
                    }
                },
                Value::Text(template) => {
                    if template.needs_login() && !logins {
                        let fix = "add `[auth]`, or say something else";
                        problems.error(
                            &key,
                            format!("`{template}` needs a login, and without `[auth]` nobody logs in here"),
                            fix,
                        );
                    }
                    for segment in template.segments() {
                        if pattern.is_none_or(|pattern| !pattern.names(segment)) {
                            let message = match pattern {
                                Some(pattern) => format!("`{pattern}` has no segment `{{{segment}}}`"),
                                None => format!(
                                    "no route belongs to an upstream alone, so `{{path.{segment}}}` may be nothing"
                                ),
                            };
                            let fix = format!("name one that it has, or write a default: `{{path.{segment}|none}}`");
                            problems.error(&key, message, fix);
                        }
                    }
                    if is_credential(&fold(text)) && template.fixed().is_some_and(|value| !value.is_empty()) {
                        let fix = format!("store it and write `{text} = {{ secret = \"app-token\" }}`");
                        problems.error(&key, "a credential, and secrets are never in the policy", fix);
                    }
                    Some(template.fixed().map_or_else(|| Made::Template(template.clone()), Made::Fixed))
                }
            };
            let Some(made) = made else { continue };
            if name == http::header::HOST && !is_host(&made) {
                let fix = "write the name that the application expects; the client's is in `X-Forwarded-Host`";
                problems.error(&key, "`Host` is one fixed host, with a port at most", fix);
            }
            self.set.retain(|(set, _)| *set != name);
            self.set.push((name, made));
        }
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// The names that are set, folded as servers fold them.
    pub(crate) fn owned(&self) -> impl Iterator<Item = String> {
        // `Host` is not the gateway's alone: where no route sets it, it is the client's.
        self.set.iter().filter(|(name, _)| *name != http::header::HOST).map(|(name, _)| fold(name.as_str()))
    }

    /// Changes the headers of a request that is about to be sent.
    ///
    /// # Errors
    /// When a value is missing.
    pub(crate) fn apply(&self, ctx: &Context, headers: &mut HeaderMap) -> Result<(), Refusal> {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, made) in &self.set {
            let value = match made {
                Made::Fixed(value) => Some(value.clone()),
                Made::Template(template) => template.render(ctx).map_err(|why| refusal(name, template, why))?,
            };
            match value {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        Ok(())
    }
}

fn refusal(name: &HeaderName, template: &Template, why: NoValue<'_>) -> Refusal {
    let refusal = match why {
        NoValue::Missing(value) => MISSING_VALUE.refuse("a header has no value").with("value", value.to_owned()),
        NoValue::TooLong => MISSING_VALUE.refuse("a header would be longer than 4096 bytes"),
    };
    refusal.with("header", name.as_str().to_owned()).with("template", template.to_string())
}

fn is_host(made: &Made) -> bool {
    match made {
        Made::Fixed(value) => value.to_str().is_ok_and(|text| {
            let (name, port) = text.rsplit_once(':').filter(|_| !text.ends_with(']')).unwrap_or((text, "1"));
            super::values::host_name(name).is_some() && port.parse::<u16>().is_ok()
        }),
        Made::Template(_) => false,
    }
}

fn name(text: &str, key: &str, problems: &mut Problems) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        problems.error(key, format!("`{text}` is not the name of a header"), "write it like `X-Tenant`");
        return None;
    };
    if is_reserved(&fold(text)) {
        let message = format!("`{text}` is the gateway's own to say");
        problems.error(key, message, "choose another name");
        return None;
    }
    Some(name)
}

/// Whether a header of this name carries something that nobody else may know.
fn is_credential(folded: &str) -> bool {
    matches!(folded, "authorization" | "cookie")
        || ["token", "secret", "password", "api-key", "apikey"].iter().any(|ending| folded.ends_with(ending))
}

/// Names that servers take for one: case, and `-`, `_` and `.`, make no difference.
fn fold(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The headers that are the gateway's on every route, since some route sets them.
#[derive(Debug, Default)]
pub(crate) struct Owned(Vec<Box<str>>);

impl Owned {
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        let mut names: Vec<Box<str>> = names.map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    /// Whether a header of this name, in lower case, is not the client's to send. Names with `_` and `.` end at the
    /// gateway in any case.
    pub(crate) fn contains(&self, name: &str) -> bool {
        !self.0.is_empty() && self.0.binary_search_by(|own| (**own).cmp(name)).is_ok()
    }
}
