//! Streams do not outlive the rights of whoever opened them (threats 38): real clients of WebSockets and of events.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::{Client, Palisade, WebSocket, on_both};
use serde_json::json;

const PASSWORD: &str = "vier alte Kutschen im Nebel";
/// Within it nothing more may be delivered.
const AT_MOST: Duration = Duration::from_secs(2);

async fn gateway(kept: &Kept, auth: &str) -> Result<(App, Palisade)> {
    let app = App::plausible().await?;
    let policy = format!("[auth]\nregistration = \"open\"\n{auth}");
    let gateway = kept.setup(&app.url(), &policy).start().await?;
    Ok((app, gateway))
}

on_both!(
    a_websocket_is_closed_with_1008_when_its_session_ends,
    a_websocket_is_closed_with_1008_when_its_token_expires_or_the_account_is_disabled,
    an_event_stream_ends_with_its_session,
    none_of_a_hundred_streams_outlives_its_rights,
);

/// A session, as a browser sends it, and its id.
async fn session(client: &Client, name: &str) -> Result<(String, String)> {
    let account = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
    let made = client.post("/auth/register").json(&account).send().await?.status();
    ensure!(made == 201 || made == 409, "{made}");
    let login = json!({ "username": name, "password": PASSWORD });
    let answer = client.post("/auth/login").json(&login).send().await?;
    let cookies = answer.all("set-cookie");
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade=")).context("no session")?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let list = client.get("/auth/sessions").header("cookie", &cookie).send().await?.json().await?;
    let all = list.as_array().context("a list")?;
    let id = all.iter().find(|one| one["current"] == true).context("its own")?["id"].as_str().context("an id")?;
    Ok((cookie, id.to_owned()))
}

async fn end(client: &Client, by: &str, id: &str) -> Result<()> {
    let path = format!("/auth/sessions/{id}");
    let request = client.request(Method::DELETE, &path).header("cookie", by).header("sec-fetch-site", "same-origin");
    let status = request.send().await?.status();
    ensure!(status == 204, "{status}");
    Ok(())
}

async fn a_websocket_is_closed_with_1008_when_its_session_ends(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept, "").await?;
    let client = gateway.https()?;
    let ((one, own), (two, _)) = (session(&client, "ann").await?, session(&client, "ann").await?);
    let url = format!("{}/ws", gateway.websocket_url("https")?);
    let mut ends = WebSocket::open(&url, Some(&gateway.trust()?), &[("cookie", &one)]).await?;
    let mut goes_on = WebSocket::open(&url, Some(&gateway.trust()?), &[("cookie", &two)]).await?;
    for socket in [&mut ends, &mut goes_on] {
        socket.text("still here").await?;
        ensure!(socket.next().await?.is_some());
    }
    let begun = Instant::now();
    end(&client, &two, &own).await?;
    assert_eq!(ends.closed().await?, Some((1008, "no longer allowed".to_owned())));
    ensure!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
    goes_on.text("and here").await?;
    ensure!(goes_on.next().await?.is_some(), "another session goes on");
    gateway.event("auth.stream_ended", |line| line["path"] == "/ws").await?;
    Ok(())
}

async fn a_websocket_is_closed_with_1008_when_its_token_expires_or_the_account_is_disabled(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept, "access_token = \"1m\"\n").await?;
    let client = gateway.https()?;
    let (cookie, _) = session(&client, "ann").await?;
    let form = format!("grant_type=password&username=ann&password={}", PASSWORD.replace(' ', "+"));
    let token = async || {
        let request = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded");
        let tokens = request.body(form.clone()).send().await?.json().await?;
        anyhow::Ok(format!("Bearer {}", tokens["access_token"].as_str().context("no token")?))
    };
    let first = token().await?;
    let begun = Instant::now();
    let url = format!("{}/ws", gateway.websocket_url("https")?);
    let mut expires = WebSocket::open(&url, Some(&gateway.trust()?), &[("authorization", &first)]).await?;
    // A minute is the shortest life of a token.
    let mut last = 0;
    loop {
        expires.text("still here").await?;
        match expires.next().await? {
            Some(palisade_test::websocket::Message::Close(frame)) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1008));
                break;
            }
            other => ensure!(other.is_some() && begun.elapsed() < Duration::from_secs(63), "{other:?} after {last}"),
        }
        last += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(begun.elapsed() > Duration::from_secs(55), "{:?}", begun.elapsed());
    let second = token().await?;
    let mut by_token = WebSocket::open(&url, Some(&gateway.trust()?), &[("authorization", &second)]).await?;
    let mut by_session = WebSocket::open(&url, Some(&gateway.trust()?), &[("cookie", &cookie)]).await?;
    let begun = Instant::now();
    let ran = gateway.run(&["user", "disable", "ann"]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    for socket in [&mut by_token, &mut by_session] {
        assert_eq!(socket.closed().await?.map(|(code, _)| code), Some(1008));
    }
    ensure!(begun.elapsed() < AT_MOST + Duration::from_secs(1), "{:?}", begun.elapsed());
    Ok(())
}

