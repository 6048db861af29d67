//! gRPC through the gateway, between the server and the client of its own library. Guide section 21.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::ca::Authority;
use palisade_test::frames::{END_HEADERS, END_STREAM, Ended, fields, frame, kind};
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::{Palisade, Upstream, paths, provision};
use serde_json::{Value, json};

/// Calls and what came of them.
type Outcomes = BTreeMap<String, Value>;

const ROUTES: &str = r#"
[[route]]
path = "/test.Echo/*"
methods = ["POST"]
upstream = "grpc"
grpc = true

[[route]]
path = "/inside.Echo/*"
upstream = "grpc"
grpc = true
address = ["10.0.0.0/8"]

[[route]]
path = "/limited.Echo/*"
upstream = "grpc"
grpc = true
rate_limit = "1/day"

[[route]]
path = "/away.Echo/*"
upstream = "away"
grpc = true

[[route]]
path = "/other.Echo/*"
upstream = "grpc"
"#;

fn policy(http: &str, grpc: &str, more: &str) -> String {
    format!(
        "[server]\nmode = \"development\"\n[upstream]\nurl = \"{http}\"\nopenapi = \"off\"\n\
         [upstreams.grpc]\nurl = \"{grpc}\"\nresponse_timeout = \"2s\"\n{more}\n\
         [upstreams.away]\nurl = \"http://127.0.0.1:9\"\n{ROUTES}"
    )
}

/// Runs the client's calls against the gateway.
async fn call(gateway: &Palisade, calls: &[&str]) -> Result<Outcomes> {
    let mut command = tokio::process::Command::new(provision::python_program("python"));
    command.arg(paths::tests("apps/grpc/client.py")).arg(gateway.address("https")?.to_string());
    command.arg(gateway.ca()?).args(calls).stdin(Stdio::null()).kill_on_drop(true);
    let ran =
        tokio::time::timeout(Duration::from_secs(120), command.output()).await.context("calls take too long")??;
    let (said, wrong) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{said}{wrong}\n{}", gateway.output().tail());
    let lines = said.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line)?;
        Ok((line["call"].as_str().unwrap_or_default().to_owned(), line["outcome"].take()))
    });
    lines.collect()
}

