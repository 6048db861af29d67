//! Clients that keep somebody waiting.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::frames::kind::{DATA, HEADERS, RST_STREAM, WINDOW_UPDATE};
use palisade_test::frames::{END_HEADERS, END_STREAM, error, fields, frame};
use palisade_test::upstream::Step;
use palisade_test::{Palisade, Upstream, Wire, eventually, tls};
use tokio::io::AsyncReadExt as _;

use super::frames::{open, request, silent};
use super::{GREEDY, MIB, Served, gateway, grown, upstream};
use crate::support::{SOON, limited, written_policy};

const SHORT: &str = "head_time = \"1s\"\nidle_time = \"1s\"\nbody_time = \"1s\"\nanswer_time = \"2s\"\n";

async fn wire(gateway: &Palisade, secure: bool) -> Result<Wire> {
    Ok(Wire::over(if secure {
        let address = gateway.address("https")?;
        gateway.trust()?.connect_from(Some(GREEDY), address, "127.0.0.1", &[b"http/1.1"]).await?
    } else {
        tls::plain_from(Some(GREEDY), gateway.address("http")?).await?
    }))
}

async fn all_closed(upstream: &Upstream) -> Result<()> {
    eventually(SOON, "the application's connections are given up", async || upstream.open_connections() == 0).await
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, SHORT).await?;
    let served = Served::beside(&gateway)?;
    // Before TLS, and in the middle of its first message.
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut wire = Wire::over(tls::plain_from(Some(GREEDY), gateway.address("https")?).await?);
        wire.send(begun).await?;
        wire.closed(SOON).await.context("a handshake that does not go on")?;
    }
    for secure in [false, true] {
        wire(&gateway, secure).await?.closed(SOON).await.context("no request at all")?;
        let mut partial = wire(&gateway, secure).await?;
        let answer = partial.ask("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ").await?;
        ensure!((answer.status(), &*answer.json()?["code"].to_string()) == (408, "\"limits.head_time\""), "{answer:?}");
        // A byte now and then is no head either.
        let mut dripping = wire(&gateway, secure).await?;
        let start = Instant::now();
        while dripping.send("G").await.is_ok() && start.elapsed() < SOON {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(start.elapsed() < SOON, "a head may drip");
        let mut idle = wire(&gateway, secure).await?;
        ensure!(idle.ask("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await?.status() == 200);
        idle.closed(SOON).await.context("idle")?;
    }
    // HTTP/2: no preface, no request, half a head, half a frame.
    ensure!(silent(&gateway).await?.ended_with().await?.is_none_or(|error| error == error::NO_ERROR));
    ensure!(open(&gateway, &[]).await?.ended_with().await? == Some(error::NO_ERROR), "idle");
    let head = fields(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]);
    for begun in
        [frame(HEADERS, END_STREAM, 1, &head), frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)[..12].to_vec()]
    {
        let mut raw = open(&gateway, &[]).await?;
        raw.send(&begun).await?;
        ensure!(raw.ended_with().await? == Some(error::ENHANCE_YOUR_CALM), "half a head");
    }
    let mut used = open(&gateway, &[]).await?;
    used.send(&request(1, END_STREAM, "GET", "/")).await?;
    used.until("an answer", |frame| frame.stream == 1 && frame.flags & END_STREAM != 0).await?;
    ensure!(used.ended_with().await? == Some(error::NO_ERROR), "idle behind a request");
    served.all().await?;
    Ok(())
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, SHORT).await?;
    let served = Served::beside(&gateway)?;
    for secure in [false, true] {
        for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
            let mut wire = wire(&gateway, secure).await?;
            wire.send(format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n")).await?;
            let answered = wire.answer();
            let answer = tokio::time::timeout(SOON, answered).await.context("waited for")??;
            ensure!(
                (answer.status(), &*answer.json()?["code"].to_string()) == (408, "\"limits.body_time\""),
                "{answer:?}"
            );
            ensure!(answer.header("connection") == Some("close"), "{answer:?}");
        }
        // Each piece is in time, all of them are not.
        let mut wire = wire(&gateway, secure).await?;
        wire.send("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n").await?;
        let start = Instant::now();
        while wire.send("x").await.is_ok() && start.elapsed() < SOON {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(start.elapsed() < SOON, "a body may drip");
    }
    let mut raw = open(&gateway, &[]).await?;
    raw.send(&request(1, 0, "POST", "/")).await?;
    let answer = raw.until("an answer", |frame| frame.stream == 1 && frame.kind == DATA).await?;
    ensure!(String::from_utf8_lossy(&answer.payload).contains("limits.body_time"), "{answer:?}");
    eventually(SOON, "no connection to the application waits", async || upstream.open_connections() <= 2).await?;
    served.all().await?;
    Ok(())
}

