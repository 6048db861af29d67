//! What every answer carries, whoever made it, and who may read it: security headers, CORS, redirects and cookies.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_test::ca::Authority;
use palisade_test::frames::{END_HEADERS, END_STREAM, error, fields, frame, kind};
use palisade_test::upstream::Reply;
use palisade_test::wire::Message;
use palisade_test::{Client, Frames, Palisade, Trust, Upstream, Wire};

const TOKEN: &str = "correct-horse-battery-staple-edge";
const HOST: &str = "api.example.com";
const PAGE: &str = "default-src 'self'; frame-ancestors 'none'";
const DATA: &str = "default-src 'none'; frame-ancestors 'none'";

/// A gateway in production, its upstream, and who signed its certificate.
struct Production {
    upstream: Upstream,
    gateway: Palisade,
    trust: Trust,
    _folder: tempfile::TempDir,
}

impl Production {
    async fn start(routes: &str, app: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Result<Production> {
        let upstream = Upstream::answering(app).await?;
        let authority = Authority::new("edge")?;
        let folder = tempfile::tempdir()?;
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        authority.server(&["127.0.0.1", HOST])?.write(&cert, &key)?;
        let policy = format!(
            "[server]\nmode = \"production\"\nhosts = [\"{HOST}\"]\nhttps = \"127.0.0.1:8443\"\nhttp = \"127.0.0.1:8080\"\n\
             admin_token = {{ secret = \"admin-token\" }}\n[secrets]\nprovider = \"env\"\n[tls]\ncert = \"{}\"\nkey = \"{}\"\n[upstream]\nurl = \"{}\"\n{routes}",
            cert.display(),
            key.display(),
            upstream.url(),
        );
        let files =
            FILES.iter().fold(Palisade::serve(), |setup, (name, text)| setup.file(&format!("assets/{name}"), *text));
        let gateway = files.policy(&policy).env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN).start().await?;
        let trust = Trust::pem(authority.pem().as_bytes())?;
        Ok(Production { upstream, gateway, trust, _folder: folder })
    }

    fn clients(&self) -> Result<[(&'static str, Client); 2]> {
        let client = Client::https(&self.gateway.url("https")?, &self.trust)?.host(HOST);
        Ok([("https", client.clone()), ("h2", client.http2())])
    }

    async fn wire(&self) -> Result<Wire> {
        Wire::tls(self.gateway.address("https")?, HOST, &self.trust).await
    }
}

/// Looks at the headers of an answer, which must each be there once.
fn check(what: &str, all: &dyn Fn(&str) -> Vec<String>, csp: Option<&str>, secure: bool) -> Result<()> {
    let expected = [
        ("x-content-type-options", Some("nosniff")),
        ("x-frame-options", Some("DENY")),
        ("referrer-policy", Some("strict-origin-when-cross-origin")),
        ("permissions-policy", Some("camera=(), geolocation=(), microphone=(), payment=(), usb=()")),
        ("cross-origin-opener-policy", Some("same-origin-allow-popups")),
        ("cross-origin-resource-policy", Some("same-site")),
        ("cross-origin-embedder-policy", None),
        ("x-xss-protection", Some("0")),
        ("content-security-policy", csp),
        ("strict-transport-security", secure.then_some("max-age=31536000")),
        ("server", None),
        ("x-powered-by", None),
    ];
    for (name, value) in expected {
        let values = all(name);
        ensure!(values.iter().map(String::as_str).eq(value), "{what}: {name} is {values:?}, not {value:?}");
    }
    ensure!(all("x-request-id").len() == 1, "{what}: {:?}", all("x-request-id"));
    Ok(())
}

fn by_answer(answer: &palisade_test::Answer) -> impl Fn(&str) -> Vec<String> {
    let headers = answer.headers().clone();
    move |name| headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
}

fn by_message(message: &Message) -> impl Fn(&str) -> Vec<String> {
    let message = message.clone();
    move |name| message.all(name).map(str::to_owned).collect()
}

/// Served where a policy has `[[static]]`.
const FILES: [(&str, &str); 7] = [
    ("page.html", "<p>page"),
    ("data.json", "{}"),
    ("app.js", "1"),
    ("logo.svg", "<svg/>"),
    ("logo.png", "png"),
    ("sub/index.html", "<p>sub"),
    (".secret", "secret"),
];

const ROUTES: &str = r#"
[cors]
origins = ["https://app.example.com"]

[[static]]
path = "/assets"
root = "assets"

[[route]]
path = "/inside/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/only-get"
methods = ["GET"]

[[route]]
path = "/limited"
rate_limit = "1/day"

[[route]]
path = "/*"
"#;

/// An application that says weak things of its own.
fn app(request: &Message) -> Reply {
    let weak = "Server: app\r\nX-Powered-By: app\r\nX-Frame-Options: ALLOWALL\r\nReferrer-Policy: unsafe-url\r\n\
                X-XSS-Protection: 1; mode=block\r\nStrict-Transport-Security: max-age=1\r\nX-Content-Type-Options: \r\n\
                X-Request-Id: forged\r\n";
    let (status, kind, more) = match request.target().split('?').next().unwrap_or_default() {
        "/json" => ("200 OK", "application/json", ""),
        "/page" => ("200 OK", "text/html", ""),
        "/weak" => ("200 OK", "application/json", weak),
        "/weak-page" => ("200 OK", "TEXT/HTML; charset=utf-8", weak),
        "/script" => ("200 OK", "text/javascript", ""),
        "/svg" => ("200 OK", "image/svg+xml", ""),
        "/image" => ("200 OK", "image/png", ""),
        "/nothing" => ("204 No Content", "", ""),
        "/same" => ("304 Not Modified", "", ""),
        "/moved" => ("302 Found", "", "Location: /json\r\n"),
        "/moved-http" => ("307 Temporary Redirect", "", "Location: http://api.example.com/json\r\n"),
        "/cookie" => ("200 OK", "application/json", "Set-Cookie: a=1\r\nSet-Cookie: b=2; SameSite=None\r\n"),
        "/404" => ("404 Not Found", "application/json", weak),
        "/422" => ("422 Unprocessable Content", "application/json", ""),
        "/500" => ("500 Internal Server Error", "application/json", weak),
        "/trace" => ("500 Internal Server Error", "text/plain", weak),
        "/bad" => return Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").close(),
        "/gone" => return Reply::raw("").close(),
        _ => ("200 OK", "text/plain", ""),
    };
    let body = if matches!(request.method(), "HEAD") || kind.is_empty() { "" } else { "{}" };
    let length = if status.starts_with("204") || status.starts_with("304") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", if kind.is_empty() { 0 } else { 2 })
    };
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    Reply::raw(format!("HTTP/1.1 {status}\r\n{kind}{length}{more}\r\n{body}"))
}

