//! Who may say, below HTTP, where the client is. Threat 26.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use palisade_test::frames::{END_HEADERS, END_STREAM, Ended, Frames, fields, frame, kind};
use palisade_test::tls::{self, Connection};
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Upstream, Wire, eventually};
use tokio::io::AsyncWriteExt as _;

use crate::support::SOON;

/// The one that may.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// One that may not.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\r\n";
const START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.1\r\n\
    X-Request-Id: forged-forged-forged\r\nX-Forwarded-Proto: https\r\n\r\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [START, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

fn tcp4(facts: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[203, 0, 113, 7, 10, 0, 0, 1, 0xd4, 0x31, 1, 0xbb], facts].concat())
}

async fn gateway(upstream: &Upstream, server: &str, more: &str) -> Result<Palisade> {
    let policy = format!(
        "[server]\nmode = \"development\"\ntrusted_proxies = [\"127.0.0.9\", \"203.0.113.200\"]\nprobes = \"127.0.0.1:0\"\n{server}\n\n\
         [upstream]\nurl = \"{}\"\n\n{more}",
        upstream.url()
    );
    Palisade::serve().policy(&policy).start().await
}

const ON: &str = "proxy_protocol = true";

/// A connection that begins with these bytes, in pieces of this size.
async fn begun(
    gateway: &Palisade,
    secure: bool,
    from: IpAddr,
    header: &[u8],
    pieces: usize,
    alpn: &[u8],
) -> Result<Connection> {
    let address = gateway.address(if secure { "https" } else { "http" })?;
    let mut tcp = tls::tcp(Some(from), address).await?;
    for piece in header.chunks(pieces) {
        tcp.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    match secure {
        true => gateway.trust()?.over(tcp, "127.0.0.1", &[alpn]).await,
        false => Ok(Connection::Plain(tcp)),
    }
}

async fn wire(gateway: &Palisade, secure: bool, from: IpAddr, header: &[u8], pieces: usize) -> Result<Wire> {
    Ok(Wire::over(begun(gateway, secure, from, header, pieces, b"http/1.1").await?))
}

/// How many connections were closed for their header. Probes need none, not even the balancer's.
async fn counted(gateway: &Palisade) -> Result<u64> {
    let probes = Client::http(&gateway.url("probes")?)?.from_address(BALANCER);
    let mut scrape = probes.get("/metrics").send().await?;
    ensure!(scrape.status() == 200, "metrics");
    let text = scrape.text().await?;
    let line = text.lines().find(|line| line.contains("code=\"client_ip.proxy_protocol\""));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64)
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let gateway = gateway(&upstream, ON, "").await?;
    let tls = tcp4(b"\x20\0\x05\x01\0\0\0\0");
    let cases: [(&[u8], &str, &str, bool); 8] = [
        (V1, "203.0.113.7", "http", false),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7", "http", false),
        (b"PROXY UNKNOWN\r\n", "127.0.0.9", "http", false),
        (&tcp4(b""), "203.0.113.7", "http", false),
        (&tls, "203.0.113.7", "https", false),
        (&v2(0x20, 0, b""), "127.0.0.9", "http", false),
        // One that is a trusted proxy itself speaks for its clients.
        (b"PROXY TCP4 203.0.113.200 10.0.0.1 1 2\r\n", "198.51.100.1", "https", true),
        (b"PROXY TCP6 ::ffff:203.0.113.200 ::1 1 2\r\n", "198.51.100.1", "https", true),
    ];
    for (header, client, proto, believed) in cases {
        for (secure, pieces) in [(false, 1000), (true, 1000), (false, 1), (true, 7)] {
            let case = format!("{}, in TLS: {secure}, by {pieces}", header.escape_ascii());
            upstream.forget();
            let mut wire = wire(&gateway, secure, BALANCER, header, pieces).await?;
            // The second request of a connection is as the first.
            for _ in 0..2 {
                let answer = wire.ask(GET).await.with_context(|| case.clone())?;
                let id = answer.header("x-request-id").unwrap_or_default().to_owned();
                ensure!((answer.status(), id == "forged-forged-forged") == (200, believed), "{case}: {answer:?}");
                let requests = upstream.requests();
                let seen = requests.last().context("nothing arrived")?;
                ensure!(seen.all("x-forwarded-for").eq([client]), "{case}: {seen:?}");
                let proto = if secure { "https" } else { proto };
                ensure!(seen.all("x-forwarded-proto").eq([proto]), "{case}: {seen:?}");
                let line = gateway.access(|line| line["client"] == client).await.with_context(|| case.clone())?;
                ensure!(line["peer"] == "127.0.0.9", "{case}: {line}");
            }
        }
    }
    upstream.forget();
    let mut frames = Frames::over(begun(&gateway, true, BALANCER, V1, 1000, b"h2").await?).await?;
    let head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
    frames.send(frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &fields(&head))).await?;
    ensure!(matches!(frames.end_of(1).await?, Ended::Answer { status: 200, .. }));
    ensure!(upstream.requests()[0].all("x-forwarded-for").eq(["203.0.113.7"]));
    ensure!(counted(&gateway).await? == 0);
    Ok(())
}

