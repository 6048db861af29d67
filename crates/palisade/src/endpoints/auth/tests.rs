//! The endpoints and the routes behind them, through the whole stack, each on a database of its own of either kind.

use axum::Router;
use axum::extract::Request;
use http::Method;
use palisade_identity::service::{Account, Edit, UserId};
use serde_json::{Value, json};

use super::call::encode;
use crate::testing::{Answer, Harness};
use crate::testing_kept::state;
use palisade_test::kept::Kept;
use palisade_test::on_both;

pub(super) const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// Says every header that it gets, a line each, and tries to set cookies.
pub(super) fn echo() -> Router {
    async fn say(request: Request) -> axum::response::Response {
        let mut text = String::new();
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let mut answer = axum::response::Response::new(text.into());
        let headers = answer.headers_mut();
        for cookie in [
            "__Host-palisade=evil; Path=/; Secure",
            "__HOST-PALISADE=evil; Path=/; Secure",
            "palisade=evil",
            "__Host-palisade; Path=/; Secure",
            "=__Host-palisade=evil",
            "__Host-palisade-device=; Max-Age=0; Path=/; Secure",
            "mine=1",
        ] {
            headers.append("set-cookie", cookie.parse().unwrap());
        }
        headers.insert("palisade-assertion", "x".parse().unwrap());
        answer
    }
    /// Events without an end.
    async fn events() -> axum::response::Response {
        let ticks = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Some((Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(b"data: x\n\n")), ()))
        });
        let mut answer = axum::response::Response::new(axum::body::Body::from_stream(ticks));
        answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        answer
    }
    Router::new().route("/events", axum::routing::get(events)).fallback(say)
}

pub(super) struct App {
    pub(super) harness: Harness,
    pub(super) state: tempfile::TempDir,
}

const ROUTES: &str = r#"
[[route]]
path = "/open"
public = true

[[route]]
path = "/admin/*"
roles = ["admin"]

[[route]]
path = "/notes"
scopes = ["notes:read"]

[[route]]
path = "/scoped-admin"
scopes = ["notes:read"]
roles = ["admin"]

[[route]]
path = "/keys-only"
key = true

[[route]]
path = "/fresh"
max_age = "5m"

[[route]]
path = "/permitted"
permissions = ["notes:edit"]
"#;

impl App {
    pub(super) async fn new(kept: &Kept, auth: &str) -> Self {
        Self::with(kept, &format!("registration = \"open\"\n{auth}")).await
    }

    /// With these lines in `[auth]`.
    pub(super) async fn with(kept: &Kept, auth: &str) -> Self {
        Self::round(kept, auth, Harness::new).await
    }

    async fn round(kept: &Kept, auth: &str, start: impl FnOnce(&str, Router) -> Harness) -> Self {
        let state = state(kept, &[]).await;
        let policy = format!(
            "[server]\nstate = {:?}\nhosts = [\"localhost\"]\n[auth]\nissuer = \"https://localhost\"\n{auth}\n{ROUTES}{}",
            state.path(),
            kept.sections()
        );
        Self { harness: start(&policy, echo()), state }
    }

    pub(super) async fn json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("content-type", "application/json"), ("origin", "https://localhost")];
        all.extend_from_slice(headers);
        self.harness.send(method, path, &all, body.to_string()).await
    }

    pub(super) async fn form(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.harness.send(Method::POST, path, &all, body.to_owned()).await
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.harness.send(Method::GET, path, headers, "").await
    }

    pub(super) async fn register(&self, name: &str) -> Value {
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
        let answer = self.json(Method::POST, "/auth/register", &[], &body).await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        value(&answer)
    }

    pub(super) async fn make_admin(&self, id: &str) {
        let live = self.harness.handle().live();
        let auth = live.policy.controls().auth.control.as_ref().unwrap();
        let ready = auth.open(&live.policy).await.unwrap();
        let roles = ["admin".to_owned()];
        let edit = Edit { roles: Some(&roles), ..Edit::default() };
        let _: Account = ready.identity.edit_user(UserId::parse(id).unwrap(), edit).await.unwrap();
    }

    pub(super) async fn token(&self, name: &str, more: &str) -> Value {
        let body = format!("grant_type=password&username={name}&password={}{more}", PASSWORD.replace(' ', "+"));
        let answer = self.form("/auth/token", &[], &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        value(&answer)
    }

    /// The cookie of a session, as a browser sends it.
    pub(super) async fn session(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        let answer = self.json(Method::POST, "/auth/login", &[], &body).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        cookie(&answer).expect("a session")
    }

    /// Wrong passwords for somebody. Two at a time: so many of one account are checked at once, and each takes longer than
    /// the one before.
    pub(super) async fn guess(&self, name: &str, guesses: usize) {
        let guess = async || {
            let body = json!({ "username": name, "password": "wrong wrong wrong" });
            let answer = self.json(Method::POST, "/auth/login", &[], &body).await;
            // Counted also where the pool of hashes has no room.
            assert!(matches!(answer.status(), 401 | 503), "{}", answer.text());
        };
        for _ in 0..guesses / 2 {
            tokio::join!(guess(), guess());
        }
        if guesses % 2 == 1 {
            guess().await;
        }
    }

    pub(super) async fn key(&self, session: &str, scopes: &[&str]) -> String {
        let body = json!({ "name": "k", "scopes": scopes });
        let answer = self.json(Method::POST, "/auth/keys", &[("cookie", session)], &body).await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        value(&answer)["key"].as_str().unwrap().to_owned()
    }
}

