//! Cross-origin resource sharing: whose pages may read answers.
//!
//! Guide section 9. Preflights are answered here, before anything costly. One author: where the policy has `[cors]`, the
//! application's own `Access-Control-*` headers are removed; where it has none, this control isn't there, the
//! application's pass, and preflights are its own. A simple request of an unlisted origin is passed on, because not
//! every request with `Origin` comes from a foreign page's script; its answer has no CORS header, so a browser hides it.
//! Keeping such requests from acting is `csrf`'s work. Source: the Fetch standard, "CORS protocol"; threat 43.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderName, HeaderValue, ORIGIN,
};
use http::{HeaderMap, Method, Response, StatusCode, request, response};
use palisade_base::Interval;
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::body::ResponseBody;
use crate::context::Context;
use crate::control::{Check, Control, Info, Routes};
use crate::policy::Env;
use crate::policy::values::{MethodName, OriginPattern};
use crate::refusal::{Code, Refusal, Stop};

use self::granted::{Asked, Granted};

#[path = "cors_granted.rs"]
mod granted;

/// `[cors]`. Without `origins` the control isn't there: the application's own headers pass, and preflights are its own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The origins whose pages may read answers: exact with scheme and port (`https://app.example.com`), all
    /// subdomains (`https://*.example.com`), or an expression for the whole origin
    /// (`regex:https://pr-[0-9]+\.example\.com`). `"*"` is every page, and excludes `credentials`. Never `null`.
    pub origins: Option<Vec<OriginPattern>>,
    /// Pages may send cookies and other credentials of the browser.
    pub credentials: bool,
    /// The methods that pages may use, besides the ones that need no permission (`GET`, `HEAD`, `POST`).
    pub methods: Vec<MethodName>,
    /// The request headers that pages may set, besides the safelisted ones. `"*"` is all but `Authorization`, and
    /// excludes `credentials`.
    pub headers: Vec<String>,
    /// The response headers that pages may read, besides the safelisted ones.
    pub expose_headers: Vec<String>,
    /// How long a browser may keep the answer to a preflight. Chromium keeps none longer than 2 h.
    pub max_age: Interval,
    /// Public pages may reach this API on a private network (`Access-Control-Allow-Private-Network`).
    pub private_network: bool,
    /// Where the application answers for itself: a failure (5xx) of which it says nothing, and a refusal of this
    /// gateway, get what the same application has allowed the same origin before, under the same host and route, so
    /// that its page can read what went wrong. Nobody is allowed anything that the application did not allow.
    pub errors: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: None,
            credentials: false,
            methods: [Method::GET, Method::HEAD, Method::POST].map(MethodName).to_vec(),
            headers: Vec::new(),
            expose_headers: Vec::new(),
            max_age: Interval::secs(600),
            private_network: false,
            errors: true,
        }
    }
}

/// What a route may say: the same keys; those it does not name keep their value from `[cors]`. `origins = []` is
/// nobody.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The origins whose pages may read answers of this route.
    pub origins: Option<Vec<OriginPattern>>,
    /// Pages may send credentials.
    pub credentials: Option<bool>,
    /// The methods that pages may use.
    pub methods: Option<Vec<MethodName>>,
    /// The request headers that pages may set.
    pub headers: Option<Vec<String>>,
    /// The response headers that pages may read.
    pub expose_headers: Option<Vec<String>>,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Option<Interval>,
    /// Public pages may reach this route on a private network.
    pub private_network: Option<bool>,
}

/// A preflight of an origin that the policy does not list.
pub static ORIGIN_CODE: Code =
    Code::client("cors.origin", StatusCode::FORBIDDEN, 9, "pages of this origin may not use this API")
        .owasp("authz_fail");

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The control.
#[derive(Debug)]
pub struct Cors {
    /// For each rule; none where the application answers for itself.
    sharing: Vec<Option<Arc<Sharing>>>,
    /// For each rule where the application answers for itself and `errors` asks for it: what it has allowed there.
    granted: Vec<Option<Arc<Granted>>>,
}

/// What is shared with whom. Header values are built once.
#[derive(Debug)]
struct Sharing {
    origins: Vec<OriginPattern>,
    credentials: bool,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: HeaderValue,
    private_network: bool,
}

/// Marks an answer of this control: its headers are not the application's.
#[derive(Debug, Clone, Copy)]
struct Preflight;

