//! Fewer and larger writes over TLS: for HTTP/2, whose library flushes after every frame.
//!
//! What is written while the connection is polled is encrypted at once and kept; it goes to the socket when it has become
//! [`ENOUGH`], and all of it at the end of the poll. A large answer takes a quarter of the system calls, and nothing waits:
//! between two polls nothing is held back but what the socket does not take.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// This much is worth a system call in the middle of a poll: four TLS records.
const ENOUGH: usize = 64 * 1024;

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
        slices: &[io::IoSlice<'_>],
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
pub(super) struct Batch<S>(Arc<Mutex<TlsStream<Valve<S>>>>);

impl<S> Clone for Batch<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Batch<S> {
    pub(super) fn new(mut stream: TlsStream<Valve<S>>) -> Self {
        stream.get_mut().0.holds = true;
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Polls what writes to this stream, and then lets out what it wrote.
    pub(super) fn poll<F: Future>(&self, cx: &mut Context<'_>, future: Pin<&mut F>) -> Poll<F::Output> {
        let outcome = future.poll(cx);
        // A failure shows in the next read or write of whoever uses the stream. Nothing else would wake for this one.
        if let Poll::Ready(Err(error)) = release(&mut self.0.lock(), cx)
            && error.kind() == io::ErrorKind::TimedOut
        {
            cx.waker().wake_by_ref();
        }
        outcome
    }
}

/// Lets out what lies in the stream, as far as the socket takes it.
fn release<S>(stream: &mut TlsStream<Valve<S>>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !stream.get_ref().1.wants_write() {
        return Poll::Ready(Ok(()));
    }
    let held = std::mem::replace(&mut stream.get_mut().0.holds, false);
    let released = Pin::new(&mut *stream).poll_flush(cx);
    stream.get_mut().0.holds = held;
    released
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batch<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Batch<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.0.lock();
        // From here on nothing is worth waiting for.
        stream.get_mut().0.holds = false;
        ready!(release(&mut stream, cx))?;
        Pin::new(&mut *stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

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
