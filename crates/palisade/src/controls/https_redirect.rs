//! Plain HTTP: browsers are sent to HTTPS, API calls with credentials are refused.
//!
//! Guide sections 6 and 7. A credential that came in clear is already known to whoever listens; a redirect would hide
//! that, so the call is refused and says so. Behind a proxy that ends TLS (`plaintext = true` in production) the same
//! holds for what the proxy says came in clear, and for whoever goes round the proxy.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode, request};
use palisade_base::Cidr;
use palisade_policy::Problems;

use crate::body::ResponseBody;
use crate::context::{Context, Listener};
use crate::control::{Check, Control, Info, NoRoute, Routes};
use crate::observe::redact;
use crate::policy::Env;
use crate::refusal::{Code, Stop};
use crate::server::ServerState;

/// A call with a credential, or with a body, over plain HTTP.
pub static REQUIRED: Code = Code::client(
    "https_redirect.required",
    StatusCode::FORBIDDEN,
    6,
    "this API is served over HTTPS only; what was sent went over the network in clear, so change the credential",
);

/// The control. Its keys are `server.plaintext`, `server.http` and `server.https`.
#[derive(Debug)]
pub struct HttpsRedirect {
    /// The port of `server.https`, where there is one.
    port: Option<u16>,
    /// Knows the port in fact: of a given socket, or the one that the system chose.
    server: Arc<ServerState>,
    /// The proxies that end TLS, where plain HTTP is served for them.
    proxies: Option<Vec<Cidr>>,
}

impl Control for HttpsRedirect {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "https_redirect",
        section: 6,
        codes: &[&REQUIRED],
        judges: false,
        about: "Plain HTTP is redirected, or refused where it carried a credential.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, env: &Env, _: &mut Problems) -> Option<Self> {
        let port = env.server.https().address().map(|address| address.port());
        let proxies = env.server.plaintext().then(|| env.server.trusted_proxies.clone());
        // In development plain HTTP is an API like the other one.
        let everybody = proxies.is_some() && env.is_development();
        (!everybody).then(|| Self { port, server: crate::server::state(env), proxies })
    }
}

impl Check for HttpsRedirect {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if ctx.is_secure() || ctx.connection.listener == Listener::Embedded {
            return Ok(());
        }
        // A proxy that says nothing of TLS may end it all the same, or asks for itself, as a balancer does. One that speaks
        // the PROXY protocol has a word for it in version 2 only.
        let proxy = |proxies: &[Cidr]| {
            ctx.connection.is_introduced()
                || ctx.connection.is_from(proxies) && !parts.headers.contains_key("x-forwarded-proto")
        };
        if self.proxies.as_deref().is_some_and(proxy) {
            return Ok(());
        }
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if !reads || carries_key(parts) || (carries_credential(parts) && !is_navigation(parts)) {
            return Err(REQUIRED.refuse("a credential or a body over plain HTTP").into());
        }
        let port = self.port.map(|written| self.server.port("https").unwrap_or(written)).filter(|port| *port != 443);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = format!("https://{}{port}{path}", ctx.host());
        let location =
            HeaderValue::from_str(&target).map_err(|_| REQUIRED.refuse("the target cannot be written as a URL"))?;
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
        answer.headers_mut().insert(LOCATION, location);
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Err(Stop::Answer(Box::new(answer)))
    }
}

/// A credential that a browser does not send by itself: somebody's program did.
fn carries_key(parts: &request::Parts) -> bool {
    parts.headers.contains_key(AUTHORIZATION)
        || parts.headers.keys().any(|name| *name != COOKIE && redact::is_secret_name(name.as_str()))
}

/// A cookie, or a token in the query as it stands in links of mails.
fn carries_credential(parts: &request::Parts) -> bool {
    let in_query = |query: &str| matches!(redact::query(query), Cow::Owned(_));
    parts.headers.contains_key(COOKIE) || parts.uri.query().is_some_and(in_query)
}

