//! The whole application in the process of the test: the policy of `palisade.toml`, its stack, the router.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use palisade::Palisade;
use palisade_identity::service::{Edit, NewKey};
use palisade_policy::Sources;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// The application with a state of its own, which goes with it.
struct App {
    router: Router,
    handle: std::sync::Arc<palisade::live::Handle>,
    _state: tempfile::TempDir,
}

impl App {
    fn new() -> App {
        let state = tempfile::tempdir().unwrap();
        let sources = Sources::new().file(concat!(env!("CARGO_MANIFEST_DIR"), "/palisade.toml"));
        let path = serde_json::to_string(&state.path().to_string_lossy()).unwrap();
        let sources = sources.flag("the test", "server.state", path);
        let protected = Palisade::from_sources(sources).protect(super::router()).unwrap();
        let handle = protected.handle().clone();
        App { router: protected.into_router(), handle, _state: state }
    }

    /// The status of an answer, and its JSON.
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => Body::empty(),
            form @ Value::String(_) if path == "/auth/token" => {
                request = request.header("content-type", "application/x-www-form-urlencoded");
                Body::from(form.as_str().unwrap_or_default().to_owned())
            }
            json => {
                request = request.header("content-type", "application/json");
                Body::from(json.to_string())
            }
        };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn register(&self, name: &str) -> String {
        let account = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
        let (status, made) = self.ask(Method::POST, "/auth/register", &[], account).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    async fn tokens(&self, grant: &str) -> (u16, Value) {
        self.ask(Method::POST, "/auth/token", &[], json!(grant)).await
    }

    async fn bearer(&self, name: &str, more: &str) -> String {
        let grant = format!("grant_type=password&username={name}&password={}{more}", PASSWORD.replace(' ', "+"));
        let (status, tokens) = self.tokens(&grant).await;
        assert_eq!(status, 200, "{tokens}");
        format!("Bearer {}", tokens["access_token"].as_str().unwrap())
    }
}

#[tokio::test]
async fn section_1_a_login_and_who_it_is() {
    let app = App::new();
    app.register("ann").await;
    let bearer = app.bearer("ann", "").await;
    let (status, hello) = app.ask(Method::GET, "/secure-endpoint", &[("authorization", &bearer)], Value::Null).await;
    assert_eq!((status, hello), (200, json!({ "message": "Hello, ann!" })));
    for forged in ["Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "Bearer x", "Basic YW5uOng="] {
        assert_eq!(app.ask(Method::GET, "/secure-endpoint", &[("authorization", forged)], Value::Null).await.0, 401);
    }
    let (status, wrong) = app.tokens("grant_type=password&username=admin&password=anything").await;
    assert_eq!((status, &wrong["error"]), (400, &json!("invalid_grant")));
    let (_, nobody) = app.ask(Method::GET, "/me", &[], Value::Null).await;
    assert_eq!(nobody, json!({ "address": "127.0.0.1", "name": null }));
    let (_, ann) = app.ask(Method::GET, "/me", &[("authorization", &bearer)], Value::Null).await;
    assert_eq!(ann["name"], "ann");
}

#[tokio::test]
async fn section_5_a_form_of_another_site() {
    let app = App::new();
    app.register("ann").await;
    let bearer = app.bearer("ann", "").await;
    let form = |headers: &'static [(&'static str, &'static str)]| {
        let bearer = bearer.clone();
        let app = &app;
        async move {
            let headers: Vec<(&str, &str)> =
                [("authorization", &*bearer)].into_iter().chain(headers.iter().copied()).collect();
            app.ask(Method::POST, "/form-submit", &headers, Value::Null).await
        }
    };
    // A token is sent by no browser by itself.
    assert_eq!(form(&[]).await, (200, json!({ "message": "Form submitted successfully" })));
    let login = json!({ "username": "ann", "password": PASSWORD });
    let mut request =
        Request::post("/auth/login").header("host", "localhost").header("content-type", "application/json");
    request = request.header("origin", "http://localhost");
    let answer = app.router.clone().oneshot(request.body(Body::from(login.to_string())).unwrap()).await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let post = async |more: &[(&str, &str)]| {
        let headers = [&[("cookie", &*cookie)], more].concat();
        app.ask(Method::POST, "/form-submit", &headers, Value::Null).await
    };
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]).await.0, 200);
    let evil = post(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]).await;
    assert_eq!((evil.0, &evil.1["code"]), (403, &json!("csrf.origin")));
    let silent = post(&[]).await;
    assert_eq!((silent.0, &silent.1["code"]), (403, &json!("csrf.token_missing")));
    let (_, token) = app.ask(Method::GET, "/auth/csrf", &[("cookie", &cookie)], Value::Null).await;
    let token = token["csrf_token"].as_str().unwrap().to_owned();
    assert_eq!(post(&[("x-csrf-token", &token)]).await.0, 200);
}

