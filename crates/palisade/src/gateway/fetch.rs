//! One document of the application's own, asked for by the gateway itself: within a size and a time, without credentials,
//! and wherever the application is, for redirects are not followed (threats 13 and 45).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body::Body as _;
use palisade_h1::client::{Connection, Outcome};

use super::Gateway;
use super::connect::{Io, NotConnected, Protocol};
use super::pool::Return;
use crate::body::RequestBody;

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFetched {
    /// Nobody answers, or not in time, or not correctly.
    #[error("the application does not answer: {0}")]
    Away(String),
    /// It answers with something else.
    #[error("the application answers {0}")]
    Status(StatusCode),
    /// It is larger than is read.
    #[error("it is larger than {0} bytes")]
    TooLong(usize),
    /// It is compressed, which nobody asked for.
    #[error("it is compressed, which was not asked for")]
    Encoded,
}

impl Gateway {
    /// Asks for a document, on a connection of its own.
    ///
    /// # Errors
    /// [`NotFetched`].
    pub(crate) async fn fetch(
        &self,
        path: &str,
        host: &HeaderValue,
        most: usize,
        within: Duration,
    ) -> Result<Bytes, NotFetched> {
        let late = || NotFetched::Away(format!("nothing within {} s", within.as_secs()));
        tokio::time::timeout(within, self.ask(path, host, most)).await.map_err(|_| late())?
    }

    async fn ask(&self, path: &str, host: &HeaderValue, most: usize) -> Result<Bytes, NotFetched> {
        let away = |why: &dyn std::fmt::Display| NotFetched::Away(why.to_string());
        let stream = self.open(Protocol::Http1).await.map_err(|why| match why {
            NotConnected::Io(why) | NotConnected::Tls(why) => away(&why),
        })?;
        let request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "palisade")
            .body(RequestBody::empty())
            .map_err(|why| away(&why))?;
        let back = Return::new(Arc::clone(&self.pool), None);
        let answer = match Connection::new(Io::from(stream)).send(request, None, back).await {
            Ok(Outcome::Response(answer)) => answer,
            Ok(Outcome::Upgraded(_)) => return Err(NotFetched::Status(StatusCode::SWITCHING_PROTOCOLS)),
            Err(failure) => return Err(away(&failure.error)),
        };
        if answer.status() != StatusCode::OK {
            return Err(NotFetched::Status(answer.status()));
        }
        if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(NotFetched::Encoded);
        }
        let mut body = answer.into_body();
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.map_err(|why| away(&why))?.into_data() else { continue };
            if whole.len() + data.len() > most {
                return Err(NotFetched::TooLong(most));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }
}
