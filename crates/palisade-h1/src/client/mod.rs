//! The upstream side: one connection that carries one exchange at a time.
//!
//! There is no background task and no channel. [`Connection::send`] takes the connection; the answer's body owns it until
//! both request and answer are complete, and then hands it to a [`Recycle`]. Dropping the future or the body closes the
//! connection, so that a client that went away never leaves half an exchange behind for the next one.
//!
//! What the caller does: hop-by-hop fields of the request, `Host`, the choice of the connection, time-outs of the body.
//! What is done here: framing. `Content-Length`, `Transfer-Encoding`, `Trailer` and `Expect` of a request are not sent as given,
//! but follow from the body's size hint; request trailers are dropped. Of an answer `Content-Length` stays (it is a fact
//! about the answer to HEAD, too), `Transfer-Encoding`, `Connection`, `Keep-Alive`, `Proxy-Connection` and the fields
//! that `Connection` names are removed.
//!
//! Memory: an idle connection holds at most 16 KiB of read buffer and the space of its largest head (up to
//! 16 KiB are kept), and one that waits for an answer no more. During an exchange: what was received of the head (up to
//! [`Limits::head_bytes`]), a read buffer of 64 KiB for answers in chunks that come fast, at most 18 KiB of gathered small
//! frames behind the request's head, and one frame of the request body. Frames of the answer are at most
//! [`LARGEST_FRAME`] and take at most twice their size until they are dropped; see [`ResponseBody::set_largest_frame`].

mod blocks;
mod body;
mod error;
mod upload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_answers;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use self::blocks::Block;
pub use self::body::ResponseBody;
use self::body::{Decoder, Exchange};
pub use self::error::{BoxError, Error, Failure};
pub use self::upload::MoreFields;
use self::upload::{Stop, Upload};
use crate::head::{AnswerScan, Framing, HeadFacts, Limits, Span};
use crate::{Violation, chunked::Chunks};

/// The largest frame of an answer, in bytes.
pub const LARGEST_FRAME: usize = blocks::LARGEST;
/// What is read at once of heads and chunks, and copied.
const SMALL_READ: usize = 16 * 1024;
/// A block of the read buffer, for chunks that come faster.
const LARGE_READ: usize = 64 * 1024;
/// With less room than this a new block is taken instead of reading a few bytes at a time.
const MIN_ROOM: usize = 2 * 1024;
/// Scratch space above this is given back between exchanges.
const KEPT_SCRATCH: usize = 16 * 1024;
/// Fields that whoever passes an answer on will add: a table that grows hashes everything in it again.
const ROOM_FOR_FIELDS: usize = 16;
/// Interim answers to one request.
const MAX_INTERIM: u8 = 16;

/// Gets a connection back that may carry another exchange. Dropped without a call when it may not.
pub trait Recycle<IO> {
    /// Takes the connection. Called from within a poll: it must not block.
    fn recycle(self, connection: Connection<IO>);
}

impl<IO, F: FnOnce(Connection<IO>)> Recycle<IO> for F {
    fn recycle(self, connection: Connection<IO>) {
        self(connection);
    }
}

/// A connection to an upstream, idle between exchanges. One pointer wide.
pub struct Connection<IO> {
    inner: Box<Inner<IO>>,
}

struct Inner<IO> {
    io: IO,
    /// Received and not yet used.
    read: BytesMut,
    /// More came at once than is worth a copy: from now on it is read straight into `read`.
    fast: bool,
    /// Size of the next block that is read into where nothing but data can come, and of the largest.
    block: usize,
    largest: usize,
    /// The request's head and chunk lines on their way out.
    scratch: Vec<u8>,
    /// Fields of the head that comes in.
    spans: Vec<Span>,
    /// Kept over exchanges: it is moved only when it fires, so that a quick answer costs no entry in the timer wheel.
    timer: Option<Pin<Box<Sleep>>>,
    limits: Limits,
    exchanges: u64,
    dead: bool,
}

impl<IO> fmt::Debug for Connection<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("exchanges", &self.inner.exchanges)
            .field("dead", &self.inner.dead)
            .finish_non_exhaustive()
    }
}