#[tokio::test]
async fn a_conversation_and_a_route_that_says_so_may_be_slow() -> Result<()> {
    let pause = Duration::from_millis(3500);
    let times = "body_time = \"3s\"\n\n[[route]]\npath = \"/slow\"\nlimits = { body_time = \"off\" }\n";
    // The application has begun to answer: its client may think before it goes on.
    let early = Upstream::script([
        Step::ReadHead,
        Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".into()),
        Step::ReadBody,
        Step::Send("done".into()),
    ])
    .await?;
    let late = upstream().await?;
    for (upstream, path, text) in [(&early, "/talk", "done"), (&late, "/slow", "hello")] {
        let gateway = gateway(upstream, times).await?;
        let mut wire = wire(&gateway, false).await?;
        wire.send(format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n1")).await?;
        // Time is what this is about: there is nothing to wait for.
        tokio::time::sleep(pause).await;
        wire.send("2").await?;
        let answer = wire.answer().await.with_context(|| path.to_owned())?;
        ensure!((answer.status(), &*answer.text()) == (200, text), "{path}: {answer:?}");
    }
    // The same without: the seconds that its bytes buy are all it has.
    let gateway = gateway(&late, times).await?;
    let mut wire = wire(&gateway, false).await?;
    let piece = "x".repeat(1500);
    wire.send(format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000\r\n\r\n{piece}")).await?;
    let start = Instant::now();
    ensure!(wire.answer().await?.status() == 408);
    ensure!(start.elapsed() >= Duration::from_secs(6), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() -> Result<()> {
    let upstream = upstream().await?;
    let gateway = gateway(&upstream, "answer_time = \"2s\"\n").await?;
    gateway.https()?.get("/").send().await?;
    let before = gateway.process().memory()?.resident;
    for secure in [false, true] {
        let mut wires = Vec::new();
        for _ in 0..20 {
            let mut wire = wire(&gateway, secure).await?;
            wire.send("GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(50)).await?;
            wires.push(wire);
        }
        eventually(SOON, "the application is asked", async || upstream.open_connections() >= 20).await?;
        let grown = grown(&gateway, before)?;
        ensure!(grown < 96 * MIB, "{grown} bytes more, secure: {secure}");
        all_closed(&upstream).await?;
        for wire in &mut wires {
            let mut rest = Vec::new();
            let read = wire.connection().read_to_end(&mut rest);
            let _ = tokio::time::timeout(SOON, read).await.context("still open")?;
            ensure!(rest.len() < 32 << 20, "all of it came");
        }
    }
    // HTTP/2: no window at all; a window for everything, and nobody who reads.
    let mut shut = open(&gateway, &[(4, 0)]).await?;
    shut.send(&request(1, END_STREAM, "GET", "/large")).await?;
    let reset = shut.until("a reset", |frame| frame.kind == RST_STREAM).await?;
    ensure!((reset.stream, reset.error()) == (1, Some(error::CANCEL)), "{reset:?}");
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut raw = open(&gateway, &[(4, 0x7fff_ffff)]).await?;
        let window = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000u32.to_be_bytes());
        raw.send(&window).await?;
        let requests: Vec<u8> = (0..100).flat_map(|n| request(2 * n + 1, END_STREAM, "GET", "/large")).collect();
        raw.send(&requests).await?;
        deaf.push(raw);
    }
    eventually(SOON, "the application is asked", async || upstream.open_connections() >= 100).await?;
    let most = grown(&gateway, before)?;
    palisade_test::shell::say(&format!("a thousand answers to nobody: {} MiB more", most / MIB));
    ensure!(most < 256 * MIB, "{most} bytes more");
    all_closed(&upstream).await?;
    Ok(())
}

/// Each stream of an HTTP/2 connection may hold a connection to the application: a hundred on each of a few connections
/// would take every descriptor, and nobody else would be accepted. One address has half of what there is, again and again.
#[tokio::test]
async fn streams_that_stall_leave_descriptors_for_others() -> Result<()> {
    let upstream = upstream().await?;
    let (_folder, binary) = limited("ulimit -n 300")?;
    let policy = written_policy(&upstream.url(), "[rate_limit]\ndefault = \"off\"\n");
    let gateway = Palisade::serve().binary(&binary).policy(&policy).start().await?;
    let said = gateway.event("server.descriptors", |_| true).await?;
    let most = said["requests"].as_u64().context("requests")?;
    ensure!(most == 86, "{said}");
    let in_progress = async || {
        let status = gateway.run(&["status", "--json"]).await?.json()?;
        status["in_progress"]["requests"].as_u64().context("in progress")
    };
    let served = Served::beside(&gateway)?;
    for round in 0..2 {
        let (mut greedy, mut got) = (Vec::new(), 0);
        for _ in 0..3 {
            let mut raw = open(&gateway, &[(4, 0)]).await?;
            let requests: Vec<u8> = (0..100).flat_map(|n| request(2 * n + 1, END_STREAM, "GET", "/some")).collect();
            raw.send(&requests).await?;
            for _ in 0..100 {
                let head = raw.until("an answer", |frame| frame.kind == HEADERS).await?;
                // 200 in the static table (RFC 7541, appendix A); the others are refused.
                got += u64::from(head.payload.first() == Some(&0x88));
            }
            greedy.push(raw);
        }
        // One fewer for each of the others that is served just then.
        ensure!((most / 2 - 2..=most / 2).contains(&got), "{got} got seats");
        let held = upstream.open_connections() as u64;
        ensure!(held < most, "{held} connections to the application");
        ensure!(in_progress().await? >= got, "round {round}");
        drop(greedy);
        // But for somebody else's, just now.
        let free = async || in_progress().await.is_ok_and(|taken| taken <= 1);
        eventually(SOON, "all seats come back", free).await?;
    }
    served.all().await?;
    let line = gateway.event("request.refused", |line| line["code"] == "limits.requests_per_address").await?;
    ensure!(line["client"] == GREEDY.to_string(), "{line}");
    ensure!(
        gateway.log().iter().all(|line| !line["reason"].to_string().contains("cannot accept")),
        "out of descriptors"
    );
    Ok(())
}
