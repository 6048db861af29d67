//! The two body types of the stack: what a client sends and what it gets.
//!
//! One type each, an enum, so that the stack is compiled once and a plain answer costs no box.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as Task, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::context::Context;
use crate::control::{ControlId, Inspect, Mode};
use crate::observe::access::Record;
use crate::refusal::{Code, Refusal};

mod decode;
mod hold;
mod pace;

use decode::Decode;
use hold::Hold;
pub(crate) use pace::Pace;

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
    drain: bool,
    pace: Option<Pace>,
    hold: Option<Box<Hold>>,
    decode: Option<Box<Decode>>,
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
            judged(&self.ctx, judge, refusal)?;
            self.judges.remove(place);
        }
        Ok(())
    }

    /// The last judgements: of all, once the whole body was seen, and before that of those that have seen enough.
    fn finish(&mut self, whole: bool) -> Result<(), Refused> {
        let mut place = 0;
        while let Some(judge) = self.judges.get_mut(place) {
            if !whole && !judge.inspect.lets_go() {
                place += 1;
                continue;
            }
            if let Err(refusal) = judge.inspect.finish(&self.ctx) {
                judged(&self.ctx, judge, refusal)?;
            }
            self.judges.remove(place);
        }
        Ok(())
    }

    /// The first judgements on a body that is too long to be held back as a whole.
    fn begin(&mut self, pieces: &[Bytes]) -> Result<(), Refused> {
        let mut place = 0;
        while let Some(judge) = self.judges.get_mut(place) {
            let Err(refusal) = judge.inspect.begin(&self.ctx, pieces) else {
                place += 1;
                continue;
            };
            judged(&self.ctx, judge, refusal)?;
            self.judges.remove(place);
        }
        Ok(())
    }

    fn is_slow(&self) -> bool {
        self.judges.iter().any(|judge| judge.inspect.is_slow())
    }

    /// Whether somebody wants to judge the beginning.
    fn begins(&self) -> bool {
        self.judges.iter().any(|judge| judge.inspect.begins())
    }

    /// Whether somebody has seen enough.
    fn lets_go(&self) -> bool {
        self.judges.iter().any(|judge| judge.inspect.lets_go())
    }

    /// Whether somebody wants something held back.
    fn holds(&self) -> bool {
        self.judges.iter().any(|judge| judge.inspect.holds().is_some())
    }

    /// How many bytes come before anything is released.
    fn limit(&self) -> usize {
        // What only watches changes as little as can be: it sees the end before the application does.
        let blocking = self.judges.iter().filter(|judge| judge.mode == Mode::Block);
        blocking.filter_map(|judge| judge.inspect.holds()).max().unwrap_or_default()
    }

    /// How many bytes at the end of what was fed stay back.
    fn keeps(&self) -> usize {
        self.judges.iter().map(|judge| judge.inspect.keeps()).max().unwrap_or_default()
    }
}

/// What a refusal of an inspector means.
fn judged(ctx: &Context, judge: &Judge, refusal: Refusal) -> Result<(), Refused> {
    let code = refusal.code();
    if judge.mode == Mode::Block && !refusal.is_watched() {
        ctx.refuse_body(refusal);
        return Err(Refused { code });
    }
    ctx.would_refuse(judge.control, Mode::Detect, refusal);
    Ok(())
}

#[derive(Debug)]
enum RequestInner {
    Empty,
    Incoming(hyper::body::Incoming),
    Axum(axum::body::Body),
}

impl RequestInner {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(body) => body.is_end_stream(),
            Self::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(body) => body.size_hint(),
            Self::Axum(body) => body.size_hint(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Axum(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }
}

/// How much there is behind what was read ahead.
fn after(ahead: u64, rest: &SizeHint) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(ahead));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(ahead));
    }
    hint
}

impl RequestBody {
    /// A body from a connection of ours.
    pub fn incoming(body: hyper::body::Incoming) -> Self {
        Self::new(if body.is_end_stream() { RequestInner::Empty } else { RequestInner::Incoming(body) })
    }

    /// Asks an HTTP/1 connection for the body while its head is being handed over. What came with the head is there then
    /// at the first look; else the connection would be polled once more for it.
    pub(crate) fn asked_for(mut self) -> Self {
        if let RequestInner::Incoming(body) = &mut self.inner {
            let asked = Pin::new(body).poll_frame(&mut Task::from_waker(Waker::noop()));
            assert!(asked.is_pending(), "a connection reads nothing of a body before its head is handed over");
        }
        self
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
        Self {
            inner,
            seen: Arc::default(),
            watch: None,
            abandoned: None,
            drain: false,
            pace: None,
            hold: None,
            decode: None,
        }
    }

