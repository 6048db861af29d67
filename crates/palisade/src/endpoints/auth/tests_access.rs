//! Conditions of routes, proofs against forgery and extractors, with real users, tokens, sessions and keys.

use axum::routing::{get, post};
use http::Method;

use super::tests::{App, value};
use crate::extract::{
    Admin, ApiKey, CsrfChecked, FreshLogin, HasPermission, HasRole, HasScope, Named, OptionalUser, User,
};
use crate::testing::Harness;

/// Every condition is that of one route, `/when/NUMBER/{name}`.
const CONDITIONS: [(&str, &[&str]); 20] = [
    // Who passes: a(nn), b(ob), (ad)min, k(ey of ann's with notes:read).
    ("path.name == user.name", &["ann"]),
    ("path.name == user.name || 'admin' in user.roles", &["ann", "root"]),
    ("path.name != user.name", &["bob", "root"]),
    ("'admin' in user.roles", &["root"]),
    ("!('admin' in user.roles)", &["ann", "bob"]),
    ("user.roles.all(role, role != 'admin')", &["ann", "bob"]),
    ("query.tenant == 'acme'", &["ann", "bob", "root"]),
    ("query.tenant != 'evil'", &["ann", "bob", "root"]),
    ("query.missing != 'evil'", &[]),
    ("!has(query.missing)", &["ann", "bob", "root"]),
    ("method == 'GET'", &["ann", "bob", "root"]),
    ("host == 'localhost' && address.inNetwork('192.0.2.0/24')", &["ann", "bob", "root"]),
    ("now > timestamp('2020-01-01T00:00:00Z') && now < timestamp('2120-01-01T00:00:00Z')", &["ann", "bob", "root"]),
    // Nobody proved to have an address, and nobody has an id of the application's or claims.
    ("user.email != 'x'", &[]),
    ("user.app_id != 'x'", &[]),
    ("!(user.claims.tenant == 'evil')", &[]),
    ("user.claims.tenant == query.tenant || true", &[]),
    // A session, and a token without scopes, have none.
    ("!('x' in token.scopes)", &[]),
    ("user.id != ''", &["ann", "bob", "root"]),
    ("false", &[]),
];

fn routes() -> String {
    let route = |(place, (condition, _)): (usize, &(&str, &[&str]))| {
        format!("[[route]]\npath = \"/when/{place}/{{name}}\"\nwhen = \"{condition}\"\n")
    };
    CONDITIONS.iter().enumerate().map(route).collect()
}

#[tokio::test]
async fn conditions_over_real_identities() {
    let scoped = "[[route]]\npath = \"/scoped\"\nscopes = [\"notes:read\"]\nwhen = \"'notes:read' in token.scopes\"\n";
    let app = App::new(&format!("{}{scoped}", routes()));
    let root = app.register("root").await;
    app.make_admin(root["id"].as_str().unwrap()).await;
    for name in ["ann", "bob"] {
        app.register(name).await;
    }
    let mut bearers = Vec::new();
    for name in ["ann", "bob", "root"] {
        bearers.push((name, format!("Bearer {}", app.token(name, "").await["access_token"].as_str().unwrap())));
    }
    for (place, (condition, passes)) in CONDITIONS.iter().enumerate() {
        let path = format!("/when/{place}/ann");
        let anonymous = app.get(&format!("{path}?tenant=acme"), &[]).await;
        assert_eq!(anonymous.status(), 401, "{condition}: a condition implies a login");
        for (name, bearer) in &bearers {
            let auth: &[(&str, &str)] = &[("authorization", bearer)];
            let expected = if passes.contains(name) { 200 } else { 403 };
            for target in
                [format!("{path}?tenant=acme"), format!("{path}/?tenant=acme"), format!("{path}?%74enant=acme")]
            {
                let answer = app.get(&target, auth).await;
                assert_eq!(answer.status(), expected, "{condition} for {name}: {target}");
                if expected == 403 {
                    assert_eq!(answer.refusal().map(|code| code.name), Some("auth.forbidden"), "{condition}");
                    assert!(!answer.text().contains(condition), "{}", answer.text());
                }
            }
            let head = app.harness.send(Method::HEAD, &format!("{path}?tenant=acme"), auth, "").await;
            assert_eq!(head.status(), expected, "{condition} for {name}: HEAD is judged as GET");
            for twice in ["tenant=acme&tenant=acme", "tenant=acme&%74enant=evil", "tenant&tenant"] {
                let answer = app.get(&format!("{path}?{twice}"), auth).await;
                if condition.contains("query.tenant") {
                    assert_eq!(answer.status(), 403, "{condition} for {name}: {twice}");
                }
            }
        }
    }
    let session = app.session("ann").await;
    let key = app.key(&session, &["notes:read"]).await;
    let by_key: &[(&str, &str)] = &[("x-api-key", &key)];
    assert_eq!(app.get("/scoped", by_key).await.status(), 200);
    assert_eq!(app.get("/scoped", &[("cookie", &session)]).await.status(), 403, "a session has no scopes to look into");
    assert_eq!(app.get("/when/0/ann", by_key).await.status(), 403, "a narrow credential, and no scope is named");
}

