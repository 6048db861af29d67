//! `access = "openapi"`: FastAPI's own document, as FastAPI writes it, says whom the operations are for. The commands are
//! those of `docs/src/01-auth/openapi.md`.

use anyhow::{Context as _, Result, ensure};
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::upstream::Reply;
use palisade_test::websocket::{Message, WebSocket, refusal};
use palisade_test::{Client, Palisade, Upstream, eventually, on_both};
use serde_json::{Value, json};

use crate::support::SOON;

const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// In production what opens waits; TLS by a certificate of its own.
fn policy(url: &str) -> String {
    format!(
        "[server]\nhosts = [\"localhost\"]\nstate = \".palisade\"\nhttps = \"127.0.0.1:0\"\nhttp = \"off\"\n\
         admin = \"127.0.0.1:0\"\n[tls]\nself_signed = true\n[upstream]\nurl = \"{url}\"\n\
         [auth]\nissuer = \"https://localhost\"\nregistration = \"open\"\naccess = \"openapi\"\n\
         [[route]]\npath = \"/admin/*\"\nroles = [\"admin\"]\n"
    )
}

fn development(url: &str, more: &str) -> String {
    crate::support::written_policy(url, &format!("{more}\n[auth]\nregistration = \"open\"\naccess = \"openapi\"\n"))
}

/// Whoever may ask.
struct Callers {
    full: String,
    reads: String,
    writes: String,
    key: String,
    empty_key: String,
}

async fn token(client: &Client, scope: &str) -> Result<String> {
    let body = format!("grant_type=password&username=ann&password={}&scope={scope}", PASSWORD.replace(' ', "+"));
    let request = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(body);
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    Ok(format!("Bearer {}", answer.json().await?["access_token"].as_str().context("no token")?))
}

async fn callers(gateway: &Palisade, client: &Client) -> Result<Callers> {
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    let mut made = client.post("/auth/register").json(&body).send().await?;
    ensure!(made.status() == 201, "{}", made.text().await?);
    let key = async |scope: &str| -> Result<String> {
        let ran = gateway.run(&["key", "create", "--user", "ann", "--scope", scope, "--json"]).await?;
        Ok(ran.json()?["key"].as_str().context("a key")?.to_owned())
    };
    Ok(Callers {
        full: token(client, "").await?,
        reads: token(client, "items:read").await?,
        writes: token(client, "items:read+items:write").await?,
        key: key("items:read").await?,
        empty_key: key("other").await?,
    })
}