impl Control for Cors {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "cors",
        section: 9,
        codes: &[&ORIGIN_CODE],
        judges: false,
        about: "Whose pages may read answers. Without `origins`, the application's own CORS headers pass.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let standard = Keys {
            origins: section.origins.as_deref(),
            credentials: section.credentials,
            methods: &section.methods,
            headers: &section.headers,
            expose_headers: &section.expose_headers,
            max_age: section.max_age,
            private_network: section.private_network,
        };
        if section.origins.is_none()
            && standard.says_something()
            && routes.said().all(|(_, said)| said.origins.is_none())
        {
            problems.error(
                "cors",
                "`[cors]` names no origin",
                "add `origins = [\"https://app.example.com\"]`, or remove the section",
            );
        }
        let shared = standard.compile("cors", env, problems).map(Arc::new);
        let mut place = 0..;
        let sharing = routes.map(|route| {
            let place: usize = place.next().unwrap_or_default();
            let Some(said) = route else { return shared.clone() };
            let keys = Keys {
                origins: said.origins.as_deref().or(standard.origins),
                credentials: said.credentials.unwrap_or(standard.credentials),
                methods: said.methods.as_deref().unwrap_or(standard.methods),
                headers: said.headers.as_deref().unwrap_or(standard.headers),
                expose_headers: said.expose_headers.as_deref().unwrap_or(standard.expose_headers),
                max_age: said.max_age.unwrap_or(standard.max_age),
                private_network: said.private_network.unwrap_or(standard.private_network),
            };
            keys.compile(&format!("route[{}].cors", place.saturating_sub(1)), env, problems).map(Arc::new)
        });
        let learn = |(sharing, name): (&Option<Arc<Sharing>>, &String)| {
            // Not where the rule has an author already.
            let learns = section.errors && sharing.is_none();
            learns.then(|| env.state.get(&format!("cors.granted {name}"), Granted::default))
        };
        let granted: Vec<Option<Arc<Granted>>> = sharing.iter().zip(routes.names).map(learn).collect();
        let any = sharing.iter().any(Option::is_some) || granted.iter().any(Option::is_some);
        any.then_some(Self { sharing, granted })
    }
}

/// The keys of one place, merged.
struct Keys<'p> {
    origins: Option<&'p [OriginPattern]>,
    credentials: bool,
    methods: &'p [MethodName],
    headers: &'p [String],
    expose_headers: &'p [String],
    max_age: Interval,
    private_network: bool,
}

