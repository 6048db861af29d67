//! Clients: codes with PKCE through the pages, tokens for themselves, introspection, and what a hostile one tries.

use aws_lc_rs::digest;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::Method;
use palisade_identity::service::{GrantKind, Method as Proves, NewClient};
use serde_json::json;

use super::call::encode;
use super::tests::{App, value};
use palisade_test::kept::Kept;
use palisade_test::on_both;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const BACK: &str = "https://app.example.com/cb";

fn challenge() -> String {
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()).as_ref())
}

pub(super) struct Registered {
    pub(super) id: String,
    pub(super) secret: String,
}

impl App {
    pub(super) async fn client(&self, method: Proves, grants: &[GrantKind]) -> Registered {
        let live = self.harness.handle().live();
        let auth = live.policy.controls().auth.control.as_ref().unwrap();
        let ready = auth.open(&live.policy).await.unwrap();
        let new = NewClient {
            name: "Calendar".into(),
            method,
            jwks: None,
            redirects: vec![BACK.into(), "http://127.0.0.1/cb".into()],
            grants: grants.to_vec(),
            scopes: vec!["notes:read".into(), "notes:write".into()],
            audience: Vec::new(),
            trusted: false,
        };
        let (client, secret) = ready.identity.add_client(new).await.unwrap();
        Registered { id: client.id.clone(), secret: secret.map(|s| s.expose().clone()).unwrap_or_default() }
    }

    /// The tokens of a public client that the user of a session allows to read their notes.
    pub(super) async fn third_party(&self, session: &str, client: &Registered) -> serde_json::Value {
        let own = [("cookie", session), ("sec-fetch-site", "same-origin")];
        let form = format!("decision=allow&request={}", encode(&ask(&client.id, &[])));
        let allowed = self.form("/auth/authorize", &own, &form).await;
        let code = parameter(allowed.header("location"), "code").unwrap_or_else(|| panic!("{}", allowed.text()));
        let redeem = format!(
            "grant_type=authorization_code&client_id={}&code={code}&redirect_uri={}&code_verifier={VERIFIER}",
            client.id,
            encode(BACK)
        );
        value(&self.form("/auth/token", &[], &redeem).await)
    }
}