impl Callers {
    fn all(&self) -> [Option<(&'static str, &str)>; 6] {
        [
            None,
            Some(("authorization", &self.full)),
            Some(("authorization", &self.reads)),
            Some(("authorization", &self.writes)),
            Some(("x-api-key", &self.key)),
            Some(("x-api-key", &self.empty_key)),
        ]
    }
}

async fn status(client: &Client, method: &str, path: &str, credential: Option<(&str, &str)>) -> Result<u16> {
    let mut request = client.request(method.parse()?, path);
    if let Some((name, value)) = credential {
        request = request.header(name, value);
    }
    Ok(request.send().await?.status())
}

/// Waits until the gateway has read a document of the application.
async fn read(gateway: &Palisade, position: usize) -> Result<Value> {
    gateway.event_since(position, "openapi.read", |_| true).await
}

on_both!(fastapis_document_protects_its_operations, in_production_what_opens_waits_for_somebody);

async fn fastapis_document_protects_its_operations(kept: Kept) -> Result<()> {
    let app = App::uvicorn("operations", &[]).await?;
    let gateway = kept.under(Palisade::serve(), &development(&app.url(), "")).start().await?;
    read(&gateway, 0).await?;
    let client = gateway.https()?;
    let callers = callers(&gateway, &client).await?;
    //                              nobody full reads writes key other
    let table: [(&str, &str, [u16; 6]); 20] = [
        ("GET", "/open", [200, 200, 200, 200, 200, 200]),
        ("HEAD", "/open", [405, 405, 405, 405, 405, 405]),
        ("POST", "/open", [401, 403, 403, 403, 403, 403]),
        ("GET", "/me", [401, 200, 403, 403, 403, 403]),
        ("GET", "/me/", [401, 307, 403, 403, 403, 403]),
        ("GET", "/ME", [401, 403, 403, 403, 403, 403]),
        ("GET", "/items", [401, 200, 200, 200, 200, 403]),
        ("POST", "/items", [401, 200, 403, 200, 403, 403]),
        ("DELETE", "/items", [401, 403, 403, 403, 403, 403]),
        ("GET", "/items/7", [401, 200, 200, 200, 200, 403]),
        ("GET", "/items/%37", [401, 200, 200, 200, 200, 403]),
        ("GET", "//items//7", [401, 200, 200, 200, 200, 403]),
        ("GET", "/x/../items/7", [401, 200, 200, 200, 200, 403]),
        // FastAPI runs the handler of `/items/{item}`.
        ("GET", "/items/new", [401, 200, 200, 200, 200, 403]),
        ("GET", "/items/7/x", [401, 403, 403, 403, 403, 403]),
        ("GET", "/machines", [401, 403, 403, 403, 200, 200]),
        ("GET", "/either", [401, 200, 200, 200, 200, 200]),
        ("GET", "/hidden", [401, 403, 403, 403, 403, 403]),
        ("GET", "/files/a", [200, 200, 200, 200, 200, 200]),
        // The document knows nothing of parameters with slashes in them.
        ("GET", "/files/a/b", [401, 403, 403, 403, 403, 403]),
    ];
    for (method, path, expected) in table {
        let mut got = Vec::new();
        for credential in callers.all() {
            got.push(status(&client, method, path, credential).await?);
        }
        assert_eq!(got, expected, "{method} {path}");
    }
    let mut refused = client.get("/hidden").header("authorization", &callers.full).send().await?;
    assert_eq!(refused.json().await?["code"], "auth.undeclared");
    let refused = client.get("/items").header("x-api-key", &callers.empty_key).send().await?;
    let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
    assert_eq!(challenge, "Bearer error=\"insufficient_scope\", scope=\"items:read\"");
    // A path that is no path is refused before anybody looks at the document.
    for odd in ["/items%2F7", "/items/..%2fopen", "/items;x/7", "/open%00", "/items/%252e%252e/open"] {
        assert_eq!(status(&client, "GET", odd, None).await?, 400, "{odd}");
    }
    // The document itself is no operation; a handshake needs a login.
    assert_eq!(status(&client, "GET", "/openapi.json", None).await?, 401);
    assert_eq!(status(&client, "GET", "/openapi.json", Some(("authorization", &callers.full))).await?, 200);
    let (url, trust) = (format!("{}/socket", gateway.websocket_url("https")?), gateway.trust()?);
    let error = WebSocket::open(&url, Some(&trust), &[]).await.err().context("a handshake without a login")?;
    assert_eq!(refusal(&error).map(|answer| answer.status().as_u16()), Some(401));
    let mut socket = WebSocket::open(&url, Some(&trust), &[("authorization", &callers.full)]).await?;
    assert_eq!(socket.next().await?, Some(Message::text("hello")));
    let shown = gateway.run(&["openapi", "access", "--json"]).await?.json()?;
    let operations = shown[0]["operations"].as_array().context("operations")?;
    let of = |method: &str, path: &str| {
        operations.iter().find(|one| one["method"] == method && one["path"] == path).map(|one| one["for"].clone())
    };
    assert_eq!(of("POST", "/items"), Some(json!("a login with items:read items:write")));
    assert_eq!(of("GET", "/open"), Some(json!("everybody")));
    assert_eq!(of("GET", "/either"), Some(json!("a login with items:read, or an API key")));
    Ok(())
}

async fn in_production_what_opens_waits_for_somebody(kept: Kept) -> Result<()> {
    let app = App::uvicorn("operations", &[]).await?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("secrets.key");
    let gateway = kept.under(Palisade::serve().secrets_key(&key), &policy(&app.url())).start().await?;
    let first = read(&gateway, 0).await?;
    let waiting = first["waiting"].as_str().and_then(|count| count.parse::<u64>().ok());
    ensure!(waiting >= Some(2), "{first}");
    let client = gateway.https()?.host("localhost");
    let callers = callers(&gateway, &client).await?;
    let full = Some(("authorization", callers.full.as_str()));
    let reads = Some(("authorization", callers.reads.as_str()));
    // Nothing opens by itself; what asks for something holds at once.
    assert_eq!(status(&client, "GET", "/open", None).await?, 401);
    assert_eq!(status(&client, "GET", "/open", full).await?, 200);
    assert_eq!(status(&client, "GET", "/items", reads).await?, 200);
    assert_eq!(status(&client, "GET", "/admin/report", full).await?, 403, "a route counts more");
    let shown = gateway.run(&["openapi", "access"]).await?;
    ensure!(shown.code == Some(1) && shown.out.contains("WAITING: everybody"), "{shown:?}");
    let wrong = gateway.run(&["openapi", "accept", "GET /nothing"]).await?;
    ensure!(wrong.code == Some(2) && wrong.err.contains("does not wait"), "{wrong:?}");
    let accepted = gateway.run(&["openapi", "accept", "GET /open", "--json"]).await?.json()?;
    assert_eq!(accepted["accepted"], json!(["GET /open"]));
    assert_eq!(status(&client, "GET", "/open", None).await?, 200);
    assert_eq!(status(&client, "GET", "/files/a", None).await?, 401, "that one only");
    gateway.event("openapi.accepted", |line| line["operation"] == "GET /open").await?;

    // A deployment that opens something, and one that closes something.
    let looser = deployed("looser").await?;
    let position = gateway.output().position();
    gateway.write_policy(&(policy(&looser.url()) + &kept.sections()))?;
    gateway.event_since(position, "openapi.waits", |line| line["operation"] == "GET /items").await?;
    assert_eq!(status(&client, "GET", "/items", None).await?, 401, "as it was");
    assert_eq!(status(&client, "GET", "/items", Some(("x-api-key", &callers.empty_key))).await?, 403);
    assert_eq!(status(&client, "GET", "/open", None).await?, 200, "what was accepted stays");
    let stricter = deployed("stricter").await?;
    let position = gateway.output().position();
    gateway.write_policy(&(policy(&stricter.url()) + &kept.sections()))?;
    gateway.event_since(position, "openapi.read", |_| true).await?;
    assert_eq!(status(&client, "GET", "/open", None).await?, 401, "at once");
    assert_eq!(status(&client, "GET", "/later", full).await?, 200);

    // A restart remembers what was accepted and what was asked for, also while the application is away.
    drop((app, looser, stricter));
    let before = gateway.directory().join(".palisade/openapi/upstream.access.json");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&before)?.permissions().mode() & 0o777, 0o600);
    let away = policy("http://127.0.0.1:9") + &kept.sections();
    gateway.write_policy(&away)?;
    gateway.terminate().await?;
    let again = Palisade::serve().after(&gateway).policy(&away).secrets_key(&key).start().await?;
    let client = again.https()?.host("localhost");
    assert_eq!(status(&client, "GET", "/open", None).await?, 401);
    assert_eq!(status(&client, "GET", "/hidden", full).await?, 403, "the last good document");
    assert_eq!(status(&client, "GET", "/later", full).await?, 502, "let in, and nobody is there");
    Ok(())
}