fn metadata(outcome: &Value, name: &str) -> Vec<String> {
    let all = outcome["metadata"].as_array().into_iter().flatten();
    all.filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn calls_of_every_kind_pass() -> Result<()> {
    let plain = Upstream::answering(|_| Reply::text("hello")).await?;
    let app = App::grpc(None).await?;
    let gateway = Palisade::serve().policy(&policy(&plain.url(), &app.url(), "")).start().await?;
    let calls = ["say", "count", "total", "chat", "fail", "deadline", "cancel", "many", "busy"];
    let outcomes = call(&gateway, &calls).await?;
    let said = &outcomes["say"];
    ensure!(said["said"] == "hello", "{said}");
    for (name, value) in
        [("x-mine", "a"), ("x-mine-bin", "01fe"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")]
    {
        ensure!(metadata(said, name) == [value], "{name}: {said}");
    }
    let ours = metadata(said, "x-request-id");
    ensure!(ours.len() == 1 && said["first"]["x-request-id"] == *ours[0], "{said}");
    for gone in ["x-forwarded-user", "x-real-ip"] {
        ensure!(metadata(said, gone).is_empty(), "{gone}: {said}");
    }
    ensure!(said["first"]["x-first"] == "1", "{said}");
    ensure!(said["last"] == json!({ "x-last": "2", "x-bytes-bin": "00ff" }), "{said}");
    let security = &said["first"]["x-content-type-options"];
    ensure!(security == "nosniff", "every answer has the headers: {said}");
    ensure!(outcomes["count"] == json!([300, 15_000_000]), "{}", outcomes["count"]);
    ensure!(outcomes["total"] == json!([100, 10_000_000]), "{}", outcomes["total"]);
    let talk: Vec<String> = (0..20).map(|number| format!("MESSAGE {number}")).collect();
    ensure!(outcomes["chat"] == json!(talk), "{}", outcomes["chat"]);
    let wrong = "100 % wrong: \u{e4}";
    for code in ["NOT_FOUND", "UNAUTHENTICATED", "DATA_LOSS"] {
        ensure!(outcomes["fail"][code] == json!([code, wrong, "asked for"]), "{}", outcomes["fail"]);
    }
    ensure!(
        outcomes["deadline"][0][0] == "DEADLINE_EXCEEDED" && outcomes["deadline"][1] == 1,
        "{}",
        outcomes["deadline"]
    );
    ensure!(outcomes["cancel"] == json!(["watching", 1]), "{}", outcomes["cancel"]);
    ensure!(outcomes["many"] == (0..400).sum::<u32>(), "{}", outcomes["many"]);
    ensure!(outcomes["busy"] == 5000, "{}", outcomes["busy"]);
    let line = gateway.access(|line| line["path"] == "/test.Echo/Chat").await?;
    ensure!(line["protocol"] == "HTTP/2" && line["outcome"] == "passed" && line["upstream"] == "grpc", "{line}");
    ensure!(plain.requests().is_empty());
    Ok(())
}

#[tokio::test]
async fn refusals_are_statuses_of_grpc() -> Result<()> {
    let plain = Upstream::answering(|_| Reply::text("hello")).await?;
    let app = App::grpc(None).await?;
    let gateway = Palisade::serve().policy(&policy(&plain.url(), &app.url(), "")).start().await?;
    let outcomes = call(&gateway, &["large", "large_later", "refused", "silent"]).await?;
    let is = |outcome: &Value, status: &str, code: &str| {
        let text = outcome[1].as_str().unwrap_or_default();
        ensure!(outcome[0] == status && text.starts_with(&format!("{code}: ")), "{status} {code}: {outcome}");
        Ok(())
    };
    ensure!(outcomes["large"][0] == true, "{}", outcomes["large"]);
    is(&outcomes["large"][1], "RESOURCE_EXHAUSTED", "limits.body")?;
    is(&outcomes["large_later"][0], "RESOURCE_EXHAUSTED", "limits.body")?;
    ensure!(outcomes["large_later"][1] == json!(["SMALL"]), "{}", outcomes["large_later"]);
    let refused = &outcomes["refused"];
    is(&refused["/other.Echo/Say"], "UNIMPLEMENTED", "integrity.grpc")?;
    is(&refused["/inside.Echo/Say"], "PERMISSION_DENIED", "access.address")?;
    is(&refused["/away.Echo/Say"], "UNAVAILABLE", "upstream.unreachable")?;
    ensure!(refused["/limited.Echo/Say"] == "passed", "{refused}");
    is(&refused["/limited.Echo/Count"], "RESOURCE_EXHAUSTED", "rate_limit.exceeded")?;
    is(&outcomes["silent"], "DEADLINE_EXCEEDED", "upstream.timeout")?;
    let line = gateway.access(|line| line["path"] == "/other.Echo/Say").await?;
    ensure!((&line["code"], &line["outcome"]) == (&json!("integrity.grpc"), &json!("refused")), "{line}");
    let explained = gateway.run(&["explain", line["request_id"].as_str().unwrap_or_default()]).await?;
    ensure!(explained.out.contains("grpc = true"), "{explained:?}");
    let line = gateway.access(|line| line["path"] == "/test.Echo/Chat").await?;
    ensure!((&line["code"], &line["outcome"]) == (&json!("limits.body"), &json!("refused")), "{line}");
    // What only looks like it.
    for (target, headers, status, code) in [
        ("/test.Echo/Say", "Content-Type: application/grpc\r\n", 415, Some("integrity.grpc")),
        ("/other.Echo/Say", "Content-Type: application/grpc+proto\r\n", 415, Some("integrity.grpc")),
        ("/web", "Content-Type: application/grpc\r\n", 415, Some("integrity.grpc")),
        ("/web", "Content-Type: application/json\r\nContent-Type: Application/gRPC\r\n", 415, Some("integrity.grpc")),
        ("/web", "Content-Type: application/grpc-web+proto\r\n", 200, None),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 0\r\n\r\n");
        let answer = gateway.wire_http().await?.ask(request).await?;
        ensure!(answer.status() == status, "{target} {headers}: {answer:?}");
        if let Some(code) = code {
            ensure!(answer.json()?["code"] == code, "{target} {headers}: {answer:?}");
        }
    }
    ensure!(plain.requests().len() == 1, "grpc-web is plain HTTP: {:?}", plain.requests());
    let mut frames = gateway.frames().await?;
    for (stream, method, types) in
        [(1, "GET", &["application/grpc"][..]), (3, "POST", &["application/grpc", "application/json"])]
    {
        let mut head =
            vec![(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", "/test.Echo/Say")];
        head.extend(types.iter().map(|kind| ("content-type", *kind)));
        let from = gateway.output().position();
        frames.send(frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &fields(&head))).await?;
        ensure!(matches!(frames.end_of(stream).await?, Ended::Answer { status: 200, .. }), "{method} {types:?}");
        let line = gateway.event_since(from, "request.refused", |line| line["code"] == "integrity.grpc").await?;
        ensure!(line["policy"] != "default", "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn the_application_is_reached_over_tls_too() -> Result<()> {
    let plain = Upstream::answering(|_| Reply::text("hello")).await?;
    let authority = Authority::new("grpc")?;
    let app = App::grpc(Some(&authority.server(&["127.0.0.1"])?)).await?;
    let start = async |url: &str, ca: &Authority| {
        let policy = policy(&plain.url(), url, "ca = \"ca.pem\"");
        Palisade::serve().policy(&policy).file("ca.pem", ca.pem()).start().await
    };
    let gateway = start(&app.url(), &authority).await?;
    let outcomes = call(&gateway, &["plain", "chat"]).await?;
    ensure!(outcomes["plain"] == "hello" && outcomes["chat"][19] == "MESSAGE 19", "{outcomes:?}");
    // Another authority's, and an application that does not speak HTTP/2.
    let gateway = start(&app.url(), &Authority::new("other")?).await?;
    let outcome = &call(&gateway, &["plain"]).await?["plain"];
    ensure!(
        outcome[0] == "UNAVAILABLE" && outcome[1].as_str().is_some_and(|text| text.starts_with("upstream.tls")),
        "{outcome}"
    );
    let old = Upstream::answering_tls(&authority.server(&["127.0.0.1"])?, |_| Reply::text("hello")).await?;
    let gateway = start(&old.url(), &authority).await?;
    let outcome = &call(&gateway, &["plain"]).await?["plain"];
    ensure!(
        outcome[0] == "UNAVAILABLE" && outcome[1].as_str().is_some_and(|text| text.starts_with("upstream.tls")),
        "{outcome}"
    );
    let policy = policy(&plain.url(), &plain.url(), "");
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let outcome = &call(&gateway, &["plain"]).await?["plain"];
    ensure!(outcome[0] == "UNAVAILABLE", "{outcome}");
    Ok(())
}
