//! Large bodies stream through in little memory; too large ones end early, and the client is told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::{Body, Client, Need, Palisade, Upstream, Wire, eventually, need};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{SOON, heavy, starter, ways, wires, written};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// What the gateway may hold at most, whatever passes through it.
const MEMORY: u64 = 64 * MIB;

/// Says what a transfer cost, and fails when it cost too much memory.
#[expect(clippy::print_stdout, reason = "a test's own output, shown when it fails or is asked for")]
fn bounded(gateway: &Palisade, what: &str, started: Instant) -> Result<()> {
    let peak = gateway.process().memory()?.peak;
    println!("{what}: {:.1} s, peak {:.1} MiB", started.elapsed().as_secs_f64(), peak as f64 / MIB as f64);
    ensure!(peak < MEMORY, "{what}: {peak} bytes resident");
    Ok(())
}

/// SHA-256 of 1 GiB of zeros: what the app has to see of the uploads below.
const GIB_OF_ZEROS: &str = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14";

async fn octets(client: &Client) -> Result<()> {
    let body = Body::chunked(vec![0; 256 << 10], GIB);
    let request = client.post("/upload").header("content-type", "application/octet-stream").body(body);
    let mut answer = request.send().await?;
    assert_eq!(answer.status(), 200);
    let seen = answer.json().await?;
    assert_eq!((&seen["bytes"], &seen["sha256"]), (&GIB.into(), &GIB_OF_ZEROS.into()));
    Ok(())
}

async fn file(client: &Client) -> Result<()> {
    let (body, kind) = Body::multipart("file", "big.bin", vec![0; 256 << 10], GIB);
    let mut answer = client.post("/upload/file").header("content-type", &kind).body(body).send().await?;
    assert_eq!(answer.status(), 200);
    let seen = answer.json().await?;
    assert_eq!((&seen["bytes"], &seen["sha256"]), (&GIB.into(), &GIB_OF_ZEROS.into()));
    assert_eq!(seen["filename"], "big.bin");
    Ok(())
}

#[tokio::test]
async fn a_gibibyte_down() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    let _heavy = heavy().await;
    for (way, client) in ways(&gateway)?.into_iter().skip(1) {
        let length = way == "https";
        let started = Instant::now();
        let mut answer = client.get(&format!("/download?size={GIB}&length={length}")).send().await?;
        assert_eq!(answer.header("content-length"), length.then_some("1073741824"), "{way}");
        assert_eq!(answer.drain().await?, GIB, "{way}");
        bounded(&gateway, &format!("1 GiB down, {way}"), started)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gibibyte_up_under_the_starter_policy() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    let _heavy = heavy().await;
    let started = Instant::now();
    octets(&gateway.https()?).await?;
    bounded(&gateway, "1 GiB up, chunked, https", started)?;
    let started = Instant::now();
    file(&gateway.https()?.http2()).await?;
    bounded(&gateway, "1 GiB up, a file in multipart, h2", started)
}

#[tokio::test]
async fn a_gibibyte_up_where_a_route_allows_it() -> Result<()> {
    let app = App::plausible().await?;
    let route = "[[route]]\npath = \"/upload/*\"\nlimits = { body = \"2GiB\" }\n";
    let gateway = written(&app.url(), route).await?;
    let _heavy = heavy().await;
    let started = Instant::now();
    octets(&gateway.https()?.http2()).await?;
    bounded(&gateway, "1 GiB up, chunked, h2, written policy", started)?;
    let started = Instant::now();
    file(&gateway.http()?).await?;
    bounded(&gateway, "1 GiB up, a file in multipart, http, written policy", started)?;
    // Elsewhere the limit of the section holds.
    let body = Body::repeated("x", MIB + 1);
    let mut refused = gateway.https()?.post("/echo").header("content-type", "image/png").body(body).send().await?;
    assert_eq!((refused.status(), &refused.json().await?["code"]), (413, &"limits.body".into()));
    Ok(())
}

/// The body bytes that an upstream has read, over all its connections, as chunks or plain.
fn arrived(upstream: &Upstream) -> u64 {
    upstream.bytes().iter().map(|bytes| bytes.len() as u64).sum()
}

#[tokio::test]
async fn what_is_announced_too_large_never_starts() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let gateway = written(&upstream.url(), "").await?;
    for (way, client) in ways(&gateway)? {
        for kind in ["application/octet-stream", "application/json", "multipart/form-data; boundary=x"] {
            let body = Body::repeated("x", 8 * MIB);
            let mut answer = client.post("/").header("content-type", kind).body(body).send().await?;
            assert_eq!(answer.status(), 413, "{way} {kind}");
            assert_eq!(answer.json().await?["code"], "limits.body", "{way} {kind}");
        }
        // Exactly the limit passes.
        let body = Body::repeated("x", MIB);
        assert_eq!(client.post("/").body(body).send().await?.status(), 200, "{way}");
    }
    assert_eq!(upstream.requests().len(), 3);
    Ok(())
}

