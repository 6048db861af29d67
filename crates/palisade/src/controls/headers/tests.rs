//! The control in a stack.

use http::{HeaderMap, Method, StatusCode};

use super::*;
use crate::testing::Harness;

const PAGE: &str = "<script src=https://cdn.jsdelivr.net/a.js></script><script>alert(1)</script>";

fn app(policy: &str) -> Harness {
    use axum::routing::get;
    let header = |name: &'static str, value: &'static str| get(move || async move { ([(name, value)], "{}") });
    let router = axum::Router::new()
        .route(
            "/json",
            get(|| async { ([("content-type", "application/json"), ("server", "x"), ("x-powered-by", "y")], "{}") }),
        )
        .route("/page", get(|| async { axum::response::Html("<p>") }))
        .route("/docs", get(|| async { axum::response::Html(PAGE) }))
        .route("/own", header("content-security-policy", "default-src https://a.example"))
        .route("/hsts", header("strict-transport-security", "max-age=1"))
        .route("/public", header("cache-control", "public, max-age=9"))
        .route("/open/public", get(async || ""))
        .route("/cookie", header("set-cookie", "a=1"))
        .route("/away", get(|| async { (StatusCode::FOUND, [("location", "https://evil.example/")]) }))
        .route("/http", get(|| async { (StatusCode::FOUND, [("location", "http://localhost/x")]) }));
    Harness::new(policy, router)
}

#[tokio::test]
async fn every_answer_has_its_set() {
    let app = app("");
    for (path, csp) in [
        ("/json", "default-src 'none'; frame-ancestors 'none'"),
        ("/page", "default-src 'self'; frame-ancestors 'none'"),
        ("/own", "default-src https://a.example"),
        ("/nothing", "default-src 'none'; frame-ancestors 'none'"),
        ("/.palisade/nothing", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("content-security-policy"), csp, "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin-allow-popups"),
            ("cross-origin-resource-policy", "same-site"),
            ("strict-transport-security", ""),
            ("server", ""),
            ("x-powered-by", ""),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
    }
    let refused = app.send(Method::GET, "/json", &[("host", "evil.example")], "").await;
    assert_eq!((refused.status(), refused.header("x-content-type-options")), (421, "nosniff"));
    assert_eq!(app.get("/hsts").await.header("strict-transport-security"), "");
}

#[tokio::test]
async fn personal_answers_and_cookies() {
    let app = app("[[route]]\npath = \"/public\"\nmethods = [\"GET\"]\ncache = \"upstream\"");
    let login = [("cookie", "s=1")];
    assert_eq!(app.get("/json").await.header("cache-control"), "");
    assert_eq!(app.send(Method::GET, "/json", &login, "").await.header("cache-control"), "no-store");
    let shared = app.send(Method::GET, "/public", &login, "").await;
    assert_eq!((shared.header("cache-control"), shared.header("vary")), ("public, max-age=9", ""));
    let cookie = app.get("/cookie").await;
    assert_eq!(
        (cookie.header("set-cookie"), cookie.header("cache-control")),
        ("a=1; Secure; SameSite=Lax", "no-store")
    );
    assert_eq!(app.plain().get("/cookie").await.header("set-cookie"), "a=1; SameSite=Lax");
}

#[tokio::test]
async fn redirects_are_mended_and_judged() {
    let watched = app("");
    assert_eq!(watched.get("/http").await.header("location"), "https://localhost/x");
    assert_eq!(watched.get("/away").await.header("location"), "https://evil.example/");
    let refused = app("[headers]\nlocation = \"block\"").get("/away").await;
    assert_eq!((refused.status(), refused.refusal()), (502, Some(&LOCATION_CODE)));
    assert_eq!((refused.header("location"), refused.header("x-content-type-options")), ("", "nosniff"));
    let allowed = app("[headers]\nlocation = \"block\"\nredirects = [\"*.example\"]").get("/away").await;
    assert_eq!(allowed.status(), 302);
}

#[tokio::test]
async fn documentation_is_open_with_its_own_policy_or_closed() {
    let open = app("").get("/docs").await;
    assert_eq!(open.text(), PAGE);
    assert!(open.header("content-security-policy").contains("script-src https://cdn.jsdelivr.net/a.js 'sha256-"));
    let closed = app("[headers]\ndocs = \"closed\"");
    for path in ["/docs", "/docs/", "/redoc", "/docs/oauth2-redirect", "/openapi.json"] {
        assert_eq!(closed.get(path).await.refusal(), Some(&DOCS), "{path}");
    }
    assert_eq!(closed.get("/page").await.status(), 200);
    // Who may read it is no matter of content.
    for policy in ["[headers]\ndocs = \"closed\"\nmode = \"detect\"", "[headers]\ndocs = \"closed\"\nmode = \"off\""] {
        assert_eq!(app(policy).get("/docs").await.refusal(), Some(&DOCS), "{policy}");
    }
}