pub(super) fn value(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|_| panic!("{}", answer.text()))
}

pub(super) fn cookie(answer: &Answer) -> Option<String> {
    let cookies = answer.headers().get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let ours = cookies.filter_map(|cookie| cookie.split(';').next());
    ours.filter(|pair| pair.starts_with("__Host-palisade=")).map(str::to_owned).next_back()
}

pub(super) fn bearer(tokens: &Value) -> String {
    format!("Bearer {}", tokens["access_token"].as_str().unwrap())
}

pub(super) fn line<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

on_both!(
    from_registration_to_a_key,
    spellings_and_identities,
    keys_expire_when_they_are_told_to,
    routes_and_identities,
    endpoints_and_credentials,
    a_failed_login_says_nothing,
    many_doors_and_one_counter,
    credentials_end_here,
    a_session_ends_with_its_logout_and_a_browser_is_sent_to_log_in,
    headers_that_name_the_user,
    a_stream_ends_with_the_rights_of_its_reader,
    registration_gives_no_rights,
    passwords_are_taken_whole,
);

async fn from_registration_to_a_key(kept: Kept) {
    let app = App::new(&kept, "").await;
    let ann = app.register("ann").await;
    assert_eq!((&ann["username"], &ann["email"]), (&json!("ann"), &json!("ann@example.com")));
    let tokens = app.token("ann", "").await;
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
    let token = bearer(&tokens);
    let auth: &[(&str, &str)] = &[("authorization", &token)];

    let me = value(&app.get("/auth/me", auth).await);
    assert_eq!((&me["id"], &me["roles"]), (&ann["id"], &json!([])));
    let seen = app.get("/any", auth).await;
    assert_eq!(seen.status(), 200);
    let text = seen.text();
    assert_eq!(line(&text, "x-forwarded-user"), ann["id"].as_str());
    assert_eq!(line(&text, "x-forwarded-name"), Some("ann"));
    assert_eq!(line(&text, "x-forwarded-email"), None, "not proved");
    assert!(line(&text, "palisade-assertion").is_some_and(|assertion| assertion.split('.').count() == 3));
    assert_eq!(line(&text, "authorization"), None, "what was consumed ends here");
    let refused = app.get("/admin", auth).await;
    assert_eq!((refused.status(), refused.refusal().map(|code| code.name)), (403, Some("auth.forbidden")));
    assert_eq!(app.get("/any", &[]).await.refusal().map(|code| code.name), Some("auth.required"));
    assert_eq!(app.get("/open", &[]).await.status(), 200);

    // Refresh: the same again within the grace, then the family ends.
    let refresh = |token: &Value| format!("grant_type=refresh_token&refresh_token={}", token.as_str().unwrap());
    let second = value(&app.form("/auth/token", &[], &refresh(&tokens["refresh_token"])).await);
    let again = value(&app.form("/auth/token", &[], &refresh(&tokens["refresh_token"])).await);
    assert_eq!(second["refresh_token"], again["refresh_token"]);
    let third = value(&app.form("/auth/token", &[], &refresh(&second["refresh_token"])).await);
    let replayed = app.form("/auth/token", &[], &refresh(&tokens["refresh_token"])).await;
    assert_eq!((replayed.status(), &value(&replayed)["error"]), (400, &json!("invalid_grant")));
    let ended = app.form("/auth/token", &[], &refresh(&third["refresh_token"])).await;
    assert_eq!(ended.status(), 400, "{}", ended.text());
    assert_eq!(app.get("/any", &[("authorization", &bearer(&third))]).await.status(), 401, "and its access tokens");

    // A key is made by a session, and opens what names its scope.
    let session = app.session("ann").await;
    let key = app.key(&session, &["notes:read"]).await;
    assert!(key.starts_with("pal_dev_"));
    for headers in [[("x-api-key", key.as_str())], [("authorization", &*format!("Bearer {key}"))]] {
        let seen = app.get("/notes", &headers).await;
        assert_eq!(seen.status(), 200, "{}", seen.text());
        assert!(!seen.text().contains(&key), "{}", seen.text());
        assert_eq!(app.get("/any", &headers).await.status(), 403);
    }
}