async fn an_event_stream_ends_with_its_session(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept, "").await?;
    let client = gateway.https()?;
    for client in [client.clone(), client.http2()] {
        let ((one, own), (two, _)) = (session(&client, "ann").await?, session(&client, "ann").await?);
        let mut stream = client.get("/events?count=600").header("cookie", &one).send().await?;
        assert_eq!(stream.status(), 200);
        // A minute of them, if nobody ends it.
        ensure!(stream.chunk().await?.is_some());
        end(&client, &two, &own).await?;
        let begun = Instant::now();
        while stream.chunk().await?.is_some() {
            ensure!(begun.elapsed() < AT_MOST, "it goes on after {:?}", begun.elapsed());
        }
    }
    Ok(())
}

/// A policy that comes in force ends what it would not let in, and nothing else: of users and of nobody, at once.
#[tokio::test]
async fn a_stricter_policy_ends_what_is_open() -> Result<()> {
    let app = App::plausible().await?;
    let policy = |routes: &str| {
        let auth = "[auth]\nregistration = \"open\"\n";
        crate::support::written_policy(&app.url(), &format!("{auth}{routes}"))
    };
    let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\n{more}\n");
    let open = [route("/events", "public = true"), route("/ws", "")].concat();
    let gateway = Palisade::serve().policy(&policy(&open)).start().await?;
    let client = gateway.https()?;
    let (ann, _) = session(&client, "ann").await?;
    let url = format!("{}/ws", gateway.websocket_url("https")?);
    let trust = gateway.trust()?;
    let put = async |routes: String| -> Result<()> {
        let position = gateway.output().position();
        gateway.write_policy(&policy(&routes))?;
        gateway.event_since(position, "policy.reloaded", |_| true).await.map(drop)
    };

    let mut nobodys = client.get("/events?count=600").send().await?;
    let mut hers = client.get("/events?count=600").header("cookie", &ann).send().await?;
    let mut socket = WebSocket::open(&url, Some(&trust), &[("cookie", &ann)]).await?;
    // What is as strict, or laxer, ends none of them.
    put([open.clone(), route("/elsewhere", "roles = [\"admin\"]")].concat()).await?;
    put([route("/events", "public = true"), route("/ws", "public = true")].concat()).await?;
    put(open).await?;
    for stream in [&mut nobodys, &mut hers] {
        for _ in 0..20 {
            ensure!(stream.chunk().await?.is_some(), "it goes on");
        }
    }
    socket.text("still here").await?;
    ensure!(socket.next().await?.is_some());

    // A login, which one of them has.
    put([route("/events", ""), route("/ws", "")].concat()).await?;
    let begun = Instant::now();
    while nobodys.chunk().await?.is_some() {
        ensure!(begun.elapsed() < AT_MOST, "it goes on after {:?}", begun.elapsed());
    }
    for _ in 0..20 {
        ensure!(hers.chunk().await?.is_some(), "a login is what it has");
    }
    // A role, which she has not; and another method.
    put([route("/events", "roles = [\"admin\"]"), route("/ws", "methods = [\"POST\"]")].concat()).await?;
    let begun = Instant::now();
    while hers.chunk().await?.is_some() {
        ensure!(begun.elapsed() < AT_MOST, "it goes on after {:?}", begun.elapsed());
    }
    assert_eq!(socket.closed().await?, Some((1008, "no longer allowed".to_owned())));
    ensure!(begun.elapsed() < AT_MOST, "{:?}", begun.elapsed());
    Ok(())
}

/// Every second one is ended by a way of its own; the others go on, and so does what they deliver.
async fn none_of_a_hundred_streams_outlives_its_rights(kept: Kept) -> Result<()> {
    let (_app, gateway) = gateway(&kept, "[limits]\nconnections_per_address = 400\n").await?;
    let client = gateway.https()?;
    let ((ann, _), (bob, _), (eve, _)) =
        (session(&client, "ann").await?, session(&client, "bob").await?, session(&client, "eve").await?);
    let mut open = Vec::new();
    for place in 0..100 {
        let cookie = [&ann, &bob, &eve, &eve][place % 4];
        let mut stream = client.get("/events?count=600").header("cookie", cookie).send().await?;
        ensure!(stream.status() == 200 && stream.chunk().await?.is_some(), "stream {place}");
        open.push((place, stream));
    }
    let out = client.post("/auth/logout").header("cookie", &ann).header("sec-fetch-site", "same-origin");
    ensure!(out.send().await?.status() == 204);
    let ran = gateway.run(&["user", "disable", "bob"]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let begun = Instant::now();
    let (ends, goes_on): (Vec<_>, Vec<_>) = open.into_iter().partition(|(place, _)| place % 4 < 2);
    let ended = futures_util::future::join_all(ends.into_iter().map(async |(place, mut stream)| {
        while stream.chunk().await?.is_some() {
            ensure!(begun.elapsed() < AT_MOST, "stream {place} goes on after {:?}", begun.elapsed());
        }
        anyhow::Ok(())
    }));
    ended.await.into_iter().collect::<Result<Vec<()>>>()?;
    for (place, mut stream) in goes_on {
        ensure!(stream.chunk().await?.is_some(), "stream {place} has ended");
    }
    Ok(())
}
