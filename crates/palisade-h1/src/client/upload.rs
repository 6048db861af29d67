//! The request on its way out: head, chunk lines and data in as few writes as possible, and never more than one frame of the body in hand.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, request};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::error::{BoxError, Error};

/// Frames up to this size are copied behind the head or each other, so that small pieces share a write.
const COPY_BYTES: usize = 2 * 1024;
/// No more than this is gathered before it is written.
const GATHER_BYTES: usize = 16 * 1024;

/// Why the upload stopped.
pub(super) enum Stop {
    /// The body's fault: the exchange is over.
    Body(Error),
    /// The peer does not take it. It may have answered nevertheless.
    Write(io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// Bytes still to come from the body.
    Length(u64),
    Chunked,
}

/// A request body and what was taken out of it and is not written yet.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    coding: Coding,
    /// Head and chunk lines, with small data between them; written up to `scratch_at`, before `data`.
    scratch_at: usize,
    head_bytes: usize,
    data: Bytes,
    tail: &'static [u8],
    /// Nothing comes after what is in hand.
    last: bool,
    /// A frame was taken out of the body.
    taken: bool,
    /// Bytes were written at all; since [`Upload::take_progress`].
    written: bool,
    progress: bool,
    head_sent: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// All is written; the body has nothing more at the moment.
    WaitingForBody,
    Done,
    Broken,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Writes the head into `scratch`.
    pub(super) fn new(
        parts: &request::Parts,
        more: impl FnOnce(&mut MoreFields<'_>),
        body: B,
        scratch: &mut Vec<u8>,
    ) -> Result<Self, B> {
        let coding = body.size_hint().exact().map_or(Coding::Chunked, Coding::Length);
        scratch.clear();
        if !encode_head(parts, more, coding, scratch) {
            return Err(body);
        }
        Ok(Upload {
            body,
            coding,
            scratch_at: 0,
            head_bytes: scratch.len(),
            data: Bytes::new(),
            tail: b"",
            last: coding == Coding::Length(0),
            taken: false,
            written: false,
            progress: false,
            head_sent: false,
            state: State::Active,
        })
    }

    /// Everything is written and flushed.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Done, or given up.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    pub(super) fn is_head_sent(&self) -> bool {
        self.head_sent
    }

    pub(super) fn is_anything_sent(&self) -> bool {
        self.written
    }

    /// It is the client's turn, not the upstream's.
    pub(super) fn is_waiting_for_body(&self) -> bool {
        self.state == State::WaitingForBody
    }

    /// Whether bytes were written since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// The body, if nothing was taken out of it.
    pub(super) fn into_untouched(self) -> Option<B> {
        (!self.taken).then_some(self.body)
    }

    /// Writes as much as body and peer allow. Ready once everything is written.
    pub(super) fn poll<IO>(
        &mut self,
        io: &mut IO,
        scratch: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>>
    where
        IO: AsyncWrite + Unpin,
    {
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        self.state = State::Active;
        loop {
            let starved = if self.data.is_empty() && self.tail.is_empty() && !self.last {
                self.gather(scratch, cx).map_err(Stop::Body)?
            } else {
                false
            };
            match self.write(io, scratch, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.broken(error),
                Poll::Pending => return Poll::Pending,
            }
            if !starved && !self.last {
                continue;
            }
            match Pin::new(&mut *io).poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.broken(error),
                Poll::Pending => return Poll::Pending,
            }
            if starved {
                self.state = State::WaitingForBody;
                return Poll::Pending;
            }
            self.state = State::Done;
            return Poll::Ready(Ok(()));
        }
    }

    fn broken(&mut self, error: io::Error) -> Poll<Result<(), Stop>> {
        self.state = State::Broken;
        Poll::Ready(Err(Stop::Write(error)))
    }

