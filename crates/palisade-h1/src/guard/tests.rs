//! The guard in front of hyper's server, as in the gateway.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Notify, mpsc};

use super::{Config, Guard, Handle, InFlight};
use crate::Violation::{self, *};

/// An answer's body with its token.
struct Answer(UnsyncBoxBody<Bytes, Infallible>, #[expect(dead_code, reason = "dropped with the body")] InFlight);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body that gives what the test sends it.
struct Stream(mpsc::UnboundedReceiver<&'static str>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|item| item.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }
}

fn text(status: u16, text: &'static str, token: InFlight) -> Response<Answer> {
    let mut response = Response::new(Answer(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync(), token));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn render(violation: &Violation) -> Bytes {
    let text = violation.name();
    let status = violation.status();
    format!("HTTP/1.1 {status} Refused\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len()).into()
}

/// What the service saw, in order: `METHOD path body`, or `METHOD path !violation` for a body that failed.
type Log = Arc<Mutex<Vec<String>>>;

/// Starts a server whose service is `serve`; the client's end and the handle come back.
fn start<S, T>(config: Config, serve: S) -> (DuplexStream, Handle, tokio::task::JoinHandle<hyper::Result<()>>)
where
    S: Fn(Request<Incoming>, Handle, InFlight) -> T + Send + Sync + 'static,
    T: Future<Output = Response<Answer>> + Send + 'static,
{
    let (client, server) = tokio::io::duplex(1 << 20);
    let (handle, task) = start_on(server, config, serve);
    (client, handle, task)
}

fn start_on<IO, S, T>(io: IO, config: Config, serve: S) -> (Handle, tokio::task::JoinHandle<hyper::Result<()>>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>, Handle, InFlight) -> T + Send + Sync + 'static,
    T: Future<Output = Response<Answer>> + Send + 'static,
{
    let guard = Guard::new(io, config, render);
    let handle = guard.handle();
    let service = {
        let handle = handle.clone();
        service_fn(move |request| {
            let answer = serve(request, handle.clone(), handle.begin());
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    (handle.clone(), tokio::spawn(serve_and_park(guard, handle, service)))
}

/// As the gateway does it: a server is made when there is something for it, and taken down when nothing comes.
async fn serve_and_park<IO, F, S>(mut guard: Guard<IO, F>, handle: Handle, service: S) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnOnce(&Violation) -> Bytes + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<Answer>, Error = Infallible> + Send + Sync,
    S::Future: Send,
{
    loop {
        if poll_fn(|cx| guard.poll_stir(cx)).await.is_err() {
            return Ok(());
        }
        let mut served = hyper::server::conn::http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(256)
            .serve_connection(TokioIo::new(guard), &service)
            .with_upgrades();
        let over = poll_fn(|cx| match Pin::new(&mut served).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if handle.may_park() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(ended) = over.await {
            return ended;
        }
        let parts = served.into_parts().unwrap();
        guard = parts.io.into_inner();
        guard.give_back(&parts.read_buf);
    }
}

type Answering = Pin<Box<dyn Future<Output = Response<Answer>> + Send>>;

fn logging(log: &Log) -> impl Fn(Request<Incoming>, Handle, InFlight) -> Answering + use<> {
    let log = Arc::clone(log);
    move |request, _, token| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let name = format!("{} {}", request.method(), request.uri());
            match request.into_body().collect().await {
                Ok(body) => {
                    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                    log.lock().unwrap().push(format!("{name} {body}").trim_end().to_owned());
                }
                Err(error) => {
                    let violation = Violation::in_error(&error).map_or("?", Violation::name);
                    log.lock().unwrap().push(format!("{name} !{violation}"));
                }
            }
            text(200, "fine", token)
        })
    }
}

/// The status codes in what a server sent.
fn statuses(output: &[u8]) -> Vec<u16> {
    let output = String::from_utf8_lossy(output);
    let starts = output.match_indices("HTTP/1.").map(|(at, _)| at);
    starts.map(|at| output[at + 9..at + 12].parse().expect("a status")).collect()
}

/// Sends bytes in pieces, closes, and reads to the end.
async fn talk(input: &[u8], piece: usize) -> (Vec<String>, Vec<u16>, Option<Violation>) {
    let log = Log::default();
    let (mut client, handle, server) = start(Config::default(), logging(&log));
    for part in input.chunks(piece) {
        if client.write_all(part).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = client.shutdown().await;
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    let _ = server.await.unwrap();
    let seen = log.lock().unwrap().clone();
    (seen, statuses(&output), handle.violation())
}

type Row = (&'static str, &'static [&'static str], &'static [u16], Option<Violation>);

const TABLE: &[Row] = &[
    ("GET /1 HTTP/1.1\r\n\r\n", &["GET /1"], &[200], None),
    (
        "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n",
        &["GET /1", "GET /2", "GET /3"],
        &[200; 3],
        None,
    ),
    (
        "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\n\r\n",
        &["POST /1 hello", "GET /2"],
        &[200; 2],
        None,
    ),
    ("POST /1 HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", &["POST /1", "GET /2"], &[200; 2], None),
    (
        "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\r\nGET /2 HTTP/1.1\r\n\r\n",
        &["POST /1 hello", "GET /2"],
        &[200; 2],
        None,
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        &["POST /1 hello!", "GET /2"],
        &[200; 2],
        None,
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        &["POST /1", "GET /2"],
        &[200; 2],
        None,
    ),
    ("GET /1 HTTP/1.0\r\n\r\nrubbish \n\0", &["GET /1"], &[200], None),
    ("GET /1 HTTP/1.1\r\nConnection: close\r\n\r\nrubbish \n\0", &["GET /1"], &[200], None),
    (
        "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        &["GET /1", "GET /2"],
        &[200; 2],
        None,
    ),
    ("GET /\u{e9} HTTP/1.1\r\n\r\n", &["GET /\u{e9}"], &[200], None),
    ("OPTIONS * HTTP/1.1\r\n\r\n", &["OPTIONS *"], &[200], None),
    ("GET http://a.example/1 HTTP/1.1\r\n\r\n", &["GET http://a.example/1"], &[200], None),
    ("", &[], &[], None),
    ("GET /1 HT", &[], &[], None),
    // refused at once
    ("GET /1 HTTP/1.1\n\r\n", &[], &[400], Some(BareLf)),
    ("GET /1 HTTP/1.1\r\nA: b\nC: d\r\n\r\n", &[], &[400], Some(BareLf)),
    (
        "POST /1 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[],
        &[400],
        Some(ClAndTe),
    ),
    (
        "POST /1 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        &[],
        &[400],
        Some(DuplicateContentLength),
    ),
    ("POST /1 HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[], &[400], Some(UnknownTransferCoding)),
    ("GET /1\r\n", &[], &[400], Some(Http09)),
    ("GET /1 HTTP/3.0\r\n\r\n", &[], &[400], Some(BadVersion)),
    ("\x16\x03\x01\x02\x00\x01", &[], &[400], Some(BadMethod)),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], &[400], Some(BadTarget)),
    // refused after answers
    ("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nA : b\r\n\r\n", &["GET /1"], &[200, 400], Some(SpaceBeforeColon)),
    (
        "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nA: b\r\n c\r\n\r\nGET /4 HTTP/1.1\r\n\r\n",
        &["GET /1", "GET /2"],
        &[200, 200, 400],
        Some(ObsFold),
    ),
    (
        "POST /1 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello!GET /2 HTTP/1.1\r\n\r\n ",
        &["POST /1 hello", "!GET /2"],
        &[200, 200, 400],
        Some(BadMethod),
    ),
    ("GET /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcX\0", &["GET /1 abc"], &[200, 400], Some(BadMethod)),
    // refused in a body: the service is told, and the answer is the guard's
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        &["POST /1 !chunk_extension"],
        &[400],
        Some(ChunkExtension),
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        &["POST /1 !bad_chunk_end"],
        &[400],
        Some(BadChunkEnd),
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x0\r\n\r\n",
        &["POST /1 !bad_chunk_size"],
        &[400],
        Some(BadChunkSize),
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\nhello",
        &["POST /1 !forbidden_trailer"],
        &[400],
        Some(ForbiddenTrailer),
    ),
    (
        "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n",
        &["POST /1 !bare_lf"],
        &[400],
        Some(BareLf),
    ),
    (
        "GET /0 HTTP/1.1\r\n\r\nPOST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
        &["GET /0", "POST /1 !bad_chunk_end"],
        &[200, 400],
        Some(BadChunkEnd),
    ),
];

#[tokio::test]
async fn what_reaches_the_server_and_what_the_client_gets() {
    for (input, seen, answers, violation) in TABLE {
        for piece in [input.len().max(1), 1, 2, 3, 7, 20] {
            let (got_seen, got_answers, got_violation) = talk(input.as_bytes(), piece).await;
            let at = format!("{input:?} in pieces of {piece}");
            assert_eq!(got_answers, *answers, "{at}");
            assert_eq!(got_violation, *violation, "{at}");
            // The service is dropped when the guard answers in its place: it may or may not get to see the error.
            let last_failed = seen.last().is_some_and(|last| last.contains('!') && last.starts_with("POST"));
            if last_failed && got_seen.len() + 1 == seen.len() {
                assert_eq!(got_seen, seen[..seen.len() - 1], "{at}");
            } else {
                assert_eq!(got_seen, *seen, "{at}");
            }
        }
    }
}

#[tokio::test]
async fn large_heads_have_statuses_of_their_own() {
    for (input, status, violation) in [
        (format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(70_000)), 431, HeadTooLarge),
        (format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(300)), 431, TooManyHeaders),
        (format!("GET /{}", "b".repeat(20_000)), 414, TargetTooLong),
    ] {
        for piece in [100_000, 1000] {
            assert_eq!(talk(input.as_bytes(), piece).await, (vec![], vec![status], Some(violation)));
        }
    }
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(256));
    assert_eq!(talk(fields.as_bytes(), 1000).await.1, [200], "what the guard lets pass, the server takes");
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(60_000));
    assert_eq!(talk(long.as_bytes(), 1000).await.1, [200]);
}

