//! A table of requests, and the ways round it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt as _;

use super::token::{PLAIN_NAME, SECURE_NAME};
use crate::body::RequestBody;
use crate::context::{Connection, Listener, Tls};
use crate::testing_local::{Answer, App, request};

const POLICY: &str = r#"
[cors]
origins = ["https://app.example.com", "https://*.partner.example"]
credentials = true
[csrf]
exempt = ["/hook/*"]
login = ["/login"]
"#;

/// Over TLS, so that cookies have their prefix and `http:` pages are not own ones.
async fn send(app: &App, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let tls = Tls { server_name: None, version: "TLSv1.3" };
    let (peer, local) = (SocketAddr::from(([203, 0, 113, 1], 4242)), SocketAddr::from(([127, 0, 0, 1], 443)));
    let connection = Arc::new(Connection::new(peer, local, Some(tls), Listener::Https));
    let sent = request(method, path, headers, body.into()).map(RequestBody::axum);
    let (parts, body) = app.handle.live().serve(&connection, sent).await.into_parts();
    let text = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    Answer { status: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8_lossy(&text).into_owned() }
}

/// A visitor's cookie, as `Cookie` has it, and a token.
async fn visitor(app: &App) -> (String, String) {
    let answer = send(app, "GET", "/.palisade/csrf", &[], Body::empty()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; Secure; SameSite=Lax"), "{cookie}");
    let document: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    (cookie.split(';').next().unwrap().to_owned(), document["csrf_token"].as_str().unwrap().to_owned())
}

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=b";
const OWN: &str = "https://localhost";

/// Method, path, headers, body and the code it is refused with; empty where it passes. `{c}` and `{t}` are a visitor's
/// cookie and token, `{C}` and `{T}` those of another one.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Nothing changes, or nothing is there that a browser would have added.
    ("GET", "/", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "", ""),
    ("HEAD", "/", &[("cookie", "s=1"), ("origin", "https://evil.example")], "", ""),
    ("OPTIONS", "/", &[("cookie", "s=1"), ("origin", "https://evil.example")], "", ""),
    ("POST", "/echo", &[], "x", ""),
    ("POST", "/echo", &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], "x", ""),
    ("POST", "/echo", &[("authorization", "Bearer x"), ("sec-fetch-site", "cross-site")], "x", ""),
    ("POST", "/echo", &[("x-api-key", "k"), ("origin", "https://evil.example")], "x", ""),
    // What the browser says comes first.
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "same-origin")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "none")], "x", ""),
    ("PUT", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "same-origin"), ("origin", OWN)], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("PUT", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("PATCH", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("DELETE", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "same-site")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.localhost")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "Same-Origin")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site"), ("origin", OWN)], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "{c}"), ("sec-fetch-site", "cross-site"), ("x-csrf-token", "{t}")], "x", "csrf.origin"),
    // Then `Origin`.
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", OWN)], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://localhost:443")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://localhost:8443"), ("host", "localhost:8443")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://localhost:8443")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "http://localhost")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://evil.example")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://a.localhost")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://localhost.evil.example")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://localhost@evil.example")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "localhost")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", OWN), ("origin", OWN)], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "null")], "x", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "{c}"), ("origin", "null"), ("x-csrf-token", "{t}")], "x", ""),
    ("POST", "/echo", &[("cookie", "{c}"), ("origin", "https://evil.example"), ("x-csrf-token", "{t}")], "x", "csrf.origin"),
    // Origins of `[cors]` are own ones.
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://app.example.com")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://a.partner.example"), ("sec-fetch-site", "cross-site")], "x", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "https://app.example.com.evil.example"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("origin", "null"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    // What else a browser adds by itself.
    ("POST", "/echo", &[("authorization", "Basic YTpi"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/echo", &[("authorization", "Negotiate x"), ("origin", "https://evil.example")], "x", "csrf.origin"),
    ("POST", "/echo", &[("authorization", "Digest x")], "x", "csrf.token_missing"),
    ("POST", "/echo", &[("authorization", "Basic YTpi"), ("sec-fetch-site", "same-origin")], "x", ""),
    // A bearer token beside a cookie is not the accepted credential.
    ("POST", "/echo", &[("cookie", "s=1"), ("authorization", "Bearer junk"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/echo", &[("cookie", "s=1"), ("x-api-key", "junk"), ("origin", "https://evil.example")], "x", "csrf.origin"),
    ("POST", "/echo", &[("authorization", "Bearer a"), ("authorization", "Basic YTpi"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    // Neither of the two: a token.
    ("POST", "/echo", &[("cookie", "s=1")], "x", "csrf.token_missing"),
    ("DELETE", "/echo", &[("cookie", "s=1")], "", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "s=1; {c}"), ("x-csrf-token", "{t}")], "x", ""),
    ("DELETE", "/echo", &[("cookie", "{c}"), ("x-csrf-token", "{t}")], "", ""),
    ("POST", "/echo", &[("cookie", "s=1"), ("x-csrf-token", "{t}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("x-csrf-token", "{T}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{C}"), ("x-csrf-token", "{t}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}; {c}"), ("x-csrf-token", "{t}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("x-csrf-token", "{t}"), ("x-csrf-token", "{t}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("x-csrf-token", "")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "__Host-palisade-csrf=abc"), ("x-csrf-token", "abc")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "palisade-csrf={v}"), ("x-csrf-token", "{v}")], "x", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("x-csrf-token", "{v}")], "x", ""),
    // In a form.
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM)], "a=1&csrf_token={t}&b=2", ""),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM)], "csrf_token={t}", ""),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM)], "csrf_token={T}", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM)], "csrf_token=", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM)], "a=1", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "s=1"), ("content-type", FORM)], "csrf_token={t}", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", MULTIPART)], "--b\r\nContent-Disposition: form-data; name=\"csrf_token\"\r\n\r\n{t}\r\n--b--\r\n", ""),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", MULTIPART)], "--b\r\nContent-Disposition: form-data; name=\"csrf_token\"\r\n\r\n{T}\r\n--b--\r\n", "csrf.token_invalid"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", MULTIPART)], "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{t}\r\n--b--\r\n", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", "text/plain")], "csrf_token={t}", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", "application/json")], "{\"csrf_token\":\"{t}\"}", "csrf.token_missing"),
    ("POST", "/echo?csrf_token={t}", &[("cookie", "{c}")], "x", "csrf.token_missing"),
    ("POST", "/echo", &[("cookie", "{c}"), ("content-type", FORM), ("sec-fetch-site", "cross-site")], "csrf_token={t}", "csrf.origin"),
    // Paths with a rule of their own.
    ("POST", "/hook", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", ""),
    ("POST", "/hook/pay", &[("cookie", "s=1"), ("origin", "https://evil.example")], "x", ""),
    ("POST", "/hooks", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/x/../hook/a/../../echo", &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    // Login CSRF: nothing was added yet.
    ("POST", "/login", &[("sec-fetch-site", "cross-site")], "x", "csrf.origin"),
    ("POST", "/login", &[("origin", "https://evil.example")], "x", "csrf.origin"),
    ("POST", "/login", &[("origin", "null")], "x", "csrf.token_missing"),
    ("POST", "/login", &[("origin", OWN)], "x", ""),
    ("POST", "/login", &[], "x", ""),
    // WebSocket handshakes come with cookies too, and always with `Origin`.
    ("GET", "/", &[("cookie", "s=1"), ("connection", "upgrade"), ("upgrade", "websocket"), ("origin", "https://evil.example")], "", "csrf.origin"),
    ("GET", "/", &[("cookie", "s=1"), ("connection", "upgrade"), ("upgrade", "websocket"), ("origin", "null")], "", "csrf.origin"),
    ("GET", "/", &[("cookie", "s=1"), ("connection", "upgrade"), ("upgrade", "websocket"), ("origin", OWN)], "", ""),
    ("GET", "/", &[("cookie", "s=1"), ("connection", "upgrade"), ("upgrade", "websocket")], "", ""),
];

#[tokio::test]
async fn a_table_of_requests() {
    let app = App::start(POLICY);
    let ((cookie, token), (other_cookie, other_token)) = (visitor(&app).await, visitor(&app).await);
    let value = cookie.split_once('=').unwrap().1.to_owned();
    let fill = |text: &str| {
        let names = [("{c}", &cookie), ("{t}", &token), ("{C}", &other_cookie), ("{T}", &other_token), ("{v}", &value)];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    assert!(CASES.len() >= 50);
    for (method, path, headers, body, expected) in CASES {
        let headers: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, fill(value))).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = send(&app, method, &fill(path), &headers, fill(body)).await;
        let code = answer.code().unwrap_or_default();
        assert_eq!(code, *expected, "{method} {path} {headers:?} {body}: {}", answer.status);
        assert_eq!(answer.status == 403, !expected.is_empty(), "{method} {path} {headers:?}: {}", answer.status);
    }
}