/// Whether a browser shows what is answered. Over plain HTTP browsers send no `Sec-Fetch-Mode` (Fetch Metadata is for
/// trustworthy URLs, such as those of localhost), but say what they hope for.
fn is_navigation(parts: &request::Parts) -> bool {
    match Context::single(&parts.headers, "sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => {
            Context::single(&parts.headers, "upgrade-insecure-requests") == Some("1")
                || Context::single(&parts.headers, "accept").is_some_and(|accept| accept.starts_with("text/html"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[tokio::test]
    async fn browsers_are_redirected_and_programs_with_credentials_refused() {
        let policy = "[server]\nplaintext = false\nhosts = [\"api.example.com\"]\nhttps = \"127.0.0.1:8443\"";
        let app = Harness::new(policy, axum::Router::new()).plain();
        let host = ("host", "api.example.com");
        let page = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        type Case<'c> = (Method, &'c str, &'c [(&'c str, &'c str)], u16);
        let cases: &[Case<'_>] = &[
            (Method::GET, "/", &[], 308),
            (Method::HEAD, "/", &[], 308),
            (Method::GET, "/", &[page], 308),
            (Method::GET, "/", &[page, ("cookie", "a=1")], 308),
            (Method::GET, "/", &[("upgrade-insecure-requests", "1"), ("cookie", "a=1")], 308),
            (Method::GET, "/", &[("sec-fetch-mode", "navigate"), ("cookie", "a=1")], 308),
            (Method::GET, "/reset?token=abcdef", &[page], 308),
            (Method::GET, "/", &[("cookie", "a=1")], 403),
            (Method::GET, "/", &[("sec-fetch-mode", "cors"), page, ("cookie", "a=1")], 403),
            (Method::GET, "/?access_token=abcdef", &[], 403),
            (Method::GET, "/", &[("authorization", "Bearer x")], 403),
            (Method::GET, "/", &[page, ("authorization", "Basic eDp5")], 403),
            (Method::GET, "/", &[("x-api-key", "x")], 403),
            (Method::GET, "/", &[("x-auth-token", "x")], 403),
            (Method::POST, "/", &[page], 403),
            (Method::OPTIONS, "/", &[("origin", "https://a.example")], 403),
        ];
        for (method, target, headers, status) in cases {
            let headers = [&[host], *headers].concat();
            let answer = app.send(method.clone(), target, &headers, "").await;
            assert_eq!(answer.status(), *status, "{method} {target} {headers:?}");
            if *status == 308 {
                assert_eq!(answer.header("location"), format!("https://api.example.com:8443{target}"));
                assert_eq!(answer.header("cache-control"), "no-store");
            } else {
                assert_eq!(answer.refusal(), Some(&REQUIRED));
            }
        }
        let foreign = app.send(Method::GET, "/", &[("host", "evil.example"), page], "").await;
        assert_eq!((foreign.status(), foreign.header("location")), (421, ""));
    }

    #[tokio::test]
    async fn behind_a_proxy_that_ends_tls() {
        let policy = "[server]\nmode = \"production\"\nhosts = [\"api.example.com\"]\nhttps = \"off\"\n\
                      plaintext = true\ntrusted_proxies = [\"127.0.0.1\"]";
        let app = Harness::new(policy, axum::Router::new()).plain();
        let host = ("host", "api.example.com");
        type Case<'c> = (&'c str, Method, &'c [(&'c str, &'c str)], u16);
        let cases: &[Case<'_>] = &[
            ("127.0.0.1", Method::GET, &[("x-forwarded-proto", "https")], 404),
            ("127.0.0.1", Method::POST, &[("x-forwarded-proto", "https"), ("authorization", "Bearer x")], 404),
            // The balancer asks for itself.
            ("127.0.0.1", Method::GET, &[], 404),
            ("127.0.0.1", Method::GET, &[("x-forwarded-proto", "http")], 308),
            ("127.0.0.1", Method::GET, &[("x-forwarded-proto", "http"), ("authorization", "Bearer x")], 403),
            ("127.0.0.1", Method::POST, &[("x-forwarded-proto", "http")], 403),
            ("127.0.0.1", Method::GET, &[("x-forwarded-proto", "ws")], 308),
            ("127.0.0.1", Method::GET, &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")], 308),
            // Round the proxy, and whatever is said there.
            ("127.0.0.2", Method::GET, &[], 308),
            ("127.0.0.2", Method::GET, &[("x-forwarded-proto", "https")], 308),
            ("127.0.0.2", Method::GET, &[("x-forwarded-proto", "https"), ("authorization", "Bearer x")], 403),
        ];
        for (peer, method, headers, status) in cases {
            let app = app.clone().from(peer);
            let answer = app.send(method.clone(), "/x", &[&[host], *headers].concat(), "").await;
            assert_eq!(answer.status(), *status, "{peer} {method} {headers:?}");
            if *status == 308 {
                assert_eq!(answer.header("location"), "https://api.example.com/x");
            }
        }
    }
}
