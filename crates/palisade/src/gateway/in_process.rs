//! Inner service two: a router in this process.
//!
//! What it answers by itself where an application has no fallback, a status and nothing else, gets the body that refusals
//! have (guide section 13).
//!
//! The handshake of a WebSocket is asked over a connection in memory, so that the tunnel is one like any other: it counts
//! as a connection, ends with a drain, and with the rights of whoever opened it (threats 38).

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use palisade_h1::client::{Connection, Outcome};
use parking_lot::Mutex;
use tower::ServiceExt as _;

use super::connect::{Io, Stream};
use super::{Tunnels, forward, refusal, upgraded};
use crate::body::{RequestBody, ResponseBody};
use crate::context::{Context, Seen};
use crate::controls::integrity;
use crate::refusal::{Code, Refusal};

/// No route of the router takes the path.
pub(crate) static NOT_FOUND: Code =
    Code::client("router.not_found", StatusCode::NOT_FOUND, 13, "nothing is served under this path");
/// The route that takes the path does not take the method.
pub(crate) static METHOD: Code =
    Code::client("router.method", StatusCode::METHOD_NOT_ALLOWED, 13, "this path does not answer to this method");

/// What lies between the two sides at most, in each direction.
const BUFFER: usize = 64 * 1024;

/// Passes a request to a router.
pub(crate) async fn ask(
    router: &axum::Router,
    ctx: &Arc<Context>,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let mut request = request.map(RequestBody::into_axum);
    let accept = accept(ctx, &request);
    forward::forwarded_headers(ctx, request.headers_mut());
    request.extensions_mut().insert(Arc::clone(ctx));
    match router.clone().oneshot(request).await {
        Ok(mut answer) => {
            // A handler's own refusal: rendered as any other.
            if let Some(refusal) = answer.extensions_mut().remove::<Refusal>() {
                return Err(refusal);
            }
            integrity::strip_answer(answer.headers_mut());
            Ok(finished(ctx, accept.as_ref(), answer))
        }
        Err(never) => match never {},
    }
}

/// What the client would rather read; looked for only where it was said.
fn accept<B>(ctx: &Context, request: &Request<B>) -> Option<HeaderValue> {
    if ctx.seen.any(Seen::ACCEPT) { request.headers().get(ACCEPT).cloned() } else { None }
}

/// The answer of a router, with a body where it has nothing but a status.
fn finished<B>(ctx: &Context, accept: Option<&HeaderValue>, answer: Response<B>) -> Response<ResponseBody>
where
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::body::BodyError>,
{
    let Some(code) = bare(&answer) else { return answer.map(ResponseBody::boxed) };
    // No refusal of ours, so that log and metrics count it as the application's answer, as behind a gateway.
    let mut whole = code.refuse("an answer without a body").render(ctx, accept);
    // What its layers said stays, and `Allow` (RFC 9110 §15.5.6).
    let ours = std::mem::replace(whole.headers_mut(), answer.into_parts().0.headers);
    let headers = whole.headers_mut();
    headers.remove(CONTENT_LENGTH);
    for (name, value) in &ours {
        headers.insert(name, value.clone());
    }
    whole
}

/// What an answer says that is a status and nothing else. From outside nobody can tell axum's own from that of a handler or
/// a fallback that returns no more than the status: these lose nothing by it.
fn bare<B: Body>(answer: &Response<B>) -> Option<&'static Code> {
    let code = match answer.status() {
        StatusCode::NOT_FOUND => &NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED => &METHOD,
        _ => return None,
    };
    let typed = [CONTENT_TYPE, CONTENT_ENCODING].iter().any(|name| answer.headers().contains_key(name));
    (!typed && answer.body().is_end_stream()).then_some(code)
}

