//! TLS handshakes, one at a time on each worker.
//!
//! Guide section 21; threat 29. A handshake is a tenth to a quarter of a millisecond of computing at once, more than ten
//! small requests: the part that computes takes its turn.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::turns;

/// Does the handshake of a client.
///
/// # Errors
/// When the client speaks no TLS, or none that we do, or goes away.
pub(super) async fn secure<S>(config: Arc<ServerConfig>, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Nothing is computed until the client's first word is there in full.
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    turns::mine().await;
    begun.into_stream(config).await
}