impl<IO> Connection<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// A connection over `io`, which must be fresh: nothing sent, nothing received.
    pub fn new(io: IO) -> Self {
        Connection::with_limits(io, Limits::default())
    }

    /// Like [`Connection::new`] with other bounds for the heads of answers (16 MiB at most).
    pub fn with_limits(io: IO, mut limits: Limits) -> Self {
        limits.head_bytes = limits.head_bytes.min(16 * 1024 * 1024);
        Connection {
            inner: Box::new(Inner {
                io,
                read: BytesMut::new(),
                fast: false,
                block: blocks::SMALLEST,
                largest: LARGEST_FRAME,
                scratch: Vec::new(),
                spans: Vec::new(),
                timer: None,
                limits,
                exchanges: 0,
                dead: false,
            }),
        }
    }

    /// Exchanges this connection has carried.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.inner.exchanges
    }

    /// Whether an idle connection is still good: open, and nothing came unasked.
    ///
    /// Polls a read once; no waker is kept. What the kernel has not told the runtime yet is not seen, hence
    /// [`Error::ClosedBeforeAnswer`] with `reused`.
    pub fn is_reusable(&mut self) -> bool {
        let inner = &mut *self.inner;
        if inner.dead || !inner.read.is_empty() {
            return false;
        }
        let mut byte = [0u8; 1];
        let mut look =
            pin!(unconstrained(poll_fn(|cx| Pin::new(&mut inner.io).poll_read(cx, &mut ReadBuf::new(&mut byte)))));
        // Unconstrained: to a task whose turn is over the runtime says "nothing yet", whatever it knows.
        let read = look.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // A byte was taken away from the stream, or it ended: either way it never carries an exchange again.
        inner.dead = read.is_ready();
        read.is_pending()
    }

    /// Sends `request` and waits for the head of its answer.
    ///
    /// The target is the path and query of the request's URI (origin form, or `*`); fields are written as given, but for
    /// those named in the [module's description](self). `answer_timeout` runs while it is the upstream's turn: from the
    /// last byte it took of the request until the head of the answer is complete, and not while the request body has
    /// nothing to send. Interim answers start it again.
    ///
    /// The request body goes on while the answer's body is polled: an early answer arrives before the upload is over.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; a part of the request may have been sent.
    pub fn send<B, R>(self, request: Request<B>, answer_timeout: Option<Duration>, recycler: R) -> Sending<IO, B, R>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        R: Recycle<IO>,
    {
        self.send_with(request, |_| {}, answer_timeout, recycler)
    }

    /// As [`Connection::send`], with fields behind those of the request that need no place in its table. They are not
    /// looked at: none may say something about framing.
    ///
    /// # Cancel safety
    /// As [`Connection::send`].
    pub fn send_with<B, R>(
        self,
        request: Request<B>,
        more: impl FnOnce(&mut MoreFields<'_>),
        answer_timeout: Option<Duration>,
        recycler: R,
    ) -> Sending<IO, B, R>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        R: Recycle<IO>,
    {
        let mut connection = self;
        let wants_upgrade = upload::asks_for_upgrade(&request);
        let (parts, body) = request.into_parts();
        let keep = !upload::names(&parts.headers, "close");
        let head = parts.method == Method::HEAD;
        let mut sending = Sending {
            exchange: None,
            parts: None,
            refused: None,
            recycler: Some(recycler),
            scan: AnswerScan::new(),
            interim: 0,
            answered: false,
            head,
            keep,
            wants_upgrade,
            broken: None,
            timeout: answer_timeout,
            since: None,
        };
        match Upload::new(&parts, more, body, &mut connection.inner.scratch) {
            Ok(upload) => sending.exchange = Some(Exchange { connection, upload }),
            Err(body) => sending.refused = Some(body),
        }
        sending.parts = Some(parts);
        sending
    }
}

/// How an exchange went on after the head of its answer.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is taken apart at once")]
pub enum Outcome<IO, B, R> {
    /// An answer with its body.
    Response(Response<ResponseBody<IO, B, R>>),
    /// The protocol of the connection changed, as the request asked (101).
    Upgraded(Upgraded<IO>),
}

impl<IO, B, R> fmt::Debug for Outcome<IO, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Response(response) => f.debug_tuple("Response").field(&response.status()).finish(),
            Outcome::Upgraded(_) => f.write_str("Upgraded"),
        }
    }
}

/// A connection after 101: a plain stream of bytes.
pub struct Upgraded<IO> {
    /// The stream.
    pub io: IO,
    /// What was received behind the head: it comes before anything that `io` will give.
    pub leftover: Bytes,
    /// The answer's status and fields; `Upgrade` is among them, `Connection` is not.
    pub head: Response<()>,
}

impl<IO> fmt::Debug for Upgraded<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("leftover", &self.leftover.len()).finish_non_exhaustive()
    }
}