#[tokio::test]
async fn every_answer_has_the_headers_that_fit_it() -> Result<()> {
    let here = Production::start(ROUTES, app).await?;
    let origin = ("origin", "https://app.example.com");
    let foreign = ("origin", "https://evil.example");
    let asks = ("access-control-request-method", "PUT");
    let html = ("accept", "text/html,*/*;q=0.8");
    type Row<'r> = (Method, &'r str, &'r [(&'r str, &'r str)], u16, Option<&'r str>);
    let long = format!("/{}", "a".repeat(9_000));
    let rows: &[Row<'_>] = &[
        // The application's.
        (Method::GET, "/json", &[], 200, Some(DATA)),
        (Method::HEAD, "/json", &[], 200, Some(DATA)),
        (Method::GET, "/page", &[], 200, Some(PAGE)),
        (Method::HEAD, "/page", &[], 200, Some(PAGE)),
        (Method::GET, "/weak", &[], 200, Some(DATA)),
        (Method::GET, "/weak-page", &[], 200, Some(PAGE)),
        (Method::GET, "/script", &[], 200, Some(PAGE)),
        (Method::GET, "/svg", &[], 200, Some(PAGE)),
        (Method::GET, "/image", &[], 200, None),
        (Method::GET, "/nothing", &[], 204, Some(DATA)),
        (Method::GET, "/same", &[], 304, None),
        (Method::GET, "/moved", &[], 302, Some(DATA)),
        (Method::GET, "/moved-http", &[], 307, Some(DATA)),
        (Method::GET, "/cookie", &[], 200, Some(DATA)),
        (Method::GET, "/404", &[], 404, Some(DATA)),
        (Method::GET, "/422", &[], 422, Some(DATA)),
        (Method::GET, "/500", &[], 500, Some(DATA)),
        (Method::GET, "/other", &[origin], 200, Some(DATA)),
        (Method::OPTIONS, "/other", &[origin], 200, Some(DATA)),
        // Each layer's.
        (Method::GET, "/trace", &[], 500, Some(DATA)),
        (Method::GET, "/trace", &[html], 500, Some(PAGE)),
        (Method::OPTIONS, "/json", &[origin, asks], 204, Some(DATA)),
        (Method::OPTIONS, "/json", &[foreign, asks], 403, Some(DATA)),
        (Method::OPTIONS, "/inside/x", &[origin, asks], 204, Some(DATA)),
        (Method::GET, "/a%00b", &[], 400, Some(DATA)),
        (Method::GET, "/a%00b", &[html], 400, Some(PAGE)),
        (Method::GET, "/.env", &[origin], 404, Some(DATA)),
        (Method::GET, "/json", &[("host", "evil.example")], 421, Some(DATA)),
        (Method::GET, "/json", &[("expect", "x")], 417, Some(DATA)),
        (Method::TRACE, "/json", &[], 400, Some(DATA)),
        (Method::POST, "/only-get", &[], 405, Some(DATA)),
        (Method::GET, "/inside/x", &[], 403, Some(DATA)),
        (Method::GET, "/inside/x", &[html], 403, Some(PAGE)),
        (Method::GET, "/docs", &[], 404, Some(DATA)),
        (Method::GET, "/bad", &[], 502, Some(DATA)),
        (Method::GET, "/bad", &[html], 502, Some(PAGE)),
        (Method::GET, "/gone", &[], 502, Some(DATA)),
        (Method::GET, "/.palisade/problems/access.method", &[], 200, Some(DATA)),
        (Method::GET, "/.palisade/nothing", &[], 404, Some(DATA)),
        (Method::GET, &long, &[], 414, Some(DATA)),
        // Files.
        (Method::GET, "/assets/page.html", &[], 200, Some(PAGE)),
        (Method::HEAD, "/assets/page.html", &[], 200, Some(PAGE)),
        (Method::GET, "/assets/page.html", &[origin, ("range", "bytes=0-2")], 206, Some(PAGE)),
        (Method::GET, "/assets/page.html", &[("range", "bytes=99-")], 416, Some(DATA)),
        (Method::GET, "/assets/page.html", &[origin, ("if-none-match", "*")], 304, None),
        (Method::GET, "/assets/page.html", &[("if-match", "\"x\"")], 412, Some(DATA)),
        (Method::GET, "/assets/data.json", &[origin], 200, Some(DATA)),
        (Method::GET, "/assets/app.js", &[], 200, Some(PAGE)),
        (Method::GET, "/assets/logo.svg", &[], 200, Some(PAGE)),
        (Method::GET, "/assets/logo.png", &[], 200, None),
        (Method::GET, "/assets/sub/", &[], 200, Some(PAGE)),
        (Method::GET, "/assets/sub", &[], 308, Some(DATA)),
        (Method::GET, "/assets/none", &[origin], 404, Some(DATA)),
        (Method::GET, "/assets/none", &[html], 404, Some(PAGE)),
        (Method::GET, "/assets/.secret", &[], 404, Some(DATA)),
        (Method::GET, "/assets/", &[], 404, Some(DATA)),
        (Method::POST, "/assets/page.html", &[], 405, Some(DATA)),
        (Method::OPTIONS, "/assets/page.html", &[origin, asks], 204, Some(DATA)),
    ];
    for (way, client) in here.clients()? {
        for (method, target, headers, status, csp) in rows {
            let what = format!("{way} {method} {} {headers:?}", &target[..target.len().min(40)]);
            let host = headers.iter().find(|(name, _)| *name == "host").map(|(_, host)| *host);
            let client = host.map_or_else(|| client.clone(), |host| client.clone().host(host));
            if host.is_some() {
                // The certificate is not for it, which a client library would notice: told on a wire instead.
                let mut wire = here.wire().await?;
                let answer = wire.ask(format!("{method} {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n")).await?;
                ensure!(answer.status() == *status, "{what}: {}", answer.start);
                check(&what, &by_message(&answer), *csp, true)?;
                continue;
            }
            let mut request = client.request(method.clone(), target);
            for (name, value) in *headers {
                request = request.header(name, value);
            }
            let answer = request.send().await.with_context(|| what.clone())?;
            ensure!(answer.status() == *status, "{what}: {}", answer.status());
            check(&what, &by_answer(&answer), *csp, true)?;
            // Who asked from a listed page may read it.
            let readable = answer.header("access-control-allow-origin");
            ensure!(readable == headers.contains(&origin).then_some(origin.1), "{what}: {readable:?}");
        }
        let limited = [client.get("/limited").send().await?.status(), client.get("/limited").send().await?.status()];
        ensure!(limited[1] == 429, "{limited:?}");
        check(way, &by_answer(&client.get("/limited").send().await?), Some(DATA), true)?;
        let big =
            client.post("/json").header("content-type", "application/json").body("x".repeat(2 << 20)).send().await?;
        ensure!(big.status() == 413, "{way}: {}", big.status());
        check(way, &by_answer(&big), Some(DATA), true)?;
        // What an app believes of its scheme is mended.
        let moved = client.get("/moved-http").send().await?;
        ensure!(moved.header("location") == Some("https://api.example.com/json"), "{:?}", moved.header("location"));
        let cookies = client.get("/cookie").send().await?;
        ensure!(
            cookies.all("set-cookie") == ["a=1; Secure; SameSite=Lax", "b=2; SameSite=None; Secure"],
            "{:?}",
            cookies.headers()
        );
        ensure!(cookies.header("cache-control") == Some("no-store"), "{:?}", cookies.headers());
    }
    Ok(())
}

