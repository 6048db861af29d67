//! Request integrity: the target, host and headers that Palisade decides on are what it sends.
//!
//! Guide section 20. First in the stack: every later control reads the path, host and rule that are fixed here, and
//! nobody parses them again. Sources: RFC 9110, RFC 9112, RFC 3986 §6.2.2; threats 5 to 8, 23, 24.

pub(crate) mod hidden;
pub(crate) mod host;
mod method;
mod path;

use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, HeaderValue, ORIGIN, UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, request};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::method::MethodParameter;
pub(crate) use self::method::without_method;
use crate::context::{Context, Seen};
use crate::control::{Asked, Check, Control, Info, Inspect, NoRoute, Remedy, Routes};
use crate::controls::auth::tells_apart;
use crate::controls::headers::docs_are_guarded;
use crate::policy::request_headers::Owned;
use crate::policy::{Env, Found, Rule};
use crate::refusal::{Code, Refusal, Stop};

/// `[integrity]`. Routes may say the same keys of their own paths.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// What happens to repeated slashes in a path.
    pub slashes: Slashes,
    /// Encoded slashes (`%2F`) in paths are allowed and forwarded as sent.
    pub encoded_slash: bool,
    /// `;` parameters in paths are allowed.
    pub path_parameters: bool,
    /// The parameter by which the application lets a request be another method than it was sent as: `"_method"` in
    /// Rails, Laravel, Symfony and Express. Requests are judged by the method that they are sent with, so it is taken out
    /// of queries, and a form that has it is refused. Default: that is done with `_method` where the other method would
    /// be judged otherwise, and nowhere else. `"off"`: it arrives.
    pub method_parameter: Option<MethodParameter>,
}

/// What happens to repeated slashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Slashes {
    /// They are forwarded as one.
    #[default]
    Merge,
    /// They are forwarded as sent; rules are matched as if they were one.
    Keep,
    /// The request is refused.
    Refuse,
}

/// The path can be read in two ways.
pub static PATH: Code =
    Code::client("integrity.path", StatusCode::BAD_REQUEST, 20, "the path of this request is ambiguous or malformed");
/// The host is missing, malformed, or said twice.
pub static HOST_CODE: Code =
    Code::client("integrity.host", StatusCode::BAD_REQUEST, 20, "the host of this request is missing or malformed");
/// A method that nobody named.
pub static METHOD: Code =
    Code::client("integrity.method", StatusCode::BAD_REQUEST, 20, "this method is not known here");
/// A form by which the application may run another method than the one that was judged.
pub static METHOD_OVERRIDE: Code = Code::client(
    "integrity.method_override",
    StatusCode::BAD_REQUEST,
    20,
    "this form names another method than it was sent with",
);
/// A header that changes the meaning of others.
pub static HEADER: Code =
    Code::client("integrity.header", StatusCode::BAD_REQUEST, 20, "a header of this request is not acceptable");
/// gRPC, where nobody expects it.
pub static GRPC: Code = Code::client(
    "integrity.grpc",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    20,
    "gRPC is not served here; where it is, it comes as `POST` over HTTP/2",
);
/// An expectation other than `100-continue`.
pub static EXPECT_CODE: Code = Code::client(
    "integrity.expect",
    StatusCode::EXPECTATION_FAILED,
    20,
    "the only expectation answered is `100-continue`",
);
/// A name that no site serves on purpose.
pub static HIDDEN_FILE: Code =
    Code::client("integrity.hidden_file", StatusCode::NOT_FOUND, 17, "nothing is served under this path");
/// Framing that two parsers could read differently; answered before the request reaches a control.
pub static FRAMING: Code = Code::client(
    "integrity.framing",
    StatusCode::BAD_REQUEST,
    20,
    "the framing of this request is ambiguous or malformed",
);

/// The control.
#[derive(Debug)]
pub struct Integrity {
    slashes: Slashes,
    encoded_slash: bool,
    path_parameters: bool,
}

