//! The client side: judges the framing of HTTP/1 before the HTTP library's server reads it.
//!
//! Guide section 21. The library repairs some framing silently: it drops a `Content-Length` beside `Transfer-Encoding`, takes
//! a bare LF, and answers what it cannot parse without asking anybody. [`Guard`] is an `AsyncRead + AsyncWrite` in front of it. It
//! passes bytes on unchanged, straight into the reader's buffer, and follows the messages of the connection; a head that is
//! not complete is held back, so that of a bad head nothing ever gets through. It is no second parser of bodies.
//!
//! On a violation it waits until the requests before are answered, writes an answer of its own, and closes slowly enough for the
//! client to read it. A violation inside of a body whose request is being answered already only fails the body
//! ([`Violation::in_error`] finds it in the error).
//!
//! # With hyper's server
//! Leave `max_headers` alone where [`Limits::headers`] is at most its default of 100 (a number of its own costs two allocations
//! a request), and `half_close` and `pipeline_flush` off; set `max_buf_size` above [`Limits::head_bytes`], and
//! `header_read_timeout(None)`: the guard has one timer for that and for idle connections, which is moved only when it fires.
//! The service calls [`Handle::begin`] first and keeps the token in the answer's body.
//!
//! # Idle connections
//! The server keeps two buffers of 8 KiB and the room of a request for as long as it lives. So that a thousand idle
//! connections do not cost what a thousand requests do, the server is made when [`Guard::poll_stir`] says that there is
//! something for it, and may be taken down ([`Handle::may_park`]) and made again between two requests.
//!
//! # Memory
//! Nothing while heads arrive in one piece; a head in pieces, at most [`Limits::head_bytes`] and one read; up to 16 KiB that a
//! client sends before its tunnel is open, or behind its last request.

mod follow;
mod handle;
mod refuse;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use self::follow::{Follow, Place, Refused};
use self::handle::Shared;
pub use self::handle::{Handle, InFlight};
use self::refuse::Refusal;
use crate::{Limits, Violation};

/// What is held back of undecided bytes before reading stops.
const MAX_UNDECIDED: usize = 16 * 1024;
/// Read at a time behind a partial head.
const BLOCK: usize = 4 * 1024;
/// Read at once of what ends the rest of a connection: most heads.
const FIRST: usize = 2 * 1024;

/// Bounds and times of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Of each request head.
    pub limits: Limits,
    /// From the first byte of a head (of the first one: from the connection's beginning) until it is complete. Default 10 s.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. Default 75 s.
    pub idle_timeout: Duration,
    /// After how long between two requests [`Handle::may_park`] says that the server need not be kept. Default 2 s.
    pub park_after: Duration,
    /// How long the client may take to read the answer to a violation. Default 2 s.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limits: Limits::default(),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            park_after: Duration::from_secs(2),
            linger: Duration::from_secs(2),
        }
    }
}

/// A connection whose requests are judged. See the [module](self).
///
/// `F` writes the whole answer to a violation, status line to body, with `Connection: close`. It is called at most once;
/// that is also the place to log. Bytes that arrive late ([`Violation::HeadTimeout`]) are answered in the same way, an
/// idle connection is closed without a word.
pub struct Guard<IO, F> {
    io: IO,
    shared: Arc<Shared>,
    config: Config,
    follow: Follow,
    /// Received and not passed on.
    held: BytesMut,
    /// How much of it may be.
    approved: usize,
    /// The client sent its last byte while something was held.
    ended: bool,
    /// Bytes are written that are not flushed yet.
    unflushed: bool,
    /// Since when the client owes us something.
    waiting: Waiting,
    timer: Option<Pin<Box<Sleep>>>,
    answer: Option<F>,
    refusal: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// It is not the client's turn.
    No,
    /// For the first byte of the first request, or for the rest of a head.
    Head(Instant),
    /// For another request.
    Idle(Instant),
}

impl<IO, F> fmt::Debug for Guard<IO, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("follow", &self.follow).field("held", &self.held.len()).finish_non_exhaustive()
    }
}

// Nothing in it is ever pinned: `IO` is `Unpin` wherever it is polled, `F` is only moved.
impl<IO, F> Unpin for Guard<IO, F> {}