/// What the application says to caches, in its words; a case of [`kept_by_nobody`].
const WORDS: [&str; 7] = [
    "",
    "public, max-age=3600",
    "max-age=60, immutable",
    "s-maxage=600",
    "private",
    "no-store, must-understand",
    "private, no-store",
];

/// Threat 37, cache deception: credential x path suffix x what the application says to caches, on answers of every kind
/// and whoever made them.
#[tokio::test]
async fn what_a_credential_brought_is_kept_by_nobody() -> Result<()> {
    const MORE: &str = r#"
[[static]]
path = "/assets"
root = "assets"
cache = "immutable"

[[static]]
path = "/shared"
root = "assets"
cache = "immutable"

[[route]]
path = "/inside/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/shared/*"
cache = "upstream"

[[route]]
path = "/open/*"
cache = "upstream"
"#;
    let here = Production::start(MORE, |request| {
        let target = request.target();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let word = query.split('&').find_map(|pair| pair.strip_prefix("w=")).and_then(|n| n.parse::<usize>().ok());
        let said = match word.and_then(|word| WORDS.get(word)) {
            Some(said) if !said.is_empty() => {
                format!("Cache-Control: {said}\r\nCDN-Cache-Control: max-age=9\r\nVary: Accept\r\n")
            }
            _ => String::new(),
        };
        let status = match path.rsplit('/').next().unwrap_or_default() {
            "same.css" => "304 Not Modified",
            "login.css" => "401 Unauthorized\r\nWWW-Authenticate: Basic",
            "forbidden.css" => "403 Forbidden",
            "gone.css" => "404 Not Found",
            "moved.css" => "302 Found\r\nLocation: /me/x.css",
            "broken.css" => "500 Internal Server Error",
            _ => "200 OK",
        };
        let length = if status.starts_with("304") { "" } else { "Content-Length: 0\r\n" };
        Reply::raw(format!("HTTP/1.1 {status}\r\n{length}{said}\r\n"))
    })
    .await?;
    let credentials = [
        ("cookie", "theirs=1", "Cookie"),
        ("authorization", "Bearer x", "Authorization"),
        ("x-api-key", "k", "X-API-Key"),
    ];
    let mut asked = 0;
    for (way, client) in here.clients()? {
        for (name, value, vary) in credentials {
            let ask = async |target: &str| -> Result<palisade_test::Answer> {
                client.get(target).header(name, value).header("accept", "*/*").send().await
            };
            let check = |what: &str, answer: &palisade_test::Answer| -> Result<()> {
                let said = answer.all("cache-control");
                let closed = matches!(said.as_slice(), ["no-store" | "private, no-store"]);
                ensure!(closed, "{way} {name} {what}: {said:?}");
                ensure!(answer.header("cdn-cache-control").is_none(), "{way} {name} {what}: {:?}", answer.headers());
                let varies = answer.all("vary").join(", ");
                ensure!(varies.split(", ").any(|said| said == vary), "{way} {name} {what}: {varies}");
                Ok(())
            };
            for file in ["x.css", "same.css", "login.css", "forbidden.css", "gone.css", "moved.css", "broken.css"] {
                for word in 0..WORDS.len() {
                    let target = format!("/me/{file}?w={word}");
                    check(&target, &ask(&target).await?)?;
                    asked += 1;
                }
            }
            // What the layers answer themselves, and files.
            for (target, status) in [
                ("/me/a%00.css", 400),
                ("/.env", 404),
                ("/inside/x.css", 403),
                ("/docs", 404),
                ("/.palisade/problems/access.method", 200),
                ("/assets/app.js", 200),
                ("/assets/sub", 308),
                ("/assets/none.css", 404),
            ] {
                let answer = ask(target).await?;
                ensure!(answer.status() == status, "{way} {target}: {}", answer.status());
                check(target, &answer)?;
            }
            // A route says that its answers are the same for everybody.
            let open = ask("/open/x.css?w=1").await?;
            ensure!(open.all("cache-control") == [WORDS[1]] && open.all("vary") == ["Accept"], "{:?}", open.headers());
            let shared = ask("/shared/app.js").await?;
            ensure!(
                shared.header("cache-control").is_some_and(|said| said.contains("immutable")),
                "{:?}",
                shared.headers()
            );
        }
        // Without one, the application's word stays.
        for (word, said) in WORDS.iter().enumerate().skip(1) {
            let answer = client.get(&format!("/me/x.css?w={word}")).send().await?;
            ensure!(
                answer.all("cache-control") == [*said] && answer.all("vary") == ["Accept"],
                "{:?}",
                answer.headers()
            );
        }
        // Also where it stands in the URL.
        let token = client.get("/me/x.css?w=1&access_token=abc").send().await?;
        ensure!(token.all("cache-control") == ["no-store"], "{:?}", token.headers());
    }
    ensure!(asked == 2 * 3 * 7 * 7, "{asked}");
    Ok(())
}

