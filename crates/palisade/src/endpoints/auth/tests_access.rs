//! Conditions of routes, proofs against forgery and extractors, with real users, tokens, sessions and keys.

use axum::routing::{get, post};
use http::Method;
use palisade_identity::service::{NewKey, UserId};

use super::tests::{App, value};
use crate::extract::{
    Admin, ApiKey, CsrfChecked, FreshLogin, HasPermission, HasRole, HasScope, Named, OptionalUser, User,
};
use crate::testing::Harness;
use crate::testing_kept::state;
use palisade_test::kept::Kept;
use palisade_test::on_both;

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

on_both!(
    conditions_over_real_identities,
    what_needs_a_proof_follows_from_the_accepted_credential,
    a_key_with_a_rate_of_its_own,
    extractors_by_every_kind_of_credential,
    endpoints_on_a_host_of_their_own,
);

async fn conditions_over_real_identities(kept: Kept) {
    let scoped = "[[route]]\npath = \"/scoped\"\nscopes = [\"notes:read\"]\nwhen = \"'notes:read' in token.scopes\"\n";
    let app = App::new(&kept, &format!("{}{scoped}", routes())).await;
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
async fn what_needs_a_proof_follows_from_the_accepted_credential(kept: Kept) {
    let app = App::new(&kept, "").await;
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

/// Over all routes, on top of what is counted there, and of nobody else.
async fn a_key_with_a_rate_of_its_own(kept: Kept) {
    let app = App::new(
        &kept,
        "[rate_limit]\ndefault = \"off\"\nexempt = [\"198.51.100.0/24\"]\n\
         [[route]]\npath = \"/free\"\nscopes = [\"notes:read\"]\nrate_limit = \"off\"\n\
         [[route]]\npath = \"/few\"\nscopes = [\"notes:read\"]\nrate_limit = { limit = \"2/day\", by = \"key\" }\n\
         [[route]]\npath = \"/dear\"\nscopes = [\"notes:read\"]\nrate_limit = { limit = \"100/day\", cost = 3 }\n",
    )
    .await;
    let ann = app.register("ann").await;
    let user = UserId::parse(ann["id"].as_str().unwrap()).unwrap();
    let live = app.harness.handle().live();
    let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
    let key = async |rate: Option<&str>| {
        let rate = rate.map(|rate| rate.parse().unwrap());
        let new = NewKey { name: "k".into(), scopes: vec!["notes:read".into()], expires_in: None, rate };
        ready.identity.create_key(user, new).await.unwrap().0.reveal().expose().clone()
    };
    let status = async |key: &str, path: &str| app.get(path, &[("x-api-key", key)]).await.status();

    let five = key(Some("5/day")).await;
    for (number, path) in ["/notes", "/free", "/few"].into_iter().enumerate() {
        let answer = app.get(path, &[("x-api-key", &five)]).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        let (left, policy) = match path {
            "/few" => ("\"2/day by key\";r=1;t=4".to_owned(), "\"2/day by key\";q=2;w=86400, "),
            _ => (format!("\"5/day of the key\";r={};t=17", 4 - number), ""),
        };
        assert!(answer.header("ratelimit").starts_with(&left), "{path}: {}", answer.header("ratelimit"));
        assert_eq!(answer.header("ratelimit-policy"), format!("{policy}\"5/day of the key\";q=5;w=86400"), "{path}");
    }
    // What is refused by one of its limits is counted by none.
    assert_eq!(
        (status(&five, "/few").await, status(&five, "/few").await, status(&five, "/few").await),
        (200, 429, 429)
    );
    assert_eq!(status(&five, "/dear").await, 429, "it counts as three, and one is left");
    assert_eq!(status(&five, "/any").await, 403, "what its route refuses is not counted");
    let last = app.get("/free", &[("authorization", &format!("Bearer {five}"))]).await;
    assert_eq!(last.status(), 200);
    assert!(last.header("ratelimit").starts_with("\"5/day of the key\";r=0;t=17"), "{}", last.header("ratelimit"));
    for path in ["/free", "/notes", "/few"] {
        let refused = app.get(path, &[("x-api-key", &five)]).await;
        assert_eq!(refused.refusal().map(|code| code.name), Some("rate_limit.exceeded"), "{path}");
        let wait: u32 = refused.header("retry-after").parse().unwrap();
        assert!((17_000..=17_280).contains(&wait) || path == "/few", "{path}: {wait}");
    }
    let exempt = App { harness: app.harness.clone().from("198.51.100.1"), state: tempfile::tempdir().unwrap() };
    assert_eq!(exempt.get("/free", &[("x-api-key", &five)]).await.status(), 200);

    // Nobody else is limited by it: another key of the account, its sessions, nobody.
    let (other, one) = (key(None).await, key(Some("1/100 years")).await);
    for _ in 0..9 {
        assert_eq!(status(&other, "/free").await, 200);
    }
    let free = app.get("/open", &[]).await;
    assert_eq!((free.status(), free.header("ratelimit"), free.header("ratelimit-policy")), (200, "", ""));
    assert_eq!((status(&one, "/free").await, status(&one, "/free").await), (200, 429));
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
async fn extractors_by_every_kind_of_credential(kept: Kept) {
    let state = state(&kept, &[]).await;
    let policy = format!(
        "[server]\nstate = {:?}\nhosts = [\"localhost\"]\n[auth]\nissuer = \"https://localhost\"\nregistration = \"open\"\n\
         [csrf]\nmode = \"detect\"\n[[route]]\npath = \"/*\"\npublic = true\n{}",
        state.path(),
        kept.sections()
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
                let metadata = "https://localhost/.well-known/oauth-protected-resource";
                let expected = format!("Bearer resource_metadata=\"{metadata}\"");
                assert_eq!(answer.header("www-authenticate"), expected, "{path}");
            }
        }
    }
    let act = async |headers: &[(&str, &str)]| app.harness.send(Method::POST, "/act", headers, "").await.status();
    assert_eq!(act(&[("cookie", &own), ("sec-fetch-site", "cross-site")]).await, 403, "also where `csrf` only watches");
    assert_eq!(act(&[("cookie", &own), ("sec-fetch-site", "same-origin")]).await, 200);
    assert_eq!(act(&[("authorization", &ann_token), ("sec-fetch-site", "cross-site")]).await, 200);
}

/// `[auth] host`: the pages of logins share no origin with the application, and are nowhere else. Threats 21.
async fn endpoints_on_a_host_of_their_own(kept: Kept) {
    let state = state(&kept, &[]).await;
    let policy = format!(
        "[server]\nstate = {:?}\nhosts = [\"localhost\", \"login.localhost\"]\n\
         [auth]\nissuer = \"https://login.localhost\"\nhost = \"login.localhost\"\nregistration = \"open\"\n\
         [[route]]\npath = \"/open\"\npublic = true\n{}",
        state.path(),
        kept.sections()
    );
    let app = App { harness: Harness::new(&policy, super::tests::echo()), state };
    let (there, page) = (("host", "login.localhost"), ("accept", "text/html"));
    let ann = serde_json::json!({ "username": "ann", "email": "ann@example.com", "password": super::tests::PASSWORD });
    let headers = [there, ("origin", "https://login.localhost"), ("content-type", "application/json")];
    let made = app.harness.send(Method::POST, "/auth/register", &headers, ann.to_string()).await;
    assert_eq!(made.status(), 201, "{}", made.text());
    let form = format!("grant_type=password&username=ann&password={}", super::tests::PASSWORD.replace(' ', "+"));
    let token = value(&app.form("/auth/token", &[there], &form).await)["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");

    for path in ["/auth/login", "/auth/jwks.json", "/.well-known/oauth-authorization-server"] {
        assert_eq!(app.get(path, &[there, page]).await.status(), 200, "{path}");
        for host in ["localhost", "LOCALHOST", "localhost:443"] {
            let elsewhere = app.get(path, &[("host", host), page]).await;
            assert_eq!(elsewhere.refusal().map(|code| code.name), Some("auth.required"), "{host}{path}");
            // Nobody is sent to a page whose session would not come back.
            assert_eq!((elsewhere.status(), elsewhere.header("location")), (401, ""), "{host}{path}");
        }
    }
    let seen = app.get("/auth/me", &[("authorization", &bearer)]).await;
    assert!(seen.text().contains("x-forwarded-name: ann"), "the application's own path: {}", seen.text());
    let me = app.get("/auth/me", &[there, ("authorization", &bearer)]).await;
    assert_eq!(value(&me)["username"], "ann");
    let lost = app.get("/any", &[there, page]).await;
    assert_eq!((lost.status(), lost.header("location")), (303, "/auth/login?return_to=%2Fany"));
    // A page of the application is another origin, and so another site to the pages of logins.
    let foreign = [there, ("origin", "https://localhost"), ("content-type", "application/json")];
    let refused = app.harness.send(Method::POST, "/auth/login", &foreign, "{}").await;
    assert_eq!(refused.refusal().map(|code| code.name), Some("auth.cross_site"));
}