/// The length is not announced: the limit is found out on the way. The app has seen at most so much, and no end of it.
#[tokio::test]
async fn what_turns_out_too_large_ends_at_the_limit() -> Result<()> {
    for (way, over_http2) in [("http", false), ("https", false), ("h2", true)] {
        let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
        let gateway = written(&upstream.url(), "").await?;
        let client = if way == "http" { gateway.http()? } else { gateway.https()? };
        let client = if over_http2 { client.http2() } else { client };
        let body = Body::chunked("x", 64 * MIB);
        let mut answer = client.post("/").header("content-type", "image/png").body(body).send().await?;
        assert_eq!(answer.status(), 413, "{way}");
        let id = answer.header("x-request-id").unwrap_or_default().to_owned();
        assert_eq!(answer.json().await?["code"], "limits.body", "{way}");
        eventually(SOON, "the app's connection is closed", async || upstream.open_connections() == 0).await?;
        // Head and chunk lines come on top.
        let arrived = arrived(&upstream);
        ensure!(arrived < MIB + 64 * 1024, "{way}: {arrived} bytes reached the app");
        let request = upstream.requests().pop().context("the app saw its head")?;
        ensure!(request.body.len() as u64 <= MIB, "{way}: {} bytes of body", request.body.len());
        let whole = upstream.bytes().concat();
        ensure!(!whole.ends_with(b"0\r\n\r\n"), "{way}: the app was told that the body is complete");
        let line = gateway.access(|line| line["request_id"] == id).await?;
        assert_eq!((&line["status"], &line["outcome"]), (&413.into(), &"refused".into()), "{way} {line}");
        let read = line["bytes_in"].as_u64().unwrap_or(0);
        ensure!((MIB..MIB + 128 * 1024).contains(&read), "{way}: {read} bytes were read");
    }
    Ok(())
}

/// Many HTTP/1.1 clients read the answer only after they have sent everything: they must still find it.
#[tokio::test]
async fn a_client_that_sends_first_still_reads_the_refusal() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let gateway = written(&upstream.url(), "").await?;
    let block = "x".repeat(64 << 10);
    let chunk = format!("{:x}\r\n{block}\r\n", block.len());
    for head in ["Content-Length: 8388608", "Transfer-Encoding: chunked"] {
        for (way, mut wire) in wires(&gateway).await? {
            let chunked = head.starts_with("Transfer");
            wire.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n{head}\r\n\r\n"))
                .await?;
            for _ in 0..128 {
                wire.send(if chunked { &chunk } else { &block }).await.with_context(|| format!("{way} {head}"))?;
            }
            let answer = wire.answer().await.with_context(|| format!("{way} {head}"))?;
            assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")), "{way} {head}");
            assert_eq!(answer.json()?["code"], "limits.body", "{way} {head}");
            wire.closed(SOON).await.with_context(|| format!("{way} {head}"))?;
        }
    }
    Ok(())
}

async fn send_forever(wire: &mut Wire) -> Duration {
    let started = Instant::now();
    let block = vec![b'x'; 64 << 10];
    while wire.send(&block).await.is_ok() {}
    started.elapsed()
}

/// And one that never stops sending is cut off, without costing memory.
#[tokio::test]
async fn a_client_that_never_stops_is_cut_off() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let gateway = written(&upstream.url(), "").await?;
    let _heavy = heavy().await;
    for (way, mut wire) in wires(&gateway).await? {
        wire.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n").await?;
        let took = tokio::time::timeout(Duration::from_secs(60), send_forever(&mut wire)).await;
        let took = took.with_context(|| format!("{way}: it may go on for a minute"))?;
        println!("{way}: cut off after {:.1} s", took.as_secs_f64());
    }
    ensure!(gateway.process().memory()?.peak < MEMORY);
    assert_eq!(upstream.connections(), 0);
    Ok(())
}

/// An application that answers as soon as it has seen the head, as many do that refuse: over HTTP/2 the client must get
/// that answer, although part of its body is never asked for.
#[tokio::test]
async fn an_answer_that_waits_for_no_body_arrives_over_http2() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let upstream = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    seen.extend_from_slice(&piece[..read]);
                    if seen.windows(4).any(|end| end == b"\r\n\r\n") {
                        seen.clear();
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
                    }
                }
            });
        }
    });
    let gateway = starter(&url).await?;
    need(Need::Curl)?;
    let body = "a".repeat(50_000);
    let target = gateway.url("https")?;
    for round in 0..60 {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--insecure", "--http2", "--data-binary", &body, &target]);
        let answer = curl.output().await?;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert_eq!((&*answer.stdout, &*said), (&b"early"[..], ""), "round {round}");
    }
    upstream.abort();
    Ok(())
}