/// Also on what is answered before there is a request, and on the plain port.
#[tokio::test]
async fn answers_without_a_request_have_them_too() -> Result<()> {
    let here = Production::start("[limits]\nconnections_per_address = 3\n", app).await?;
    let many = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", "a: b\r\n".repeat(300));
    let long = format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "a".repeat(70_000));
    for (request, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (&many, 431),
        (&long, 414),
    ] {
        let (mut tls, mut plain) = (here.wire().await?, here.gateway.wire_http().await?);
        for (secure, wire) in [(true, &mut tls), (false, &mut plain)] {
            let what = format!("{secure} {:?}", &request[..request.len().min(60)]);
            let answer = wire.ask(request).await.with_context(|| what.clone())?;
            ensure!(answer.status() == status, "{what}: {}", answer.start);
            check(&what, &by_message(&answer), Some(DATA), secure)?;
            ensure!(answer.header("cache-control") == Some("no-store"), "{what}: {:?}", answer.headers);
        }
    }
    // One connection too many.
    let (mut held, mut refused) = (Vec::new(), None);
    for _ in 0..50 {
        // One more each time: those from before may not have left yet, and one of these be the refused one.
        held.push(here.gateway.wire_http().await?);
        let mut wire = here.gateway.wire_http().await?;
        if let Ok(answer) = wire.ask(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await
            && answer.status() == 503
        {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.context("nothing was refused")?;
    check("too many", &by_message(&refused), Some(DATA), false)?;
    drop(held);
    Ok(())
}

/// A head that is too large over HTTP/2, however it is written: answered by the policy's limits, and far above them not at
/// all. The HTTP library's own answer would have none of these headers, nor a line in a log.
#[tokio::test]
async fn a_head_too_large_for_http2_is_answered_with_them_or_not_at_all() -> Result<()> {
    let here = Production::start("", app).await?;
    let [_, (_, client)] = here.clients()?;
    for bytes in [33 << 10, 60 << 10] {
        let what = format!("{bytes} bytes");
        let mut answer = client.get("/").header("x-large", &"x".repeat(bytes)).send().await?;
        ensure!(answer.status() == 431, "{what}: {}", answer.status());
        check(&what, &by_answer(&answer), Some(DATA), true)?;
        ensure!(answer.all("cache-control") == ["no-store"], "{what}: {:?}", answer.headers());
        ensure!(answer.json().await?["code"] == "limits.headers", "{what}");
    }
    let head = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    let plain = [&fields(&head)[..], &fields(&[("x-large", "x".repeat(70 << 10))])].concat();
    // An entry of nearly the whole table (RFC 7541 §6.2.1), and then a byte for each time that it is meant.
    let small = [&fields(&head)[..], &[0x40, 1, b'x', 127, 0xa1, 0x1e], &[b'y'; 4000], &[0xbe; 20]].concat();
    for (what, block) in [("70 KiB as they are", plain), ("80 KiB in four", small)] {
        let address = here.gateway.address("https")?;
        let mut frames = Frames::over(here.trust.connect(address, HOST, &[b"h2"]).await?).await?;
        let pieces: Vec<&[u8]> = block.chunks(16 << 10).collect();
        let bytes = pieces.iter().enumerate().flat_map(|(number, piece)| {
            let kind = if number == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let last = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
            frame(kind, last | if number == 0 { END_STREAM } else { 0 }, 1, piece)
        });
        frames.send(bytes.collect::<Vec<u8>>()).await?;
        let mut ended = None;
        while let Some(frame) = frames.next().await? {
            ensure!(frame.kind != kind::HEADERS, "{what}: an answer");
            ended = frame.error().or(ended);
        }
        ensure!(ended == Some(error::ENHANCE_YOUR_CALM), "{what}: {ended:?}");
    }
    let refused = |line: &serde_json::Value| line["event"] == "request.refused" && line["code"] == "limits.headers";
    let said = async || here.gateway.log().iter().filter(|line| refused(line)).count() == 4;
    palisade_test::eventually(crate::support::SOON, "each is in the log", said).await?;
    ensure!(here.upstream.requests().is_empty(), "{:?}", here.upstream.requests());
    Ok(())
}

/// The plain port in production: browsers go to HTTPS, for hosts of ours alone; what carries a credential is told that it is
/// known to the network now; nothing reaches the application.
#[tokio::test]
async fn the_plain_port_redirects_browsers_and_refuses_credentials() -> Result<()> {
    let here = Production::start("", app).await?;
    let port = here.gateway.address("https")?.port();
    let to = |target: &str| format!("https://{HOST}:{port}{target}");
    let browser = "Upgrade-Insecure-Requests: 1\r\nAccept: text/html,application/xhtml+xml\r\n";
    for (request, status, location, code) in [
        (format!("GET /x?y=1 HTTP/1.1\r\nHost: {HOST}\r\n"), 308, Some(to("/x?y=1")), None),
        (format!("HEAD /x HTTP/1.1\r\nHost: {HOST}\r\n"), 308, Some(to("/x")), None),
        (format!("GET / HTTP/1.1\r\nHost: API.Example.com:80\r\n{browser}"), 308, Some(to("/")), None),
        (format!("GET http://{HOST}/a HTTP/1.1\r\nHost: {HOST}\r\n"), 308, Some(to("/a")), None),
        (format!("GET //evil.example/x HTTP/1.1\r\nHost: {HOST}\r\n{browser}"), 308, Some(to("/evil.example/x")), None),
        (format!("GET /a/../b HTTP/1.1\r\nHost: {HOST}\r\n"), 308, Some(to("/b")), None),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{browser}Cookie: theme=dark\r\n"), 308, Some(to("/")), None),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Host: evil.example\r\n"), 308, Some(to("/")), None),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n"), 308, Some(to("/")), None),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: a=1\r\n"), 403, None, Some("https_redirect.required")),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer x\r\n"),
            403,
            None,
            Some("https_redirect.required"),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{browser}Authorization: Basic eDp5\r\n"),
            403,
            None,
            Some("https_redirect.required"),
        ),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: x\r\n"), 403, None, Some("https_redirect.required")),
        (format!("GET /?access_token=abc HTTP/1.1\r\nHost: {HOST}\r\n"), 403, None, Some("https_redirect.required")),
        (
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n"),
            403,
            None,
            Some("https_redirect.required"),
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\nAuthorization: x\r\n"),
            403,
            None,
            Some("https_redirect.required"),
        ),
        (format!("GET / HTTP/1.1\r\nHost: evil.example\r\n{browser}"), 421, None, Some("hosts.unknown")),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}.evil.example\r\n"), 421, None, Some("hosts.unknown")),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n".to_owned(), 421, None, Some("hosts.unknown")),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}/evil\r\n"), 400, None, Some("integrity.host")),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n".to_owned(), 421, None, Some("hosts.unknown")),
        (format!("GET http://evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n"), 400, None, Some("integrity.host")),
    ] {
        let mut wire = here.gateway.wire_http().await?;
        wire.send(format!("{request}\r\n")).await?;
        let head = request.starts_with("HEAD ");
        let answer = if head { wire.answer_to_head().await? } else { wire.answer().await? };
        ensure!(answer.status() == status, "{request:?}: {} {}", answer.start, answer.text());
        ensure!(answer.header("location") == location.as_deref(), "{request:?}: {:?}", answer.headers);
        if let Some(code) = code {
            let html = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
            ensure!(answer.text().contains(code), "{request:?}: {}", answer.text());
            check(&request, &by_message(&answer), Some(if html { PAGE } else { DATA }), false)?;
        } else {
            check(&request, &by_message(&answer), Some(DATA), false)?;
        }
    }
    ensure!(here.upstream.requests().is_empty(), "{:?}", here.upstream.requests());
    Ok(())
}

