//! How much a request may be: its body, its target, its headers.
//!
//! Guide section 2. Sizes that no correct client reaches are refused before a byte of the body is read.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, request};
use palisade_base::{ByteSize, Interval};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Seen};
use crate::control::{Asked, Check, Control, Info, Inspect, Remedy, Routes};
use crate::grpc::Messages;
use crate::policy::Env;
use crate::policy::config::HARD_HEADER_BYTES;
use crate::policy::values::Timeout;
use crate::refusal::{Code, Refusal, Stop};

mod depth;
mod markup;

use depth::{Depth, openings};
use markup::Markup;

/// The largest body where a policy says nothing, in bytes.
pub(crate) const STRICT_BODY: u64 = 1 << 20;
/// How deep a JSON body may be where a policy says nothing.
const STRICT_JSON_DEPTH: u32 = 32;

/// `[limits]`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The largest body, whatever its type. A route that takes more says so.
    pub body: ByteSize,
    /// Bodies that the API does not parse as JSON, XML or a form (files, octet streams, multipart) may be of any size.
    /// They stream. The starter policy says so; with a written policy `body` holds for every body.
    pub unparsed_unlimited: bool,
    /// How deep arrays and objects of a JSON body may lie in each other. Judged while the body streams.
    #[schemars(range(min = 1, max = 10_000))]
    pub json_depth: u32,
    /// How deep the elements of an XML body may lie in each other. Judged while the body streams.
    #[schemars(range(min = 1, max = 10_000))]
    pub xml_depth: u32,
    /// All header fields of a request together.
    pub header_bytes: ByteSize,
    /// The target of a request: path and query.
    pub url_bytes: ByteSize,
    /// Connections at once, over all listeners.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// Connections at once from one address (IPv6: one /64, and 16 times as many from one /48). Does not hold for trusted
    /// proxies.
    #[schemars(range(min = 1))]
    pub connections_per_address: u32,
    /// Requests at once on an HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Requests at once, over all connections, that have a connection to an application or a file of `[[static]]`. One
    /// address (IPv6: one /48) may have as many as are free besides, so that it never has more than half. Default: as many
    /// as `connections`.
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// How long a head may take from its first byte, and a TLS handshake, and the beginning of a connection.
    pub head_time: Interval,
    /// How long may be waited for the body of a request in all, beside a second for every 500 bytes that came: long
    /// bodies have long, slow ones end here. Counts only while the application waits for more, and ends when it answers.
    pub body_time: Timeout,
    /// How long a connection may be idle between two requests.
    pub idle_time: Interval,
    /// How long a client may take nothing of an answer that waits for it.
    pub answer_time: Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body: ByteSize::mib(1),
            unparsed_unlimited: false,
            json_depth: STRICT_JSON_DEPTH,
            xml_depth: 128,
            header_bytes: ByteSize::kib(32),
            url_bytes: ByteSize::kib(8),
            connections: 10_000,
            connections_per_address: 100,
            streams: 128,
            requests: None,
            head_time: Interval::secs(10),
            body_time: Timeout::After(Interval::secs(60)),
            idle_time: Interval::secs(75),
            answer_time: Timeout::After(Interval::secs(60)),
        }
    }
}

impl Config {
    /// `requests`, by default as many as `connections`.
    pub fn requests(&self) -> u32 {
        self.requests.unwrap_or(self.connections)
    }
}

/// What a route may say.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The largest body of this route.
    pub body: Option<ByteSize>,
    /// How deep arrays and objects of a JSON body may lie in each other.
    #[schemars(range(min = 1, max = 10_000))]
    pub json_depth: Option<u32>,
    /// How deep its XML bodies may be.
    #[schemars(range(min = 1, max = 10_000))]
    pub xml_depth: Option<u32>,
    /// How long may be waited for a body in all, beside a second for every 500 bytes that came.
    pub body_time: Option<Timeout>,
}

/// The body is too large.
pub static BODY: Code =
    Code::client("limits.body", StatusCode::PAYLOAD_TOO_LARGE, 2, "the body of this request is too large")
        .owasp("input_validation_fail");
/// An XML body is nested too deeply.
pub static XML_DEPTH: Code =
    Code::client("limits.xml_depth", StatusCode::BAD_REQUEST, 2, "the XML body of this request is nested too deeply")
        .owasp("input_validation_fail");
/// A JSON body is nested too deeply. 400 and not 413: the body is not too much, and sending it in parts would not help.
pub static JSON_DEPTH: Code =
    Code::client("limits.json_depth", StatusCode::BAD_REQUEST, 2, "the JSON body of this request is nested too deeply")
        .owasp("input_validation_fail");
