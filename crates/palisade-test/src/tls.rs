//! Connections of the test clients: plain TCP or TLS that trusts one authority and nothing else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ca::Identity;

const CONNECT: Duration = Duration::from_secs(10);

/// What a client trusts, and what it offers, in TLS.
#[derive(Debug, Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the authority whose certificate is in this file, such as `.palisade/ca/root.pem`.
    ///
    /// # Errors
    /// When the file holds no certificate.
    pub fn file(path: &Path) -> Result<Trust> {
        let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
        Trust::pem(&pem).with_context(|| path.display().to_string())
    }

    /// Trusts the authorities in this PEM text.
    ///
    /// # Errors
    /// When it holds no certificate.
    pub fn pem(pem: &[u8]) -> Result<Trust> {
        Trust::build(pem, rustls::ALL_VERSIONS, None)
    }

    /// Trusts the authorities, offers only these versions of TLS, and presents a certificate of its own when asked.
    ///
    /// # Errors
    /// When a PEM text is none.
    pub fn build(
        roots: &[u8],
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Result<Trust> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(roots) {
            store.add(certificate?)?;
        }
        if store.is_empty() {
            return Err(anyhow!("no certificate"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(store);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.chain()?, identity.private_key()?)?,
        };
        Ok(Trust { config: Arc::new(config) })
    }

    /// Connects with TLS to an address, asking for a name (or address literal) and offering these protocols.
    ///
    /// # Errors
    /// When the connection or the handshake fails, or takes over ten seconds.
    pub async fn connect(&self, address: SocketAddr, name: &str, alpn: &[&[u8]]) -> Result<Connection> {
        self.connect_from(None, address, name, alpn).await
    }

    /// As [`Trust::connect`], as a client with this address: all of 127.0.0.0/8 is ours.
    ///
    /// # Errors
    /// As [`Trust::connect`].
    pub async fn connect_from(
        &self,
        from: Option<IpAddr>,
        address: SocketAddr,
        name: &str,
        alpn: &[&[u8]],
    ) -> Result<Connection> {
        self.over(tcp(from, address).await?, name, alpn).await
    }

    /// Begins TLS on a connection that is there, on which something may have been said before.
    ///
    /// # Errors
    /// When the handshake fails, or takes over ten seconds.
    pub async fn over(&self, tcp: TcpStream, name: &str, alpn: &[&[u8]]) -> Result<Connection> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let tls = tokio::time::timeout(CONNECT, handshake).await.context("TLS handshake")?.context("TLS handshake")?;
        Ok(Connection::Tls(Box::new(tls)))
    }
}

/// Connects without TLS.
///
/// # Errors
/// When refused, or not accepted within ten seconds.
pub async fn plain(address: SocketAddr) -> Result<Connection> {
    plain_from(None, address).await
}

/// As [`plain`], as a client with this address.
///
/// # Errors
/// As [`plain`].
pub async fn plain_from(from: Option<IpAddr>, address: SocketAddr) -> Result<Connection> {
    Ok(Connection::Plain(tcp(from, address).await?))
}

/// The socket alone, from this address where one is given.
///
/// # Errors
/// As [`plain`].
pub async fn tcp(from: Option<IpAddr>, address: SocketAddr) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0)).with_context(|| format!("as {from}"))?;
    }
    let connect = socket.connect(address);
    let stream = tokio::time::timeout(CONNECT, connect).await.context("connecting")?;
    let stream = stream.with_context(|| format!("connecting to {address}"))?;
    // What a test writes in two pieces shall arrive in two.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection, with TLS or without.
#[derive(Debug)]
pub enum Connection {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// The socket under it.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Connection::Plain(_) => None,
            Connection::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The facts of the handshake.
    pub fn tls(&self) -> Option<&rustls::ClientConnection> {
        match self {
            Connection::Plain(_) => None,
            Connection::Tls(stream) => Some(stream.get_ref().1),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