/// What a page of some origin wants to do.
#[derive(Debug, Clone, Copy)]
struct Fetch {
    origin: &'static str,
    path: &'static str,
    method: &'static str,
    /// Set by the script.
    headers: &'static [(&'static str, &'static str)],
    credentials: bool,
}

/// What became of it: not sent after its preflight, sent and not readable, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    Kept,
    Hidden,
    Read(u16),
}

/// The Fetch standard's "CORS check" of an answer.
fn cors_check(answer: &palisade_test::Answer, fetch: &Fetch) -> bool {
    let origins = answer.all("access-control-allow-origin");
    let [origin] = origins[..] else { return false };
    if !fetch.credentials && origin == "*" {
        return true;
    }
    origin == fetch.origin && (!fetch.credentials || answer.all("access-control-allow-credentials") == ["true"])
}

fn names(answer: &palisade_test::Answer, header: &str) -> Vec<String> {
    answer.all(header).iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// "HTTP-network-or-cache fetch" of a cross-origin request as far as CORS goes: the preflight where one is needed, its
/// check, the request, its check.
async fn fetch(client: &Client, fetch: &Fetch) -> Result<Fetched> {
    let safelisted = |(name, value): &&(&str, &str)| match *name {
        "accept" | "accept-language" => true,
        "content-type" => ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"].contains(value),
        _ => false,
    };
    let unsafe_names: Vec<&str> =
        fetch.headers.iter().filter(|header| !safelisted(header)).map(|(name, _)| *name).collect();
    let simple = ["GET", "HEAD", "POST"].contains(&fetch.method);
    if !simple || !unsafe_names.is_empty() {
        let mut preflight = client
            .request(Method::OPTIONS, fetch.path)
            .header("origin", fetch.origin)
            .header("access-control-request-method", fetch.method);
        if !unsafe_names.is_empty() {
            preflight = preflight.header("access-control-request-headers", &unsafe_names.join(","));
        }
        let answer = preflight.send().await?;
        if !cors_check(&answer, fetch) || !(200..300).contains(&answer.status()) {
            return Ok(Fetched::Kept);
        }
        let methods = names(&answer, "access-control-allow-methods");
        let any = |names: &[String]| !fetch.credentials && names.iter().any(|name| name == "*");
        if !simple && !methods.iter().any(|method| method == fetch.method) && !any(&methods) {
            return Ok(Fetched::Kept);
        }
        let headers = names(&answer, "access-control-allow-headers");
        for name in unsafe_names {
            let listed = headers.iter().any(|header| header.eq_ignore_ascii_case(name));
            if !listed && (name == "authorization" || !any(&headers)) {
                return Ok(Fetched::Kept);
            }
        }
    }
    let mut request =
        client.request(Method::from_bytes(fetch.method.as_bytes())?, fetch.path).header("origin", fetch.origin);
    for (name, value) in fetch.headers {
        request = request.header(name, value);
    }
    if fetch.credentials {
        request = request.header("cookie", "session=1");
    }
    let answer = request.send().await?;
    Ok(if cors_check(&answer, fetch) { Fetched::Read(answer.status()) } else { Fetched::Hidden })
}

const SHARED: &str = r#"
[cors]
origins = ["https://app.example.com", "*.widgets.example.com", 'regex:https://pr-[0-9]+\.example\.com']
credentials = true
methods = ["GET", "PUT", "DELETE"]
headers = ["Authorization", "Content-Type", "X-Csrf"]

[[route]]
path = "/open/*"
cors = { origins = ["*"], credentials = false, headers = ["*"] }

[[route]]
path = "/inside/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/*"
"#;

/// From the browser's side: what pages can do and read is what the policy says, whatever the application says of CORS.
#[tokio::test]
async fn pages_read_what_the_policy_shares_with_them() -> Result<()> {
    let here = Production::start(SHARED, |request| {
        let status = if request.target() == "/fails" { "500 Internal Server Error" } else { "200 OK" };
        Reply::raw(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: {}\r\n\
             Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Methods: *, PATCH\r\n\
             Access-Control-Allow-Headers: *, X-Evil\r\nAccess-Control-Allow-Private-Network: true\r\n\
             Access-Control-Expose-Headers: *\r\nContent-Length: 2\r\n\r\n{}",
            request.header("origin").unwrap_or("*"),
            if request.method() == "HEAD" { "" } else { "{}" },
        ))
    })
    .await?;
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const TOKEN: &[(&str, &str)] = &[("authorization", "Bearer x")];
    const CSRF: &[(&str, &str)] = &[("x-csrf", "1"), ("content-type", "application/json")];
    const EVIL: &[(&str, &str)] = &[("x-evil", "1")];
    const PLAIN: &[(&str, &str)] = &[("content-type", "text/plain")];
    let (read, kept, hidden) = (Fetched::Read(200), Fetched::Kept, Fetched::Hidden);
    type Wish = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
    // Path, method and headers; what a listed page gets, and what a page that is not.
    let wishes: [(Wish, Fetched, Fetched); 15] = [
        (("/x", "GET", &[]), read, hidden),
        (("/x", "HEAD", &[]), read, hidden),
        (("/x", "POST", PLAIN), read, hidden),
        (("/x", "POST", JSON), read, kept),
        (("/x", "GET", TOKEN), read, kept),
        (("/x", "PUT", CSRF), read, kept),
        (("/x", "DELETE", &[]), read, kept),
        (("/x", "PATCH", &[]), kept, kept),
        (("/x", "GET", EVIL), kept, kept),
        (("/fails", "GET", &[]), Fetched::Read(500), hidden),
        (("/inside/x", "GET", &[]), Fetched::Read(403), hidden),
        (("/inside/x", "PUT", &[]), Fetched::Read(403), kept),
        (("/.env", "GET", &[]), Fetched::Read(404), hidden),
        (("/a%00", "GET", &[]), Fetched::Read(400), hidden),
        (("/.palisade/problems/cors.origin", "GET", &[]), read, hidden),
    ];
    let listed = ["https://app.example.com", "https://a.widgets.example.com", "https://pr-7.example.com"];
    let unlisted = [
        "https://evil.example",
        "null",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil",
        "https://evilexample.com",
        "http://a.widgets.example.com",
        "https://a.widgets.example.com:8443",
        "https://widgets.example.com",
        "https://pr-7xexample.com",
        "https://pr-7.example.com.evil",
        "https://xpr-7.example.com",
    ];
    let mut asked = 0;
    for (way, client) in here.clients()? {
        for ((path, method, headers), to_listed, to_others) in wishes {
            for (origin, expected) in
                listed.map(|origin| (origin, to_listed)).into_iter().chain(unlisted.map(|origin| (origin, to_others)))
            {
                for credentials in [true, false] {
                    let wish = Fetch { origin, path, method, headers, credentials };
                    let got = fetch(&client, &wish).await.with_context(|| format!("{way} {wish:?}"))?;
                    ensure!(got == expected, "{way} {wish:?}: {got:?}, not {expected:?}");
                    asked += 1;
                }
            }
        }
        // For everybody, without credentials: `*` is not the origin, and a cookie keeps the answer from the page.
        for (origin, headers, credentials, expected) in [
            ("https://who.ever", &[][..], false, read),
            ("https://who.ever", EVIL, false, read),
            ("https://who.ever", TOKEN, false, kept),
            ("https://who.ever", &[], true, hidden),
            ("https://who.ever", EVIL, true, kept),
            ("null", &[], false, hidden),
        ] {
            let wish = Fetch { origin, path: "/open/x", method: "GET", headers, credentials };
            let got = fetch(&client, &wish).await?;
            ensure!(got == expected, "{way} {wish:?}: {got:?}, not {expected:?}");
        }
        // One author, and caches keep the answers of origins apart.
        for origin in ["https://app.example.com", "https://evil.example"] {
            let answer = client.get("/x").header("origin", origin).send().await?;
            let mine = origin == "https://app.example.com";
            ensure!(answer.all("access-control-allow-origin").len() == usize::from(mine), "{:?}", answer.headers());
            ensure!(names(&answer, "vary").contains(&"Origin".to_owned()), "{:?}", answer.headers());
            for never in [
                "access-control-allow-private-network",
                "access-control-allow-methods",
                "access-control-expose-headers",
            ] {
                ensure!(answer.header(never).is_none(), "{never}: {:?}", answer.headers());
            }
        }
    }
    ensure!(asked >= 100, "{asked}");
    Ok(())
}