/// A user and an administrator: the session of each, a token of the user, and what of the administrator is for notes alone,
/// a key and a token.
struct Cast {
    ann: String,
    admin: String,
    key: String,
    token: String,
    narrow: String,
}

impl Cast {
    async fn of(app: &App) -> Self {
        let root = app.register("root").await;
        app.register("ann").await;
        app.make_admin(root["id"].as_str().unwrap()).await;
        let (ann, admin) = (app.session("ann").await, app.session("root").await);
        let key = app.key(&admin, &["notes:read"]).await;
        let token = bearer(&app.token("ann", "").await);
        let narrow = bearer(&app.token("root", "&scope=notes:read").await);
        Self { ann, admin, key, token, narrow }
    }
}

/// Spellings of one path, by every identity and method: the verdict of the path itself, or none of an application's.
/// Threats 1, 4, 6 and 8.
async fn spellings_and_identities(kept: Kept) {
    let app = App::new(&kept, "[rate_limit]\ndefault = \"off\"\n").await;
    let Cast { ann, admin, key, token, narrow } = Cast::of(&app).await;
    let callers: [(&str, &str); 6] = [
        ("accept", "*/*"),
        ("cookie", &ann),
        ("cookie", &admin),
        ("authorization", &token),
        ("authorization", &narrow),
        ("x-api-key", &key),
    ];
    let same = [
        (
            "/admin/x",
            vec![
                "/admin/x/",
                "//admin/x",
                "/admin//x",
                "/./admin/x",
                "/a/../admin/x",
                "/%61dmin/%78",
                "/open/../admin/x",
                "/open/%2e%2e/admin/x",
                "/admin/./x?_method=GET",
            ],
        ),
        ("/admin", vec!["/admin/", "/admin//", "/admin/x/..", "/%61%64min", "/admin/%2e"]),
        ("/scoped-admin", vec!["/scoped-admin/", "/scoped%2Dadmin", "//scoped-admin"]),
        ("/keys-only", vec!["/keys-only/", "/keys%2donly"]),
        // Another case is another path, which nobody named: it needs a login.
        ("/any", vec!["/Admin/x", "/ADMIN", "/adminx", "/Open", "/open/x"]),
    ];
    let never = [
        "/admin%2Fx",
        "/open%2F..%2Fadmin",
        "/admin;x/x",
        "/open;/../admin",
        "/open/..;/admin",
        "/admin%00",
        "/open%0a",
        "/admin%5Cx",
        "/open/%252e%252e/admin",
        "/open/%c0%ae%c0%ae/admin",
        "/admin%",
        "/admin%zz",
    ];
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    for (name, value) in callers {
        let headers = [(name, value), ("sec-fetch-site", "same-origin"), ("x-http-method-override", "GET")];
        let ask = async |method: &str, target: &str| {
            app.harness.send(method.parse().unwrap(), target, &headers, "").await.status()
        };
        for method in methods {
            for (path, spellings) in &same {
                let expected = ask(method, path).await;
                for spelling in spellings {
                    assert_eq!(ask(method, spelling).await, expected, "{method} {spelling} by {name}, as {path}");
                }
            }
            for path in never {
                assert_eq!(ask(method, path).await, 400, "{method} {path} by {name}");
            }
        }
        for method in ["get", "PROPFIND", "TRACE", "CONNECT", "XYZ"] {
            for path in ["/open", "/any", "/admin/x", "/notes", "/auth/me", "/auth/token"] {
                let got = ask(method, path).await;
                assert!(matches!(got, 400 | 405), "{method} {path} by {name}: {got}");
            }
        }
    }
}

