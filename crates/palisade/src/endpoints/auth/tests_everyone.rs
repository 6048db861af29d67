//! Every endpoint by every kind of credential, and `everyone.txt`, the list of those that are let in, which may only
//! shrink. The endpoints are those that requests are routed by, so that a new one is in the table by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use http::{Method, Request};
use palisade_identity::service::{Edit, GrantKind, Method as Proves, UserId};
use palisade_identity::token::{Claims, kind};

use super::tests::{App, bearer, value};
use super::tests_handover::{ISSUER, OLD_KEY};
use super::tests_oauth::ask;
use crate::controls::auth::Auth;
use crate::endpoints::auth::Ready;
use crate::server::admin;
use crate::testing::{Answer, Harness};
use crate::testing_kept::state;
use palisade_test::kept::Kept;
use palisade_test::on_both;

const LIST: &str = include_str!("everyone.txt");
/// How many are named there, `*` being one. It may be made smaller, and nothing else.
const NAMED: usize = 160;

/// Kinds that are never let in: `*` is everybody else.
const NEVER: [&str; 2] = ["two credentials", "two that agree"];
const OPERATOR: &str = "a token of the operator's, for scripts";

/// The headers that a request is sent with.
type Headers = Vec<(&'static str, String)>;

/// A gateway with everything on that has endpoints, under further addresses too.
async fn app(kept: &Kept) -> App {
    let state = state(kept, &[("old-jwt-key", OLD_KEY), ("admin-token", OPERATOR)]).await;
    let policy = format!(
        r#"
[server]
state = {:?}
hosts = ["localhost"]
public_health = true
admin_token = {{ secret = "admin-token" }}
[headers]
csp_reports = true
[rate_limit]
default = "off"
[auth]
issuer = "https://localhost"
registration = "open"
[auth.paths]
token = "/old/token"
revoke = "/old/revoke"
introspect = "/old/introspect"
authorize = "/old/authorize"
register = "/old/register"
login = "/old/login"
logout = "/old/logout"
me = "/old/me"
csrf = "/old/csrf"
password = "/old/password"
jwks = "/old/jwks"
{ISSUER}{}"#,
        state.path(),
        kept.sections()
    );
    App { harness: Harness::new(&policy, Router::new().fallback(async || "the application")), state }
}

impl App {
    async fn with_ready<T>(&self, act: impl AsyncFnOnce(&Auth, &Ready) -> T) -> T {
        let live = self.harness.handle().live();
        let auth = live.policy.controls().auth.control.as_ref().unwrap();
        let ready = auth.open(&live.policy).await.unwrap();
        act(auth, ready).await
    }

    async fn edit(&self, id: &str, edit: Edit<'_>) {
        let id = UserId::parse(id).unwrap();
        self.with_ready(async |_, ready| ready.identity.edit_user(id, edit).await.unwrap()).await;
    }

    /// What our own key says about somebody, in a token of this kind; an access token that is as ours are, but for the
    /// change.
    async fn signed(&self, kind: &str, subject: &str, change: impl FnOnce(&mut Claims)) -> String {
        let now = self.harness.clock().now().0 / 1000;
        let token = async |_: &Auth, ready: &Ready| {
            let mut claims = Claims::new(ready.issuer(), subject, [ready.issuer()]);
            (claims.issued_at, claims.expires_at) = (Some(now), Some(now + 600));
            (claims.id, claims.client) = (Some(ready.fresh_id()), Some("palisade".into()));
            change(&mut claims);
            let signer = match kind {
                kind::ASSERTION => ready.rings().assertion_signer(),
                _ => ready.rings().signer(),
            };
            signer.sign(kind, &claims).unwrap().expose().clone()
        };
        self.with_ready(token).await
    }

    /// Every kind of credential.
    async fn everyone(&self) -> Vec<(&'static str, Headers)> {
        let mut ids = BTreeMap::new();
        for name in ["ann", "bob", "root", "off", "was"] {
            ids.insert(name, self.register(name).await["id"].as_str().unwrap().to_owned());
        }
        let roles = |roles: &'static [String]| Edit { roles: Some(roles), ..Edit::default() };
        for (name, id) in self.moved_in(&["eve", "ken"]).await {
            ids.insert(name, id);
        }
        for name in ["root", "was", "ken"] {
            self.make_admin(&ids[name]).await;
        }
        let header = |name: &'static str, value: &str| vec![(name, value.to_owned())];
        let token = |value: &str| header("authorization", &format!("Bearer {value}"));
        let cookie = |value: &str| header("cookie", value);

        // Logged in some time ago, and busy since.
        let (ann_before, root_before) = (self.session("ann").await, self.session("root").await);
        self.harness.clock().advance(Duration::from_secs(11 * 60));
        for session in [&ann_before, &root_before] {
            assert_eq!(self.get("/auth/me", &[("cookie", session)]).await.status(), 200);
        }
        self.with_ready(async |_, ready| ready.identity.catch_up().await.unwrap()).await;
        let (ann, bob, root) = (self.session("ann").await, self.session("bob").await, self.session("root").await);
        let tokens = self.token("ann", "").await;
        let (key, root_key) = (self.key(&ann, &["notes:read"]).await, self.key(&root, &["notes:read"]).await);
        let access = |tokens: &serde_json::Value| header("authorization", &bearer(tokens));

        let client = self.client(Proves::Basic, &[GrantKind::ClientCredentials]).await;
        let basic = data_encoding::BASE64.encode(format!("{}:{}", client.id, client.secret).as_bytes());
        let basic = header("authorization", &format!("Basic {basic}"));
        let form = "grant_type=client_credentials&scope=notes:read";
        let itself = value(&self.form("/auth/token", &[("authorization", &basic[0].1)], form).await);
        let calendar = self.client(Proves::Public, &[GrantKind::AuthorizationCode]).await;
        let third_party = self.third_party(&root, &calendar).await;

        let ended = self.session("ann").await;
        let own = [("cookie", ended.as_str()), ("sec-fetch-site", "same-origin")];
        assert_eq!(self.harness.send(Method::POST, "/auth/logout", &own, "").await.status(), 204);
        let revoked = value(
            &self
                .json(
                    Method::POST,
                    "/auth/keys",
                    &[("cookie", &root)],
                    &serde_json::json!({ "name": "k", "scopes": ["x"] }),
                )
                .await,
        );
        let target = format!("/auth/keys/{}", revoked["id"].as_str().unwrap());
        let own = [("cookie", root.as_str()), ("sec-fetch-site", "same-origin")];
        assert_eq!(self.harness.send(Method::DELETE, &target, &own, "").await.status(), 204);
        let over = self.token("root", "").await;
        let form = format!("token={}", over["access_token"].as_str().unwrap());
        assert_eq!(self.form("/auth/revoke", &[], &form).await.status(), 200);

        // Was enabled, was an administrator, when they got these.
        let (off, was) = (self.session("off").await, self.session("was").await);
        let (off_token, was_token) = (self.token("off", "").await, self.token("was", "").await);
        let off_key = self.key(&off, &["notes:read"]).await;
        self.edit(&ids["off"], Edit { enabled: Some(false), ..Edit::default() }).await;
        self.edit(&ids["was"], roles(&[])).await;

        let root_id = &*ids["root"];
        assert_eq!(
            self.get(
                "/auth/me",
                &[("authorization", &format!("Bearer {}", self.signed(kind::ACCESS, root_id, |_| ()).await))]
            )
            .await
            .status(),
            200
        );
        vec![
            ("nobody", vec![]),
            ("user's session", cookie(&ann)),
            ("other user's session", cookie(&bob)),
            ("administrator's session", cookie(&root)),
            ("user's session of before", cookie(&ann_before)),
            ("administrator's session of before", cookie(&root_before)),
            ("former administrator's session", cookie(&was)),
            ("user's token", access(&tokens)),
            ("administrator's token", access(&self.token("root", "").await)),
            ("former administrator's token", access(&was_token)),
            ("old application's token", header("authorization", &self.old_token("eve", &serde_json::Value::Null))),
            (
                "old application's token of an administrator",
                header("authorization", &self.old_token("ken", &serde_json::Value::Null)),
            ),
            ("administrator's narrow token", access(&self.token("root", "&scope=notes:read").await)),
            ("administrator's token for a client", access(&third_party)),
            ("client's token", access(&itself)),
            ("user's key", header("x-api-key", &key)),
            ("administrator's key", header("x-api-key", &root_key)),
            ("administrator's key as a token", token(&root_key)),
            ("client's secret", basic),
            ("operator's token", token(OPERATOR)),
            // From here on nobody is anybody.
            (
                "password",
                header(
                    "authorization",
                    &format!(
                        "Basic {}",
                        data_encoding::BASE64.encode(format!("root:{}", super::tests::PASSWORD).as_bytes())
                    ),
                ),
            ),
            ("refresh token", token(tokens["refresh_token"].as_str().unwrap())),
            ("session as a token", token(root.split_once('=').unwrap().1)),
            ("session that has ended", cookie(&ended)),
            ("session of another spelling", cookie(&root.replace("__Host-", ""))),
            ("revoked token", access(&over)),
            ("revoked key", header("x-api-key", revoked["key"].as_str().unwrap())),
            ("disabled user's session", cookie(&off)),
            ("disabled user's token", access(&off_token)),
            ("disabled user's key", header("x-api-key", &off_key)),
            (
                "deleted user's token",
                token(&self.signed(kind::ACCESS, "0198c5d2-0000-7000-8000-000000000000", |_| ()).await),
            ),
            (
                "expired token",
                token(
                    &self
                        .signed(kind::ACCESS, root_id, |claims| claims.expires_at = claims.issued_at.map(|at| at - 60))
                        .await,
                ),
            ),
            (
                "token of the future",
                token(&self.signed(kind::ACCESS, root_id, |claims| claims.not_before = claims.expires_at).await),
            ),
            (
                "token for another audience",
                token(
                    &self
                        .signed(kind::ACCESS, root_id, |claims| claims.audience = vec!["https://other.example".into()])
                        .await,
                ),
            ),
            (
                "token of another issuer",
                token(
                    &self
                        .signed(kind::ACCESS, root_id, |claims| claims.issuer = Some("https://other.example".into()))
                        .await,
                ),
            ),
            ("id token", token(&self.signed(kind::ID, root_id, |_| ()).await)),
            ("logout token", token(&self.signed(kind::LOGOUT, root_id, |_| ()).await)),
            ("assertion", token(&self.signed(kind::ASSERTION, root_id, |_| ()).await)),
            (
                "assertion in its header",
                header("palisade-assertion", &self.signed(kind::ASSERTION, root_id, |_| ()).await),
            ),
            (
                "hand-over's headers",
                vec![("x-forwarded-user", root_id.to_owned()), ("x-forwarded-roles", "admin".into())],
            ),
            ("unsigned token", token("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.")),
            ("junk", token("junk")),
            // And from here on nobody is even heard.
            ("two credentials", [cookie(&root), token("junk")].concat()),
            ("two that agree", [cookie(&root), access(&self.token("root", "").await)].concat()),
        ]
    }

    async fn send(&self, endpoint: &Endpoint, credential: &Headers) -> Answer {
        let mut last = None;
        for (content, body) in [("application/json", "{}"), ("application/x-www-form-urlencoded", "")] {
            let mut headers = vec![("content-type", content), ("sec-fetch-site", "same-origin")];
            headers.extend(credential.iter().map(|(name, value)| (*name, value.as_str())));
            let answer = self.harness.send(endpoint.method.clone(), &endpoint.target, &headers, body).await;
            if answer.status() != 415 {
                return answer;
            }
            last = Some(answer);
        }
        last.unwrap()
    }
}

/// One endpoint of the public port.
struct Endpoint {
    /// `GET /me`; for one under another address that of the endpoint itself.
    name: String,
    method: Method,
    target: String,
}

impl Endpoint {
    /// What there is nothing of stands for `{id}`, so that nothing happens to anybody's.
    fn new(method: &Method, name: &str, target: &str, query: &str) -> Self {
        let id = if name.starts_with("/.palisade/problems/") {
            "auth.required"
        } else {
            "0198c5d2-0000-7000-8000-000000000000"
        };
        let target = target.replace("{id}", id);
        let target = if name == "/authorize" && *method == Method::GET { format!("{target}?{query}") } else { target };
        Self { name: format!("{method} {name}"), method: method.clone(), target }
    }

    /// What ends other sessions comes behind all that needs them, and what ends one's own behind that.
    fn ends_sessions(&self) -> u8 {
        match &*self.name {
            "POST /logout" => 2,
            "DELETE /sessions" => 1,
            _ => 0,
        }
    }

    /// Whether somebody was let in: it was looked at what they want, and not only at who they are.
    fn lets_in(&self, answer: &Answer) -> bool {
        let code = answer.refusal().map_or("", |code| code.name);
        let refused = matches!(
            code,
            "auth.required"
                | "auth.token"
                | "auth.key"
                | "auth.forbidden"
                | "auth.step_up"
                | "auth.ambiguous"
                | "auth.cookie"
                | "auth.invalid_client"
        );
        let logs_in = answer.status() == 303 && answer.header("location").starts_with("/auth/login")
            || self.name == "GET /authorize" && answer.text().contains("name=\"password\"");
        !refused && !logs_in
    }
}

on_both!(every_endpoint_by_every_credential, administrators_wait_for_news,);

async fn every_endpoint_by_every_credential(kept: Kept) {
    let app = app(&kept).await;
    let everyone = app.everyone().await;
    let client = app.client(Proves::Public, &[GrantKind::AuthorizationCode]).await;
    let query = ask(&client.id, &[]);
    let mut endpoints: Vec<Endpoint> = super::all()
        .map(|(method, path)| Endpoint::new(method, path, &format!("/auth{path}"), &query))
        .chain(super::well_known().map(|path| Endpoint::new(&Method::GET, path, path, &query)))
        .chain(crate::endpoints::places().map(|(method, path)| Endpoint::new(method, path, path, &query)))
        .collect();
    let further = async |auth: &Auth, _: &Ready| {
        let further = auth.config().paths.all().map(|(_, endpoint, path)| (endpoint, path.to_string()));
        further.collect::<Vec<_>>()
    };
    let further = app.with_ready(further).await;
    assert_eq!(further.len(), 11, "the policy of this test names every one");
    for (endpoint, path) in further {
        for (method, _) in super::all().filter(|(_, known)| *known == endpoint) {
            endpoints.push(Endpoint::new(method, endpoint, &path, &query));
        }
    }
    endpoints.sort_by_key(Endpoint::ends_sessions);

    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for endpoint in &endpoints {
        let mut who = Vec::new();
        for (kind, credential) in &everyone {
            let answer = app.send(endpoint, credential).await;
            let works = answer.status() < 500 || endpoint.name == "GET /ready" && answer.text() == "not ready\n";
            assert!(works, "{} by {kind}: {} {}", endpoint.name, answer.status(), answer.text());
            if NEVER.contains(kind) {
                let code = answer.refusal().map(|code| code.name);
                assert_eq!((answer.status(), code), (400, Some("auth.ambiguous")), "{} by {kind}", endpoint.name);
            } else if endpoint.lets_in(&answer) {
                who.push(*kind);
            }
        }
        let known = found.entry(endpoint.name.clone()).or_insert_with(|| who.clone());
        assert_eq!(*known, who, "{} at {}", endpoint.name, endpoint.target);
    }
    for (door, path) in admin::places() {
        let mut who = Vec::new();
        for (kind, credential) in everyone.iter().filter(|(kind, _)| !NEVER.contains(kind)) {
            let mut request = Request::get(path).header("host", "localhost");
            for (name, value) in credential {
                request = request.header(*name, value);
            }
            let mut parts = request.body(()).unwrap().into_parts().0;
            if admin::refusal(app.harness.handle(), door, &mut parts).is_none() {
                who.push(*kind);
            }
        }
        found.insert(format!("{door:?} {path}"), who);
    }

    let everybody: Vec<&str> = everyone.iter().map(|(kind, _)| *kind).filter(|kind| !NEVER.contains(kind)).collect();
    let mut lines = String::new();
    for (endpoint, who) in found.iter().filter(|(_, who)| !who.is_empty()) {
        lines += &format!("{endpoint}: {}\n", if *who == everybody { "*".to_owned() } else { who.join(", ") });
    }
    let said: String = LIST.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(said, lines, "who is let in, and who is on the list");
    let named = said.lines().flat_map(|line| line.split_once(": ").unwrap().1.split(", ")).count();
    assert_eq!(named, NAMED, "the list may only shrink: then make the number smaller");
}

/// What others changed was last read some time ago: an administrator may be none any more. Threats 17.
async fn administrators_wait_for_news(kept: Kept) {
    for (when_away, status) in [("closed", 503), ("open", 200)] {
        let kept = kept.another().await.unwrap();
        let app = App::new(&kept, &format!("when_away = \"{when_away}\"\n")).await;
        let root = app.register("root").await;
        app.make_admin(root["id"].as_str().unwrap()).await;
        let session = app.session("root").await;
        let headers = [("cookie", session.as_str()), ("sec-fetch-site", "same-origin")];
        let ask = async |target: &str| app.get(target, &headers).await.status();
        assert_eq!((ask("/auth/users").await, ask("/auth/roles").await), (200, 200));
        // Nobody reads the feed before this task waits for something.
        app.harness.clock().advance(Duration::from_secs(6));
        assert_eq!(ask("/auth/users").await, status, "{when_away}");
        app.harness.clock().advance(Duration::from_secs(6));
        let made = app.json(Method::POST, "/auth/roles", &headers, &serde_json::json!({ "name": "editor" })).await;
        assert_eq!(made.status(), if status == 200 { 201 } else { status }, "{when_away}: {}", made.text());
        app.harness.clock().advance(Duration::from_secs(6));
        assert_eq!(ask("/auth/me").await, 200, "what is no right of an administrator's goes on");
        app.with_ready(async |_, ready| ready.identity.catch_up().await.unwrap()).await;
        assert_eq!(ask("/auth/users").await, 200, "{when_away}");
    }
}
