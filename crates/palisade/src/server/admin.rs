//! The admin listener and the one for probes: health, readiness, status and metrics. Guide section 16.
//!
//! A page in a browser on this machine can send requests here, by a name that it has rebound to loopback or by a plain
//! cross-site request, and so can an application that is made to fetch an address. So: own names only, nothing that comes
//! from another site, no CORS, and a token for everything that says more than "I am here". Being on loopback is never a
//! credential. Both run on the control runtime, so that a busy API can still be asked how it is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use palisade_base::canonical_ip;
use palisade_identity::service::Origin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::request_id::RequestId;
use super::tls::certificates;
use super::{Phase, startup, state, status};
use crate::context::Context;
use crate::control::Mode;
use crate::controls::integrity;
use crate::endpoints::auth::answer::page_headers;
use crate::endpoints::auth::setup;
use crate::live::Handle;
use crate::observe::event::{self, Refused};
use crate::policy::config::Server;
use crate::refusal::{Code, problem_document};

/// Connections at once: people, a scraper, a few probes.
const CONNECTIONS: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(10);
/// A name, an address and a password of 8,192 characters, with all of them escaped.
const SETUP_BODY: usize = 128 * 1024;
/// No answer here takes long; a connection that lasts longer is one that does not read.
const CONNECTION: Duration = Duration::from_secs(300);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name is not one of the admin listener's.
pub static HOST: Code = Code::client(
    "admin.host",
    StatusCode::MISDIRECTED_REQUEST,
    16,
    "the admin listener answers to `localhost`, loopback addresses and `server.admin_hosts` only",
);
/// The request comes from a page of another site.
pub static CROSS_SITE: Code =
    Code::client("admin.cross_site", StatusCode::FORBIDDEN, 16, "requests from other sites are not answered here");
/// The token is missing or wrong.
pub static TOKEN: Code = Code::client(
    "admin.token",
    StatusCode::UNAUTHORIZED,
    16,
    "present the token of `server.admin_token` as `Authorization: Bearer …`",
)
.owasp("authn_login_fail");
/// There is no token that could be presented.
pub static NO_TOKEN: Code = Code::client(
    "admin.no_token",
    StatusCode::UNAUTHORIZED,
    16,
    "nobody may read this before `server.admin_token` names a secret, such as `admin_token = { secret = \"admin-token\" }`",
)
.owasp("authn_login_fail");
/// Nothing is changed here.
pub static METHOD: Code =
    Code::client("admin.method", StatusCode::METHOD_NOT_ALLOWED, 16, "this is answered to GET and HEAD only");
/// Nothing is here.
pub static NOT_FOUND: Code = Code::client(
    "admin.not_found",
    StatusCode::NOT_FOUND,
    16,
    "there are `/health`, `/ready`, `/status` and `/metrics`",
);

/// The form of the setup link did not arrive whole.
pub static SETUP: Code =
    Code::client("admin.setup", StatusCode::BAD_REQUEST, 16, "send the form of the setup page whole, and within 10 s");

/// Every code of the admin listener.
pub static CODES: &[&Code] = &[&HOST, &CROSS_SITE, &TOKEN, &NO_TOKEN, &METHOD, &NOT_FOUND, &SETUP];

/// Which of the two listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// HTTPS, own names, token.
    Admin,
    /// Plain HTTP on a network of the operator's own: kubelet and Prometheus ask by address, without a token.
    Probes,
}

