//! Events: what happens besides requests, and what controls decide. One static value an event, so that the schema of
//! the log is a list.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write as _;

use palisade_base::Timestamp;

use crate::context::Context;
use crate::control::{ControlId, Mode};
use crate::observe::access::Field;
use crate::observe::metrics::Metrics;
use crate::observe::{Log, json};
use crate::refusal::{Code, Fault, Refusal};

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Someone should look.
    Error,
    /// A fault of the upstream or of the operator.
    Warn,
    /// Life cycle and security events.
    Info,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }
}

/// A kind of event.
#[derive(Debug)]
pub struct Event {
    /// Its dotted name: the `event` field.
    pub name: &'static str,
    /// How loud it is.
    pub level: Level,
    /// What it says, for the documentation.
    pub about: &'static str,
}

macro_rules! events {
    ($($(#[doc = $about:literal])* $ident:ident = $level:ident $name:literal;)*) => {
        $($(#[doc = $about])* pub static $ident: Event = Event { name: $name, level: Level::$level, about: concat!($($about),*) };)*
        /// Every kind of event.
        pub static EVENTS: &[&Event] = &[$(&$ident),*];
    };
}

events! {
    /// A listener accepts connections: `listener`, `address`.
    LISTENING = Info "server.listening";
    /// Everything is up.
    READY = Info "server.ready";
    /// The server leaves: connections are still accepted for `lame_duck`.
    DRAINING = Info "server.draining";
    /// The server has ended: `cut` requests were still running.
    STOPPED = Info "server.stopped";
    /// Accounts cannot be asked; it is tried again with the next request that needs it: `reason`.
    IDENTITY_AWAY = Error "auth.away";
    /// Accounts can be asked: `database`.
    IDENTITY = Info "auth.ready";
    /// What other instances revoke is not known, because the database does not answer; `when_away` decides: `reason`.
    FEED_AWAY = Error "auth.feed_away";
    /// What other instances revoked is known again.
    FEED_BACK = Info "auth.feed_back";
    /// A backup of the database was restored: nothing that was kept in memory is believed any more.
    FEED_RESTARTED = Warn "auth.feed_restarted";
    /// Sessions, tokens and attempts whose time is over could not be deleted; it is tried again: `reason`.
    NOT_SWEPT = Warn "auth.not_swept";
    /// A refresh token came that should not have, and all tokens of its login have ended: `user`, `grant`, `how`, `client`,
    /// `request_id`.
    REPLAYED = Warn "auth.refresh_replayed";
    /// The cookie of a session came that was replaced before, after its time or from elsewhere, and the session has ended:
    /// `user`, `session`, `client`, `request_id`.
    SESSION_REPLAYED = Warn "auth.session_replayed";
    /// Where mail goes from now on: `transport` (`smtp` or `directory`), `target`.
    MAIL_READY = Info "mail.ready";
    /// Mail cannot go where the policy says; it goes on as before, or not at all: `reason`.
    MAIL_UNUSABLE = Error "mail.unusable";
    /// A mail was sent: `kind`, `about` (the account's id), `attempts`.
    MAIL_SENT = Info "mail.sent";
    /// A mail could not be sent yet, and will be tried again: `kind`, `about`, `reason`, `next_s`.
    MAIL_DELAYED = Warn "mail.delayed";
    /// A mail was not sent and will not be: `kind`, `about`, `why` (`full`, `refused`, `late`, `closing`), `reason`.
    MAIL_DROPPED = Error "mail.dropped";
    /// A mail was not made: `kind`, `about`, `reason`, `request_id`. Among the reasons is that an address got as many as it
    /// may within an hour.
    MAIL_NOT_MADE = Warn "mail.not_made";
    /// Somebody logged in: `user`, `by`, `client`, `request_id`.
    LOGGED_IN = Info "auth.logged_in";
    /// An open stream or WebSocket was ended, since whoever opened it may not go on: `user`, `path`, `request_id`.
    STREAM_ENDED = Info "auth.stream_ended";
    /// An account was made, changed, disabled or deleted, or a credential of it made or revoked: `what`, `user`, `by`,
    /// `request_id`.
    ACCOUNT = Info "auth.account";
    /// An application's OpenAPI document was read, and is another one: `upstream`, `operations`, `waiting`.
    OPENAPI = Info "openapi.read";
    /// An operation of the document asks for less than before; that waits for `palisade openapi accept`: `upstream`,
    /// `operation`.
    OPENAPI_WAITS = Warn "openapi.waits";
    /// What waited is in force: `upstream`, `operation`, `by`.
    OPENAPI_ACCEPTED = Info "openapi.accepted";
    /// The document cannot be read or kept; the one before stays in force: `upstream`, `reason`.
    OPENAPI_AWAY = Warn "openapi.away";
    /// A new policy is in force: `policy_hash`.
    RELOADED = Info "policy.reloaded";
    /// A policy was not taken, the old one stays in force: `problems`.
    REJECTED = Error "policy.rejected";
    /// `palisade set` put a control into another mode, or took that back: `control`, `mode`, `route`, `until`, `reason`,
    /// `by`.
    SWITCHED = Warn "policy.switched";
    /// The state directory cannot be used, so that commands do not reach this server: `path`, `reason`.
    STATE = Warn "server.state";
    /// A policy is in force although something about it is doubtful: `problems`.
    WARNINGS = Warn "policy.warnings";
    /// An environment variable overrides the policy: `name`.
    OVERRIDDEN = Info "policy.overridden";
    /// A request was refused, or would have been, because of what the client sent: the fields of a refusal.
    REFUSED = Info "request.refused";
    /// A request was refused because of the application, the operator or Palisade itself: the fields of a refusal.
    FAILED = Warn "request.failed";
    /// Keys that Palisade makes for itself came, went, or took their turn.
    KEYS_CHANGED = Info "keys.changed";
    /// The place of the keys cannot be used; those of before stay in use: `reason`.
    KEYS_AWAY = Error "keys.away";
    /// The place of the keys can be used again.
    KEYS_BACK = Info "keys.back";
    /// A handler or a layer panicked: `request_id`.
    PANIC = Error "request.panic";
    /// A cookie of the application was dropped, as browsers do: `name`, `why`, `route`, `request_id`.
    COOKIE = Warn "upstream.cookie_dropped";
    /// A file could not be read to the end that was promised, and its connection was closed: `path`, `reason`,
    /// `request_id`.
    FILE_BROKEN = Warn "static.broken";
    /// A connection could not be accepted, or its TLS handshake failed: `reason`.
    CONNECTION = Info "connection.failed";
    /// Log lines were dropped because their target is too slow, or could not be written to: `lines`.
    DROPPED = Warn "log.dropped";
    /// A target of the log cannot be written to: `target`, `reason`, `lines` lost so far. On standard error, once a minute.
    LOG_FAILED = Error "log.failed";
    /// There are fewer descriptors than the connections and requests need that the policy allows: `limit`, the
    /// `connections` and `requests` that are taken instead, and what would mend it: `add`.
    DESCRIPTORS = Warn "server.descriptors";
    /// A supervised application was started: `pid`.
    APP_STARTED = Info "app.started";
    /// A supervised application accepts connections: `pid`, `after_ms`.
    APP_READY = Info "app.ready";
    /// A supervised application ended by itself: `status`, `ran_ms`, `restart_in_ms`, `last_lines` of its standard error.
    APP_EXITED = Error "app.exited";
    /// A private peer sends `X-Forwarded-For` and is not trusted, so that its clients can't be told apart: `peer`, and
    /// the line for `[server]` that would name it: `add`.
    UNNAMED_PROXY = Warn "client_ip.unnamed_proxy";
    /// A supervised application was ended with the server: `pid`, `status`, `how`.
    APP_STOPPED = Info "app.stopped";
    /// A browser reports what a `Content-Security-Policy` blocked, or would have (`disposition`): `page`, `directive`,
    /// `blocked`, and how many reports before it were only counted (`suppressed`). Anybody can send these.
    CSP_VIOLATION = Info "csp.violation";
    /// A rule of the WAF matched: the fields of a match.
    WAF_MATCH = Info "waf.match";
    /// Something that controls depend on does not answer: `dependency`, `target`, `reason`. What then happens is `when_away`.
    AWAY = Warn "dependency.away";
    /// It answers again: `dependency`, `target`, `after_ms`.
    BACK = Info "dependency.back";
    /// A certificate was read again: `file`, `not_after`.
    CERTIFICATE = Info "tls.certificate";
    /// A certificate or key that changed cannot be used, the old one stays in force: `reason`.
    CERTIFICATE_REJECTED = Error "tls.rejected";
}

/// The fields of a line about a refusal, [`REFUSED`] or [`FAILED`], in order. Public interface.
pub static REFUSAL_FIELDS: &[Field] = &[
    ("time", "string", "when it was decided, RFC 3339, UTC, milliseconds"),
    ("event", "string", "`request.refused` or `request.failed`"),
    ("level", "string", "`info` or `warn`"),
    ("owasp", "string", "the term of OWASP's logging vocabulary"),
    ("control", "string", "the control that decided, or the part of the server that the code names"),
    ("code", "string", "the code, as in the answer"),
    ("mode", "string", "`block`: it was refused; `detect`: it would have been"),
    ("policy", "string or null", "the line of its route in the policy, or `default`; null where none was asked for"),
    ("request_id", "string or null", "the id of the request; null where a whole connection was ended"),
    ("client", "string", "the client's address, as far as it was known"),
    ("why", "string", "what happened: fixed text, with nothing of the request in it"),
];

/// The fields that some refusals have behind those. Public interface.
pub static REFUSAL_DETAILS: &[Field] = &[
    ("at", "string", "where the rule stands in its file"),
    ("body", "string", "what the application said in its error, shortened, secrets replaced"),
    ("bytes", "string", "how much had come or was announced"),
    ("content_type", "string", "the type of the application's error"),
    ("decides", "string", "the key of the policy that decides whether such a request passes"),
    ("exclude", "string", "the rules without which the request would pass"),
    ("header", "string", "the header that the policy names"),
    ("limit", "string", "the limit that was reached"),
    ("match", "string", "what the rule matched and what surrounds it, secrets replaced"),
    ("msg", "string", "the message of the rule, secrets replaced"),
    ("name", "string", "the kind of credential that the query holds"),
    ("origin", "string", "the `Origin` that was sent, secrets replaced"),
    ("parameter", "string", "the parameter that is missing"),
    ("part", "string", "the part of the condition that could not be decided"),
    ("permission", "string", "the permission that is missing"),
    ("reason", "string", "the error, or what was found"),
    ("rule", "string", "the rule that says most about the request"),
    ("rules", "string", "the rules that matched"),
    ("scope", "string", "the scope that is missing"),
    ("score", "string", "the anomaly score"),
    ("status", "string", "the status of the application's answer"),
    ("target", "string", "what the rule looked at"),
    ("template", "string", "the value of the header in the policy"),
    ("to", "string", "the host that the application sends its client to"),
    ("upstream", "string", "the upstream"),
    ("url", "string", "the address of the application"),
    ("user", "string", "the id of the user"),
    ("value", "string", "what the request does not have, and a header of the policy needs"),
    ("violation", "string", "what is wrong with the framing, as a name"),
];

/// The fields of a line about a match, [`WAF_MATCH`], in order. Public interface.
pub static MATCH_FIELDS: &[Field] = &[
    ("time", "string", "when the rule matched, RFC 3339, UTC, milliseconds"),
    ("event", "string", "always `waf.match`"),
    ("level", "string", "always `info`"),
    ("ruleId", "number", "the id of the rule"),
    ("msg", "string", "its message, secrets replaced"),
    ("data", "string", "what it logs of the request, secrets replaced"),
    ("tags", "array", "its tags"),
    ("score", "number", "the anomaly score of the request so far"),
    ("target", "string", "what it looked at"),
    ("mode", "string", "the mode of `waf` for this request"),
    ("request_id", "string", "the id of the request"),
];

/// A line in the making; written when it is dropped.
#[derive(Debug)]
pub struct Line<'l> {
    log: &'l Log,
    text: Vec<u8>,
}

impl Event {
    /// Begins a line of this event.
    pub fn line<'l>(&self, log: &'l Log) -> Line<'l> {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"{\"time\":\"");
        time(&mut text, log.clock.now());
        text.push(b'"');
        json::field_str(&mut text, "event", self.name);
        json::field_str(&mut text, "level", self.level.as_str());
        Line { log, text }
    }
}

impl Line<'_> {
    /// Adds a text.
    pub fn str(mut self, name: &'static str, value: &str) -> Self {
        json::field_str(&mut self.text, name, value);
        self
    }

    /// Adds a text, or null.
    pub fn str_or_null(mut self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => json::field_str(&mut self.text, name, value),
            None => json::field_null(&mut self.text, name),
        }
        self
    }

    /// Adds a number.
    pub fn u64(mut self, name: &'static str, value: u64) -> Self {
        json::field_u64(&mut self.text, name, value);
        self
    }

    /// Adds a list of texts.
    pub fn list<'t>(mut self, name: &'static str, values: impl IntoIterator<Item = &'t str>) -> Self {
        self.text.extend_from_slice(b",\"");
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":[");
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.text.push(b',');
            }
            json::string(&mut self.text, value);
        }
        self.text.push(b']');
        self
    }

    /// Adds anything that can be shown.
    pub fn show(self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.str(name, &value.to_string())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.log.security.line(true, |out| {
            let from = out.len();
            out.extend_from_slice(&self.text);
            out.extend_from_slice(b"}\n");
            self.log.dress(out, from);
        });
    }
}