/// The same application after a deployment.
async fn deployed(variant: &str) -> Result<App> {
    let file = tempfile::Builder::new().suffix(".env").tempfile()?;
    std::fs::write(file.path(), format!("VARIANT={variant}\n"))?;
    App::uvicorn("operations", &["--env-file", &file.path().to_string_lossy()]).await
}

/// What an application, or whoever got hold of it, may answer instead of a document: nothing passes, nothing is asked for
/// elsewhere. Nobody logs in here.
#[tokio::test]
async fn without_a_document_nothing_passes() -> Result<()> {
    let elsewhere = Upstream::answering(|_| Reply::text("{}")).await?;
    let there = elsewhere.url();
    let hostile: [(&str, Reply); 7] = [
        ("application answers 404", Reply::raw("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")),
        ("application answers 500", Reply::raw("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")),
        (
            "application answers 302",
            Reply::raw(format!("HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: {there}\r\n\r\n")),
        ),
        ("cannot be read", Reply::text("<!doctype html>")),
        ("reference", Reply::text(&format!(r#"{{"openapi":"3.1.0","paths":{{"/a":{{"$ref":"{there}"}}}}}}"#))),
        ("cannot be read", Reply::text(&format!(r#"{{"openapi":"3.1.0","x":{}"#, "[".repeat(100_000)))),
        ("larger than", Reply::text(&format!("{{\"openapi\":\"{}\"", "3".repeat(17 << 20)))),
    ];
    for (reason, reply) in hostile {
        let upstream = Upstream::answering(move |_| reply.clone()).await?;
        let gateway = Palisade::serve().policy(&development(&upstream.url(), "")).start().await?;
        let said = gateway.event("openapi.away", |_| true).await?;
        ensure!(said["reason"].as_str().is_some_and(|why| why.contains(reason)), "{reason}: {said}");
        let client = gateway.https()?;
        let mut answer = client.get("/a").send().await?;
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{reason}");
        assert_eq!(answer.json().await?["code"], "auth.document");
    }
    ensure!(elsewhere.requests().is_empty(), "somebody was asked who is not the application");
    // Once it was read, the last good one stays.
    let good = r#"{"openapi":"3.1.0","paths":{"/a":{"get":{}}}}"#;
    let bad = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let broken = std::sync::Arc::clone(&bad);
    let upstream = Upstream::answering(move |_| {
        Reply::text(if broken.load(std::sync::atomic::Ordering::Relaxed) { "{" } else { good })
    })
    .await?;
    let gateway = Palisade::serve().policy(&development(&upstream.url(), "")).start().await?;
    read(&gateway, 0).await?;
    let client = gateway.https()?;
    assert_eq!(status(&client, "GET", "/a", None).await?, 200);
    bad.store(true, std::sync::atomic::Ordering::Relaxed);
    eventually(SOON, "the broken document is noticed", async || {
        gateway.log().iter().any(|line| line["event"] == "openapi.away").then_some(())
    })
    .await?;
    assert_eq!(status(&client, "GET", "/a", None).await?, 200);
    assert_eq!(status(&client, "GET", "/b", None).await?, 401);
    Ok(())
}

/// A document in a file, and a policy that asks for one where there is none.
#[tokio::test]
async fn a_document_from_a_file() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let document = r#"{"openapi":"3.1.0","paths":{"/a":{"get":{}}}}"#;
    let policy = development(&upstream.url(), "openapi = \"api/openapi.json\"");
    let gateway = Palisade::serve().policy(&policy).file("api/openapi.json", document).start().await?;
    read(&gateway, 0).await?;
    let client = gateway.https()?;
    assert_eq!(status(&client, "GET", "/a", None).await?, 200);
    assert_eq!(status(&client, "GET", "/b", None).await?, 401);
    let refused = Palisade::serve().policy(&development(&upstream.url(), "openapi = \"off\"")).refused().await?;
    ensure!(refused.code == Some(2) && refused.err.contains("says that it has none"), "{refused:?}");
    Ok(())
}