pub(super) fn ask(client: &str, more: &[(&str, &str)]) -> String {
    let challenge = challenge();
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", BACK),
        ("scope", "notes:read"),
        ("state", "s&1"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in more {
        parameters.retain(|(known, _)| known != name);
        if *value != "-" {
            parameters.push((name, value));
        }
    }
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

fn parameter(location: &str, name: &str) -> Option<String> {
    let query = location.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

fn field(html: &str, name: &str) -> String {
    let (_, rest) = html.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{name}: {html}"));
    rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&")
}

on_both!(
    a_code_with_pkce_through_the_pages,
    a_code_is_good_once,
    a_client_for_itself_and_what_it_may_ask_about,
    hostile_requests_of_clients,
    a_password_client_gets_what_it_is_registered_for,
    why_a_credential_is_refused_is_said_by_our_own_endpoints,
    a_code_goes_where_the_client_is_registered_whatever_is_said_of_the_applications_redirects,
);

async fn a_code_with_pkce_through_the_pages(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let client = app.client(Proves::Public, &[GrantKind::AuthorizationCode, GrantKind::RefreshToken]).await;
    let query = ask(&client.id, &[]);
    let target = format!("/auth/authorize?{query}");
    // Nobody is logged in: the page to log in, which may lead on to the client.
    let login = app.get(&target, &[("accept", "text/html")]).await;
    assert_eq!(login.status(), 200, "{}", login.text());
    assert!(login.header("content-security-policy").contains("form-action 'self' https://app.example.com;"));
    assert_eq!(field(&login.text(), "return_to"), target);
    let session = app.session("ann").await;
    let cookie = [("cookie", session.as_str()), ("accept", "text/html")];
    let consent = app.get(&target, &cookie).await;
    assert!(consent.text().contains("Calendar") && consent.text().contains("notes:read"), "{}", consent.text());
    let (token, request) = (field(&consent.text(), "csrf_token"), field(&consent.text(), "request"));
    assert_eq!(request, query);
    let form = |decision: &str, token: &str| {
        format!("decision={decision}&csrf_token={}&request={}", encode(token), encode(&request))
    };
    // Without the token, or from elsewhere: nothing is granted.
    let forged = app.form("/auth/authorize", &cookie, &form("allow", "x")).await;
    assert_eq!(forged.refusal().map(|code| code.name), Some("auth.cross_site"));
    let foreign = [cookie[0], ("origin", "https://evil.example")];
    let forged = app.form("/auth/authorize", &foreign, &form("allow", &token)).await;
    assert_eq!(forged.refusal().map(|code| code.name), Some("auth.cross_site"));
    let denied = app.form("/auth/authorize", &cookie, &form("deny", &token)).await;
    assert_eq!(parameter(denied.header("location"), "error").as_deref(), Some("access_denied"));
    let allowed = app.form("/auth/authorize", &cookie, &form("allow", &token)).await;
    let location = allowed.header("location").to_owned();
    assert!(location.starts_with(&format!("{BACK}?code=palc_")), "{location}");
    assert_eq!(parameter(&location, "state").as_deref(), Some("s%261"));
    assert_eq!(parameter(&location, "iss").as_deref(), Some("https%3A%2F%2Flocalhost"));
    let code = parameter(&location, "code").unwrap();
    let redeem = format!(
        "grant_type=authorization_code&client_id={}&code={code}&redirect_uri={}&code_verifier={VERIFIER}",
        client.id,
        encode(BACK)
    );
    let tokens = app.form("/auth/token", &[], &redeem).await;
    assert_eq!(tokens.status(), 200, "{}", tokens.text());
    let tokens = value(&tokens);
    assert_eq!(tokens["scope"], "notes:read");
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 200);
    assert_eq!(app.get("/any", &[("authorization", &bearer)]).await.status(), 403, "it carries only scopes");
    assert_eq!(app.get("/auth/me", &[("authorization", &bearer)]).await.status(), 403);
    // Asked once; the next time it goes through at once.
    let again = app.get(&target, &cookie).await;
    assert_eq!(again.status(), 303, "{}", again.text());
    // The user sees it, and takes it back: tokens included.
    let account = app.get("/auth/account", &cookie).await;
    assert!(account.text().contains("Take back what Calendar may"), "{}", account.text());
    let token = field(&account.text(), "csrf_token");
    let take_back = |token: &str| format!("id={}&csrf_token={}", client.id, encode(token));
    let forged = app.form("/auth/account/revoke-consent", &cookie, &take_back("x")).await;
    assert_eq!(forged.refusal().map(|code| code.name), Some("auth.cross_site"));
    assert_eq!(app.form("/auth/account/revoke-consent", &cookie, &take_back(&token)).await.status(), 303);
    assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 401);
    assert_eq!(app.get(&target, &cookie).await.status(), 200, "asked anew");
}

async fn a_code_is_good_once(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let client = app.client(Proves::Public, &[GrantKind::AuthorizationCode]).await;
    let session = app.session("ann").await;
    let cookie = [("cookie", session.as_str()), ("accept", "text/html")];
    let consent = app.get(&format!("/auth/authorize?{}", ask(&client.id, &[])), &cookie).await;
    let (token, request) = (field(&consent.text(), "csrf_token"), field(&consent.text(), "request"));
    let form = format!("decision=allow&csrf_token={}&request={}", encode(&token), encode(&request));
    let allowed = app.form("/auth/authorize", &cookie, &form).await;
    let code = parameter(allowed.header("location"), "code").unwrap();
    let redeem = format!(
        "grant_type=authorization_code&client_id={}&code={code}&redirect_uri={}&code_verifier={VERIFIER}",
        client.id,
        encode(BACK)
    );
    let tokens = value(&app.form("/auth/token", &[], &redeem).await);
    assert!(tokens.get("refresh_token").is_none(), "not a grant of this client");
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 200);
    // A second use takes back what the first one gave.
    let replayed = app.form("/auth/token", &[], &redeem).await;
    assert_eq!(value(&replayed)["error"], "invalid_grant");
    assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 401);
}

