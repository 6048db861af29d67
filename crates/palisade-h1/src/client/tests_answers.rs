//! A table of answers: each arrives in one piece and byte by byte, and must be read the same way.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Connection, Error, Outcome};
use crate::Violation::{self, *};

/// What is expected of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Want {
    /// Status, body, trailers as text, and whether the connection may be used again.
    Answer(u16, String, String, bool),
    /// No answer at all: the head is refused.
    Bad(Violation),
    /// A head, and then a body that is refused.
    BadBody(u16, Violation),
    /// A head, and then a body that ends too early, after this.
    Cut(u16, String),
    /// Closed without an answer.
    Closed,
}

fn ok(body: &str) -> Want {
    Want::Answer(200, body.into(), String::new(), true)
}

fn once(body: &str) -> Want {
    Want::Answer(200, body.into(), String::new(), false)
}

fn status(status: u16, reusable: bool) -> Want {
    Want::Answer(status, String::new(), String::new(), reusable)
}

fn trailers(body: &str, trailers: &str) -> Want {
    Want::Answer(200, body.into(), trailers.into(), true)
}

/// Reads one request head, writes `answer`, and closes or stays.
async fn peer(mut io: DuplexStream, answer: Vec<u8>, piece: usize, close: bool) -> Option<DuplexStream> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    for part in answer.chunks(piece) {
        // The reader may have refused it in between.
        io.write_all(part).await.ok()?;
        tokio::task::yield_now().await;
    }
    (!close).then_some(io)
}

async fn read(method: Method, answer: &[u8], piece: usize, close: bool) -> Want {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let peer = tokio::spawn(peer(theirs, answer.to_vec(), piece, close));
    let back = Arc::new(Mutex::new(None));
    let recycler = {
        let back = Arc::clone(&back);
        move |connection: Connection<DuplexStream>| *back.lock().unwrap() = Some(connection)
    };
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    let outcome = match Connection::new(ours).send(request, None, recycler).await {
        Ok(Outcome::Response(response)) => response,
        Ok(Outcome::Upgraded(_)) => panic!("nothing asked for an upgrade"),
        Err(failure) => {
            return match failure.error {
                Error::BadAnswer(violation) => Want::Bad(violation),
                Error::ClosedBeforeAnswer { reused: false } => Want::Closed,
                other => panic!("{other:?}"),
            };
        }
    };
    let code = outcome.status().as_u16();
    for gone in ["connection", "transfer-encoding", "keep-alive", "proxy-connection"] {
        assert!(!outcome.headers().contains_key(gone), "{gone}");
    }
    let mut body = outcome.into_body();
    let (mut data, mut trailers) = (Vec::new(), String::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => data.extend_from_slice(&frame.into_data().unwrap()),
            Ok(frame) => {
                for (name, value) in &frame.into_trailers().unwrap() {
                    trailers += &format!("{name}={};", value.to_str().unwrap());
                }
            }
            Err(Error::BadAnswer(violation)) => return Want::BadBody(code, violation),
            Err(Error::Truncated) => return Want::Cut(code, String::from_utf8(data).unwrap()),
            Err(other) => panic!("{other:?}"),
        }
    }
    drop(body);
    // Only now is everything there that the peer had to say.
    let _open = peer.await.unwrap();
    if let Some(connection) = &*back.lock().unwrap() {
        assert!(connection.inner.read.is_empty(), "what comes back has nothing left of an answer");
    }
    let reusable = back.lock().unwrap().take().is_some_and(|mut connection| connection.is_reusable());
    Want::Answer(code, String::from_utf8(data).unwrap(), trailers, reusable)
}