impl Control for Integrity {
    type Config = Config;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "integrity",
        section: 20,
        codes: &[&PATH, &HOST_CODE, &METHOD, &METHOD_OVERRIDE, &HEADER, &GRPC, &EXPECT_CODE, &HIDDEN_FILE, &FRAMING],
        judges: false,
        about: "One reading of every request: what is decided on is what is sent.",
    };

    fn compile(section: &Config, _: &Routes<'_, NoRoute>, _: &Env, _: &mut Problems) -> Option<Self> {
        Some(Self {
            slashes: section.slashes,
            encoded_slash: section.encoded_slash,
            path_parameters: section.path_parameters,
        })
    }
}

impl Check for Integrity {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        let host = host::host(parts).map_err(|why| HOST_CODE.refuse(why).close())?;
        ctx.set_host(host);
        if !ctx.policy.rules().knows(&parts.method) {
            return Err(METHOD.refuse("no route names this method").into());
        }
        if ctx.seen.any(Seen::CONNECTION) {
            check_headers(parts)?;
        }
        if parts.version >= Version::HTTP_2 {
            check_values(&parts.headers)?;
        }
        if ctx.seen.any(Seen::COOKIE) {
            join_cookies(&mut parts.headers);
        }
        if parts.uri.path() == "*" && parts.uri.query().is_none() && parts.method == Method::OPTIONS {
            ctx.set_target(None, 0);
            return if ctx.grpc { check_grpc(ctx.rule(), parts).map_err(Stop::from) } else { Ok(()) };
        }
        let read = path::read(parts.uri.path()).map_err(|why| PATH.refuse(why))?;
        let normal = read.normal.as_deref().unwrap_or_else(|| parts.uri.path());
        let others = read.other_readings(normal).map_err(|why| PATH.refuse(why))?;
        if hidden::is_hidden(normal) || others.iter().any(|other| hidden::is_hidden(other)) {
            return Err(HIDDEN_FILE.refuse("a segment begins with a dot or names a backup or key").into());
        }
        let Selected { found, inner } = select(ctx, normal, asked_method(parts));
        let rule = found.id();
        self.check_facts(ctx, rule, &read)?;
        for other in &others {
            let meant = select(ctx, other, asked_method(parts));
            if meant.found.id() != rule {
                return Err(PATH
                    .refuse("the path selects another route once its slashes are decoded or its parameters cut off")
                    .into());
            }
            let (here, there) = (inner.unwrap_or(normal), meant.inner.unwrap_or(other));
            // What is guarded without a route of its own, too: these go by the path as it is decided on.
            let is_docs = |path: &str, without_root: bool| {
                let app = ctx.policy.destination(rule).forwarded(path, without_root).unwrap_or(path);
                docs_are_guarded(ctx, rule, app)
            };
            if tells_apart(&ctx.policy, ctx.policy.rule(rule), here, there)
                || is_docs(here, inner.is_some()) != is_docs(there, meant.inner.is_some())
            {
                return Err(PATH
                    .refuse("the path may be for others once its slashes are decoded or its parameters cut off")
                    .into());
            }
        }
        let other_methods = match found {
            Found::Rule(_) => None,
            Found::OtherMethods(_, allow) => Some(allow),
            Found::Respelled(_) => {
                return Err(PATH.refuse("a number or UUID in another spelling than its canonical one").into());
            }
        };
        let keep = ctx.policy.rules().get(rule).slashes.unwrap_or(self.slashes) == Slashes::Keep;
        if keep && read.contested {
            return Err(PATH.refuse("a dot segment behind repeated slashes, which are kept").into());
        }
        let kept = read.kept.filter(|_| keep);
        let without_root = inner.is_some();
        let (decided, forwarded) = match inner {
            // The application's own prefix is none of the rules': without it, whichever way the client wrote it.
            Some(inner) => (Some(inner.to_owned()), kept.map(|kept| kept_without_root(ctx, rule, &kept)).transpose()?),
            None => (read.normal, kept),
        };
        let forwarded = forwarded.or_else(|| decided.clone());
        if let Some(path) = &forwarded {
            parts.uri = with_path(&parts.uri, path).ok_or_else(|| PATH.refuse("the normalised path is no target"))?;
        }
        let whole = parts.uri.path();
        let app = ctx.policy.destination(rule).forwarded(whole, without_root).map_err(|why| PATH.refuse(why))?;
        if *app != *whole {
            ctx.set_app_path(app.into());
        }
        ctx.set_target(decided.map(Into::into), rule);
        if let Some(allow) = other_methods {
            ctx.set_other_methods(allow);
        }
        if ctx.grpc {
            check_grpc(ctx.rule(), parts)?;
        }
        Ok(())
    }

    fn inspect(&self, ctx: &Context, parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        method::inspect(ctx, &parts.headers)
    }

    fn inspects(&self) -> bool {
        true
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let why = asked.judged.why;
        let keys = ["encoded_slash = true", "path_parameters = true"].into_iter().filter(|key| why.contains(key));
        let keys: Vec<&str> = keys.collect();
        if !keys.is_empty() {
            return Some(Remedy::Route(keys.join("\n")));
        }
        if why.contains("slashes = \"refuse\"") {
            return Some(Remedy::Route("slashes = \"merge\"".into()));
        }
        if *asked.judged.code == GRPC && !asked.rule.grpc {
            return Some(Remedy::Route("grpc = true".into()));
        }
        if *asked.judged.code == METHOD_OVERRIDE {
            return Some(Remedy::Route("method_parameter = \"off\"".into()));
        }
        if *asked.judged.code == METHOD {
            return Some(Remedy::Route(format!("methods = [\"{}\"]", asked.method)));
        }
        let change = match asked.judged.code.name {
            "integrity.path" if why.contains("prefix") => {
                "the client writes the prefix of the application once (`strip_prefix`, `upstream.root_path`), or leaves it out where routes do"
            }
            "integrity.path" => "the client sends the path in its plain form, without the escapes that hide characters",
            "integrity.host" => "the client sends one `Host` that is a name or address, with a port at most",
            "integrity.header" => {
                "the client leaves the header out: `Connection` names nothing but `close`, `keep-alive`, `upgrade` and `te`, `Upgrade` is `websocket`"
            }
            "integrity.grpc" => "the client makes its calls with `POST` over HTTP/2, and names one content type",
            "integrity.expect" => "the client leaves `Expect` out, or sends `100-continue`",
            "integrity.hidden_file" => {
                "no such name is served; the file needs one without a leading dot that is not that of a key or copy"
            }
            "integrity.framing" => {
                "the client, or a proxy before this one, frames the request in one way only: `Content-Length` or chunks, lines that end in CR LF"
            }
            _ => return None,
        };
        Some(Remedy::Elsewhere(format!("`integrity` always enforces: {change}")))
    }
}

