//! Links that work once. Threats 20.

use http::Method;
use serde_json::{Value, json};

use super::tests::{App, PASSWORD, value};

const OTHER: &str = "sieben blaue Dächer am Hang";

/// The mails that were written, oldest first.
fn mails(app: &App) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(app.state.path().join("mail")) else { return Vec::new() };
    let mut files: Vec<_> = folder.flatten().map(|file| file.path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Waits until there are so many: they are written beside the answer.
async fn wait_for(app: &App, count: usize) {
    for _ in 0..500 {
        if mails(app).len() >= count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} mails", mails(app).len());
}

/// The token of the last mail's link.
fn token(app: &App) -> String {
    let mails = mails(app);
    let link = mails.last().unwrap().lines().find(|line| line.starts_with("https://localhost/auth/")).unwrap();
    link.split_once("?token=").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_forgotten_password() {
    let app = App::new("");
    app.register("ann").await;
    let session = app.session("ann").await;
    let key = app.key(&session, &["notes:read"]).await;
    let ask = |email: &'static str| {
        let app = &app;
        async move { app.json(Method::POST, "/auth/password/reset", &[], &json!({ "email": email })).await }
    };
    let (known, unknown) = (ask("Ann@Example.com").await, ask("nobody@example.com").await);
    assert_eq!((known.status(), known.text()), (unknown.status(), unknown.text()), "no oracle");
    wait_for(&app, 1).await;
    let link = token(&app);
    let confirm = |token: &str, password: &str| {
        let body = json!({ "token": token, "new_password": password });
        let app = &app;
        async move { app.json(Method::POST, "/auth/password/reset/confirm", &[], &body).await }
    };
    let weak = confirm(&link, "kurz").await;
    assert_eq!(weak.refusal().map(|code| code.name), Some("password.short"), "the link is still good");
    let page = app.get(&format!("/auth/password/reset/confirm?token={link}"), &[("accept", "text/html")]).await;
    assert_eq!((page.status(), page.header("referrer-policy")), (200, "same-origin"));
    assert_eq!(confirm(&link, OTHER).await.status(), 204);
    assert_eq!(confirm(&link, OTHER).await.refusal().map(|code| code.name), Some("auth.link"), "once");
    assert_eq!(app.get("/any", &[("cookie", &session)]).await.status(), 401);
    assert_eq!(app.get("/notes", &[("x-api-key", &key)]).await.status(), 401, "keys that were made before, too");
    let log_in = |password: &str| {
        let body = json!({ "username": "ann", "password": password });
        let app = &app;
        async move { app.json(Method::POST, "/auth/login", &[], &body).await.status() }
    };
    assert_eq!((log_in(PASSWORD).await, log_in(OTHER).await), (401, 200));
    for junk in ["", "palp_x", &link.replace("palp_", "palv_"), "palv_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = confirm(junk, OTHER).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("auth.link"), "{junk}");
    }
}

#[tokio::test]
async fn registration_that_is_verified_tells_nobody_who_has_an_account() {
    let verified = App::with("registration = \"verified\"");
    let register = |name: &'static str, email: &'static str| {
        let app = &verified;
        let body = json!({ "username": name, "email": email, "password": PASSWORD });
        async move { app.json(Method::POST, "/auth/register", &[], &body).await }
    };
    let first = register("ann", "ann@example.com").await;
    let same_name = register("ann", "other@example.com").await;
    let same_email = register("other", "ann@example.com").await;
    for answer in [&same_name, &same_email] {
        assert_eq!((answer.status(), answer.text()), (first.status(), first.text()));
    }
    assert_eq!(first.status(), 202);
    wait_for(&verified, 1).await;
    let seen = |token: String| {
        let app = &verified;
        async move { app.get("/any", &[("authorization", &token)]).await.text() }
    };
    let bearer = |tokens: &Value| format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let before = bearer(&verified.token("ann", "").await);
    assert!(!seen(before.clone()).await.contains("x-forwarded-email"), "not proved yet");
    let link = token(&verified);
    let shown = verified.get(&format!("/auth/email/verify?token={link}"), &[("accept", "text/html")]).await;
    assert!(shown.text().contains("It is mine"), "following the link alone changes nothing");
    let proved = verified.json(Method::POST, "/auth/email/verify", &[], &json!({ "token": link })).await;
    assert_eq!(proved.status(), 204, "{}", proved.text());
    let ended = verified.get("/any", &[("authorization", &before)]).await;
    assert_eq!(ended.status(), 401, "what was there before the proof has ended: {}", value(&ended));
    let after = bearer(&verified.token("ann", "").await);
    assert!(seen(after).await.contains("x-forwarded-email: ann@example.com"));
}
