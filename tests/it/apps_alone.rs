//! The apps without any gateway: what the tests behind the gateway compare with. When one of these fails, the fault is
//! not the gateway's.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use palisade_test::python::App;
use palisade_test::websocket::Message;
use palisade_test::{Body, WebSocket, Wire};
use serde_json::json;

#[tokio::test]
async fn notes_are_kept() -> Result<()> {
    let app = App::plausible().await?;
    let client = app.client()?;
    let mut made = client.post("/notes").json(&json!({ "title": "first", "tags": ["a"] })).send().await?;
    assert_eq!(made.status(), 201);
    let location = made.header("location").unwrap_or_default().to_owned();
    let note = made.json().await?;
    assert!(
        location.starts_with(&app.url()) && location.ends_with(note["id"].as_str().unwrap_or("none")),
        "{location}"
    );
    let listed = client.get("/notes?tag=a").send().await?.json().await?;
    assert_eq!(listed[0], note);
    assert_eq!(client.post("/notes").json(&json!({ "title": "" })).send().await?.status(), 422);
    let target = format!("/notes/{}", note["id"].as_str().unwrap_or_default());
    assert_eq!(client.request(Method::DELETE, &target).send().await?.status(), 204);
    assert_eq!(client.get(&target).send().await?.status(), 404);
    Ok(())
}

#[tokio::test]
async fn events_come_one_by_one() -> Result<()> {
    let app = App::plausible().await?;
    let mut events = app.client()?.get("/events?count=4&interval=0.2").send().await?;
    assert_eq!(events.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let mut times = Vec::new();
    while let Some(chunk) = events.chunk().await? {
        times.push(chunk.after);
    }
    assert_eq!(times.len(), 4);
    for pair in times.windows(2) {
        ensure!(pair[1] - pair[0] > Duration::from_millis(100), "two events came together: {times:?}");
    }
    Ok(())
}

#[tokio::test]
async fn large_bodies_both_ways() -> Result<()> {
    let app = App::plausible().await?;
    let client = app.client()?;
    let size: u64 = 20 << 20;
    let mut download = client.get(&format!("/download?size={size}&length=false")).send().await?;
    assert_eq!(download.header("content-length"), None);
    assert_eq!(download.drain().await?, size);

    let expected = client.post("/upload").body(Body::repeated("pattern", size)).send().await?.json().await?;
    assert_eq!(expected["bytes"], size);
    let chunked = client.post("/upload").body(Body::chunked("pattern", size)).send().await?.json().await?;
    assert_eq!((&chunked["bytes"], &chunked["sha256"]), (&expected["bytes"], &expected["sha256"]));
    let (body, kind) = Body::multipart("file", "a.bin", "pattern", size);
    let file = client.post("/upload/file").header("content-type", &kind).body(body).send().await?.json().await?;
    assert_eq!(
        (&file["bytes"], &file["sha256"], &file["filename"]),
        (&expected["bytes"], &expected["sha256"], &json!("a.bin"))
    );
    Ok(())
}

#[tokio::test]
async fn files_ranges_and_validators() -> Result<()> {
    let app = App::plausible().await?;
    let client = app.client()?;
    let mut part = client.get("/file").header("range", "bytes=250-252").send().await?;
    assert_eq!((part.status(), part.header("content-range")), (206, Some("bytes 250-252/1000000")));
    assert_eq!(part.bytes().await?[..], [250, 0, 1]);
    let head = client.request(Method::HEAD, "/file").send().await?;
    assert_eq!((head.status(), head.header("content-length")), (200, Some("1000000")));
    assert_eq!(client.get("/cached").header("if-none-match", "\"v1\"").send().await?.status(), 304);
    assert_eq!(client.post("/nothing").send().await?.status(), 204);
    Ok(())
}

#[tokio::test]
async fn cookies_redirects_and_failures() -> Result<()> {
    let app = App::plausible().await?;
    let client = app.client()?;
    assert_eq!(client.get("/cookies/set").send().await?.all("set-cookie").len(), 3);
    for (target, location) in [
        ("/redirect/absolute", format!("{}/notes", app.url())),
        ("/redirect/relative", "../notes".to_owned()),
        ("/with-slash", format!("{}/with-slash/", app.url())),
    ] {
        let answer = client.get(target).send().await?;
        assert_eq!(answer.header("location"), Some(&*location), "{target}");
    }
    assert_eq!(client.get("/failure").send().await?.status(), 500);
    let traceback =
        app.process().output().find(Duration::from_secs(10), "the traceback in the app's own log", |line| {
            line.text.contains("hunter2").then_some(())
        });
    traceback.await?;
    assert!(client.get("/failure/midway").send().await?.bytes().await.is_err(), "the body breaks off");
    Ok(())
}

#[tokio::test]
async fn posts_are_counted_and_polls_are_woken() -> Result<()> {
    let app = App::plausible().await?;
    let client = app.client()?;
    let mut connection = client.connect().await?;
    for id in ["a", "b", "a"] {
        connection.post(&format!("/count/{id}")).body("x").send().await?.drain().await?;
    }
    let counted = client.get("/count").send().await?.json().await?;
    assert_eq!(counted, json!({ "ids": 2, "posts": 3, "more_than_once": ["a"] }));

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get("/poll/door").send().await }
    });
    let woken = async || waiting.is_finished() || client.post("/poll/door").send().await.is_err();
    palisade_test::eventually(Duration::from_secs(20), "the poll is answered", woken).await?;
    assert_eq!(waiting.await??.status(), 200);
    Ok(())
}

