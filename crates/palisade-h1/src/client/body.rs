//! The body of an answer, which owns the exchange until it is over.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{BoxError, Error};
use super::upload::{Stop, Upload};
use super::{Connection, KEPT_SCRATCH, LARGEST_FRAME, Recycle, SMALL_READ, blocks};
use crate::chunked::{Chunks, Step};
use crate::head::{Limits, is_forbidden_trailer};
use crate::scan::{self, Line};
use crate::{Violation, head::Fields};

/// Trailer sections are a few lines; the bound of heads would be generous.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// A connection in use, and the request on its way out.
pub(super) struct Exchange<IO, B> {
    pub(super) connection: Connection<IO>,
    pub(super) upload: Upload<B>,
}

impl<IO, B> Exchange<IO, B>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let inner = &mut *self.connection.inner;
        self.upload.poll(&mut inner.io, &mut inner.scratch, cx)
    }
}

/// Where in the body we are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Decoder {
    Done,
    /// Bytes left.
    Length(u64),
    Chunked(Chunks),
    /// The trailer section; where its first unread line starts.
    Trailers(usize),
    UntilClose,
}

/// One step of decoding.
enum Decoded {
    Frame(Frame<Bytes>),
    More,
    End,
}

/// The body of an answer. Polling it also sends what is left of the request.
///
/// Dropping it before its end closes the connection. A body that was cut short ends with an error, never like a whole one.
pub struct ResponseBody<IO, B, R> {
    exchange: Option<Exchange<IO, B>>,
    decoder: Decoder,
    keep: bool,
    recycler: Option<R>,
    trailers: Option<HeaderMap>,
    fields: Fields,
}

// Nothing in it is ever pinned: `IO` and `B` are `Unpin` wherever they are polled, `R` is only moved.
impl<IO, B, R> Unpin for ResponseBody<IO, B, R> {}

impl<IO, B, R> fmt::Debug for ResponseBody<IO, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

impl<IO, B, R> ResponseBody<IO, B, R>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Recycle<IO>,
{
    pub(super) fn new(exchange: Exchange<IO, B>, decoder: Decoder, keep: bool, recycler: Option<R>) -> Self {
        let mut body = ResponseBody {
            exchange: Some(exchange),
            decoder,
            keep,
            recycler,
            trailers: None,
            fields: Fields::default(),
        };
        if matches!(decoder, Decoder::Done) {
            body.finish();
        }
        body
    }

    /// The answer is complete: the connection goes back, if the request is complete as well and nothing else came.
    fn finish(&mut self) {
        self.decoder = Decoder::Done;
        let (Some(exchange), Some(recycler)) = (self.exchange.take(), self.recycler.take()) else { return };
        let Exchange { mut connection, upload } = exchange;
        let inner = &mut *connection.inner;
        if !self.keep || !upload.is_done() || !inner.read.is_empty() {
            return;
        }
        drop(upload);
        inner.exchanges += 1;
        inner.fast = false;
        inner.block = blocks::SMALLEST;
        inner.largest = LARGEST_FRAME;
        if inner.read.capacity() > SMALL_READ {
            inner.read = BytesMut::new();
        }
        if inner.scratch.capacity() > KEPT_SCRATCH {
            inner.scratch = Vec::new();
        }
        if let Some(timer) = &mut inner.timer {
            // Or the idle connection would hold on to the task that waited here last.
            let _ = timer.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        recycler.recycle(connection);
    }

    /// Frames of this answer shall not be larger than this (and 64 KiB, if that is more): for whoever may have to hold one
    /// for each of many answers.
    pub fn set_largest_frame(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.connection.inner.largest = bytes.clamp(blocks::SMALLEST, LARGEST_FRAME);
        }
    }

    /// How much may come of which every byte is data of this answer. `None` where something else can come, or where some of it
    /// has come already.
    fn only_data(&self) -> Option<u64> {
        let is_read = |exchange: &Exchange<IO, B>| exchange.connection.inner.read.is_empty();
        match self.decoder {
            Decoder::Length(left) if self.exchange.as_ref().is_some_and(is_read) => Some(left),
            Decoder::UntilClose if self.exchange.as_ref().is_some_and(is_read) => Some(u64::MAX),
            _ => None,
        }
    }

