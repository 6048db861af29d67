//! Inner service two: the stack round a router of the same process.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};

use crate::body::RequestBody;
use crate::context::Connection;
use crate::live::Handle;

/// The state of a router under Palisade: what its handlers may ask of the stack.
///
/// A router of type `Router<palisade::State>` can only be served through [`Palisade`](crate::Palisade), so a handler
/// that relies on the stack cannot end up without it.
#[derive(Debug, Clone)]
pub struct State {
    handle: Arc<OnceLock<Weak<Handle>>>,
}

impl State {
    /// A state that is tied to nothing yet. Nobody else can make one: who has it was protected.
    pub(crate) fn new() -> Self {
        Self { handle: Arc::default() }
    }

    /// Ties the state to its server, once.
    pub(crate) fn bind(&self, handle: &Arc<Handle>) {
        let _ = self.handle.set(Arc::downgrade(handle));
    }

    /// The server's policy and logs; none before it has started and after it has ended.
    pub fn handle(&self) -> Option<Arc<Handle>> {
        self.handle.get().and_then(Weak::upgrade)
    }
}

/// A router with the stack round it, as a service for any server that speaks `tower`, such as `axum::serve`.
///
/// The peer's address is taken from axum's `ConnectInfo<SocketAddr>`; without it every client counts as `0.0.0.0`, so
/// serve it with `into_make_service_with_connect_info::<SocketAddr>()`.
#[derive(Debug, Clone)]
pub struct Protected {
    handle: Arc<Handle>,
}

impl Protected {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// The policy in force.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// As a router, for `axum::serve` and for mounting beside others.
    pub fn into_router(self) -> axum::Router {
        axum::Router::new().fallback_service(self)
    }
}

impl tower::Service<Request<Body>> for Protected {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(unknown, |info| info.0);
            let connection = Arc::new(Connection::embedded(peer));
            let answer = handle.live().serve(&connection, request.map(RequestBody::axum)).await;
            Ok(answer.map(Body::new))
        })
    }
}