impl Keys<'_> {
    fn says_something(&self) -> bool {
        let default = Config::default();
        self.credentials
            || self.private_network
            || self.methods != default.methods
            || !self.headers.is_empty()
            || !self.expose_headers.is_empty()
            || self.max_age.duration() != default.max_age.duration()
    }

    fn compile(&self, path: &str, env: &Env, problems: &mut Problems) -> Option<Sharing> {
        let origins = self.origins?;
        for (place, origin) in origins.iter().enumerate() {
            let key = format!("{path}.origins[{place}]");
            if origin.is_open() && self.credentials {
                problems.error(
                    &key,
                    format!("`{origin}` with `credentials` lets every page act as its visitor"),
                    "name the origins of your own pages, or write `credentials = false`",
                );
            } else if origin.is_open() && !env.is_development() {
                problems.warn(
                    &key,
                    format!("`{origin}` lets every page read what this API answers"),
                    "name the origins of your own pages, unless the API is meant for everybody",
                );
            } else if origin.is_pattern() && origin.is_plain() && !env.is_development() {
                problems.error(
                    &key,
                    format!("`{origin}` is any name without TLS: whoever is on a page's network can be one of them"),
                    "serve the pages over HTTPS, and write `https://`",
                );
            } else if origin.is_plain() && !env.is_development() {
                problems.warn(
                    &key,
                    format!("`{origin}` is without TLS: whoever is on the network can be that page"),
                    "serve the page over HTTPS, and write `https://`",
                );
            }
        }
        for (key, names) in [("headers", self.headers), ("expose_headers", self.expose_headers)] {
            for (place, name) in names.iter().enumerate() {
                let at = format!("{path}.{key}[{place}]");
                if name == "*" && self.credentials {
                    problems.error(
                        &at,
                        "with `credentials` a browser reads `*` as a header of that name",
                        "name the headers",
                    );
                } else if name != "*" && name.parse::<HeaderName>().is_err() {
                    problems.error(&at, "not the name of a header", "write a name such as `X-Request-Id`");
                }
            }
        }
        Some(Sharing {
            origins: origins.to_vec(),
            credentials: self.credentials,
            methods: list(self.methods.iter().map(|method| method.0.as_str())),
            headers: list(self.headers.iter().map(String::as_str)),
            expose_headers: list(self.expose_headers.iter().map(String::as_str)),
            max_age: HeaderValue::from(self.max_age.duration().as_secs()),
            private_network: self.private_network,
        })
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> Option<HeaderValue> {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
}

impl Check for Cors {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        let Some(sharing) = self.sharing(ctx) else { return Ok(()) };
        if !is_preflight(parts) {
            return Ok(());
        }
        if sharing.allowed(ctx.origin.as_ref()).is_none() {
            return Err(ORIGIN_CODE.refuse("a preflight of an origin that `cors.origins` does not list").into());
        }
        Err(Stop::Answer(Box::new(sharing.preflight(&parts.headers))))
    }

    fn response(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        let Some(sharing) = self.sharing(ctx) else {
            if let Some(asked) = Asked::of(ctx)
                && let Some(granted) = self.granted(ctx)
            {
                granted.response(&asked, parts);
            }
            return Ok(());
        };
        let preflight = parts.extensions.get::<Preflight>().is_some();
        if !preflight {
            remove_foreign(&mut parts.headers);
        }
        // Who is banned, or asked for a name that isn't ours, learns nothing about origins.
        if parts.extensions.get::<&'static Code>().is_some_and(|code| matches!(code.control(), "hosts" | "bans")) {
            return Ok(());
        }
        vary(&mut parts.headers);
        let Some(origin) = sharing.allowed(ctx.origin.as_ref()) else { return Ok(()) };
        parts.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if sharing.credentials {
            parts.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(exposed) = sharing.expose_headers.as_ref().filter(|_| !preflight) {
            parts.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        true
    }
}

impl Cors {
    fn sharing(&self, ctx: &Context) -> Option<&Sharing> {
        self.sharing.get(usize::from(ctx.rule().id))?.as_deref()
    }

    /// What the application has allowed on this request's route.
    fn granted(&self, ctx: &Context) -> Option<&Granted> {
        // Of a request that was refused before its route was known nobody can say which application it was for.
        let known = ctx.is_routed() || ctx.policy.config().upstreams.is_empty();
        self.granted.get(usize::from(ctx.rule().id)).filter(|_| known)?.as_deref()
    }

    /// Whether pages of an origin are own pages of this request's route, for controls that ask where a request comes
    /// from. An open pattern makes nobody's page an own one.
    pub fn is_own(&self, ctx: &Context, origin: &str) -> bool {
        self.sharing(ctx)
            .is_some_and(|sharing| sharing.origins.iter().any(|pattern| !pattern.is_open() && pattern.matches(origin)))
    }
}

impl Sharing {
    /// The value of `Access-Control-Allow-Origin`: the origin itself, only ever a listed one, or `*`.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let value = origin?;
        let text = value.to_str().ok()?;
        let pattern = self.origins.iter().find(|pattern| pattern.matches(text))?;
        Some(match pattern {
            OriginPattern::Any => HeaderValue::from_static("*"),
            _ => value.clone(),
        })
    }

    /// What the policy allows, whatever was asked for: the browser compares, and says in its console what is missing.
    fn preflight(&self, asked: &HeaderMap) -> Response<ResponseBody> {
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer.extensions_mut().insert(Preflight);
        let headers = answer.headers_mut();
        if let Some(methods) = &self.methods {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        if let Some(names) = &self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if self.private_network && asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == TRUE) {
            headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
        }
        answer
    }
}

/// Whether this is a preflight (Fetch standard, "CORS-preflight request"), whatever method it asks about.
fn is_preflight(parts: &request::Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Removes what the application says of CORS: two authors give two values, which browsers refuse.
fn remove_foreign(headers: &mut HeaderMap) {
    let is_cors = |name: &HeaderName| name.as_str().starts_with("access-control-");
    if headers.keys().any(is_cors) {
        let foreign: Vec<HeaderName> = headers.keys().filter(|name| is_cors(name)).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
    }
}

/// The answer depends on `Origin`, also where it is absent or not listed: a cache must not give one origin's answer to
/// another.
fn vary(headers: &mut HeaderMap) {
    super::headers::vary(headers, "Origin");
}

#[cfg(test)]
#[path = "cors_granted_tests.rs"]
mod granted_tests;
#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
