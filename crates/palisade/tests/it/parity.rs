//! One stack, two inner services: a table of requests goes through a gateway with the application behind it and through
//! the same policy round the same router in this process. Every answer must be the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use palisade::Palisade;
use palisade::live::Target;
use palisade::server::Running;
use palisade_policy::Sources;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The application: plain axum, so that it can stand behind a gateway and inside one.
fn application() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/json", get(|| async { axum::Json(serde_json::json!({ "a": 1 })) }))
        .route("/html", get(|| async { axum::response::Html("<p>hi</p>") }))
        .route("/echo", any(echo))
        .route("/echo/{*rest}", any(echo))
        .route("/body", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/cookie", get(|| async { ([(header::SET_COOKIE, "a=b; Path=/")], "cookie") }))
        .route(
            "/cached",
            get(|| async { ([(header::CACHE_CONTROL, "public, max-age=60"), (header::ETAG, "\"1\"")], "cached") }),
        )
        .route("/powered", get(|| async { ([(header::SERVER, "secret/1.0")], [("x-powered-by", "magic")], "powered") }))
        .route("/redirect", get(|| async { Redirect::to("/json") }))
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .route("/not-modified", get(|| async { StatusCode::NOT_MODIFIED }))
        .route("/teapot", get(|| async { StatusCode::IM_A_TEAPOT }))
        .route(
            "/failure",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(serde_json::json!({ "detail": "no" }))) }),
        )
        .route("/broken", get(|| async { (StatusCode::BAD_GATEWAY, "the database at 10.0.0.7 is away") }))
        .route(
            "/framed",
            get(|| async { ([("x-frame-options", "SAMEORIGIN")], axum::response::Html("<p>framed</p>")) }),
        )
        .route("/many/{n}", get(|axum::extract::Path(n): axum::extract::Path<usize>| async move { "x".repeat(n) }))
        // Without them the stack speaks for a router in its process, as it cannot for an application behind.
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing here") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "not so") })
}

/// What the application sees, but for what each connection has of its own.
async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &headers {
        seen.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    // Framing belongs to each hop, and the id to each request.
    for name in ["x-request-id", "content-length", "transfer-encoding"] {
        seen.remove(name);
    }
    // Each gateway has accounts and keys of its own.
    for name in ["x-forwarded-user", "palisade-assertion"] {
        if let Some(values) = seen.get_mut(name) {
            values.fill("its own".to_owned());
        }
    }
    let target = uri.path_and_query().map(|target| target.as_str().to_owned());
    axum::Json(serde_json::json!({ "method": method.as_str(), "target": target, "headers": seen, "body": body.len() }))
        .into_response()
}

/// A policy with every control on.
const POLICY: &str = r#"
[server]
mode = "development"
state = "@STATE@"
https = "off"
http = "127.0.0.1:0"
plaintext = @PLAINTEXT@
admin = "off"
hosts = ["localhost", "*.example.com"]
trusted_proxies = ["127.0.0.1"]

[log]
access = "off"
security = "off"

[error_mask]
mask = "all"

[rate_limit]
default = "100000/minute"

[cors]
origins = ["https://app.example.com"]
credentials = true
methods = ["GET", "POST"]

[auth]
issuer = "https://localhost"
registration = "open"
routes = ["/echo/members/*"]

[waf]
rules = "@RULES@"

[limits]
body = "1KiB"
url_bytes = "256B"
header_bytes = "2KiB"

[[static]]
path = "/files"
root = "@FILES@"

[[static]]
path = "/files/closed"
root = "@FILES@"
cache = "immutable"
index = "off"

[[route]]
path = "/files/closed/*"
address = ["203.0.113.0/24"]

[[route]]
path = "/json"
methods = ["GET"]

[[route]]
path = "/body"
methods = ["POST"]
limits = { body = "2KiB" }

[[route]]
path = "/echo/private/*"
address = ["203.0.113.0/24"]

[[route]]
path = "/echo/files/*"
encoded_slash = true
slashes = "keep"
"#;