#[tokio::test]
async fn each_page_has_a_nonce_and_the_application_knows_it() {
    use axum::response::Html;
    let router = axum::Router::new().fallback(|headers: HeaderMap| async move {
        let told: Vec<&str> = headers.get_all("x-csp-nonce").iter().filter_map(|value| value.to_str().ok()).collect();
        Html(told.join(","))
    });
    let policy = "[headers]\ncsp_report_only = \"script-src 'nonce-{nonce}'\"\n[[route]]\npath = \"/plain\"\n\
                      headers = { csp_report_only = \"off\" }\n[[route]]\npath = \"/*\"\n\
                      headers = { csp = \"script-src 'nonce-{nonce}' 'strict-dynamic'\" }";
    let app = Harness::new(policy, router);
    let forged = [("x-csp-nonce", "mine"), ("X-CSP-Nonce", "mine too"), ("x_csp_nonce", "and mine")];
    let (one, other) = (app.send(Method::GET, "/", &forged, "").await, app.send(Method::GET, "/", &forged, "").await);
    for answer in [&one, &other] {
        let nonce = answer.text();
        assert_eq!(nonce.len(), 24, "{nonce}");
        let tried = format!("script-src 'nonce-{nonce}'");
        let enforced = format!("{tried} 'strict-dynamic'; frame-ancestors 'none'");
        assert_eq!(answer.header("content-security-policy"), enforced);
        assert_eq!(answer.header("content-security-policy-report-only"), tried);
    }
    assert_ne!(one.text(), other.text());
    // Where no page has one, nobody makes one up.
    let plain = app.send(Method::GET, "/plain", &forged, "").await;
    assert_eq!((plain.text().as_str(), plain.header("content-security-policy-report-only")), ("", ""));
    // A page of our own has one of nobody's, and data none.
    let page = app.send(Method::GET, "/.env", &[("accept", "text/html")], "").await;
    let policy = page.header("content-security-policy-report-only");
    assert!(page.status() == 404 && policy.starts_with("script-src 'nonce-") && !policy.contains('{'), "{policy}");
}

#[tokio::test]
async fn credentials_in_urls_are_noted_or_refused() {
    let ask = async |policy: &str, target: &str| app(policy).get(target).await;
    let block = "[headers]\nurl_tokens = \"block\"";
    for target in
        ["/json?access_token=abc", "/json?a=1&api-key=abc", "/json?x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"]
    {
        assert_eq!(ask(block, target).await.refusal(), Some(&URL_TOKEN), "{target}");
        assert_eq!(ask("", target).await.status(), 200, "{target}");
    }
    for target in ["/json?code=abc&state=x", "/json?page_token=abc", "/json?token=", "/json"] {
        assert_eq!(ask(block, target).await.status(), 200, "{target}");
    }
    // What is only watched opens nothing.
    assert_eq!(ask("[headers]\ndocs = \"closed\"", "/docs?token=abc").await.refusal(), Some(&DOCS));
}

/// Threat 37: whatever the application says, on every kind of answer.
#[tokio::test]
async fn what_a_credential_brought_is_kept_by_nobody() {
    let app = app("[[route]]\npath = \"/open/*\"\ncache = \"upstream\"");
    for (name, value, vary) in [
        ("cookie", "s=1", "Cookie"),
        ("authorization", "Bearer x", "Authorization"),
        ("x-api-key", "k", "X-API-Key"),
        ("x-auth-token", "t", ""),
    ] {
        for path in ["/public", "/json", "/nothing", "/http", "/page", "/a%00b", "/.palisade/problems/access.method"] {
            let answer = app.send(Method::GET, path, &[(name, value)], "").await;
            assert_eq!(answer.header("cache-control"), "no-store", "{name} {path}");
            assert_eq!(answer.header("vary"), vary, "{name} {path}");
        }
        let open = app.send(Method::GET, "/open/public", &[(name, value)], "").await;
        assert_eq!((open.header("cache-control"), open.header("vary")), ("", ""), "{name}");
    }
    // A credential in the URL is one too; a page of a list is none.
    assert_eq!(app.get("/public?api_key=abc").await.header("cache-control"), "no-store");
    assert_eq!(app.get("/public?page_token=abc").await.header("cache-control"), "public, max-age=9");
}
