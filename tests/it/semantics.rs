//! What HTTP means, behind the gateway: the app sees its client, the client sees its app.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::python::App;
use palisade_test::upstream::{Reply, Step};
use palisade_test::{Body, Palisade, Upstream, eventually};
use serde_json::{Value, json};

use crate::support::{SOON, starter, ways, wires};

/// The values of a header as the app saw them.
fn seen<'v>(echo: &'v Value, name: &str) -> Vec<&'v str> {
    let headers = echo["headers"].as_array().into_iter().flatten();
    headers.filter(|header| header[0] == name).filter_map(|header| header[1].as_str()).collect()
}

#[tokio::test]
async fn the_app_sees_its_client_and_its_scheme() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let scheme = if way == "http" { "http" } else { "https" };
        let host = gateway.address(scheme)?.to_string();
        let request = client
            .get("/echo/a/b?x=1&y=%20")
            .header("x-forwarded-for", "203.0.113.7, 198.51.100.1")
            .header("x-forwarded-proto", "gopher")
            .header("x-forwarded-host", "evil.example")
            .header("x-real-ip", "203.0.113.7")
            .header("x_forwarded_for", "203.0.113.8")
            .header("forwarded", "for=203.0.113.7")
            .header("x-request-id", "mine")
            .header("x-test", "a, b")
            .header("x-test", "c");
        let mut answer = request.send().await?;
        let id = answer.header("x-request-id").context("no request id")?.to_owned();
        let echo = answer.json().await?;
        assert_eq!(seen(&echo, "x-forwarded-for"), ["127.0.0.1"], "{way}");
        assert_eq!(seen(&echo, "x-forwarded-proto"), [scheme], "{way}");
        assert_eq!(seen(&echo, "x-forwarded-host"), [&*host], "{way}");
        assert_eq!(seen(&echo, "host"), [&*host], "{way}");
        assert_eq!(seen(&echo, "x-request-id"), [&*id], "{way}");
        assert_eq!(seen(&echo, "x-test"), ["a, b", "c"], "{way}");
        for gone in ["x-real-ip", "x_forwarded_for", "forwarded"] {
            assert_eq!(seen(&echo, gone), [""; 0], "{way} {gone}");
        }
        assert_eq!((&echo["client"], &echo["scheme"]), (&json!("127.0.0.1"), &json!(scheme)), "{way}");
        assert_eq!(echo["url"], format!("{scheme}://{host}/echo/a/b?x=1&y=%20"), "{way}");
        assert_eq!(echo["http_version"], "1.1", "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn every_method_and_its_body_arrive() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::GET] {
            let echo = client.request(method.clone(), "/echo").body("a body").send().await?.json().await?;
            assert_eq!((&echo["method"], &echo["body"]), (&json!(method.as_str()), &json!("a body")), "{way}");
        }
    }
    Ok(())
}

/// RFC 9113 §8.2.3: HTTP/2 clients may send cookies one by one; an HTTP/1.1 app gets one `Cookie`.
#[tokio::test]
async fn cookies_both_ways() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let set = client.get("/cookies/set").send().await?;
        let cookies = set.all("set-cookie").iter().map(|cookie| (*cookie).to_owned()).collect::<Vec<_>>();
        assert_eq!(cookies.len(), 3, "{way}");
        assert!(cookies.iter().any(|cookie| cookie.starts_with("session=s-1; HttpOnly")), "{way} {cookies:?}");
        assert!(cookies.iter().any(|cookie| cookie.starts_with("language=\"de\\073 en\"; ")), "{way} {cookies:?}");

        let mut request = client.get("/cookies").header("cookie", "session=s-1");
        if way == "h2" {
            request = request.header("cookie", "theme=dark").header("cookie", "a=b");
        }
        let seen = request.send().await?.json().await?;
        assert_eq!(seen["session"], "s-1", "{way}");
        let whole = if way == "h2" { "session=s-1; theme=dark; a=b" } else { "session=s-1" };
        assert_eq!(seen["raw"], json!([whole]), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn redirects_lead_through_the_gateway() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let base = gateway.url(if way == "http" { "http" } else { "https" })?;
        for (target, status, location) in [
            ("/redirect/absolute", 307, format!("{base}/notes")),
            ("/redirect/relative", 302, "../notes".to_owned()),
            ("/redirect/path", 303, "/notes?limit=1".to_owned()),
            ("/redirect/elsewhere", 302, "https://example.org/landing?x=1#part".to_owned()),
            ("/with-slash", 307, format!("{base}/with-slash/")),
        ] {
            let answer = client.get(target).send().await?;
            let answered = (answer.status(), answer.header("location"));
            assert_eq!(answered, (status, Some(&*location)), "{way} {target}");
        }
        let made = client.post("/notes").json(&json!({ "title": "first" })).send().await?;
        let location = made.header("location").unwrap_or_default();
        assert_eq!((made.status(), location.starts_with(&format!("{base}/notes/"))), (201, true), "{way} {location}");
    }
    Ok(())
}

