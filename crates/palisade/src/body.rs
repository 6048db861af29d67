//! The two body types of the stack: what a client sends and what it gets.
//!
//! One type each, an enum, so that the stack is compiled once and a plain answer costs no box.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::observe::access::Record;

/// Any error of a body; what it was is asked by downcast.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body ran over the limit of its route.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: u64,
}

/// The body of a request, counted and limited while it streams.
#[derive(Debug)]
pub struct RequestBody {
    inner: RequestInner,
    limit: u64,
    left: u64,
    seen: Arc<AtomicU64>,
}

#[derive(Debug)]
enum RequestInner {
    Empty,
    Incoming(hyper::body::Incoming),
    Axum(axum::body::Body),
}

impl RequestBody {
    /// A body from a connection of ours.
    pub fn incoming(body: hyper::body::Incoming) -> Self {
        Self::new(if body.is_end_stream() { RequestInner::Empty } else { RequestInner::Incoming(body) })
    }

    /// A body from an axum application.
    pub fn axum(body: axum::body::Body) -> Self {
        Self::new(if body.is_end_stream() { RequestInner::Empty } else { RequestInner::Axum(body) })
    }

    /// No body.
    pub fn empty() -> Self {
        Self::new(RequestInner::Empty)
    }

    fn new(inner: RequestInner) -> Self {
        Self { inner, limit: u64::MAX, left: u64::MAX, seen: Arc::default() }
    }

    /// Ends the body with [`TooLarge`] beyond so many bytes.
    pub fn limit(&mut self, bytes: u64) {
        self.limit = bytes;
        self.left = bytes;
    }

    /// The counter of bytes read so far, which outlives the body.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.seen)
    }

    /// As axum's body, for a router inside the stack.
    pub fn into_axum(self) -> axum::body::Body {
        match self.inner {
            RequestInner::Empty => axum::body::Body::empty(),
            _ => axum::body::Body::new(self),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.inner {
            RequestInner::Empty => return Poll::Ready(None),
            RequestInner::Incoming(body) => ready!(Pin::new(body).poll_frame(cx)).map(|f| f.map_err(BodyError::from)),
            RequestInner::Axum(body) => ready!(Pin::new(body).poll_frame(cx)).map(|f| f.map_err(BodyError::from)),
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            this.seen.fetch_add(length, Ordering::Relaxed);
            match this.left.checked_sub(length) {
                Some(left) => this.left = left,
                None => {
                    this.inner = RequestInner::Empty;
                    return Poll::Ready(Some(Err(Box::new(TooLarge { limit: this.limit }))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            RequestInner::Empty => true,
            RequestInner::Incoming(body) => body.is_end_stream(),
            RequestInner::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            RequestInner::Empty => SizeHint::with_exact(0),
            RequestInner::Incoming(body) => body.size_hint(),
            RequestInner::Axum(body) => body.size_hint(),
        }
    }
}

/// The body of an answer. It carries the access record, which is written when the body ends or is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    inner: ResponseInner,
    record: Option<Box<Record>>,
}

#[derive(Debug)]
enum ResponseInner {
    Empty,
    Fixed(Bytes),
    Upstream(Box<crate::gateway::UpstreamBody>),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl ResponseBody {
    /// No body.
    pub const fn empty() -> Self {
        Self { inner: ResponseInner::Empty, record: None }
    }

    /// A body that is all here.
    pub fn fixed(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { inner: if bytes.is_empty() { ResponseInner::Empty } else { ResponseInner::Fixed(bytes) }, record: None }
    }

    /// A body that streams from the application behind.
    pub(crate) fn upstream(body: crate::gateway::UpstreamBody) -> Self {
        Self {
            inner: if body.is_end_stream() { ResponseInner::Empty } else { ResponseInner::Upstream(Box::new(body)) },
            record: None,
        }
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        use http_body_util::BodyExt as _;
        Self { inner: ResponseInner::Boxed(body.map_err(Into::into).boxed_unsync()), record: None }
    }

    /// Attaches what is written to the access log when this body ends.
    pub(crate) fn attach(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.inner {
            ResponseInner::Empty => None,
            ResponseInner::Fixed(bytes) => {
                let bytes = std::mem::take(bytes);
                this.inner = ResponseInner::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            ResponseInner::Upstream(body) => {
                ready!(Pin::new(body.as_mut()).poll_frame(cx)).map(|f| f.map_err(BodyError::from))
            }
            ResponseInner::Boxed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        if let Some(record) = &mut this.record {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        record.sent(data.len());
                    }
                }
                Some(Err(_)) => record.broken(),
                None => record.complete(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            ResponseInner::Empty => true,
            ResponseInner::Fixed(_) => false,
            ResponseInner::Upstream(body) => body.is_end_stream(),
            ResponseInner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            ResponseInner::Empty => SizeHint::with_exact(0),
            ResponseInner::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseInner::Upstream(body) => body.size_hint(),
            ResponseInner::Boxed(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body that ends with its last frame is never polled again, and one that was never polled (HEAD) ends here.
        let ended = self.is_end_stream();
        if let Some(mut record) = self.record.take() {
            record.close(ended);
        }
    }
}