/// A body takes too long.
pub static BODY_TIME: Code = Code::client(
    "limits.body_time",
    StatusCode::REQUEST_TIMEOUT,
    21,
    "the body of this request took too long to arrive",
)
.owasp("excess_rate_limit_exceeded");
/// The header fields are too large.
pub static HEADERS: Code = Code::client(
    "limits.headers",
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    2,
    "the headers of this request are too large",
)
.owasp("input_validation_fail");
/// The target is too long.
pub static URL: Code =
    Code::client("limits.url", StatusCode::URI_TOO_LONG, 2, "the target of this request is too long")
        .owasp("input_validation_fail");

/// The control.
#[derive(Debug)]
pub struct Limits {
    body: Vec<Option<u64>>,
    standard: u64,
    json_depth: Vec<u32>,
    xml_depth: Vec<u32>,
    body_time: Vec<Option<Duration>>,
    unparsed_unlimited: bool,
    header_bytes: usize,
    url_bytes: usize,
}

impl Control for Limits {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "limits",
        section: 2,
        codes: &[&BODY, &JSON_DEPTH, &XML_DEPTH, &BODY_TIME, &HEADERS, &URL],
        judges: true,
        about: "How much a request may be. Header limits are hard ceilings and always enforce.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, _: &Env, problems: &mut Problems) -> Option<Self> {
        if section.header_bytes > HARD_HEADER_BYTES {
            problems.error(
                "limits.header_bytes",
                format!("heads are never larger than {HARD_HEADER_BYTES}"),
                format!("write at most `{HARD_HEADER_BYTES}`"),
            );
        }
        for (key, time) in [("limits.head_time", section.head_time), ("limits.idle_time", section.idle_time)] {
            if time.duration().is_zero() {
                problems.error(key, "a time of zero would end every connection", "write at least `1s`");
            }
        }
        Some(Self {
            body: routes.map(|route| route.and_then(|route| route.body).map(ByteSize::bytes)),
            standard: section.body.bytes(),
            json_depth: routes.map(|route| route.and_then(|route| route.json_depth).unwrap_or(section.json_depth)),
            xml_depth: routes.map(|route| route.and_then(|route| route.xml_depth).unwrap_or(section.xml_depth)),
            body_time: routes.map(|route| route.and_then(|r| r.body_time).unwrap_or(section.body_time).duration()),
            unparsed_unlimited: section.unparsed_unlimited,
            header_bytes: section.header_bytes.len(),
            url_bytes: section.url_bytes.len(),
        })
    }
}

