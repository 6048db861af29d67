//! Answers of an upstream: the client codec never panics, reads the same in any pieces, and what it takes for a whole
//! answer is the same answer to hyper's client, which is a good deal more tolerant.
#![no_main]

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use palisade_h1::client::{Connection, Outcome};
use tokio::io::{AsyncWriteExt, DuplexStream};

type Answer = (u16, Bytes);

fn request(method: Method) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).unwrap()
}

/// Writes the answer in pieces once the request is there, and closes. The request is small: one read is enough.
async fn peer(mut io: DuplexStream, answer: &[u8], piece: usize) {
    use tokio::io::AsyncReadExt;
    let _ = io.read(&mut [0; 4096]).await;
    for part in answer.chunks(piece) {
        if io.write_all(part).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn ours(method: Method, answer: &[u8], piece: usize) -> Option<Answer> {
    let (io, other) = tokio::io::duplex(1 << 16);
    let client = async {
        match Connection::new(io).send(request(method), None, |_| {}).await {
            Ok(Outcome::Response(response)) => {
                let status = response.status().as_u16();
                Some((status, response.into_body().collect().await.ok()?.to_bytes()))
            }
            Ok(Outcome::Upgraded(_)) => panic!("nobody asked for an upgrade"),
            Err(_) => None,
        }
    };
    tokio::join!(client, peer(other, answer, piece)).0
}

async fn hypers(method: Method, answer: &[u8]) -> Option<Answer> {
    let (io, other) = tokio::io::duplex(1 << 16);
    let client = async {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(256)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(io))
            .await
            .ok()?;
        let exchange = async {
            let response = sender.send_request(request(method)).await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.into_body().collect().await.ok()?.to_bytes()))
        };
        // The sender must outlive the connection's last poll.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    };
    tokio::join!(client, peer(other, answer, answer.len().max(1))).0
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, answer)) = data.split_first() else { return };
    let method = if flags & 1 == 1 { Method::HEAD } else { Method::GET };
    let piece = usize::from(flags >> 1).max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let whole = ours(method.clone(), answer, answer.len().max(1)).await;
        assert_eq!(whole, ours(method.clone(), answer, piece).await, "pieces of {piece}");
        if let Some(whole) = whole {
            let theirs = hypers(method, answer).await;
            assert_eq!(Some(whole), theirs, "{:?}", String::from_utf8_lossy(answer));
        }
    });
});