async fn a_client_for_itself_and_what_it_may_ask_about(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let client = app.client(Proves::Basic, &[GrantKind::ClientCredentials]).await;
    let basic = format!("Basic {}", BASE64.encode(format!("{}:{}", client.id, client.secret).as_bytes()));
    let auth = [("authorization", basic.as_str())];
    let tokens = value(&app.form("/auth/token", &auth, "grant_type=client_credentials&scope=notes:read").await);
    assert!(tokens.get("refresh_token").is_none());
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let seen = app.get("/notes", &[("authorization", &bearer)]).await;
    assert_eq!(seen.status(), 200, "{}", seen.text());
    assert!(seen.text().contains(&format!("x-forwarded-user: {}", client.id)));
    let ann = app.token("ann", "").await;
    let about = |token: &str| format!("token={token}");
    let own = value(&app.form("/auth/introspect", &auth, &about(ann["access_token"].as_str().unwrap())).await);
    assert_eq!((&own["active"], &own["username"]), (&json!(true), &json!("ann")));
    assert_eq!(value(&app.form("/auth/introspect", &auth, &about("junk")).await), json!({ "active": false }));
    let nobody = app.form("/auth/introspect", &[], &about("x")).await;
    assert_eq!((nobody.status(), &value(&nobody)["error"]), (401, &json!("invalid_client")));
    // Its token is revoked by itself alone; one that no client obtained by whoever holds it. Threats 31.
    let itself = about(tokens["access_token"].as_str().unwrap());
    let other = app.client(Proves::Public, &[GrantKind::AuthorizationCode]).await;
    for form in [itself.clone(), format!("{itself}&client_id={}", other.id), format!("{itself}&client_id=made-up")] {
        assert_eq!(app.form("/auth/revoke", &[], &form).await.status(), 200);
        assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 200, "{form}");
    }
    let forged = app.form("/auth/revoke", &[], &format!("{itself}&client_id={}", client.id)).await;
    assert_eq!((forged.status(), &value(&forged)["error"]), (401, &json!("invalid_client")));
    assert_eq!(app.form("/auth/revoke", &auth, &itself).await.status(), 200);
    assert_eq!(app.get("/notes", &[("authorization", &bearer)]).await.status(), 401);
    let hers = format!("Bearer {}", ann["access_token"].as_str().unwrap());
    assert_eq!(app.get("/any", &[("authorization", &hers)]).await.status(), 200);
    assert_eq!(app.form("/auth/revoke", &[], &about(ann["access_token"].as_str().unwrap())).await.status(), 200);
    assert_eq!(app.get("/any", &[("authorization", &hers)]).await.status(), 401);
}