#[tokio::test]
async fn detect_and_off_change_nothing() {
    let cross: &[(&str, &str)] = &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")];
    for policy in ["[csrf]\nmode = \"detect\"", "[csrf]\nmode = \"off\"", crate::policy::STARTER] {
        let app = App::start(policy);
        let answer = send(&app, "POST", "/echo", cross, "x").await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "x"), "{policy}");
        let form = [("cookie", "s=1"), ("content-type", FORM)];
        assert_eq!(send(&app, "POST", "/echo", &form, "a=1").await.text, "a=1", "{policy}");
    }
    let one = App::start("[[route]]\npath = \"/echo\"\ncsrf = { mode = \"off\" }");
    assert_eq!(send(&one, "POST", "/echo", cross, "x").await.status, 200);
    assert_eq!(send(&one, "POST", "/ignore", cross, "x").await.code().as_deref(), Some("csrf.origin"));
}

#[tokio::test]
async fn over_plain_http_the_cookie_has_no_prefix() {
    let app = App::start("");
    let answer = app.get("203.0.113.1", "/.palisade/csrf").await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("{PLAIN_NAME}=")) && !cookie.contains("Secure"), "{cookie}");
    let post = async |origin: &'static str| {
        app.ask("203.0.113.1", "POST", "/echo", &[("cookie", "s=1"), ("origin", origin)]).await.code()
    };
    // A page over TLS is at least as much ours; a proxy in front may have ended it.
    assert_eq!((post("http://localhost").await, post("https://localhost").await), (None, None));
    assert_eq!(post("http://localhost:3000").await.as_deref(), Some("csrf.origin"));
}