/// What is not in the stack while plain HTTP serves the API, as it does in development: nothing is redirected then.
const NOT_IN_PLAINTEXT: &[&str] = &["https_redirect"];

/// What an answer holds where one of these was there, since they refuse nothing of the table; every other control refuses
/// a request of it.
const REFUSES_NOTHING: &[(&str, &str)] = &[
    ("client_ip", r#""x-forwarded-for":["203.0.113.7"]"#),
    ("rate_limit", "\nratelimit-policy: "),
    ("headers", "\nx-content-type-options: nosniff"),
];

/// Requests as they go over the wire, with a `Host` and a closed connection; `@TOKEN@` stands for a token of the server's.
fn table() -> Vec<(&'static str, String)> {
    let mut table: Vec<(&'static str, String)> = Vec::new();
    let mut plain = |name: &'static str, line: &str, headers: &str, body: &str| {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        table.push((name, format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{headers}{length}\r\n{body}")));
    };
    for (name, line) in [
        ("root", "GET /"),
        ("json", "GET /json"),
        ("html", "GET /html"),
        ("head", "HEAD /html"),
        ("missing", "GET /nothing-here"),
        ("cookie", "GET /cookie"),
        ("cached", "GET /cached"),
        ("powered", "GET /powered"),
        ("redirect", "GET /redirect"),
        ("no content", "GET /empty"),
        ("not modified", "GET /not-modified"),
        ("teapot", "GET /teapot"),
        ("failure", "GET /failure"),
        ("a failure that says too much", "GET /broken"),
        ("framed", "GET /framed"),
        ("large", "GET /many/100000"),
        ("options", "OPTIONS /echo"),
        ("put", "PUT /echo"),
        ("patch", "PATCH /echo"),
        ("delete", "DELETE /echo"),
        ("method of the application", "DELETE /html"),
        ("query", "GET /echo?a=1&b=%20x"),
        ("empty query", "GET /echo?"),
        ("405 by route", "POST /json"),
        ("405 by route 2", "PUT /body"),
        ("head of a GET route", "HEAD /json"),
        ("unknown method", "BREW /"),
        ("trace", "TRACE /"),
        ("lower case method", "get /"),
        ("dots", "GET /echo/a/../b"),
        ("encoded dots", "GET /echo/a/%2e%2e/b"),
        ("double slash", "GET /echo//b"),
        ("kept slash", "GET /echo/files//b"),
        ("encoded slash", "GET /echo/a%2Fb"),
        ("allowed encoded slash", "GET /echo/files/a%2Fb"),
        ("encoded slash to another route", "GET /echo/files%2F..%2Fjson"),
        ("backslash", "GET /echo/a%5cb"),
        ("nul", "GET /echo/%00"),
        ("double encoding", "GET /echo/%252e%252e"),
        ("bad escape", "GET /echo/%zz"),
        ("semicolon", "GET /echo/a;b"),
        ("unreserved", "GET /%65cho"),
        ("utf-8", "GET /echo/%c3%a9"),
        ("not utf-8", "GET /echo/%ff"),
        ("dotfile", "GET /.env"),
        ("git", "GET /echo/.git/config"),
        ("backup", "GET /echo/db.sql~"),
        ("key file", "GET /echo/server.key"),
        ("well-known", "GET /.well-known/security.txt"),
        ("problem page", "GET /.palisade/problems/limits.body"),
        ("own path", "GET /.palisade/x"),
        ("private", "GET /echo/private/x"),
        ("slash at the end", "GET /json/"),
    ] {
        plain(name, line, "", "");
    }
    let long = format!("GET /echo/{}", "a".repeat(300));
    plain("long target", &long, "", "");
    for (name, headers) in [
        ("other host", "Host: evil.example\r\n"),
        ("wildcard host", "Host: api.example.com\r\n"),
        ("host with port", "Host: LOCALHOST:8080\r\n"),
        ("bad host", "Host: a/b\r\n"),
        ("two hosts", "Host: localhost\r\nHost: localhost\r\n"),
        ("forged address", "X-Forwarded-For: 1.1.1.1, 203.0.113.7\r\n"),
        ("forged protocol", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.9\r\n"),
        ("override", "X-HTTP-Method-Override: DELETE\r\n"),
        ("underscore", "X_Forwarded_For: 1.1.1.1\r\n"),
        ("original url", "X-Original-URL: /admin\r\n"),
        ("connection names a header", "Connection: authorization\r\n"),
        ("bad expectation", "Expect: x\r\n"),
        ("bad upgrade", "Connection: upgrade\r\nUpgrade: h2c\r\n"),
        ("browser", "Accept: text/html\r\n"),
        ("cookie sent", "Cookie: a=b\r\n"),
        ("bearer", "Authorization: Bearer x\r\n"),
        ("origin", "Origin: https://app.example.com\r\n"),
    ] {
        plain(name, "GET /echo", headers, "");
    }
    for (name, line, headers) in [
        ("a file", "GET /files/app.js", ""),
        ("its head", "HEAD /files/app.js", ""),
        ("a compressed file", "GET /files/app.js", "Accept-Encoding: gzip\r\n"),
        ("a part of a file", "GET /files/app.js", "Range: bytes=4-4\r\n"),
        ("behind the end of a file", "GET /files/app.js", "Range: bytes=99-\r\n"),
        ("a large file", "GET /files/sub/large.bin", ""),
        ("the end of a large file", "GET /files/sub/large.bin", "Range: bytes=-5\r\n"),
        ("a file without extension", "GET /files/sub/page", ""),
        ("an index", "GET /files/", ""),
        ("a directory", "GET /files", ""),
        ("a directory without index", "GET /files/sub/", ""),
        ("a file that is not there", "GET /files/nothing", ""),
        ("a file that is not there, for a browser", "GET /files/nothing", "Accept: text/html\r\n"),
        ("a link to a file", "GET /files/link.js", ""),
        ("a file that is never served", "GET /files/prod.env", ""),
        ("a dotfile", "GET /files/.git/config", ""),
        ("writing a file", "PUT /files/app.js", ""),
        ("options of a file", "OPTIONS /files/app.js", ""),
        ("a file not for this network", "GET /files/closed/app.js", ""),
        ("a file for that network", "GET /files/closed/app.js", "X-Forwarded-For: 203.0.113.7\r\n"),
        ("a file for one person", "GET /files/app.js", "Cookie: a=b\r\n"),
        ("a file for another origin", "GET /files/app.js", "Origin: https://app.example.com\r\n"),
        ("a file modified since", "GET /files/app.js", "If-Modified-Since: Tue, 01 Jan 2199 00:00:00 GMT\r\n"),
        ("a file that must match", "GET /files/app.js", "If-Match: \"x\"\r\n"),
        ("a file by a traversal", "GET /files/..%2f..%2fetc/passwd", ""),
        ("a file of another host", "GET /files/app.js", "Host: evil.example\r\n"),
    ] {
        plain(name, line, headers, "");
    }
    plain("html refusal", "GET /.env", "Accept: text/html,*/*;q=0.1\r\n", "");
    plain("large header", "GET /echo", &format!("X-Large: {}\r\n", "a".repeat(3000)), "");
    plain("allowed from the private network", "GET /echo/private/x", "X-Forwarded-For: 203.0.113.7\r\n", "");
    plain("small body", "POST /echo", "", "hello");
    plain("body at the limit", "POST /echo", "", &"a".repeat(1024));
    plain("body over the limit", "POST /echo", "", &"a".repeat(1025));
    plain("route's own limit", "POST /body", "", &"a".repeat(2048));
    plain("over the route's own limit", "POST /body", "", &"a".repeat(2049));
    plain("chunked", "POST /echo", "Transfer-Encoding: chunked\r\n", "");
    plain(
        "preflight",
        "OPTIONS /json",
        "Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n",
        "",
    );
    plain(
        "preflight of another site",
        "OPTIONS /json",
        "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n",
        "",
    );
    for (name, line, headers) in [
        ("a path for members", "GET /echo/members/x", ""),
        ("a path for members, for a browser", "GET /echo/members/x", "Accept: text/html\r\n"),
        ("a member", "GET /echo/members/x", "Authorization: Bearer @TOKEN@\r\n"),
        ("a member over TLS", "GET /echo/members/x", "Authorization: Bearer @TOKEN@\r\nX-Forwarded-Proto: https\r\n"),
        ("a token that is none", "GET /echo/members/x", "Authorization: Bearer x\r\n"),
        ("a key that is none", "GET /echo/members/x", "X-API-Key: pal_x\r\n"),
        ("a session that is none", "GET /echo/members/x", "Cookie: palisade=x\r\n"),
        ("two credentials", "GET /echo/members/x", "Authorization: Bearer x\r\nX-API-Key: pal_x\r\n"),
        ("metadata of logins", "GET /.well-known/oauth-authorization-server", ""),
        ("an endpoint by another method", "GET /auth/token", ""),
        ("an attack in the query", "GET /echo?word=attack", ""),
        ("an attack for members", "GET /echo/members/x?word=attack", "Authorization: Bearer @TOKEN@\r\n"),
    ] {
        plain(name, line, headers, "");
    }
    for (name, headers, body) in [
        ("a form", "", "word=harmless"),
        ("an attack in a form", "", "word=attack"),
        ("a form of an own page", "Cookie: a=b\r\nOrigin: http://localhost\r\n", "word=harmless"),
        ("a form of a listed origin", "Cookie: a=b\r\nOrigin: https://app.example.com\r\n", "word=harmless"),
        ("a form of another site", "Cookie: a=b\r\nOrigin: https://evil.example\r\n", "word=harmless"),
        ("a form of another site, in new browsers", "Cookie: a=b\r\nSec-Fetch-Site: cross-site\r\n", "word=harmless"),
        ("a form of a page that is not known", "Cookie: a=b\r\n", "word=harmless"),
        ("a form with a token that is none", "Cookie: a=b\r\n", "csrf_token=x"),
    ] {
        plain(name, "POST /echo", &format!("Content-Type: application/x-www-form-urlencoded\r\n{headers}"), body);
    }
    let nobody = r#"{"username":"nobody","password":"vier alte Kutschen"}"#;
    plain("a login that fails", "POST /auth/login", "Content-Type: application/json\r\n", nobody);
    table
        .into_iter()
        .map(|(name, text)| match name {
            "chunked" => (name, format!("{text}5\r\nhello\r\n0\r\n\r\n")),
            _ => (name, text),
        })
        .collect()
}

/// A file with one rule of the WAF, the same for all and kept for the life of the test process.
fn rules() -> &'static std::path::Path {
    static RULES: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let file = tempfile::tempdir().unwrap().keep().join("local.conf");
        std::fs::write(&file, "SecRule ARGS \"@streq attack\" \"id:1,phase:2,deny,status:403,log\"\n").unwrap();
        file
    });
    &RULES
}