/// What there is to say of a refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'r> {
    pub(crate) code: &'static Code,
    pub(crate) control: &'static str,
    pub(crate) mode: Mode,
    /// The line of the route; none where no route was asked for.
    pub(crate) policy: Option<&'r str>,
    /// None where it is not a request that was refused.
    pub(crate) request_id: Option<&'r str>,
    pub(crate) client: &'r str,
    pub(crate) why: &'static str,
    pub(crate) fields: &'r [(&'static str, Cow<'static, str>)],
}

impl Refused<'_> {
    /// Counts it, and writes the security event. Nobody else does either, so that all have the same fields.
    pub(crate) fn tell(&self, metrics: &Metrics, log: &Log) {
        metrics.refused(self.control, self.code.name, self.mode);
        if !log.security.is_on() {
            return;
        }
        let event = if self.code.fault == Fault::Client { &REFUSED } else { &FAILED };
        let mut line = event
            .line(log)
            .str("owasp", self.code.owasp)
            .str("control", self.control)
            .str("code", self.code.name)
            .str("mode", self.mode.as_str())
            .str_or_null("policy", self.policy)
            .str_or_null("request_id", self.request_id)
            .str("client", self.client)
            .str("why", self.why);
        for (name, value) in self.fields {
            // Handlers name theirs as they like, and of two fields of one name readers take either.
            if REFUSAL_FIELDS.iter().all(|(known, ..)| known != name) {
                line = line.str(name, value);
            }
        }
    }
}