impl Integrity {
    fn check_facts(&self, ctx: &Context, rule: u16, read: &path::Read) -> Result<(), Refusal> {
        let rule = ctx.policy.rules().get(rule);
        if read.encoded_slash && !rule.encoded_slash.unwrap_or(self.encoded_slash) {
            return Err(PATH.refuse("an encoded slash, and the route does not say `encoded_slash = true`"));
        }
        if read.parameters && !rule.path_parameters.unwrap_or(self.path_parameters) {
            return Err(PATH.refuse("a `;` in the path, and the route does not say `path_parameters = true`"));
        }
        if read.repeated_slash && rule.slashes.unwrap_or(self.slashes) == Slashes::Refuse {
            return Err(PATH.refuse("repeated slashes, and the route says `slashes = \"refuse\"`"));
        }
        Ok(())
    }
}

/// What a strict policy would refuse of a path that the starter policy lets pass. Last of the head: only what nobody
/// refused is noted.
#[derive(Debug)]
pub(crate) struct Strict;

impl Check for Strict {
    fn request(&self, ctx: &Context, _: &mut request::Parts) -> Result<(), Stop> {
        // In its normal form: the hex of escapes is in upper case.
        let path = ctx.path();
        let parameters = path.contains(';') || path.contains("%3B");
        let why = match (path.contains("%2F"), parameters) {
            (false, false) => return Ok(()),
            (true, false) => "an encoded slash, for which a strict policy says `encoded_slash = true`",
            (false, true) => "a `;` in the path, for which a strict policy says `path_parameters = true`",
            (true, true) => {
                "an encoded slash and a `;`, for which a strict policy says `encoded_slash = true` and `path_parameters = true`"
            }
        };
        Err(PATH.refuse(why).watched().into())
    }
}

