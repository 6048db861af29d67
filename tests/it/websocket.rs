//! WebSockets through the gateway, with and without TLS.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use palisade_test::python::App;
use palisade_test::upstream::{Reply, Step};
use palisade_test::websocket::{Message, refusal};
use palisade_test::{Palisade, Trust, Upstream, WebSocket, Wire, eventually};
use serde_json::json;

use crate::support::{SOON, starter, wires, written};

/// The two ways in: URL, and what to trust.
fn ways(gateway: &Palisade) -> Result<[(String, Option<Trust>); 2]> {
    Ok([(gateway.websocket_url("http")?, None), (gateway.websocket_url("https")?, Some(gateway.trust()?))])
}

#[tokio::test]
async fn messages_of_every_kind() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (url, trust) in ways(&gateway)? {
        let mut socket = WebSocket::open(&format!("{url}/ws"), trust.as_ref(), &[]).await?;
        let large: String = "0123456789abcdef".repeat(1 << 16);
        for message in [
            Message::text("tëxt ☂"),
            Message::text(""),
            Message::binary(vec![0, 255, 128]),
            Message::text(large.clone()),
            Message::binary(large.into_bytes()),
        ] {
            socket.send(message.clone()).await?;
            assert_eq!(socket.next().await?, Some(message));
        }
        socket.send(Message::Ping("are you there".into())).await?;
        assert_eq!(socket.next().await?, Some(Message::Pong("are you there".into())));
        // Many small ones, sent ahead.
        for number in 0..500 {
            socket.text(&number.to_string()).await?;
        }
        for number in 0..500 {
            assert_eq!(socket.next().await?, Some(Message::text(number.to_string())));
        }
        socket.text("headers").await?;
        let Some(Message::Text(seen)) = socket.next().await? else { bail!("no text") };
        let seen: serde_json::Value = serde_json::from_str(&seen)?;
        let scheme = if trust.is_some() { "wss" } else { "ws" };
        assert_eq!((&seen["client"], &seen["scheme"]), (&json!("127.0.0.1"), &json!(scheme)));
        ensure!(seen["url"].as_str().is_some_and(|seen| seen == format!("{url}/ws")), "{seen}");
    }
    Ok(())
}

#[tokio::test]
async fn how_it_closes_is_told_both_ways() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (number, (url, trust)) in ways(&gateway)?.into_iter().enumerate() {
        let mut socket = WebSocket::open(&format!("{url}/ws"), trust.as_ref(), &[]).await?;
        socket.text("close 4001 enough of this").await?;
        assert_eq!(socket.closed().await?, Some((4001, "enough of this".to_owned())));

        let mut socket = WebSocket::open(&format!("{url}/ws/closed/{number}"), trust.as_ref(), &[]).await?;
        socket.close(4002, "my turn").await?;
        let client = gateway.https()?;
        let seen = client.get(&format!("/closed/{number}")).send().await?.json().await?;
        assert_eq!(seen, json!({ "code": 4002, "reason": "my turn" }));

        // A client that vanishes: the app learns it, with the code for that.
        let gone = format!("gone-{number}");
        let mut socket = WebSocket::open(&format!("{url}/ws/closed/{gone}"), trust.as_ref(), &[]).await?;
        socket.text("hello").await?;
        drop(socket);
        let closed = async || {
            let answer = client.get(&format!("/closed/{gone}")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        eventually(SOON, "the app learns that the client is gone", closed).await?;
    }
    Ok(())
}

#[tokio::test]
async fn handshakes_are_the_apps_to_answer() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (url, trust) in ways(&gateway)? {
        let headers = [("sec-websocket-protocol", "chat, superchat"), ("origin", "https://elsewhere.example")];
        let socket = WebSocket::open(&format!("{url}/ws"), trust.as_ref(), &headers).await?;
        let chosen = socket.answer().headers().get("sec-websocket-protocol");
        assert_eq!(chosen.map(|chosen| chosen.as_bytes()), Some(&b"chat"[..]));
        ensure!(socket.answer().headers().contains_key("x-request-id"), "{:?}", socket.answer());

        for (target, status) in [("/ws/refused", 403), ("/ws/nowhere", 403), ("/notes", 403)] {
            let Err(refused) = WebSocket::open(&format!("{url}{target}"), trust.as_ref(), &[]).await else {
                bail!("{target} was accepted");
            };
            let answer = refusal(&refused);
            assert_eq!(answer.map(|answer| answer.status().as_u16()), Some(status), "{target}: {refused:#}");
        }
    }
    Ok(())
}

/// A text frame with the mask that clients must use (here: none that changes anything).
fn frame(first: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(text.len()).unwrap_or(125), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn exactly(wire: &mut Wire, expected: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let some = wire.some().await?;
        ensure!(!some.is_empty(), "closed after {got:?}");
        got.extend(some);
    }
    assert_eq!(got, expected);
    Ok(())
}

