//! HTTP/2: what becomes of frames that no library sends when they are turned into HTTP/1.1. RFC 9113 §8; threats 23 and 24.

use anyhow::{Context as _, Result, ensure};
use palisade_test::eventually;
use palisade_test::frames::{END_HEADERS, END_STREAM, Ended, fields, frame, kind};

use super::{Field, Logged, ROUTES, said};
use crate::support::SOON;

type Head = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone)]
enum Want {
    /// A whole request reaches the upstream: `METHOD target body`.
    Passed(&'static str),
    /// The gateway answers.
    Refused(u16, &'static str),
    /// The HTTP library ends stream or connection; nothing reaches the upstream.
    Broken,
    /// The body is not as long as it said: whatever reached the upstream is not a whole request.
    Cut,
}

#[derive(Debug, Clone)]
struct Case {
    what: String,
    frames: Vec<u8>,
    want: Want,
}

fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> (Vec<u8>, Vec<u8>) {
    (name.as_ref().to_vec(), value.as_ref().to_vec())
}

fn head(method: &str, path: &str) -> Head {
    vec![field(":method", method), field(":scheme", "https"), field(":authority", "localhost"), field(":path", path)]
}

/// A GET of `/x` with one more field.
fn with(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>, want: Want) -> Case {
    let mut head = head("GET", "/x");
    head.push(field(name, value));
    ends(head, want)
}

/// A GET of `/x` where this pseudo-header has another value.
fn other(name: &str, value: impl AsRef<[u8]>, want: Want) -> Case {
    let mut head = head("GET", "/x");
    for pair in &mut head {
        if pair.0 == name.as_bytes() {
            pair.1 = value.as_ref().to_vec();
        }
    }
    ends(head, want)
}

fn without(name: &str, want: Want) -> Case {
    let mut head = head("GET", "/x");
    head.retain(|pair| pair.0 != name.as_bytes());
    ends(head, want)
}

/// A request of a head alone.
fn ends(head: Head, want: Want) -> Case {
    let shown: Vec<String> =
        head.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
    Case { what: shown.join(" "), frames: frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &fields(&head)), want }
}

/// A POST with these fields, these pieces of a body, and trailers.
fn post(more: &[(&str, &str)], pieces: &[&str], trailers: &[(&str, &str)], want: Want) -> Case {
    let mut head = head("POST", "/x");
    head.extend(more.iter().map(|(name, value)| field(name, value)));
    let mut frames = frame(kind::HEADERS, END_HEADERS, 1, &fields(&head));
    for (place, piece) in pieces.iter().enumerate() {
        let last = place + 1 == pieces.len() && trailers.is_empty();
        frames.extend(frame(kind::DATA, if last { END_STREAM } else { 0 }, 1, piece.as_bytes()));
    }
    if !trailers.is_empty() {
        frames.extend(frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &fields(trailers)));
    }
    Case { what: format!("POST {more:?} {pieces:?} {trailers:?}"), frames, want }
}

