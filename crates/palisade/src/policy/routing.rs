//! Where the requests of each route go: which application, under which path, with which headers of the policy's.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use palisade_policy::Problems;

use super::Env;
use super::config::{Route, Upstream};
use super::request_headers::{Owned, Prepared};
use super::rules::Rules;
use super::values::PathPrefix;
use crate::context::Context;
use crate::controls::Config;
use crate::refusal::Refusal;

/// Where the requests of one route go.
#[derive(Debug)]
pub struct Destination {
    /// Which application: 0 is `[upstream]`, others are `[upstreams.NAME]` in the order of their names, from 1.
    pub upstream: u16,
    /// What is taken off the path.
    strip: Option<PathPrefix>,
    /// `root_path` of the application.
    root: Option<PathPrefix>,
    /// Prefixes that the application may answer to besides: no path that begins with one is forwarded.
    known: Arc<[PathPrefix]>,
    /// What the application is told of its prefix.
    announced: Option<HeaderValue>,
    headers: Option<Prepared>,
}

impl Destination {
    /// The path of a request without the application's own prefix, where it has one and the route does not take a
    /// prefix off.
    pub(crate) fn without_root<'p>(&self, path: &'p str) -> Option<&'p str> {
        self.root.as_ref().filter(|_| self.strip.is_none())?.strip(path)
    }

    /// The prefix that the application answers to besides.
    pub(crate) fn root(&self) -> Option<&PathPrefix> {
        self.root.as_ref()
    }

    /// The path that the application gets. `without_root`: its own prefix has been taken off already, and if there is
    /// another one, that is no spelling of what was decided on.
    ///
    /// # Errors
    /// When it could be read as another one than was decided on.
    pub(crate) fn forwarded<'p>(&self, path: &'p str, without_root: bool) -> Result<&'p str, &'static str> {
        let inner = match &self.strip {
            Some(prefix) => prefix.strip(path).ok_or("`strip_prefix` of the route is spelled differently here")?,
            None if without_root => path,
            None => self.without_root(path).unwrap_or(path),
        };
        if self.known.iter().any(|prefix| prefix.may_begin(inner)) {
            // Threats 7: FastAPI answers `/admin` and `/api/admin` alike when its `root_path` is `/api`.
            return Err("the path repeats a prefix that the application may answer to besides");
        }
        Ok(inner)
    }

    /// The prefix that the application is told of.
    pub(crate) fn prefix(&self) -> Option<&HeaderValue> {
        self.announced.as_ref()
    }

    /// Sets and removes the headers that the policy says.
    ///
    /// # Errors
    /// When the request lacks what one is made of.
    pub(crate) fn headers(&self, ctx: &Context, headers: &mut HeaderMap) -> Result<(), Refusal> {
        self.headers.as_ref().map_or(Ok(()), |prepared| prepared.apply(ctx, headers))
    }
}

/// The destinations of all routes, by rule.
#[derive(Debug)]
pub(crate) struct Routing {
    by_rule: Vec<Destination>,
    owned: Owned,
}

impl Routing {
    /// Compiles what routes and upstreams say.
    pub(crate) fn compile(config: &Config, rules: &Rules, env: &Env, problems: &mut Problems) -> Self {
        check_upstreams(config, problems);
        let logins = config.auth.config.present;
        let standard = Route::default();
        let routes = || std::iter::once(&standard).chain(config.route.iter().map(|route| &route.route));
        let numbers: Vec<u16> =
            routes().enumerate().map(|(rule, route)| number(config, route, rule, problems)).collect();
        let known: Vec<Arc<[PathPrefix]>> = upstreams(config)
            .zip(0_u16..)
            .map(|((_, upstream), number)| {
                let stripped = routes().zip(&numbers).filter(|(_, to)| **to == number);
                let mut all: Vec<PathPrefix> = stripped.filter_map(|(route, _)| route.strip_prefix.clone()).collect();
                all.extend(upstream.root_path.clone());
                all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
                all.dedup();
                all.into()
            })
            .collect();
        let mut by_rule = Vec::with_capacity(numbers.len());
        for (rule, (route, to)) in routes().zip(&numbers).enumerate() {
            let Some((key, upstream)) = upstreams(config).nth(usize::from(*to)) else { continue };
            let mut headers = Prepared::default();
            // Reported once, by the first route that leads there.
            let first = numbers.iter().position(|other| other == to) == Some(rule);
            let at = format!("{key}.request_headers");
            if first {
                headers.add(&upstream.request_headers, &at, None, env, logins, problems);
            } else {
                headers.add(&upstream.request_headers, &at, None, env, logins, &mut problems.clone());
            }
            if let Some(place) = rule.checked_sub(1) {
                let at = format!("route[{place}].request_headers");
                let pattern = rules.iter().nth(rule).map(super::Rule::path);
                headers.add(&route.request_headers, &at, pattern, env, logins, problems);
            }
            if let Some(prefix) = route.strip_prefix.as_ref().filter(|prefix| !route.path.is_below(prefix)) {
                problems.error(
                    &format!("route[{}].strip_prefix", rule.saturating_sub(1)),
                    format!("not every path of `{}` begins with `{prefix}`", route.path),
                    format!("write the route's path as `{prefix}/*`, or strip what it begins with"),
                );
            }
            if route.grpc && env.server.https().address().is_none() {
                problems.warn(
                    &format!("route[{}].grpc", rule.saturating_sub(1)),
                    "gRPC needs HTTP/2, and `http` speaks HTTP/1.1",
                    "serve `https` here too, and let the proxy in front reach it",
                );
            }
            let announced = route.strip_prefix.as_ref().or(upstream.root_path.as_ref());
            by_rule.push(Destination {
                upstream: *to,
                strip: route.strip_prefix.clone(),
                root: upstream.root_path.clone(),
                known: known.get(usize::from(*to)).cloned().unwrap_or_default(),
                announced: announced.and_then(|prefix| HeaderValue::from_str(prefix.as_str()).ok()),
                headers: (!headers.is_empty()).then_some(headers),
            });
        }
        let owned = Owned::new(by_rule.iter().filter_map(|to| to.headers.as_ref()).flat_map(Prepared::owned));
        Self { by_rule, owned }
    }

