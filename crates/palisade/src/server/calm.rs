//! The guard round the bytes of an HTTP/2 connection: what frames may cost, and what may be waited for.
//!
//! Guide section 21; threat 29. The library reads frames correctly and answers each; it does not ask whether they are worth
//! it. Here the heads of frames are counted, in both directions: what makes work and carries nothing (PING, SETTINGS,
//! PRIORITY, window updates, empty frames, resets by either side) spends a budget, which grows by answers and with time.
//! When it is spent, the connection ends with ENHANCE_YOUR_CALM. A head that does not arrive, and a connection without a
//! request, have the times that they have over HTTP/1.
//!
//! Frames of a client that has nothing to show yet, or has spent some of its budget, are handed on in [`turns`](super::turns):
//! a flood that begins on a hundred connections at once would otherwise hold up everybody else until it is found out.
//!
//! A head that is larger than the library takes would be answered by it, with a status and nothing else: neither the id of
//! the request nor the headers that every answer has, and no line in any log. That answer is kept back, and the connection
//! ends instead. Heads are small and may become a hundred times as large where they are read, so that a connection hands
//! over a few at a time: those who answer them, and drop them, have their turn in between.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEAD, HEADERS, OF_A_REQUEST, RST_STREAM, SETTINGS,
};
use super::framing::HEAD_TIME;
use super::streams::Streams;
use super::turns::Turn;
use crate::controls::limits;
use crate::refusal::Code;

/// More frames that carry nothing than a client needs.
pub(crate) static FRAMES: Code = Code::client(
    "limits.frames",
    http::StatusCode::TOO_MANY_REQUESTS,
    21,
    "too many frames that carry nothing, or too many streams that were given up",
)
.owasp("excess_rate_limit_exceeded");

/// What may be spent at once, and again after [`REFILL`].
const BUDGET: i32 = 1000;
const REFILL: Duration = Duration::from_secs(10);
/// A stream that was begun and given up, whoever did that.
const RESET: i32 = 10;
/// A piece of a body without a byte. No client needs it: the last one ends the stream.
const EMPTY: i32 = 10;
/// Settings make the library look at every stream.
const SETTINGS_COST: i32 = 5;
/// Pieces smaller than this earn nothing: a window that opens byte by byte would pay for itself.
const PIECE: usize = 32;
/// What a piece of an answer earns, also a small one: clients confirm each message of a conversation, and open windows and
/// measure round trips by it.
const OF_A_PIECE: u32 = 4;
/// With less than this left, a client is a stranger again.
const TRUSTED: i32 = BUDGET - 100;
/// So many frames of a stranger are handed on in one turn; a request counts as [`OF_A_REQUEST`].
const OF_A_TURN: u32 = 16;
// A turn in which nothing could be handed on would look like the end of the connection.
const _: () = assert!(OF_A_REQUEST <= OF_A_TURN);
/// So many bytes are read from one at once.
const HELD: usize = 8 * 1024;
/// Bytes of heads that are handed over in one turn. Each may stand for a field of the table that both sides keep (RFC 7541
/// §2.3), which takes some 150 bytes in memory.
const BREATH: usize = 4 * 1024;
/// How long the last word may take to be written and read.
const CLOSING: Duration = Duration::from_secs(2);

const NO_ERROR: u32 = 0;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the library says behind the error with which it ends a connection for a head.
const TOO_LARGE: &[u8] = b"header_list_way_too_large";
const TOO_LARGE_FOR_IT: &str = "a head larger than the HTTP library takes";

/// Times of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For a head, and for the connection's beginning.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    Head,
    Idle,
}

/// A connection whose frames are counted. `F` is called at most once, with the code and why.
pub(super) struct Calm<S, F> {
    stream: S,
    streams: Arc<Streams>,
    times: Times,
    read: Frames,
    written: Frames,
    budget: i32,
    refilled: Instant,
    /// A client's first frame has come.
    begun: bool,
    /// A header block is not complete.
    block: bool,
    /// Bytes of heads since others had their turn.
    heads: usize,
    last_stream: u32,
    waiting: (Waiting, Instant),
    timer: Option<Pin<Box<Sleep>>>,
    stranger: Stranger,
    refused: Option<F>,
    closing: Option<Closing>,
}