    /// Takes frames out of the body: one large one, or small ones behind each other. True: the body has no more at the moment.
    fn gather(&mut self, scratch: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<bool, Error> {
        while scratch.len() < GATHER_BYTES {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => {
                    self.end(scratch)?;
                    return Ok(false);
                }
                Poll::Ready(Some(Err(error))) => return Err(Error::RequestBody(error.into())),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            // Trailers of requests end here: nothing behind a gateway expects fields that no control has seen.
            let Ok(data) = frame.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            self.taken = true;
            if self.take(data, scratch)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The body ended.
    fn end(&mut self, scratch: &mut Vec<u8>) -> Result<(), Error> {
        match self.coding {
            Coding::Length(0) => {}
            Coding::Length(_) => return Err(Error::RequestLength),
            Coding::Chunked => scratch.extend_from_slice(b"0\r\n\r\n"),
        }
        self.last = true;
        Ok(())
    }

    /// True: this is enough for a write.
    fn take(&mut self, data: Bytes, scratch: &mut Vec<u8>) -> Result<bool, Error> {
        let chunked = match &mut self.coding {
            Coding::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::RequestLength)?;
                self.last = *left == 0;
                false
            }
            Coding::Chunked => {
                push_hex(scratch, data.len());
                scratch.extend_from_slice(b"\r\n");
                self.last = self.body.is_end_stream();
                true
            }
        };
        let tail: &[u8] = match (chunked, self.last) {
            (false, _) => b"",
            (true, false) => b"\r\n",
            (true, true) => b"\r\n0\r\n\r\n",
        };
        if data.len() <= COPY_BYTES {
            scratch.extend_from_slice(&data);
            scratch.extend_from_slice(tail);
            return Ok(self.last);
        }
        self.data = data;
        self.tail = tail;
        Ok(true)
    }

    /// Writes what is in hand, until nothing of it is left.
    fn write<IO>(&mut self, io: &mut IO, scratch: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        IO: AsyncWrite + Unpin,
    {
        loop {
            let head = scratch.get(self.scratch_at..).unwrap_or_default();
            let written = match (head.is_empty(), self.data.is_empty() && self.tail.is_empty()) {
                (true, true) => break,
                (false, true) => Pin::new(&mut *io).poll_write(cx, head),
                _ => {
                    let parts = [IoSlice::new(head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                    // A writer without vectors takes the first slice that has something in it.
                    Pin::new(&mut *io).poll_write_vectored(cx, &parts)
                }
            };
            let count = match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            self.written = true;
            self.progress = true;
            self.advance(count, scratch.len());
        }
        scratch.clear();
        self.scratch_at = 0;
        self.head_bytes = 0;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize, scratch_len: usize) {
        let of_scratch = count.min(scratch_len - self.scratch_at);
        self.scratch_at += of_scratch;
        self.head_sent |= self.scratch_at >= self.head_bytes;
        let of_data = (count - of_scratch).min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            // Give the memory back as soon as it is written, not with the next frame.
            self.data = Bytes::new();
        }
        self.tail = self.tail.get(count - of_scratch - of_data..).unwrap_or_default();
    }
}

/// The end of a request's fields, to be written on.
#[derive(Debug)]
pub struct MoreFields<'h>(&'h mut Vec<u8>);

impl MoreFields<'_> {
    /// Writes a field.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }
}

/// `false`: the request cannot be written in origin form.
fn encode_head(
    parts: &request::Parts,
    more: impl FnOnce(&mut MoreFields<'_>),
    coding: Coding,
    out: &mut Vec<u8>,
) -> bool {
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if parts.method == Method::CONNECT {
        return false;
    }
    out.reserve(512);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    match target.as_bytes().first() {
        Some(b'/') => {}
        Some(b'*') if parts.method == Method::OPTIONS => {}
        Some(b'?') => out.push(b'/'),
        _ => return false,
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &parts.headers {
        // Framing is decided here and nowhere else; `Expect` was answered by whoever faces the client, and trailers are dropped.
        if name == header::CONTENT_LENGTH
            || name == header::TRANSFER_ENCODING
            || name == header::EXPECT
            || name == header::TRAILER
        {
            continue;
        }
        MoreFields(out).add(name, value);
    }
    more(&mut MoreFields(out));
    match coding {
        // RFC 9110 §8.6: a length of 0 is said where a body has a meaning, and not where nobody expects one.
        Coding::Length(0) if !means_body(&parts.method, &parts.headers) => {}
        Coding::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Coding::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    true
}

fn means_body(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH) || headers.contains_key(header::CONTENT_LENGTH)
}

fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_hex(out: &mut Vec<u8>, value: usize) {
    let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[value >> (digit * 4) & 15]);
    }
}

/// Whether the request asks to change the protocol of the connection.
pub(super) fn asks_for_upgrade<T>(request: &Request<T>) -> bool {
    request.headers().contains_key(header::UPGRADE) && names(request.headers(), "upgrade")
}

/// Whether a `Connection` field names `option`.
pub(super) fn names(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_plainly() {
        for (value, decimal, hex) in
            [(0u64, "0", "0"), (9, "9", "9"), (10, "10", "a"), (255, "255", "ff"), (65_536, "65536", "10000")]
        {
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            assert_eq!(out, decimal.as_bytes());
            out.clear();
            push_hex(&mut out, usize::try_from(value).unwrap());
            assert_eq!(out, hex.as_bytes());
        }
        let mut out = Vec::new();
        push_decimal(&mut out, u64::MAX);
        assert_eq!(out, u64::MAX.to_string().as_bytes());
    }
}