/// A directory of files, the same for all: made once, kept for the life of the test process, and old enough that nothing
/// about it changes any more.
fn files() -> &'static std::path::Path {
    static FILES: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::create_dir(folder.join("sub")).unwrap();
        for (name, bytes) in [
            ("app.js", "let x = 1;".to_owned()),
            ("app.js.gz", "compressed".to_owned()),
            ("index.html", "<p>files</p>".to_owned()),
            ("sub/large.bin", "0123456789".repeat(60_000)),
            ("sub/page", "no extension".to_owned()),
            ("prod.env", "KEY=1".to_owned()),
        ] {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink("app.js", folder.join("link.js")).unwrap();
        // A file that was just written has a weak tag for two seconds, and no date.
        let link = folder.join("link.js");
        while link.symlink_metadata().unwrap().modified().unwrap().elapsed().unwrap() < Duration::from_millis(3_100) {
            std::thread::sleep(Duration::from_millis(50));
        }
        folder
    });
    &FILES
}

fn start(extra: &str, target: Target) -> Running {
    start_with(POLICY, true, extra, target)
}

/// `plaintext`: whether plain HTTP serves the API, or sends to HTTPS.
fn start_with(policy: &str, plaintext: bool, extra: &str, target: Target) -> Running {
    // Kept for the life of the test process: the server writes there until it ends.
    let state = tempfile::tempdir().unwrap().keep();
    let mut policy = policy.replace("@PLAINTEXT@", &plaintext.to_string());
    for (place, path) in [("@STATE@", &*state), ("@FILES@", files()), ("@RULES@", rules())] {
        policy = policy.replace(place, path.to_str().unwrap());
    }
    let sources = Sources::new().builtin("parity", format!("{policy}{extra}"));
    let (running, _) = Palisade::from_sources(sources).target(target).start().unwrap();
    running.serve_here().unwrap();
    running
}