impl Check for Limits {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if ctx.target.path_and_query().is_some_and(|target| target.as_str().len() > self.url_bytes) {
            return Err(URL.refuse("longer than `limits.url_bytes`").into());
        }
        let header_bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if header_bytes > self.header_bytes {
            return Err(HEADERS.refuse("more than `limits.header_bytes`").into());
        }
        // What announces no length, and what is nested, is judged while it streams.
        // A call of gRPC is judged message by message.
        if !ctx.seen.any(Seen::BODY) || ctx.grpc {
            return Ok(());
        }
        let limit = self.body_limit(ctx, &parts.headers);
        if let Some(length) = announced(&parts.headers).filter(|length| *length > limit) {
            let refusal = BODY.refuse("`Content-Length` is larger than `limits.body`").close();
            return Err(refusal.with("bytes", length.to_string()).with("limit", limit.to_string()).into());
        }
        Ok(())
    }

    fn inspect(&self, ctx: &Context, parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        if ctx.grpc {
            let most = self.body_limit(ctx, &parts.headers);
            let each = || Box::new(Each { most, messages: Messages::default() }) as Box<dyn Inspect>;
            return (most < u64::from(u32::MAX)).then(each);
        }
        let announced = announced(&parts.headers);
        // An announced length was judged with the head, and the HTTP library lets no byte more through.
        let left = if announced.is_some() { u64::MAX } else { self.body_limit(ctx, &parts.headers) };
        let most = |of: &[u32]| of.get(usize::from(ctx.rule().id)).copied().unwrap_or(u32::MAX);
        let kind = media_type(&parts.headers);
        let depth = Nesting::of(&kind, &parts.headers, announced, most(&self.json_depth));
        let markup = Markup::of(&kind, most(&self.xml_depth));
        if left == u64::MAX && depth.is_none() && markup.is_none() {
            return None;
        }
        Some(Box::new(Amount { left, depth, markup }))
    }

    fn inspects(&self) -> bool {
        true
    }

    fn body_time(&self, ctx: &Context) -> Option<Duration> {
        self.body_time.get(usize::from(ctx.rule().id)).copied().flatten()
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let judged = asked.judged;
        if *judged.code == BODY {
            // A body that streamed was cut at the limit: how large it would have become is not known.
            let said = judged.field("bytes").and_then(|bytes| bytes.parse::<u64>().ok());
            let limit = self.body.get(usize::from(asked.rule.id)).copied().flatten().unwrap_or(self.standard);
            let wanted = round_up(said.unwrap_or(limit.saturating_mul(2)));
            return Some(Remedy::Route(format!("limits = {{ body = \"{wanted}\" }}")));
        }
        if *judged.code == JSON_DEPTH {
            let most = self.json_depth.get(usize::from(asked.rule.id)).copied().unwrap_or(u32::MAX);
            // How deep it went is not known: of one that passed, that it was within the limit that it passed under.
            let passed = judged.field("limit").and_then(|limit| limit.parse::<u32>().ok());
            let wanted = passed.unwrap_or(most.saturating_mul(2));
            return Some(Remedy::Route(format!("limits = {{ json_depth = {wanted} }}")));
        }
        if *judged.code == XML_DEPTH {
            let most = self.xml_depth.get(usize::from(asked.rule.id)).copied().unwrap_or(u32::MAX);
            return Some(Remedy::Route(format!("limits = {{ xml_depth = {} }}", most.saturating_mul(2))));
        }
        if *judged.code == BODY_TIME {
            return Some(Remedy::Route("limits = { body_time = \"off\" }".to_owned()));
        }
        if *judged.code == URL {
            let wanted = (self.url_bytes as u64).saturating_mul(2).div_ceil(1024);
            return Some(Remedy::Section(format!("[limits]\nurl_bytes = \"{wanted}KiB\"")));
        }
        if *judged.code != HEADERS {
            let text = "the limits on connections, and on requests at once, hold for all: see `[limits]`; a head arrives within its time";
            return Some(Remedy::Elsewhere(text.into()));
        }
        let wanted = (self.header_bytes as u64).saturating_mul(2).min(HARD_HEADER_BYTES.bytes()).div_ceil(1024);
        Some(Remedy::Section(format!("[limits]\nheader_bytes = \"{wanted}KiB\"")))
    }
}

/// The length that a request announces.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How much of a body there is, while it streams.
#[derive(Debug)]
struct Amount {
    left: u64,
    depth: Option<Nesting>,
    markup: Option<Markup>,
}

impl Inspect for Amount {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let length = piece.len() as u64;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| BODY.refuse("the body ran over `limits.body` while it streamed").close())?;
        if let Some(markup) = &mut self.markup
            && !markup.feed(piece)
        {
            return Err(XML_DEPTH.refuse("deeper than `limits.xml_depth`").close());
        }
        if let Some(depth) = &mut self.depth
            && !depth.feed(piece)
        {
            return Err(JSON_DEPTH.refuse("deeper than `limits.json_depth`").close());
        }
        Ok(())
    }
}

/// How deep a JSON body is. Most come in one piece and have fewer brackets than may lie in each other: counting is cheap,
/// and no reading is needed.
#[derive(Debug)]
struct Nesting {
    depth: Depth,
    whole: Option<u64>,
}

impl Nesting {
    fn of(kind: &str, headers: &HeaderMap, announced: Option<u64>, most: u32) -> Option<Self> {
        Some(Self { depth: Depth::of(kind, headers, most)?, whole: announced })
    }

    /// Counts on. False: deeper than it may be.
    fn feed(&mut self, piece: &[u8]) -> bool {
        let whole = self.whole.take() == Some(piece.len() as u64);
        (whole && openings(piece) <= self.depth.most()) || self.depth.feed(piece)
    }
}

/// What a strict policy would refuse of a JSON body that the starter policy lets pass. An inspector of its own: one that has
/// spoken is fed no more, and the limits in force have to be held to the end.
#[derive(Debug)]
pub(crate) struct Strict {
    in_force: u32,
}

impl Strict {
    /// Where the depth in force is more than the strict one.
    pub(crate) fn of(limits: &Limits) -> Option<Self> {
        let in_force = limits.json_depth.first().copied()?;
        (in_force > STRICT_JSON_DEPTH).then_some(Self { in_force })
    }
}