/// The future of [`Connection::send`].
#[must_use = "futures do nothing unless polled"]
pub struct Sending<IO, B, R> {
    exchange: Option<Exchange<IO, B>>,
    parts: Option<request::Parts>,
    /// The body of a request that cannot be sent.
    refused: Option<B>,
    recycler: Option<R>,
    scan: AnswerScan,
    interim: u8,
    /// A byte of an answer has arrived.
    answered: bool,
    head: bool,
    keep: bool,
    wants_upgrade: bool,
    /// The peer stopped taking the request. It may have answered before.
    broken: Option<io::Error>,
    timeout: Option<Duration>,
    /// When the upstream's turn began.
    since: Option<Instant>,
}

// Nothing in it is ever pinned: `IO` and `B` are `Unpin` wherever they are polled, `R` is only moved.
impl<IO, B, R> Unpin for Sending<IO, B, R> {}

impl<IO, B, R> fmt::Debug for Sending<IO, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("answered", &self.answered).finish_non_exhaustive()
    }
}

impl<IO, B, R> Future for Sending<IO, B, R>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Recycle<IO>,
{
    type Output = Result<Outcome<IO, B, R>, Failure<B>>;

    /// # Panics
    /// When polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match ready!(this.poll_head(cx)) {
            Ok((status, facts)) => Poll::Ready(this.outcome(status, &facts).map_err(|error| this.fail(error))),
            Err(error) => Poll::Ready(Err(this.fail(error))),
        }
    }
}

impl<IO, B, R> Sending<IO, B, R>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Recycle<IO>,
{
    /// Drives the upload, and reads until the head of the final answer is in the buffer.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u16, HeadFacts), Error>> {
        if self.refused.is_some() {
            return Poll::Ready(Err(Error::Unsendable));
        }
        let exchange = self.exchange.as_mut().expect("`Sending` is not polled after it was ready");
        match exchange.poll_upload(cx) {
            Poll::Pending | Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Stop::Body(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(Err(Stop::Write(error))) => self.broken = Some(error),
        }
        // Before the head is out nothing that arrives can be its answer.
        if exchange.upload.is_head_sent() {
            loop {
                let inner = &mut *exchange.connection.inner;
                if !inner.read.is_empty() {
                    self.answered = true;
                    match self.scan.advance(&inner.read, &inner.limits, &mut inner.spans) {
                        Ok(None) => {}
                        Ok(Some((status @ 100..=199, facts))) if status != 101 => {
                            if self.interim == MAX_INTERIM {
                                return Poll::Ready(Err(Error::BadAnswer(Violation::TooManyInterim)));
                            }
                            self.interim += 1;
                            let _interim = inner.read.split_to(facts.len);
                            inner.spans.clear();
                            self.scan = AnswerScan::new();
                            self.since = None;
                            continue;
                        }
                        Ok(Some(done)) => return Poll::Ready(Ok(done)),
                        Err(violation) => return Poll::Ready(Err(Error::BadAnswer(violation))),
                    }
                }
                match inner.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed(None))),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.closed(Some(error)))),
                    Poll::Pending => break,
                }
            }
        } else if self.broken.is_some() {
            return Poll::Ready(Err(self.closed(None)));
        }
        self.poll_timeout(cx)
    }

    /// What it means that the connection ended here.
    fn closed(&mut self, read: Option<io::Error>) -> Error {
        let exchange = self.exchange.as_ref().expect("only called while there is an exchange");
        let failed = read.or_else(|| self.broken.take());
        if !exchange.upload.is_anything_sent() {
            return Error::NothingSent(failed.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()));
        }
        match failed {
            None if self.answered => Error::BadAnswer(Violation::Incomplete),
            Some(error) if self.answered || !error::is_disconnect(&error) => Error::Io(error),
            _ => Error::ClosedBeforeAnswer { reused: exchange.connection.inner.exchanges > 0 },
        }
    }

    /// Arms the timer, if it is the upstream's turn.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u16, HeadFacts), Error>> {
        let (Some(timeout), Some(exchange)) = (self.timeout, self.exchange.as_mut()) else { return Poll::Pending };
        if exchange.upload.is_waiting_for_body() {
            self.since = None;
            return Poll::Pending;
        }
        if exchange.upload.take_progress() {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        // A time-out beyond what the clock can express is none.
        let Some(deadline) = since.checked_add(timeout) else { return Poll::Pending };
        let timer = exchange.connection.inner.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        // The timer may be one of an earlier exchange or an earlier moment of this one, and fire too soon.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(Error::Timeout));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Turns the head in the buffer into the answer.
    fn outcome(&mut self, status: u16, facts: &HeadFacts) -> Result<Outcome<IO, B, R>, Error> {
        let mut exchange = self.exchange.take().expect("the head was read from it");
        let inner = &mut *exchange.connection.inner;
        let headers = inner.take_headers(facts.len, self.scan.fields.other_token).map_err(Error::BadAnswer)?;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Error::BadAnswer(Violation::BadStatus))?;
        *response.headers_mut() = headers;
        self.parts = None;
        if status == 101 {
            if !self.wants_upgrade || facts.minor_version == 0 || !exchange.upload.is_done() {
                return Err(Error::BadAnswer(Violation::UnexpectedUpgrade));
            }
            let Inner { io, mut read, .. } = *exchange.connection.inner;
            return Ok(Outcome::Upgraded(Upgraded { io, leftover: read.split().freeze(), head: response }));
        }
        let mut keep = self.keep && facts.is_persistent();
        let decoder = match facts.framing {
            _ if self.head || status == 304 => Decoder::Done,
            framing if status == 204 => {
                // RFC 9110 §8.6 forbids a length here. One of 0 is harmless and common; another one announces bytes
                // that are no answer to anything.
                keep &= matches!(framing, Framing::Unframed | Framing::Length(0));
                Decoder::Done
            }
            Framing::Length(0) => Decoder::Done,
            Framing::Length(left) => Decoder::Length(left),
            Framing::Chunked => Decoder::Chunked(Chunks::new()),
            Framing::Unframed => {
                keep = false;
                Decoder::UntilClose
            }
        };
        let body = ResponseBody::new(exchange, decoder, keep, self.recycler.take());
        Ok(Outcome::Response(response.map(|()| body)))
    }

    /// Closes the connection; gives the request back where its body is untouched.
    fn fail(&mut self, error: Error) -> Failure<B> {
        let body = self.refused.take().or_else(|| self.exchange.take()?.upload.into_untouched());
        let request = match (self.parts.take(), body) {
            (Some(parts), Some(body)) => Some(Box::new(Request::from_parts(parts, body))),
            _ => None,
        };
        Failure { error, request }
    }
}