/// The security event of a request that is refused, or would be.
pub(crate) fn refused(ctx: &Context, control: Option<ControlId>, mode: Mode, refusal: &Refusal) {
    let env = ctx.policy.env();
    let code = refusal.code();
    let refused = Refused {
        code,
        control: control.map_or(code.control(), |control| control.info().name),
        mode,
        policy: Some(&ctx.rule().line),
        request_id: Some(ctx.request_id().as_str()),
        client: ctx.client_text(),
        why: refusal.why(),
        fields: refusal.fields(),
    };
    refused.tell(&env.metrics, &env.log);
}

/// The line that a sink writes itself when it had to drop some.
pub(crate) fn dropped(out: &mut Vec<u8>, lines: u64) {
    out.extend_from_slice(b"{\"time\":\"");
    time(out, palisade_base::Clock::real().now());
    out.push(b'"');
    json::field_str(out, "event", DROPPED.name);
    json::field_str(out, "level", DROPPED.level.as_str());
    json::field_u64(out, "lines", lines);
    out.extend_from_slice(b"}\n");
}

/// The line about a sink that cannot be written to.
pub(crate) fn failed(out: &mut Vec<u8>, target: &str, reason: &str, lines: u64) {
    out.extend_from_slice(b"{\"time\":\"");
    time(out, palisade_base::Clock::real().now());
    out.push(b'"');
    json::field_str(out, "event", LOG_FAILED.name);
    json::field_str(out, "level", LOG_FAILED.level.as_str());
    json::field_str(out, "target", target);
    json::field_str(out, "reason", reason);
    json::field_u64(out, "lines", lines);
    out.extend_from_slice(b"}\n");
}