impl Check for Strict {
    fn inspect(&self, ctx: &Context, parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        let kind = media_type(&parts.headers);
        let nesting = Nesting::of(&kind, &parts.headers, announced(&parts.headers), STRICT_JSON_DEPTH)?;
        (!ctx.grpc).then(|| Box::new(TooDeep { nesting, in_force: self.in_force }) as Box<dyn Inspect>)
    }

    fn inspects(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct TooDeep {
    nesting: Nesting,
    in_force: u32,
}

impl Inspect for TooDeep {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        if self.nesting.feed(piece) {
            return Ok(());
        }
        let refusal = JSON_DEPTH.refuse("deeper than the `limits.json_depth` of a strict policy");
        Err(refusal.with("limit", self.in_force.to_string()).watched())
    }
}

/// How large each message of a call of gRPC is: a conversation may go on for as long as it likes.
#[derive(Debug)]
struct Each {
    most: u64,
    messages: Messages,
}

impl Inspect for Each {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(length) = self.messages.feed(piece, self.most) else { return Ok(()) };
        let refusal = BODY.refuse("a message of gRPC is larger than `limits.body`");
        Err(refusal.with("bytes", length.to_string()).with("limit", self.most.to_string()))
    }
}

impl Limits {
    fn body_limit(&self, ctx: &Context, headers: &HeaderMap) -> u64 {
        match self.body[usize::from(ctx.rule().id)] {
            Some(limit) => limit,
            None if self.unparsed_unlimited && !is_parsed(headers) => u64::MAX,
            None => self.standard,
        }
    }
}

/// The next whole KiB, or MiB from one on.
fn round_up(bytes: u64) -> ByteSize {
    if bytes < STRICT_BODY { ByteSize::kib(bytes.div_ceil(1024)) } else { ByteSize::mib(bytes.div_ceil(STRICT_BODY)) }
}

/// Whether an API would parse a body of this type whole, in memory: JSON, XML, a URL-encoded form, text, or no type at
/// all, which FastAPI reads as JSON.
pub(super) fn is_parsed(headers: &HeaderMap) -> bool {
    // Of two types nobody knows which one the application believes.
    if headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
        return true;
    }
    let kind = media_type(headers);
    kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "x-www-form-urlencoded", "yaml", "graphql", "javascript"]
            .iter()
            .any(|word| names(&kind, word))
}

/// The media type in lower case, without parameters; empty where there is none that can be read.
pub(super) fn media_type(headers: &HeaderMap) -> Cow<'_, str> {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let end = text.bytes().position(|b| b == b';').unwrap_or(text.len());
    let kind = text.get(..end).unwrap_or_default().trim_ascii();
    if kind.bytes().any(|b| b.is_ascii_uppercase()) { kind.to_ascii_lowercase().into() } else { kind.into() }
}

