//! What the logs say: exactly the fields that are promised, a line a request, and nothing in them that is a secret.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::frames::{frame, kind};
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::wire::Message;
use palisade_test::{Body, Palisade, Upstream, WebSocket};
use serde_json::{Value, json};

use crate::support::{starter, ways, written};

/// The fields of the specification, in its order, with the type of each; `?` may be null.
const FIELDS: &[(&str, &str)] = &[
    ("time", "time"),
    ("event", "access"),
    ("request_id", "text"),
    ("trace_id", "trace?"),
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

/// Those of a refusal.
const REFUSAL: &[(&str, &str)] = &[
    ("time", "time"),
    ("event", "refusal"),
    ("level", "level"),
    ("owasp", "word"),
    ("control", "word"),
    ("code", "code"),
    ("mode", "mode"),
    ("policy", "text?"),
    ("request_id", "text?"),
    ("client", "text"),
    ("why", "text"),
];

/// What some refusals say beside them: texts.
const DETAILS: [&str; 28] = [
    "at",
    "body",
    "bytes",
    "content_type",
    "exclude",
    "header",
    "limit",
    "match",
    "msg",
    "name",
    "origin",
    "parameter",
    "part",
    "permission",
    "reason",
    "rule",
    "rules",
    "scope",
    "score",
    "status",
    "target",
    "template",
    "to",
    "upstream",
    "url",
    "user",
    "value",
    "violation",
];

/// Whether a value is of a kind.
fn is(kind: &str, value: &Value) -> bool {
    if let Some(kind) = kind.strip_suffix('?') {
        return value.is_null() || is(kind, value);
    }
    let text = value.as_str();
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match kind {
        "time" => text.is_some_and(|time| {
            let bytes = time.as_bytes();
            bytes.len() == 24 && bytes[10] == b'T' && bytes[19] == b'.' && bytes[23] == b'Z'
        }),
        "access" => value == "access",
        "refusal" => value == "request.refused" || value == "request.failed",
        "level" => value == "info" || value == "warn",
        "mode" => value == "block" || value == "detect",
        "word" => text.is_some_and(word),
        "code" => text.and_then(|text| text.split_once('.')).is_some_and(|(control, what)| word(control) && word(what)),
        "trace" => text.is_some_and(|trace| {
            trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        }),
        "status" => value.as_u64().is_some_and(|status| (100..600).contains(&status)),
        "outcome" => text.is_some_and(|outcome| OUTCOMES.contains(&outcome)),
        "text" => text.is_some(),
        "number" => value.as_f64().is_some_and(|number| number >= 0.0),
        _ => false,
    }
}

fn check(line: &Value) -> Result<()> {
    let fields = line.as_object().context("an object")?;
    let names: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "{line}");
    for (name, kind) in FIELDS {
        ensure!(is(kind, &line[*name]), "`{name}` is no {kind}: {line}");
    }
    Ok(())
}

fn check_refusal(line: &Value) -> Result<()> {
    for (name, kind) in REFUSAL {
        ensure!(line.get(name).is_some_and(|value| is(kind, value)), "`{name}` is no {kind}: {line}");
    }
    for (name, value) in line.as_object().context("an object")? {
        if !REFUSAL.iter().any(|(known, _)| known == name) {
            ensure!(DETAILS.contains(&name.as_str()) && value.is_string(), "`{name}`: {line}");
        }
    }
    let failed = line["event"] == "request.failed";
    ensure!((line["level"] == "warn") == failed, "{line}");
    // Where there is no request, and where no route is asked.
    let nobody_s = line["code"] == "limits.frames";
    ensure!(line["request_id"].is_null() == nobody_s, "{line}");
    ensure!(line["policy"].is_null() == (nobody_s || line["control"] == "admin"), "{line}");
    Ok(())
}