thread_local! {
    static SECOND: RefCell<(i64, [u8; 19])> = const { RefCell::new((i64::MIN, [0; 19])) };
}

/// Appends a time as RFC 3339 with milliseconds; the part that changes once a second is kept.
pub(crate) fn time(out: &mut Vec<u8>, now: Timestamp) {
    let second = now.0.div_euclid(1000);
    SECOND.with_borrow_mut(|(kept, text)| {
        if *kept != second {
            *kept = second;
            let date = now.date();
            let _ = write!(
                &mut text[..],
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                date.year(),
                u8::from(date.month()),
                date.day(),
                date.hour(),
                date.minute(),
                date.second()
            );
        }
        out.extend_from_slice(text);
    });
    out.push(b'.');
    json::number(out, now.0.rem_euclid(1000).unsigned_abs(), 3);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rfc_3339_with_milliseconds() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        ] {
            let mut out = Vec::new();
            time(&mut out, Timestamp(millis));
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn a_refusal_has_the_fields_of_the_table_in_order() {
        static CLIENT: Code = Code::client("x.client", http::StatusCode::FORBIDDEN, 16, "no");
        static OURS: Code = Code::palisade("x.ours", http::StatusCode::INTERNAL_SERVER_ERROR, 16, "no");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("security.log");
        let mut log = Log::off(palisade_base::Clock::adjustable());
        log.security = crate::observe::sink::Sink::open(file.to_str().unwrap()).unwrap();
        let metrics = Metrics::default();
        let fields = [("why", Cow::Borrowed("of a handler")), ("reason", Cow::Borrowed("a \"reason\""))];
        let whole = Refused {
            code: &CLIENT,
            control: "x",
            mode: Mode::Detect,
            policy: Some("default"),
            request_id: Some("01"),
            client: "192.0.2.7",
            why: "for the test",
            fields: &fields,
        };
        whole.tell(&metrics, &log);
        let least = Refused { code: &OURS, mode: Mode::Block, policy: None, request_id: None, fields: &[], ..whole };
        least.tell(&metrics, &log);
        log.flush();
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for (line, event, more) in [(lines[0], &REFUSED, Some("reason")), (lines[1], &FAILED, None)] {
            let names = REFUSAL_FIELDS.iter().map(|(name, ..)| *name).chain(more);
            let places: Vec<_> = names.map(|name| line.find(&format!("\"{name}\":")).unwrap()).collect();
            assert!(places.is_sorted(), "{line}");
            let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            assert_eq!(fields.len(), places.len(), "{line}");
            assert_eq!((&fields["event"], &fields["why"]), (&event.name.into(), &"for the test".into()), "{line}");
        }
        assert!(lines[1].contains("\"policy\":null,\"request_id\":null"), "{}", lines[1]);
        let counted = metrics.text(false);
        for sample in ["code=\"x.client\",mode=\"detect\"} 1\n", "code=\"x.ours\",mode=\"block\"} 1\n"] {
            assert!(counted.contains(sample), "{counted}");
        }
    }

    #[test]
    fn names_of_events_are_unique() {
        let mut names: Vec<_> = EVENTS.iter().map(|event| event.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EVENTS.len());
    }
}