#[tokio::test]
async fn a_prefix_of_the_app_stays_its_own() -> Result<()> {
    let app = App::uvicorn("plausible", &["--root-path", "/api"]).await?;
    let gateway = starter(&app.url()).await?;
    let client = gateway.https()?;
    let echo = client.get("/echo?x=1").send().await?.json().await?;
    assert_eq!((&echo["root_path"], &echo["path"]), (&json!("/api"), &json!("/api/echo")));
    let location = client.get("/redirect/absolute").send().await?;
    let expected = format!("{}/api/notes", gateway.url("https")?);
    assert_eq!(location.header("location"), Some(&*expected));
    let docs = client.get("/docs").send().await?.text().await?;
    ensure!(docs.contains("/api/openapi.json"), "{docs}");
    Ok(())
}

#[tokio::test]
async fn answers_without_a_body() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        // On one connection: a body where none belongs would be the next answer.
        let mut connection = client.connect().await?;
        let mut head = connection.request(Method::HEAD, "/file").send().await?;
        assert_eq!((head.status(), head.header("content-length")), (200, Some("1000000")), "{way}");
        assert_eq!(head.drain().await?, 0, "{way}");
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let mut nothing = connection.request(method.clone(), "/nothing").send().await?;
            assert_eq!((nothing.status(), nothing.drain().await?), (204, 0), "{way} {method}");
        }
        let mut fresh = connection.get("/cached").send().await?;
        assert_eq!((fresh.status(), fresh.header("etag")), (200, Some("\"v1\"")), "{way}");
        assert_eq!(fresh.text().await?, "cached content", "{way}");
        let mut same = connection.get("/cached").header("if-none-match", "\"v1\"").send().await?;
        assert_eq!((same.status(), same.header("etag")), (304, Some("\"v1\"")), "{way}");
        assert_eq!(same.header("last-modified"), Some("Thu, 01 Jan 2026 00:00:00 GMT"), "{way}");
        assert_eq!(same.drain().await?, 0, "{way}");
        for (status, length) in [(205, 0), (404, 14), (418, 14), (503, 14)] {
            let mut answer = connection.get(&format!("/status/{status}")).send().await?;
            assert_eq!((answer.status(), answer.drain().await?), (status, length), "{way}");
        }
        assert_eq!(connection.get("/notes").send().await?.text().await?, "[]", "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn ranges_one_and_several() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut part = client.get("/file").header("range", "bytes=250-252").send().await?;
        assert_eq!((part.status(), part.header("content-range")), (206, Some("bytes 250-252/1000000")), "{way}");
        assert_eq!(part.bytes().await?[..], [250, 0, 1], "{way}");
        assert_eq!(
            part.header("content-disposition"),
            Some("attachment; filename*=utf-8''Bericht%20f%C3%BCr%20M%C3%A4rz.bin")
        );

        let direct = app.client()?;
        let mut whole = Vec::new();
        for client in [&direct, &client] {
            let mut parts = client.get("/file").header("range", "bytes=0-1,500-502").send().await?;
            let kind = parts.header("content-type").unwrap_or_default().to_owned();
            let boundary =
                kind.strip_prefix("multipart/byteranges; boundary=").context("not of several ranges")?.to_owned();
            assert_eq!(parts.status(), 206, "{way}");
            whole.push(parts.text().await?.replace(&boundary, "BOUNDARY"));
        }
        assert_eq!(whole[0], whole[1], "{way}");
        assert_eq!(client.get("/file").header("range", "bytes=2000000-").send().await?.status(), 416, "{way}");
    }
    Ok(())
}

const EXPECTING: &str = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n";

#[tokio::test]
async fn the_client_is_told_to_continue_when_its_body_is_read() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        for framing in [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n")] {
            let head = format!("POST /echo HTTP/1.1\r\n{EXPECTING}{}\r\n\r\n", framing.0);
            assert_eq!(wire.ask(head).await?.start, "HTTP/1.1 100 Continue", "{way}");
            let echo = wire.ask(framing.1).await?.json()?;
            assert_eq!(echo["body"], "body", "{way}");
            assert_eq!(seen(&echo, "expect"), [""; 0], "{way}");
        }
        // Too large by its own announcement: no 100, and not a byte of it is wanted.
        let head = format!("POST /echo HTTP/1.1\r\n{EXPECTING}Content-Length: 999999999\r\n\r\n");
        let refused = wire.ask(head).await?;
        assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")), "{way}");
        assert_eq!(refused.json()?["code"], "limits.body", "{way}");
        wire.closed(SOON).await?;
    }
    let mut wire = gateway.wire().await?;
    let odd = "POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(wire.ask(odd).await?.status(), 417);
    Ok(())
}