/// What a client sent that is handed on in turn.
#[derive(Debug, Default)]
struct Stranger {
    held: Vec<u8>,
    /// So many of them are handed on already.
    gone: usize,
    turn: Turn,
    /// Of the frames that begin, so much may still be spent in this turn.
    may: u32,
}

#[derive(Debug)]
struct Closing {
    /// The last frame, as far as it is not written.
    left: Vec<u8>,
    until: Pin<Box<Sleep>>,
}

impl<S, F> Calm<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&'static Code, &'static str),
{
    pub(super) fn new(stream: S, streams: Arc<Streams>, times: Times, refused: F) -> Self {
        let now = Instant::now();
        Self {
            stream,
            streams,
            times,
            read: Frames::of_client(),
            written: Frames::default(),
            budget: BUDGET,
            refilled: now,
            begun: false,
            block: false,
            heads: 0,
            last_stream: 0,
            waiting: (Waiting::Head, now),
            timer: None,
            stranger: Stranger::default(),
            refused: Some(refused),
            closing: None,
        }
    }

    fn is_stranger(&self) -> bool {
        self.budget < TRUSTED || !self.streams.has_answered()
    }

    /// Reads what came; of a stranger, as many frames as its turn is for.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_stranger = self.is_stranger();
        let Self { stream, stranger, read, .. } = self;
        if stranger.gone == stranger.held.len() {
            if !is_stranger {
                stranger.held = Vec::new();
                stranger.gone = 0;
                return Pin::new(stream).poll_read(cx, buffer);
            }
            let mut bytes = [0; HELD];
            let mut came = ReadBuf::new(&mut bytes);
            ready!(Pin::new(stream).poll_read(cx, &mut came))?;
            stranger.held.clear();
            stranger.held.extend_from_slice(came.filled());
            stranger.gone = 0;
        }
        let next = stranger.held.get(stranger.gone..).unwrap_or_default();
        let next = next.get(..buffer.remaining()).unwrap_or(next);
        let (mut end, mut cost) = (next.len(), 0);
        if is_stranger && !next.is_empty() {
            (end, cost) = read.cut(next, stranger.may);
            if end == 0 {
                ready!(stranger.turn.poll(cx));
                stranger.may = OF_A_TURN;
                (end, cost) = read.cut(next, stranger.may);
            }
        }
        buffer.put_slice(next.get(..end).unwrap_or_default());
        stranger.gone += end;
        stranger.may = stranger.may.saturating_sub(cost);
        Poll::Ready(Ok(()))
    }

    /// Counts what came. False: it was too much.
    fn judge(&mut self, bytes: &[u8]) -> bool {
        let Self { read, budget, block, heads, last_stream, waiting, streams, .. } = self;
        let mut any = false;
        read.feed(bytes, |frame, _| {
            any = true;
            *budget -= match frame.kind {
                HEADERS => {
                    *block = frame.flags & END_HEADERS == 0;
                    *heads += frame.length;
                    *last_stream = frame.stream.max(*last_stream);
                    waiting.0 = Waiting::No;
                    0
                }
                DATA if frame.length > 0 || frame.flags & END_STREAM != 0 => 0,
                DATA => EMPTY,
                CONTINUATION => {
                    *block &= frame.flags & END_HEADERS == 0;
                    *heads += frame.length;
                    1
                }
                RST_STREAM => {
                    streams.gave_up();
                    RESET
                }
                SETTINGS => SETTINGS_COST,
                _ => 1,
            };
        });
        self.begun |= any;
        self.has_budget()
    }

    /// Counts what is written: an answer pays for what its client asked besides.
    fn wrote(&mut self, bytes: &[u8]) {
        let Self { written, budget, waiting, refused, streams, .. } = self;
        written.feed(bytes, |frame, rest| {
            let ends = if frame.flags & END_STREAM != 0 { 5 } else { 0 };
            let earned = match frame.kind {
                DATA if frame.length >= PIECE => 2 + ends,
                DATA => ends,
                HEADERS => {
                    if frame.is_bare() {
                        streams.trailers_written();
                    }
                    2 + ends
                }
                RST_STREAM => {
                    streams.gave_up();
                    -RESET
                }
                // The library has limits of its own, which it keeps without a word to anybody else.
                GOAWAY => {
                    let said = rest.get(8..).unwrap_or_default();
                    let error = rest.get(4..8).and_then(|error| error.try_into().ok()).map(u32::from_be_bytes);
                    let why = match error {
                        Some(COMPRESSION_ERROR) => Some((&limits::HEADERS, TOO_LARGE_FOR_IT)),
                        Some(ENHANCE_YOUR_CALM) if said.starts_with(TOO_LARGE) => {
                            Some((&limits::HEADERS, TOO_LARGE_FOR_IT))
                        }
                        Some(ENHANCE_YOUR_CALM) => Some((&FRAMES, "more than the HTTP library takes")),
                        _ => None,
                    };
                    if let Some((code, why)) = why
                        && let Some(refused) = refused.take()
                    {
                        refused(code, why);
                    }
                    return;
                }
                _ => return,
            };
            waiting.0 = Waiting::No;
            *budget = budget.saturating_add(earned).min(BUDGET);
        });
    }

    /// Where in what is to be written the library answers by itself.
    fn bare_answer(&self, bytes: &[u8]) -> Option<usize> {
        let (mut trailers, mut place) = (self.streams.trailers(), None);
        let mut written = self.written;
        written.feed(bytes, |frame, rest| {
            if place.is_some() || !frame.is_bare() {
                return;
            }
            match trailers.checked_sub(1) {
                Some(left) => trailers = left,
                // The library writes no head in pieces: all of it is in these bytes.
                None => place = (bytes.len() - rest.len()).checked_sub(HEAD),
            }
        });
        place
    }

    /// Ends the connection in the place of an answer of the library's own.
    fn end_instead(&mut self, cx: &Context<'_>) {
        self.close(ENHANCE_YOUR_CALM, Some((&limits::HEADERS, TOO_LARGE_FOR_IT)));
        // It is the reading side that closes.
        cx.waker().wake_by_ref();
    }

    fn has_budget(&mut self) -> bool {
        if self.budget >= 0 {
            return true;
        }
        // Only now what else was earned is counted, and the clock is asked.
        let earned = self.streams.take_pieces().saturating_mul(OF_A_PIECE).min(BUDGET.unsigned_abs());
        self.budget = self.budget.saturating_add(earned.cast_signed());
        if self.budget >= 0 {
            return true;
        }
        let now = Instant::now();
        if now.duration_since(self.refilled) < REFILL {
            return false;
        }
        (self.budget, self.refilled) = (BUDGET, now);
        true
    }

    /// Nothing came. Whether the client has had its time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Waiting> {
        let what = match () {
            () if !self.begun || self.block || self.read.is_within_head() => Waiting::Head,
            () if self.streams.is_idle() => Waiting::Idle,
            () => Waiting::No,
        };
        if self.waiting.0 != what {
            self.waiting = (what, Instant::now());
        }
        let time = match what {
            Waiting::No => return Poll::Pending,
            Waiting::Head => self.times.head,
            Waiting::Idle => self.times.idle,
        };
        let Some(deadline) = self.waiting.1.checked_add(time) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(what);
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Ends the connection with a last word.
    fn close(&mut self, error: u32, why: Option<(&'static Code, &'static str)>) {
        if let Some((code, why)) = why
            && let Some(refused) = self.refused.take()
        {
            refused(code, why);
        }
        let mut left = Vec::new();
        // Not in the middle of another frame, and not before the settings that a client expects first.
        if self.begun && self.written.is_between() {
            left.extend([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
            left.extend(self.last_stream.to_be_bytes());
            left.extend(error.to_be_bytes());
        }
        // Nothing of it is handed on any more, and nobody waits for a turn that is not used.
        self.stranger = Stranger::default();
        self.closing = Some(Closing { left, until: Box::pin(tokio::time::sleep(CLOSING)) });
    }

    /// Writes the last word and lets the client read it. Ready once the connection may be dropped.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(closing) = &mut self.closing else { return Poll::Ready(()) };
        if closing.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while !closing.left.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &closing.left)) {
                Ok(written @ 1..) => drop(closing.left.drain(..written)),
                _ => return Poll::Ready(()),
            }
        }
        Pin::new(&mut self.stream).poll_shutdown(cx).map(drop)
    }
}