#[tokio::test]
async fn what_a_trusted_proxy_must_not_send() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let gateway = gateway(&upstream, ON, "[limits]\nhead_time = \"2s\"\n").await?;
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00".to_vec();
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        hello,
        b"PROXY TCP4 203.0.113.7 10.0.0.1 54321\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 443 \r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 54321 +443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7\0 10.0.0.1 54321 443\r\n".to_vec(),
        b"PROXY TCP4 localhost 10.0.0.1 54321 443\r\n".to_vec(),
        b"PROXY TCP4 ::1 ::1 54321 443\r\n".to_vec(),
        b"PROXY TCP6 203.0.113.7 10.0.0.1 54321 443\r\n".to_vec(),
        b"PROXY UDP4 203.0.113.7 10.0.0.1 54321 443\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat(),
        [b"PROXY TCP4 ", &[b' '; 200][..], b"\r\n"].concat(),
        b"proxy TCP4 203.0.113.7 10.0.0.1 54321 443\r\n".to_vec(),
        v2(0x22, 0x11, &[1; 12]),
        v2(0x11, 0x11, &[1; 12]),
        v2(0x21, 0x12, &[1; 12]),
        v2(0x21, 0x11, &[1; 11]),
        v2(0x21, 0x21, &[1; 12]),
        v2(0x21, 0x11, &[0; 12]),
        v2(0x20, 0x00, &[0; 513]),
        v2(0x21, 0x11, &[1; 65000]),
        tcp4(b"\x01\xff\xff"),
        tcp4(b"\x03\0\x04\x01\x02\x03\x04"),
    ];
    let mut expected = 0;
    for header in cases {
        for secure in [false, true] {
            // As it would go on if the header were in order; where it is missing, the head of a request is what comes.
            let bytes = [&header[..], GET].concat();
            let address = gateway.address(if secure { "https" } else { "http" })?;
            let mut wire = Wire::over(tls::plain_from(Some(BALANCER), address).await?);
            // It may be closed before all of it is written.
            let _ = wire.send(&bytes).await;
            wire.closed(SOON).await.with_context(|| header.escape_ascii().to_string())?;
            expected += 1;
        }
    }
    // What does not go on is given up in time, and one header is all there may be.
    for header in [&V1[..20], START, &tcp4(b"")[..20], b"PROX"] {
        let mut wire = wire(&gateway, false, BALANCER, header, 1000).await?;
        wire.closed(SOON).await.with_context(|| header.escape_ascii().to_string())?;
        expected += 1;
    }
    let mut silent = wire(&gateway, false, BALANCER, b"", 1000).await?;
    silent.closed(SOON).await?;
    expected += 1;
    let mut twice = wire(&gateway, false, BALANCER, V1, 1000).await?;
    let answer = twice.ask([V1, GET].concat()).await?;
    ensure!(answer.status() == 400, "{answer:?}");
    ensure!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    let line = gateway.event("connection.failed", |line| line["reason"] == "client_ip.proxy_protocol").await?;
    ensure!(line["peer"] == "127.0.0.9" && line["why"].as_str().is_some_and(|why| why.contains("PROXY")), "{line}");
    ensure!(counted(&gateway).await? == expected, "{} of {expected}", counted(&gateway).await?);
    // Who only looks whether the port is open is nobody's concern.
    drop(wire(&gateway, false, BALANCER, b"", 1000).await?);
    let mut next = wire(&gateway, false, BALANCER, V1, 1000).await?;
    ensure!(next.ask(GET).await?.status() == 200 && counted(&gateway).await? == expected);
    Ok(())
}

#[tokio::test]
async fn others_are_refused_the_header_and_served_without() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    for (server, counts) in [(ON, true), ("", false)] {
        let gateway = gateway(&upstream, server, "[limits]\nhead_time = \"2s\"\n").await?;
        upstream.forget();
        let mut expected = 0;
        // Where it is off, the proxy is as anybody.
        let peers = if counts { vec![OTHER] } else { vec![OTHER, BALANCER] };
        for header in [V1, b"PROXY UNKNOWN\r\n", &tcp4(b""), &v2(0x20, 0, b"")] {
            for peer in &peers {
                for (secure, pieces) in [(false, 1000), (true, 1000), (false, 1), (true, 1)] {
                    let address = gateway.address(if secure { "https" } else { "http" })?;
                    let mut wire = Wire::over(tls::plain_from(Some(*peer), address).await?);
                    for piece in header.chunks(pieces).chain([GET]) {
                        let _ = wire.send(piece).await;
                        tokio::task::yield_now().await;
                    }
                    let rest = wire.until_closed().await?;
                    if counts && pieces > 1 {
                        expected += 1;
                        ensure!(rest.is_empty(), "{}", rest.escape_ascii());
                    } else if !secure {
                        ensure!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{}", rest.escape_ascii());
                    }
                }
            }
        }
        ensure!(upstream.requests().is_empty(), "{:?}", upstream.requests());
        // In pieces it may be recognised or not; it is refused in any case.
        ensure!(counted(&gateway).await? >= expected);
        for secure in [false, true] {
            let mut wire = wire(&gateway, secure, OTHER, b"", 1000).await?;
            ensure!(wire.ask(GET).await?.status() == 200);
            ensure!(upstream.requests()[0].all("x-forwarded-for").eq(["127.0.0.3"]));
            upstream.forget();
        }
    }
    Ok(())
}