fn cases() -> Vec<Case> {
    use Want::{Broken, Cut, Passed, Refused};
    let header = || Refused(400, "integrity.header");
    let host = || Refused(400, "integrity.host");
    let path = || Refused(400, "integrity.path");
    let method = || Refused(400, "integrity.method");
    let smuggled = "GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n";
    vec![
        ends(head("GET", "/x"), Passed("GET /x")),
        post(&[], &["abc"], &[], Passed("POST /x abc")),
        post(&[("content-length", "3")], &["abc"], &[], Passed("POST /x abc")),
        post(&[], &[smuggled], &[], Passed("POST /x GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        post(&[], &["abc"], &[("x-forwarded-for", "10.0.0.1")], Passed("POST /x abc")),
        // Connection-specific fields (RFC 9113 §8.2.2).
        with("connection", "close", Broken),
        with("connection", "content-length", Broken),
        with("keep-alive", "timeout=5", Broken),
        with("proxy-connection", "keep-alive", Broken),
        with("upgrade", "h2c", Broken),
        with("upgrade", "websocket", Broken),
        with("te", "trailers", Passed("GET /x")),
        with("te", "gzip", Broken),
        post(&[("transfer-encoding", "chunked")], &["0\r\n\r\n", smuggled], &[], Broken),
        post(&[("transfer-encoding", "identity")], &["abc"], &[], Broken),
        // Lengths.
        post(&[("content-length", "0")], &[smuggled], &[], Cut),
        post(&[("content-length", "2")], &["abc"], &[], Cut),
        post(&[("content-length", "4")], &["abc"], &[], Cut),
        post(&[("content-length", "3"), ("content-length", "4")], &["abc"], &[], Cut),
        post(&[("content-length", "3"), ("content-length", "3")], &["abc"], &[], Cut),
        post(&[("content-length", "3, 3")], &["abc"], &[], Cut),
        post(&[("content-length", "+3")], &["abc"], &[], Cut),
        post(&[("content-length", "-3")], &["abc"], &[], Cut),
        post(&[("content-length", "03")], &["abc"], &[], Cut),
        post(&[("content-length", "0x3")], &["abc"], &[], Cut),
        post(&[("content-length", "3 ")], &["abc"], &[], Cut),
        post(&[("content-length", " 3")], &["abc"], &[], Cut),
        post(&[("content-length", "")], &["abc"], &[], Cut),
        post(&[("content-length", "18446744073709551619")], &["abc"], &[], Cut),
        with("content-length", "3", Cut),
        // Names and values that would be something else in HTTP/1.1.
        with("x", "a\r\nx-admin: 1", Broken),
        with("x", "a\nx-admin: 1", Broken),
        with("x", "a\0b", Broken),
        with("x", "a\rb", Broken),
        with("x: y\r\nx-admin", "1", Broken),
        with("x:", "1", Broken),
        with("x y", "1", Broken),
        with("x\r\n", "1", Broken),
        with("", "1", Broken),
        with("X", "1", Broken),
        with("Transfer-Encoding", "chunked", Broken),
        with("transfer-encoding ", "chunked", Broken),
        with("x", " a", header()),
        with("x", "a\t", header()),
        with("cookie", "a=1\r\nx: y", Broken),
        with("expect", "200-ok", Refused(417, "integrity.expect")),
        with("expect", " 100-continue", Refused(417, "integrity.expect")),
        // Pseudo-headers.
        with(":path", "/admin", Broken),
        with(":method", "POST", Broken),
        with(":authority", "evil.example", Broken),
        with(":status", "200", Broken),
        with(":unknown", "1", Broken),
        with(":protocol", "websocket", Broken),
        without(":method", Broken),
        without(":path", Broken),
        without(":scheme", Broken),
        without(":authority", host()),
        ends([vec![field("a", "b")], head("GET", "/x")].concat(), Broken),
        other(":method", "get", method()),
        other(":method", "TRACE", method()),
        other(":method", "GET /admin HTTP/1.1\r\nx:", Broken),
        other(":method", "", Broken),
        other(":method", "G T", Broken),
        other(":scheme", "ftp", Passed("GET /x")),
        other(":path", "", Broken),
        other(":path", "x", Broken),
        other(":path", "*", path()),
        // A fragment is cut off before anybody here sees it; what is decided on is what is sent.
        other(":path", "/x#/../admin", Passed("GET /x")),
        ends(head("OPTIONS", "*"), Passed("OPTIONS *")),
        ends(head("OPTIONS", "*?x"), Broken),
        ends(head("CONNECT", "/x"), Broken),
        ends(vec![field(":method", "CONNECT"), field(":authority", "localhost:80")], method()),
        ends(
            vec![field(":method", "GET"), field(":scheme", "https"), field(":path", "/x"), field("host", "localhost")],
            Passed("GET /x"),
        ),
        other(":path", "/x HTTP/1.1\r\nx-admin: 1\r\n\r\n", Broken),
        other(":path", "/x y", Broken),
        other(":path", "/x\0", Broken),
        other(":path", "http://localhost/admin", Broken),
        other(":path", "//evil.example/x", Passed("GET /evil.example/x")),
        other(":path", "/x/../admin", Refused(403, "access.address")),
        other(":path", "/%61dmin", Refused(403, "access.address")),
        other(":path", "/a%2fb", path()),
        other(":path", "/..%2fadmin", path()),
        other(":path", "/a\\b", path()),
        other(":path", "/a;b", path()),
        other(":path", "/%252e", path()),
        other(":path", "/\u{e9}", path()),
        other(":authority", "LOCALHOST", Passed("GET /x")),
        other(":authority", "evil.example", Refused(421, "hosts.unknown")),
        other(":authority", "", Broken),
        other(":authority", "localhost/admin", Broken),
        other(":authority", "localhost?x", Broken),
        other(":authority", "localhost#x", Broken),
        other(":authority", "user@localhost", host()),
        other(":authority", "localhost@evil.example", host()),
        other(":authority", "localhost:80:80", Broken),
        other(":authority", "localhost:", host()),
        other(":authority", "localhost:99999", host()),
        other(":authority", "localhost, evil.example", Broken),
        other(":authority", "localhost\r\nx: y", Broken),
        other(":authority", "[::1%25eth0]", host()),
        with("host", "localhost", Passed("GET /x")),
        with("host", "evil.example", host()),
        with("host", "localhost:80", host()),
        with("host", "", host()),
        with("host", "localhost\t", host()),
    ]
}

/// Frames in an order or of a kind that a connection or stream must not have (RFC 9113 §4 to §6).
fn sequences() -> Vec<Case> {
    let whole =
        |what: &str, frames: &[Vec<u8>]| Case { what: what.to_owned(), frames: frames.concat(), want: Want::Broken };
    let block = fields(&head("GET", "/x"));
    let (first, second) = block.split_at(5);
    let open = frame(kind::HEADERS, END_HEADERS, 1, &fields(&head("POST", "/x")));
    vec![
        whole("DATA first", &[frame(kind::DATA, END_STREAM, 1, b"x")]),
        whole("HEADERS on stream 0", &[frame(kind::HEADERS, END_HEADERS | END_STREAM, 0, &block)]),
        whole("HEADERS on an even stream", &[frame(kind::HEADERS, END_HEADERS | END_STREAM, 2, &block)]),
        whole("CONTINUATION without HEADERS", &[frame(kind::CONTINUATION, END_HEADERS, 1, &block)]),
        whole(
            "another frame inside of a head",
            &[frame(kind::HEADERS, END_STREAM, 1, first), frame(kind::PING, 0, 0, &[0; 8])],
        ),
        whole(
            "another stream's CONTINUATION",
            &[frame(kind::HEADERS, END_STREAM, 1, first), frame(kind::CONTINUATION, END_HEADERS, 3, second)],
        ),
        whole("a block that is none", &[frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 16])]),
        whole("an index that does not exist", &[frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xbf])]),
        whole("a promise from a client", &[frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])]),
        whole("a PING of 7 bytes", &[frame(kind::PING, 0, 0, &[0; 7])]),
        whole("SETTINGS of 5 bytes", &[frame(kind::SETTINGS, 0, 0, &[0; 5])]),
        whole("a window of nothing", &[frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])]),
        whole("a frame longer than allowed", &[frame(kind::DATA, 0, 1, &[0; 20_000])]),
        whole("padding longer than the frame", &[frame(kind::HEADERS, END_HEADERS | END_STREAM | 8, 1, &[200, 1, 2])]),
        Case {
            what: "DATA after the end".into(),
            frames: [
                frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block),
                frame(kind::DATA, END_STREAM, 1, b"GET /admin HTTP/1.1\r\n\r\n"),
            ]
            .concat(),
            want: Want::Cut,
        },
        Case {
            what: "pseudo-headers in trailers".into(),
            frames: [open.clone(), frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/admin")]))]
                .concat(),
            want: Want::Cut,
        },
        Case {
            what: "trailers without the end".into(),
            frames: [open.clone(), frame(kind::HEADERS, END_HEADERS, 1, &fields(&[("x", "y")]))].concat(),
            want: Want::Cut,
        },
        Case {
            what: "a head in pieces".into(),
            frames: [
                frame(kind::HEADERS, END_STREAM, 1, first),
                frame(kind::CONTINUATION, 0, 1, &[]),
                frame(kind::CONTINUATION, END_HEADERS, 1, second),
            ]
            .concat(),
            want: Want::Passed("GET /x"),
        },
    ]
}