    /// Where the requests of a rule go.
    pub(crate) fn get(&self, rule: u16) -> &Destination {
        self.by_rule.get(usize::from(rule)).unwrap_or(&self.by_rule[0])
    }

    /// The headers that only the gateway sets.
    pub(crate) fn owned(&self) -> &Owned {
        &self.owned
    }
}

/// All upstreams with their key paths: `[upstream]` first, then the named ones in the order of their names.
pub(crate) fn upstreams(config: &Config) -> impl Iterator<Item = (String, &Upstream)> {
    let named = config.upstreams.iter().map(|(name, upstream)| (format!("upstreams.{name}"), upstream));
    std::iter::once(("upstream".to_owned(), &config.upstream)).chain(named)
}

/// The prefix that a supervised application is told of when it starts: its own, or the one that is taken off, where
/// that is one and the same for all of its routes that take one off.
pub(crate) fn supervised_prefix(config: &Config) -> Option<&PathPrefix> {
    let mut stripped = config
        .route
        .iter()
        .filter(|route| route.route.upstream.is_none())
        .filter_map(|route| route.route.strip_prefix.as_ref());
    let first = stripped.next();
    let only = first.filter(|first| stripped.all(|other| other == *first));
    config.upstream.root_path.as_ref().or(only)
}

fn number(config: &Config, route: &Route, rule: usize, problems: &mut Problems) -> u16 {
    let Some(name) = &route.upstream else { return 0 };
    if let Some(place) = config.upstreams.keys().position(|known| known == name) {
        return u16::try_from(place + 1).unwrap_or(0);
    }
    let likely = palisade_policy::closest(name, config.upstreams.keys().map(String::as_str));
    let fix = match likely {
        Some(likely) => format!("did you mean `\"{likely}\"`?"),
        None if name == "upstream" => "leave the line out: `[upstream]` is where requests go by default".to_owned(),
        None => format!("add `[upstreams.{name}]` with its `url`"),
    };
    let shown: String = name.chars().take(60).collect();
    problems.error(
        &format!("route[{}].upstream", rule.saturating_sub(1)),
        format!("there is no upstream `{shown}`"),
        fix,
    );
    0
}

fn check_upstreams(config: &Config, problems: &mut Problems) {
    for (key, upstream) in upstreams(config) {
        let https = upstream.url.as_ref().is_some_and(super::values::UpstreamUrl::is_https);
        let tls = [
            ("ca", upstream.ca.is_some()),
            ("client_cert", upstream.client_cert.is_some()),
            ("client_key", upstream.client_key.is_some()),
            ("server_name", upstream.server_name.is_some()),
        ];
        for (name, _) in tls.iter().filter(|(_, said)| *said && !https) {
            problems.error(
                &format!("{key}.{name}"),
                format!("`{name}` is for TLS, and this upstream is not reached over it"),
                "write `https://` in `url`, or take the line out",
            );
        }
        if upstream.client_cert.is_some() != upstream.client_key.is_some() {
            let (there, missing) = if upstream.client_cert.is_some() {
                ("client_cert", "client_key")
            } else {
                ("client_key", "client_cert")
            };
            problems.error(
                &format!("{key}.{there}"),
                format!("a certificate and its key belong together: `{missing}` is missing"),
                format!("add `{missing}`"),
            );
        }
    }
    let own = [("cors", config.upstream.cors.is_some()), ("limits", config.upstream.limits.is_some())];
    for (name, _) in own.iter().filter(|(_, said)| *said) {
        problems.error(
            &format!("upstream.{name}"),
            format!("what holds for `[upstream]` is said in `[{name}]`"),
            format!("move it there; `[upstreams.NAME]` may have a `{name}` of its own"),
        );
    }
    for (name, upstream) in &config.upstreams {
        let key = format!("upstreams.{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) || name == "upstream" {
            let fix = "lower-case letters, digits, `-` and `_`; `upstream` is the name of `[upstream]` in logs";
            problems.error(&key, "not a name for an upstream", fix);
        }
        if upstream.url.is_none() && upstream.command.is_empty() {
            problems.error(
                &key,
                format!("`{key}` has no `url`"),
                "say where it listens: `url = \"http://127.0.0.1:8001\"`",
            );
        }
        let own = [
            ("command", !upstream.command.is_empty()),
            ("env", !upstream.env.is_empty()),
            ("user", upstream.user.is_some()),
        ];
        for (what, _) in own.iter().filter(|(_, said)| *said) {
            problems.error(
                &format!("{key}.{what}"),
                "Palisade starts one application, that of `[upstream]`",
                "start this one by itself, and name its `url`",
            );
        }
        if !config.route.iter().any(|route| route.route.upstream.as_deref() == Some(name)) {
            problems.warn(
                &key,
                "no route leads to this upstream",
                format!("write `upstream = \"{name}\"` in a `[[route]]`"),
            );
        }
    }
}
