//! Against a server in this process, which says what it gets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::body::{RequestBody, ResponseBody};
use crate::context::Connection;
use crate::testing_local::App;

const SOON: Duration = Duration::from_secs(20);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server has seen.
#[derive(Default)]
struct Seen {
    open: AtomicUsize,
    opened: AtomicUsize,
    /// Heads with the trailers behind their bodies; none where the body broke off.
    requests: Mutex<Vec<(http::request::Parts, Option<HeaderMap>)>>,
}

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let reading = async move {
        let trailers = body.collect().await.ok().map(|all| all.trailers().cloned().unwrap_or_default());
        seen.requests.lock().push((parts, trailers));
    };
    Ok(Response::new(match path.as_str() {
        "/grpc/early" => {
            tokio::spawn(reading);
            Empty::new().boxed_unsync()
        }
        "/grpc/large" => Full::new(Bytes::from(vec![7; 1 << 20])).boxed_unsync(),
        "/grpc/never" => std::future::pending().await,
        _ => {
            reading.await;
            Empty::new().boxed_unsync()
        }
    }))
}

/// A server, and a stack in front of it.
async fn start(more: &str) -> (Arc<Seen>, App) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&all);
            seen.open.fetch_add(1, Ordering::SeqCst);
            seen.opened.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let each = Arc::clone(&seen);
                let service = service_fn(move |request| answer(Arc::clone(&each), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
                seen.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let app = App::start(&format!(
        "[upstreams.grpc]\nurl = \"http://{address}\"\n{more}\n[[route]]\npath = \"/grpc/*\"\nupstream = \"grpc\"\ngrpc = true\n"
    ));
    (seen, app)
}

fn body(frames: impl futures_util::Stream<Item = Frame<Bytes>> + Send + 'static) -> RequestBody {
    RequestBody::axum(axum::body::Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))))
}

async fn call(app: &App, path: &str, body: RequestBody) -> Response<ResponseBody> {
    let request = Request::post(format!("https://LocalHost{path}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("x-forwarded-for", "198.51.100.1")
        .body(body)
        .unwrap();
    let connection = Arc::new(Connection::embedded(SocketAddr::from(([192, 0, 2, 7], 50_000))));
    timeout(SOON, app.handle.live().serve(&connection, request)).await.expect("an answer")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn what_a_client_says_behind_its_body_is_judged_as_its_head_is() {
    let (seen, app) = start("").await;
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "x-forwarded-for", "x_forwarded_for", "x-forwarded-user", "x-request-id", "te"] {
        trailers.insert(name, HeaderValue::from_static("forged"));
    }
    let frames = [Frame::data(Bytes::from_static(b"\0\0\0\0\x01x")), Frame::trailers(trailers)];
    let answer = call(&app, "/grpc/x", body(futures_util::stream::iter(frames))).await;
    assert_eq!(answer.status(), 200);
    let requests = std::mem::take(&mut *seen.requests.lock());
    let [(head, Some(trailers))] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(head.uri.authority().unwrap(), "localhost");
    assert_eq!(head.uri.scheme_str(), Some("http"));
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
    assert!(!head.headers.contains_key("host"));
    assert_eq!(trailers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
}

#[tokio::test]
async fn connections_are_shared_and_end_when_nobody_uses_them() {
    let (seen, app) = start("idle_timeout = \"100ms\"").await;
    for _ in 0..3 {
        let answer = call(&app, "/grpc/x", RequestBody::empty()).await;
        assert!(answer.into_body().collect().await.is_ok());
    }
    assert_eq!(seen.opened.load(Ordering::SeqCst), 1);
    // As many as fit, and no others.
    let mut held = Vec::new();
    for _ in 0..150 {
        held.push(call(&app, "/grpc/large", RequestBody::empty()).await);
    }
    assert_eq!(seen.opened.load(Ordering::SeqCst), 2);
    drop(held);
    until("connections end", || seen.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(call(&app, "/grpc/x", RequestBody::empty()).await.status(), 200);
    assert_eq!(seen.opened.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_stops_nobody() {
    let (_, app) = start("").await;
    let mut held = Vec::new();
    for _ in 0..99 {
        held.push(call(&app, "/grpc/large", RequestBody::empty()).await);
    }
    let answer = call(&app, "/grpc/large", RequestBody::empty()).await;
    let all = timeout(SOON, answer.into_body().collect()).await.expect("the others hold it up").unwrap();
    assert_eq!(all.to_bytes().len(), 1 << 20);
}

#[tokio::test]
async fn a_request_ends_with_its_answer() {
    let (seen, app) = start("").await;
    let endless = || body(futures_util::stream::pending());
    let answer = call(&app, "/grpc/early", endless()).await;
    assert_eq!(answer.status(), 200);
    drop(answer);
    until("the request is given up", || seen.requests.lock().len() == 1).await;
    assert!(seen.requests.lock()[0].1.is_none(), "not as if it were whole");
}

#[tokio::test]
async fn the_time_for_an_answer_begins_when_the_request_is_sent() {
    let (seen, app) = start("response_timeout = \"100ms\"").await;
    let (mut more, frames) = futures_channel();
    let slow = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            more.push(Frame::data(Bytes::from_static(b"\0\0\0\0\0")));
        }
        more.end();
    };
    let (answer, ()) = tokio::join!(call(&app, "/grpc/x", body(frames)), slow);
    assert!(!answer.headers().contains_key("grpc-status"), "{:?}", answer.headers());
    let late = call(&app, "/grpc/never", RequestBody::empty()).await;
    assert_eq!((late.status().as_u16(), &late.headers()["grpc-status"]), (200, &HeaderValue::from_static("4")));
    assert!(late.headers()["grpc-message"].to_str().unwrap().starts_with("upstream.timeout: "));
    // What is wrong may be the connection: the next request goes over another one.
    let before = seen.opened.load(Ordering::SeqCst);
    assert_eq!(call(&app, "/grpc/x", RequestBody::empty()).await.status(), 200);
    assert_eq!(seen.opened.load(Ordering::SeqCst), before + 1);
}

/// A stream that is fed by hand.
fn futures_channel() -> (Feed, impl futures_util::Stream<Item = Frame<Bytes>> + Send) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (Feed(Some(sender)), frames)
}

struct Feed(Option<tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>>);

impl Feed {
    fn push(&mut self, frame: Frame<Bytes>) {
        let _ = self.0.as_ref().expect("not ended").send(frame);
    }

    fn end(&mut self) {
        self.0 = None;
    }
}