fn address(running: &Running) -> SocketAddr {
    running.bound.first().expect("one listener").address()
}

/// Sends bytes and reads until the other side closes; without what differs by nature: dates and ids.
async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    // A reset behind the answer takes nothing away from it.
    let _ =
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    // Names of headers are the same in any case, and what the guard writes itself is in the usual one.
    let lower = |line: &str| match line.split_once(':') {
        Some((name, value)) if !line.starts_with("HTTP/") => format!("{}:{value}", name.to_ascii_lowercase()),
        _ => line.to_owned(),
    };
    let mut lines: Vec<String> = head.split("\r\n").map(lower).collect();
    let id = lines.iter().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or("no id").to_owned();
    lines.retain(|line| !line.starts_with("date: ") && !line.starts_with("x-request-id: "));
    // How much is left depends on how long ago the last request was: each is made good within a millisecond.
    for line in lines.iter_mut().filter(|line| line.starts_with("ratelimit: ")) {
        line.truncate(line.find(";r=").unwrap_or(line.len()));
    }
    lines[1..].sort();
    format!("{}\n\n{}", lines.join("\n"), body.replace(&id, "ID"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_inner_services_answer_alike() {
    let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = behind.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(behind, application()).await });

    let table = table();
    assert!(table.len() >= 60, "{} requests", table.len());
    let (mut answers, mut different) = (Vec::new(), Vec::new());
    for plaintext in [true, false] {
        let gateway =
            start_with(POLICY, plaintext, &format!("\n[upstream]\nurl = \"http://{upstream}\"\n"), Target::Policy);
        let library = start_with(POLICY, plaintext, "", Target::Router(application()));

        // The same controls, in the same order, and every one of the registry: what is new is on here, or is excused above.
        let stages = gateway.handle.live().controls();
        assert_eq!(stages, library.handle.live().controls());
        for info in palisade::controls::INFOS {
            let excused = plaintext && NOT_IN_PLAINTEXT.contains(&info.name);
            assert_ne!(stages.contains(&info.name), excused, "`{}` in the stack of {stages:?}", info.name);
        }

        let tokens = [token(address(&gateway)).await, token(address(&library)).await];
        for (name, request) in &table {
            let [one, two] = [0, 1].map(|side| request.replace("@TOKEN@", &tokens[side]));
            let one = ask(address(&gateway), one.as_bytes()).await;
            let two = ask(address(&library), two.as_bytes()).await;
            assert!(one.starts_with("HTTP/1.1 "), "{name}: no answer: {one:?}");
            if one != two {
                different.push(format!("### {name} ({plaintext})\n--- gateway\n{one}\n--- library\n{two}\n"));
            }
            answers.push(one);
        }
    }
    assert!(different.is_empty(), "{} of {} answers differ:\n{}", different.len(), answers.len(), different.join("\n"));

    // Being in both stacks says little of a control that no request of the table meets.
    for info in palisade::controls::INFOS {
        let excused = REFUSES_NOTHING.iter().find(|(name, _)| *name == info.name);
        let sign = excused.map_or_else(|| format!("\"code\":\"{}.", info.name), |(_, sign)| (*sign).to_owned());
        assert!(answers.iter().any(|answer| answer.contains(&sign)), "`{}`: no answer holds {sign:?}", info.name);
    }
}

