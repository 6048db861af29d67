//! Answers of a hostile upstream: 502, or an answer that is seen to be broken; the next client gets its own. Threat 23.

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::{Reply, Step};
use palisade_test::{Palisade, Upstream};

use crate::support::{ways, wires, written_policy};

/// What an upstream says, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// 502, with this code.
    Refused(&'static str),
    /// Head and a part of the body; then the end is seen to be missing.
    Broken,
    /// A whole answer with this status and text, none of what stood behind it.
    Whole(u16, &'static str),
}

fn table() -> Vec<(String, Want)> {
    const BAD: Want = Want::Refused("upstream.bad_answer");
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let mut table: Vec<(String, Want)> = [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length: 2\r\nContent-Length: 8\r\n\r\nok",
        "Content-Length: 2, 2\r\n\r\nok",
        "Content-Length: +2\r\n\r\nok",
        "Content-Length: 02\r\n\r\nok",
        "Content-Length: 0x2\r\n\r\nok",
        "Content-Length: 2 \u{b}\r\n\r\nok",
        "Content-Length:\r\n\r\nok",
        "Content-Length : 2\r\n\r\nok",
        "Content-Length: 99999999999999999999\r\n\r\nok",
        "Transfer-Encoding: gzip\r\n\r\nok",
        "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        "X: a\rSet-Cookie: b=1\r\nContent-Length: 2\r\n\r\nok",
        "X: a\nContent-Length: 2\r\n\r\nok",
        "X: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "X\0: a\r\nContent-Length: 2\r\n\r\nok",
        "X Y: a\r\nContent-Length: 2\r\n\r\nok",
        ": a\r\nContent-Length: 2\r\n\r\nok",
        "nothing\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length: 2\r\n\nok",
    ]
    .into_iter()
    .map(|rest| (ok(rest), BAD))
    .collect();
    for head in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "<html>no status line</html>",
        "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "\u{16}\u{3}\u{1}",
        // A tunnel that nobody asked for.
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nok",
    ] {
        table.push((head.to_owned(), BAD));
    }
    // Floods: of interim answers, of fields, of bytes in a head.
    table.push((
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(5_000) + &ok("Content-Length: 2\r\n\r\nok"),
        BAD,
    ));
    table.push(("HTTP/1.1 100 Continue\r\n\r\n".repeat(5_000), BAD));
    table.push((ok(&"X: y\r\n".repeat(20_000)), BAD));
    table.push((ok(&format!("X: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(1 << 20))), BAD));
    table.push((format!("HTTP/1.1 200 {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(1 << 20)), BAD));
    // What is behind an answer is nobody's.
    for (head, status, text) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n", 204, ""),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n", 304, ""),
        (
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ] {
        table.push((format!("{head}{stolen}"), Want::Whole(status, text)));
        table.push((format!("{head}stolen"), Want::Whole(status, text)));
    }
    for rest in [
        "Content-Length: 20\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n5;x=\r\nshort\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0x0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshortXX0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nContent-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX: a\r\n b\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nfffffffffffffffff\r\n",
    ] {
        table.push((ok(rest), Want::Broken));
    }
    table
}

#[tokio::test]
async fn no_client_gets_what_is_not_its_answer() -> Result<()> {
    let table = table();
    ensure!(table.len() >= 60, "{}", table.len());
    let replies: Vec<String> = table.iter().map(|(reply, _)| reply.clone()).collect();
    let upstream = Upstream::answering(move |request| {
        let place = request.target().strip_prefix("/bad/").and_then(|place| place.parse::<usize>().ok());
        match place.and_then(|place| replies.get(place)) {
            // Whatever it is, the connection ends behind it.
            Some(reply) => Reply::raw(reply.clone().into_bytes()).close(),
            None => Reply::text(request.target()),
        }
    })
    .await?;
    let mut wrong = Vec::new();
    for mode in ["block", "detect"] {
        let setup = Palisade::serve().policy(&written_policy(&upstream.url(), ""));
        let gateway = if mode == "detect" { setup.arg("--detect") } else { setup }.start().await?;
        for (way, client) in ways(&gateway)? {
            // Another client, on a connection that it keeps.
            let mut other = client.connect().await?;
            for (place, (reply, want)) in table.iter().enumerate() {
                let shown = &reply[..reply.len().min(120)];
                let got = asked(&client, place).await.with_context(|| format!("{mode} {way} {shown:?}"))?;
                if got != format!("{want:?}") {
                    wrong.push(format!("{mode} {way} {shown:?}: {got}, not {want:?}"));
                }
                let own = format!("/own/{place}");
                let text = other.get(&own).send().await?.text().await?;
                ensure!(text == own, "{mode} {way} {shown:?}: the next client got {text:?}");
            }
        }
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn asked(client: &palisade_test::Client, place: usize) -> Result<String> {
    // What breaks off with its first bytes may take the head with it.
    let Ok(mut answer) = client.get(&format!("/bad/{place}")).send().await else { return Ok("Broken".to_owned()) };
    let status = answer.status();
    Ok(match answer.text().await {
        Err(_) => "Broken".to_owned(),
        Ok(text) if status == 502 => {
            let document: serde_json::Value = serde_json::from_str(&text)?;
            format!("Refused({})", document["code"])
        }
        Ok(text) => format!("Whole({status}, {text:?})"),
    })
}

/// An answer before the request was over, and what the upstream says of connections, are for this exchange alone.
#[tokio::test]
async fn connection_headers_of_answers_end_here() -> Result<()> {
    let upstream = Upstream::answering(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret, Set-Cookie\r\nKeep-Alive: timeout=9\r\nX-Secret: 1\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nX-Request-Id: forged\r\nServer: old\r\n\
             X-Powered-By: php\r\nContent-Length: 2\r\n\r\nok",
        )
    })
    .await?;
    let gateway = Palisade::serve().policy(&written_policy(&upstream.url(), "")).start().await?;
    for (way, mut wire) in wires(&gateway).await? {
        let answer = wire.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        for gone in [
            "keep-alive",
            "x-secret",
            "set-cookie",
            "proxy-authenticate",
            "upgrade",
            "server",
            "x-powered-by",
            "connection",
        ] {
            ensure!(answer.header(gone).is_none(), "{way} {gone}: {:?}", answer.headers);
        }
        ensure!(answer.all("x-request-id").count() == 1 && answer.header("x-request-id") != Some("forged"), "{way}");
    }
    Ok(())
}

/// A client that leaves in the middle of its body, or of its answer: the next one does not inherit the connection.
#[tokio::test]
async fn who_leaves_in_the_middle_leaves_nothing_behind() -> Result<()> {
    let upstream = Upstream::answering(|request| match request.target() {
        "/slow" => Reply::steps([
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun".into()),
            Step::Pause(std::time::Duration::from_millis(50)),
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen".into()),
        ]),
        target => Reply::text(target),
    })
    .await?;
    let gateway = Palisade::serve().policy(&written_policy(&upstream.url(), "")).start().await?;
    let victim = gateway.https()?;
    for round in 0..10 {
        for (way, mut wire) in wires(&gateway).await? {
            wire.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nGET /stolen HTTP/1.1\r\n")
                .await?;
            drop(wire);
            let own = format!("/own/{way}/{round}");
            ensure!(victim.get(&own).send().await?.text().await? == own, "{way}");
        }
        for (way, mut wire) in wires(&gateway).await? {
            wire.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            ensure!(!wire.some().await?.is_empty(), "{way}");
            drop(wire);
            let own = format!("/after/{way}/{round}");
            ensure!(victim.get(&own).send().await?.text().await? == own, "{way}");
        }
    }
    let reached = upstream.requests();
    ensure!(reached.iter().all(|request| request.target() != "/stolen"), "{reached:?}");
    Ok(())
}

/// A tunnel opens for a WebSocket of HTTP/1.1 to which the application has agreed, and for nothing else.
#[tokio::test]
async fn no_tunnel_to_another_protocol() -> Result<()> {
    let upstream = Upstream::answering(|request| {
        let upgrade = match request.target() {
            "/h2c" => "Upgrade: h2c\r\n",
            "/none" => "",
            "/two" => "Upgrade: websocket\r\nUpgrade: h2c\r\n",
            "/list" => "Upgrade: websocket, h2c\r\n",
            _ => return Reply::text(request.header("upgrade").unwrap_or("no upgrade")),
        };
        Reply::raw(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{upgrade}\r\n"))
    })
    .await?;
    let gateway = Palisade::serve().policy(&written_policy(&upstream.url(), "")).start().await?;
    let handshake = "Host: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
    for target in ["/h2c", "/none", "/two", "/list"] {
        for (way, mut wire) in wires(&gateway).await? {
            let answer = wire.ask(format!("GET {target} HTTP/1.1\r\n{handshake}")).await?;
            ensure!(answer.status() == 502, "{way} {target}: {}", answer.start);
            ensure!(answer.json()?["code"] == "upstream.bad_answer", "{way} {target}: {}", answer.text());
        }
    }
    // HTTP/1.0 has no upgrades: the application is not asked for one.
    for (way, mut wire) in wires(&gateway).await? {
        let answer = wire.ask(format!("GET /x HTTP/1.0\r\n{handshake}")).await?;
        ensure!(answer.status() == 200 && answer.text() == "no upgrade", "{way}: {} {}", answer.start, answer.text());
    }
    Ok(())
}