#[tokio::test]
async fn fragments_and_frames_in_odd_pieces() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        let switched = wire.ask(HANDSHAKE).await?;
        assert_eq!((switched.status(), switched.header("upgrade")), (101, Some("websocket")), "{way}");
        assert_eq!(switched.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{way}");
        // A message in three fragments with a ping between them, byte by byte.
        let mut bytes = frame(0x01, "frag");
        bytes.extend(frame(0x00, "men"));
        bytes.extend(frame(0x89, "!"));
        bytes.extend(frame(0x80, "ted"));
        for byte in bytes {
            wire.send([byte]).await?;
        }
        exactly(&mut wire, b"\x8a\x01!\x81\x0afragmented").await?;
    }
    // The first frame right behind the handshake, before its answer: nothing is lost.
    for (way, mut wire) in wires(&gateway).await? {
        let mut ahead = HANDSHAKE.as_bytes().to_vec();
        ahead.extend(frame(0x81, "early"));
        assert_eq!(wire.ask(ahead).await?.status(), 101, "{way}");
        exactly(&mut wire, b"\x81\x05early").await?;
    }
    Ok(())
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn abrupt_ends_end_the_other_side() -> Result<()> {
    // What came in one piece with the 101 is not lost either.
    let spoken = format!("{SWITCHED}\u{1}\u{2}");
    for end in [Step::Close, Step::Reset] {
        let upstream =
            Upstream::script([Step::ReadHead, Step::Send(spoken.clone().into()), Step::ReadBytes(3), end]).await?;
        let gateway = starter(&upstream.url()).await?;
        for (way, mut wire) in wires(&gateway).await? {
            assert_eq!(wire.ask(HANDSHAKE).await?.status(), 101, "{way}");
            exactly(&mut wire, &[1, 2]).await?;
            wire.send("end").await?;
            wire.closed(SOON).await?;
        }
    }
    let upstream = Upstream::script([Step::ReadHead, Step::Send(SWITCHED.into()), Step::Hold]).await?;
    let gateway = starter(&upstream.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        assert_eq!(wire.ask(HANDSHAKE).await?.status(), 101, "{way}");
        wire.connection().tcp().set_zero_linger()?;
        drop(wire);
        eventually(SOON, "the app's side is closed", async || upstream.open_connections() == 0).await?;
    }
    Ok(())
}

/// An upstream that opens a tunnel at `/ws`, and takes its time at `/slow`.
async fn tunnels_and_slow_answers() -> Result<Upstream> {
    Upstream::answering(|request| match request.target() {
        "/ws" => Reply::steps([Step::Send(SWITCHED.into()), Step::Hold]),
        "/slow" => Reply::steps([
            Step::Pause(Duration::from_secs(2)),
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".into()),
        ]),
        _ => Reply::text("ok"),
    })
    .await
}

/// A tunnel is a connection like any other to those who count.
#[tokio::test]
async fn tunnels_count_as_connections() -> Result<()> {
    let upstream = tunnels_and_slow_answers().await?;
    let gateway = written(&upstream.url(), "[limits]\nconnections_per_address = 2\n").await?;
    let mut open = Vec::new();
    for (way, mut wire) in wires(&gateway).await? {
        assert_eq!(wire.ask(HANDSHAKE).await?.status(), 101, "{way}");
        open.push(wire);
    }
    let mut refused = gateway.http()?.get("/").send().await?;
    assert_eq!((refused.status(), &refused.json().await?["code"]), (503, &json!("limits.connections_per_address")));
    drop(open);
    let free = async || gateway.http()?.get("/").send().await.map(|answer| (answer.status() == 200).then_some(()));
    eventually(SOON, "there is room again", async || free().await.ok().flatten()).await?;
    Ok(())
}

/// An application that has closed, and a client that neither reads it nor goes: the place is not theirs for ever.
#[tokio::test]
async fn a_close_that_nobody_answers_keeps_no_place() -> Result<()> {
    let upstream = Upstream::answering(|request| match request.target() {
        "/ws" => Reply::steps([Step::Send(SWITCHED.into()), Step::Close]),
        _ => Reply::text("ok"),
    })
    .await?;
    let gateway = written(&upstream.url(), "[limits]\nconnections_per_address = 1\n").await?;
    let mut wire = gateway.wire_http().await?;
    assert_eq!(wire.ask(HANDSHAKE).await?.status(), 101);
    let free = async || gateway.http().ok()?.get("/").send().await.ok().filter(|answer| answer.status() == 200);
    eventually(3 * SOON, "there is room again", free).await?;
    drop(wire);
    Ok(())
}

/// Who is answered while the gateway ends is answered whole, however many tunnels are open.
#[tokio::test]
async fn tunnels_do_not_stand_for_requests_in_a_drain() -> Result<()> {
    let upstream = tunnels_and_slow_answers().await?;
    let gateway = written(&upstream.url(), "").await?;
    let mut open = Vec::new();
    for (way, mut wire) in wires(&gateway).await? {
        assert_eq!(wire.ask(HANDSHAKE).await?.status(), 101, "{way}");
        open.push(wire);
    }
    let client = gateway.https()?;
    let slow = async { client.get("/slow").send().await?.text().await };
    let end = async {
        let asked = async || upstream.requests().iter().any(|request| request.target() == "/slow");
        eventually(SOON, "the slow request is there", asked).await?;
        gateway.terminate().await
    };
    let (slow, ended) = tokio::join!(slow, end);
    assert_eq!(slow?, "slow");
    ensure!(ended?.success());
    Ok(())
}

/// A tunnel opens only after the app's own 101: everything else is an ordinary answer on an ordinary connection.
#[tokio::test]
async fn nothing_is_tunnelled_without_the_apps_consent() -> Result<()> {
    let upstream = Upstream::answering(|request| Reply::text(request.target())).await?;
    let gateway = starter(&upstream.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        let answer = wire.ask(HANDSHAKE).await?;
        assert_eq!((answer.status(), answer.text()), (200, "/ws".to_owned()), "{way}");
        assert_eq!(answer.header("upgrade"), None, "{way}");
        // What follows is a request of its own, and judged as one.
        let hidden = wire.ask("GET /.git/config HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        assert_eq!(hidden.json()?["code"], "integrity.hidden_file", "{way}");
    }
    assert_eq!(upstream.requests().len(), 2);
    // 101 to somebody who did not ask.
    let upstream = Upstream::script([Step::ReadHead, Step::Send(SWITCHED.into()), Step::Hold]).await?;
    let gateway = starter(&upstream.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?.status(), 502, "{way}");
    }
    Ok(())
}
