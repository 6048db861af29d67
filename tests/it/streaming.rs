//! What is sent piece by piece arrives piece by piece, who reads slowly holds the sender back, and who leaves is noticed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::python::App;
use palisade_test::upstream::Step;
use palisade_test::{Body, Upstream, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{SOON, piece, starter, timed, ways};

/// The app sends the next one only after the client has got the one before: whoever holds a piece back waits for ever.
#[tokio::test]
async fn events_arrive_as_they_are_sent() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let target = format!("/events?count=5&gate=events-{way}");
        let mut events = client.get(&target).header("accept", "text/event-stream").send().await?;
        assert_eq!(events.header("content-type"), Some("text/event-stream; charset=utf-8"), "{way}");
        assert_eq!(events.header("content-length"), None, "{way}");
        for number in 0..5 {
            let event = piece(&mut events).await.with_context(|| format!("{way}: event {number}"))?;
            let expected = format!("id: {number}\nevent: tick\n");
            ensure!(event.as_ref().is_some_and(|event| event.starts_with(&expected)), "{way}: {event:?}");
            assert_eq!(client.post(&format!("/gate/events-{way}")).send().await?.status(), 202, "{way}");
        }
        assert_eq!(piece(&mut events).await?, None, "{way}");
        // A client that comes back says where it was.
        let mut rest = client.get("/events?count=5&interval=0").header("last-event-id", "3").send().await?;
        ensure!(rest.text().await?.starts_with("id: 4\n"), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn streams_arrive_as_they_are_sent() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut stream = client.get(&format!("/stream?chunks=4&size=16&gate=stream-{way}")).send().await?;
        for number in 0..4 {
            let came = piece(&mut stream).await.with_context(|| format!("{way}: piece {number}"))?;
            assert_eq!(came.as_deref(), Some(format!("{number}:..............").as_str()), "{way}");
            assert_eq!(client.post(&format!("/gate/stream-{way}")).send().await?.status(), 202, "{way}");
        }
        assert_eq!(piece(&mut stream).await?, None, "{way}");
    }
    Ok(())
}

/// Upwards as well: the app sees the first piece of a body while the client still has the second.
#[tokio::test]
async fn uploads_arrive_as_they_are_sent() -> Result<()> {
    let upstream = Upstream::script([
        Step::ReadHead,
        Step::Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n".into()),
        Step::ReadBody,
        Step::Send("3\r\nall\r\n0\r\n\r\n".into()),
    ])
    .await?;
    let gateway = starter(&upstream.url()).await?;
    for (number, (way, client)) in ways(&gateway)?.into_iter().enumerate() {
        let (feed, body) = Body::fed();
        let request = client.post("/").header("content-type", "application/octet-stream").body(body);
        feed.send("first").await?;
        // The answer begins before the request has ended: full duplex.
        let mut answer = request.send().await?;
        let piece = answer.chunk().await?.map(|chunk| chunk.data);
        assert_eq!(piece.as_deref(), Some(&b"got"[..]), "{way}");
        let arrived = async || upstream.bytes().get(number).is_some_and(|bytes| bytes.ends_with(b"5\r\nfirst\r\n"));
        eventually(SOON, "the first piece is there without the second", arrived).await?;
        feed.send("second").await?;
        drop(feed);
        assert_eq!(answer.text().await?, "all", "{way}");
        assert_eq!(upstream.requests().get(number).map(|request| request.body.clone()), Some(b"firstsecond".to_vec()));
    }
    Ok(())
}

#[tokio::test]
async fn long_polls_wait_and_are_woken() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let timed_out = client.get(&format!("/poll/nobody-{way}?timeout=3")).send().await?;
        assert_eq!(timed_out.status(), 204, "{way}");
        ensure!(timed_out.head_after() >= Duration::from_secs(3), "{way}");

        let waiting = tokio::spawn({
            let (client, target) = (client.clone(), format!("/poll/{way}"));
            async move { client.get(&target).send().await?.json().await }
        });
        let wake = async || waiting.is_finished() || client.post(&format!("/poll/{way}")).send().await.is_err();
        eventually(SOON, "the poll is answered", wake).await?;
        assert_eq!(waiting.await??["name"], way);
    }
    Ok(())
}

/// An upstream that counts what the other side has taken of an answer of `length` bytes.
async fn counting(length: u64) -> Result<(SocketAddr, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, taken) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
    let counter = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let taken = counter.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await? == 0 {
                        return Ok(());
                    }
                }
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
                let block = vec![b'x'; 64 << 10];
                let mut left = length;
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                    let written = stream.write(&block[..part]).await? as u64;
                    left -= written;
                    taken.fetch_add(written, Ordering::SeqCst);
                }
                stream.shutdown().await
            });
        }
    });
    Ok((address, taken))
}