async fn keys_expire_when_they_are_told_to(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let session = app.session("ann").await;
    for (expires_in, status) in [
        (json!(60), 201),
        (json!("90d"), 201),
        (Value::Null, 201),
        (json!(0), 422),
        (json!(-1), 422),
        (json!("tomorrow"), 422),
        (json!(400_000_000_000_u64), 422),
    ] {
        let body = json!({ "name": "k", "scopes": ["notes:read"], "expires_in": expires_in });
        let answer = app.json(Method::POST, "/auth/keys", &[("cookie", &session)], &body).await;
        assert_eq!(answer.status(), status, "{expires_in}: {}", answer.text());
        if expires_in == json!(60) {
            let key = value(&answer)["key"].as_str().unwrap().to_owned();
            assert_eq!(app.get("/notes", &[("x-api-key", &key)]).await.status(), 200);
            app.harness.clock().advance(std::time::Duration::from_secs(61));
            assert_eq!(app.get("/notes", &[("x-api-key", &key)]).await.status(), 401);
        }
    }
}

/// Routes × identities, also under `--detect`. Threats 2 and 4.
async fn routes_and_identities(kept: Kept) {
    for start in [Harness::new as fn(&str, Router) -> Harness, Harness::detect] {
        let kept = kept.another().await.unwrap();
        let app = App::round(&kept, "registration = \"open\"\n", start).await;
        let Cast { ann, admin, key, token, narrow } = Cast::of(&app).await;
        let admin_token = bearer(&app.token("root", "").await);
        let id = UserId::parse(app.register("edi").await["id"].as_str().unwrap()).unwrap();
        let live = app.harness.handle().live();
        let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
        ready.identity.add_role("editor", &["notes:edit".to_owned()]).await.unwrap();
        let roles = ["editor".to_owned()];
        ready.identity.edit_user(id, Edit { roles: Some(&roles), ..Edit::default() }).await.unwrap();
        let (edi, edi_token) = (app.session("edi").await, bearer(&app.token("edi", "").await));
        let callers: [(&str, &str, &str); 10] = [
            ("nobody", "accept", "*/*"),
            ("user's session", "cookie", &ann),
            ("user's token", "authorization", &token),
            ("editor's session", "cookie", &edi),
            ("editor's token", "authorization", &edi_token),
            ("admin's session", "cookie", &admin),
            ("admin's token", "authorization", &admin_token),
            ("admin's narrow token", "authorization", &narrow),
            ("admin's key", "x-api-key", &key),
            ("junk", "authorization", "Bearer junk"),
        ];
        let routes = "/open /any /admin /admin/ /admin/x /notes /scoped-admin /keys-only /fresh /permitted";
        let expected = [
            "200 401 401 401 401 401 401 401 401 401",
            "200 200 403 403 403 200 403 403 200 403",
            "200 200 403 403 403 200 403 403 403 403",
            "200 200 403 403 403 200 403 403 200 200",
            "200 200 403 403 403 200 403 403 403 200",
            "200 200 200 200 200 200 200 403 200 403",
            "200 200 200 200 200 200 200 403 403 403",
            "200 403 403 403 403 200 200 403 403 403",
            "200 403 403 403 403 200 200 200 403 403",
            "200 401 401 401 401 401 401 401 401 401",
        ];
        for ((who, name, value), expected) in callers.iter().zip(expected) {
            for (route, expected) in routes.split(' ').zip(expected.split(' ')) {
                for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                    let headers = [(*name, *value), ("sec-fetch-site", "same-origin")];
                    let answer = app.harness.send(method.clone(), route, &headers, "").await;
                    assert_eq!(answer.status().to_string(), expected, "{who} {method} {route}: {}", answer.text());
                }
            }
        }
    }
}

