//! What the application says of itself in an error reaches the log and not the client.
//!
//! Guide section 13. A body of an answer 5xx that is HTML or text, or holds a trace, is replaced by a problem document
//! with the application's status; its start is kept, redacted, in the log under the request id. CWE-209.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode, response};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::body::Start;
use crate::context::Context;
use crate::control::{Check, Control, Info, NoRoute, Peek, Routes};
use crate::observe::redact;
use crate::policy::Env;
use crate::refusal::{Code, Refusal};

/// Which bodies of the application's errors (5xx) are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// HTML and text, whatever holds a trace, and what cannot be read: compressed, or endless. JSON without a trace
    /// passes.
    All,
    /// Whatever holds a trace.
    Traces,
    /// None.
    Off,
}

/// `[error_mask]`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Which bodies of the application's errors (5xx) are replaced. Default `all`; in development `off`.
    pub mask: Option<Mask>,
}

/// The application failed, and what it said is not for strangers.
pub static ERROR: Code = Code::upstream(
    "error_mask.upstream",
    StatusCode::INTERNAL_SERVER_ERROR,
    13,
    "the application behind this gateway failed",
)
.owasp("sys_crash");

/// So much is searched for traces.
const MAX_READ: usize = 64 << 10;
/// So much is kept in the log.
const MAX_KEPT: usize = 16 << 10;
/// An error's body comes with its head, or soon after.
const PATIENCE: Duration = Duration::from_secs(1);
/// A stream that is replaced in any case is asked for its first words only.
const MOMENT: Duration = Duration::from_millis(50);

/// The control.
#[derive(Debug)]
pub struct ErrorMask {
    mask: Mask,
}

impl Control for ErrorMask {
    type Config = Config;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "error_mask",
        section: 13,
        codes: &[&ERROR],
        judges: false,
        about: "What the application says of itself in an error reaches the log and not the client.",
    };

    fn compile(section: &Config, _: &Routes<'_, NoRoute>, env: &Env, _: &mut Problems) -> Option<Self> {
        let mask = section.mask.unwrap_or(if env.is_development() { Mask::Off } else { Mask::All });
        (mask != Mask::Off).then_some(Self { mask })
    }
}

/// What an answer is by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Stream,
    Json,
    Other,
}

fn kind(headers: &HeaderMap) -> Kind {
    let Some(Ok(text)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return Kind::Text };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "text/event-stream" {
        Kind::Stream
    } else if essence.is_empty() || essence.starts_with("text/") || essence == "application/xhtml+xml" {
        Kind::Text
    } else if essence.contains("json") {
        Kind::Json
    } else {
        Kind::Other
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

impl Check for ErrorMask {
    fn peeks(&self, _: &Context, status: StatusCode, headers: &HeaderMap) -> Option<Peek> {
        if !status.is_server_error() {
            return None;
        }
        let within = if kind(headers) == Kind::Stream { MOMENT } else { PATIENCE };
        Some(Peek { bytes: MAX_READ, within })
    }

    fn peeked(&self, ctx: &Context, parts: &mut response::Parts, start: &Start) -> Result<(), Refusal> {
        let headed = ctx.method == Method::HEAD;
        match judge(self.mask, headed, &parts.headers, start) {
            None => Ok(()),
            Some(why) => Err(refuse(why, parts, start)),
        }
    }

    fn reads(&self) -> bool {
        true
    }
}

/// Why the body is replaced, if it is. `headed`: the answer to HEAD, which has no body and the head of one.
fn judge(mask: Mask, headed: bool, headers: &HeaderMap, start: &Start) -> Option<&'static str> {
    if start.whole && start.bytes.is_empty() && !headed {
        return None;
    }
    if has_trace(&String::from_utf8_lossy(&start.bytes)) {
        return Some("the body holds a trace");
    }
    if mask == Mask::Traces {
        return None;
    }
    match kind(headers) {
        Kind::Text | Kind::Stream => Some("the body is HTML or text"),
        Kind::Json if headed => None,
        Kind::Json if is_encoded(headers) => Some("the body is compressed and cannot be read"),
        Kind::Json if !start.whole => Some("the body is too long or too slow to be read"),
        Kind::Json | Kind::Other => None,
    }
}

/// The refusal with the application's status: its word on when to come back, and whose pages may read the answer, stay.
fn refuse(why: &'static str, parts: &response::Parts, start: &Start) -> Refusal {
    let mut refusal = ERROR.refuse(why).status(parts.status).with("status", parts.status.as_u16().to_string());
    if let Some(Ok(kind)) = parts.headers.get(CONTENT_TYPE).map(HeaderValue::to_str) {
        refusal = refusal.with("content_type", redact::text(kind));
    }
    if !start.bytes.is_empty() && !is_encoded(&parts.headers) {
        refusal = refusal.with("body", kept(&start.bytes));
    }
    for (name, value) in &parts.headers {
        if name == RETRY_AFTER || name == VARY || name.as_str().starts_with("access-control-") {
            refusal = refusal.header(name.clone(), value.clone());
        }
    }
    refusal
}

/// What the log keeps: bounded, without secrets. Lines and quotes are the log's to escape.
fn kept(bytes: &[u8]) -> String {
    // Redacted before it is cut, so that no secret is cut to something that does not look like one.
    let mut text = redact::text(&String::from_utf8_lossy(bytes));
    if text.len() > MAX_KEPT {
        // A trace says at its end what happened.
        let cut = |at: usize| (at..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        let (head, tail) = (cut(MAX_KEPT / 4), cut(text.len() - MAX_KEPT / 4 * 3 + 16));
        text = format!("{}\n[…]\n{}", &text[..head], &text[tail..]);
    }
    text
}

/// Texts that stand in traces and nowhere else.
const MARKS: [&str; 12] = [
    "Traceback (most recent call last)",
    "Exception Group Traceback",
    "Exception in thread \"",
    "Exception in thread \\\"",
    "goroutine 1 [",
    "[running]:",
    "panicked at ",
    "stack backtrace:",
    "Stack trace:",
    "stack trace:",
    "System.NullReferenceException",
    "End of inner exception stack trace",
];

/// Whether a text holds a trace: of Python, Java, JavaScript, Go, Rust, PHP, Ruby, .NET.
fn has_trace(text: &str) -> bool {
    MARKS.iter().any(|mark| text.contains(mark)) || python_frames(text) >= 2 || frames(text) >= 2
}

/// Lines that look like a frame of a call stack, also where lines are ends of JSON strings. Stops at two.
fn frames(text: &str) -> usize {
    let lines = text.split(['\n', ',']).flat_map(|line| line.split("\\n"));
    lines
        .filter(|line| {
            is_frame(
                line.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '[' | '\\' | 't')).trim_end(),
            )
        })
        .take(2)
        .count()
}