fn refusals(gateway: &Palisade) -> Vec<Value> {
    gateway.log().into_iter().filter(|line| is("refusal", &line["event"])).collect()
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

/// Each way in which a request, or a connection, is refused: the line has the same fields, whoever writes it.
#[tokio::test]
async fn every_refusal_has_exactly_the_promised_fields() -> Result<()> {
    let upstream = Upstream::answering(|request| match request.target() {
        "/fails" => page("text/plain", "the disk is full"),
        "/odd" => Reply::raw("220 mail.example.org ESMTP\r\n").close(),
        _ => Reply::text("fine"),
    })
    .await?;
    let policy = "[error_mask]\nmask = \"all\"\n\n[limits]\nbody = \"16B\"\n\n[rate_limit]\ndefault = \"off\"\n\n\
        [[route]]\npath = \"/watched/*\"\nlimits = { mode = \"detect\" }\n";
    let gateway = written(&upstream.url(), policy).await?;
    for (_, client) in ways(&gateway)? {
        for (method, target, body, status) in [
            (Method::GET, "/.git/config", "", 404),
            (Method::GET, "/x;a=1", "", 400),
            (Method::POST, "/x", "more than sixteen bytes", 413),
            (Method::POST, "/watched/x", "more than sixteen bytes", 200),
            (Method::GET, "/fails", "", 500),
            (Method::GET, "/odd", "", 502),
        ] {
            let mut answer = client.request(method, target).body(body).send().await?;
            answer.drain().await?;
            assert_eq!(answer.status(), status, "{target}");
        }
    }
    assert_eq!(gateway.http()?.host("other.example").get("/").send().await?.status(), 421);
    let mut wire = gateway.wire_http().await?;
    wire.send("GET / HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n").await?;
    wire.until_closed().await?;
    let admin = gateway.admin()?;
    assert_eq!(admin.get("/metrics").send().await?.status(), 401);
    assert_eq!(admin.get("/health").header("host", "other.example").send().await?.status(), 421);
    assert_eq!(admin.get("/nothing").send().await?.status(), 404);
    let mut flood = gateway.frames().await?;
    // It is closed in the middle of them.
    let _closed = flood.send((0..5000).flat_map(|_| frame(kind::PING, 0, 0, &[7; 8])).collect::<Vec<u8>>()).await;
    gateway.event("request.refused", |line| line["code"] == "limits.frames").await?;
    drop(flood);
    gateway.terminate().await?;

    let lines = refusals(&gateway);
    for line in &lines {
        check_refusal(line)?;
    }
    let seen: BTreeSet<(&str, &str)> =
        lines.iter().filter_map(|line| Some((line["code"].as_str()?, line["mode"].as_str()?))).collect();
    for (code, mode, event) in [
        ("integrity.hidden_file", "block", "request.refused"),
        ("integrity.path", "block", "request.refused"),
        ("integrity.framing", "block", "request.refused"),
        ("limits.body", "block", "request.refused"),
        ("limits.body", "detect", "request.refused"),
        ("limits.frames", "block", "request.refused"),
        ("hosts.unknown", "block", "request.refused"),
        ("admin.no_token", "block", "request.refused"),
        ("admin.host", "block", "request.refused"),
        ("admin.not_found", "block", "request.refused"),
        ("error_mask.upstream", "block", "request.failed"),
        ("upstream.bad_answer", "block", "request.failed"),
    ] {
        ensure!(seen.contains(&(code, mode)), "no `{code}` in `{mode}`: {seen:?}");
        ensure!(lines.iter().filter(|line| line["code"] == code).all(|line| line["event"] == event), "{code}: {event}");
    }
    let failed = lines.iter().find(|line| line["code"] == "error_mask.upstream").context("no error")?;
    assert_eq!((&failed["body"], &failed["status"]), (&"the disk is full".into(), &"500".into()), "{failed}");
    Ok(())
}

/// A whole answer that says that the application failed.
fn page(content_type: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 500 Oops\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
    Reply::raw(format!("{head}{body}"))
}

/// Whatever a client calls its trace: in the log is a valid one, or none; and the application gets what was sent.
#[tokio::test]
async fn the_trace_is_that_of_one_valid_header() -> Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let gateway = starter(&upstream.url()).await?;
    let valid = format!("00-{TRACE}-b7ad6b7169203331-01");
    for (way, client) in ways(&gateway)? {
        for (sent, trace) in [
            (vec![], None),
            (vec![valid.clone()], Some(TRACE)),
            (vec![format!("cc-{TRACE}-b7ad6b7169203331-01-more")], Some(TRACE)),
            (vec![format!("00-{TRACE}-b7ad6b7169203331-01-more")], None),
            (vec![format!("ff-{TRACE}-b7ad6b7169203331-01")], None),
            (vec![format!("00-{TRACE}-0000000000000000-01")], None),
            (vec![valid.to_uppercase()], None),
            (vec![format!("00-{PASSWORD}-b7ad6b7169203331-01\",\"user\":\"admin")], None),
            (vec![valid.clone(), valid.clone()], None),
        ] {
            let mut request = client.get("/traced");
            for header in &sent {
                request = request.header("traceparent", header);
            }
            let mut answer = request.send().await?;
            answer.drain().await?;
            let line = gateway.access_of(&answer).await?;
            check(&line)?;
            assert_eq!(line["trace_id"].as_str(), trace, "{way} {sent:?}: {line}");
            assert!(!line.to_string().contains(PASSWORD) && line["user"].is_null(), "{line}");
            let arrived = upstream.requests().into_iter().rfind(|request| request.target() == "/traced");
            let arrived = arrived.context("nothing arrived")?;
            assert_eq!(arrived.all("traceparent").collect::<Vec<_>>(), sent, "{way}");
        }
    }
    Ok(())
}

