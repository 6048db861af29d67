//! WebSockets of a router in this process.
//!
//! The handshake is asked over a connection in memory, so that the tunnel is one like any other: it counts as a connection,
//! ends with a drain, and with the rights of whoever opened it (threats 38).

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
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
use crate::context::Context;
use crate::controls::integrity;
use crate::refusal::Refusal;

/// What lies between the two sides at most, in each direction.
const BUFFER: usize = 64 * 1024;

/// Passes a handshake to a router, and what follows both ways.
pub(crate) async fn websocket(
    router: &axum::Router,
    ctx: &Arc<Context>,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
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
            let mut answer = answer.map(ResponseBody::boxed);
            integrity::strip_answer(answer.headers_mut());
            Ok(answer)
        }
        Outcome::Upgraded(theirs) => upgraded(&Tunnels::of(&ctx.policy.env().state), upgrade, theirs, ctx),
    }
}
