//! The access log: exactly the fields that are promised, a line a request, and nothing in it that is a secret.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::python::App;
use palisade_test::{Palisade, WebSocket};
use serde_json::Value;

use crate::support::{starter, ways};

/// The fields of the specification, in its order, with the type of each; `?` may be null.
const FIELDS: &[(&str, &str)] = &[
    ("time", "time"),
    ("event", "access"),
    ("request_id", "text"),
    ("trace_id", "text?"),
    ("client", "text"),
    ("peer", "text"),
    ("host", "text"),
    ("method", "text"),
    ("path", "text"),
    ("query", "text"),
    ("route", "text"),
    ("protocol", "text"),
    ("status", "status"),
    ("code", "text?"),
    ("outcome", "outcome"),
    ("bytes_in", "number"),
    ("bytes_out", "number"),
    ("duration_ms", "number"),
    ("upstream", "text?"),
    ("upstream_ms", "number?"),
    ("user", "text?"),
    ("key_id", "text?"),
    ("policy_hash", "text"),
];

const OUTCOMES: [&str; 5] = ["passed", "refused", "would_refuse", "upstream_error", "client_gone"];

fn check(line: &Value) -> Result<()> {
    let fields = line.as_object().context("an object")?;
    let mut names: Vec<_> = fields.keys().map(String::as_str).collect();
    let mut expected: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "{line}");
    for (name, kind) in FIELDS {
        let value = &line[*name];
        let right = match *kind {
            "time" => value.as_str().is_some_and(|time| {
                let bytes = time.as_bytes();
                bytes.len() == 24 && bytes[10] == b'T' && bytes[19] == b'.' && bytes[23] == b'Z'
            }),
            "access" => value == "access",
            "status" => value.as_u64().is_some_and(|status| (100..600).contains(&status)),
            "outcome" => value.as_str().is_some_and(|outcome| OUTCOMES.contains(&outcome)),
            "text" => value.is_string(),
            "text?" => value.is_string() || value.is_null(),
            "number" => value.as_f64().is_some_and(|number| number >= 0.0),
            _ => value.is_null() || value.as_f64().is_some_and(|number| number >= 0.0),
        };
        ensure!(right, "`{name}` is no {kind}: {line}");
    }
    Ok(())
}

fn access_lines(gateway: &Palisade) -> Vec<Value> {
    gateway.log().into_iter().filter(|line| line["event"] == "access").collect()
}

