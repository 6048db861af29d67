//! WebSockets: once the application has agreed, bytes pass both ways until one side ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use palisade_h1::client::Upgraded;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::connect::Io;
use crate::body::ResponseBody;
use crate::context::Context;
use crate::controls::auth::streams;

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
        let open = Open { tunnels: Arc::clone(self), ctx: Arc::clone(ctx) };
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
}

impl Open {
    async fn join(
        &self,
        mut client: TokioIo<hyper::upgrade::Upgraded>,
        mut upstream: Io,
        leftover: bytes::Bytes,
    ) -> io::Result<()> {
        let mut end = self.tunnels.end.subscribe();
        if !leftover.is_empty() {
            client.write_all(&leftover).await?;
        }
        // Threats 38: it ends with the rights of whoever opened it.
        let ended = streams::ended(&self.ctx).unwrap_or_else(|| Box::pin(std::future::pending()));
        tokio::select! {
            () = ended => Ok(()),
            copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => copied.map(drop),
            _ = end.wait_for(|end| *end) => Ok(()),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tunnels.open.fetch_sub(1, Ordering::Relaxed);
    }
}