/// Threats 31.
async fn hostile_requests_of_clients(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let public = app.client(Proves::Public, &[GrantKind::AuthorizationCode]).await;
    let secret = app.client(Proves::Basic, &[GrantKind::ClientCredentials, GrantKind::AuthorizationCode]).await;
    let session = app.session("ann").await;
    let cookie = [("cookie", session.as_str()), ("accept", "text/html")];
    let mut tried = 0;
    // Nobody is sent anywhere.
    for redirect in [
        "https://evil.example/cb",
        "https://app.example.com/cb/",
        "https://app.example.com/cb?x=1",
        "https://app.example.com/cb#x",
        "https://app.example.com/CB",
        "https://APP.example.com/cb",
        "https://app.example.com:443/cb",
        "https://app.example.com/..;/cb",
        "https://app.example.com/a/../cb",
        "https://app.example.com/%63b",
        "https://app.example.com@evil.example/cb",
        "https://app.example.com.evil.example/cb",
        "http://app.example.com/cb",
        "//app.example.com/cb",
        "javascript:alert(1)",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1:x/cb",
        "http://127.0.0.1/other",
        " https://app.example.com/cb",
        "https://app.example.com/cb\r\nX: y",
        "-",
    ] {
        let answer =
            app.get(&format!("/auth/authorize?{}", ask(&public.id, &[("redirect_uri", redirect)])), &cookie).await;
        assert_eq!((answer.status(), answer.header("location")), (400, ""), "{redirect}");
        tried += 1;
    }
    for (id, more) in
        [("plc_unknown", ""), ("", ""), (public.id.as_str(), "&client_id=plc_other"), (&public.id, "&redirect_uri=x")]
    {
        let answer = app.get(&format!("/auth/authorize?{}{more}", ask(id, &[])), &cookie).await;
        assert_eq!((answer.status(), answer.header("location")), (400, ""), "{id}{more}");
        tried += 1;
    }
    // The client is told.
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", "code token"), "unsupported_response_type"),
        (("response_type", "-"), "unsupported_response_type"),
        (("code_challenge", "-"), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", "-"), "invalid_request"),
        (("scope", "admin"), "invalid_scope"),
        (("resource", "https://other.example"), "invalid_target"),
    ] {
        let answer = app.get(&format!("/auth/authorize?{}", ask(&public.id, &[change])), &cookie).await;
        let location = answer.header("location").to_owned();
        assert!(location.starts_with(&format!("{BACK}?error={error}")), "{change:?}: {} {location}", answer.status());
        assert!(location.contains("iss=") && !location.contains("code="), "{location}");
        tried += 1;
    }
    // At the token endpoint.
    let basic = |id: &str, secret: &str| format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()));
    let right = basic(&secret.id, &secret.secret);
    for (header, body, error) in [
        ("", "grant_type=client_credentials", "invalid_client"),
        (&*basic(&secret.id, "wrong"), "grant_type=client_credentials", "invalid_client"),
        (&*basic("plc_unknown", "x"), "grant_type=client_credentials", "invalid_client"),
        (&*right, "grant_type=client_credentials&client_secret=x", "invalid_request"),
        (&*right, "grant_type=client_credentials&client_id=other", "invalid_request"),
        (&*right, "grant_type=client_credentials&scope=admin", "invalid_scope"),
        (&*right, "grant_type=client_credentials&resource=https%3A%2F%2Fother", "invalid_target"),
        (&*right, "grant_type=client_credentials&grant_type=password", "invalid_request"),
        (&*right, "grant_type=urn:x", "unsupported_grant_type"),
        (&*right, "grant_type=", "invalid_request"),
        (&*right, "", "invalid_request"),
        (&*right, "grant_type=authorization_code&code=x&code_verifier=y", "invalid_grant"),
        (&*right, "grant_type=authorization_code&code=palc_x&code_verifier=y", "invalid_grant"),
        ("", &*format!("grant_type=client_credentials&client_id={}", public.id), "unauthorized_client"),
        ("", &*format!("grant_type=client_credentials&client_id={}", secret.id), "invalid_client"),
        (
            "",
            &*format!("grant_type=client_credentials&client_id={}&client_secret={}", secret.id, secret.secret),
            "invalid_client",
        ),
        ("", "grant_type=refresh_token&refresh_token=x", "invalid_grant"),
        ("", "grant_type=password&username=ann", "invalid_grant"),
    ] {
        let headers = if header.is_empty() { Vec::new() } else { vec![("authorization", header)] };
        let answer = app.form("/auth/token", &headers, body).await;
        assert_eq!(value(&answer)["error"], json!(error), "{body}: {}", answer.text());
        assert!(value(&answer).get("access_token").is_none());
        tried += 1;
    }
    assert!(tried >= 40, "{tried}");
    let wrong_type = app.harness.send(Method::POST, "/auth/token", &[("content-type", "application/json")], "{}").await;
    assert_eq!((wrong_type.status(), &value(&wrong_type)["code"]), (415, &json!("auth.body_type")));
    let got = app.get("/auth/token?grant_type=password", &[]).await;
    assert_eq!((got.status(), got.header("allow")), (405, "POST"));
}