/// What the routes say of a path.
struct Selected<'p> {
    found: Found,
    /// The path without the application's own prefix, where the rule is that of the path without it.
    inner: Option<&'p str>,
}

/// Looks the rule of a path up. An application with a `root_path` answers the same under it: then the rule is that of
/// the path without the prefix, so that both spellings are one to every control. Threats 7.
fn select<'p>(ctx: &Context, path: &'p str, method: &Method) -> Selected<'p> {
    let find = |path: &str| ctx.policy.rules().find(ctx.host(), path, method);
    let found = find(path);
    let to = ctx.policy.destination(found.id());
    if let Some(inner) = to.without_root(path) {
        let found = find(inner);
        if ctx.policy.destination(found.id()).upstream == to.upstream {
            return Selected { found, inner: Some(inner) };
        }
    }
    Selected { found, inner: None }
}

/// A path with its repeated slashes, without the application's own prefix.
fn kept_without_root(ctx: &Context, rule: u16, kept: &str) -> Result<String, Refusal> {
    let inner = ctx.policy.destination(rule).root().and_then(|root| root.strip(kept)).map(str::to_owned);
    inner.ok_or_else(|| PATH.refuse("`root_path` of the application is spelled with repeated slashes"))
}

/// The method that a rule is looked up for: a preflight asks on behalf of another one.
fn asked_method(parts: &request::Parts) -> &Method {
    preflight_method(parts).unwrap_or(&parts.method)
}

/// The same target with another path.
pub(crate) fn with_path(uri: &http::Uri, path: &str) -> Option<http::Uri> {
    let mut target = String::with_capacity(path.len() + uri.query().map_or(0, |query| query.len() + 1));
    target.push_str(path);
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    target.parse::<http::uri::PathAndQuery>().ok().map(http::Uri::from)
}

/// Headers that decide how other headers are read.
fn check_headers(parts: &request::Parts) -> Result<(), Refusal> {
    let headers = &parts.headers;
    for value in headers.get_all(CONNECTION) {
        let listed = value.to_str().map_err(|_| HEADER.refuse("`Connection` is not text"))?;
        for name in listed.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // Another name would take a header away that the gateway has decided on.
            if !["close", "keep-alive", "upgrade", "te"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(HEADER.refuse("`Connection` names a header").close());
            }
        }
    }
    if let Some(expect) = headers.get(EXPECT)
        && (!expect.as_bytes().eq_ignore_ascii_case(b"100-continue") || count(headers, EXPECT) > 1)
    {
        return Err(EXPECT_CODE.refuse("an expectation other than `100-continue`").close());
    }
    if let Some(upgrade) = headers.get(UPGRADE) {
        let names_it = headers
            .get_all(CONNECTION)
            .iter()
            .any(|v| v.to_str().is_ok_and(|v| v.split(',').any(|n| n.trim().eq_ignore_ascii_case("upgrade"))));
        // `Upgrade: h2c` and the like, which clients offer and do not insist on, end here: without the connection
        // option the header means nothing and is not forwarded.
        if names_it && (!upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") || count(headers, UPGRADE) > 1) {
            return Err(HEADER.refuse("an upgrade other than `websocket`").close());
        }
    }
    if parts.version >= Version::HTTP_2 && headers.get_all("te").iter().any(|te| te.as_bytes() != b"trailers") {
        return Err(HEADER.refuse("`TE` other than `trailers` in HTTP/2"));
    }
    Ok(())
}

/// What is gRPC to one side and something else to the other is refused, and so is all of it where nobody expects it: an
/// application over HTTP/1.1 would answer without the trailers that make an answer one.
fn check_grpc(rule: &Rule, parts: &request::Parts) -> Result<(), Refusal> {
    if !rule.grpc {
        return Err(GRPC.refuse("gRPC, and the route does not say `grpc = true`"));
    }
    if parts.version != Version::HTTP_2 {
        return Err(GRPC.refuse("gRPC over HTTP/1.1"));
    }
    if parts.method != Method::POST {
        return Err(GRPC.refuse("gRPC with another method than `POST`"));
    }
    if count(&parts.headers, CONTENT_TYPE) > 1 {
        return Err(GRPC.refuse("gRPC with several content types"));
    }
    Ok(())
}