#[tokio::test]
async fn answers_before_a_violation_come_first_and_whole() {
    let (parts, frames) = mpsc::unbounded_channel();
    let frames = Mutex::new(Some(frames));
    let (mut client, handle, server) = start(Config::default(), move |_, _, token| {
        let stream = Stream(frames.lock().unwrap().take().expect("one request"));
        async move { Response::new(Answer(stream.boxed_unsync(), token)) }
    });
    client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nA\r\n\r\n").await.unwrap();
    let mut output = Vec::new();
    for part in ["one ", "two ", "three"] {
        parts.send(part).unwrap();
        while !output.windows(part.len()).any(|window| window == part.as_bytes()) {
            assert!(client.read_buf(&mut output).await.unwrap() > 0);
        }
        assert_eq!(statuses(&output), [200]);
    }
    assert_eq!(handle.violation(), Some(BadHeaderName), "it is known, and waits");
    drop(parts);
    client.read_to_end(&mut output).await.unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(statuses(output.as_bytes()), [200, 400]);
    assert!(output.contains("three\r\n0\r\n\r\nHTTP/1.1 400 ") && output.ends_with("bad_header_name"), "{output}");
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_waits_for_its_reader_comes_first_and_whole() {
    // Larger than the pipe: the answer is over for the service long before it is written.
    const LONG: &str = match std::str::from_utf8(&[b'x'; 5000]) {
        Ok(text) => text,
        Err(_) => "",
    };
    let (mut client, server) = tokio::io::duplex(200);
    let (handle, server) = start_on(server, Config::default(), |_, _, token| async move { text(200, LONG, token) });
    client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nA\r\n\r\n").await.unwrap();
    while handle.violation().is_none() {
        tokio::task::yield_now().await;
    }
    let mut output = Vec::new();
    let read = client.read_to_end(&mut output);
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("nobody is forgotten").unwrap();
    assert_eq!(statuses(&output), [200, 400]);
    assert!(String::from_utf8(output).unwrap().contains("xxxHTTP/1.1 400 "));
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_violation_in_a_body_leaves_a_begun_answer_without_its_end() {
    let (parts, frames) = mpsc::unbounded_channel();
    let frames = Mutex::new(Some(frames));
    let (mut client, handle, server) = start(Config::default(), move |request, _, token| {
        let stream = Stream(frames.lock().unwrap().take().expect("one request"));
        async move {
            // Somebody goes on reading the request.
            tokio::spawn(request.into_body().collect());
            Response::new(Answer(stream.boxed_unsync(), token))
        }
    });
    parts.send("one").unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await.unwrap();
    let mut output = Vec::new();
    while !output.ends_with(b"one\r\n") {
        assert!(client.read_buf(&mut output).await.unwrap() > 0);
    }
    client.write_all(b"5 \r\nhello\r\n0\r\n\r\n").await.unwrap();
    while handle.violation().is_none() {
        tokio::task::yield_now().await;
    }
    drop(parts);
    client.read_to_end(&mut output).await.unwrap();
    let _ = server.await.unwrap();
    assert_eq!(statuses(&output), [200]);
    assert_eq!(handle.violation(), Some(BadChunkSize));
}

#[tokio::test]
async fn the_client_of_a_refused_request_gets_to_read_why() {
    // Over TCP, where closing with unread bytes becomes a reset that overtakes the answer.
    for _ in 0..20 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (_, server) = start_on(server, Config::default(), logging(&Log::default()));
        let mut bytes = b"POST / HTTP/1.1\r\nContent-Length: 100000, 100000\r\n\r\n".to_vec();
        bytes.resize(100_000, b'x');
        client.write_all(&bytes).await.unwrap();
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.unwrap();
        assert!(output.ends_with(b"duplicate_content_length"), "{}", String::from_utf8_lossy(&output));
        drop(client);
        server.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_refusal_is_not_waited_for_long() {
    let (mut client, _, server) = start(Config::default(), logging(&Log::default()));
    let begin = tokio::time::Instant::now();
    client.write_all(b"\n").await.unwrap();
    server.await.unwrap().unwrap();
    assert_eq!(begin.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn a_tunnel_is_transparent_once_it_is_open() {
    // The client's first bytes of the tunnel come before, or after the answer, in one piece with the head or alone.
    for early in ["", "\0\n: hello", "GET / HTTP/1.1\r\nA\r\n\r\n"] {
        for piece in [1, 1000] {
            let (mut client, handle, _server) = start(Config::default(), |mut request, handle, token| async move {
                tokio::spawn(async move {
                    let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                    let mut tunnel = TokioIo::new(upgraded);
                    let mut part = [0; 100];
                    while let Ok(count @ 1..) = tunnel.read(&mut part).await {
                        tunnel.write_all(&part[..count]).await.unwrap();
                    }
                });
                handle.open_tunnel();
                let mut response = text(101, "", token);
                response.headers_mut().insert("connection", "upgrade".parse().unwrap());
                response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
                response
            });
            let head = "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            for part in format!("{head}{early}").as_bytes().chunks(piece) {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut output = Vec::new();
            while !output.windows(4).any(|window| window == b"\r\n\r\n") {
                assert!(client.read_buf(&mut output).await.unwrap() > 0);
            }
            client.write_all(b"\nlater\0").await.unwrap();
            let wanted = format!("{early}\nlater\0");
            while !output.ends_with(wanted.as_bytes()) {
                assert!(client.read_buf(&mut output).await.unwrap() > 0, "{output:?}");
            }
            assert_eq!(handle.violation(), None);
            assert!(!handle.is_idle());
        }
    }
}

#[tokio::test]
async fn without_a_tunnel_what_follows_is_a_request() {
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for piece in [1, 10, 1000] {
        let good = format!("{upgrade}GET /2 HTTP/1.1\r\n\r\n");
        assert_eq!(talk(good.as_bytes(), piece).await, (vec!["GET /ws".into(), "GET /2".into()], vec![200, 200], None));
        let bad = format!("{upgrade}GET /2 HTTP/1.1\r\nA: b\nC: d\r\n\r\n");
        assert_eq!(talk(bad.as_bytes(), piece).await, (vec!["GET /ws".into()], vec![200, 400], Some(BareLf)));
    }
}

/// Reads until the server closes, and how many seconds that took.
async fn closes_after(client: &mut DuplexStream) -> (u64, Vec<u16>) {
    let begin = tokio::time::Instant::now();
    let mut output = Vec::new();
    client.read_to_end(&mut output).await.unwrap();
    (begin.elapsed().as_secs(), statuses(&output))
}

#[tokio::test(start_paused = true)]
async fn heads_have_a_deadline_and_idle_connections_another() {
    let seconds = |count| tokio::time::sleep(Duration::from_secs(count));
    let config = || Config { linger: Duration::ZERO, ..Config::default() };
    // Nothing at all.
    let (mut client, ..) = start(config(), logging(&Log::default()));
    assert_eq!(closes_after(&mut client).await, (10, vec![]));
    // A head drop by drop: the deadline is for all of it.
    let (client, handle, _) = start(config(), logging(&Log::default()));
    let (mut receiver, mut sender) = tokio::io::split(client);
    let drops = async {
        for byte in b"GET / HTTP/1.1\r\n".iter().cycle() {
            seconds(1).await;
            if sender.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let mut output = Vec::new();
    let begin = tokio::time::Instant::now();
    tokio::select! { () = drops => {}, _ = receiver.read_to_end(&mut output) => {} }
    assert_eq!(begin.elapsed().as_secs(), 10);
    assert_eq!((statuses(&output), handle.violation()), (vec![408], Some(HeadTimeout)));
    // Idle after some requests; each of them starts the time again.
    let (mut client, handle, _) = start(config(), logging(&Log::default()));
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut output = Vec::new();
        while !output.ends_with(b"fine") {
            client.read_buf(&mut output).await.unwrap();
        }
        seconds(70).await;
        assert!(handle.is_idle());
    }
    assert_eq!(closes_after(&mut client).await, (5, vec![]));
    // A second head in pieces has the time of a head, from its own first byte.
    let (mut client, handle, _) = start(config(), logging(&Log::default()));
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut output = Vec::new();
    while !output.ends_with(b"fine") {
        client.read_buf(&mut output).await.unwrap();
    }
    seconds(60).await;
    client.write_all(b"GET").await.unwrap();
    seconds(1).await;
    assert!(!handle.is_idle(), "a drain waits for the rest of it");
    assert_eq!(closes_after(&mut client).await, (9, vec![408]));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_has_no_server_and_loses_nothing() {
    let (mut client, handle, task) = start(Config::default(), logging(&Log::default()));
    for pause in [0, 1, 3, 70] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        assert_eq!(handle.may_park(), pause >= 2, "after {pause} s");
        // In two pieces: the first ends the rest, and is no head yet.
        client.write_all(b"POST / HTTP/1.1\r\nContent-Le").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!handle.may_park(), "half of a head is there");
        client.write_all(b"ngth: 2\r\n\r\nab").await.unwrap();
        let mut output = Vec::new();
        while !output.ends_with(b"fine") {
            assert!(client.read_buf(&mut output).await.unwrap() > 0);
        }
        assert_eq!(statuses(&output), [200]);
    }
    // A client that leaves while nothing is there for it ends all of it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(client);
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_has_not_taken_keeps_the_server() {
    let (client, server) = tokio::io::duplex(64);
    let (handle, _task) = start_on(server, Config::default(), |_, _, token| async move {
        text(
            200,
            "an answer that is longer than what the pipe holds, so that a part of it stays in the server: 0123456789",
            token,
        )
    });
    let (mut receiver, mut sender) = tokio::io::split(client);
    sender.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!handle.may_park());
    let mut output = Vec::new();
    while !output.ends_with(b"0123456789") {
        assert!(receiver.read_buf(&mut output).await.unwrap() > 0);
    }
    assert_eq!(statuses(&output), [200]);
}

#[tokio::test(start_paused = true)]
async fn neither_slow_bodies_nor_slow_answers_count_as_idle() {
    let (mut client, handle, _) = start(Config::default(), |request, _, token| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(body, "hello");
        text(200, "fine", token)
    });
    client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    for byte in b"hello" {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        client.write_all(&[*byte]).await.unwrap();
        assert!(!handle.is_idle());
    }
    // Half of the next head is there all the time; its deadline starts when it is its turn.
    client.write_all(b"GET").await.unwrap();
    assert_eq!(closes_after(&mut client).await, (1010, vec![200, 408]));
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_service() {
    struct Told(Arc<Notify>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let dropped = Arc::new(Notify::new());
        let (begun, running) = (Arc::new(Notify::new()), Arc::clone(&dropped));
        let (mut client, ..) = start(Config::default(), {
            let begun = Arc::clone(&begun);
            move |_request, _, token| {
                let told = Told(Arc::clone(&running));
                begun.notify_one();
                async move {
                    std::future::pending::<()>().await;
                    drop((told, _request));
                    text(200, "", token)
                }
            }
        });
        client.write_all(head.as_bytes()).await.unwrap();
        begun.notified().await;
        drop(client);
        tokio::time::timeout(Duration::from_secs(5), dropped.notified()).await.expect("it is cancelled");
    }
}

/// The server reads another word in `Connection` than the guard does, and would wait for another request: without a timer,
/// and where bytes are held also when the client has gone.
#[tokio::test(start_paused = true)]
async fn the_last_request_is_the_last_whatever_the_server_made_of_it() {
    let connections: [&[u8]; 3] = [b"close, \xff", b"\xff, close", b"close\r\nConnection: keep-alive"];
    for connection in connections {
        for behind in [&b""[..], b"X", b"GET / HTTP/1.1\r\n"] {
            let serve = |_, _, token| async { text(200, "last", token) };
            let (mut client, _, task) = start(Config::default(), serve);
            let request = [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: ", connection, b"\r\n\r\n", behind].concat();
            client.write_all(&request).await.unwrap();
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(60), client.read_to_end(&mut answer)).await;
            let shown = request.escape_ascii();
            assert!(ended.is_ok(), "goes on after {shown}");
            assert!(answer.ends_with(b"last") && statuses(&answer) == [200], "{} to {shown}", answer.escape_ascii());
            drop(client);
            let served = tokio::time::timeout(Duration::from_secs(60), task).await;
            assert!(served.is_ok(), "not over after {shown}");
        }
    }
}

#[tokio::test]
async fn the_idle_flag_follows_the_connection() {
    let go = Arc::new(Notify::new());
    let (mut client, handle, _) = start(Config::default(), {
        let go = Arc::clone(&go);
        move |_, _, token| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                text(200, "fine", token)
            }
        }
    });
    assert!(handle.is_idle());
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while handle.is_idle() {
            tokio::task::yield_now().await;
        }
        client.write_all(b"\r\n").await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert!(!handle.is_idle());
        }
        go.notify_one();
        let mut output = Vec::new();
        while !output.ends_with(b"fine") {
            client.read_buf(&mut output).await.unwrap();
        }
        assert!(handle.is_idle());
    }
}

/// Gives its bytes in the given pieces.
struct Pieces {
    bytes: Bytes,
    sizes: Vec<usize>,
    next: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let size = self.sizes[self.next % self.sizes.len()];
        self.next += 1;
        let count = size.min(buf.remaining()).min(self.bytes.len());
        buf.put_slice(&self.bytes.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever the pieces and the reader's buffer: good messages pass unchanged, and of a bad head nothing does.
    #[test]
    fn bytes_pass_unchanged(
        messages in prop::collection::vec((0usize..3, prop::collection::vec(any::<u8>(), 1..400), 1usize..50), 1..8),
        sizes in prop::collection::vec(1usize..300, 1..20),
        room in 1usize..300,
        bad in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for (kind, body, chunk) in &messages {
            match kind {
                0 => bytes.extend_from_slice(b"GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"),
                1 => {
                    bytes.extend_from_slice(format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                    bytes.extend_from_slice(body);
                }
                _ => {
                    bytes.extend_from_slice(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for part in body.chunks(*chunk) {
                        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                        bytes.extend_from_slice(part);
                        bytes.extend_from_slice(b"\r\n");
                    }
                    bytes.extend_from_slice(b"0\r\nX-T: 1\r\n\r\n");
                }
            }
        }
        let good = bytes.clone();
        if bad {
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let got = runtime.block_on(async {
            let mut guard = Guard::new(Pieces { bytes: bytes.into(), sizes, next: 0 }, Config::default(), render);
            let tokens = guard.handle();
            let mut got = Vec::new();
            let mut part = vec![0; room];
            loop {
                // Every request is answered at once.
                while tokens.shared.is_busy(guard.follow.passed) {
                    drop(tokens.begin());
                }
                match guard.read(&mut part).await {
                    Ok(0) => break,
                    Ok(count) => got.extend_from_slice(&part[..count]),
                    Err(error) => panic!("{error}"),
                }
            }
            prop_assert_eq!(tokens.violation(), bad.then_some(SpaceBeforeColon));
            Ok(got)
        })?;
        prop_assert_eq!(got, good);
    }
}
