//! What the application learns of a caller, where it is least certain: claims of another issuer, names that look encoded,
//! credentials that carry less than their user. Threats 4, 5, 10 and 22.

use std::io::Cursor;
use std::time::Duration;

use palisade_base::Secret;
use palisade_identity::service::{Format, ImportOptions};
use palisade_identity::token::{Algorithm, Claims, SigningKey};
use serde_json::{Value, json};

use super::tests::{App, PASSWORD, bearer, echo, line, value};
use crate::testing::Harness;
use crate::testing_kept::state;
use palisade_test::kept::Kept;
use palisade_test::on_both;

pub(super) const OLD_KEY: &str = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4c";
/// An issuer whose tokens say who somebody is by their name.
pub(super) const ISSUER: &str = "[[auth.issuers]]\nname = \"old-app\"\nhs256 = { secret = \"old-jwt-key\" }\nsubject = \"username\"\nuntil = 2999-12-31\n";

impl App {
    /// Accounts that came along with the application, and their ids.
    pub(super) async fn moved_in(&self, names: &[&'static str]) -> Vec<(&'static str, String)> {
        let lines: String = (7..).zip(names).map(|(id, name)| format!("{id},{name},{name}@old.example,\n")).collect();
        let csv = format!("id,username,email,hashed_password\n{lines}");
        let (format, columns, roles) = (Format::Csv, Vec::new(), Vec::new());
        let options = ImportOptions { format, columns, roles, superusers: None, dry_run: false };
        let live = self.harness.handle().live();
        let ready = live.policy.controls().auth.control.as_ref().unwrap().open(&live.policy).await.unwrap();
        let report = ready.identity.import_users(Cursor::new(csv), &options, &mut |_| {}).await.unwrap();
        assert_eq!(report.imported, names.len() as u64);
        let all = ready.identity.list_users(None, 200).await.unwrap();
        let id = |name: &str| all.iter().find(|user| user.name == name).unwrap().id.to_string();
        names.iter().map(|name| (*name, id(name))).collect()
    }

    /// A token that the application made itself before it moved here.
    pub(super) fn old_token(&self, name: &str, claims: &Value) -> String {
        let key = SigningKey::from_private(Algorithm::Hs256, Secret::new(OLD_KEY.as_bytes().to_vec())).unwrap();
        let expires_at = Some(self.harness.clock().now().0 / 1000 + 600);
        let other = claims.as_object().cloned().unwrap_or_default();
        let claims = Claims { subject: Some(name.into()), expires_at, other, ..Claims::default() };
        format!("Bearer {}", key.sign("JWT", &claims).unwrap().expose())
    }
}

async fn app(kept: &Kept, routes: &str) -> App {
    let state = state(kept, &[("old-jwt-key", OLD_KEY)]).await;
    let policy = format!(
        "[server]\nstate = {:?}\nhosts = [\"localhost\"]\n[rate_limit]\ndefault = \"off\"\n\
         [auth]\nissuer = \"https://localhost\"\nregistration = \"open\"\n{ISSUER}{routes}{}",
        state.path(),
        kept.sections()
    );
    App { harness: Harness::new(&policy, echo()), state }
}

/// What an assertion says.
fn assertion(text: &str) -> Value {
    let payload = line(text, "palisade-assertion").and_then(|token| token.split('.').nth(1)).expect("an assertion");
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
}

on_both!(
    claims_in_headers,
    claims_in_conditions,
    a_narrow_credential_is_handed_over_as_one,
    names_that_look_encoded,
    what_is_forwarded_is_a_token_and_nothing_else,
);

/// A header that is made of a claim is the claim, encoded, or the request is refused; a client's own never arrives.
async fn claims_in_headers(kept: Kept) {
    let app = app(
        &kept,
        "[[route]]\npath = \"/theirs\"\nrequest_headers = { set = { X-Tenant = \"{user.claims.tenant}\" } }\n\
         [[route]]\npath = \"/default\"\nrequest_headers = { set = { X-Tenant = \"{user.claims.tenant|none}\" } }\n",
    )
    .await;
    app.moved_in(&["ann"]).await;
    app.register("bob").await;
    let own = bearer(&app.token("bob", "").await);
    let copies = ["x-tenant", "X-TENANT", "x_tenant", "X_Tenant", "x.tenant", "x-tenant"];
    let copies: Vec<(&str, &str)> = copies.iter().map(|name| (*name, "victim")).collect();
    let cases = [
        (json!({ "tenant": "acme" }), Some("acme")),
        (json!({ "tenant": "a,b" }), Some("a%2Cb")),
        (json!({ "tenant": "a%2Cb" }), Some("a%252Cb")),
        (json!({ "tenant": "a\r\nX-Forwarded-Roles: admin" }), Some("a%0D%0AX-Forwarded-Roles:%20admin")),
        (json!({ "tenant": "é" }), Some("%C3%A9")),
        (json!({ "tenant": " \"x\";y " }), Some("%20%22x%22%3By%20")),
        (json!({ "tenant": "" }), None),
        (json!({ "tenant": ["acme"] }), None),
        (json!({ "tenant": { "id": "acme" } }), None),
        (json!({ "tenant": 7 }), None),
        (json!({ "tenant": null }), None),
        (json!({ "Tenant": "acme" }), None),
        (json!({}), None),
    ];
    for (claims, expected) in cases {
        let token = app.old_token("ann", &claims);
        let mut headers = copies.clone();
        headers.push(("authorization", &token));
        let answer = app.get("/theirs", &headers).await;
        let text = answer.text();
        match expected {
            Some(expected) => {
                assert_eq!((answer.status(), line(&text, "x-tenant")), (200, Some(expected)), "{claims}: {text}");
                assert_eq!(text.matches("tenant: ").count(), 1, "{claims}: {text}");
                assert_eq!(line(&text, "x-forwarded-roles"), Some(""), "{claims}: {text}");
            }
            None => {
                assert_eq!(answer.refusal().map(|code| code.name), Some("upstream.missing_value"), "{claims}: {text}")
            }
        }
        let text = app.get("/default", &headers).await.text();
        assert_eq!(line(&text, "x-tenant"), Some(expected.unwrap_or("none")), "{claims}: {text}");
        assert!(!text.contains("victim"), "{claims}: {text}");
    }
    // A claim that makes the header longer than headers may be; a login of ours, which has no claims; nobody.
    let long = app.old_token("ann", &json!({ "tenant": "x".repeat(8000) }));
    for token in [&long, &own] {
        let mut headers = copies.clone();
        headers.push(("authorization", token));
        let refused = app.get("/theirs", &headers).await;
        assert!(refused.refusal().is_some(), "{}", refused.text());
    }
    assert_eq!(app.get("/theirs", &copies).await.status(), 401);
}

/// A condition over claims: what is missing, of another type or said twice refuses, also where the condition says `!`.
async fn claims_in_conditions(kept: Kept) {
    let conditions = [
        ("user.claims.tenant == query.tenant", [true, false, false, false, false, false, false]),
        ("user.claims.tenant != 'evil'", [true, true, false, false, false, false, false]),
        ("!(user.claims.tenant == 'evil')", [true, true, false, false, false, false, false]),
        ("'acme' in user.claims.groups", [true, false, false, false, false, false, false]),
        ("!('evil' in user.claims.groups)", [true, true, false, false, false, false, false]),
        ("user.claims.tenant == 'acme' || user.name == 'ann'", [true, true, false, false, false, false, false]),
        ("user.name == 'ann' && !(user.claims.banned == 'yes')", [true, false, false, false, false, false, false]),
    ];
    let routes: Vec<String> = conditions
        .iter()
        .enumerate()
        .map(|(place, (condition, _))| format!("[[route]]\npath = \"/{place}\"\nwhen = \"{condition}\"\n"))
        .collect();
    let app = app(&kept, &routes.concat()).await;
    app.moved_in(&["ann"]).await;
    app.register("bob").await;
    let own = bearer(&app.token("bob", "").await);
    let claims = [
        json!({ "tenant": "acme", "groups": ["acme", "x"], "banned": "no" }),
        json!({ "tenant": "other", "groups": ["x"] }),
        json!({}),
        json!({ "tenant": null, "groups": null, "banned": null }),
        json!({ "tenant": ["acme"], "groups": "acme", "banned": ["yes"] }),
        json!({ "tenant": 1, "groups": [1, "acme"], "banned": true }),
        json!({ "tenant": { "acme": "acme" }, "groups": { "acme": true }, "banned": {} }),
    ];
    for (place, (condition, expected)) in conditions.iter().enumerate() {
        for (claims, passes) in claims.iter().zip(expected) {
            let token = app.old_token("ann", claims);
            let headers = [("authorization", token.as_str())];
            let status = app.get(&format!("/{place}?tenant=acme"), &headers).await.status();
            assert_eq!(status, if *passes { 200 } else { 403 }, "{condition} with {claims}");
            if condition.contains("query") {
                let twice = app.get(&format!("/{place}?tenant=acme&tenant=acme"), &headers).await.status();
                assert_eq!(twice, 403, "{condition} with {claims}");
            }
        }
        let target = format!("/{place}?tenant=acme");
        assert_eq!(app.get(&target, &[("authorization", &own)]).await.status(), 403, "{condition}: no claims");
        assert_eq!(app.get(&target, &[]).await.status(), 401, "{condition}: nobody");
    }
}

/// A narrow credential is handed over as one: its assertion says so whatever its scopes are called and whoever came before,
/// and where anybody may come, the header of roles, which cannot say so, is empty.
async fn a_narrow_credential_is_handed_over_as_one(kept: Kept) {
    let app = app(
        &kept,
        "[[route]]\npath = \"/open\"\npublic = true\n\
         [[route]]\npath = \"/asked\"\nscopes = [\"all\"]\n",
    )
    .await;
    let root = app.register("root").await;
    app.make_admin(root["id"].as_str().unwrap()).await;
    let session = app.session("root").await;
    let whole = bearer(&app.token("root", "").await);
    let key = app.key(&session, &["all"]).await;
    let scoped = async |scope: &str| bearer(&app.token("root", &format!("&scope={scope}")).await);
    let narrow = [scoped("all").await, scoped("whole").await, scoped("narrow").await, scoped("x+all").await];
    // Each comes directly behind the other, and behind itself: an assertion is used again for half a minute.
    for path in ["/open", "/asked"] {
        for turn in 0..2 {
            for token in narrow.iter().chain([&whole]).chain(&narrow) {
                let answer = app.get(path, &[("authorization", token)]).await;
                if answer.status() == 403 {
                    assert!(path == "/asked" && *token != whole);
                    continue;
                }
                let text = answer.text();
                let (said, is_narrow) = (assertion(&text), *token != whole);
                assert_eq!(said["narrowed"] == json!(true), is_narrow, "{path} {turn}: {said}");
                assert_eq!(said["scope"].is_string(), is_narrow, "{path} {turn}: {said}");
                let roles = if path == "/open" && is_narrow { "" } else { "admin" };
                assert_eq!(line(&text, "x-forwarded-roles"), Some(roles), "{path} {turn}: {said}");
            }
            let text = app.get(path, &[("x-api-key", &key)]).await.text();
            assert_eq!(line(&text, "x-forwarded-user"), root["id"].as_str(), "{path}: {text}");
            let roles = if path == "/open" { "" } else { "admin" };
            assert_eq!(line(&text, "x-forwarded-roles"), Some(roles), "{path}: {text}");
            let text = app.get(path, &[("cookie", &session)]).await.text();
            assert_eq!(line(&text, "x-forwarded-roles"), Some("admin"), "{path}: {text}");
        }
        app.harness.clock().advance(Duration::from_secs(31));
    }
}

/// Two names are never one in a header, however they are spelled.
async fn names_that_look_encoded(kept: Kept) {
    let app = app(&kept, "[[route]]\npath = \"/*\"\nrequest_headers = { set = { X-Name = \"{user.name}\" } }\n").await;
    let mut seen = std::collections::BTreeSet::new();
    for (place, name) in ["a,b", "a%2Cb", "a%2cb", "a%252cb", "a%0d%0ab"].into_iter().enumerate() {
        let account = json!({ "username": name, "email": format!("{place}@example.com"), "password": PASSWORD });
        let made = app.json(http::Method::POST, "/auth/register", &[], &account).await;
        if made.status() == 409 || made.status() == 422 {
            continue;
        }
        assert_eq!(made.status(), 201, "{name}: {}", made.text());
        let name = value(&made)["username"].as_str().unwrap().replace('%', "%25");
        let token = bearer(&app.token(&name, "").await);
        let text = app.get("/any", &[("authorization", &token)]).await.text();
        let (ours, templated) = (line(&text, "x-forwarded-name").unwrap(), line(&text, "x-name").unwrap());
        assert_eq!(ours, templated, "{name}");
        assert!(seen.insert(templated.to_owned()), "{name}: {seen:?}");
    }
    assert!(seen.len() >= 2, "{seen:?}");
}

/// `forward_credentials` is for a token that the application itself reads: no session, no key, and nothing of ours that is
/// worth nothing any more. Threats 21.
async fn what_is_forwarded_is_a_token_and_nothing_else(kept: Kept) {
    let app = app(
        &kept,
        "[[route]]\npath = \"/theirs\"\nscopes = [\"x\"]\nauth = { forward_credentials = true }\n\
         [[route]]\npath = \"/open\"\npublic = true\nauth = { forward_credentials = true }\n",
    )
    .await;
    app.register("ann").await;
    let session = app.session("ann").await;
    let key = app.key(&session, &["x"]).await;
    let token = bearer(&app.token("ann", "").await);
    let as_token = format!("Bearer {key}");
    let theirs = "Bearer of-the-application";
    for path in ["/theirs", "/open"] {
        let text = app.get(path, &[("authorization", &token)]).await.text();
        assert_eq!(line(&text, "authorization"), Some(&*token), "{path}: {text}");
        assert!(line(&text, "palisade-assertion").is_some(), "{path}: {text}");
        for (name, value) in [("cookie", &session), ("x-api-key", &key), ("authorization", &as_token)] {
            let answer = app.get(path, &[(name, value)]).await;
            let text = answer.text();
            assert_eq!((answer.status(), line(&text, name)), (200, None), "{path} {name}: {text}");
            assert!(!text.contains(&key), "{path} {name}: {text}");
        }
    }
    let text = app.get("/any", &[("authorization", &token)]).await.text();
    assert_eq!(line(&text, "authorization"), None, "another route: {text}");
    let text = app.get("/open", &[("authorization", theirs)]).await.text();
    assert_eq!(line(&text, "authorization"), Some(theirs), "a token of the application's own: {text}");
    // One of ours that has ended is no token of anybody's.
    let form = format!("token={}", token.trim_start_matches("Bearer "));
    assert_eq!(app.form("/auth/revoke", &[], &form).await.status(), 200);
    let text = app.get("/open", &[("authorization", &token)]).await.text();
    assert_eq!((line(&text, "authorization"), line(&text, "x-forwarded-user")), (None, None), "{text}");
}
