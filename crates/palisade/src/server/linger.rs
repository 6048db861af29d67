//! A polite end for connections whose client is still sending.
//!
//! When a request is answered before its body was read (413, 401, an application that does not care), the connection is
//! closed. Were it dropped with bytes unread, the system would answer with a reset, and a reset throws away what the
//! client has received and not yet read: the answer. So what still comes is read and thrown away for a while (RFC 9112
//! §9.6). Only after an abandoned body: other connections end at once.
//!
//! The connection's [`Share`] of what its thread writes is counted here as well: under everything that writes to a client,
//! and above TLS, so that what has to wait is not encrypted either.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::turns::{Share, Turn};

/// No longer than this after the answer.
const LONGEST: Duration = Duration::from_secs(5);
/// And no more than this, in bytes.
const MOST: usize = 64 * 1024 * 1024;
/// In one turn: what a flood has still on its way when it is ended comes on many connections at once.
const PIECE: usize = 32 * 1024;

/// A stream that lingers when it is shut down after `abandoned` was set.
#[derive(Debug)]
pub(super) struct Linger<S> {
    stream: S,
    abandoned: Arc<AtomicBool>,
    state: State,
    share: Share,
}

#[derive(Debug)]
enum State {
    Open,
    Draining { left: usize, until: Pin<Box<Sleep>>, turn: Turn, piece: usize },
    Closed,
}

impl<S> Linger<S> {
    pub(super) fn new(stream: S, abandoned: Arc<AtomicBool>) -> Self {
        Self { stream, abandoned, state: State::Open, share: Share::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.share.poll(cx));
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.share.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.share.poll(cx));
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.share.moved(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let State::Open = this.state {
            // Our half first: the client sees the end of the answer and can stop sending.
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.state = if this.abandoned.load(Ordering::Relaxed) {
                let until = Box::pin(tokio::time::sleep(LONGEST));
                State::Draining { left: MOST, until, turn: Turn::later(), piece: PIECE }
            } else {
                State::Closed
            };
        }
        let State::Draining { left, until, turn, piece } = &mut this.state else { return Poll::Ready(Ok(())) };
        let mut space = [0; 16 * 1024];
        loop {
            if until.as_mut().poll(cx).is_ready() {
                break;
            }
            if *piece == 0 {
                ready!(turn.poll(cx));
                *piece = PIECE;
            }
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) => {}
            }
            let read = buffer.filled().len();
            let Some(rest) = left.checked_sub(read).filter(|_| read > 0) else { break };
            *left = rest;
            *piece = piece.saturating_sub(read);
        }
        this.state = State::Closed;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::context::Listener;
    use crate::server::connection::Entrance;
    use crate::testing_local::App;

    /// Sends a head and then a body for as long as it can, reads only then, and says what it got and how much it sent.
    async fn send_all_then_read(policy: &str, head: &str, piece: &[u8], most: usize) -> (String, usize) {
        let app = App::start(policy);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Arc::clone(&app.handle);
        let state = crate::server::state(handle.live().policy.env());
        let entrance = Arc::new(Entrance { kind: Listener::Http, handle, state, tls: None });
        tokio::spawn(async move {
            let (stream, peer) = listener.accept().await.unwrap();
            entrance.take(stream, peer);
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let sent = AtomicU64::new(0);
        while sent.load(Ordering::Relaxed) < most as u64 {
            if client.write_all(piece).await.is_err() {
                break;
            }
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        (String::from_utf8_lossy(&answer).into_owned(), usize::try_from(sent.into_inner()).unwrap())
    }

    fn chunk() -> Vec<u8> {
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend_from_slice(&[b'x'; 0x10000]);
        chunk.extend_from_slice(b"\r\n");
        chunk
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_sends_first_and_reads_later_gets_its_answer() {
        let open = "POST /echo HTTP/1.1\r\nhost: localhost\r\n";
        let sixteen = 16 << 20;
        for (head, piece, status) in [
            (format!("{open}transfer-encoding: chunked\r\n\r\n"), chunk(), "413"),
            (format!("{open}content-length: {sixteen}\r\n\r\n"), vec![b'x'; 65536], "413"),
            (
                "POST /ignore HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
                chunk(),
                "200",
            ),
        ] {
            let (answer, sent) = send_all_then_read("", &head, &piece, sixteen).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}{answer}");
            assert!(sent >= sixteen, "the connection was cut after {sent} bytes");
        }
    }
}