/// Each endpoint × each credential: what changes an account takes a fresh session, and nothing else. Threats 4.
async fn endpoints_and_credentials(kept: Kept) {
    let app = App::new(&kept, "").await;
    let root = app.register("root").await;
    app.make_admin(root["id"].as_str().unwrap()).await;
    let session = app.session("root").await;
    let key = app.key(&session, &["notes:read"]).await;
    let (token, narrow) = (bearer(&app.token("root", "").await), bearer(&app.token("root", "&scope=a").await));
    app.harness.clock().advance(std::time::Duration::from_secs(11 * 60));
    // Used meanwhile, so that it is old and not over.
    assert_eq!(app.get("/auth/me", &[("cookie", &session)]).await.status(), 200);
    let open = [
        "POST /token",
        "POST /revoke",
        "POST /introspect",
        "POST /register",
        "GET /register",
        "POST /login",
        "GET /login",
        "POST /logout",
        "GET /account",
        "GET /jwks.json",
        "GET /openapi.json",
        "GET /docs",
        "GET /style.css",
        "GET /authorize",
        "POST /authorize",
        "POST /password/reset",
        "POST /password/reset/confirm",
        "GET /password/reset",
        "GET /password/reset/confirm",
        "POST /email/verify",
        "GET /email/verify",
    ];
    let readable = ["GET /me", "GET /sessions", "GET /keys", "GET /csrf"];
    let callers = [
        ("nobody", "accept", "*/*"),
        ("token", "authorization", token.as_str()),
        ("narrow token", "authorization", &narrow),
        ("key", "x-api-key", &key),
        ("session of some time ago", "cookie", &session),
    ];
    let mut tried = 0;
    for (method, path) in super::all() {
        let name = format!("{method} {path}");
        if open.contains(&name.as_str()) {
            continue;
        }
        for (who, header, value) in callers {
            let path = format!("/auth{}", path.replace("{id}", root["id"].as_str().unwrap()));
            let headers = [(header, value)];
            let answer = app.json(method.clone(), &path, &headers, &json!({})).await;
            let code = answer.refusal().map_or("", |code| code.name);
            let expected = match (who, readable.contains(&name.as_str())) {
                ("nobody", _) => "auth.required",
                ("narrow token" | "key", true) => "auth.forbidden",
                (_, true) => "",
                ("narrow token" | "key", _) if name.starts_with("POST /account/") => "auth.forbidden",
                // The forms of the page lead to the login instead; see below.
                _ if name.starts_with("POST /account/") => "auth.body_type",
                _ => "auth.step_up",
            };
            assert_eq!(code, expected, "{who}: {name}: {} {}", answer.status(), answer.text());
            tried += 1;
        }
    }
    assert!(tried >= 80, "{tried}");
    for form in ["end-session", "revoke-key", "password", "create-key"] {
        let body = format!("id={}&name=x&scopes=a&current_password=x&new_password=y", root["id"].as_str().unwrap());
        let headers = [("cookie", session.as_str()), ("origin", "https://localhost")];
        let answer = app.form(&format!("/auth/account/{form}"), &headers, &body).await;
        assert!(answer.header("location").starts_with("/auth/login?again=1"), "{form}: {}", answer.text());
        let headers = [("authorization", token.as_str()), ("origin", "https://localhost")];
        let answer = app.form(&format!("/auth/account/{form}"), &headers, &body).await;
        assert!(answer.header("location").starts_with("/auth/login?again=1"), "{form}: {}", answer.text());
    }
}

