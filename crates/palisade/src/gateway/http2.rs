//! Exchanges over HTTP/2, for gRPC: connections that many requests share, and what flows through them.
//!
//! Without TLS the application must know beforehand (prior knowledge, RFC 9113 §3.3), with TLS it is agreed on (ALPN).

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::connect::Io;
use crate::body::{BodyError, RequestBody};
use crate::context::Context;
use crate::controls::integrity;
use crate::grpc;
use crate::server::seats::Seat;
use crate::shard;

const SHARDS: usize = 64;
/// Requests at once on one connection, where the application allows as many.
const STREAMS: u32 = 100;
/// Connections that a shard shares out; further ones serve the request that they were made for.
const CONNECTIONS: usize = 16;
/// What the application may send of one answer before the client has taken it, in bytes.
const WINDOW: u32 = 64 * 1024;
/// What may wait to be written of one request, in bytes.
const UNWRITTEN: usize = 64 * 1024;
/// As of the server: what a head may be at most.
const HEAD_BYTES: u32 = 64 * 1024;

type Sender = SendRequest<Upload>;

/// Connections to one application that requests share, kept apart for each thread as those of HTTP/1.1 are.
#[derive(Debug)]
pub(super) struct Shared {
    shards: [Mutex<Vec<Open>>; SHARDS],
    idle_millis: AtomicU64,
}

#[derive(Debug)]
struct Open {
    sender: Sender,
    load: Arc<Load>,
}

/// What a connection is used for.
#[derive(Debug)]
struct Load {
    streams: AtomicU32,
    most: AtomicU32,
    /// A request had no answer in time: whatever is wrong, the next one is better off on another connection.
    silent: AtomicBool,
    since: Mutex<Instant>,
}

/// One request's place on a connection; given back when its answer is over.
#[derive(Debug)]
pub(super) struct Place(Arc<Load>);

impl Place {
    fn new(load: &Arc<Load>) -> Self {
        load.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }

    /// There was no answer in time: nobody else is put on this connection.
    pub(super) fn was_silent(&self) {
        self.0.silent.store(true, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.since.lock() = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), idle_millis: AtomicU64::new(3_000) }
    }
}

impl Shared {
    pub(super) fn set_idle_timeout(&self, timeout: Duration) {
        self.idle_millis.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.idle_millis.load(Ordering::Relaxed))
    }

    /// A connection with room for another request.
    pub(super) fn take(&self) -> Option<(Sender, Place)> {
        let mut open = self.shards[shard::of(SHARDS)].lock();
        open.retain(|open| !open.sender.is_closed() && !open.load.silent.load(Ordering::Relaxed));
        let has_room =
            |open: &&Open| open.load.streams.load(Ordering::Relaxed) < open.load.most.load(Ordering::Relaxed);
        open.iter().find(has_room).map(|open| (open.sender.clone(), Place::new(&open.load)))
    }

    /// Begins HTTP/2 on a new connection, which others may use too.
    pub(super) async fn add(self: &Arc<Self>, io: Io) -> Result<(Sender, Place), hyper::Error> {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            // No client that is slow to read can take the others' share.
            .initial_connection_window_size(WINDOW * STREAMS)
            .max_send_buf_size(UNWRITTEN)
            .max_header_list_size(HEAD_BYTES)
            // What lies between may be gone without a word; asked only while a request waits.
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .handshake(TokioIo::new(io))
            .await?;
        let load = Arc::new(Load {
            streams: AtomicU32::new(0),
            most: AtomicU32::new(STREAMS),
            silent: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
        });
        let place = Place::new(&load);
        let at = shard::of(SHARDS);
        let mut open = self.shards[at].lock();
        if open.len() < CONNECTIONS {
            open.push(Open { sender: sender.clone(), load: Arc::clone(&load) });
        }
        drop(open);
        tokio::spawn(drive(connection, Arc::downgrade(self), at, load));
        Ok((sender, place))
    }

    /// Closes all that nobody uses just now.
    pub(super) fn close_idle(&self) {
        for shard in &self.shards {
            // Places are taken under this lock.
            shard.lock().retain(|open| open.load.streams.load(Ordering::Relaxed) > 0);
        }
    }

    /// Shares a connection no more that nobody has used for so long: it ends when its last sender goes.
    fn retire(&self, at: usize, load: &Arc<Load>, longest: Duration) {
        let mut open = self.shards[at].lock();
        // Places are taken under this lock.
        if load.streams.load(Ordering::Relaxed) == 0 && load.since.lock().elapsed() >= longest {
            open.retain(|open| !Arc::ptr_eq(&open.load, load));
        }
    }
}

/// Runs a connection until it ends.
async fn drive(
    connection: Connection<TokioIo<Io>, Upload, TokioExecutor>,
    shared: Weak<Shared>,
    at: usize,
    load: Arc<Load>,
) {
    let mut connection = pin!(connection);
    loop {
        let Some(longest) = shared.upgrade().map(|shared| shared.longest()) else {
            // The application is none of the policy's any more; what runs may end.
            let _ = connection.await;
            return;
        };
        let running = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            let most = u32::try_from(connection.current_max_send_streams()).unwrap_or(STREAMS);
            load.most.store(most.clamp(1, STREAMS), Ordering::Relaxed);
            polled
        });
        if tokio::time::timeout(longest.max(Duration::from_millis(50)), running).await.is_ok() {
            // How it ended is told to each of its requests.
            return;
        }
        if let Some(shared) = shared.upgrade() {
            shared.retire(at, &load, longest);
        }
    }
}

/// What was wrong, with all of its causes.
pub(super) fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// What ties the two directions of an exchange together.
#[derive(Debug)]
pub(super) struct Ends {
    /// Ready once the request is sent, or given up.
    pub(super) sent: oneshot::Receiver<Infallible>,
    /// Dropped, it ends the request: nobody waits for the answer any more.
    pub(super) cut: oneshot::Sender<Infallible>,
}

/// The body of a request on its way to the application.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    ctx: Arc<Context>,
    sent: Option<oneshot::Sender<Infallible>>,
    cut: oneshot::Receiver<Infallible>,
}

impl Upload {
    pub(super) fn new(ctx: &Arc<Context>, request: Request<RequestBody>) -> (Request<Self>, Ends) {
        let ((sent, is_sent), (cut, is_cut)) = (oneshot::channel(), oneshot::channel());
        let request = request.map(|body| Self { body, ctx: Arc::clone(ctx), sent: Some(sent), cut: is_cut });
        (request, Ends { sent: is_sent, cut })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if Pin::new(&mut this.cut).poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the exchange is over".into())));
        }
        let mut frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &mut frame {
            // Fields are fields: what a client may not say in the head it may not say behind the body.
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    integrity::strip(trailers, false, this.ctx.policy.owned_headers());
                }
            }
            Some(Err(_)) | None => this.sent = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer on its way to the client.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    ctx: Arc<Context>,
    over: bool,
    /// Held to its end.
    _cut: oneshot::Sender<Infallible>,
    _place: Place,
    _seat: Seat,
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        ctx: &Arc<Context>,
        cut: oneshot::Sender<Infallible>,
        place: Place,
        seat: Seat,
    ) -> Self {
        Self { body, ctx: Arc::clone(ctx), over: false, _cut: cut, _place: place, _seat: seat }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let Some(Err(error)) = frame else { return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from))) };
        // A control ended the request in the middle of a conversation: the client learns why.
        let Some(code) = this.ctx.body_refused() else { return Poll::Ready(Some(Err(error.into()))) };
        this.over = true;
        let mut trailers = HeaderMap::new();
        grpc::fields(code, code.status, &mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