impl<IO: AsyncRead + Unpin> Inner<IO> {
    /// Reads once into the buffer. `Ok(0)` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.fast {
            let mut block = Block::take(blocks::SMALLEST);
            let mut buffer = ReadBuf::new(block.room(SMALL_READ));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            self.read.extend_from_slice(buffer.filled());
            self.fast = buffer.remaining() == 0;
            return Poll::Ready(Ok(buffer.filled().len()));
        }
        if self.read.capacity() - self.read.len() < MIN_ROOM {
            self.read.reserve(LARGE_READ);
        }
        pin!(self.io.read_buf(&mut self.read)).poll(cx)
    }

    /// Reads once where nothing but `most` bytes of data can come, past the buffer. No bytes are the end of the stream.
    fn poll_data(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut block = Block::take(self.block);
        let mut buffer = ReadBuf::new(block.room(usize::try_from(most).unwrap_or(usize::MAX)));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let (count, full) = (buffer.filled().len(), buffer.remaining() == 0);
        // It comes faster than it is read: fewer and larger reads from now on. Or slower.
        self.block = match () {
            () if full => (self.block * 2).min(self.largest),
            () if count < self.block / 2 => (self.block / 2).max(blocks::SMALLEST),
            () => self.block,
        };
        Poll::Ready(Ok(block.filled(count)))
    }

    /// Takes the judged head out of the buffer.
    fn take_headers(&mut self, len: usize, other_token: bool) -> Result<HeaderMap, Violation> {
        let head = self.read.split_to(len).freeze();
        let mut headers = HeaderMap::with_capacity(self.spans.len() + ROOM_FOR_FIELDS);
        let mut named = Vec::new();
        for Span { name, value } in self.spans.drain(..) {
            let name = head.get(name.0 as usize..name.1 as usize).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| Violation::BadHeaderName)?;
            let value = head.slice(value.0 as usize..value.1 as usize);
            if name == header::CONNECTION {
                if other_token {
                    named.extend(
                        value.split(|&b| b == b',').filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()),
                    );
                }
                continue;
            }
            if name == header::TRANSFER_ENCODING || is_hop_by_hop(&name) {
                continue;
            }
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| Violation::ControlCharacter)?;
            headers.try_append(name, value).map_err(|_| Violation::TooManyHeaders)?;
        }
        for name in named {
            // RFC 9110 §7.6.1. `Upgrade` is the caller's to pass on or not.
            if name != header::UPGRADE {
                headers.remove(name);
            }
        }
        Ok(headers)
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(name.as_str().len(), 10 | 16) && matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