/// Waits until a counter has moved and then stood still for half a second.
async fn stands_still(counter: &AtomicU64) -> Result<u64> {
    let (mut last, mut since) = (0, Instant::now());
    eventually(Duration::from_secs(30), "the sender is held back", async || {
        let now = counter.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now > 0 && since.elapsed() > Duration::from_millis(500)).then_some(now)
    })
    .await
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() -> Result<()> {
    const LENGTH: u64 = 128 << 20;
    /// The kernel's buffers of two loopback connections may hold some 20 MB; the gateway adds less than one.
    const HELD: u64 = 32 << 20;
    let _timed = timed().await;
    for way in [0, 1, 2] {
        let (address, taken) = counting(LENGTH).await?;
        let gateway = starter(&format!("http://{address}")).await?;
        let (way, client) = &ways(&gateway)?[way];
        let mut answer = client.get("/").send().await?;
        let held = stands_still(&taken).await?;
        ensure!(held < HELD, "{way}: {held} bytes were taken off the app that nobody read");
        assert_eq!(answer.drain().await?, LENGTH, "{way}");
        let peak = gateway.process().memory()?.peak;
        ensure!(peak < 64 << 20, "{way}: {peak} bytes");
    }
    Ok(())
}

#[tokio::test]
async fn many_slow_readers_cost_little_memory() -> Result<()> {
    let _timed = timed().await;
    let (address, taken) = counting(64 << 20).await?;
    let gateway = starter(&format!("http://{address}")).await?;
    let before = gateway.process().memory()?.resident;
    let mut answers = Vec::new();
    for (_, client) in ways(&gateway)? {
        for _ in 0..16 {
            answers.push(client.get("/").send().await?);
        }
    }
    stands_still(&taken).await?;
    let memory = gateway.process().memory()?;
    let each = memory.peak.saturating_sub(before) / answers.len() as u64;
    println!("{} slow readers: {} KiB each, peak {} MiB", answers.len(), each >> 10, memory.peak >> 20);
    ensure!(each < 1 << 20, "{each} bytes for a client that does not read");
    Ok(())
}

/// A client that leaves takes its connection to the app with it, in whatever state the exchange is.
#[tokio::test]
async fn a_client_that_leaves_is_noticed() -> Result<()> {
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let started = Upstream::script([Step::ReadHead, Step::Send(half.into()), Step::Hold]).await?;
    let silent = Upstream::script([Step::ReadHead, Step::Hold]).await?;
    for (upstream, answers) in [(&started, true), (&silent, false)] {
        let gateway = starter(&upstream.url()).await?;
        for (way, client) in ways(&gateway)? {
            // Over HTTP/2 the connection stays, and only the stream is reset.
            let mut connection = client.connect().await?;
            let _kept = connection.share().ok();
            let before = upstream.connections();
            let target = format!("/{way}-{answers}");
            if answers {
                let mut answer = connection.get(&target).send().await?;
                assert_eq!(answer.chunk().await?.map(|chunk| chunk.data).as_deref(), Some(&b"half"[..]), "{way}");
                drop(answer);
            } else {
                let asked = async || {
                    upstream.connections() > before && upstream.requests().iter().any(|r| r.target() == target)
                };
                tokio::select! {
                    answered = connection.get(&target).send() => anyhow::bail!("an answer from nowhere: {answered:?}"),
                    asked = eventually(SOON, "the app was asked", asked) => asked?,
                }
            }
            drop(connection);
            let what = format!("{way}: the connection to the app is closed (answer begun: {answers})");
            eventually(SOON, &what, async || upstream.open_connections() == 0).await?;
            let line = gateway.access(|line| line["path"] == target).await?;
            assert_eq!(line["outcome"], "client_gone", "{way} {line}");
            if answers {
                assert_eq!((&line["status"], &line["bytes_out"]), (&200.into(), &4.into()), "{way} {line}");
            }
        }
    }
    Ok(())
}

/// And one that leaves in the middle of its own body.
#[tokio::test]
async fn a_client_that_leaves_while_it_sends() -> Result<()> {
    let upstream = Upstream::script([Step::ReadHead, Step::Hold]).await?;
    let gateway = starter(&upstream.url()).await?;
    for (way, client) in ways(&gateway)? {
        let (feed, body) = Body::fed();
        let target = format!("/{way}");
        let before = upstream.connections();
        let mut connection = client.connect().await?;
        let request = connection.request(Method::PUT, &target).header("content-type", "image/png").body(body).send();
        feed.send("the first half").await?;
        let asked =
            async || upstream.connections() > before && upstream.requests().iter().any(|r| r.target() == target);
        tokio::select! {
            answered = request => anyhow::bail!("an answer from nowhere: {answered:?}"),
            asked = eventually(SOON, "the app was asked", asked) => asked?,
        }
        drop(connection);
        eventually(SOON, &format!("{way}: the app's connection is closed"), async || upstream.open_connections() == 0)
            .await?;
        let line = gateway.access(|line| line["path"] == target).await?;
        assert_eq!(line["outcome"], "client_gone", "{way} {line}");
        drop(feed);
    }
    Ok(())
}