#[test]
fn wrong_conditions_do_not_load() {
    use crate::testing_local::App as Local;
    let auth = "[auth]\nissuer = \"https://localhost\"\n";
    for (route, message) in [
        ("path = \"/u/{id:int}\"\nwhen = \"path.idd == user.app_id\"", "`path` has no `idd`"),
        ("path = \"/u\"\nwhen = \"path.id == user.app_id\"", "there is no `path`"),
        ("path = \"/u\"\nwhen = \"user.role == 'a'\"", "did you mean `user.roles`?"),
        ("path = \"/u\"\nwhen = \"\"", "there is no condition"),
        ("path = \"/u\"\npublic = true\nwhen = \"true\"", "`public` opens the route"),
    ] {
        let text = Local::problems(&format!("{auth}[[route]]\n{route}\n"));
        assert!(text.contains(message), "{route}: {text}");
    }
    let without = Local::problems("[[route]]\npath = \"/u\"\nwhen = \"'a' in user.roles\"\n");
    assert!(without.contains("`when` needs a login"), "{without}");
    let text = Local::problems(&format!("{auth}[[route]]\npath = \"/u\"\nwhen = \"'a' in user.rols\"\n"));
    assert!(text.contains("^^^^ did you mean `user.roles`?"), "the caret stands below the word: {text}");
}