    /// Feeds the body to an inspector of a control; its refusals mean what the mode says.
    pub(crate) fn watch(&mut self, ctx: &Arc<Context>, control: ControlId, mode: Mode, inspect: Box<dyn Inspect>) {
        let holds = inspect.holds().is_some();
        let judge = Judge { control, mode, inspect };
        let watch =
            self.watch.get_or_insert_with(|| Box::new(Watch { ctx: Arc::clone(ctx), judges: Vec::with_capacity(1) }));
        watch.judges.push(judge);
        if holds || self.hold.is_some() {
            self.hold.get_or_insert_default().limit = watch.limit();
        }
    }

    /// Undoes the body's gzip before anybody reads it. Its head no longer says that there is one, nor how long the body is.
    pub(crate) fn decode(&mut self, ctx: &Arc<Context>) {
        self.decode = Some(Box::new(Decode::new(ctx)));
    }

    /// How fast this body must come.
    pub(crate) fn pace(&mut self, pace: Pace) {
        self.pace = Some(pace);
    }

    /// Sets a flag should this body be given up before its end: its client may still be sending.
    pub(crate) fn tell_abandoned(mut self, flag: &Arc<AtomicBool>) -> Self {
        if !matches!(self.inner, RequestInner::Empty) {
            self.abandoned = Some(Arc::clone(flag));
        }
        self
    }

    /// Should this body be given up before its end, the rest is read and thrown away for a while: an HTTP/2 stream that
    /// is reset right behind a complete answer (RFC 9113 §8.1 allows it) makes clients throw the answer away.
    pub(crate) fn drain_when_dropped(mut self) -> Self {
        self.drain = !matches!(self.inner, RequestInner::Empty);
        self
    }