#[tokio::test]
async fn trailers_of_answers_arrive() -> Result<()> {
    let app = App::raw().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut request = client.get("/trailers").header("te", "trailers");
        if way != "h2" {
            request = request.header("connection", "te");
        }
        let mut answer = request.send().await?;
        assert_eq!(answer.text().await?, "hello world", "{way}");
        let trailers = answer.trailers().with_context(|| format!("{way}: no trailers"))?;
        assert_eq!(trailers["x-checksum"], "3e25960a", "{way}");
        assert_eq!(trailers["server-timing"], "db;dur=12.5", "{way}");
    }
    // Who does not ask for them gets the body.
    for (way, mut wire) in wires(&gateway).await? {
        let answer = wire.ask("GET /trailers HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        assert_eq!((answer.text(), answer.trailers), ("hello world".to_owned(), Vec::new()), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn interim_answers_do_not_confuse() -> Result<()> {
    let app = App::raw().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut connection = client.connect().await?;
        for target in ["/early-hints", "/slow-head", "/early-hints"] {
            let mut answer = connection.get(target).send().await?;
            assert_eq!(answer.status(), 200, "{way}");
            assert_eq!(answer.text().await?, if target == "/slow-head" { "slow" } else { "hints" }, "{way}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn bodies_of_every_framing() -> Result<()> {
    let app = App::raw().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut connection = client.connect().await?;
        for (target, text) in [
            ("/until-close", "until the end"),
            ("/small-chunks", "piecemeal"),
            ("/close-after", "ok"),
            ("/close-after", "ok"),
        ] {
            assert_eq!(connection.get(target).send().await?.text().await?, text, "{way} {target}");
        }
        let many = connection.get("/many-headers").send().await?;
        // Over TLS the gateway adds what keeps a cookie off plain connections.
        let cookies = if way == "http" { ["a=1", "b=2"] } else { ["a=1; Secure", "b=2; Secure"] };
        assert_eq!(many.all("set-cookie"), cookies, "{way}");
        assert_eq!((many.header("x-empty"), many.header("x-mixed")), (Some(""), Some("yes")), "{way}");
    }
    Ok(())
}

/// An app that answers before it has read the body: the answer arrives, not a broken connection.
#[tokio::test]
async fn an_answer_before_the_body_was_read() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut answer = client.post("/upload/refused").body("short").send().await?;
        assert_eq!((answer.status(), answer.json().await?), (413, json!({ "detail": "too large" })), "{way}");
    }
    // While the upload goes on and nobody reads it.
    let early = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    let upstream = Upstream::script([Step::ReadHead, Step::Send(early.into()), Step::Hold]).await?;
    let gateway = starter(&upstream.url()).await?;
    for (way, client) in ways(&gateway)? {
        let (feed, body) = Body::fed();
        let request = client.post("/upload").header("content-type", "application/octet-stream").body(body);
        feed.send("a first piece").await?;
        let mut answer = request.send().await?;
        assert_eq!((answer.status(), answer.text().await?), (403, "no".to_owned()), "{way}");
        drop(feed);
    }
    Ok(())
}

#[tokio::test]
async fn clients_of_http_1_0() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        let kept = "GET /notes HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(wire.ask(kept).await?.text(), "[]", "{way}");
        // A body of unknown length can only end with the connection.
        let answer = wire.ask("GET /stream?chunks=3&interval=0 HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
        assert_eq!(answer.header("transfer-encoding"), None, "{way}");
        assert_eq!(answer.text().len(), 48, "{way}");
        wire.closed(SOON).await?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        let mut ahead = String::new();
        for number in 0..20 {
            ahead += &match number % 3 {
                0 => format!("GET /echo?n={number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                1 => format!("POST /echo?n={number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"),
                _ => format!(
                    "PUT /echo?n={number} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                ),
            };
        }
        wire.send(ahead).await?;
        for number in 0..20 {
            let echo = wire.answer().await?.json()?;
            assert_eq!(echo["query_string"], format!("n={number}"), "{way}");
            assert_eq!(echo["body"], if number % 3 == 0 { "" } else { "abc" }, "{way}");
        }
    }
    Ok(())
}

/// A client that says nothing more still gets its answer: `shutdown(SHUT_WR)` is how `nc` and some libraries ask.
#[tokio::test]
async fn the_answer_to_the_last_request_of_a_connection() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    for (way, mut wire) in wires(&gateway).await? {
        let answer = wire.ask("GET /slow?seconds=0.2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")), "{way}");
        wire.closed(SOON).await?;
    }
    Ok(())
}

/// The gateway's own connection to the app is used again and again, also by other clients.
#[tokio::test]
async fn connections_to_the_app_are_kept() -> Result<()> {
    let upstream = Upstream::answering(|request| Reply::text(request.target())).await?;
    let gateway: Palisade = Palisade::serve().upstream(&upstream.url()).start().await?;
    let mut connection = gateway.https()?.connect().await?;
    for number in 0..50 {
        let target = format!("/{number}");
        assert_eq!(connection.get(&target).send().await?.text().await?, target);
    }
    assert_eq!((upstream.connections(), upstream.requests().len()), (1, 50));
    // And given up before the app would close them.
    eventually(SOON, "the idle connection is closed", async || upstream.open_connections() == 0).await
}