/// Passes a handshake to a router, and what follows both ways.
pub(crate) async fn websocket(
    router: &axum::Router,
    ctx: &Arc<Context>,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let accept = accept(ctx, &request);
    forward::forwarded_headers(ctx, request.headers_mut());
    let mut outer = request.extensions().clone();
    // The client's connection is joined to the router's own, which the server below puts there.
    outer.remove::<OnUpgrade>();
    outer.insert(Arc::clone(ctx));
    let upgrade = forward::prepare(&mut request);
    let refused: Arc<Mutex<Option<Refusal>>> = Arc::default();
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let service = {
        let (router, refused) = (router.clone(), Arc::clone(&refused));
        service_fn(move |mut inner: Request<Incoming>| {
            inner.extensions_mut().extend(outer.clone());
            let (router, refused) = (router.clone(), Arc::clone(&refused));
            async move {
                let mut answer = router.oneshot(inner.map(axum::body::Body::new)).await?;
                *refused.lock() = answer.extensions_mut().remove::<Refusal>();
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service).with_upgrades();
    // Ends with the other side, which is dropped with this request or with its tunnel.
    tokio::spawn(async move { drop(served.await) });
    let sent = Connection::new(Io::from(Stream::Memory(ours))).send(request, None, |_: Connection<Io>| {}).await;
    let outcome = sent.map_err(|failure| refusal(&failure.error))?;
    if let Some(refusal) = refused.lock().take() {
        return Err(refusal);
    }
    match outcome {
        Outcome::Response(answer) => {
            let mut answer = answer;
            integrity::strip_answer(answer.headers_mut());
            Ok(finished(ctx, accept.as_ref(), answer))
        }
        Outcome::Upgraded(theirs) => upgraded(&Tunnels::of(&ctx.policy.env().state), upgrade, theirs, ctx),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::{Html, IntoResponse as _};
    use axum::routing::get;
    use http::Method;

    use super::*;
    use crate::testing::{Answer, Harness};

    /// The code that a problem document says.
    fn code(answer: &Answer) -> String {
        let document: serde_json::Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }

    fn with_layer() -> Router {
        async fn mark(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
            let mut answer = next.run(request).await;
            answer.headers_mut().append("set-cookie", HeaderValue::from_static("a=1"));
            answer.headers_mut().append("set-cookie", HeaderValue::from_static("b=2"));
            answer
        }
        Router::new()
            .route("/notes", get(|| async { "notes" }).post(|| async { "made" }))
            .route("/bare", get(|| async { StatusCode::NOT_FOUND }))
            .route("/gone", get(|| async { StatusCode::GONE }))
            .route("/said", get(|| async { (StatusCode::NOT_FOUND, "no such note") }))
            .layer(axum::middleware::from_fn(mark))
    }

    #[tokio::test]
    async fn a_router_without_fallbacks_answers_with_problem_documents() {
        let app = Harness::new("", with_layer());
        for (method, path, status, said) in [
            (Method::GET, "/nothing", 404, "router.not_found"),
            (Method::POST, "/nothing", 404, "router.not_found"),
            (Method::DELETE, "/notes", 405, "router.method"),
            (Method::GET, "/bare", 404, "router.not_found"),
        ] {
            let answer = app.send(method.clone(), path, &[("accept", "application/json")], "").await;
            assert_eq!((answer.status(), code(&answer).as_str()), (status, said), "{method} {path}");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
            assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
            assert!(answer.text().contains(answer.header("x-request-id")), "{method} {path}");
            assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2, "what a layer said stays");
            assert_eq!(answer.refusal(), None, "the application's answer, not a refusal");
            let length = answer.header("content-length");
            assert!(length.is_empty() || length == answer.text().len().to_string(), "{method} {path}: {length}");
        }
        let allow = app.send(Method::DELETE, "/notes", &[], "").await.header("allow").to_owned();
        assert!(["GET", "HEAD", "POST"].iter().all(|method| allow.contains(method)), "{allow}");
        let (_, refused, would_refuse) = app.handle().live().policy.decisions().counts();
        assert_eq!((refused, would_refuse), (0, 0));
    }

    #[tokio::test]
    async fn a_browser_gets_a_page() {
        let app = Harness::new("", with_layer());
        let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
        for (method, path, status, title) in [
            (Method::GET, "/nothing", 404, "<h1>Not Found</h1>"),
            (Method::DELETE, "/notes", 405, "<h1>Method Not Allowed</h1>"),
        ] {
            let answer = app.send(method, path, &browser, "").await;
            assert_eq!((answer.status(), answer.header("content-type")), (status, "text/html; charset=utf-8"));
            assert!(answer.text().contains(title), "{}", answer.text());
        }
    }

    #[tokio::test]
    async fn what_an_application_says_itself_is_left_alone() {
        let said = |status, text: &'static str| async move { (status, Html(text)).into_response() };
        let router = with_layer()
            .fallback(move || said(StatusCode::NOT_FOUND, "<p>lost</p>"))
            .method_not_allowed_fallback(move || said(StatusCode::METHOD_NOT_ALLOWED, "<p>not so</p>"));
        let app = Harness::new("", router);
        for (method, path, status, text) in [
            (Method::GET, "/nothing", 404, "<p>lost</p>"),
            (Method::DELETE, "/notes", 405, "<p>not so</p>"),
            (Method::GET, "/said", 404, "no such note"),
            (Method::GET, "/gone", 410, ""),
        ] {
            let answer = app.send(method, path, &[], "").await;
            assert_eq!((answer.status(), answer.text().as_str()), (status, text), "{path}");
        }
    }
}