    fn abandon(&mut self) {
        if let Some(flag) = self.abandoned.take() {
            flag.store(true, Ordering::Relaxed);
        }
        let rest = std::mem::replace(&mut self.inner, RequestInner::Empty);
        if let (true, RequestInner::Incoming(rest)) = (self.drain, rest)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(rest)));
        }
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

    /// The next frame as it comes, fed to the inspectors.
    fn poll_streamed(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        let polled = match &this.decode {
            None => this.inner.poll_frame(cx),
            Some(_) => this.poll_decoded(cx),
        };
        let frame = match polled {
            Poll::Ready(frame) => {
                this.pace.as_mut().map(Pace::came);
                frame
            }
            Poll::Pending => {
                let Some(pace) = &mut this.pace else { return Poll::Pending };
                match ready!(pace.poll_late(this.seen.load(Ordering::Relaxed), cx)) {
                    Some(refused) => {
                        this.abandon();
                        return Poll::Ready(Some(Err(Box::new(refused))));
                    }
                    None => {
                        this.pace = None;
                        return Poll::Pending;
                    }
                }
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            if this.decode.is_none() {
                this.seen.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            if let Some(watch) = &mut this.watch
                && let Err(refused) = watch.feed(data)
            {
                this.abandon();
                return Poll::Ready(Some(Err(Box::new(refused))));
            }
        }
        match &frame {
            None => this.abandoned = None,
            // What could not be decoded.
            Some(Err(error)) if this.decode.is_some() && error.is::<Refused>() => this.abandon(),
            Some(_) => {}
        }
        Poll::Ready(frame)
    }

    /// The next frame with its encoding undone.
    fn poll_decoded(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(decode) = &mut self.decode else { return self.inner.poll_frame(cx) };
        loop {
            match decode.step() {
                Ok(None) => {}
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(refused) => return Poll::Ready(Some(Err(Box::new(refused)))),
            }
            match ready!(self.inner.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        self.seen.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        decode.push(piece);
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                None => {
                    let last = decode.finish();
                    if last.is_ok() {
                        self.decode = None;
                    }
                    return Poll::Ready(match last {
                        Ok(piece) => piece.map(|piece| Ok(Frame::data(piece))),
                        Err(refused) => Some(Err(Box::new(refused))),
                    });
                }
                broken @ Some(Err(_)) => return Poll::Ready(broken),
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.hold.is_some() { this.poll_released(cx) } else { this.poll_streamed(cx) }
    }

    fn is_end_stream(&self) -> bool {
        self.decode.is_none() && self.is_released()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = if self.decode.is_some() { SizeHint::new() } else { self.inner.size_hint() };
        match &self.hold {
            None => inner,
            Some(hold) => after(hold.held(), &inner),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if (self.abandoned.is_some() || self.drain) && !self.inner.is_end_stream() {
            self.abandon();
        }
    }
}

/// What is read of a body that nobody wants, in bytes, and for how long.
const DRAIN_BYTES: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Reads and throws away. Dropped at the deadline, or at its bound, the stream is reset.
async fn drain(mut body: hyper::body::Incoming) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
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
    /// What was read ahead, and what follows it.
    Started(VecDeque<Result<Frame<Bytes>, BodyError>>, Box<ResponseInner>),
}

impl ResponseInner {
    fn poll_frame(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Self::Started(read, rest) = self {
            if let Some(frame) = read.pop_front() {
                return Poll::Ready(Some(frame));
            }
            let rest = std::mem::replace(rest.as_mut(), Self::Empty);
            *self = rest;
        }
        Poll::Ready(match self {
            Self::Empty | Self::Started(..) => None,
            Self::Fixed(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Self::Upstream(body) => ready!(Pin::new(body.as_mut()).poll_frame(cx)).map(|f| f.map_err(BodyError::from)),
            Self::Boxed(body) => ready!(Pin::new(body).poll_frame(cx)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Fixed(_) => false,
            Self::Upstream(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Started(read, rest) => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Fixed(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Started(read, rest) => after(read_ahead(read), &rest.size_hint()),
        }
    }
}

/// The start of a body that was read ahead.
#[derive(Debug, Default)]
pub struct Start {
    /// What was read.
    pub bytes: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
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

    /// Reads ahead: until `bytes` are there, or `within` is over, or the body has ended. Nothing is lost: what was read is
    /// sent before what follows.
    pub(crate) async fn start(&mut self, bytes: usize, within: Duration) -> Start {
        let mut start = Start::default();
        let mut read = VecDeque::new();
        let inner = &mut self.inner;
        let reading = async {
            while start.bytes.len() < bytes {
                if inner.is_end_stream() {
                    start.whole = true;
                    return;
                }
                match poll_fn(|cx| inner.poll_frame(cx)).await {
                    None => {
                        start.whole = true;
                        return;
                    }
                    Some(frame) => {
                        let failed = frame.is_err();
                        if let Ok(frame) = &frame
                            && let Some(data) = frame.data_ref()
                        {
                            let wanted = data.len().min(bytes - start.bytes.len());
                            start.bytes.extend_from_slice(&data[..wanted]);
                        }
                        read.push_back(frame);
                        if failed {
                            return;
                        }
                    }
                }
            }
            // Exactly as many as were asked for, and nothing behind: that is all of it too.
            start.whole = inner.is_end_stream() && start.bytes.len() as u64 == read_ahead(&read);
        };
        let _late = tokio::time::timeout(within, reading).await;
        if !read.is_empty() {
            let rest = std::mem::replace(&mut self.inner, ResponseInner::Empty);
            self.inner = ResponseInner::Started(read, Box::new(rest));
        }
        start
    }

    /// Bounds the frames of an answer that streams, in bytes, where the application behind decides.
    pub(crate) fn set_largest_frame(&mut self, bytes: usize) {
        if let ResponseInner::Upstream(body) = &mut self.inner {
            body.set_largest_frame(bytes);
        }
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
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(record) = &mut this.record {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        record.sent(data.len());
                    }
                }
                Some(Err(error)) => record.broken(crate::gateway::is_clients_fault(error)),
                None => record.complete(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn read_ahead(read: &VecDeque<Result<Frame<Bytes>, BodyError>>) -> u64 {
    read.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref()).map(|data| data.len() as u64).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use http_body_util::StreamBody;

    fn body(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> ResponseBody {
        ResponseBody::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_sent_all_the_same() {
        let long = Duration::from_secs(60);
        for (ask, seen, whole) in
            [(0, "", false), (1, "a", false), (3, "abc", false), (4, "abcd", false), (9, "abcdef", true)]
        {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("1"));
            let mut body = body(vec![data("abc"), data("def"), Ok(Frame::trailers(trailers))]);
            let start = body.start(ask, long).await;
            assert_eq!((start.bytes, start.whole), (seen.as_bytes().to_vec(), whole), "{ask}");
            let all = body.collect().await.unwrap();
            assert_eq!(all.trailers().unwrap()["x-sum"], "1");
            assert_eq!(all.to_bytes(), "abcdef");
        }
        let mut fixed = ResponseBody::fixed("abcd");
        let start = fixed.start(4, long).await;
        assert!(start.whole && start.bytes == b"abcd");
        assert_eq!(fixed.size_hint().exact(), Some(4));
        assert!(ResponseBody::empty().start(1, long).await.whole);
    }

    #[tokio::test]
    async fn an_error_comes_where_it_was() {
        let mut body = body(vec![data("abc"), Err("broken".into())]);
        let start = body.start(100, Duration::from_secs(60)).await;
        assert!(!start.whole && start.bytes == b"abc");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "broken");
    }

    #[tokio::test]
    async fn a_slow_body_is_not_waited_for() {
        use futures_util::StreamExt as _;
        let frames = futures_util::stream::iter([data("abc")]).chain(futures_util::stream::pending());
        let mut body = ResponseBody::boxed(StreamBody::new(frames));
        let start = body.start(100, Duration::from_millis(20)).await;
        assert!(!start.whole && start.bytes == b"abc");
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    }
}