/// Accepts until the server has ended: while it drains, somebody may want to know how far it is.
pub(super) async fn serve(listener: TcpListener, door: Door, handle: Arc<Handle>) {
    let server = state(handle.live().policy.env());
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let ended = server.reached(Phase::Ended);
    tokio::pin!(ended);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut ended => return,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let live = handle.live();
        if door == Door::Admin && !startup::may_reach_admin(&live.policy.config().server, peer.ip()) {
            event::CONNECTION
                .line(handle.log())
                .show("peer", canonical_ip(peer.ip()))
                .str("reason", "not in `server.admin_address`");
            continue;
        }
        // Beyond the limit a connection is dropped: probes come again.
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let handle = Arc::clone(&handle);
        tokio::spawn(async move {
            let _permit = permit;
            let _ = tokio::time::timeout(CONNECTION, connection(stream, peer, door, handle)).await;
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, door: Door, handle: Arc<Handle>) {
    if door == Door::Probes {
        return requests(stream, peer, door, handle).await;
    }
    let Some(config) = certificates(handle.live().policy.env()).admin() else { return };
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, accept).await {
        requests(stream, peer, door, handle).await;
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    door: Door,
    handle: Arc<Handle>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let handle = Arc::clone(&handle);
        async move { Ok::<_, Infallible>(answer(&handle, door, peer, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ends is the client's business.
    let _ = served.await;
}

async fn answer(
    handle: &Arc<Handle>,
    door: Door,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let mut answer = match judge(handle, door, &mut parts) {
        Err(code) => refused(handle, code, peer),
        Ok(Place::Setup) => set_up(handle, &parts, body, peer).await.unwrap_or_else(|code| refused(handle, code, peer)),
        Ok(Place::Said(said)) => {
            let openmetrics = accepts_openmetrics(&parts.headers);
            say(handle, door, said, openmetrics).await
        }
    };
    if head {
        *answer.body_mut() = Full::default();
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Said(Said),
    /// Where the first administrator is made, by a link that is a credential of its own.
    Setup,
}

/// What takes nothing but a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Health,
    Ready,
    Status,
    Metrics,
    SetupStyle,
}

/// What is served behind each door.
static PLACES: &[(Door, &str, Place)] = &[
    (Door::Admin, "/health", Place::Said(Said::Health)),
    (Door::Admin, "/ready", Place::Said(Said::Ready)),
    (Door::Admin, "/status", Place::Said(Said::Status)),
    (Door::Admin, "/metrics", Place::Said(Said::Metrics)),
    (Door::Admin, setup::PATH, Place::Setup),
    (Door::Admin, setup::STYLE_PATH, Place::Said(Said::SetupStyle)),
    (Door::Probes, "/health", Place::Said(Said::Health)),
    (Door::Probes, "/ready", Place::Said(Said::Ready)),
    (Door::Probes, "/metrics", Place::Said(Said::Metrics)),
];

/// Every place by its door and path, for tests that try them all.
#[cfg(test)]
pub(crate) fn places() -> impl Iterator<Item = (Door, &'static str)> {
    PLACES.iter().map(|(door, path, _)| (*door, *path))
}

/// Why a request for one of them is refused.
#[cfg(test)]
pub(crate) fn refusal(handle: &Handle, door: Door, parts: &mut request::Parts) -> Option<&'static Code> {
    judge(handle, door, parts).err()
}

/// Which place a request asks for, if it may.
fn judge(handle: &Handle, door: Door, parts: &mut request::Parts) -> Result<Place, &'static Code> {
    let live = handle.live();
    let server = &live.policy.config().server;
    if door == Door::Admin {
        check_names(server, parts)?;
    }
    let asked = (door, parts.uri.path());
    let Some((.., place)) = PLACES.iter().find(|(door, path, _)| (*door, *path) == asked) else {
        return Err(&NOT_FOUND);
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) && (*place != Place::Setup || parts.method != Method::POST) {
        return Err(&METHOD);
    }
    if door == Door::Admin && !matches!(place, Place::Setup | Place::Said(Said::Health | Said::SetupStyle)) {
        let Some(named) = &server.admin_token else { return Err(&NO_TOKEN) };
        // Asked for on every request, so that a token that was replaced holds no longer.
        let token = live.policy.env().secrets.get(&named.secret).map_err(|_| &TOKEN)?;
        if !bearer(&parts.headers).is_some_and(|given| token.matches(given)) {
            return Err(&TOKEN);
        }
    }
    Ok(*place)
}

/// Own names only, and nothing that a page of another site caused.
fn check_names(server: &Server, parts: &mut request::Parts) -> Result<(), &'static Code> {
    let host = integrity::host::host(parts).map_err(|_| &HOST)?;
    if !is_own(server, &host) {
        return Err(&HOST);
    }
    // `none`: typed into the address bar. `same-site` is another port or a name below, so another application.
    let site = parts.headers.get_all(SEC_FETCH_SITE).iter();
    if site.into_iter().any(|site| site != "same-origin" && site != "none") {
        return Err(&CROSS_SITE);
    }
    for origin in parts.headers.get_all(ORIGIN) {
        let own = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let origin = origin.to_str().unwrap_or_default();
        if !origin.strip_prefix("https://").is_some_and(|origin| origin.eq_ignore_ascii_case(own)) {
            return Err(&CROSS_SITE);
        }
    }
    Ok(())
}

fn is_own(server: &Server, host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || server.admin_hosts.iter().any(|pattern| pattern.matches(host))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.into_iter().any(|accept| accept.contains("application/openmetrics-text"))
}

async fn say(handle: &Arc<Handle>, door: Door, said: Said, openmetrics: bool) -> Response<Full<Bytes>> {
    let not_ready = || state(handle.live().policy.env()).not_ready();
    match said {
        Said::Health => text(StatusCode::OK, PLAIN, "ok"),
        Said::Ready => match not_ready() {
            None => text(StatusCode::OK, PLAIN, "ready"),
            Some(why) if door == Door::Admin => {
                text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {why}"))
            }
            Some(_) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ready"),
        },
        Said::Status => text(StatusCode::OK, "application/json", status::status(handle).await.to_string()),
        Said::Metrics => {
            status::observe(handle);
            let kind = if openmetrics { OPENMETRICS } else { PROMETHEUS };
            text(StatusCode::OK, kind, handle.metrics().text(openmetrics))
        }
        Said::SetupStyle => text(StatusCode::OK, "text/css; charset=utf-8", setup::STYLE),
    }
}

/// The page of the setup link, and what its form sends.
async fn set_up(
    handle: &Handle,
    parts: &request::Parts,
    body: Incoming,
    peer: SocketAddr,
) -> Result<Response<Full<Bytes>>, &'static Code> {
    let policy = Arc::clone(&handle.live().policy);
    let shown = if parts.method == Method::POST {
        let body = tokio::time::timeout(HEAD, Limited::new(body, SETUP_BODY).collect()).await;
        let Ok(Ok(body)) = body else { return Err(&SETUP) };
        let mut origin = Origin::new(canonical_ip(peer.ip()));
        origin.agent = Context::single(&parts.headers, "user-agent").unwrap_or_default().into();
        setup::make(&policy, &body.to_bytes(), &origin).await
    } else {
        setup::show(&policy, parts.uri.query().unwrap_or_default().as_bytes()).await
    };
    let shown = shown.map_err(|code| code.unwrap_or(&NOT_FOUND))?;
    let mut answer = text(shown.status, "text/html; charset=utf-8", shown.html);
    page_headers(answer.headers_mut(), None);
    Ok(answer)
}

const PLAIN: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn refused(handle: &Handle, code: &'static Code, peer: SocketAddr) -> Response<Full<Bytes>> {
    let id = RequestId::new(handle.live().policy.clock().now());
    let refused = Refused {
        code,
        control: "admin",
        mode: Mode::Block,
        policy: None,
        request_id: Some(id.as_str()),
        client: &canonical_ip(peer.ip()).to_string(),
        why: code.sentence,
        fields: &[],
    };
    refused.tell(handle.metrics(), handle.log());
    let mut answer = text(code.status, "application/problem+json", problem_document(code, code.status, id.as_str()));
    let headers = answer.headers_mut();
    match code.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"palisade\""))
        }
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
        _ => None,
    };
    answer
}