/// `File "/app/main.py", line 12`, also inside a JSON string.
fn python_frames(text: &str) -> usize {
    let behind = text.match_indices("File ").map(|(at, mark)| text[at + mark.len()..].trim_start_matches('\\'));
    let paths = behind.filter_map(|behind| behind.strip_prefix('"')?.split(['"', '\n']).next());
    paths.filter(|path| path.trim_end_matches('\\').ends_with(".py")).take(2).count()
}

fn is_frame(line: &str) -> bool {
    // Java, JavaScript, .NET: `at a.b.C.d(File.java:12)`, `at f (/app/x.js:1:2)`, `at A.B() in C:\x.cs:line 3`.
    if let Some(place) = line.strip_prefix("at ") {
        return place.contains('(') && place.contains(':') && place.bytes().any(|b| b.is_ascii_digit())
            || place.contains(":line ")
            || (place.starts_with('/') || place.starts_with("file://")) && place.contains(':');
    }
    // PHP: `#0 /app/x.php(12): f()`. Ruby: `/app/x.rb:12:in 'f'`.
    (line.starts_with('#') && line.contains(".php(")) || line.contains(".rb:") && line.contains(":in ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: &str = "Traceback (most recent call last):\n  File \"/app/main.py\", line 3, in f\n    1/0\nZeroDivisionError: division by zero";

    #[test]
    fn traces_are_seen_and_sentences_are_not() {
        for trace in [
            PYTHON,
            "{\"detail\":\"Traceback (most recent call last):\\n  File \\\"/app/main.py\\\"\"}",
            "{\"trace\": [\"  File \\\"/app/a.py\\\", line 3\", \"  File \\\"/app/b.py\\\", line 9\"]}",
            "java.lang.X: y\n\tat com.a.B.c(B.java:12)\n\tat com.a.D.e(D.java:3)",
            "{\"trace\":\"X\\n\\tat com.a.B.c(B.java:12)\\n\\tat com.a.D.e(D.java:3)\"}",
            "Error: x\n    at f (/app/x.js:1:2)\n    at /app/y.js:3:4",
            "goroutine 1 [running]:\nmain.main()",
            "thread 'main' panicked at src/main.rs:1:2:",
            "#0 /app/x.php(12): f()\n#1 /app/y.php(3): g()",
            "/app/x.rb:12:in 'f'\n/app/y.rb:1:in 'g'",
            "at A.B() in C:\\x.cs:line 3\n at A.C() in C:\\x.cs:line 9",
        ] {
            assert!(has_trace(trace), "{trace}");
        }
        for sentence in [
            "",
            "{\"detail\":\"Internal Server Error\"}",
            "the meeting is at 10:30 (room 4)",
            "File upload failed, try again",
            "at least 3 (of 4) replicas, at most 5",
            "{\"error\":\"look at (https://example.com:8080/status1)\"}",
        ] {
            assert!(!has_trace(sentence), "{sentence}");
        }
    }

    #[test]
    fn what_is_replaced() {
        let start = |text: &str, whole| Start { bytes: text.as_bytes().to_vec(), whole };
        let cases: &[(&str, &str, bool, bool, bool)] = &[
            // type, body, whole, replaced by `all`, by `traces`
            ("text/html", "<h1>Oops</h1>", true, true, false),
            ("text/plain; charset=utf-8", "Internal Server Error", true, true, false),
            ("TEXT/HTML", PYTHON, true, true, true),
            ("", "?", true, true, false),
            ("application/json", "{\"detail\":\"busy\"}", true, false, false),
            ("application/problem+json", "{}", true, false, false),
            ("application/json", "{\"detail\":", false, true, false),
            ("application/json", PYTHON, false, true, true),
            ("application/octet-stream", "\u{1}\u{2}", false, false, false),
            ("application/octet-stream", PYTHON, true, true, true),
            ("text/event-stream", "", false, true, false),
            ("text/html", "", true, false, false),
        ];
        for (content_type, body, whole, all, traces) in cases {
            let mut headers = HeaderMap::new();
            if !content_type.is_empty() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
            }
            for (mask, expected) in [(Mask::All, all), (Mask::Traces, traces)] {
                let judged = judge(mask, false, &headers, &start(body, *whole));
                assert_eq!(judged.is_some(), *expected, "{content_type} {body} {mask:?}");
            }
        }
        let html = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/html"))]);
        assert!(judge(Mask::All, true, &html, &start("", true)).is_some());
        let mut json = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        assert!(judge(Mask::All, true, &json, &start("", true)).is_none());
        json.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(judge(Mask::All, false, &json, &start("\u{1f}\u{8b}", true)).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_without_secrets() {
        let long = format!("password=hunter2 {} the end é", "é".repeat(40_000));
        let kept = kept(long.as_bytes());
        assert!(kept.len() <= MAX_KEPT, "{}", kept.len());
        assert!(kept.starts_with("password=[redacted] é") && kept.ends_with("the end é"));
        assert_eq!(super::kept(b"\xff short"), "\u{fffd} short");
    }

    /// An application that fails in three ways.
    fn failing() -> axum::Router {
        use axum::routing::get;
        let answer = |kind: &'static str, body: &'static str| {
            move || async move {
                let headers = [
                    ("content-type", kind),
                    ("retry-after", "7"),
                    ("access-control-allow-origin", "*"),
                    ("x-own", "1"),
                ];
                (StatusCode::SERVICE_UNAVAILABLE, headers, body)
            }
        };
        axum::Router::new()
            .route("/text", get(answer("text/plain", PYTHON)))
            .route("/json", get(answer("application/json", "{\"detail\":\"busy\"}")))
            .route("/fine", get(|| async { ([("content-type", "text/plain")], PYTHON) }))
    }

    #[tokio::test]
    async fn through_the_stack_the_status_stays_and_the_body_goes() {
        let app = crate::testing::Harness::new("[error_mask]\nmask = \"all\"", failing());
        let masked = app.get("/text").await;
        assert_eq!((masked.status(), masked.refusal()), (503, Some(&ERROR)));
        let document: serde_json::Value = serde_json::from_str(&masked.text()).unwrap();
        assert_eq!((&document["status"], &document["code"]), (&503.into(), &"error_mask.upstream".into()));
        assert_eq!((masked.header("retry-after"), masked.header("x-own")), ("7", ""));
        assert_eq!(masked.header("access-control-allow-origin"), "*");
        let html = app.send(Method::GET, "/text", &[("accept", "text/html")], "").await;
        assert!(html.text().contains("<h1>Service Unavailable</h1>"), "{}", html.text());
        assert_eq!(app.get("/json").await.text(), "{\"detail\":\"busy\"}");
        assert_eq!(app.get("/fine").await.text(), PYTHON);
        let development = crate::testing::Harness::new("", failing());
        assert_eq!(development.get("/text").await.text(), PYTHON);
    }
}