/// Whether a media type has a word in it. The standard library's search is made for long texts, and each body asks.
fn names(kind: &str, word: &str) -> bool {
    let (kind, word) = (kind.as_bytes(), word.as_bytes());
    let first = word.first();
    (0..kind.len()).any(|at| kind.get(at) == first && kind.get(at..).is_some_and(|rest| rest.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing_local::{Answer, App, request};

    /// Sends a body in pieces, without a length.
    async fn stream(app: &App, path: &str, kind: &str, pieces: Vec<String>) -> Answer {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::from(piece)));
        let body = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
        app.send("203.0.113.1", request("POST", path, &[("content-type", kind)], body)).await
    }

    async fn json(app: &App, path: &str, text: String) -> (u16, Option<String>) {
        let length = text.len().to_string();
        let headers = [("content-type", "application/json"), ("content-length", &length)];
        let answer = app.send("203.0.113.1", request("POST", path, &headers, text.into())).await;
        (answer.status, answer.code())
    }

    fn nested(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    const ROUTES: &str = "[[route]]\npath = \"/echo\"\n[[route]]\npath = \"/big\"\nlimits = { body = \"3MiB\", json_depth = 5 }\n[[route]]\npath = \"/free\"\nlimits = { mode = \"off\" }\n";

    #[tokio::test]
    async fn a_body_without_a_length_is_cut_at_its_limit() {
        let app = App::start(ROUTES);
        let mebibyte = || vec!["x".repeat(64 * 1024); 16];
        let fits = stream(&app, "/echo", "text/plain", mebibyte()).await;
        assert_eq!((fits.status, fits.text.len()), (200, 1 << 20));
        let more = mebibyte().into_iter().chain(["x".into()]).collect();
        let refused = stream(&app, "/echo", "text/plain", more).await;
        assert_eq!((refused.status, refused.code().as_deref()), (413, Some("limits.body")));
        assert_eq!(refused.header("connection").as_deref(), Some("close"));
        // Nobody reads it: nothing to judge.
        let many = vec!["x".repeat(1 << 20); 3];
        assert_eq!(stream(&app, "/ignore", "text/plain", many.clone()).await.status, 200);
        let detect = format!("[limits]\nmode = \"detect\"\n{ROUTES}");
        for (app, path) in [(App::start(&detect), "/echo"), (App::start("[limits]\nmode = \"off\"\n"), "/echo")] {
            let answer = stream(&app, path, "text/plain", many.clone()).await;
            assert_eq!((answer.status, answer.text.len()), (200, 3 << 20));
        }
        let starter = App::start(crate::policy::STARTER);
        let mut large = vec!["x".repeat(1 << 20); 11];
        assert_eq!(stream(&starter, "/echo", "application/octet-stream", large.clone()).await.text.len(), 11 << 20);
        assert_eq!(stream(&starter, "/echo", "application/json", large.clone()).await.status, 413);
        large.truncate(9);
        assert_ne!(stream(&starter, "/echo", "application/json", large).await.status, 413);
    }

    #[tokio::test]
    async fn an_announced_length_is_judged_at_once() {
        let app = App::start(ROUTES);
        for (path, length, status) in [
            ("/echo", 1 << 20, 200),
            ("/echo", (1 << 20) + 1, 413),
            ("/big", 3 << 20, 200),
            ("/big", (3 << 20) + 1, 413),
            ("/free", 1 << 40, 200),
        ] {
            let answer = app.ask("203.0.113.1", "POST", path, &[("content-length", &u64::to_string(&length))]).await;
            assert_eq!(answer.status, status, "{path} {length}");
        }
    }

    #[tokio::test]
    async fn nesting_is_judged_while_the_body_streams() {
        let app = App::start(ROUTES);
        assert_eq!(json(&app, "/echo", nested(32)).await.0, 200);
        assert_eq!(json(&app, "/echo", nested(33)).await, (400, Some("limits.json_depth".into())));
        assert_eq!(json(&app, "/echo", format!("\"{}\"", nested(500))).await.0, 200, "in a string");
        assert_eq!(json(&app, "/echo", format!("[{}[]]", "[],".repeat(500))).await.0, 200, "side by side");
        let pieces = nested(40).chars().map(String::from).collect::<Vec<_>>();
        let refused = stream(&app, "/echo", "application/json", pieces.clone()).await;
        assert_eq!((refused.status, refused.code().as_deref()), (400, Some("limits.json_depth")));
        assert_eq!(stream(&app, "/echo", "text/plain", pieces).await.status, 200);
        let detect = App::start(&format!("[limits]\nmode = \"detect\"\n{ROUTES}"));
        assert_eq!(json(&detect, "/echo", nested(4000)).await.0, 200);
        let starter = App::start(crate::policy::STARTER);
        assert_eq!(
            (json(&starter, "/echo", nested(128)).await.0, json(&starter, "/echo", nested(129)).await.0),
            (200, 400)
        );
    }

    #[tokio::test]
    async fn xml_is_judged_like_json() {
        let app = App::start(ROUTES);
        let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        for kind in ["application/xml", "text/xml; charset=utf-8", "application/soap+xml"] {
            assert_eq!(stream(&app, "/echo", kind, vec![deep(128)]).await.status, 200, "{kind}");
            let refused = stream(&app, "/echo", kind, deep(129).chars().map(String::from).collect()).await;
            assert_eq!((refused.status, refused.code().as_deref()), (400, Some("limits.xml_depth")), "{kind}");
        }
        assert_eq!(stream(&app, "/echo", "text/plain", vec![deep(500)]).await.status, 200);
        assert_eq!(stream(&app, "/free", "text/xml", vec![deep(500)]).await.status, 200);
    }

    #[test]
    fn what_an_api_parses() {
        let parsed = |kind: &'static str| {
            is_parsed(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(kind))]))
        };
        for kind in [
            "application/json",
            "application/vnd.api+json; charset=utf-8",
            "text/xml",
            "application/x-www-form-urlencoded",
            "",
            "TEXT/plain",
        ] {
            assert!(parsed(kind), "{kind}");
        }
        for kind in ["application/octet-stream", "multipart/form-data; boundary=x", "video/mp4", "image/png"] {
            assert!(!parsed(kind), "{kind}");
        }
        assert!(is_parsed(&HeaderMap::new()));
    }
}
