//! What can go wrong in an exchange, told apart by what a caller may do about it.

use std::{fmt, io};

use http::Request;

use crate::Violation;

/// Any error of a request body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an exchange failed. After any of them the connection is closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not one byte of the request left. Sending it again on another connection is always safe.
    #[error("the connection was closed before anything was sent")]
    NothingSent(#[source] io::Error),
    /// The peer closed the connection before the first byte of an answer, after at least a part of the request was
    /// written. With `reused` it was most likely closed while idle: an idempotent request may be sent again.
    #[error("the connection was closed before an answer")]
    ClosedBeforeAnswer {
        /// The connection had carried an exchange before this one.
        reused: bool,
    },
    /// No answer in time, counted from the last progress of the upload.
    #[error("no answer in time")]
    Timeout,
    /// The answer's framing is refused.
    #[error("bad answer: {0}")]
    BadAnswer(Violation),
    /// The answer's body ended before its end. The bytes before it were handed out already.
    #[error("the answer ended too early")]
    Truncated,
    /// The request body failed: usually the client went away.
    #[error("the request body failed")]
    RequestBody(#[source] BoxError),
    /// The request body is longer or shorter than its size hint promised.
    #[error("the request body does not have its announced length")]
    RequestLength,
    /// A request that this codec does not send: CONNECT, or a target that is not in origin form.
    #[error("a request that cannot be sent")]
    Unsendable,
    /// Another error of the connection, after the first byte of the answer.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// A failed [`send`](super::Connection::send).
pub struct Failure<B> {
    /// Why.
    pub error: Error,
    /// The request as it was given, if nothing was taken out of its body, so that a caller may send it again.
    /// Boxed, because it is rare and a request is large.
    pub request: Option<Box<Request<B>>>,
}

// By hand: bodies need not be `Debug`, and what a client sent is not for logs.
impl<B> fmt::Debug for Failure<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Errors that mean "the peer is gone" rather than "something is broken here".
pub(super) fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::WriteZero
    )
}