/// No oracle: the same bytes, but for the request's id.
async fn a_failed_login_says_nothing(kept: Kept) {
    let app = App::new(&kept, "").await;
    let ann = app.register("ann").await;
    let off = app.register("off").await;
    let live = app.harness.handle().live();
    let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
    let id = UserId::parse(off["id"].as_str().unwrap()).unwrap();
    ready.identity.edit_user(id, Edit { enabled: Some(false), ..Edit::default() }).await.unwrap();
    let _ = ann;
    let mut answers = Vec::new();
    for (name, password) in [("nobody", PASSWORD), ("ann", "wrong"), ("off", PASSWORD), ("a b\u{0}", "x"), ("", "")] {
        let body = json!({ "username": name, "password": password });
        let answer = app.json(Method::POST, "/auth/login", &[], &body).await;
        let mut body = value(&answer);
        body["request_id"] = Value::Null;
        answers.push((answer.status(), answer.header("www-authenticate").to_owned(), body));
    }
    app.guess("ann", 10).await;
    let locked = app.json(Method::POST, "/auth/login", &[], &json!({ "username": "ann", "password": PASSWORD })).await;
    let mut body = value(&locked);
    body["request_id"] = Value::Null;
    answers.push((locked.status(), locked.header("www-authenticate").to_owned(), body));
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

/// Threats 15: whichever door a guess comes through, and under whichever spelling of the name, it counts as one.
async fn many_doors_and_one_counter(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let names = ["ann", "ANN", "ann@example.com", "ANN@EXAMPLE.com", "\u{ff41}nn"];
    let enters = async |door: usize, name: &str, password: &str| -> bool {
        let form = format!("username={}&password={}", encode(name), encode(password));
        let answer = match door {
            0 => {
                let body = json!({ "username": name, "password": password });
                app.json(Method::POST, "/auth/login", &[], &body).await
            }
            1 => app.form("/auth/login", &[("sec-fetch-site", "same-origin")], &form).await,
            _ => app.form("/auth/token", &[], &format!("grant_type=password&{form}")).await,
        };
        let expected = [(200, 401), (303, 401), (200, 400)][door];
        assert!([expected.0, expected.1].contains(&answer.status()), "{name} at {door}: {}", answer.text());
        answer.status() == expected.0
    };
    let doors = || (0..3).flat_map(|door| names.map(|name| (door, name)));
    for (door, name) in doors() {
        assert!(enters(door, name, PASSWORD).await, "{name} at {door}");
    }
    for (door, name) in doors().step_by(2).chain(doors()).take(10) {
        assert!(!enters(door, name, "wrong").await, "{name} at {door}");
    }
    // Each takes a second and a half by now, so every name and every door, but not every pair.
    for (place, name) in names.iter().enumerate() {
        assert!(!enters(place % 3, name, PASSWORD).await, "{name}, after ten guesses at all of them");
    }
}

/// Threats 21: nothing of ours goes in, nothing in our name comes out.
async fn credentials_end_here(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let session = app.session("ann").await;
    let cookies = format!("a=1; {session}; palisade=x; __Host-palisade-device=y; b=2");
    let answer =
        app.get("/any", &[("cookie", &cookies), ("x-forwarded-user", "evil"), ("palisade-assertion", "evil")]).await;
    let text = answer.text();
    assert_eq!(answer.status(), 200, "{text}");
    assert_eq!(line(&text, "cookie"), Some("a=1; b=2"));
    assert!(!text.contains("evil") && !text.contains(session.split('=').nth(1).unwrap()), "{text}");
    let set: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set.len(), 1, "{set:?}");
    assert!(set[0].to_str().unwrap().starts_with("mine=1"));
    assert_eq!(answer.header("palisade-assertion"), "");

    let token = bearer(&app.token("ann", "").await);
    for headers in [
        vec![("cookie", session.as_str()), ("authorization", "Bearer junk")],
        vec![("cookie", &session), ("x-api-key", "pal_x")],
        vec![("authorization", &token), ("x-api-key", "pal_x")],
        vec![("authorization", &token), ("authorization", &token)],
    ] {
        for path in ["/open", "/any", "/auth/me"] {
            let answer = app.get(path, &headers).await;
            assert_eq!(answer.refusal().map(|code| code.name), Some("auth.ambiguous"), "{headers:?} {path}");
        }
    }
    let twice = format!("{session}; {session}");
    assert_eq!(app.get("/open", &[("cookie", &twice)]).await.refusal().map(|code| code.name), Some("auth.cookie"));
    let key = app.key(&session, &["notes:read"]).await;
    let in_url = app.get(&format!("/open?api_key={key}"), &[]).await;
    assert_eq!(in_url.refusal().map(|code| code.name), Some("auth.in_url"));
    let jwt_as_key = app.get("/any", &[("x-api-key", token.strip_prefix("Bearer ").unwrap())]).await;
    assert_eq!(jwt_as_key.refusal().map(|code| code.name), Some("auth.key"));
    let cut = app.get("/any", &[("authorization", &*format!("Bearer {}", &key[..key.len() - 3]))]).await;
    assert_eq!(cut.refusal().map(|code| code.name), Some("auth.key"));
}

async fn a_session_ends_with_its_logout_and_a_browser_is_sent_to_log_in(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let session = app.session("ann").await;
    assert_eq!(app.get("/any", &[("cookie", &session)]).await.status(), 200);
    let foreign = app
        .harness
        .send(Method::POST, "/auth/logout", &[("cookie", &session), ("origin", "https://evil.example")], "")
        .await;
    assert_eq!(foreign.refusal().map(|code| code.name), Some("auth.cross_site"));
    let out = app
        .harness
        .send(Method::POST, "/auth/logout", &[("cookie", &session), ("sec-fetch-site", "same-origin")], "")
        .await;
    assert_eq!(out.status(), 204, "{}", out.text());
    assert!(!out.header("clear-site-data").is_empty());
    assert_eq!(app.get("/any", &[("cookie", &session)]).await.status(), 401);
    let page = app.get("/any?x=1", &[("cookie", &session), ("accept", "text/html")]).await;
    assert_eq!((page.status(), page.header("location")), (303, "/auth/login?return_to=%2Fany%3Fx%3D1"));
    let login = app.get("/auth/login?return_to=%2Fany", &[("accept", "text/html")]).await;
    assert_eq!(login.status(), 200);
    assert!(login.header("content-security-policy").contains("frame-ancestors 'none'"), "{:?}", login.headers());
    let body = format!("username=ann&password={}&return_to=%2Fany", PASSWORD.replace(' ', "+"));
    let back = app.form("/auth/login", &[("origin", "https://localhost")], &body).await;
    assert_eq!((back.status(), back.header("location")), (303, "/any"));
    let evil = format!("username=ann&password={}&return_to=%2F%2Fevil", PASSWORD.replace(' ', "+"));
    assert_eq!(app.form("/auth/login", &[], &evil).await.header("location"), "/auth");
    let wrong = app.form("/auth/login", &[("accept", "text/html")], "username=ann&password=x").await;
    assert_eq!(wrong.status(), 401);
    assert!(wrong.text().contains("role=\"alert\""), "{}", wrong.text());
}

