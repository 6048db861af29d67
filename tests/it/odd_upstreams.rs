//! Upstreams that answer wrongly: 502 with a problem document, or an answer that is seen to be broken. Never a smuggled or half one.

use anyhow::{Result, ensure};
use palisade_test::python::App;
use palisade_test::upstream::Step;
use palisade_test::{Upstream, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{SOON, starter, ways, wires};

#[tokio::test]
async fn what_is_no_answer_gives_502() -> Result<()> {
    let app = App::raw().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut connection = client.connect().await?;
        for (target, code) in [
            ("/bad/both", "upstream.bad_answer"),
            ("/bad/head", "upstream.bad_answer"),
            ("/bad/silent", "upstream.closed"),
        ] {
            let mut answer = connection.get(target).send().await?;
            assert_eq!(answer.status(), 502, "{way} {target}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{way} {target}");
            let id = answer.header("x-request-id").unwrap_or_default().to_owned();
            let problem = answer.json().await?;
            assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &502.into()), "{way} {target}");
            assert_eq!(problem["request_id"], id, "{way} {target}");
            let line = gateway.access(|line| line["request_id"] == id).await?;
            assert_eq!((&line["outcome"], &line["code"]), (&"upstream_error".into(), &code.into()), "{way} {line}");
        }
        // The client's own connection is none the worse.
        assert_eq!(connection.get("/close-after").send().await?.text().await?, "ok", "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn what_breaks_off_is_seen_as_broken() -> Result<()> {
    let app = App::raw().await?;
    let plausible = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    let of_plausible = starter(&plausible.url()).await?;
    // Chunk extensions are legal, but parsers disagree about where they end, and so they are not passed on.
    for (gateway, target) in [
        (&gateway, "/bad/short"),
        (&gateway, "/bad/chunk"),
        (&gateway, "/chunk-extensions"),
        (&of_plausible, "/failure/midway"),
    ] {
        for (way, client) in ways(gateway)? {
            // What breaks off with its first bytes may take the head with it.
            let Ok(mut answer) = client.get(target).send().await else { continue };
            assert_eq!(answer.status(), 200, "{way} {target}");
            let body = answer.bytes().await;
            ensure!(body.is_err(), "{way} {target}: half an answer passed for a whole one: {body:?}");
        }
        // As it stands on the wire: no last chunk, and the connection ends.
        for (way, mut wire) in wires(gateway).await? {
            wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await?;
            let all = String::from_utf8_lossy(&wire.until_closed().await?).into_owned();
            let begun = all.is_empty() || all.starts_with("HTTP/1.1 200 OK\r\n");
            ensure!(begun && !all.ends_with("0\r\n\r\n"), "{way} {target}: {all}");
        }
        let line = gateway.access(|line| line["path"] == target && line["outcome"] == "upstream_error").await?;
        assert_eq!((&line["status"], &line["code"]), (&200.into(), &"upstream.broken".into()), "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn what_comes_too_much_is_nobodys_answer() -> Result<()> {
    let app = App::raw().await?;
    let gateway = starter(&app.url()).await?;
    for (way, client) in ways(&gateway)? {
        let mut connection = client.connect().await?;
        for _ in 0..10 {
            assert_eq!(connection.get("/bad/extra").send().await?.text().await?, "ok", "{way}");
            assert_eq!(connection.get("/close-after").send().await?.text().await?, "ok", "{way}");
        }
    }
    Ok(())
}

/// Late, on a connection that is idle by then: it is not used again, and the answer is nobody's.
#[tokio::test]
async fn what_comes_unasked_is_nobodys_answer() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let gateway = starter(&format!("http://{}", listener.local_addr()?)).await?;
    let client = gateway.https()?;
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", "x"] {
        let (asked, first) = tokio::join!(client.get("/first").send(), async {
            let (mut app, _) = listener.accept().await?;
            let mut head = [0; 4096];
            ensure!(app.read(&mut head).await? > 0);
            app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
            Ok(app)
        });
        assert_eq!(asked?.text().await?, "ok");
        // On loopback it has arrived when this returns.
        let mut first = first?;
        first.write_all(answer.as_bytes()).await?;
        let (asked, second) = tokio::join!(client.get("/second").send(), async {
            let (mut app, _) = listener.accept().await?;
            let mut head = [0; 4096];
            ensure!(app.read(&mut head).await? > 0);
            app.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nown").await?;
            Ok(app)
        });
        second?;
        assert_eq!(asked?.text().await?, "own");
    }
    Ok(())
}

#[tokio::test]
async fn no_app_at_all_gives_502_and_says_when_to_come_back() -> Result<()> {
    // A port that was free a moment ago.
    let port = palisade_test::ports::free()?;
    let gateway = starter(&format!("http://127.0.0.1:{port}")).await?;
    for (way, client) in ways(&gateway)? {
        let mut answer = client.get("/").send().await?;
        assert_eq!((answer.status(), answer.header("retry-after")), (502, Some("1")), "{way}");
        assert_eq!(answer.json().await?["code"], "upstream.unreachable", "{way}");
        let html = client.get("/").header("accept", "text/html,*/*;q=0.8").send().await?;
        assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn an_app_that_takes_too_long_gives_504() -> Result<()> {
    let upstream = Upstream::script([Step::ReadHead, Step::Hold]).await?;
    let policy = format!(
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"{}\"\nresponse_timeout = \"1s\"\n",
        upstream.url()
    );
    let gateway = palisade_test::Palisade::serve().policy(&policy).start().await?;
    for (way, client) in ways(&gateway)? {
        let mut answer = client.get("/").send().await?;
        assert_eq!((answer.status(), &answer.json().await?["code"]), (504, &"upstream.timeout".into()), "{way}");
    }
    eventually(SOON, "nobody waits for it any more", async || upstream.open_connections() == 0).await
}
