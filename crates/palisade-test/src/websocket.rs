//! A WebSocket client.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderName, HeaderValue, Uri};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

pub use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::address;
use crate::tls::{self, Connection, Trust};

/// How long a message may take.
const MESSAGE: Duration = Duration::from_secs(30);

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: WebSocketStream<Connection>,
    answer: http::Response<Option<Vec<u8>>>,
}

impl WebSocket {
    /// Opens `ws://…`, or `wss://…` with what to trust, sending further headers (`Origin`, `Cookie`,
    /// `Sec-WebSocket-Protocol`).
    ///
    /// # Errors
    /// When that fails; a refusal can be taken apart with [`refusal`].
    pub async fn open(url: &str, trust: Option<&Trust>, headers: &[(&str, &str)]) -> Result<WebSocket> {
        let uri: Uri = url.parse().with_context(|| format!("url {url:?}"))?;
        let to = address(&uri)?;
        let connection = match (uri.scheme_str(), trust) {
            (Some("ws"), _) => tls::plain(to).await?,
            (Some("wss"), Some(trust)) => trust.connect(to, uri.host().unwrap_or_default(), &[b"http/1.1"]).await?,
            _ => bail!("`{url}` is neither ws:// nor wss:// with something to trust"),
        };
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().append(name, HeaderValue::from_str(value)?);
        }
        let open = tokio_tungstenite::client_async(request, connection);
        let (stream, answer) = tokio::time::timeout(MESSAGE, open).await.context("opening")??;
        Ok(WebSocket { stream, answer })
    }

    /// The answer to the handshake.
    pub fn answer(&self) -> &http::Response<Option<Vec<u8>>> {
        &self.answer
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        self.stream.send(message).await.context("sending")
    }

    /// Sends a text.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.send(Message::text(text)).await
    }

    /// The next message, also a ping, pong or close; `None` once the connection has ended.
    ///
    /// # Errors
    /// When nothing comes within 30 seconds, or the connection breaks without a close.
    pub async fn next(&mut self) -> Result<Option<Message>> {
        let next = tokio::time::timeout(MESSAGE, self.stream.next()).await;
        next.with_context(|| format!("no message within {MESSAGE:?}"))?.transpose().context("the connection broke")
    }

    /// Reads on to the close, and gives its code and reason; `None` for a close without a code.
    ///
    /// # Errors
    /// When none comes.
    pub async fn closed(&mut self) -> Result<Option<(u16, String)>> {
        while let Some(message) = self.next().await? {
            if let Message::Close(frame) = message {
                // The answer to it, and the end of the connection.
                while let Ok(Some(_)) = self.next().await {}
                return Ok(frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
            }
        }
        bail!("the connection ended without a close")
    }

    /// Closes with a code and a reason, and gives what the other side answered.
    ///
    /// # Errors
    /// When it answers no close.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<Option<(u16, String)>> {
        self.stream.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await.context("closing")?;
        self.closed().await
    }
}

/// The answer of a server that refused the handshake.
pub fn refusal(error: &anyhow::Error) -> Option<&http::Response<Option<Vec<u8>>>> {
    match error.downcast_ref::<Error>()? {
        Error::Http(answer) => Some(answer),
        _ => None,
    }
}