#[tokio::test]
async fn tokens_of_the_applications_own_sessions() {
    let app = App::start("[csrf]\nsession_cookie = \"sid\"\ntokens = true");
    let token = async |cookie: &str| {
        let answer = send(&app, "GET", "/.palisade/csrf", &[("cookie", cookie)], Body::empty()).await;
        let document: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        let set = answer.header("set-cookie").unwrap_or_default();
        (document["csrf_token"].as_str().unwrap().to_owned(), set.split(';').next().unwrap().to_owned())
    };
    let post = async |cookie: &str, token: &str| {
        send(&app, "POST", "/echo", &[("cookie", cookie), ("x-csrf-token", token)], "x")
            .await
            .code()
            .unwrap_or_default()
    };
    let ((anonymous, planted), (bob, script)) = (token("a=1").await, token("sid=bob").await);
    assert_eq!(post("sid=bob", &bob).await, "");
    assert_eq!(post("sid=alice", &bob).await, "csrf.token_invalid");
    // An attacker's own pair, planted into the browser of somebody who is logged in (baselines, 16).
    assert_eq!(post(&format!("sid=alice; {planted}"), &anonymous).await, "csrf.token_invalid");
    assert_eq!(post(&planted, &anonymous).await, "");
    // What scripts read in the cookie is a token of the session too.
    assert_eq!(post("sid=bob", script.split_once('=').unwrap().1).await, "");
    assert_eq!(post("sid=alice", script.split_once('=').unwrap().1).await, "csrf.token_invalid");
}

#[tokio::test]
async fn pages_get_a_token_where_the_policy_says_so() {
    let html: &[(&str, &str)] = &[("accept", "text/html"), ("x-csrf-token", "mine")];
    let quiet = App::start("");
    assert_eq!(send(&quiet, "GET", "/page", html, Body::empty()).await.header("set-cookie"), None);
    let app = App::start("[csrf]\ntokens = true");
    let answer = send(&app, "GET", "/page", html, Body::empty()).await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with(SECURE_NAME), "{cookie}");
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    let (pair, token) = (cookie.split(';').next().unwrap(), answer.header("x-seen-token").unwrap());
    assert_ne!(token, "mine", "what a client says is not the token of a page");
    let ok = send(&app, "POST", "/echo", &[("cookie", pair), ("x-csrf-token", &token)], "x").await;
    assert_eq!(ok.code(), None);
    let again = send(&app, "GET", "/page", &[("accept", "text/html"), ("cookie", pair)], Body::empty()).await;
    assert_eq!(again.header("set-cookie"), None, "the cookie stays");
    assert_ne!(again.header("x-seen-token").unwrap(), token, "the token does not");
    let json = send(&app, "GET", "/", &[("accept", "application/json")], Body::empty()).await;
    assert_eq!(json.header("set-cookie"), None);
    let detect = App::start("[csrf]\ntokens = true\nmode = \"detect\"");
    let seen = send(&detect, "GET", "/page", html, Body::empty()).await;
    assert_eq!((seen.header("set-cookie"), seen.header("x-seen-token").as_deref()), (None, Some("mine")));
}