/// Makes an account and logs in: an access token of this server's.
async fn token(address: SocketAddr) -> String {
    let post = async |path: &str, kind: &str, body: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        ask(address, request.as_bytes()).await
    };
    let account = r#"{"username":"ann","email":"ann@example.com","password":"vier alte Kutschen im Nebel"}"#;
    let made = post("/auth/register", "application/json", account).await;
    assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
    let login = "grant_type=password&username=ann&password=vier+alte+Kutschen+im+Nebel";
    let given = post("/auth/token", "application/x-www-form-urlencoded", login).await;
    let body = given.split_once("\n\n").and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(body).ok());
    let token = body.and_then(|body| Some(body["access_token"].as_str()?.to_owned()));
    token.unwrap_or_else(|| panic!("{given}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_answers_500_and_takes_nothing_else_down() {
    async fn panics() -> &'static str {
        panic!("a handler that panics")
    }
    let router = Router::new().route("/panic", get(panics)).fallback(|| async { "fine" });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("security.log");
    let policy = POLICY.replace("security = \"off\"", &format!("security = \"{}\"", log.display()));
    let running = start_with(&policy, true, "", Target::Router(router));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes();
    let answer = ask(address(&running), &get("/panic")).await;
    assert!(
        answer.starts_with("HTTP/1.1 500 ")
            && answer.contains("palisade.panic")
            && !answer.contains("a handler that panics"),
        "{answer}"
    );
    assert!(ask(address(&running), &get("/other")).await.starts_with("HTTP/1.1 200 "));

    // It is logged, by itself and as the refusal that it became, and counted.
    running.handle.log().flush();
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let (panics, failures) = (of("request.panic"), of("request.failed"));
    let ([panic], [failed]) = (&panics[..], &failures[..]) else { panic!("{text}") };
    assert_eq!(panic["level"], "error");
    assert_eq!((&failed["code"], &failed["owasp"]), (&"palisade.panic".into(), &"sys_crash".into()), "{failed}");
    assert!(panic["request_id"].is_string() && panic["request_id"] == failed["request_id"], "{text}");
    assert!(!text.contains("a handler that panics"), "{text}");
    let counted = "palisade_refusals_total{control=\"palisade\",code=\"palisade.panic\",mode=\"block\"} 1\n";
    let metrics = running.handle.metrics().text(false);
    assert!(metrics.contains(counted), "{metrics}");
}

