//! Bytes of a client: whatever the guard lets pass, hyper's server sees the same requests with the same bodies as a simple
//! reader of the strict grammar, no matter in which pieces, and never finds anything to complain about itself.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use palisade_h1::guard::{Config, Guard};
use palisade_h1::{Framing, Violation, head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request: its method and target, and its body if that was whole.
type Seen = (String, Option<Vec<u8>>);

/// Through guard and server. The violation, and the bytes of the answers.
async fn guarded(input: &[u8], piece: usize) -> (Vec<Seen>, Option<Violation>, Vec<u8>) {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let guard = Guard::new(server, Config::default(), |violation| {
        format!("HTTP/1.1 {} Refused\r\ncontent-length: 0\r\nx-guard: 1\r\nconnection: close\r\n\r\n", violation.status()).into()
    });
    let handle = guard.handle();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let (handle, seen) = (handle.clone(), seen.clone());
        service_fn(move |request: http::Request<Incoming>| {
            let token = handle.begin();
            let seen = seen.clone();
            async move {
                let name = format!("{} {}", request.method(), request.uri());
                let place = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((name, None));
                    seen.len() - 1
                };
                if let Ok(body) = request.into_body().collect().await {
                    seen.lock().unwrap()[place].1 = Some(body.to_bytes().to_vec());
                }
                // The answer has no body: it is over when it is made.
                drop(token);
                Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(256)
        .serve_connection(TokioIo::new(guard), service)
        .with_upgrades();
    let talk = async {
        for part in input.chunks(piece) {
            if client.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // To close our half would be to hang up: the server gives up what it is doing. Time is paused, and passes as soon as
        // nobody has anything to do.
        let mut output = Vec::new();
        let quiet = std::time::Duration::from_secs(1);
        while let Ok(Ok(1..)) = tokio::time::timeout(quiet, client.read_buf(&mut output)).await {}
        drop(client);
        output
    };
    let (_, output) = tokio::join!(connection, talk);
    let seen = seen.lock().unwrap().clone();
    (seen, handle.violation(), output)
}

/// Reads the same by the book, with everything at hand. What is left is no whole request.
fn model(mut input: &[u8]) -> (Vec<Seen>, &[u8]) {
    let mut seen = Vec::new();
    while let Ok(facts) = head::check(input) {
        let line = input[..facts.len].trim_ascii_start();
        let line = &line[..line.iter().position(|&b| b == b'\r').unwrap()];
        let mut words = line.split(|&b| b == b' ');
        let name = |word: Option<&[u8]>| String::from_utf8_lossy(word.unwrap_or_default()).into_owned();
        let name = (name(words.next()), name(words.next()));
        input = &input[facts.len..];
        let body = match facts.framing {
            Framing::Unframed => Some(Vec::new()),
            Framing::Length(length) => usize::try_from(length).ok().and_then(|length| input.get(..length)).map(|body| {
                input = &input[body.len()..];
                body.to_vec()
            }),
            Framing::Chunked => chunked(&mut input),
        };
        // The library prints an absolute target in its own spelling.
        let name = if name.1.starts_with('/') { format!("{} {}", name.0, name.1) } else { String::new() };
        let whole = body.is_some();
        seen.push((name, body));
        if !whole || !facts.is_persistent() {
            break;
        }
    }
    (seen, input)
}

fn chunked(input: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = input.windows(2).position(|pair| pair == b"\r\n")?;
        let size = std::str::from_utf8(&input[..end]).ok()?;
        *input = &input[end + 2..];
        if size.is_empty() || size.len() > 15 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        let data = input.get(..size)?;
        body.extend_from_slice(data);
        *input = input[size..].strip_prefix(b"\r\n")?;
    }
    // The trailer section has the grammar of a head's fields.
    let trailers = [b"GET / HTTP/1.1\r\n", *input].concat();
    let facts = head::check(&trailers).ok()?;
    let section = trailers[16..facts.len].to_ascii_lowercase();
    if section.len() > 16 * 1024 {
        return None;
    }
    for name in ["host:", "connection:", "content-length:", "transfer-encoding:"] {
        if section.split(|&b| b == b'\n').any(|field| field.starts_with(name.as_bytes())) {
            return None;
        }
    }
    *input = &input[facts.len - 16..];
    Some(body)
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, input)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (seen, violation, output) = guarded(input, input.len().max(1)).await;
        let pieces = guarded(input, usize::from(flags).max(1)).await;
        let (expected, rest) = model(input);
        // A line is not looked at again for each of its bytes: an error in the last one may never be found in pieces. Nothing of
        // its head has passed.
        if violation.is_some() && pieces.1.is_none() {
            assert_eq!(head::check(rest).err(), violation);
            let lines = rest.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            assert_eq!(head::check(&rest[..lines]), Err(Violation::Incomplete));
        } else {
            assert_eq!(violation, pieces.1, "in pieces of {flags}");
        }
        // A refused body's service may be dropped before it has seen anything of it.
        for seen in [&seen, &pieces.0] {
            assert!(seen.len() == expected.len() || (violation.is_some() && seen.len() + 1 == expected.len()), "{seen:?} {expected:?}");
            for (seen, expected) in seen.iter().zip(&expected) {
                assert_eq!(seen.1, expected.1, "{}", seen.0);
                assert!(expected.0.is_empty() || seen.0 == expected.0, "{} {}", seen.0, expected.0);
            }
        }
        // A refusal that is not the guard's own is the library's: it read something differently.
        let output = String::from_utf8_lossy(&output);
        assert!(!output.contains("HTTP/1.1 4") || output.contains("x-guard: 1"), "{output}");
        assert!(!output.contains("HTTP/1.1 5"), "{output}");
    });
});