/// What must never be printed, in forms that clients send it in.
const PASSWORD: &str = "correct-horse-Battery-7";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.Zm9yLXRoZS10ZXN0cw";
const KEY: &str = "pal_live_0123456789abcdefghijklmnop";
const CARD: &str = "4111111111111111";
const CARD_APART: &str = "4111 1111 1111 1111";
const COOKIE: &str = "s-0123456789-secret-session";

/// Sends each secret in each place that clients have for it, by each way in. What is behind `/parameters` is let through.
async fn send_secrets(gateway: &Palisade, agent: &str) -> Result<()> {
    for (_, client) in ways(gateway)? {
        for target in [
            format!("/echo?password={PASSWORD}&api_key={KEY}&card={CARD}"),
            format!("/echo?q={TOKEN}&n={CARD}&next=%2Fx%3Ftoken%3D{TOKEN}"),
            format!("/echo?where=%7B%22password%22:%22{PASSWORD}%22%7D"),
            format!("/echo/{TOKEN}/{CARD}/{KEY}"),
            format!("/echo/4111%201111%201111%201111?pass%77ord={PASSWORD}&n=4111+1111+1111+1111"),
            format!("/status/500?access_token={TOKEN}"),
            format!("/bad/short?session={COOKIE}"),
            format!("/bad/head?client_secret={PASSWORD}"),
            format!("/.git/{TOKEN}?sig={KEY}"),
            format!("/%zz/{TOKEN}?password={PASSWORD}"),
            format!("/failure?code={PASSWORD}"),
            format!("/login;password={PASSWORD}"),
            format!("/notes;jsessionid={COOKIE};v=2/7"),
            format!("/login%3Bpassword%3D{PASSWORD}"),
            format!("/login;v=2;pass%77ord%3d{PASSWORD}"),
            format!("/parameters/login;password={PASSWORD}/7;v=2;token={COOKIE}"),
            format!("/parameters/login%3Bpassword%3D{PASSWORD}"),
        ] {
            for method in [Method::GET, Method::POST] {
                let request = client
                    .request(method, &target)
                    .header("authorization", &format!("Bearer {TOKEN}"))
                    .header("x-api-key", KEY)
                    .header("x-auth-token", COOKIE)
                    .header("cookie", &format!("theme=dark; session={COOKIE}; visitor={COOKIE}"))
                    .header("origin", &format!("https://user:{PASSWORD}@a.example"))
                    .header("referer", &format!("https://a.example/?token={TOKEN}"))
                    .header("user-agent", agent)
                    .header("content-type", "application/json")
                    .body(format!("{{\"password\":\"{PASSWORD}\",\"card\":\"{CARD_APART}\",\"token\":\"{TOKEN}\"}}"));
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
    Ok(())
}

/// Looks for each secret in a text.
fn search(what: &str, text: &str) -> Result<()> {
    for secret in [PASSWORD, TOKEN, KEY, CARD, CARD_APART, COOKIE, "4111+1111", "4111%201111"] {
        let line = text.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "`{secret}` is in {what}: {}", line.unwrap_or_default());
    }
    Ok(())
}

/// Looks in every file below a folder; returns how many there are.
fn search_files(folder: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            files += search_files(&path)?;
        } else if kind.is_file() {
            search(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path)?))?;
            files += 1;
        }
    }
    Ok(files)
}

/// Ends a gateway that got secrets and looks for them in what it says and said, and in what it left on disk.
async fn search_everything(gateway: &Palisade) -> Result<()> {
    let report = gateway.run(&["report", "--json"]).await?;
    ensure!(report.json()?["groups"].as_array().is_some_and(|groups| !groups.is_empty()), "{}", report.out);
    search("the report", &report.out)?;
    search("the report", &gateway.run(&["report"]).await?.out)?;
    // All lines before the last one's have come.
    let mut last = gateway.http()?.get("/last").send().await?;
    last.drain().await?;
    gateway.access_of(&last).await?;
    let is_hidden = |line: &Value| line["path"].as_str().is_some_and(|path| path.contains("[redacted]"));
    let hidden: Vec<Value> = access_lines(gateway).into_iter().filter(is_hidden).collect();
    ensure!(hidden.len() >= 10, "{} paths with secrets", hidden.len());
    for line in hidden.iter().rev().take(10) {
        let id = line["request_id"].as_str().context("an id")?;
        let explained = gateway.run(&["explain", id, "--json"]).await?;
        ensure!(explained.code == Some(0), "{}", explained.err);
        search("what was explained", &explained.out)?;
    }
    gateway.terminate().await?;
    search("the output", &gateway.output().everything()?)?;
    ensure!(search_files(&gateway.state())? > 0 && gateway.state().join("seen.json").is_file(), "nothing was kept");
    for line in access_lines(gateway) {
        check(&line)?;
    }
    for line in refusals(gateway) {
        check_refusal(&line)?;
    }
    Ok(())
}