#[tokio::test]
async fn section_10_tokens_are_refreshed_once() {
    let app = App::new();
    app.register("ann").await;
    let grant = format!("grant_type=password&username=ann&password={}", PASSWORD.replace(' ', "+"));
    let refresh = |tokens: &Value| {
        format!("grant_type=refresh_token&refresh_token={}", tokens["refresh_token"].as_str().unwrap())
    };
    let (_, first) = app.tokens(&grant).await;
    let (status, second) = app.tokens(&refresh(&first)).await;
    assert_eq!(status, 200, "{second}");
    assert_eq!(app.tokens(&refresh(&second)).await.0, 200);
    // The first comes again although its successor was used: somebody has a copy, and the login ends.
    assert_eq!(app.tokens(&refresh(&first)).await.0, 400);
    let bearer = format!("Bearer {}", second["access_token"].as_str().unwrap());
    assert_eq!(app.ask(Method::GET, "/secure-endpoint", &[("authorization", &bearer)], Value::Null).await.0, 401);
    let as_access = format!("Bearer {}", first["refresh_token"].as_str().unwrap());
    assert_eq!(app.ask(Method::GET, "/secure-endpoint", &[("authorization", &as_access)], Value::Null).await.0, 401);
}

#[tokio::test]
async fn section_15_notes_are_their_owners() {
    let app = App::new();
    app.register("ann").await;
    app.register("bob").await;
    let (ann, bob) = (app.bearer("ann", "").await, app.bearer("bob", "").await);
    for (bearer, text) in [(&ann, "hers"), (&bob, "'); DROP TABLE note; --")] {
        assert_eq!(app.ask(Method::POST, "/notes", &[("authorization", bearer)], json!(text)).await.0, 200);
    }
    assert_eq!(app.ask(Method::GET, "/notes", &[("authorization", &ann)], Value::Null).await.1, json!(["hers"]));
    assert_eq!(app.ask(Method::GET, "/notes", &[], Value::Null).await.0, 401);
}

#[tokio::test]
async fn section_18_keys_and_administrators() {
    let app = App::new();
    let (ann, bob) = (app.register("ann").await, app.register("bob").await);
    let with_key =
        async |name: &str, value: &str| app.ask(Method::GET, "/with-key", &[(name, value)], Value::Null).await.0;
    assert_eq!(with_key("api-key", "expected-api-key").await, 401);
    assert_eq!(with_key("x-api-key", "expected-api-key").await, 401);
    assert_eq!(with_key("authorization", &app.bearer("ann", "").await).await, 403, "a user is no machine");
    let identity = palisade::controls::auth::identity(&app.handle).await.unwrap().unwrap();
    let ann = palisade::prelude::UserId::parse(&ann).unwrap();
    let new = NewKey { name: "ci".into(), scopes: vec!["machine".into()], expires_in: None, rate: None };
    let (key, _) = identity.create_key(ann, new).await.unwrap();
    assert_eq!(with_key("x-api-key", key.reveal().expose()).await, 200);

    let path = format!("/admin/users/{bob}");
    let delete = async |bearer: &str| app.ask(Method::DELETE, &path, &[("authorization", bearer)], Value::Null).await;
    let bearer = app.bearer("ann", "").await;
    assert_eq!(delete(&bearer).await.0, 403);
    let roles = ["admin".to_owned()];
    identity.edit_user(ann, Edit { roles: Some(&roles), ..Edit::default() }).await.unwrap();
    let hers = app.bearer("bob", "").await;
    assert_eq!(delete(&bearer).await, (200, json!({ "deleted": true, "by": "ann" })));
    assert_eq!(app.ask(Method::GET, "/secure-endpoint", &[("authorization", &hers)], Value::Null).await.0, 401);
    assert_eq!(delete(&bearer).await.1["deleted"], false);
}

#[tokio::test]
async fn the_policy_decides_what_reaches_the_router() {
    let app = App::new();
    assert_eq!(app.ask(Method::GET, "/.env", &[], Value::Null).await.0, 404);
    assert_eq!(app.ask(Method::GET, "/no-such-path", &[], Value::Null).await.0, 401, "nobody named it");
}
