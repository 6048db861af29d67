//! The access log: one line a request, written when its answer has ended.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{StatusCode, Version};

use crate::context::{Connection, Context};
use crate::control::Mode;
use crate::controls::limits;
use crate::observe::decisions::Ending;
use crate::observe::{event, json, redact};
use crate::policy::Policy;
use crate::refusal::{Code, Fault};
use crate::server::request_id::RequestId;

/// A field of a log line: its name, its JSON type, what it says.
pub type Field = (&'static str, &'static str, &'static str);

/// The fields of an access line, in order. Public interface.
pub static FIELDS: &[Field] = &[
    ("time", "string", "when the answer had ended, RFC 3339, UTC, milliseconds"),
    ("event", "string", "always `access`"),
    ("request_id", "string", "ours, or the one a trusted proxy gave; `X-Request-Id` of the answer"),
    ("trace_id", "string or null", "the W3C trace of the request: that of its `traceparent`, where it is valid"),
    ("client", "string", "the client's address, read through `server.trusted_proxies`"),
    ("peer", "string", "the other end of the connection"),
    ("host", "string", "the host, lower case, without port"),
    ("method", "string", "the method"),
    ("path", "string", "the path as decided on, secrets replaced"),
    ("query", "string", "the query, secrets replaced"),
    ("route", "string", "the path of the `[[route]]` that matched, or of a `[[static]]`, or `default`"),
    ("protocol", "string", "`HTTP/1.0`, `HTTP/1.1`, `HTTP/2`"),
    ("status", "number", "the status of the answer"),
    ("code", "string or null", "the code of the refusal, or of what `detect` would have refused"),
    ("outcome", "string", "`passed`, `refused`, `would_refuse`, `upstream_error` or `client_gone`"),
    ("bytes_in", "number", "bytes of the request's body that were read"),
    ("bytes_out", "number", "bytes of the answer's body that were sent"),
    ("duration_ms", "number", "from the request's head to the end of the answer"),
    ("upstream", "string or null", "the upstream that answered"),
    ("upstream_ms", "number or null", "until the first byte of its answer"),
    ("user", "string or null", "the id of the user"),
    ("key_id", "string or null", "the id of the API key"),
    ("policy_hash", "string", "the start of the SHA-256 of the policy in force"),
];

/// What a line takes beside its path and query, nearly always.
const LINE: usize = 640;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Refused(&'static Code),
    UpstreamError(&'static Code),
    ClientGone,
}

/// Attached to the body of an answer; becomes the access line and the metrics of the request.
#[derive(Debug)]
pub(crate) struct Record {
    ctx: Arc<Context>,
    status: StatusCode,
    outcome: Outcome,
    bytes_in: Arc<AtomicU64>,
    bytes_out: u64,
    complete: bool,
    broken: bool,
    done: bool,
}

impl Record {
    pub(crate) fn new(
        ctx: Arc<Context>,
        status: StatusCode,
        refused: Option<&'static Code>,
        bytes_in: Arc<AtomicU64>,
    ) -> Self {
        let outcome = match refused {
            None => Outcome::Passed,
            Some(code) if code.name == crate::gateway::CLIENT_GONE.name => Outcome::ClientGone,
            Some(code) if code.fault == Fault::Upstream => Outcome::UpstreamError(code),
            Some(code) => Outcome::Refused(code),
        };
        Self { ctx, status, outcome, bytes_in, bytes_out: 0, complete: false, broken: false, done: false }
    }

    /// Of a request whose client left before it had an answer. The status is 499, as nginx's users know it.
    pub(crate) fn unanswered(ctx: Arc<Context>, bytes_in: Arc<AtomicU64>) -> Self {
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        let outcome = Outcome::ClientGone;
        Self { ctx, status, outcome, bytes_in, bytes_out: 0, complete: false, broken: false, done: false }
    }

    /// Bytes of the answer's body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The body ended as it should.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The answer broke off: because the application did not go on, or because the client's own body ended too early.
    pub(crate) fn broken(&mut self, by_client: bool) {
        self.broken = !by_client;
    }

    /// The body is gone; `ended`: nothing was left of it.
    pub(crate) fn close(&mut self, ended: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if self.broken {
            self.outcome = Outcome::UpstreamError(&crate::gateway::BROKEN);
        } else if !self.complete && !ended {
            self.outcome = Outcome::ClientGone;
        }
        // The answer had begun when the rest of the request's body was refused.
        if let Some(refusal) = self.ctx.take_body_refusal() {
            event::refused(&self.ctx, None, Mode::Block, &refusal);
            self.outcome = Outcome::Refused(refusal.code());
        }
        self.write();
    }

    fn write(&self) {
        let ctx = &*self.ctx;
        let env = ctx.policy.env();
        let micros = micros(env.clock.instant().saturating_duration_since(ctx.start));
        let upstream_micros = ctx.upstream.get().map(|upstream| upstream.micros);
        ctx.policy.times(ctx.rule().id).request(&env.metrics, ctx.rule(), self.status, micros, upstream_micros);
        self.remember();
        env.log.access.line(false, |out| {
            let from = out.len();
            self.line(out, micros);
            env.log.dress(out, from);
        });
    }

    /// What `explain` can say about a request that nobody refused; the others were kept when they were decided.
    fn remember(&self) {
        let ctx = &*self.ctx;
        let ending = match self.outcome {
            Outcome::Passed => Ending::Passed,
            Outcome::ClientGone => Ending::ClientGone,
            Outcome::UpstreamError(code) if *code == crate::gateway::BROKEN => Ending::Broken,
            Outcome::UpstreamError(_) | Outcome::Refused(_) => return,
        };
        let decisions = ctx.policy.decisions();
        let bytes_in = self.bytes_in.load(Ordering::Relaxed);
        let verdicts = ctx.verdicts();
        // Whatever else would have been refused of it, unless that was its size.
        if bytes_in > limits::STRICT_BODY
            && self.outcome == Outcome::Passed
            && verdicts.iter().all(|verdict| *verdict.refusal.code() != limits::BODY)
        {
            decisions.large_body(&ctx.method, ctx.path(), bytes_in);
        }
        if verdicts.is_empty() {
            decisions.passed(ctx, self.status, ending);
        }
    }

    /// The fields of the specification, in its order. Names and punctuation between two values are one literal; what can
    /// hold nothing that needs an escape (ids, addresses, methods, codes) is not looked at.
    fn line(&self, out: &mut Vec<u8>, micros: u64) {
        let ctx = &*self.ctx;
        let path = redact::path(ctx.path());
        let query = redact::query(ctx.target.query().unwrap_or_default());
        out.reserve(LINE + path.len() + query.len());
        out.extend_from_slice(b"{\"time\":\"");
        event::time(out, ctx.policy.clock().now());
        out.extend_from_slice(b"\",\"event\":\"access\",\"request_id\":\"");
        out.extend_from_slice(ctx.request_id().as_bytes());
        match ctx.trace {
            Some(trace) => {
                out.extend_from_slice(b"\",\"trace_id\":\"");
                out.extend_from_slice(&trace.hex());
                out.extend_from_slice(b"\",\"client\":\"");
            }
            None => out.extend_from_slice(b"\",\"trace_id\":null,\"client\":\""),
        }
        out.extend_from_slice(ctx.client_text().as_bytes());
        out.extend_from_slice(b"\",\"peer\":\"");
        out.extend_from_slice(ctx.connection.peer_text.as_bytes());
        out.push(b'"');
        json::field_str(out, "host", ctx.host());
        json::field_str(out, "method", ctx.method.as_str());
        json::field_str(out, "path", &path);
        json::field_str(out, "query", &query);
        json::field_str(out, "route", &ctx.rule().label);
        out.extend_from_slice(b",\"protocol\":\"");
        out.extend_from_slice(protocol(ctx.version).as_bytes());
        out.extend_from_slice(b"\",\"status\":");
        out.extend_from_slice(self.status.as_str().as_bytes());
        let (code, outcome) = self.judged();
        match code {
            Some(code) => {
                json::field_str(out, "code", code);
                out.extend_from_slice(b",\"outcome\":\"");
            }
            None => out.extend_from_slice(b",\"code\":null,\"outcome\":\""),
        }
        out.extend_from_slice(outcome.as_bytes());
        out.extend_from_slice(b"\",\"bytes_in\":");
        json::number(out, self.bytes_in.load(Ordering::Relaxed), 1);
        json::field_u64(out, "bytes_out", self.bytes_out);
        json::field_millis(out, "duration_ms", micros);
        match ctx.upstream.get() {
            Some(upstream) => {
                json::field_str(out, "upstream", &upstream.name);
                json::field_millis(out, "upstream_ms", upstream.micros);
            }
            None => out.extend_from_slice(b",\"upstream\":null,\"upstream_ms\":null"),
        }
        match ctx.identity().caller() {
            None => out.extend_from_slice(b",\"user\":null,\"key_id\":null"),
            Some(caller) => {
                json::field_str(out, "user", caller.subject());
                match caller.key_id() {
                    None => json::field_null(out, "key_id"),
                    Some(key) => json::field_str(out, "key_id", key),
                }
            }
        }
        out.extend_from_slice(b",\"policy_hash\":\"");
        out.extend_from_slice(ctx.policy.hash().as_bytes());
        out.extend_from_slice(b"\"}\n");
    }

    fn judged(&self) -> (Option<&'static str>, &'static str) {
        match self.outcome {
            Outcome::Refused(code) => (Some(code.name), "refused"),
            Outcome::UpstreamError(code) => (Some(code.name), "upstream_error"),
            Outcome::ClientGone => (None, "client_gone"),
            Outcome::Passed => {
                let verdicts = self.ctx.verdicts();
                match verdicts.iter().find(|verdict| verdict.mode == Mode::Detect) {
                    Some(verdict) => (Some(verdict.refusal.code().name), "would_refuse"),
                    None => (None, "passed"),
                }
            }
        }
    }
}

/// The line of a request whose head was refused before it was one: nothing of it is known, or to be believed.
pub(crate) fn refused_head(
    policy: &Policy,
    connection: &Connection,
    request_id: &RequestId,
    code: &Code,
    bytes_out: usize,
) {
    let env = policy.env();
    env.log.access.line(false, |out| {
        let from = out.len();
        out.extend_from_slice(b"{\"time\":\"");
        event::time(out, policy.clock().now());
        out.extend_from_slice(b"\",\"event\":\"access\"");
        json::field_str(out, "request_id", request_id.as_str());
        json::field_null(out, "trace_id");
        json::field_str(out, "client", connection.client_text());
        json::field_str(out, "peer", &connection.peer_text);
        for unknown in ["host", "method", "path", "query"] {
            json::field_str(out, unknown, "");
        }
        json::field_str(out, "route", "default");
        json::field_str(out, "protocol", "HTTP/1.1");
        json::field_u64(out, "status", u64::from(code.status.as_u16()));
        json::field_str(out, "code", code.name);
        json::field_str(out, "outcome", "refused");
        json::field_u64(out, "bytes_in", 0);
        json::field_u64(out, "bytes_out", bytes_out as u64);
        json::field_millis(out, "duration_ms", 0);
        for absent in ["upstream", "upstream_ms", "user", "key_id"] {
            json::field_null(out, absent);
        }
        json::field_str(out, "policy_hash", policy.hash());
        let _ = out.write_all(b"}\n");
        env.log.dress(out, from);
    });
}

pub(crate) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