#[tokio::test]
async fn no_secret_is_printed_whatever_happens() -> Result<()> {
    let app = App::plausible().await?;
    let raw = App::raw().await?;
    let nobody = format!("http://127.0.0.1:{}", palisade_test::ports::free()?);
    for url in [app.url(), raw.url(), nobody] {
        let gateway = starter(&url).await?;
        send_secrets(&gateway, &format!("curl {PASSWORD}")).await?;
        search_everything(&gateway).await?;
        ensure!(access_lines(&gateway).len() >= 100, "{} lines", access_lines(&gateway).len());
    }
    Ok(())
}

/// An application that fails prints its request, as frameworks do in development: as it came, as JSON, as Python shows it,
/// and escaped in a page.
fn repeats(request: &Message) -> String {
    let body = request.text();
    let wire: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let json = json!({ "method": request.method(), "url": request.target(), "headers": request.headers, "body": body });
    let python: Vec<String> = request.headers.iter().map(|(name, value)| format!("(b'{name}', b'{value}')")).collect();
    let escaped = json.to_string().replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#x27;");
    format!(
        "<h1>it broke</h1><pre>{} {}\n{wire}\n{body}\n</pre><p>{json}</p><p>[{}]</p><p>{escaped}</p>",
        request.method(),
        request.target(),
        python.join(", ")
    )
}

/// The one place where something of a body reaches the log: the error of an application that is replaced. What it repeats of
/// its request is without secrets there, and so is what `palisade init` reads.
#[tokio::test]
async fn no_secret_is_printed_of_an_application_that_repeats_its_request() -> Result<()> {
    let upstream = Upstream::answering(|request| match request.target().starts_with("/fine/") {
        true => Reply::text("fine"),
        false => page("text/html", &repeats(request)),
    })
    .await?;
    let policy = "[error_mask]\nmask = \"all\"\n\n[limits]\nmode = \"detect\"\nbody = \"64B\"\n\n\
        [csrf]\nmode = \"detect\"\n\n[headers]\nurl_tokens = \"detect\"\n\n[rate_limit]\ndefault = \"off\"\n\n\
        [[route]]\npath = \"/parameters/*\"\npath_parameters = true\n\n\
        [[route]]\npath = \"/fine/*\"\npath_parameters = true\nlimits = { body = \"2MiB\" }\n";
    let gateway = written(&upstream.url(), policy).await?;
    send_secrets(&gateway, "curl").await?;
    // What is larger than a strict policy allows is kept with its path.
    for target in [format!("/fine/{TOKEN}"), format!("/fine/x;password={PASSWORD}")] {
        let mut answer = gateway.https()?.post(&target).body(Body::repeated("x", 1_200_000)).send().await?;
        assert_eq!(answer.text().await?, "fine");
    }
    let arrived = upstream.requests();
    for secret in [PASSWORD, TOKEN, KEY, COOKIE] {
        ensure!(arrived.iter().any(|request| repeats(request).contains(secret)), "`{secret}` did not arrive");
    }
    search_everything(&gateway).await?;

    // It was there to be found.
    let bodies: Vec<Value> = refusals(&gateway).into_iter().map(|line| line["body"].clone()).collect();
    let repeated =
        |body: &&Value| body.as_str().is_some_and(|body| body.contains("it broke") && body.contains("x-api-key"));
    ensure!(bodies.iter().filter(repeated).count() >= 30, "{} bodies", bodies.iter().filter(repeated).count());
    let seen: Value = serde_json::from_slice(&std::fs::read(gateway.state().join("seen.json"))?)?;
    ensure!(seen["groups"].as_array().is_some_and(|groups| !groups.is_empty()), "{seen}");
    let large: Vec<&Value> = seen["large_bodies"].as_array().context("no large bodies")?.iter().collect();
    let hidden = |large: &&Value| large["path"] == "/fine/{value}" || large["path"] == "/fine/*";
    ensure!(large.iter().all(hidden) && large.len() == 2, "{seen}");
    Ok(())
}