/// A cookie's requests need a proof; those of a token or key that was accepted do not, whatever cookies lie beside them.
#[tokio::test]
async fn what_needs_a_proof_follows_from_the_accepted_credential() {
    let app = App::new("");
    app.register("ann").await;
    let session = app.session("ann").await;
    let tokens = app.token("ann", "").await;
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let cross = ("sec-fetch-site", "cross-site");
    let post = async |headers: &[(&str, &str)], body: &'static str| {
        let answer = app.harness.send(Method::POST, "/any", headers, body).await;
        (answer.status(), answer.refusal().map_or("", |code| code.name))
    };
    assert_eq!(post(&[("cookie", &session), cross], "x").await, (403, "csrf.origin"));
    assert_eq!(post(&[("cookie", &session), ("sec-fetch-site", "same-origin")], "x").await, (200, ""));
    assert_eq!(post(&[("cookie", &session)], "x").await, (403, "csrf.token_missing"));
    assert_eq!(post(&[("authorization", &bearer), cross], "x").await, (200, ""));
    assert_eq!(post(&[("authorization", &bearer), ("cookie", "theirs=1"), cross], "x").await, (200, ""));
    // Both, or junk beside the cookie: never processed as the cookie's user without a proof (threat 18).
    for other in [bearer.as_str(), "Bearer junk", "Bearer pal_dev_x", "Basic YTpi"] {
        let (status, code) = post(&[("authorization", other), ("cookie", &session), cross], "x").await;
        assert!(matches!(status, 400 | 401 | 403), "{other}: {status} {code}");
    }
    // The token of `GET /auth/csrf` is good for the application's routes too, in a header and in a form.
    let token = value(&app.get("/auth/csrf", &[("cookie", &session)]).await)["csrf_token"].as_str().unwrap().to_owned();
    assert_eq!(post(&[("cookie", &session), ("x-csrf-token", &token)], "x").await, (200, ""));
    let form = [("cookie", session.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let answer = app.harness.send(Method::POST, "/any", &form, format!("csrf_token={token}")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    app.register("bob").await;
    let other = app.session("bob").await;
    assert_eq!(post(&[("cookie", &other), ("x-csrf-token", &token)], "x").await, (403, "csrf.token_invalid"));
}

struct Notes;
impl Named for Notes {
    const NAME: &'static str = "notes:read";
}

fn router() -> axum::Router<crate::State> {
    axum::Router::new()
        .route("/user", get(async |user: User| user.name().to_owned()))
        .route(
            "/optional",
            get(async |OptionalUser(user): OptionalUser| user.map_or("nobody".into(), |user| user.name().to_owned())),
        )
        .route("/admin", get(async |admin: HasRole<Admin>| admin.user().name().to_owned()))
        .route("/permission", get(async |_: HasPermission<Notes>| "permitted"))
        .route("/scope", get(async |scope: HasScope<Notes>| scope.subject().to_owned()))
        .route("/scoped-user", get(async |_: HasScope<Notes>, user: User| user.name().to_owned()))
        .route("/scoped-admin", get(async |_: HasScope<Notes>, admin: HasRole<Admin>| admin.user().name().to_owned()))
        .route("/key", get(async |key: ApiKey| key.id().to_owned()))
        .route("/fresh", get(async |fresh: FreshLogin| fresh.user().name().to_owned()))
        .route("/act", post(async |user: User, _: CsrfChecked| user.name().to_owned()))
}

/// Handlers say what they need, and nothing in the policy has to repeat it.
#[tokio::test]
async fn extractors_by_every_kind_of_credential() {
    let state = tempfile::tempdir().unwrap();
    let policy = format!(
        "[server]\nstate = {:?}\nhosts = [\"localhost\"]\n[auth]\nissuer = \"https://localhost\"\nregistration = \"open\"\n\
         [csrf]\nmode = \"detect\"\n[[route]]\npath = \"/*\"\npublic = true\n",
        state.path()
    );
    let app = App { harness: Harness::app(&policy, router()), state };
    let root = app.register("root").await;
    app.register("ann").await;
    app.make_admin(root["id"].as_str().unwrap()).await;
    let (session, own) = (app.session("root").await, app.session("ann").await);
    let token = async |name: &str| format!("Bearer {}", app.token(name, "").await["access_token"].as_str().unwrap());
    let (root_token, ann_token) = (token("root").await, token("ann").await);
    let key = app.key(&session, &["notes:read"]).await;
    let other_key = app.key(&session, &["other"]).await;
    let who: [(&str, Vec<(&str, &str)>); 7] = [
        ("nobody", vec![]),
        ("root by session", vec![("cookie", &session)]),
        ("root by token", vec![("authorization", &root_token)]),
        ("root by key", vec![("x-api-key", &key)]),
        ("root by another key", vec![("x-api-key", &other_key)]),
        ("ann by session", vec![("cookie", &own)]),
        ("ann by token", vec![("authorization", &ann_token)]),
    ];
    #[rustfmt::skip]
    let table: [(&str, [u16; 7]); 9] = [
        ("/user",         [401, 200, 200, 403, 403, 200, 200]),
        ("/optional",     [200, 200, 200, 403, 403, 200, 200]),
        ("/admin",        [401, 200, 200, 403, 403, 403, 403]),
        ("/permission",   [401, 403, 403, 403, 403, 403, 403]),
        ("/scope",        [401, 200, 200, 200, 403, 200, 200]),
        ("/scoped-user",  [401, 200, 200, 200, 403, 200, 200]),
        ("/scoped-admin", [401, 200, 200, 200, 403, 403, 403]),
        ("/key",          [401, 403, 403, 200, 200, 403, 403]),
        ("/fresh",        [401, 200, 403, 403, 403, 200, 403]),
    ];
    for (path, expected) in table {
        for ((name, headers), status) in who.iter().zip(expected) {
            let answer = app.get(path, headers).await;
            assert_eq!(answer.status(), status, "{path} for {name}: {}", answer.text());
            if status == 401 {
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
            }
        }
    }
    let act = async |headers: &[(&str, &str)]| app.harness.send(Method::POST, "/act", headers, "").await.status();
    assert_eq!(act(&[("cookie", &own), ("sec-fetch-site", "cross-site")]).await, 403, "also where `csrf` only watches");
    assert_eq!(act(&[("cookie", &own), ("sec-fetch-site", "same-origin")]).await, 200);
    assert_eq!(act(&[("authorization", &ann_token), ("sec-fetch-site", "cross-site")]).await, 200);
}