/// Threats 5: what the policy sets from a login is the gateway's value, or the request is refused.
async fn headers_that_name_the_user(kept: Kept) {
    let app = App::with(
        &kept,
        r#"registration = "open"
[upstream]
request_headers = { set = { X-Name = "{user.name|nobody}", X-Mail = "{user.email|none}" } }
[[route]]
path = "/theirs"
public = true
request_headers = { set = { X-Owner = "{user.id}" } }
[[route]]
path = "/theirs/app"
request_headers = { set = { X-App = "{user.app_id}" } }
"#,
    )
    .await;
    let ann = app.register("ann").await;
    let token = bearer(&app.token("ann", "").await);
    let copies = ["x-owner", "X-Owner", "x_owner", "x.owner", "X-NAME", "x-mail"];
    let mut headers: Vec<(&str, &str)> = copies.iter().map(|name| (*name, "evil")).collect();
    let nobody = app.get("/theirs", &headers).await;
    assert_eq!(nobody.refusal().map(|code| code.name), Some("upstream.missing_value"));
    headers.push(("authorization", &token));
    let text = app.get("/theirs", &headers).await.text();
    assert_eq!((line(&text, "x-owner"), line(&text, "x-name")), (ann["id"].as_str(), Some("ann")), "{text}");
    assert_eq!(line(&text, "x-mail"), Some("none"), "the address is not proved");
    assert!(!text.contains("evil"), "{text}");
    let imported = app.get("/theirs/app", &headers).await;
    assert_eq!(imported.refusal().map(|code| code.name), Some("upstream.missing_value"));
    let open = app.get("/open", &[("x-name", "evil"), ("x-owner", "evil")]).await.text();
    assert_eq!((line(&open, "x-name"), line(&open, "x-owner")), (Some("nobody"), None), "{open}");
}

/// Threats 38.
async fn a_stream_ends_with_the_rights_of_its_reader(kept: Kept) {
    let app = App::new(&kept, "").await;
    let ann = app.register("ann").await;
    for name in ["cookie", "authorization"] {
        let credential = match name {
            "cookie" => app.session("ann").await,
            _ => bearer(&app.token("ann", "").await),
        };
        let headers = [(name, credential.as_str())];
        let reading = app.get("/events", &headers);
        let live = app.harness.handle().live();
        let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
        let id = UserId::parse(ann["id"].as_str().unwrap()).unwrap();
        let ending = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let _ = ready.identity.end_sessions_of(id, None).await.unwrap();
            std::time::Instant::now()
        };
        let both = tokio::time::timeout(std::time::Duration::from_secs(20), async { tokio::join!(reading, ending) });
        let (answer, ended) = both.await.expect("it ends");
        assert!(ended.elapsed() < std::time::Duration::from_secs(4), "{:?}", ended.elapsed());
        assert!(answer.text().contains("data: x"), "it had begun");
        let again = app.get("/events", &headers).await;
        assert_eq!(again.status(), 401);
    }
}

