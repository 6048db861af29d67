//! The guard in front of the HTTP/1 library: what it may hold and wait for, and what a client reads whose framing it refuses.
//!
//! Guide section 21. There is no request yet, so no context and no control: the refusal is counted and logged here.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use palisade_h1::guard::{Config, InFlight};
use palisade_h1::{Limits, Violation};

use super::request_id::RequestId;
use super::turns::Share;
use crate::body::{BodyError, ResponseBody};
use crate::context::Connection;
use crate::control::Mode;
use crate::controls::{integrity, limits};
use crate::live::Handle;
use crate::observe::access;
use crate::observe::event::Refused;
use crate::policy::Policy;
use crate::refusal::{Code, problem_document};

/// A head took too long.
pub(crate) static HEAD_TIME: Code = Code::client(
    "limits.head_time",
    StatusCode::REQUEST_TIMEOUT,
    21,
    "the head of this request took too long to arrive",
)
.owasp("excess_rate_limit_exceeded");

/// Field lines of a head, as many as other servers take. The HTTP library keeps tables of this length on the stack; of any
/// other, it allocates two for each request.
const HEADERS: usize = 100;
/// Fields of a head over HTTP/2, for what each adds to its size.
const FIELDS: usize = 256;
/// A request line beside its target, and line ends.
const LINES: usize = 1024;

/// What the guard of a connection may hold. The policy's own limits judge again, with a context, what fits in here.
pub(super) fn config(policy: &Policy) -> Config {
    let limits = &policy.config().limits.config;
    let (fields, target) = (limits.header_bytes.len(), limits.url_bytes.len());
    let limits = Limits {
        head_bytes: fields.saturating_add(target).saturating_add(LINES),
        headers: HEADERS,
        // The `http` crate cannot hold more.
        target_bytes: target.saturating_add(1).min(65_534),
    };
    let (head_timeout, idle_timeout) = {
        let limits = &policy.config().limits.config;
        (limits.head_time.duration(), limits.idle_time.duration())
    };
    Config { limits, head_timeout, idle_timeout, ..Config::default() }
}

/// What HTTP/2's own layer lets through of a head, counted as RFC 9113 section 10.5.1 does, with 32 bytes a field more. The
/// policy's limits answer first, as they do over HTTP/1; what is far above them ends its connection ([`super::frames`]).
/// No more than that: half a head of each connection is in memory, and small fields take some times what they count.
pub(super) fn most_fields(policy: &Policy) -> u32 {
    let limits = &policy.config().limits.config;
    let own = limits.header_bytes.len() + limits.url_bytes.len() + LINES + 32 * FIELDS;
    u32::try_from(own).unwrap_or(u32::MAX).max(64 * 1024)
}

/// The code of a violation.
pub(crate) fn code(violation: Violation) -> &'static Code {
    match violation {
        Violation::HeadTimeout => &HEAD_TIME,
        Violation::TargetTooLong => &limits::URL,
        Violation::HeadTooLarge | Violation::TooManyHeaders => &limits::HEADERS,
        _ => &integrity::FRAMING,
    }
}

/// The lines that `headers` puts on every answer, where it enforces.
pub(super) fn security_headers(policy: &Policy, secure: bool) -> String {
    let headers = &policy.controls().headers;
    let enforces = policy.written_mode(headers.id, 0) == Mode::Block;
    headers.control.as_ref().filter(|_| enforces).map_or_else(String::new, |headers| headers.lines(secure))
}

/// Counts and logs a violation, and gives the whole answer to it.
pub(super) fn answer(handle: &Handle, connection: &Connection, violation: Violation) -> Bytes {
    let live = handle.live();
    let policy = &live.policy;
    let code = code(violation);
    let id = RequestId::new(policy.clock().now());
    let document = problem_document(code, code.status, id.as_str());
    let refused = Refused {
        code,
        control: code.control(),
        mode: Mode::Block,
        policy: Some(&policy.rule(0).line),
        request_id: Some(id.as_str()),
        client: connection.client_text(),
        why: violation.text(),
        fields: &[("violation", Cow::Borrowed(violation.name()))],
    };
    refused.tell(handle.metrics(), handle.log());
    policy.decisions().refused_head(policy, connection, id, code, (violation.text(), violation.name()));
    access::refused_head(policy, connection, &id, code, document.len());
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         {}X-Request-Id: {id}\r\nConnection: close\r\n\r\n",
        code.status.as_u16(),
        code.status.canonical_reason().unwrap_or("Refused"),
        document.len(),
        security_headers(policy, connection.is_secure()),
    )
    .into_bytes();
    answer.extend_from_slice(&document);
    answer.into()
}

/// The body of an answer over HTTP/1, with the guard's token: the answer is over when it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    body: ResponseBody,
    share: Share,
    _token: InFlight,
}

impl Answering {
    pub(super) fn new(body: ResponseBody, token: InFlight) -> Self {
        Self { body, share: Share::default(), _token: token }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.share.poll(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.share.moved(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts and logs why an HTTP/2 connection is ended: what the guard of its frames calls, at most once.
pub(super) fn refusals(
    handle: &Arc<Handle>,
    connection: &Arc<Connection>,
) -> impl FnOnce(&'static Code, &'static str) + Send + 'static {
    let (handle, connection) = (Arc::clone(handle), Arc::clone(connection));
    move |code, why| {
        let refused = Refused {
            code,
            control: code.control(),
            mode: Mode::Block,
            policy: None,
            request_id: None,
            client: connection.client_text(),
            why,
            fields: &[],
        };
        refused.tell(handle.metrics(), handle.log());
    }
}

/// What the guard of a connection calls: at most once.
pub(super) fn answers(
    handle: &Arc<Handle>,
    connection: &Arc<Connection>,
) -> impl FnOnce(&Violation) -> Bytes + Send + 'static {
    let (handle, connection) = (Arc::clone(handle), Arc::clone(connection));
    move |violation| answer(&handle, &connection, *violation)
}
