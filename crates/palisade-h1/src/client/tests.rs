//! Exchanges as a whole: what is written, full duplex, reuse, aborts, time.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::{BoxError, Connection, Error, Failure, Outcome, ResponseBody};
use crate::Violation;

/// A body that gives what the test sends it.
struct Feed {
    frames: mpsc::UnboundedReceiver<Result<Bytes, &'static str>>,
    size: Option<u64>,
    taken: Arc<AtomicUsize>,
}

type Feeder = mpsc::UnboundedSender<Result<Bytes, &'static str>>;

fn feed(size: Option<u64>) -> (Feeder, Feed) {
    let (sender, frames) = mpsc::unbounded_channel();
    (sender, Feed { frames, size, taken: Arc::default() })
}

impl Body for Feed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let next = self.frames.poll_recv(cx);
        if let Poll::Ready(Some(_)) = &next {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        next.map(|item| item.map(|result| result.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Where connections come back to.
type Shelf = Arc<Mutex<Vec<Connection<DuplexStream>>>>;

fn back_to(shelf: &Shelf) -> impl FnOnce(Connection<DuplexStream>) + use<> {
    let shelf = Arc::clone(shelf);
    move |connection| shelf.lock().unwrap().push(connection)
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("/a?b").header("host", "x").body(Empty::new()).unwrap()
}

fn post<B>(body: B) -> Request<B> {
    Request::post("/").header("host", "x").body(body).unwrap()
}

fn answer<IO, B, R>(outcome: Outcome<IO, B, R>) -> Response<ResponseBody<IO, B, R>> {
    match outcome {
        Outcome::Response(response) => response,
        Outcome::Upgraded(_) => panic!("an upgrade"),
    }
}

fn error<B>(failure: Result<impl Sized, Failure<B>>) -> Failure<B> {
    match failure {
        Ok(_) => panic!("an answer"),
        Err(failure) => failure,
    }
}

async fn read_head(io: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).unwrap()
}

/// What a request looks like on the wire.
async fn wire<B>(request: Request<B>) -> String
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let sending = Connection::new(ours).send(request, None, |_| {});
    let mut bytes = Vec::new();
    tokio::select! {
        outcome = sending => panic!("{:?}", outcome.map_err(|failure| failure.error)),
        () = async {
            let idle = Duration::from_millis(1);
            let mut part = [0; 1024];
            // Time is paused: the time-out passes as soon as nobody has anything to do.
            while let Ok(count) = tokio::time::timeout(idle, theirs.read(&mut part)).await {
                bytes.extend_from_slice(&part[..count.unwrap()]);
            }
        } => {}
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn framing_follows_the_body() {
    let empty = Empty::<Bytes>::new;
    let full = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes()));
    assert_eq!(wire(get()).await, "GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire(post(empty())).await, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(wire(post(full("hello"))).await, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(
        wire(Request::delete("/").header("content-length", "0").body(empty()).unwrap()).await,
        "DELETE / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(wire(Request::delete("/").body(empty()).unwrap()).await, "DELETE / HTTP/1.1\r\n\r\n");
    assert_eq!(wire(Request::options("*").body(empty()).unwrap()).await, "OPTIONS * HTTP/1.1\r\n\r\n");
    assert_eq!(wire(Request::get("http://a.example?q").body(empty()).unwrap()).await, "GET /?q HTTP/1.1\r\n\r\n");
    // What the caller says about framing has no weight.
    let request = Request::post("/")
        .header("content-length", "99")
        .header("transfer-encoding", "gzip")
        .header("trailer", "x")
        .header("expect", "100-continue")
        .body(full("hello"))
        .unwrap();
    assert_eq!(wire(request).await, "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
    let (feeder, body) = feed(None);
    for part in ["hello", "", " world"] {
        feeder.send(Ok(part.into())).unwrap();
    }
    drop(feeder);
    assert_eq!(
        wire(post(body)).await,
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    );
    let (feeder, body) = feed(None);
    drop(feeder);
    assert_eq!(wire(post(body)).await, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    // Trailers of a request end here.
    let (feeder, body) = feed(None);
    feeder.send(Ok("hello".into())).unwrap();
    drop(feeder);
    let trailers =
        body.with_trailers(async { Some(Ok([("x-a".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())) });
    let chunked = wire(post(Box::pin(trailers))).await;
    assert!(chunked.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{chunked}");
}

#[tokio::test]
async fn a_request_that_has_no_origin_form_is_given_back() {
    for request in
        [Request::connect("a:443").body(Empty::<Bytes>::new()).unwrap(), Request::get("*").body(Empty::new()).unwrap()]
    {
        let (ours, _theirs) = tokio::io::duplex(100);
        let uri = request.uri().clone();
        let failure = error(Connection::new(ours).send(request, None, |_| {}).await);
        assert!(matches!(failure.error, Error::Unsendable));
        assert_eq!(failure.request.unwrap().uri(), &uri);
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_again() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let shelf = Shelf::default();
    shelf.lock().unwrap().push(Connection::new(ours));
    for round in 0..50u64 {
        let mut connection = shelf.lock().unwrap().pop().expect("the connection came back");
        assert!(connection.is_reusable());
        assert_eq!(connection.exchanges(), round);
        let size = 1000 * (round % 40);
        let serve = async {
            read_head(&mut theirs).await;
            let body = "x".repeat(usize::try_from(size).unwrap());
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
            theirs.write_all((head + &body).as_bytes()).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(connection.send(get(), None, back_to(&shelf)), serve);
        let body = answer(outcome.unwrap()).into_body();
        assert_eq!(body.size_hint().exact(), Some(size));
        assert_eq!(body.collect().await.unwrap().to_bytes().len() as u64, size);
    }
}

#[tokio::test]
async fn an_idle_connection_is_watched_when_it_is_taken_out() {
    let (ours, theirs) = tokio::io::duplex(100);
    let mut connection = Connection::new(ours);
    assert!(connection.is_reusable());
    drop(theirs);
    assert!(!connection.is_reusable(), "it is closed");

    let (ours, mut theirs) = tokio::io::duplex(100);
    let mut connection = Connection::new(ours);
    theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    assert!(!connection.is_reusable(), "an answer to nothing");
    assert!(!connection.is_reusable(), "and it stays so");

    // Also by a task that has done so much in its turn that the runtime lets it read nothing more.
    let (ours, theirs) = tokio::io::duplex(100);
    let mut connection = Connection::new(ours);
    drop(theirs);
    while tokio::task::coop::has_budget_remaining() {
        let _ = std::pin::pin!(tokio::task::coop::consume_budget())
            .poll(&mut Context::from_waker(std::task::Waker::noop()));
    }
    assert!(!connection.is_reusable(), "it is closed, and the turn is over");
}

#[tokio::test]
async fn failures_before_an_answer_say_what_a_caller_may_do() {
    // Closed before the first write.
    let (ours, theirs) = tokio::io::duplex(100);
    drop(theirs);
    let failure = error(Connection::new(ours).send(get(), None, |_| {}).await);
    assert!(matches!(failure.error, Error::NothingSent(_)), "{:?}", failure.error);
    assert_eq!(failure.request.unwrap().uri(), "/a?b");

    // Closed after the request of a second exchange was taken.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let shelf = Shelf::default();
    let serve = async {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(Connection::new(ours).send(get(), None, back_to(&shelf)), serve);
    assert_eq!(answer(outcome.unwrap()).status(), 204);
    let connection = shelf.lock().unwrap().pop().unwrap();
    let serve = async {
        read_head(&mut theirs).await;
        drop(theirs);
    };
    let (failure, ()) = tokio::join!(connection.send(post(Full::new(Bytes::from("a"))), None, back_to(&shelf)), serve);
    let failure = error(failure);
    assert!(matches!(failure.error, Error::ClosedBeforeAnswer { reused: true }), "{:?}", failure.error);
    assert!(failure.request.is_none(), "its body is gone");
    assert!(shelf.lock().unwrap().is_empty());
}

#[tokio::test]
async fn both_directions_at_once() {
    // Each chunk of the upload is sent only after the one before it has come back: neither can wait for the other's end.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let shelf = Shelf::default();
    let (feeder, body) = feed(None);
    let echo = tokio::spawn(async move {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut part = [0; 100];
        let mut all = Vec::new();
        while !all.ends_with(b"0\r\n\r\n") {
            let count = theirs.read(&mut part).await.unwrap();
            all.extend_from_slice(&part[..count]);
            theirs.write_all(&part[..count]).await.unwrap();
        }
        theirs
    });
    let outcome = Connection::new(ours).send(post(body), Some(Duration::from_secs(60)), back_to(&shelf)).await;
    let mut body = answer(outcome.unwrap()).into_body();
    for round in 0..100 {
        let sent = Bytes::from(format!("round {round}"));
        feeder.send(Ok(sent.clone())).unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(got, sent);
    }
    drop(feeder);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
    let _open = echo.await.unwrap();
    assert!(shelf.lock().unwrap().pop().unwrap().is_reusable());
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_and_the_connection() {
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let shelf = Shelf::default();
    let (feeder, body) = feed(Some(1 << 30));
    feeder.send(Ok(vec![b'x'; 100_000].into())).unwrap();
    let serve = async {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        theirs
    };
    let (outcome, mut theirs) = tokio::join!(Connection::new(ours).send(post(body), None, back_to(&shelf)), serve);
    let response = answer(outcome.unwrap());
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "big");
    assert!(shelf.lock().unwrap().is_empty());
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 100_000);
    assert!(feeder.is_closed(), "the request body is dropped");
}

#[tokio::test]
async fn an_answer_survives_a_peer_that_stops_reading() {
    /// Reads come from one stream, writes fail.
    struct Deaf(DuplexStream, usize);
    impl AsyncRead for Deaf {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }
    impl AsyncWrite for Deaf {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
            if self.1 == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            let count = buf.len().min(self.1);
            self.1 -= count;
            Poll::Ready(Ok(count))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    for (room, answered) in [(10, false), (5000, true), (0, false)] {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let body = Full::new(Bytes::from(vec![b'x'; 10_000]));
        theirs.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        match Connection::new(Deaf(ours, room)).send(post(body), None, |_| panic!("never reusable")).await {
            Ok(outcome) => {
                assert!(answered);
                assert_eq!(answer(outcome).into_body().collect().await.unwrap().to_bytes(), "big");
            }
            Err(failure) if room == 0 => assert!(matches!(failure.error, Error::NothingSent(_))),
            Err(failure) => {
                assert!(!answered, "bytes that come before the head is out are no answer");
                assert!(matches!(failure.error, Error::ClosedBeforeAnswer { reused: false }), "{:?}", failure.error);
            }
        }
    }
}

#[tokio::test]
async fn dropping_anything_closes_the_connection() {
    let shelf = Shelf::default();
    // While waiting for the answer.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let sending = Connection::new(ours).send(get(), None, back_to(&shelf));
    tokio::select! { _ = sending => panic!("no answer was given"), _ = read_head(&mut theirs) => {} }
    assert_eq!(theirs.read(&mut [0; 10]).await.unwrap(), 0);
    // In the middle of the answer.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let serve = async {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
        theirs
    };
    let (outcome, mut theirs) = tokio::join!(Connection::new(ours).send(get(), None, back_to(&shelf)), serve);
    let mut body = answer(outcome.unwrap()).into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    drop(body);
    assert_eq!(theirs.read(&mut [0; 10]).await.unwrap(), 0);
    assert!(shelf.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_body_that_fails_never_looks_complete() {
    for size in [None, Some(10)] {
        let shelf = Shelf::default();
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (feeder, body) = feed(size);
        feeder.send(Ok("hello".into())).unwrap();
        feeder.send(Err("the client went away")).unwrap();
        let failure = error(Connection::new(ours).send(post(body), None, back_to(&shelf)).await);
        assert!(matches!(failure.error, Error::RequestBody(_)), "{:?}", failure.error);
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert!(!seen.ends_with(b"0\r\n\r\n"));

        // The same after an early answer: the answer's body reports it.
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (feeder, body) = feed(size);
        feeder.send(Ok("hello".into())).unwrap();
        let serve = async {
            read_head(&mut theirs).await;
            theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(Connection::new(ours).send(post(body), None, back_to(&shelf)), serve);
        let mut body = answer(outcome.unwrap()).into_body();
        feeder.send(Err("the client went away")).unwrap();
        assert!(matches!(body.frame().await, Some(Err(Error::RequestBody(_)))));
        assert!(body.frame().await.is_none());
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert!(!seen.ends_with(b"0\r\n\r\n"));
        assert!(shelf.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_request_body_of_another_length_is_refused() {
    for parts in [vec!["hell"], vec!["hello!"], vec!["hel", "lo!"]] {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (feeder, body) = feed(Some(5));
        let written = parts.concat();
        for part in parts {
            feeder.send(Ok(part.into())).unwrap();
        }
        drop(feeder);
        let failure = error(Connection::new(ours).send(post(body), None, |_| {}).await);
        assert!(matches!(failure.error, Error::RequestLength), "{written}");
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert!(!seen.ends_with(b"hello") && !seen.ends_with(b"hello!"), "{seen:?}");
    }
}

#[tokio::test]
async fn no_more_of_the_upload_is_taken_than_can_be_written() {
    for part in [100usize, 5000, 60_000] {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (feeder, body) = feed(None);
        let taken = Arc::clone(&body.taken);
        for _ in 0..10_000_000 / part {
            feeder.send(Ok(vec![0; part].into())).unwrap();
        }
        let sending = Connection::new(ours).send(post(body), None, |_| {});
        tokio::select! { biased; _ = sending => panic!("no answer was given"), _ = read_head(&mut theirs) => {} }
        let bytes = taken.load(Ordering::Relaxed) * part;
        assert!(bytes <= 4096 + 18 * 1024 + 2 * part, "{bytes} taken in parts of {part}");
    }
}

#[tokio::test]
async fn upgrades() {
    let request = || {
        Request::get("/ws")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let serve = async {
        let head = read_head(&mut theirs).await;
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: Upgrade\r\n"));
        theirs
            .write_all(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
            .await
            .unwrap();
        theirs
    };
    let (outcome, mut theirs) = tokio::join!(Connection::new(ours).send(request(), None, |_| {}), serve);
    let Ok(Outcome::Upgraded(mut upgraded)) = outcome else { panic!("no upgrade") };
    assert_eq!(upgraded.leftover, b"\x81\x02hi"[..]);
    assert_eq!(upgraded.head.status(), 101);
    assert_eq!(upgraded.head.headers()["upgrade"], "websocket");
    upgraded.io.write_all(b"ping").await.unwrap();
    let mut ping = [0; 4];
    theirs.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"ping");

    // An app that does not want to.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let shelf = Shelf::default();
    let serve = async {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(Connection::new(ours).send(request(), None, back_to(&shelf)), serve);
    assert_eq!(answer(outcome.unwrap()).status(), 403);
    assert_eq!(shelf.lock().unwrap().len(), 1);

    // One that switches in HTTP/1.0, which cannot.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let serve = async {
        read_head(&mut theirs).await;
        theirs.write_all(b"HTTP/1.0 101 X\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(Connection::new(ours).send(request(), None, |_| {}), serve);
    assert!(matches!(error(outcome).error, Error::BadAnswer(Violation::UnexpectedUpgrade)));
}

#[tokio::test]
async fn fields_that_connection_names_end_here() {
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let serve = async {
        read_head(&mut theirs).await;
        let answer = "HTTP/1.1 200 OK\r\nConnection: x-hop, upgrade\r\nx-hop: 1\r\nX-Hop: 2\r\nUpgrade: h2c\r\nproxy-connection: a\r\ncontent-length: 0\r\n\r\n";
        theirs.write_all(answer.as_bytes()).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(Connection::new(ours).send(get(), None, |_| {}), serve);
    let headers = answer(outcome.unwrap()).headers().clone();
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "upgrade"]);
}

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_not_a_slow_answer() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    let (feeder, body) = feed(None);
    let slow_client = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            feeder.send(Ok("hello".into())).unwrap();
        }
        drop(feeder);
    };
    let slow_upstream = async {
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            seen.push(theirs.read_u8().await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        for _ in 0..3 {
            theirs.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    };
    let (outcome, (), ()) =
        tokio::join!(Connection::new(ours).send(post(body), TIMEOUT, |_| {}), slow_client, slow_upstream);
    assert_eq!(answer(outcome.unwrap()).status(), 204);
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time() {
    let start = tokio::time::Instant::now();
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let failure = error(Connection::new(ours).send(get(), TIMEOUT, |_| {}).await);
    assert!(matches!(failure.error, Error::Timeout));
    assert!(failure.request.is_some());
    assert_eq!(start.elapsed().as_secs(), 10);
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).await.unwrap();

    // A head that comes in part.
    let (ours, mut theirs) = tokio::io::duplex(1000);
    theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let failure = error(Connection::new(ours).send(get(), TIMEOUT, |_| {}).await);
    assert!(matches!(failure.error, Error::Timeout));

    // An upstream that does not take the upload; what it took before counts.
    let start = tokio::time::Instant::now();
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let stalls = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            theirs.read_exact(&mut [0; 1000]).await.unwrap();
        }
        theirs
    };
    let body = Full::new(Bytes::from(vec![0; 100_000]));
    let (outcome, _theirs) = tokio::join!(Connection::new(ours).send(post(body), TIMEOUT, |_| {}), stalls);
    assert!(matches!(error(outcome).error, Error::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5 * 8 + 10);
}

#[tokio::test(start_paused = true)]
async fn quick_answers_do_not_touch_the_timer() {
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let shelf = Shelf::default();
    shelf.lock().unwrap().push(Connection::new(ours));
    let mut first = None;
    for _ in 0..9 {
        let connection = shelf.lock().unwrap().pop().unwrap();
        let serve = async {
            read_head(&mut theirs).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(connection.send(get(), TIMEOUT, back_to(&shelf)), serve);
        assert_eq!(answer(outcome.unwrap()).status(), 204);
        let deadline = shelf.lock().unwrap().last().unwrap().inner.timer.as_ref().unwrap().deadline();
        assert_eq!(*first.get_or_insert(deadline), deadline);
    }
    // And yet it fires when it should: after ten seconds of the last exchange, not of the first.
    let start = tokio::time::Instant::now();
    let connection = shelf.lock().unwrap().pop().unwrap();
    assert!(matches!(error(connection.send(get(), TIMEOUT, |_| {}).await).error, Error::Timeout));
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// Futures run in multi-threaded runtimes, too; and nothing needs to be pinned.
#[test]
fn everything_is_send() {
    fn is_send<T: Send + Unpin + 'static>() {}
    type Io = tokio::net::TcpStream;
    type Back = fn(Connection<Io>);
    is_send::<Connection<Io>>();
    is_send::<super::Sending<Io, Full<Bytes>, Back>>();
    is_send::<Outcome<Io, Full<Bytes>, Back>>();
    is_send::<ResponseBody<Io, Full<Bytes>, Back>>();
    is_send::<Failure<Full<Bytes>>>();
    is_send::<crate::guard::Guard<Io, fn(&Violation) -> Bytes>>();
    is_send::<crate::guard::Handle>();
}

/// Counts the calls that reach the other side.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn head_and_first_data_leave_together() {
    for (size, exact) in [(0, true), (10, true), (10, false), (1000, true), (50_000, true), (50_000, false)] {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let (feeder, body) = feed(exact.then_some(size));
        if size > 0 {
            feeder.send(Ok(vec![0; usize::try_from(size).unwrap()].into())).unwrap();
        }
        drop(feeder);
        let sending = Connection::new(Counted(ours, Arc::clone(&writes))).send(post(body), None, |_| {});
        tokio::select! { biased; _ = sending => panic!("no answer was given"), _ = read_head(&mut theirs) => {} }
        // A large chunk's end is known only when the body is asked again.
        let expected = if size > 2048 && !exact { 2 } else { 1 };
        assert_eq!(writes.load(Ordering::Relaxed), expected, "{size} bytes, exact: {exact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Any body, cut into any chunks, arriving in any pieces.
    #[test]
    fn chunked_answers_round_trip(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..12),
        upper in any::<bool>(),
        zeros in 0usize..4,
        pieces in prop::collection::vec(1usize..700, 1..30),
        trailer in any::<bool>(),
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            let size = if upper { format!("{:X}", chunk.len()) } else { format!("{:x}", chunk.len()) };
            bytes.extend_from_slice("0".repeat(zeros).as_bytes());
            bytes.extend_from_slice(size.as_bytes());
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(if trailer { b"0\r\nx-t: 1\r\n\r\n" } else { b"0\r\n\r\n" });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (got, reusable) = runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(256);
            let shelf = Shelf::default();
            let serve = async {
                read_head(&mut theirs).await;
                let mut rest = &bytes[..];
                for piece in pieces.iter().cycle() {
                    if rest.is_empty() { break }
                    let (now, later) = rest.split_at((*piece).min(rest.len()));
                    theirs.write_all(now).await.unwrap();
                    rest = later;
                }
            };
            let receive = async {
                let outcome = Connection::new(ours).send(get(), None, back_to(&shelf)).await.unwrap();
                let collected = answer(outcome).into_body().collect().await.unwrap();
                assert_eq!(collected.trailers().is_some(), trailer);
                collected.to_bytes()
            };
            let (got, ()) = tokio::join!(receive, serve);
            (got, shelf.lock().unwrap().pop().is_some_and(|mut connection| connection.is_reusable()))
        });
        prop_assert_eq!(&got[..], &chunks.concat()[..]);
        prop_assert!(reusable);
    }
}
