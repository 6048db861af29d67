//! Applications behind TLS: verified, always. Guide section 6.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::ca::{Authority, Identity};
use palisade_test::palisade::Setup;
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::websocket::Message;
use palisade_test::{Palisade, Upstream, WebSocket, eventually};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use crate::support::SOON;

/// A gateway with the authority `ca.pem`, and these further lines about its upstream.
fn gateway(upstream: &Upstream, ca: &Authority, lines: &str) -> Setup {
    let url = upstream.url();
    let policy = format!("[server]\nmode = \"development\"\n[upstream]\nurl = \"{url}\"\nopenapi = \"off\"\n{lines}\n");
    Palisade::serve().policy(&policy).file("ca.pem", ca.pem())
}

async fn serving(identity: &Identity) -> Result<Upstream> {
    Upstream::answering_tls(identity, |request| Reply::text(request.target())).await
}

/// Asks twice, so that a connection is used again; what it answers and what the log says of it.
async fn asked(gateway: &Palisade) -> Result<(u16, String, String)> {
    // On one connection, so that one thread answers both: each has connections of its own to the upstream.
    let mut client = gateway.http()?.connect().await?;
    let mut answer = client.get("/a?b").send().await?;
    let text = answer.text().await?;
    let mut again = client.get("/a?b").send().await?;
    ensure!(again.status() == answer.status(), "{} and then {}", answer.status(), again.status());
    again.drain().await?;
    if answer.status() == 200 {
        return Ok((200, text, String::new()));
    }
    let id = answer.header("x-request-id").context("an id")?.to_owned();
    let line = gateway.event("request.failed", |line| line["request_id"] == *id).await?;
    ensure!(line["upstream"] == "upstream", "the log says which upstream: {line}");
    let code = line["code"].as_str().unwrap_or_default().to_owned();
    Ok((answer.status(), code, line.to_string()))
}

#[tokio::test]
async fn only_the_right_certificate_is_believed() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    let usage = || ExtendedKeyUsagePurpose::ServerAuth;
    let good = ours.server(&["127.0.0.1", "billing.internal"])?;
    let elsewhere = ours.server(&["other.internal"])?;
    let expired = ours.issue(&["127.0.0.1"], usage(), |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    })?;
    let future = ours.issue(&["127.0.0.1"], usage(), |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2400, 1, 1), date_time_ymd(2401, 1, 1));
    })?;
    let for_clients = ours.issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ClientAuth, |_| {})?;
    let foreign = theirs.server(&["127.0.0.1"])?;
    let pinned = "ca = \"ca.pem\"";
    for (what, identity, lines, reason) in [
        ("pinned", &good, pinned.to_owned(), None),
        ("another name of it", &good, format!("{pinned}\nserver_name = \"billing.internal\""), None),
        ("a name it is for", &elsewhere, format!("{pinned}\nserver_name = \"other.internal\""), None),
        ("a foreign name", &elsewhere, pinned.to_owned(), Some("not valid for name")),
        ("foreign SNI", &good, format!("{pinned}\nserver_name = \"evil.internal\""), Some("not valid for name")),
        ("expired", &expired, pinned.to_owned(), Some("expired")),
        ("not yet valid", &future, pinned.to_owned(), Some("not valid yet")),
        ("another purpose", &for_clients, pinned.to_owned(), Some("certificate")),
        ("a foreign authority", &foreign, pinned.to_owned(), Some("UnknownIssuer")),
    ] {
        let upstream = serving(identity).await.context(what)?;
        let gateway = gateway(&upstream, &ours, &lines).start().await.context(what)?;
        let (status, text, log) = asked(&gateway).await.context(what)?;
        match reason {
            None => {
                assert_eq!((status, text.as_str()), (200, "/a?b"), "{what}");
                assert_eq!(upstream.connections(), 1, "{what}: the connection is used again");
            }
            Some(reason) => {
                assert_eq!((status, text.as_str()), (502, "upstream.tls"), "{what}");
                ensure!(log.contains(reason), "{what}: {log}");
                ensure!(upstream.requests().is_empty(), "{what}: a request was sent");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_a_named_authority_the_systems_decide() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    for (authority, expected) in [(&ours, 200), (&theirs, 502)] {
        let upstream = serving(&authority.server(&["127.0.0.1"])?).await?;
        let setup = gateway(&upstream, &ours, "");
        let bundle = tempfile::NamedTempFile::new()?;
        std::fs::write(bundle.path(), ours.pem())?;
        let gateway = setup.env("SSL_CERT_FILE", &bundle.path().to_string_lossy()).start().await?;
        assert_eq!(asked(&gateway).await?.0, expected);
    }
    Ok(())
}

#[tokio::test]
async fn an_application_that_asks_who_we_are() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    let upstream =
        Upstream::answering_mutual_tls(&ours.server(&["127.0.0.1"])?, &ours, |_| Reply::text("known")).await?;
    let shown = "ca = \"ca.pem\"\nclient_cert = \"client.pem\"\nclient_key = \"client.key\"";
    for (what, lines, client, accepted) in [
        ("none", "ca = \"ca.pem\"", &ours, false),
        ("ours", shown, &ours, true),
        ("somebody else's", shown, &theirs, false),
    ] {
        let identity = client.client("gateway")?;
        let setup = gateway(&upstream, &ours, lines);
        let setup = setup.file("client.pem", identity.certificate).file("client.key", identity.key);
        let gateway = setup.start().await.context(what)?;
        let (status, text, log) = asked(&gateway).await.context(what)?;
        if accepted {
            assert_eq!((status, text.as_str()), (200, "known"), "{what}");
        } else {
            assert_eq!((status, text.as_str()), (502, "upstream.tls"), "{what}: {log}");
            ensure!(log.contains("alert"), "{what}: {log}");
        }
    }
    Ok(())
}

/// What TLS adds must not change what is carried: large bodies both ways, and streams that are not held back.
#[tokio::test]
async fn bodies_pass_through_tls_unchanged() -> Result<()> {
    let authority = Authority::new("ours")?;
    let upstream = Upstream::answering_tls(&authority.server(&["127.0.0.1"])?, |request| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()).into_bytes();
        answer.extend_from_slice(&request.body);
        Reply::raw(answer)
    })
    .await?;
    let gateway = gateway(&upstream, &authority, "ca = \"ca.pem\"\n[limits]\nbody = \"64MiB\"").start().await?;
    for size in [0_usize, 1, 16_384, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
        let mut answer = gateway.https()?.http2().post("/").body(body.clone()).send().await?;
        ensure!(answer.status() == 200 && answer.bytes().await? == body, "{size} bytes");
    }
    Ok(())
}