#[tokio::test]
async fn frames_that_no_library_sends() -> Result<()> {
    let cases = [cases(), sequences()].concat();
    let [block, detect] = Field::both(ROUTES).await?;
    let (block, detect) = tokio::join!(run_on(&block, &cases), run_on(&detect, &cases));
    let (block, detect) = (block?, detect?);
    ensure!(block.len() == cases.len(), "every case was run");
    for (one, other) in block.iter().zip(&detect) {
        ensure!(one == other, "`--detect` changes the verdict: {one:?}, {other:?}");
    }
    Ok(())
}

async fn run_on(field: &Field, cases: &[Case]) -> Result<Vec<(String, String)>> {
    let (mut verdicts, mut logged, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for case in cases {
        let what = format!("{} {}", field.mode, case.what);
        match one(field, case, &what, &mut logged).await {
            Ok(verdict) => verdicts.push((case.what.clone(), verdict)),
            Err(error) => wrong.push(format!("{what}: {error:#}")),
        }
        field.reached();
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    field.check_log(&logged).await?;
    Ok(verdicts)
}

async fn one(field: &Field, case: &Case, what: &str, logged: &mut Vec<Logged>) -> Result<String> {
    let mut frames = field.gateway.frames().await?;
    // It may be closed before the last of them is out.
    let _closing = frames.send(&case.frames).await;
    let ended = match case.want {
        // What is wrong with the connection as a whole has no stream: a canary on another one must not come through.
        Want::Broken => {
            let canary = fields(&head("GET", "/canary"));
            let _closed = frames.send(frame(kind::HEADERS, END_HEADERS | END_STREAM, 5, &canary)).await;
            match frames.end_of(1).await? {
                // The stream alone was ended.
                Ended::Reset(code) => Ended::Reset(code),
                ended => ended,
            }
        }
        _ => frames.end_of(1).await?,
    };
    drop(frames);
    // The next client gets its own answer.
    let own = field.gateway.https()?.http2().get("/own").send().await?.text().await?;
    ensure!(own == "/own", "the next client got {own}");
    let reached: Vec<_> =
        field.reached().into_iter().filter(|request| !matches!(request.target(), "/own" | "/canary")).collect();
    let verdict = match (&case.want, &ended) {
        (Want::Passed(request), Ended::Answer { status: 200, .. }) => {
            let said: Vec<String> = reached.iter().map(said).collect();
            ensure!(said == [*request], "reached the upstream: {said:?}");
            let message = &reached[0];
            let id = message.header("x-request-id").context("no request id")?.to_owned();
            ensure!(message.all("host").collect::<Vec<_>>() == ["localhost"], "{:?}", message.headers);
            ensure!(message.all("x-forwarded-for").collect::<Vec<_>>() == ["127.0.0.1"], "{:?}", message.headers);
            ensure!(message.trailers.is_empty() && message.header("te").is_none(), "{message:?}");
            let route = if message.target() == "*" { "default" } else { "/*" };
            logged.push(Logged { what: what.to_owned(), id, status: 200, code: None, route: Some(route) });
            "passed".to_owned()
        }
        (Want::Refused(status, code), Ended::Answer { status: answered, body }) if status == answered => {
            ensure!(reached.is_empty(), "reached the upstream: {reached:?}");
            let document: serde_json::Value = serde_json::from_slice(body)?;
            ensure!(document["code"] == *code, "{document}");
            let id = document["request_id"].as_str().unwrap_or_default().to_owned();
            logged.push(Logged { what: what.to_owned(), id, status: *status, code: Some(code), route: None });
            (*code).to_owned()
        }
        (Want::Broken, Ended::Reset(_) | Ended::GoAway(_) | Ended::Closed) => {
            ensure!(reached.is_empty(), "reached the upstream: {reached:?}");
            "broken".to_owned()
        }
        // The library answers some malformed requests by itself.
        (Want::Broken, Ended::Answer { status: 400, body }) if body.is_empty() => {
            ensure!(reached.is_empty(), "reached the upstream: {reached:?}");
            "broken".to_owned()
        }
        (Want::Cut, ended) => {
            // What a piece of went out on is closed, and it was never whole.
            eventually(SOON, "no more than idle connections", async || field.upstream.open_connections() <= 2).await?;
            for request in &reached {
                let length: Option<usize> = request.header("content-length").and_then(|length| length.parse().ok());
                ensure!(length.is_none_or(|length| request.body.len() <= length), "{request:?}");
                ensure!(!request.target().contains("admin"), "{request:?}");
                ensure!(!request.text().contains("/admin") || length == Some(request.body.len()), "{request:?}");
            }
            let lengths = reached.first().map_or(0, |request| request.all("content-length").count());
            ensure!(lengths <= 1, "{reached:?}");
            if let Ended::Answer { status, .. } = ended {
                ensure!(*status == 400 || (*status == 200 && !reached.is_empty()), "{ended:?}");
            }
            "cut".to_owned()
        }
        (want, ended) => anyhow::bail!("{ended:?} instead of {want:?}; reached the upstream: {reached:?}"),
    };
    Ok(verdict)
}