#[tokio::test]
async fn sockets_echo_and_close() -> Result<()> {
    let app = App::plausible().await?;
    let url = app.url().replacen("http", "ws", 1);
    let mut socket = WebSocket::open(&format!("{url}/ws"), None, &[]).await?;
    for message in [Message::text("tëxt"), Message::binary(vec![0, 255, 128])] {
        socket.send(message.clone()).await?;
        assert_eq!(socket.next().await?, Some(message));
    }
    socket.send(Message::Ping("are you there".into())).await?;
    assert_eq!(socket.next().await?, Some(Message::Pong("are you there".into())));
    socket.text("close 4001 enough of this").await?;
    assert_eq!(socket.closed().await?, Some((4001, "enough of this".to_owned())));

    let mut socket = WebSocket::open(&format!("{url}/ws/closed/me"), None, &[]).await?;
    socket.close(4002, "my turn").await?;
    let seen = app.client()?.get("/closed/me").send().await?.json().await?;
    assert_eq!(seen, json!({ "code": 4002, "reason": "my turn" }));

    let Err(refused) = WebSocket::open(&format!("{url}/ws/refused"), None, &[]).await else {
        anyhow::bail!("it was accepted");
    };
    assert_eq!(palisade_test::websocket::refusal(&refused).map(|answer| answer.status().as_u16()), Some(403));
    Ok(())
}

#[tokio::test]
async fn a_prefix_is_known_to_the_app() -> Result<()> {
    let app = App::uvicorn("plausible", &["--root-path", "/api"]).await?;
    let seen = app.client()?.get("/echo?x=1").header("x-test", "a, b").send().await?.json().await?;
    assert_eq!(seen["root_path"], "/api");
    assert_eq!(seen["query_string"], "x=1");
    assert!(seen["headers"].as_array().is_some_and(|headers| headers.contains(&json!(["x-test", "a, b"]))));
    Ok(())
}

#[tokio::test]
async fn the_guides_app_runs_as_far_as_it_runs() -> Result<()> {
    let app = App::guide().await?;
    // Its redirect to https is in the way of plain http, and the host is one of its list.
    let client = app.client()?.host("yourdomain.com");
    let mut login = client
        .post("/token")
        .header("x-forwarded-proto", "https")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("username=alice&password=anything")
        .send()
        .await?;
    assert_eq!(login.status(), 200);
    let token = login.json().await?["access_token"].as_str().unwrap_or_default().to_owned();
    let mut hello = client
        .get("/secure-endpoint")
        .header("x-forwarded-proto", "https")
        .header("authorization", &format!("Bearer {token}"))
        .send()
        .await?;
    assert_eq!(hello.json().await?, json!({ "message": "Hello, alice!" }));
    assert_eq!(client.get("/").send().await?.status(), 307);
    Ok(())
}

#[tokio::test]
async fn the_raw_server_does_what_uvicorn_cannot() -> Result<()> {
    let app = App::raw().await?;
    let mut answer = app.client()?.get("/trailers").header("te", "trailers").send().await?;
    assert_eq!(answer.text().await?, "hello world");
    assert_eq!(
        answer.trailers().and_then(|trailers| trailers.get("x-checksum")).map(|sum| sum.as_bytes()),
        Some(&b"3e25960a"[..])
    );

    let mut wire = Wire::plain(app.address()).await?;
    let expecting = "POST /expect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(wire.ask(expecting).await?.status(), 100);
    let seen = wire.ask("body").await?.json()?;
    assert_eq!((&seen["expect"], &seen["body"]), (&json!(true), &json!("body")));

    assert_eq!(wire.ask("GET /early-hints HTTP/1.1\r\nHost: x\r\n\r\n").await?.status(), 103);
    assert_eq!(wire.answer().await?.text(), "hints");
    assert_eq!(wire.ask("GET /small-chunks HTTP/1.1\r\nHost: x\r\n\r\n").await?.chunks, [1; 9]);
    assert!(wire.ask("GET /bad/short HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err());
    Ok(())
}