// Nothing in it is ever pinned: `S` is `Unpin` wherever it is polled, `F` is only moved.
impl<S, F> Unpin for Calm<S, F> {}

impl<S, F> AsyncRead for Calm<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&'static Code, &'static str),
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.closing.is_some() {
                ready!(this.poll_closing(cx));
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            if this.heads > BREATH {
                ready!(this.stranger.turn.poll(cx));
                this.heads = 0;
            }
            let before = buffer.filled().len();
            match this.poll_bytes(cx, buffer) {
                Poll::Ready(Ok(())) => {
                    let calm = this.judge(buffer.filled().get(before..).unwrap_or_default());
                    if calm {
                        return Poll::Ready(Ok(()));
                    }
                    buffer.set_filled(before);
                    this.close(ENHANCE_YOUR_CALM, Some((&FRAMES, "too many frames that carry nothing")));
                }
                Poll::Pending => match ready!(this.poll_deadline(cx)) {
                    Waiting::Head => {
                        this.close(ENHANCE_YOUR_CALM, Some((&HEAD_TIME, "a head, or the beginning of the connection")));
                    }
                    _ => this.close(NO_ERROR, None),
                },
                error => return error,
            }
        }
    }
}

impl<S, F> AsyncWrite for Calm<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&'static Code, &'static str),
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closing.is_some() {
            // The reading side closes, once the last word is read. An error here would end that.
            return Poll::Ready(Ok(bytes.len()));
        }
        let all = bytes.len();
        let bytes = match this.bare_answer(bytes) {
            None => bytes,
            Some(0) => {
                this.end_instead(cx);
                return Poll::Ready(Ok(all));
            }
            Some(before) => bytes.get(..before).unwrap_or_default(),
        };
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.wrote(bytes.get(..written).unwrap_or_default());
        this.streams.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closing.is_some() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        // Frames begin in the first piece; what follows it is the data of the last of them.
        if let Some(first) = slices.first()
            && this.bare_answer(first).is_some()
        {
            return Pin::new(this).poll_write(cx, first);
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let of_this = left.min(slice.len());
            this.wrote(slice.get(..of_this).unwrap_or_default());
            left -= of_this;
        }
        this.streams.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.streams.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request, Response};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::body::ResponseBody;
    use crate::server::frames::PREFACE;
    use crate::server::frames::tests::frame;
    use crate::server::streams::{Taking, Tasks};

    const MOST: u32 = 2000;

    /// A request for `/` with so many fields of 47 bytes, 32 of them for each being there: `x: y` as a new entry of the
    /// table (RFC 7541 §6.2.1), and then a byte for each time that it is meant.
    fn request(stream: u32, fields: usize) -> Vec<u8> {
        let mut block = vec![0x82, 0x84, 0x87, 0x41, 1, b'a'];
        block.extend([0x40, 1, b'x', 14]);
        block.extend([b'y'; 14]);
        block.extend(vec![0xbe; fields]);
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    }

    fn answer(request: &Request<Incoming>, streams: &Arc<Streams>) -> Response<Taking> {
        let running = streams.begin();
        running.answered();
        let body = match request.headers().get_all("x").iter().count() {
            1 => ResponseBody::boxed(Full::new(Bytes::from("hello"))),
            _ => {
                let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("1"))]);
                let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                ResponseBody::boxed(StreamBody::new(futures_util::stream::iter(frames)))
            }
        };
        let mut answer = Response::new(Taking::new(body, running));
        let mut id = HeaderValue::from_static("0123456789");
        id.set_sensitive(true);
        answer.headers_mut().insert(crate::gateway::X_REQUEST_ID, id);
        answer
    }

    /// What a client that sends these bytes is told: frames as kind, stream and whether they end it; the error of the
    /// connection; why it was ended.
    async fn told(bytes: Vec<u8>) -> (Vec<(u8, u32, bool)>, Option<u32>, Option<&'static str>) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (streams, why) = (Arc::<Streams>::default(), Arc::<Mutex<Option<&'static str>>>::default());
        let times = Times { head: Duration::from_secs(20), idle: Duration::from_millis(100) };
        let refused = {
            let why = Arc::clone(&why);
            move |code: &'static Code, _: &'static str| *why.lock() = Some(code.name)
        };
        let calm = Calm::new(server, Arc::clone(&streams), times, refused);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, &streams);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = hyper::server::conn::http2::Builder::new(Tasks(None))
            .max_header_list_size(MOST)
            .serve_connection(TokioIo::new(calm), service);
        let server = tokio::spawn(async move { drop(served.await) });
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        server.await.unwrap();
        let (mut frames, mut error) = (Vec::new(), None);
        Frames::default().feed(&said, |head, rest| match head.kind {
            GOAWAY => error = rest.get(4..8).map(|error| u32::from_be_bytes(error.try_into().unwrap())),
            DATA | HEADERS | RST_STREAM => {
                frames.push((head.kind, head.stream, head.kind != RST_STREAM && head.flags & END_STREAM != 0));
            }
            _ => {}
        });
        let why = *why.lock();
        (frames, error, why)
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_ends_the_connection_without_a_bare_answer() {
        let whole = |stream| [(HEADERS, stream, false), (DATA, stream, true)];
        let (frames, error, why) = told(request(1, 0)).await;
        assert_eq!((&frames[..], error, why), (&whole(1)[..], Some(NO_ERROR), None));
        // Above what the library takes, and above four times that, where it ends the connection itself.
        for fields in [60, 1000] {
            let (frames, error, why) = told([request(1, 0), request(3, fields)].concat()).await;
            assert!(frames.iter().all(|(_, stream, _)| *stream == 1), "{fields}: {frames:?}");
            assert_eq!((error, why), (Some(ENHANCE_YOUR_CALM), Some("limits.headers")), "{fields}");
        }
    }

    #[tokio::test]
    async fn trailers_are_no_bare_answer() {
        let (frames, error, why) = told([request(1, 1), request(3, 2), request(5, 1)].concat()).await;
        let ended: Vec<u32> =
            frames.iter().filter(|(kind, _, end)| *kind == HEADERS && *end).map(|frame| frame.1).collect();
        assert_eq!((ended.len(), error, why), (3, Some(NO_ERROR), None), "{frames:?}");
        let (frames, error, why) = told([request(1, 1), request(3, 60)].concat()).await;
        assert!(frames.iter().all(|(_, stream, _)| *stream == 1), "{frames:?}");
        assert_eq!((error, why), (Some(ENHANCE_YOUR_CALM), Some("limits.headers")));
    }

    #[tokio::test]
    async fn heads_are_handed_over_a_few_at_a_time() {
        // The turns that others have while so much is read of a client that sent everything at once.
        let turns = |bytes: Vec<u8>| async move {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let times = Times { head: Duration::from_secs(20), idle: Duration::from_secs(20) };
            let streams = Arc::<Streams>::default();
            // No stranger, whose frames have turns of their own.
            streams.begin().answered();
            let mut calm = Calm::new(server, streams, times, |_, _| {});
            client.write_all(&[&[0; PREFACE][..], &bytes].concat()).await.unwrap();
            let (mut read, mut turns) = (0, 0);
            while read < PREFACE + bytes.len() {
                let mut piece = [0; 4096];
                let mut buffer = ReadBuf::new(&mut piece);
                let mut cx = Context::from_waker(std::task::Waker::noop());
                match Pin::new(&mut calm).poll_read(&mut cx, &mut buffer) {
                    Poll::Ready(outcome) => {
                        outcome.unwrap();
                        read += buffer.filled().len();
                    }
                    Poll::Pending => {
                        turns += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
            turns
        };
        let heads = |length: usize| frame(HEADERS, END_STREAM | END_HEADERS, 1, &vec![0xbe; length]).repeat(64);
        assert_eq!(turns(heads(50)).await, 0);
        assert!(turns(heads(1000)).await >= 5);
        assert_eq!(turns(frame(DATA, 0, 1, &vec![0; 1000]).repeat(64)).await, 0, "bodies have a window");
    }
}
