//! Closing so that the client can read why.
//!
//! A socket that is closed while bytes of the client are unread is reset, and the reset takes the last answer with it
//! (RFC 9112 §9.6). A 413 in the middle of an upload is that case. So the writing half is closed first, and what the
//! client still sends is read and thrown away until it stops, for a bounded time.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A client that sends nothing for so long has had time to read.
const QUIET: Duration = Duration::from_secs(2);
/// Nobody is listened to longer than that.
const LONGEST: Duration = Duration::from_secs(10);
/// What one poll throws away at most, so that a fast sender does not keep the thread for itself.
const READS_A_POLL: usize = 16;

/// A stream whose `shutdown` takes the time it needs.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    closing: Option<Box<Closing>>,
}

#[derive(Debug)]
struct Closing {
    /// The client has been told that nothing more comes.
    told: bool,
    until: Instant,
    quiet: Pin<Box<Sleep>>,
    waste: [u8; 8192],
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, closing: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closing = this.closing.get_or_insert_with(|| {
            let now = Instant::now();
            let quiet = Box::pin(tokio::time::sleep_until(now + QUIET));
            Box::new(Closing { told: false, until: now + LONGEST, quiet, waste: [0; 8192] })
        });
        if !closing.told {
            // A client that takes nothing any more is not waited for either.
            if closing.quiet.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            closing.told = true;
        }
        for _ in 0..READS_A_POLL {
            let mut waste = ReadBuf::new(&mut closing.waste);
            match Pin::new(&mut this.stream).poll_read(cx, &mut waste) {
                Poll::Ready(Ok(())) if !waste.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= closing.until {
                        return Poll::Ready(Ok(()));
                    }
                    closing.quiet.as_mut().reset((now + QUIET).min(closing.until));
                }
                // The end, or an error: there is nobody left.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return closing.quiet.as_mut().poll(cx).map(Ok),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