/// `stays`: the peer leaves the connection open. `closes`: it does not.
#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(Method, Vec<u8>, bool, Want)> {
    let get = |answer: &str, close, want| (Method::GET, answer.as_bytes().to_vec(), close, want);
    let head = |answer: &str, want| (Method::HEAD, answer.as_bytes().to_vec(), false, want);
    let stays = |answer: &str, want| get(answer, false, want);
    let closes = |answer: &str, want| get(answer, true, want);
    let fields = |count: usize| {
        let mut answer = String::from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n");
        for i in 1..count {
            answer += &format!("x-{i}: 1\r\n");
        }
        answer + "\r\n"
    };
    let long = |bytes: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "a".repeat(bytes));
    let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{rest}");
    let interim =
        |count| "HTTP/1.1 103 Early\r\nlink: a\r\n\r\n".repeat(count) + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    vec![
        // Content-Length
        stays("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ok("hello")),
        stays("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok("")),
        stays("HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello", ok("hello")),
        stays("HTTP/1.1 200 OK\r\nContent-Length: \t 5\t \r\n\r\nhello", ok("hello")),
        stays("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", ok("")),
        stays("HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n", ok("")),
        stays("HTTP/1.1 200 All is w\u{e9}ll\t!\r\ncontent-length: 0\r\n\r\n", ok("")),
        stays("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", status(404, true)),
        stays("HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", status(999, true)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello!", once("hello")),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\r\n", once("")),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", once("")),
        closes("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", once("hello")),
        closes("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", Want::Cut(200, "hell".into())),
        closes("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Want::Cut(200, String::new())),
        stays(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            Want::Bad(DuplicateContentLength),
        ),
        stays(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            Want::Bad(DuplicateContentLength),
        ),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", Want::Bad(DuplicateContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 5a\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 05\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 5 5\r\n\r\nhello", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", Want::Bad(BadContentLength)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n", Want::Bad(BadContentLength)),
        // chunked
        stays(&chunked("5\r\nhello\r\n0\r\n\r\n"), ok("hello")),
        stays(&chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), ok("hello world")),
        stays(&chunked("0\r\n\r\n"), ok("")),
        stays(&chunked("000\r\n\r\n"), ok("")),
        stays(&chunked("A\r\n0123456789\r\n0\r\n\r\n"), ok("0123456789")),
        stays(&chunked("0a\r\n0123456789\r\n0\r\n\r\n"), ok("0123456789")),
        stays(&chunked("5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"), trailers("hello", "x-sum=1;")),
        stays(&chunked("0\r\na: 1\r\nb:  2 \r\na: 3\r\n\r\n"), trailers("", "a=1;a=3;b=2;")),
        stays(&chunked("5\r\nhello\r\n0\r\n\r\nx"), once("hello")),
        closes(&chunked("5\r\nhello\r\n0\r\n\r\n"), once("hello")),
        closes(&chunked("5\r\nhello\r\n0\r\n"), Want::Cut(200, "hello".into())),
        closes(&chunked("5\r\nhello\r\n"), Want::Cut(200, "hello".into())),
        closes(&chunked("5\r\nhel"), Want::Cut(200, "hel".into())),
        closes(&chunked(""), Want::Cut(200, String::new())),
        stays(&chunked("5;a=b\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, ChunkExtension)),
        stays(&chunked("5;\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, ChunkExtension)),
        stays(&chunked("5 \r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked(" 5\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("0x5\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("-5\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("5g\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("1000000000000005\r\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BadChunkSize)),
        stays(&chunked("5\nhello\r\n0\r\n\r\n"), Want::BadBody(200, BareLf)),
        stays(&chunked("5\rhello\r\n0\r\n\r\n"), Want::BadBody(200, BareCr)),
        stays(&chunked("0\r\nx: 1\n\r\n"), Want::BadBody(200, BareLf)),
        stays(&chunked("0\r\n x: 1\r\n\r\n"), Want::BadBody(200, ObsFold)),
        stays(&chunked("0\r\ncontent-length: 1\r\n\r\n"), Want::BadBody(200, ForbiddenTrailer)),
        stays(&chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), Want::BadBody(200, ForbiddenTrailer)),
        stays(&chunked(&format!("0\r\nx: {}\r\n\r\n", "a".repeat(20_000))), Want::BadBody(200, HeadTooLarge)),
        stays("HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", ok("")),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked;a=b\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n", Want::Bad(UnknownTransferCoding)),
        stays(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Want::Bad(UnknownTransferCoding),
        ),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", Want::Bad(ClAndTe)),
        stays("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", Want::Bad(ClAndTe)),
        stays("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Want::Bad(ChunkedInHttp10)),
        // the end of the connection
        closes("HTTP/1.1 200 OK\r\n\r\nhello", once("hello")),
        closes("HTTP/1.1 200 OK\r\n\r\n", once("")),
        closes("HTTP/1.0 200 OK\r\nserver: old\r\n\r\nhello", once("hello")),
        stays("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", once("hello")),
        stays("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello", ok("hello")),
        stays("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello", once("hello")),
        stays("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\ncontent-length: 5\r\n\r\nhello", once("hello")),
        stays(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\ncontent-length: 5\r\n\r\nhello",
            ok("hello"),
        ),
        closes("", Want::Closed),
        closes("HTTP/1.1 200 OK\r\ncontent-le", Want::Bad(Incomplete)),
        closes("HTTP/1.1 103 Early\r\n\r\n", Want::Bad(Incomplete)),
        // no body
        head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", ok("")),
        head("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ok("")),
        head("HTTP/1.1 200 OK\r\n\r\n", ok("")),
        head("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", once("")),
        stays("HTTP/1.1 204 No Content\r\n\r\n", status(204, true)),
        stays("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", status(204, true)),
        stays("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", status(204, false)),
        stays("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", status(204, false)),
        stays("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", status(204, false)),
        stays("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", status(304, true)),
        stays("HTTP/1.1 304 Not Modified\r\n\r\nhello", status(304, false)),
        // interim answers
        stays("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ok("")),
        stays(&interim(16), ok("")),
        stays(&interim(17), Want::Bad(TooManyInterim)),
        stays("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Want::Bad(UnexpectedUpgrade)),
        // the status line
        stays("hello\r\n\r\n", Want::Bad(Http09)),
        stays("\r\nHTTP/1.1 200 OK\r\n\r\n", Want::Bad(Http09)),
        stays("<html>", Want::Bad(Http09)),
        stays("HTTP/1.2 200 OK\r\n\r\n", Want::Bad(BadVersion)),
        stays("HTTP/2.0 200 OK\r\n\r\n", Want::Bad(BadVersion)),
        stays("HTTP/11 200 OK\r\n\r\n", Want::Bad(BadVersion)),
        stays("HTTP 200 OK\r\n\r\n", Want::Bad(BadVersion)),
        stays("HTTP/1.1  200 OK\r\n\r\n", Want::Bad(BadStatus)),
        stays("HTTP/1.1 20 OK\r\n\r\n", Want::Bad(BadStatus)),
        stays("HTTP/1.1 2000 OK\r\n\r\n", Want::Bad(BadStatus)),
        stays("HTTP/1.1 099 OK\r\n\r\n", Want::Bad(BadStatus)),
        stays("HTTP/1.1 2x0 OK\r\n\r\n", Want::Bad(BadStatus)),
        stays("HTTP/1.1 200 O\0K\r\n\r\n", Want::Bad(ControlCharacter)),
        stays("HTTP/1.1 200 OK\n\r\n", Want::Bad(BareLf)),
        stays("HTTP/1.1 200 OK\rX\r\n\r\n", Want::Bad(BareCr)),
        // fields
        stays("HTTP/1.1 200 OK\r\ncontent-length: 0\n\r\n", Want::Bad(BareLf)),
        stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\n", Want::Bad(BareLf)),
        stays("HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", Want::Bad(BareCr)),
        stays("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", Want::Bad(ControlCharacter)),
        stays("HTTP/1.1 200 OK\r\nx: a\x7fb\r\n\r\n", Want::Bad(ControlCharacter)),
        stays("HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", Want::Bad(ObsFold)),
        stays("HTTP/1.1 200 OK\r\n x: a\r\n\r\n", Want::Bad(ObsFold)),
        stays("HTTP/1.1 200 OK\r\nx : a\r\n\r\n", Want::Bad(SpaceBeforeColon)),
        stays("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", Want::Bad(SpaceBeforeColon)),
        stays("HTTP/1.1 200 OK\r\n: a\r\n\r\n", Want::Bad(BadHeaderName)),
        stays("HTTP/1.1 200 OK\r\nx\r\n\r\n", Want::Bad(BadHeaderName)),
        stays("HTTP/1.1 200 OK\r\nx(y): a\r\n\r\n", Want::Bad(BadHeaderName)),
        stays("HTTP/1.1 200 OK\r\nx\u{e9}: a\r\n\r\n", Want::Bad(BadHeaderName)),
        stays(&fields(256), ok("")),
        stays(&fields(257), Want::Bad(TooManyHeaders)),
        stays(&long(60_000), ok("")),
        stays(&long(66_000), Want::Bad(HeadTooLarge)),
        stays(&"HTTP/1.1 200 OK\r\nx: a".replace('a', &"a".repeat(70_000)), Want::Bad(HeadTooLarge)),
    ]
}

#[tokio::test]
async fn answers_are_read_the_same_in_any_pieces() {
    let table = table();
    assert!(table.len() >= 60);
    for (method, answer, close, want) in table {
        for piece in [answer.len().max(1), 1, 2, 7, 1000] {
            // Long ones byte by byte cost time and show nothing new.
            if piece < 1000 && answer.len() > 30_000 {
                continue;
            }
            let got = read(method.clone(), &answer, piece, close).await;
            let shown = String::from_utf8_lossy(answer.get(..200).unwrap_or(&answer)).into_owned();
            assert_eq!(got, want, "{method}, pieces of {piece}: {shown:?}");
        }
    }
}
