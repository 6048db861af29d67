//! A policy round a small router, for the unit tests of controls: the whole stack, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use palisade_base::Clock;
use palisade_policy::Sources;

use crate::body::RequestBody;
use crate::context::Connection;
use crate::live::{Handle, Target};
use crate::policy::Situation;

/// A running stack.
pub(crate) struct App {
    pub(crate) handle: Arc<Handle>,
    pub(crate) clock: Clock,
    _dir: tempfile::TempDir,
    file: std::path::PathBuf,
}

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The code of a refusal, from its problem document.
    pub(crate) fn code(&self) -> Option<String> {
        let document: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        Some(document.get("code")?.as_str()?.to_owned())
    }

    /// The values of a header, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// An application with CORS headers of its own, an echo, and a handler that fails.
fn router() -> Router {
    async fn own_cors() -> Response<axum::body::Body> {
        let mut answer = Response::new("app".into());
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "X-App"),
            ("vary", "Accept-Encoding"),
        ] {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
    /// A page with two forms, which says what token it was told.
    async fn page(uri: axum::http::Uri, headers: HeaderMap) -> Response<axum::body::Body> {
        let forms = "<form method=post action=/echo></form><form method=post action=//evil.example></form>";
        let mut answer = Response::new(forms.into());
        let kind = if uri.query() == Some("charset=latin1") { "text/html" } else { "text/html; charset=utf-8" };
        answer.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        if let Some(token) = headers.get("x-csrf-token") {
            answer.headers_mut().insert("x-seen-token", token.clone());
        }
        answer
    }
    Router::new()
        .route(
            "/panic",
            any(|| async {
                if true {
                    panic!("on purpose")
                }
            }),
        )
        .route("/echo", any(|body: Bytes| async move { body }))
        .route("/ignore", any(|| async { "not read" }))
        .route("/page", any(page))
        .fallback(own_cors)
        // What is too large is the policy's to say here.
        .layer(axum::extract::DefaultBodyLimit::disable())
}

impl App {
    /// Starts a stack; `hosts` and logs are set, the rest is the policy's.
    pub(crate) fn start(policy: &str) -> Self {
        Self::with(policy, Situation::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a stack under the starter policy, as `palisade serve` does without a file.
    pub(crate) fn starter() -> Self {
        let starter = Self::text(crate::policy::STARTER);
        let sources = |_: &std::path::Path| Sources::new().builtin(crate::policy::STARTER_NAME, starter);
        Self::of(sources, Situation::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The problems of a policy, rendered; warnings too.
    pub(crate) fn problems(policy: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("palisade.toml");
        std::fs::write(&file, Self::text(policy)).unwrap();
        match crate::live::check(&Sources::new().file(&file)) {
            Ok((_, problems)) | Err(problems) => problems.render(false),
        }
    }

    pub(crate) fn with(policy: &str, situation: Situation) -> crate::Result<Self> {
        let text = Self::text(policy);
        let sources = |file: &std::path::Path| {
            std::fs::write(file, text).unwrap();
            Sources::new().file(file)
        };
        Self::of(sources, situation)
    }

    fn of(sources: impl FnOnce(&std::path::Path) -> Sources, situation: Situation) -> crate::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("palisade.toml");
        let clock = Clock::adjustable();
        let (handle, _) = Handle::start(sources(&file), Target::Router(router()), situation, clock.clone())?;
        Ok(Self { handle, clock, _dir: dir, file })
    }

    fn text(policy: &str) -> String {
        let server = if policy.contains("[server]") { "" } else { "[server]\nmode = \"development\"\n" };
        let security = if policy.contains("[log]") { "" } else { "[log]\naccess = \"off\"\nsecurity = \"off\"\n" };
        format!("{server}{security}{policy}")
    }

    /// Puts another policy in force.
    pub(crate) fn reload(&self, policy: &str) {
        std::fs::write(&self.file, Self::text(policy)).unwrap();
        self.handle.reload().unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    }

    pub(crate) async fn send(&self, peer: &str, request: Request<axum::body::Body>) -> Answer {
        let live = self.handle.live();
        let address = SocketAddr::new(peer.parse().unwrap(), 4242);
        let connection = Arc::new(Connection::embedded(address));
        let answer = live.serve(&connection, request.map(RequestBody::axum)).await;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Sends a request without a body.
    pub(crate) async fn ask(&self, peer: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(peer, request(method, path, headers, axum::body::Body::empty())).await
    }

    pub(crate) async fn get(&self, peer: &str, path: &str) -> Answer {
        self.ask(peer, "GET", path, &[]).await
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// A request for `localhost`.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: axum::body::Body,
) -> Request<axum::body::Body> {
    let host = if headers.iter().any(|(name, _)| *name == "host") { None } else { Some(("host", "localhost")) };
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers.iter().copied().chain(host) {
        request = request.header(name, value);
    }
    request.body(body).unwrap()
}

#[tokio::test]
async fn the_router_answers_through_the_stack() {
    let app = App::start("");
    let answer = app.get("203.0.113.1", "/").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK.as_u16(), "app"));
}