#[tokio::test]
async fn forms_of_pages_get_the_token() {
    let app = App::start("[csrf]\ninject = true");
    let page = send(&app, "GET", "/page", &[("accept", "text/html")], Body::empty()).await;
    let cookie = page.header("set-cookie").unwrap();
    assert_eq!(page.text.matches("csrf_token").count(), 1, "{}", page.text);
    assert_eq!(page.header("content-length"), Some(page.text.len().to_string()));
    let token = page.text.split("value=\"").nth(1).unwrap().split('"').next().unwrap();
    let headers = [("cookie", cookie.split(';').next().unwrap()), ("content-type", FORM)];
    let posted = send(&app, "POST", "/echo", &headers, format!("csrf_token={token}")).await;
    assert_eq!(posted.code(), None, "{}", posted.text);
    let latin = send(&app, "GET", "/page?charset=latin1", &[("accept", "text/html")], Body::empty()).await;
    assert_eq!(latin.text.matches("csrf_token").count(), 0);
}

#[tokio::test]
async fn the_field_is_looked_for_in_the_beginning_only() {
    let app = App::start(POLICY);
    let (cookie, token) = visitor(&app).await;
    let headers = [("cookie", cookie.as_str()), ("content-type", FORM)];
    let stream = async |before: usize, piece: usize| {
        let body = format!("a={}&csrf_token={token}&b={}", "x".repeat(before), "y".repeat(100_000));
        let pieces: Vec<_> = body.as_bytes().chunks(piece).map(bytes::Bytes::copy_from_slice).collect();
        let stream = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        send(&app, "POST", "/echo", &headers, Body::from_stream(stream)).await
    };
    for piece in [1, 1000, 70_000] {
        let answer = stream(60_000, piece).await;
        assert_eq!((answer.status, answer.code()), (200, None), "pieces of {piece}");
        let answer = stream(70_000, piece).await;
        assert_eq!(answer.code().as_deref(), Some("csrf.token_missing"), "pieces of {piece}");
    }
}

#[test]
fn a_key_that_cannot_be_had_is_a_problem() {
    let problems =
        App::problems("[csrf]\nkey = { secret = \"palisade-test-no-such-secret\" }\nsession_cookie = \"a=b\"");
    assert!(problems.contains("csrf") && problems.contains("palisade-test-no-such-secret"), "{problems}");
    assert!(problems.contains("not the name of a cookie"), "{problems}");
    assert!(App::problems("[csrf]\nmode = \"block\"\nexempt = [\"/a/*\"]").is_empty());
}

#[test]
fn production_has_no_key_that_somebody_chose() {
    let dir = tempfile::tempdir().unwrap();
    let said = |mode: &str, key: &str| {
        std::fs::write(dir.path().join("csrf-key"), key).unwrap();
        App::problems(&format!(
            "[server]\nmode = \"{mode}\"\n[secrets]\nprovider = \"dir:{}\"\n[csrf]\nkey = {{ secret = \"csrf-key\" }}\n",
            dir.path().display()
        ))
    };
    let repeated = "a".repeat(32);
    let tutorial = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7";
    for (key, why) in [
        ("hunter2", "the key is shorter than 32 bytes"),
        (&*repeated, "the key is too simple to be a secret"),
        (tutorial, "the key is printed in FastAPI's tutorial"),
    ] {
        let problems = said("production", key);
        assert!(problems.contains(why) && problems.contains("openssl rand"), "{problems}");
        assert!(!problems.contains(key), "the secret is printed: {problems}");
    }
    for (mode, key) in [("development", &*repeated), ("production", "7c2e0d54b1f9a83667de15c0428bfa93")] {
        let problems = said(mode, key);
        assert!(!problems.contains("csrf.key") && !problems.contains("the key is"), "{problems}");
    }
}
