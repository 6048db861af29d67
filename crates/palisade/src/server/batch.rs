//! Fewer and larger writes over TLS: for HTTP/2, whose library flushes after every frame.
//!
//! What is written while the connection is polled fills TLS records, each encrypted when it is full: what is [`SMALL`] waits
//! for more, so that a frame of data and its head, nine bytes longer than a record, become one and no more. They go to the
//! socket when they have become [`ENOUGH`], and all of it at the end of the poll. A large answer takes a quarter of the system
//! calls and half of the records, and nothing waits: between two polls nothing is held back but what the socket does not
//! take.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// This much is worth a system call in the middle of a poll: the full records that the TLS layer keeps at most.
const ENOUGH: usize = 15 * RECORD;
/// What a TLS record holds (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// Less than this is copied, to be encrypted together with what follows; a record of its own is cheaper than copying more.
const SMALL: usize = 4 * 1024;
/// Pieces that are encrypted together; whoever writes more at once writes the others again.
const PIECES: usize = 8;

/// The socket under TLS: while it holds, small writes must wait.
#[derive(Debug)]
pub(super) struct Valve<S> {
    socket: S,
    holds: bool,
}

impl<S> Valve<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, holds: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Valve<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Valve<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds && bytes.len() < ENOUGH {
            // No waker: whoever holds it opens it before the task sleeps.
            return Poll::Pending;
        }
        Pin::new(&mut this.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds && slices.iter().map(|slice| slice.len()).sum::<usize>() < ENOUGH {
            return Poll::Pending;
        }
        Pin::new(&mut this.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// A stream over TLS whose flushes wait for the end of the poll. Clones share it.
#[derive(Debug)]
pub(super) struct Batch<S>(Arc<Mutex<Inner<S>>>);

#[derive(Debug)]
struct Inner<S> {
    stream: TlsStream<Valve<S>>,
    /// Written and not yet encrypted: small pieces, together less than a record.
    tail: Vec<u8>,
    /// A writer was told to wait, for what the end of the poll may change.
    refused: bool,
}

impl<S> Clone for Batch<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Batch<S> {
    pub(super) fn new(mut stream: TlsStream<Valve<S>>) -> Self {
        stream.get_mut().0.holds = true;
        Self(Arc::new(Mutex::new(Inner { stream, tail: Vec::new(), refused: false })))
    }

    /// Polls what writes to this stream, and then lets out what it wrote.
    pub(super) fn poll<F: Future>(&self, cx: &mut Context<'_>, future: Pin<&mut F>) -> Poll<F::Output> {
        let outcome = future.poll(cx);
        let mut inner = self.0.lock();
        let refused = std::mem::take(&mut inner.refused);
        let released = inner.release(cx);
        // A failure shows in the next read or write of whoever uses the stream; nothing else would wake for one in time, nor
        // for room where the socket was never asked.
        let wakes = match &released {
            Poll::Ready(Ok(())) => refused,
            Poll::Ready(Err(error)) => error.kind() == io::ErrorKind::TimedOut,
            Poll::Pending => false,
        };
        if wakes {
            cx.waker().wake_by_ref();
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// Lets out what lies here and in the stream, as far as the socket takes it.
    fn release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tail.is_empty() && !self.stream.get_ref().1.wants_write() {
            return Poll::Ready(Ok(()));
        }
        // Encrypted while the valve is shut, so that it leaves together with what lies in the stream.
        let encrypted = self.encrypt_tail(cx);
        let held = std::mem::replace(&mut self.stream.get_mut().0.holds, false);
        let released = match encrypted {
            Poll::Pending => self.encrypt_tail(cx),
            encrypted => encrypted,
        };
        let released = match released {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(cx),
            released => released,
        };
        self.stream.get_mut().0.holds = held;
        released
    }

    fn encrypt_tail(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.tail.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.tail))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.tail.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { stream, tail, refused } = self;
        let new = || slices.iter().filter(|slice| !slice.is_empty()).take(PIECES - 1);
        let added = new().map(|slice| slice.len()).sum::<usize>();
        let total = tail.len() + added;
        if total < RECORD && added < SMALL {
            new().for_each(|slice| tail.extend_from_slice(slice));
            return Poll::Ready(Ok(added));
        }
        // What is small behind the last full record is written again, and becomes the tail. Without a full one nothing is: what
        // was added is large.
        let rest = total % RECORD;
        let mut left = if rest < SMALL { total - rest } else { total };
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        let all = std::iter::once(&tail[..]).filter(|tail| !tail.is_empty()).chain(new().map(|slice| &**slice));
        for (place, piece) in pieces.iter_mut().zip(all) {
            let piece = &piece[..piece.len().min(left)];
            if piece.is_empty() {
                break;
            }
            (left, used) = (left - piece.len(), used + 1);
            *place = IoSlice::new(piece);
        }
        let Poll::Ready(written) = Pin::new(stream).poll_write_vectored(cx, &pieces[..used])? else {
            *refused = true;
            return Poll::Pending;
        };
        let of_tail = written.min(tail.len());
        tail.drain(..of_tail);
        if written == of_tail {
            // The stream is full, and took nothing of what is new.
            *refused = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok(written - of_tail))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batch<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Batch<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        // From here on nothing is worth waiting for.
        inner.stream.get_mut().0.holds = false;
        ready!(inner.release(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::server::connection::TLS_BUFFER;

    /// A stream of the server, and the client's side.
    async fn pair() -> (Batch<tokio::io::DuplexStream>, tokio_rustls::client::TlsStream<tokio::io::DuplexStream>) {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let accept = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(Valve::new(near));
        let connect =
            tokio_rustls::TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), far);
        let (server, client) = tokio::join!(accept, connect);
        (Batch::new(server.unwrap()), client.unwrap())
    }

    /// Runs a future that writes to the stream, as the server runs a connection.
    async fn run<F: Future>(batch: &Batch<tokio::io::DuplexStream>, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| batch.poll(cx, future.as_mut())).await
    }

    #[tokio::test]
    async fn what_was_written_arrives_although_nothing_is_flushed() {
        let (batch, mut client) = pair().await;
        let mut writer = batch.clone();
        run(&batch, async {
            writer.write_all(b"one ").await.unwrap();
            writer.write_all(b"two").await.unwrap();
        })
        .await;
        let mut text = [0; 7];
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"one two");
    }

    #[tokio::test]
    async fn a_reader_that_waits_gets_what_came_before_the_writer_waits_too() {
        let (batch, mut client) = pair().await;
        let mut stream = batch.clone();
        let server = run(&batch, async {
            stream.write_all(b"your turn").await.unwrap();
            let mut said = [0; 4];
            stream.read_exact(&mut said).await.unwrap();
            said
        });
        let asked = async {
            let mut text = [0; 9];
            client.read_exact(&mut text).await.unwrap();
            client.write_all(b"mine").await.unwrap();
        };
        let (said, ()) = tokio::join!(server, asked);
        assert_eq!(&said, b"mine");
    }

    /// Of a stream that writes this, what waits for more afterwards.
    async fn tail_after(pieces: &[usize]) -> usize {
        let (batch, _client) = pair().await;
        let mut stream = batch.clone();
        run(&batch, async {
            for piece in pieces {
                stream.write_all(&vec![7; *piece]).await.unwrap();
            }
            batch.0.lock().tail.len()
        })
        .await
    }

    #[tokio::test]
    async fn what_is_large_is_not_copied_to_fill_a_record() {
        // Two frames of full size: nine bytes more than a record each.
        assert_eq!(tail_after(&[9, RECORD]).await, 9);
        assert_eq!(tail_after(&[9, RECORD, 9, RECORD]).await, 18);
        // The last of an answer, and what is whole by itself.
        assert_eq!(tail_after(&[9, RECORD - 100]).await, 0);
        assert_eq!(tail_after(&[RECORD]).await, 0);
        assert_eq!(tail_after(&[RECORD + SMALL]).await, 0);
        assert_eq!(tail_after(&[RECORD + SMALL - 1]).await, SMALL - 1);
        // What is small becomes a record together.
        assert_eq!(tail_after(&[SMALL - 1, SMALL - 1, SMALL - 1]).await, 3 * (SMALL - 1));
        assert_eq!(tail_after(&[300; 60]).await, 60 * 300 - RECORD);
    }

    #[test]
    fn the_tls_layer_keeps_as_much_as_is_waited_for() {
        // Each record with its head, its type and its tag; another full one finds no room.
        let records = ENOUGH / RECORD * (RECORD + 5 + 1 + 16);
        assert!((ENOUGH..=TLS_BUFFER).contains(&records) && records + RECORD > TLS_BUFFER, "{records}");
    }

    #[tokio::test]
    async fn many_small_pieces_of_one_poll_are_not_left_lying() {
        // More than the TLS layer keeps, in records of which a system call takes less than is worth one.
        let (batch, mut client) = pair().await;
        let mut stream = batch.clone();
        let server = run(&batch, async {
            for _ in 0..2000 {
                // As the HTTP library writes: it does not say that it waits.
                stream.write_all(&[7; 300]).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
        let reader = async {
            let mut all = vec![0; 600_000];
            client.read_exact(&mut all).await.unwrap();
            all
        };
        let ((), all) = tokio::join!(server, reader);
        assert!(all.iter().all(|byte| *byte == 7));
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_of_much_and_the_end() {
        let (batch, mut client) = pair().await;
        let mut stream = batch.clone();
        let much: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let server = run(&batch, async {
            for piece in much.chunks(10_007) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
        let reader = async {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all
        };
        let ((), all) = tokio::join!(server, reader);
        assert!(all == much, "{} of {} bytes", all.len(), much.len());
    }
}
