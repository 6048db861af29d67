//! WebSockets: once the application has agreed, bytes pass both ways until one side ends.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use palisade_h1::client::Upgraded;
use tokio::io::split;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::Io;
use super::pipe::Pipe;
use crate::body::ResponseBody;
use crate::context::Context;
use crate::controls::auth::streams;
use crate::policy::State;
use crate::server::admission::Admitted;

/// Close code and reason (RFC 6455 section 7.4.1) for whoever may not go on.
const NO_LONGER: (u16, &str) = (1008, "no longer allowed");
/// How long the frame that is under way may take to its end.
const LAST_FRAME: Duration = Duration::from_millis(500);
/// How long one side may go on once the other has ended: a close that nobody answers must not keep the place.
const OTHER_SIDE: Duration = Duration::from_secs(10);
/// How long a client has to read that it is over.
const LINGER: Duration = Duration::from_secs(1);

/// The open tunnels of a server: counted, and ended when it has drained.
#[derive(Debug)]
pub(crate) struct Tunnels {
    open: AtomicUsize,
    end: watch::Sender<bool>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { open: AtomicUsize::new(0), end: watch::channel(false).0 }
    }
}

impl Tunnels {
    /// Those of a server.
    pub(crate) fn of(state: &State) -> Arc<Self> {
        state.get("tunnels", Self::default)
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends all, now and in future.
    pub(crate) fn end(&self) {
        self.end.send_replace(true);
    }

    /// Answers 101 and joins both sides once the client's connection is free.
    pub(super) fn open(
        self: &Arc<Self>,
        client: OnUpgrade,
        upstream: Upgraded<Io>,
        ctx: &Arc<Context>,
    ) -> Response<ResponseBody> {
        let (head, ()) = upstream.head.into_parts();
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = head.headers;
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        self.open.fetch_add(1, Ordering::Relaxed);
        let open =
            Open { tunnels: Arc::clone(self), ctx: Arc::clone(ctx), _admitted: ctx.connection.admitted.upgrade() };
        tokio::spawn(async move {
            if let Ok(client) = client.await {
                // How a tunnel ended is between its two sides.
                let _ = open.join(TokioIo::new(client), upstream.io, upstream.leftover).await;
            }
        });
        answer
    }
}

/// One open tunnel.
struct Open {
    tunnels: Arc<Tunnels>,
    ctx: Arc<Context>,
    /// It counts as a connection until it ends.
    _admitted: Option<Arc<Admitted>>,
}

impl Open {
    async fn join(
        &self,
        client: TokioIo<hyper::upgrade::Upgraded>,
        upstream: Io,
        leftover: bytes::Bytes,
    ) -> io::Result<()> {
        let mut end = self.tunnels.end.subscribe();
        let ((mut from_client, mut to_client), (mut from_app, mut to_app)) = (split(client), split(upstream));
        let (mut down, mut up) = (Pipe::new(&leftover), Pipe::new(&[]));
        // Threats 38: it ends with the rights of whoever opened it.
        let ended = streams::ended(&self.ctx);
        let both = async {
            let (down, up) = (down.run(&mut from_app, &mut to_client), up.run(&mut from_client, &mut to_app));
            let (mut down, mut up) = (pin!(down), pin!(up));
            tokio::select! {
                ended = &mut down => rest(ended, up).await,
                ended = &mut up => rest(ended, down).await,
            }
        };
        tokio::select! {
            () = ended => {}
            copied = both => return copied,
            _ = end.wait_for(|end| *end) => return Ok(()),
        }
        // Both sides are told, each behind the frame that it is getting just now.
        let mask = rand::random();
        let tell_client = timeout(LAST_FRAME, down.close(&mut from_app, &mut to_client, NO_LONGER, None));
        let tell_app = timeout(LAST_FRAME, up.close(&mut from_client, &mut to_app, NO_LONGER, Some(mask)));
        let _ = tokio::join!(tell_client, tell_app);
        // Bytes that nobody reads would have the system cut the connection off, and the client would not read why.
        let _ = timeout(LINGER, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
        Ok(())
    }
}

/// What is left once one side has ended. The other one has read the end by then, or is gone without a word.
async fn rest(ended: io::Result<()>, other: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    ended?;
    timeout(OTHER_SIDE, other).await.unwrap_or(Ok(()))
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tunnels.open.fetch_sub(1, Ordering::Relaxed);
    }
}