/// A client with the password grant is bound by its registration, as with any other grant.
async fn a_password_client_gets_what_it_is_registered_for(kept: Kept) {
    let app = App::new(&kept, "").await;
    app.register("ann").await;
    let client = app.client(Proves::Public, &[GrantKind::Password, GrantKind::RefreshToken]).await;
    let ask = async |more: &str| {
        let login = format!("grant_type=password&username=ann&password={}", super::tests::PASSWORD.replace(' ', "+"));
        app.form("/auth/token", &[], &format!("{login}&client_id={}{more}", client.id)).await
    };
    for (more, error) in [
        ("&scope=admin:all", "invalid_scope"),
        ("&scope=notes:read+admin:all", "invalid_scope"),
        ("&resource=https://billing.example", "invalid_target"),
    ] {
        let answer = ask(more).await;
        assert_eq!(
            (answer.status(), value(&answer)["error"].as_str()),
            (400, Some(error)),
            "{more}: {}",
            answer.text()
        );
    }
    assert_eq!(value(&ask("").await)["scope"], "notes:read notes:write", "all that it may, where it asks for nothing");
    let tokens = ask("&scope=notes:read&resource=https://localhost").await;
    assert_eq!(tokens.status(), 200, "{}", tokens.text());
    assert_eq!(value(&tokens)["scope"], "notes:read");
    let token = value(&tokens)["refresh_token"].as_str().unwrap().to_owned();
    let refresh = async |more: &str| {
        let form = format!("grant_type=refresh_token&client_id={}&refresh_token={token}{more}", client.id);
        value(&app.form("/auth/token", &[], &form).await)
    };
    assert_eq!(refresh("&scope=notes:write").await["error"], "invalid_scope");
    assert_eq!(refresh("&resource=https://billing.example").await["error"], "invalid_target");
    assert_eq!(refresh("&scope=notes:read").await["scope"], "notes:read");
}

/// A program that is told "log in" throws its user out; one that is told what is wrong with its token gets another.
async fn why_a_credential_is_refused_is_said_by_our_own_endpoints(kept: Kept) {
    let app = App::new(&kept, "").await;
    for path in ["/auth/me", "/auth/sessions", "/auth/keys"] {
        let nobody = app.get(path, &[]).await;
        assert_eq!(nobody.refusal().map(|code| code.name), Some("auth.required"), "{path}");
        // RFC 9728: where a client learns how to log in.
        let metadata = "resource_metadata=\"https://localhost/.well-known/oauth-protected-resource\"";
        assert_eq!(nobody.header("www-authenticate"), format!("Bearer {metadata}"), "{path}");
        for (header, bad, code) in [("authorization", "Bearer x.y.z", "auth.token"), ("x-api-key", "pal_x", "auth.key")]
        {
            let answer = app.get(path, &[(header, bad)]).await;
            assert_eq!((answer.status(), answer.refusal().map(|code| code.name)), (401, Some(code)), "{path}");
            let expected = format!("Bearer error=\"invalid_token\", {metadata}");
            assert_eq!(answer.header("www-authenticate"), expected, "{path}");
        }
    }
    // Whoever needs nobody asks for nobody.
    for path in ["/auth/login", "/auth/jwks.json", "/auth/docs"] {
        assert_eq!(app.get(path, &[("authorization", "Bearer x.y.z")]).await.status(), 200, "{path}");
    }
}

/// What `headers` does to redirects of an application, to mend or to refuse them, is not done to our own.
async fn a_code_goes_where_the_client_is_registered_whatever_is_said_of_the_applications_redirects(kept: Kept) {
    let app = App::new(&kept, "\n[headers]\nlocation = \"block\"\n").await;
    app.register("ann").await;
    let client = app.client(Proves::Public, &[GrantKind::AuthorizationCode, GrantKind::RefreshToken]).await;
    let session = app.session("ann").await;
    let tokens = app.third_party(&session, &client).await;
    assert_eq!(tokens["scope"], "notes:read", "{tokens}");
}
