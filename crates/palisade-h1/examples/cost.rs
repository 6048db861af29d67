//! What a request costs in this crate, for counting instructions: the difference of two runs is the price of the requests
//! between them.
//!
//! ```text
//! cargo build --release -p palisade-h1 --example cost
//! for n in 1000 11000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/cost check $n; done
//! ```

use std::hint::black_box;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use palisade_h1::client::{Connection, Outcome};
use palisade_h1::guard::{Config, Guard};
use palisade_h1::head;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// 300 bytes, as an API client sends them.
const HEAD: &[u8] = b"GET /api/notes?limit=20&after=01J9ZK HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
Accept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=b3BlbiBzZXNhbWUgYW5kIG1vcmU\r\n\
X-Request-Start: 1700000000\r\nReferer: https://a.io\r\n\r\n";

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 18:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 27\r\n\
content-type: application/json\r\n\r\n{\"message\":\"hello, world!\"}";

/// Gives the same bytes again for each write, and at once.
struct Echo {
    bytes: &'static [u8],
    ready: bool,
}

impl AsyncRead for Echo {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !std::mem::take(&mut self.ready) {
            return Poll::Pending;
        }
        buf.put_slice(self.bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Echo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.ready = true;
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn check(count: usize) {
    for _ in 0..count {
        black_box(head::check(black_box(HEAD))).expect("a good head");
    }
}

async fn guard(count: usize, guarded: bool) {
    let mut guard = Guard::new(Echo { bytes: HEAD, ready: true }, Config::default(), |_| Bytes::new());
    let mut plain = Echo { bytes: HEAD, ready: true };
    let handle = guard.handle();
    let mut buf = vec![0; 8192];
    for _ in 0..count {
        if guarded {
            let read = guard.read(&mut buf).await.expect("a request");
            let token = handle.begin();
            assert_eq!(read, HEAD.len());
            guard.write_all(black_box(ANSWER)).await.expect("written");
            drop(token);
            guard.flush().await.expect("flushed");
        } else {
            let read = plain.read(&mut buf).await.expect("a request");
            assert_eq!(read, HEAD.len());
            plain.write_all(black_box(ANSWER)).await.expect("written");
            plain.flush().await.expect("flushed");
        }
    }
}

async fn client(count: usize, body: &'static [u8]) {
    let shelf = Arc::new(Mutex::new(Some(Connection::new(Echo { bytes: ANSWER, ready: false }))));
    for _ in 0..count {
        let mut connection = shelf.lock().expect("no panic").take().expect("it came back");
        assert!(connection.is_reusable());
        let request = Request::post("/api/notes")
            .header("host", "api.example.com")
            .header("accept", "application/json")
            .header("x-forwarded-for", "192.0.2.1")
            .body(Full::new(Bytes::from_static(body)))
            .expect("a request");
        let back = {
            let shelf = Arc::clone(&shelf);
            move |connection| *shelf.lock().expect("no panic") = Some(connection)
        };
        match connection.send(request, Some(Duration::from_secs(30)), back).await {
            Ok(Outcome::Response(response)) => {
                black_box(response.into_body().collect().await.expect("a body"));
            }
            _ => unreachable!("an answer"),
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let count = args.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match mode.as_str() {
        "guard" => runtime.block_on(guard(count, true)),
        "plain" => runtime.block_on(guard(count, false)),
        "get" => runtime.block_on(client(count, b"")),
        "post" => runtime.block_on(client(count, &[b'x'; 1000])),
        _ => check(count),
    }
}