#[tokio::test]
async fn connections_count_for_the_client_that_is_named() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let gateway = gateway(&upstream, ON, "[limits]\nconnections_per_address = 2\n").await?;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = wire(&gateway, false, BALANCER, V1, 1000).await?;
        ensure!(wire.ask(GET).await?.status() == 200);
        held.push(wire);
    }
    let mut third = wire(&gateway, false, BALANCER, V1, 1000).await?;
    let answer = third.answer().await?;
    ensure!(
        (answer.status(), &answer.json()?["code"]) == (503, &"limits.connections_per_address".into()),
        "{answer:?}"
    );
    for _ in 0..4 {
        let mut other = wire(&gateway, false, BALANCER, b"PROXY TCP4 203.0.113.8 10.0.0.1 1 2\r\n", 1000).await?;
        ensure!(other.ask(GET).await?.status() == 200);
    }
    drop(held);
    eventually(SOON, "there is room again", async || {
        let Ok(mut wire) = wire(&gateway, false, BALANCER, V1, 1000).await else { return false };
        wire.ask(GET).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await
}

/// The listener that only redirects is behind the same balancer.
#[tokio::test]
async fn the_redirect_takes_it_too() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let policy = format!(
        "[server]\nmode = \"production\"\nplaintext = false\nhosts = [\"localhost\"]\nhttps = \"127.0.0.1:8443\"\n\
         http = \"127.0.0.1:8080\"\nprobes = \"127.0.0.1:0\"\nadmin = \"off\"\ntrusted_proxies = [\"127.0.0.9\"]\nproxy_protocol = true\n\
         [tls]\nself_signed = true\n[upstream]\nurl = \"{}\"\n[[route]]\npath = \"/*\"\naddress = [\"203.0.113.7\"]\n",
        upstream.url()
    );
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let get = b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n\r\n";
    let ended = tcp4(b"\x20\0\x05\x01\0\0\0\0");
    let tls_of_another =
        v2(0x21, 0x11, &[&[203, 0, 113, 8, 10, 0, 0, 1, 0, 1, 0, 2], &b"\x20\0\x05\x01\0\0\0\0"[..]].concat());
    for (header, status) in [(V1, 308), (&tcp4(b""), 308), (&ended, 200), (&tls_of_another, 403)] {
        let mut wire = wire(&gateway, false, BALANCER, header, 1000).await?;
        let answer = wire.ask(get).await.with_context(|| header.escape_ascii().to_string())?;
        ensure!(answer.status() == status, "{}: {answer:?}", header.escape_ascii());
        let to = answer.header("location").unwrap_or_default();
        ensure!(to.starts_with("https://localhost:") == (status == 308), "{to}");
    }
    // Closed without an answer: the balancer without a header, and somebody else with one.
    let closed = [(BALANCER, get.to_vec()), (OTHER, [V1, get].concat()), (OTHER, [&ended[..], get].concat())];
    for (from, bytes) in closed {
        let mut wire = wire(&gateway, false, from, b"", 1000).await?;
        let _ = wire.send(&bytes).await;
        let rest = wire.until_closed().await?;
        ensure!(rest.is_empty(), "{from}: {}", rest.escape_ascii());
    }
    ensure!(counted(&gateway).await? == 3, "{}", counted(&gateway).await?);
    ensure!(upstream.requests().len() == 1, "{:?}", upstream.requests());
    let mut without = wire(&gateway, false, OTHER, b"", 1000).await?;
    ensure!(without.ask(get).await?.status() == 308);
    Ok(())
}

#[tokio::test]
async fn it_needs_somebody_to_come_from() -> Result<()> {
    let policy =
        "[server]\nmode = \"development\"\nproxy_protocol = true\n\n[upstream]\nurl = \"http://127.0.0.1:9\"\n";
    let ran = Palisade::serve().policy(policy).refused().await?;
    let said = format!("{ran:?}");
    ensure!(said.contains("nobody may send the PROXY protocol") && said.contains("trusted_proxies"), "{said}");
    Ok(())
}