/// What browsers and clients do with an application behind TLS, uvicorn's own here: streams, uploads, WebSockets.
#[tokio::test]
async fn a_real_application_behind_tls() -> Result<()> {
    let authority = Authority::new("ours")?;
    let app = App::tls("plausible", &authority.server(&["127.0.0.1"])?).await?;
    let policy = format!("[server]\nmode = \"development\"\n[upstream]\nurl = \"{}\"\nca = \"ca.pem\"\n", app.url());
    let gateway = Palisade::serve().policy(&policy).file("ca.pem", authority.pem()).start().await?;
    let made = gateway.https()?.post("/notes").json(&serde_json::json!({ "title": "x" })).send().await?;
    assert_eq!(made.status(), 201);
    let echo = gateway.https()?.get("/echo").send().await?.json().await?;
    assert_eq!(echo["url"], gateway.url("https")? + "/echo");
    let url = format!("{}/ws", gateway.websocket_url("https")?);
    let mut socket = WebSocket::open(&url, Some(&gateway.trust()?), &[]).await?;
    for message in [Message::text("tëxt ☂"), Message::text("0123456789abcdef".repeat(1 << 16))] {
        socket.send(message.clone()).await?;
        assert_eq!(socket.next().await?, Some(message));
    }
    Ok(())
}

/// A rotated certificate: the file changes, and new connections are made with it, without a word in the policy.
#[tokio::test]
async fn a_new_authority_is_read_when_its_file_changes() -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let upstream = serving(&new.server(&["127.0.0.1"])?).await?;
    let gateway = gateway(&upstream, &old, "ca = \"ca.pem\"").start().await?;
    assert_eq!(asked(&gateway).await?.0, 502);
    std::fs::write(gateway.directory().join("ca.pem"), new.pem())?;
    let client = gateway.http()?;
    let trusted = async || client.get("/").send().await.is_ok_and(|answer| answer.status() == 200);
    eventually(SOON, "the new authority is trusted", trusted).await?;
    // A broken file changes nothing.
    let position = gateway.output().since(0).len();
    std::fs::write(gateway.directory().join("ca.pem"), "nothing")?;
    gateway.event_since(position, "policy.rejected", |line| line.to_string().contains("upstream.ca")).await.ok();
    assert_eq!(gateway.http()?.get("/").send().await?.status(), 200);
    Ok(())
}

/// Nobody waits longer than `connect_timeout` for one that never finishes its handshake.
#[tokio::test]
async fn a_handshake_has_a_deadline() -> Result<()> {
    use palisade_test::upstream::Step;
    let silent = Upstream::script([Step::Hold]).await?;
    let url = silent.url().replace("http://", "https://");
    let policy = format!(
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"{url}\"\nca = \"ca.pem\"\nconnect_timeout = \"300ms\"\n"
    );
    let gateway = Palisade::serve().policy(&policy).file("ca.pem", Authority::new("a")?.pem()).start().await?;
    let answer = tokio::time::timeout(Duration::from_secs(20), gateway.http()?.get("/").send()).await??;
    assert_eq!(answer.status(), 502);
    Ok(())
}
