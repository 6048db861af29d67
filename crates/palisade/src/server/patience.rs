//! A client that takes nothing of what it asked for.
//!
//! Guide section 21. Around the socket itself, below TLS: what the system's buffer does not take for `limits.answer_time`
//! is given up with the connection. A client that reads, however slowly, makes room in that buffer and is waited for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose other end must read.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    limit: Option<Duration>,
    /// Writing waits.
    stalled: bool,
    /// For too long. Whoever reads is told too: writes may be made where nobody looks at their outcome.
    expired: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// `None`: without a limit.
    pub(super) fn new(stream: S, limit: Option<Duration>) -> Self {
        Self { stream, limit, stalled: false, expired: false, timer: None }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn judge(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.stalled = false;
            return polled;
        }
        let deadline = || Instant::now().checked_add(self.limit?);
        let timer = match &mut self.timer {
            Some(timer) if self.stalled => timer,
            timer => {
                let Some(deadline) = deadline() else { return Poll::Pending };
                self.stalled = true;
                match timer {
                    Some(timer) => timer.as_mut().reset(deadline),
                    None => *timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
                }
                match timer {
                    Some(timer) => timer,
                    None => return Poll::Pending,
                }
            }
        };
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.expired = true;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.expired {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.judge(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn whoever_reads_is_waited_for_and_nobody_else() {
        let limit = Duration::from_secs(2);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Patience::new(ours, Some(limit));
        let reading = tokio::spawn(async move {
            let mut piece = [0; 8];
            for _ in 0..30 {
                tokio::time::sleep(limit / 20).await;
                theirs.read_exact(&mut piece).await.unwrap();
            }
            theirs
        });
        // What fits, and behind it what takes longer than the limit in all.
        ours.write_all(&[0; 64 + 30 * 8]).await.unwrap();
        let theirs = reading.await.unwrap();
        let before = Instant::now();
        assert_eq!(ours.write_all(&[0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= limit);
        drop(theirs);
        let (ours, _theirs) = tokio::io::duplex(1);
        let mut ours = Patience::new(ours, None);
        assert!(tokio::time::timeout(limit, ours.write_all(&[0; 2])).await.is_err(), "without a limit");
    }
}