/// RFC 9113 §8.2.1: white space around a value is malformed in HTTP/2, where it would be part of the value; in HTTP/1.1 it
/// is none of it.
fn check_values(headers: &HeaderMap) -> Result<(), Refusal> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if headers.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last())) {
        return Err(HEADER.refuse("white space around a value in HTTP/2"));
    }
    Ok(())
}

/// One `Cookie`, in the order sent: HTTP/2 clients may split it so that it compresses better (RFC 9113 §8.2.3), and an
/// application behind reads the first or the last of several.
fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(COOKIE).iter();
    let Some(first) = values.next() else { return };
    let Some(second) = values.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    // Valid, as each part is.
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

fn count(headers: &HeaderMap, name: HeaderName) -> usize {
    headers.get_all(name).iter().count()
}

/// The method that a CORS preflight asks about (Fetch standard, CORS-preflight request); nothing for other requests.
pub(crate) fn preflight_method(parts: &request::Parts) -> Option<&Method> {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    // Compared with the known ones instead of parsed into a new one: what nobody names cannot select a rule.
    crate::policy::USUAL.iter().find(|method| method.as_str().as_bytes() == asked.as_bytes())
}

/// Whether this is a WebSocket handshake.
pub(crate) fn is_websocket(parts: &request::Parts) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && parts
            .headers
            .get_all(CONNECTION)
            .iter()
            .any(|v| v.to_str().is_ok_and(|v| v.split(',').any(|n| n.trim().eq_ignore_ascii_case("upgrade"))))
}

/// Removes what ends here, after every control has seen it: headers that claim what only the gateway knows, names that
/// the application could confuse with others, and hop-by-hop headers (RFC 9110 §7.6.1).
pub(crate) fn strip(headers: &mut HeaderMap, keep_upgrade: bool, owned: &Owned) {
    remove_where(headers, |name| {
        (ends_here(name.as_str()) && !(keep_upgrade && *name == UPGRADE)) || owned.contains(name.as_str())
    });
}

/// Removes what the inner service says of itself or of the way to it, and what no client is meant to see.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    remove_where(headers, |name| matches!(name.as_str(), "server" | "proxy-authenticate" | "upgrade"));
}

/// Removes the headers whose name `ends`: one pass over what is there, instead of a look-up for each that might be.
pub(crate) fn remove_where(headers: &mut HeaderMap, ends: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&ends) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| ends(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Whether a header of this name is not for the application.
fn ends_here(name: &str) -> bool {
    // Servers fold `_` and `.` into `-` (CGI, WSGI): `X_Forwarded_For` would become what only the gateway may say.
    name.contains(['_', '.'])
        || matches!(
            name,
            // Hop by hop.
            "connection" | "keep-alive" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization" | "te" | "trailer"
                | "upgrade" | "http2-settings" | "expect"
                // Who the client is, and under which name it came.
                | "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port"
                | "x-forwarded-prefix" | "x-forwarded-server" | "x-forwarded-ssl" | "x-forwarded-scheme" | "x-script-name"
                | "x-forwarded-by" | "x-forwarded-path" | "x-forwarded-uri" | "x-forwarded-method" | "x-original-host"
                | "x-original-method" | "x-forwarded-client-cert"
                | "x-real-ip" | "x-client-ip" | "x-cluster-client-ip" | "true-client-ip" | "cf-connecting-ip"
                // The hand-over of the user, also where there is none.
                | "x-forwarded-user" | "x-forwarded-name" | "x-forwarded-email" | "x-forwarded-roles" | "x-forwarded-groups"
                | "x-forwarded-preferred-username" | "palisade-assertion"
                // Another target or method than the one decided on; CWE-113's `Proxy` (httpoxy).
                | "x-original-url" | "x-original-uri" | "x-rewrite-url" | "x-http-method-override" | "x-http-method"
                | "x-method-override" | "proxy"
                | "x-request-id"
        )
}