#[tokio::test]
async fn one_line_a_request_with_exactly_the_promised_fields() -> Result<()> {
    let app = App::plausible().await?;
    let gateway = starter(&app.url()).await?;
    let mut requests = 0;
    for (way, client) in ways(&gateway)? {
        let host = gateway.address(if way == "http" { "http" } else { "https" })?.ip().to_string();
        for (method, target, body, status, bytes_out, outcome) in [
            (Method::GET, "/notes?limit=3", "", 200, Some(2), "passed"),
            (Method::POST, "/echo/deep/path?a=b", "five!", 200, None, "passed"),
            (Method::HEAD, "/file", "", 200, Some(0), "passed"),
            (Method::GET, "/file", "", 200, Some(1_000_000), "passed"),
            (Method::GET, "/download?size=3000000&length=false", "", 200, Some(3_000_000), "passed"),
            (Method::GET, "/status/404", "", 404, Some(14), "passed"),
            (Method::POST, "/nothing", "", 204, Some(0), "passed"),
            (Method::GET, "/.git/config", "", 404, None, "refused"),
            (Method::GET, "/.palisade/problems/limits.body", "", 200, None, "passed"),
        ] {
            let mut answer = client.request(method.clone(), target).body(body).send().await?;
            let got = answer.drain().await?;
            requests += 1;
            let line = gateway.access_of(&answer).await?;
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            assert_eq!(answer.status(), status, "{way} {target}");
            assert_eq!((&line["method"], &line["path"]), (&method.as_str().into(), &path.into()), "{line}");
            assert_eq!((&line["query"], &line["status"]), (&query.into(), &status.into()), "{line}");
            assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&body.len().into(), &got.into()), "{line}");
            assert_eq!(got, bytes_out.unwrap_or(got), "{way} {target}");
            assert_eq!(line["outcome"], outcome, "{line}");
            assert_eq!((&line["client"], &line["peer"]), (&"127.0.0.1".into(), &"127.0.0.1".into()), "{line}");
            assert_eq!(line["host"], host, "{line}");
            assert_eq!(line["protocol"], if way == "h2" { "HTTP/2" } else { "HTTP/1.1" }, "{line}");
            let own = path.starts_with("/.");
            assert_eq!((line["upstream"].is_null(), line["upstream_ms"].is_null()), (own, own), "{line}");
            ensure!(line["upstream_ms"].as_f64() <= line["duration_ms"].as_f64(), "{line}");
            assert_eq!(line["code"].is_null(), outcome != "refused", "{line}");
        }
    }
    let socket = WebSocket::open(&format!("{}/ws", gateway.websocket_url("http")?), None, &[]).await?;
    requests += 1;
    drop(socket);
    gateway.access(|line| line["status"] == 101).await?;
    gateway.terminate().await?;
    let lines = access_lines(&gateway);
    assert_eq!(lines.len(), requests);
    for line in &lines {
        check(line)?;
    }
    let mut ids: Vec<_> = lines.iter().map(|line| line["request_id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), requests, "two requests of one id");
    Ok(())
}

/// What must never be printed, in forms that clients send it in.
const PASSWORD: &str = "correct-horse-Battery-7";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.Zm9yLXRoZS10ZXN0cw";
const KEY: &str = "pal_live_0123456789abcdefghijklmnop";
const CARD: &str = "4111111111111111";
const CARD_APART: &str = "4111 1111 1111 1111";
const COOKIE: &str = "s-0123456789-secret-session";

#[tokio::test]
async fn no_secret_is_printed_whatever_happens() -> Result<()> {
    let app = App::plausible().await?;
    let raw = App::raw().await?;
    let nobody = format!("http://127.0.0.1:{}", palisade_test::ports::free()?);
    for url in [app.url(), raw.url(), nobody] {
        let gateway = starter(&url).await?;
        for (_, client) in ways(&gateway)? {
            for target in [
                format!("/echo?password={PASSWORD}&api_key={KEY}&card={CARD}"),
                format!("/echo?q={TOKEN}&n={CARD}&next=%2Fx%3Ftoken%3D{TOKEN}"),
                format!("/echo/{TOKEN}/{CARD}/{KEY}"),
                format!("/echo/4111%201111%201111%201111?pass%77ord={PASSWORD}&n=4111+1111+1111+1111"),
                format!("/status/500?access_token={TOKEN}"),
                format!("/bad/short?session={COOKIE}"),
                format!("/bad/head?client_secret={PASSWORD}"),
                format!("/.git/{TOKEN}?sig={KEY}"),
                format!("/%zz/{TOKEN}?password={PASSWORD}"),
                format!("/failure?code={PASSWORD}"),
            ] {
                for method in [Method::GET, Method::POST] {
                    let request = client
                        .request(method, &target)
                        .header("authorization", &format!("Bearer {TOKEN}"))
                        .header("x-api-key", KEY)
                        .header("cookie", &format!("session={COOKIE}"))
                        .header("referer", &format!("https://a.example/?token={TOKEN}"))
                        .header("user-agent", &format!("curl {PASSWORD}"))
                        .header("content-type", "application/json")
                        .body(format!(
                            "{{\"password\":\"{PASSWORD}\",\"card\":\"{CARD_APART}\",\"token\":\"{TOKEN}\"}}"
                        ));
                    if let Ok(mut answer) = request.send().await {
                        let _ = answer.drain().await;
                    }
                }
            }
        }
        // What is refused before there is a request.
        for mut wire in [gateway.wire_http().await?, gateway.wire().await?] {
            let odd = format!(
                "GET /echo?password={PASSWORD} HTTP/1.1\r\nHost: localhost\r\nHost: {TOKEN}\r\nAuthorization : Bearer {TOKEN}\r\n\r\n"
            );
            wire.send(odd).await?;
            let _ = wire.until_closed().await?;
        }
        let mut wire = gateway.wire_http().await?;
        wire.send(format!("GET {TOKEN} {PASSWORD}\r\n\r\n")).await?;
        let _ = wire.until_closed().await?;
        gateway.terminate().await?;
        let all = gateway.output().everything()?;
        ensure!(access_lines(&gateway).len() >= 50, "{} lines", access_lines(&gateway).len());
        for secret in [PASSWORD, TOKEN, KEY, CARD, CARD_APART, COOKIE, "4111+1111", "4111%201111"] {
            let line = all.lines().find(|line| line.contains(secret));
            ensure!(line.is_none(), "`{secret}` was printed: {}", line.unwrap_or_default());
        }
        // Also not by what the run left on disk.
        for line in access_lines(&gateway) {
            check(&line)?;
        }
    }
    Ok(())
}