/// A WebSocket of a router, as its frameworks open one: both headers of the handshake arrive, and bytes pass both ways.
#[tokio::test]
async fn a_router_opens_websockets() {
    async fn echo(headers: HeaderMap, mut request: axum::extract::Request) -> Response {
        let asked = |name: header::HeaderName| headers.get(name).is_some_and(|value| !value.is_empty());
        if !asked(header::CONNECTION) || !asked(header::UPGRADE) {
            return (StatusCode::BAD_REQUEST, "no handshake").into_response();
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let (mut from, mut to) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let said = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)];
        (StatusCode::SWITCHING_PROTOCOLS, said).into_response()
    }
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let router = Router::new().route("/ws", get(echo)).fallback(|| async { "fine" });
    let running = start("", Target::Router(router));
    let mut stream = TcpStream::connect(address(&running)).await.unwrap();
    stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await.expect("a head").unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nx-request-id: "), "{head}");
    let mut seen = [0; 5];
    stream.write_all(b"frame").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut seen)).await.expect("an echo").unwrap();
    assert_eq!(&seen, b"frame");
    // An ordinary answer to a handshake is one.
    let plain = HANDSHAKE.replace("/ws", "/").replace("keep-alive, Upgrade", "close, Upgrade");
    let answer = ask(address(&running), plain.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
}