/// Threats 3: whatever stands in the body, nobody gets a role.
async fn registration_gives_no_rights(kept: Kept) {
    let app = App::new(&kept, "").await;
    for extra in ["role", "roles", "is_admin", "permissions", "email_verified", "id"] {
        let mut body = json!({ "username": "eve", "email": "eve@example.com", "password": PASSWORD });
        body[extra] = json!("admin");
        let answer = app.json(Method::POST, "/auth/register", &[], &body).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some("auth.invalid"), "{extra}");
    }
    for (password, code) in [("kurz", "password.short"), ("password1234", "password.common")] {
        let body = json!({ "username": "eve", "email": "eve@example.com", "password": password });
        let answer = app.json(Method::POST, "/auth/register", &[], &body).await;
        assert_eq!((answer.status(), answer.refusal().map(|code| code.name)), (422, Some(code)));
        assert!(!answer.text().contains(password));
    }
    app.register("eve").await;
    let session = app.session("eve").await;
    let me = value(&app.get("/auth/me", &[("cookie", &session)]).await);
    assert_eq!((&me["roles"], &me["permissions"]), (&json!([]), &json!([])));
    let users = app.get("/auth/users", &[("cookie", &session)]).await;
    assert_eq!(users.refusal().map(|code| code.name), Some("auth.forbidden"));
    // On an empty database, all at once: nobody is first in a way that counts.
    let empty = kept.another().await.unwrap();
    let app = App::new(&empty, "").await;
    let answers = futures_util::future::join_all((0..50).map(async |n| {
        let mut body =
            json!({ "username": format!("u{n}"), "email": format!("u{n}@example.com"), "password": PASSWORD });
        match n % 5 {
            0 => body["roles"] = json!(["admin"]),
            1 => body["is_admin"] = json!(true),
            2 => body["email_verified"] = json!(true),
            _ => {}
        }
        (n % 5 > 2, app.json(Method::POST, "/auth/register", &[], &body).await.status())
    }))
    .await;
    assert!(answers.contains(&(true, 201)), "{answers:?}");
    for (plain, status) in answers {
        // The pool of hashes takes so many of one address at once.
        assert!(if plain { matches!(status, 201 | 503) } else { status == 422 }, "{plain}: {status}");
    }
    let live = app.harness.handle().live();
    let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
    let made = ready.identity.list_users(None, 1000).await.unwrap();
    assert!(!made.is_empty() && made.iter().all(|account| account.roles.is_empty() && !account.email_verified));

    let closed = App::with(&kept, "registration = \"closed\"").await;
    let body = json!({ "username": "eve", "email": "eve@example.com", "password": PASSWORD });
    let answer = closed.json(Method::POST, "/auth/register", &[], &body).await;
    assert_eq!(answer.refusal().map(|code| code.name), Some("auth.registration_closed"));
}

/// Nothing that could be kept anywhere either.
#[tokio::test]
async fn without_the_section_nothing_is_there() {
    let harness = Harness::new("", echo());
    let answer = harness
        .send(Method::GET, "/auth/login", &[("authorization", "Bearer x"), ("cookie", "__Host-palisade=x")], "")
        .await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("authorization: Bearer x"), "the application's own: {}", answer.text());
    assert!(!harness.handle().live().controls().contains(&"auth"));
}

/// Nothing is cut, whichever door it comes through: not at 72 bytes, not at a NUL, not by the size of a form.
async fn passwords_are_taken_whole(kept: Kept) {
    let app = App::new(&kept, "").await;
    let long: String = "many different words \u{1f427} that nobody says ".chars().cycle().take(5_000).collect();
    let escaped: String = long.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let register = |name: &'static str, password: String| {
        let app = &app;
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
        async move { app.json(Method::POST, "/auth/register", &[], &body).await }
    };
    assert_eq!(register("ann", long.clone()).await.status(), 201);
    let origin = [("origin", "https://localhost")];
    let page = |password: &str| format!("username=ann&password={password}");
    assert_eq!(app.form("/auth/login", &origin, &page(&escaped)).await.status(), 303);
    assert_eq!(app.form("/auth/login", &origin, &page(&escaped[..escaped.len() - 3])).await.status(), 401);
    let grant = format!("grant_type=password&{}", page(&escaped));
    assert_eq!(app.form("/auth/token", &[], &grant).await.status(), 200);
    let session = cookie(&app.form("/auth/login", &origin, &page(&escaped)).await).unwrap();
    let other: String = long.chars().rev().collect();
    let other_escaped: String = other.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let both = format!("current_password={escaped}&new_password={other_escaped}");
    let changed = app.form("/auth/account/password", &[("cookie", &session), origin[0]], &both).await;
    assert_eq!(changed.status(), 303, "{}", changed.text());
    assert_eq!(app.form("/auth/login", &origin, &page(&other_escaped)).await.status(), 303);
    // The same text in other characters, as keyboards and systems write it.
    assert_eq!(register("bob", "schöne neue \u{fb01}sche im Teich".into()).await.status(), 201);
    let composed = "username=bob&password=scho%CC%88ne+neue+fische+im+Teich";
    assert_eq!(app.form("/auth/login", &origin, composed).await.status(), 303);
    for (password, code) in [
        ("zj3$Kx!9vQ2m\0 and more", "password.control"),
        ("password1234", "password.common"),
        ("carol-carol-9!x", "password.context"),
        ("qwertyuiopasdf", "password.weak"),
        ("kurz", "password.short"),
        (&"long ".repeat(8_000), "password.long"),
    ] {
        let answer = register("carol", password.into()).await;
        assert_eq!(answer.refusal().map(|code| code.name), Some(code), "{}", answer.text());
    }
}
