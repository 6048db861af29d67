//! For tests of controls and of applications: a stack in this process, with a clock that can be turned.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use palisade::testing::Harness;
//!
//! let app = Harness::policy("[limits]\nurl_bytes = \"32B\"");
//! assert_eq!(app.get("/notes").await.status(), 200);
//! let refused = app.get(&format!("/{}", "a".repeat(40))).await;
//! assert_eq!(refused.refusal(), Some(&palisade::controls::limits::URL));
//! # });
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use palisade_base::Clock;
use palisade_policy::Sources;

use crate::body::RequestBody;
use crate::context::{Connection, Listener, Tls};
use crate::live::{Handle, Target};
use crate::policy::Situation;
use crate::refusal::Code;
use crate::stack::RefusedWith;

/// A stack in this process, in development mode, round a router.
#[derive(Debug, Clone)]
pub struct Harness {
    handle: Arc<Handle>,
    clock: Clock,
    peer: SocketAddr,
    secure: bool,
}

impl Harness {
    /// A stack under this policy, round a router that answers 200 to everything.
    ///
    /// # Panics
    /// When the policy is not in order, with its problems.
    pub fn policy(text: &str) -> Self {
        Self::new(text, Router::new().fallback(|| async { "ok" }))
    }

    /// A stack under this policy, round a router.
    ///
    /// # Panics
    /// When the policy is not in order, with its problems.
    pub fn new(text: &str, router: Router) -> Self {
        Self::start(text, router, Situation::default())
    }

    /// A stack under this policy, round a router whose handlers take what the stack knows ([`crate::extract`]).
    ///
    /// # Panics
    /// When the policy is not in order, with its problems.
    pub fn app(text: &str, router: Router<crate::State>) -> Self {
        let state = crate::State::new();
        let app = Self::new(text, router.with_state(state.clone()));
        state.bind(&app.handle);
        app
    }

    /// The same with `--detect`.
    ///
    /// # Panics
    /// When the policy is not in order, with its problems.
    pub fn detect(text: &str, router: Router) -> Self {
        Self::start(text, router, Situation { detect: true, ..Situation::default() })
    }

    fn start(text: &str, router: Router, situation: Situation) -> Self {
        let clock = Clock::adjustable();
        let sources = Sources::new().builtin("test", layered(text));
        let started = Handle::start(sources, Target::Router(router), situation, clock.clone());
        let (handle, _) = started.unwrap_or_else(|error| panic!("the policy of this test is not in order:\n{error}"));
        Self { handle, clock, peer: SocketAddr::from(([192, 0, 2, 7], 50_000)), secure: true }
    }

    /// Requests come from this address.
    pub fn from(mut self, peer: &str) -> Self {
        self.peer = SocketAddr::new(peer.parse().unwrap_or(self.peer.ip()), 50_000);
        self
    }

    /// Requests come over plain HTTP.
    pub fn plain(mut self) -> Self {
        self.secure = false;
        self
    }

    /// The clock of this stack.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The policy in force.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Sends a GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], Bytes::new()).await
    }

    /// Sends a request with headers and a body; `Host` is `localhost` unless it is among the headers.
    ///
    /// # Panics
    /// When the parts do not make a request.
    pub async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(HOST, "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.into();
        if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            request = request.header("content-length", body.len());
        }
        let request = request.body(RequestBody::axum(Body::from(body))).expect("a request in the test");
        let tls = self.secure.then_some(Tls { server_name: None, version: "TLSv1.3" });
        let listener = if self.secure { Listener::Https } else { Listener::Http };
        let local = SocketAddr::from(([127, 0, 0, 1], 443));
        let connection = Arc::new(Connection::new(self.peer, local, tls, listener));
        let answer = self.handle.live().serve(&connection, request).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Answer(Response::from_parts(parts, body))
    }
}

/// Puts the development defaults under a text without naming a section twice.
fn layered(text: &str) -> String {
    let mut out = String::from(text);
    for (section, lines) in
        [("[server]", "mode = \"development\"\n"), ("[log]", "access = \"off\"\nsecurity = \"off\"\n")]
    {
        match out.find(section) {
            Some(_) if section == "[server]" && out.contains("mode = \"production\"") => {}
            Some(place) => out.insert_str(place + section.len(), &format!("\n{lines}")),
            None => out = format!("{out}\n{section}\n{lines}"),
        }
    }
    out
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer(Response<Bytes>);

impl Answer {
    /// Its status, as a number.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Whether its status is 2xx.
    pub fn is_success(&self) -> bool {
        StatusCode::is_success(&self.0.status())
    }

    /// Why it was refused, where it was.
    pub fn refusal(&self) -> Option<&'static Code> {
        self.0.extensions().get::<RefusedWith>().map(|refused| refused.0)
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.0.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.0.body()).into_owned()
    }
}
