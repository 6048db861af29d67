//! Connections to applications: TCP, TLS and Unix sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use tokio_rustls::client::TlsStream;

use super::tls::Client;
use crate::policy::values::UpstreamUrl;
use crate::server::descriptors::Descriptor;

/// A connection to an application.
#[derive(Debug)]
pub(crate) struct Io {
    stream: Stream,
    /// Given back when the connection is closed, however it came to that.
    _descriptor: Option<Descriptor>,
}

impl Io {
    /// One whose descriptor is counted.
    pub(super) fn counted(stream: Stream, descriptor: Descriptor) -> Self {
        Self { stream, _descriptor: Some(descriptor) }
    }
}

/// One that takes no descriptor, or of which there are few.
impl From<Stream> for Io {
    fn from(stream: Stream) -> Self {
        Self { stream, _descriptor: None }
    }
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    // Boxed: what is rare shall not make every connection larger.
    Tls(Box<TlsStream<TcpStream>>),
    /// To a router in this process.
    Memory(DuplexStream),
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// With one request after the other.
    Http1,
    /// With many at once, for gRPC.
    Http2,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// Nobody answers there.
    Io(io::Error),
    /// Somebody answers, and is not who was meant, or does not want us.
    Tls(io::Error),
}

/// Connects. The caller holds the deadline. `tls`: what an `https:` upstream is reached with.
pub(super) async fn connect(
    target: &UpstreamUrl,
    tls: Option<&Client>,
    protocol: Protocol,
) -> Result<Stream, NotConnected> {
    match (target, tls) {
        (UpstreamUrl::Http { host, port }, _) => tcp(host, *port).await.map(Stream::Tcp).map_err(NotConnected::Io),
        (UpstreamUrl::Https { host, port }, Some(tls)) => {
            let stream = tcp(host, *port).await.map_err(NotConnected::Io)?;
            tls.handshake(stream, protocol).await.map(|stream| Stream::Tls(Box::new(stream))).map_err(NotConnected::Tls)
        }
        (UpstreamUrl::Https { .. }, None) => Err(NotConnected::Tls(io::Error::other("no TLS client was built"))),
        (UpstreamUrl::Unix(path), _) => UnixStream::connect(path).await.map(Stream::Unix).map_err(NotConnected::Io),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp($io) => $call,
            Stream::Unix($io) => $call,
            Stream::Tls($io) => $call,
            Stream::Memory($io) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(io) => io.is_write_vectored(),
            Stream::Unix(io) => io.is_write_vectored(),
            Stream::Tls(io) => io.is_write_vectored(),
            Stream::Memory(io) => io.is_write_vectored(),
        }
    }
}