    /// Takes note of data that was read past the buffer.
    fn took(&mut self, data: &Bytes) {
        if let Decoder::Length(left) = &mut self.decoder {
            *left = left.saturating_sub(data.len() as u64);
            if *left == 0 {
                self.finish();
            }
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.decoder = Decoder::Done;
        self.exchange = None;
        self.recycler = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Takes the next piece out of what was received.
    fn decode(&mut self) -> Result<Decoded, Error> {
        let Some(exchange) = &mut self.exchange else { return Ok(Decoded::End) };
        let inner = &mut *exchange.connection.inner;
        loop {
            match &mut self.decoder {
                Decoder::Done => return Ok(Decoded::End),
                Decoder::UntilClose => {
                    if inner.read.is_empty() {
                        return Ok(Decoded::More);
                    }
                    return Ok(Decoded::Frame(Frame::data(inner.read.split().freeze())));
                }
                Decoder::Length(left) => {
                    let here = inner.read.len();
                    let len = usize::try_from(*left).map_or(here, |left| left.min(here));
                    if len == 0 {
                        return Ok(Decoded::More);
                    }
                    *left -= len as u64;
                    let data = inner.read.split_to(len).freeze();
                    if *left == 0 {
                        self.finish();
                    }
                    return Ok(Decoded::Frame(Frame::data(data)));
                }
                Decoder::Chunked(chunks) => match chunks.step(&inner.read).map_err(Error::BadAnswer)? {
                    Step::More => {
                        inner.read.clear();
                        return Ok(Decoded::More);
                    }
                    Step::Data { start, len } => {
                        inner.read.advance(start);
                        return Ok(Decoded::Frame(Frame::data(inner.read.split_to(len).freeze())));
                    }
                    Step::Trailers { start } => {
                        inner.read.advance(start);
                        self.decoder = Decoder::Trailers(0);
                    }
                },
                Decoder::Trailers(at) => {
                    let section = Trailers { limits: &inner.limits, map: &mut self.trailers, fields: &mut self.fields };
                    let Some(len) = section.read(&inner.read, at).map_err(Error::BadAnswer)? else {
                        return Ok(Decoded::More);
                    };
                    inner.read.advance(len);
                    self.finish();
                    return Ok(match self.trailers.take() {
                        Some(trailers) => Decoded::Frame(Frame::trailers(trailers)),
                        None => Decoded::End,
                    });
                }
            }
        }
    }
}

struct Trailers<'a> {
    limits: &'a Limits,
    map: &'a mut Option<HeaderMap>,
    fields: &'a mut Fields,
}

impl Trailers<'_> {
    /// Goes on at `at`. The length of the section once it is complete.
    fn read(self, bytes: &[u8], at: &mut usize) -> Result<Option<usize>, Violation> {
        loop {
            match scan::field_line(bytes, *at)? {
                Line::Field { name, value, next } => {
                    let (name, value) = (&bytes[name.0..name.1], &bytes[value.0..value.1]);
                    if is_forbidden_trailer(name) {
                        return Err(Violation::ForbiddenTrailer);
                    }
                    self.fields.note(name, value, self.limits)?;
                    let name = HeaderName::from_bytes(name).map_err(|_| Violation::BadHeaderName)?;
                    let value = HeaderValue::from_bytes(value).map_err(|_| Violation::ControlCharacter)?;
                    let map = self.map.get_or_insert_with(HeaderMap::new);
                    map.try_append(name, value).map_err(|_| Violation::TooManyHeaders)?;
                    *at = next;
                }
                Line::End { next } => return Ok(Some(next)),
                Line::Partial if bytes.len() > MAX_TRAILER_BYTES => return Err(Violation::HeadTooLarge),
                Line::Partial => return Ok(None),
            }
            if *at > MAX_TRAILER_BYTES {
                return Err(Violation::HeadTooLarge);
            }
        }
    }
}

impl<IO, B, R> Body for ResponseBody<IO, B, R>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Recycle<IO>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(exchange) = &mut this.exchange
            && !exchange.upload.is_over()
            && let Poll::Ready(Err(Stop::Body(error))) = exchange.poll_upload(cx)
        {
            // A peer that no longer takes the request still owes us the rest of its answer; a client that no longer
            // sends it has left.
            return this.fail(error);
        }
        loop {
            match this.decode() {
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => return this.fail(error),
            }
            let only_data = this.only_data();
            let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
            let read = match only_data {
                None => ready!(exchange.connection.inner.poll_fill(cx)),
                Some(most) => match ready!(exchange.connection.inner.poll_data(most, cx)) {
                    Ok(data) if !data.is_empty() => {
                        this.took(&data);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    end => end.map(|_| 0),
                },
            };
            match read {
                Ok(0) if matches!(this.decoder, Decoder::UntilClose) => {
                    this.decoder = Decoder::Done;
                    this.exchange = None;
                    this.recycler = None;
                    return Poll::Ready(None);
                }
                Ok(0) => return this.fail(Error::Truncated),
                Ok(_) => {}
                Err(error) => return this.fail(Error::Io(error)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.decoder, Decoder::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Done => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}