impl<IO, F> Guard<IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Violation) -> Bytes,
{
    /// Guards `io`, which must be at the start of its first request. `answer` is described at [`Guard`].
    pub fn new(io: IO, config: Config, answer: F) -> Self {
        Guard {
            io,
            shared: Arc::default(),
            follow: Follow::new(config.limits),
            config,
            held: BytesMut::new(),
            approved: 0,
            ended: false,
            unflushed: false,
            waiting: Waiting::Head(Instant::now()),
            timer: None,
            answer: Some(answer),
            refusal: None,
        }
    }

    /// The other end, for the service.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Judges bytes, and tells the handle. What is not approved of is to be held, or thrown away after a violation.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let passed = self.follow.passed;
        let approved = match self.follow.judge(bytes) {
            Ok(approved) => approved,
            Err(Refused { approved, violation, in_body }) => {
                self.refuse(violation, in_body);
                approved
            }
        };
        if self.follow.passed != passed {
            self.shared.set_passed(self.follow.passed);
            self.waiting = Waiting::No;
        }
        if self.shared.is_parkable() {
            self.shared.set_parkable(false);
        }
        self.shared.set_partial(approved < bytes.len());
        approved
    }

    fn refuse(&mut self, violation: Violation, in_body: bool) {
        self.shared.set_violation(violation);
        self.follow.place = Place::Refused;
        self.refusal = Some(Refusal::new(violation, in_body));
        self.shared.set_partial(false);
    }

    fn is_busy(&self) -> bool {
        self.shared.is_busy(self.follow.passed)
    }

    /// Judges what is held again, after more of it came.
    fn judge_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.approved = self.judge(&held);
        self.held = held;
        if self.refusal.is_some() {
            self.held.truncate(self.approved);
        }
    }

    /// Gives the reader what it may have.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.approved.min(buf.remaining());
        buf.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.approved -= count;
        if self.held.is_empty() {
            // Not kept for connections that are idle for minutes.
            self.held = BytesMut::new();
        }
    }

    /// Reads more behind what is held. `true`: there is something new to look at.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(BLOCK);
        let count = ready!(pin!(self.io.read_buf(&mut self.held)).poll(cx))?;
        self.ended = count == 0;
        Poll::Ready(Ok(()))
    }

    /// Reads into the reader's own buffer. Ready: something may be passed on, or the stream ended. `false`: nothing of it.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let Some(bytes @ [_, ..]) = buf.filled().get(before..) else { return Poll::Ready(Ok(true)) };
        let approved = self.judge(bytes);
        if approved < bytes.len() {
            if self.refusal.is_none() {
                self.held.extend_from_slice(&bytes[approved..]);
            }
            buf.set_filled(before + approved);
        }
        Poll::Ready(Ok(approved > 0))
    }

    /// Bytes that nobody can judge yet, or need not.
    fn poll_undecided(&mut self, cx: &mut Context<'_>, may_tunnel: bool) -> Poll<io::Result<Undecided>> {
        loop {
            // Before it is looked at, or an answer that ends in between would wake nobody.
            self.shared.wait(cx.waker());
            if !may_tunnel && !self.is_busy() {
                // Everything is answered. A server that reads on did not understand that the last request was to end the
                // connection (it may read another word in `Connection` than we do), and no timer runs here.
                return Poll::Ready(Ok(Undecided::End));
            }
            if may_tunnel {
                if self.shared.is_tunnel() {
                    self.approved = self.held.len();
                    return Poll::Ready(Ok(Undecided::Go));
                }
                if !self.is_busy() {
                    // It was an ordinary answer, and what follows is an ordinary request.
                    self.follow.expect_head();
                    self.judge_held();
                    return Poll::Ready(Ok(Undecided::Go));
                }
            }
            if self.ended {
                // With something held the end of the stream is not the end of what the client said.
                return if self.held.is_empty() { Poll::Ready(Ok(Undecided::End)) } else { Poll::Pending };
            }
            if self.held.len() >= MAX_UNDECIDED {
                return Poll::Pending;
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Nothing came. Whether the client has had its time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.follow.place, Place::Head(_)) {
            return Poll::Pending;
        }
        let partial = !self.held.is_empty();
        match self.waiting {
            Waiting::Head(_) => {}
            Waiting::Idle(_) if !partial => {}
            _ => {
                if self.is_busy() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                self.waiting = if partial { Waiting::Head(now) } else { Waiting::Idle(now) };
            }
        }
        let deadline = match self.waiting {
            Waiting::No => return Poll::Pending,
            Waiting::Head(since) => since.checked_add(self.config.head_timeout),
            Waiting::Idle(since) => {
                let deadline = since.checked_add(self.config.idle_timeout);
                let park = since.checked_add(self.config.park_after);
                if !self.shared.is_parkable()
                    && let Some(park) = park.filter(|park| deadline.is_none_or(|deadline| *park < deadline))
                {
                    ready!(self.poll_timer(park, cx));
                    // What is written and not flushed lies in the server, in part.
                    self.shared.set_parkable(!self.unflushed);
                }
                deadline
            }
        };
        let Some(deadline) = deadline else { return Poll::Pending };
        self.poll_timer(deadline, cx)
    }

    /// Waits, without memory of its own, until there is something for a server to read: bytes, or the end.
    ///
    /// # Errors
    /// Those of reading.
    pub fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() || self.ended || self.refusal.is_some() {
            return Poll::Ready(Ok(()));
        }
        let mut first = [0; FIRST];
        let mut buf = ReadBuf::new(&mut first);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf)? {
            Poll::Ready(()) if buf.filled().is_empty() => self.ended = true,
            Poll::Ready(()) => {
                self.held.extend_from_slice(buf.filled());
                self.judge_held();
            }
            Poll::Pending => {
                ready!(self.poll_deadline(cx));
                // Nobody is waiting for anything: the end of the stream, as if the client had gone.
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes back what was passed on, where the server that is taken down has not read it.
    pub fn give_back(&mut self, unread: &[u8]) {
        if !unread.is_empty() {
            self.held = [unread, &self.held].concat().as_slice().into();
            self.approved += unread.len();
        }
    }

    /// An answer, or a part of one, is out. The server does not read again just because of that: it has read in vain
    /// already. So the client's time starts here.
    fn after_flush(&mut self, cx: &mut Context<'_>) {
        if self.refusal.is_some() {
            self.shared.wake();
        } else if self.is_busy() {
            // More of it comes; or the token outlives the answer, and nobody would tell us.
            self.shared.wait(cx.waker());
        } else if self.waiting == Waiting::No {
            // Should the time be over at once, the next read says so.
            let _ = self.poll_deadline(cx);
        }
    }

    /// One timer a connection, for whatever is waited for. It is moved when it must fire earlier, or has fired too early.
    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

enum Undecided {
    /// Something was decided.
    Go,
    End,
}

impl<IO, F> AsyncRead for Guard<IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Violation) -> Bytes,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.approved > 0 {
                this.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            let polled = match this.follow.place {
                Place::Refused => return this.poll_refusal(cx),
                Place::Undecided if this.shared.is_tunnel() && this.held.is_empty() => {
                    return Pin::new(&mut this.io).poll_read(cx, buf);
                }
                Place::Undecided | Place::Over => {
                    let may_tunnel = matches!(this.follow.place, Place::Undecided);
                    match this.poll_undecided(cx, may_tunnel) {
                        Poll::Ready(Ok(Undecided::Go)) => continue,
                        Poll::Ready(Ok(Undecided::End)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                // The end of a client that sent half of something.
                _ if this.ended => return Poll::Ready(Ok(())),
                _ if this.held.is_empty() => this.poll_direct(cx, buf),
                _ => this.poll_more(cx).map_ok(|()| {
                    this.judge_held();
                    false
                }),
            };
            match polled {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(this.poll_deadline(cx));
                    if this.held.is_empty() {
                        // Nobody is waiting for anything: the end of the stream, as if the client had gone.
                        this.ended = true;
                    } else {
                        this.refuse(Violation::HeadTimeout, false);
                        this.held.clear();
                    }
                }
            }
        }
    }
}

impl<IO, F> AsyncWrite for Guard<IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Violation) -> Bytes,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.before_write(buf)?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.before_write(bufs.first().map_or(&[], |first| first))?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if std::mem::take(&mut this.unflushed) {
            this.after_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.as_ref().is_some_and(Refusal::has_begun) {
            // The server closes; the client still gets to read why.
            return this.poll_refusal(cx).map(|_| Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
