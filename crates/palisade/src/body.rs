//! The two body types of the stack: what a client sends and what it gets.
//!
//! One type each, an enum, so that the stack is compiled once and a plain answer costs no box.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::context::Context;
use crate::control::{ControlId, Inspect, Mode};
use crate::observe::access::Record;
use crate::refusal::Code;

/// Any error of a body; what it was is asked by downcast.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A control refused a request's body while it streamed. The refusal itself waits in the request's context.
#[derive(Debug, thiserror::Error)]
#[error("the body was refused: {}", .code.name)]
pub struct Refused {
    /// The kind of refusal.
    pub code: &'static Code,
}

/// The body of a request, counted and judged while it streams.
#[derive(Debug)]
pub struct RequestBody {
    inner: RequestInner,
    seen: Arc<AtomicU64>,
    watch: Option<Box<Watch>>,
    abandoned: Option<Arc<AtomicBool>>,
}

/// The inspectors of a body.
#[derive(Debug)]
struct Watch {
    ctx: Arc<Context>,
    judges: Vec<Judge>,
}

#[derive(Debug)]
struct Judge {
    control: ControlId,
    mode: Mode,
    inspect: Box<dyn Inspect>,
}

impl Watch {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refused> {
        let mut place = 0;
        while let Some(judge) = self.judges.get_mut(place) {
            let Err(refusal) = judge.inspect.feed(piece) else {
                place += 1;
                continue;
            };
            let code = refusal.code();
            if judge.mode == Mode::Block {
                self.ctx.refuse_body(refusal);
                return Err(Refused { code });
            }
            self.ctx.would_refuse(judge.control, judge.mode, refusal);
            self.judges.remove(place);
        }
        Ok(())
    }
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
        Self { inner, seen: Arc::default(), watch: None, abandoned: None }
    }

    /// Feeds the body to an inspector of a control; its refusals mean what the mode says.
    pub(crate) fn watch(&mut self, ctx: &Arc<Context>, control: ControlId, mode: Mode, inspect: Box<dyn Inspect>) {
        let judge = Judge { control, mode, inspect };
        match &mut self.watch {
            Some(watch) => watch.judges.push(judge),
            None => self.watch = Some(Box::new(Watch { ctx: Arc::clone(ctx), judges: vec![judge] })),
        }
    }

    /// Sets a flag should this body be given up before its end: its client may still be sending.
    pub(crate) fn tell_abandoned(mut self, flag: &Arc<AtomicBool>) -> Self {
        if !matches!(self.inner, RequestInner::Empty) {
            self.abandoned = Some(Arc::clone(flag));
        }
        self
    }

    fn abandon(&mut self) {
        if let Some(flag) = self.abandoned.take() {
            flag.store(true, Ordering::Relaxed);
        }
        self.inner = RequestInner::Empty;
    }

    /// The counter of bytes read so far, which outlives the body.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.seen)
    }

    /// As axum's body, for a router inside the stack.
    pub fn into_axum(self) -> axum::body::Body {
        match &self.inner {
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
            this.seen.fetch_add(data.len() as u64, Ordering::Relaxed);
            if let Some(watch) = &mut this.watch
                && let Err(refused) = watch.feed(data)
            {
                this.abandon();
                return Poll::Ready(Some(Err(Box::new(refused))));
            }
        }
        if frame.is_none() {
            this.abandoned = None;
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.abandoned.is_some() && !self.is_end_stream() {
            self.abandon();
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

    /// Takes the record off again, where another body replaces this one.
    pub(crate) fn detach(&mut self) -> Option<Box<Record>> {
        self.record.take()
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
