//! Connections to the app that end at the wrong moment: no request is lost, none is sent twice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use palisade_test::python::App;
use palisade_test::upstream::{Reply, Step};
use palisade_test::{Upstream, eventually};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{SOON, Seeded, starter, ways};

const CLIENTS: u64 = 500;
const POSTS: u64 = 20;

/// The worst that can be done to a pool: pauses round the 5 seconds after which uvicorn closes an idle connection.
#[tokio::test]
async fn posts_with_pauses_like_the_apps_own_keep_alive() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = match number % 3 {
            0 => gateway.http()?,
            1 => gateway.https()?,
            _ => gateway.https()?.http2(),
        };
        clients.spawn(async move {
            let mut random = Seeded(number);
            let mut failed = Vec::new();
            let mut connection = client.connect().await?;
            for post in 0..POSTS {
                // The pause is the point of this test.
                tokio::time::sleep(Duration::from_millis(4000 + random.below(2001))).await;
                let answer = connection.post(&format!("/count/{number}-{post}")).body("x").send().await;
                match answer {
                    Ok(mut answer) if answer.status() == 200 => drop(answer.drain().await?),
                    Ok(answer) => failed.push(format!("{number}-{post}: {}", answer.status())),
                    Err(error) => {
                        failed.push(format!("{number}-{post}: {error:#}"));
                        connection = client.connect().await?;
                    }
                }
            }
            anyhow::Ok(failed)
        });
    }
    let mut failed = Vec::new();
    while let Some(client) = clients.join_next().await {
        failed.extend(client??);
    }
    let counted = app.client()?.get("/count").send().await?.json().await?;
    println!("{} POSTs in {:.0} s, {} failed", CLIENTS * POSTS, started.elapsed().as_secs_f64(), failed.len());
    ensure!(failed.is_empty(), "{} lost, such as {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert_eq!(counted, json!({ "ids": CLIENTS * POSTS, "posts": CLIENTS * POSTS, "more_than_once": [] }));
    Ok(())
}

/// An app that closes after each answer without having said so: the next request finds that out before it is sent, once
/// the kernel knows. (A request that is under way by then can't: see [`only_what_may_be_repeated_is`].)
#[tokio::test]
async fn an_app_that_closes_after_each_answer() -> Result<()> {
    for end in [Step::Close, Step::Reset] {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let upstream = Upstream::answering(move |_| Reply::steps([Step::Send(answer.into()), end.clone()])).await?;
        let gateway = starter(&upstream.url()).await?;
        let mut sent = 0;
        for (way, client) in ways(&gateway)? {
            let mut connection = client.connect().await?;
            for number in 0..200 {
                let mut answer = connection.post(&format!("/{way}/{number}")).body("once").send().await?;
                assert_eq!((answer.status(), &*answer.text().await?), (200, "ok"), "{way} {number}");
                sent += 1;
                eventually(SOON, "the gateway's kernel knows", async || upstream.connected().is_ok_and(|n| n == 0))
                    .await?;
            }
        }
        let mut targets: Vec<_> = upstream.requests().iter().map(|request| request.target().to_owned()).collect();
        assert_eq!(targets.len(), sent, "sent twice");
        targets.dedup();
        assert_eq!(targets.len(), sent, "sent twice");
    }
    Ok(())
}

/// An app that takes a request on a kept connection and closes without an answer: what may have been done is not done
/// again, what may be repeated is.
#[tokio::test]
async fn only_what_may_be_repeated_is() -> Result<()> {
    for (method, again) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false), (Method::PATCH, false)] {
        let upstream = Upstream::script([
            Step::ReadHead,
            Step::Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst".into()),
            Step::ReadHead,
            Step::Close,
        ])
        .await?;
        let gateway = starter(&upstream.url()).await?;
        let mut connection = gateway.https()?.connect().await?;
        assert_eq!(connection.get("/").send().await?.text().await?, "first");
        let mut second = connection.request(method.clone(), "/second").send().await?;
        let seconds = upstream.requests().iter().filter(|request| request.target() == "/second").count();
        if again {
            assert_eq!((second.status(), &*second.text().await?, seconds), (200, "first", 2), "{method}");
        } else {
            assert_eq!((second.status(), seconds), (502, 1), "{method}");
            assert_eq!(second.json().await?["code"], "upstream.closed", "{method}");
        }
        // On a fresh connection nothing is repeated, whatever the method.
        let upstream = Upstream::script([Step::ReadHead, Step::Close]).await?;
        let gateway = starter(&upstream.url()).await?;
        assert_eq!(gateway.https()?.request(method.clone(), "/").send().await?.status(), 502, "{method}");
        assert_eq!(upstream.requests().len(), 1, "{method}");
    }
    Ok(())
}

/// An app that is started anew: the connections to the old one are gone, and no request notices.
#[tokio::test]
async fn an_app_that_was_away_for_a_moment() -> Result<()> {
    let port = palisade_test::ports::free()?.to_string();
    let options = ["--port", &*port];
    let app = App::uvicorn("plausible", &options).await?;
    let gateway = starter(&format!("http://127.0.0.1:{port}")).await?;
    let client = gateway.https()?;
    let mut connection = client.connect().await?;
    assert_eq!(
        connection.post("/count/before").body("x").send().await?.text().await?,
        "{\"id\":\"before\",\"count\":1}"
    );
    app.process().stop(SOON).await?;
    assert_eq!(connection.post("/count/during").body("x").send().await?.status(), 502);
    let _app = App::uvicorn("plausible", &options).await?;
    let mut after = connection.post("/count/after").body("x").send().await?;
    assert_eq!(after.text().await?, "{\"id\":\"after\",\"count\":1}");
    Ok(())
}
