use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use super::*;
use crate::opaque::Code;
use crate::refresh::Replay;
use crate::token::{Claims, kind};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B: of the verifier above.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const HOME: &str = "https://app.example.com/callback";

fn new_client() -> NewClient {
    NewClient {
        name: "An app".into(),
        method: Method::Public,
        jwks: None,
        redirects: vec![HOME.into()],
        grants: vec![GrantKind::AuthorizationCode, GrantKind::RefreshToken],
        scopes: vec!["notes:read".into(), "notes:write".into()],
        audience: vec![],
        trusted: false,
    }
}

fn ask(client: &Client) -> AskToAuthorize<'_> {
    AskToAuthorize {
        client: Some(&client.id),
        redirect: Some(HOME),
        response: Some("code"),
        scope: Some("notes:read"),
        challenge: Some(CHALLENGE),
        challenge_method: Some("S256"),
        ..AskToAuthorize::default()
    }
}

async fn code(world: &World, client: &Client, user: UserId) -> Code {
    let what = world.identity.check_authorize(&ask(client)).await.expect("may be shown");
    world.identity.allow(user, world.clock.now(), &what).await.expect("a code")
}

async fn redeem(world: &World, code: &Code, client: &Client, verifier: &str) -> Result<Tokens, GrantError> {
    world.identity.redeem_code(code, client, Some(HOME), verifier, &[], &from(1)).await
}

on_both! {
    async fn a_code_gives_tokens_once(world: World) {
        let alice = world.user("alice").await;
        let (client, secret) = world.identity.add_client(new_client()).await.expect("a client");
        assert!(secret.is_none());
        let code = code(&world, &client, alice.id).await;
        let tokens = redeem(&world, &code, &client, VERIFIER).await.expect("tokens");
        assert_eq!(tokens.scopes, ["notes:read"]);
        let caller = world.identity.token(tokens.access.text.expose(), &[]).await.expect("valid");
        assert_eq!(caller.client(), Some(client.id.as_str()));
        assert!(caller.is_narrow() && caller.covers("notes:read") && !caller.covers("notes:write"));
        let next = world.identity.refresh(&tokens.refresh, Some(&client.id), false, &TokenRequest::default(), &from(1)).await.expect("refreshed");
        assert!(world.identity.token(next.access.text.expose(), &[]).await.is_ok());

        let again = redeem(&world, &code, &client, VERIFIER).await;
        assert!(matches!(again, Err(GrantError::Replayed { how: Replay::Spent, .. })), "{again:?}");
        assert!(world.identity.token(next.access.text.expose(), &[]).await.is_err(), "what the first use gave is over");
        assert!(world.identity.refresh(&next.refresh, Some(&client.id), false, &TokenRequest::default(), &from(1)).await.is_err());
    }
}

on_both! {
    async fn of_many_uses_at_once_one_gets_tokens(world: World) {
        let alice = world.user("alice").await;
        let (client, _) = world.identity.add_client(new_client()).await.expect("a client");
        let text = code(&world, &client, alice.id).await.reveal();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (identity, client) = (world.identity.clone(), client.clone());
                let code = Code::parse(text.expose()).expect("a code");
                tokio::spawn(async move { identity.redeem_code(&code, &client, Some(HOME), VERIFIER, &[], &from(1)).await.is_ok() })
            })
            .collect();
        let mut good = 0;
        for task in tasks {
            good += u32::from(task.await.expect("no panic"));
        }
        assert_eq!(good, 1);
    }
}

on_both! {
    async fn codes_that_give_nothing(world: World) {
        let alice = world.user("alice").await;
        let (client, _) = world.identity.add_client(new_client()).await.expect("a client");
        let (other, _) = world.identity.add_client(new_client()).await.expect("a client");
        let stranger = Code::generate().expect("a code");
        assert!(redeem(&world, &stranger, &client, VERIFIER).await.is_err());

        let first = code(&world, &client, alice.id).await;
        assert!(redeem(&world, &first, &other, VERIFIER).await.is_err(), "another's client");
        assert!(redeem(&world, &first, &client, VERIFIER).await.is_ok(), "which does not use it up");

        for verifier in ["", "short", &VERIFIER.replace('d', "e"), &"x".repeat(43), CHALLENGE, &format!("{VERIFIER} ")] {
            let one = code(&world, &client, alice.id).await;
            assert_eq!(redeem(&world, &one, &client, verifier).await.err(), Some(GrantError::NotValid(NotValid::Malformed)));
            assert!(redeem(&world, &one, &client, VERIFIER).await.is_err(), "a verifier is guessed once");
        }
        let one = code(&world, &client, alice.id).await;
        let elsewhere = world.identity.redeem_code(&one, &client, Some("https://app.example.com/"), VERIFIER, &[], &from(1)).await;
        assert!(elsewhere.is_err());

        let late = code(&world, &client, alice.id).await;
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(redeem(&world, &late, &client, VERIFIER).await.err(), Some(GrantError::NotValid(NotValid::Expired)));

        let disabled = code(&world, &client, alice.id).await;
        world.identity.edit_user(alice.id, Edit { enabled: Some(false), ..Edit::default() }).await.expect("disabled");
        assert_eq!(redeem(&world, &disabled, &client, VERIFIER).await.err(), Some(GrantError::NotValid(NotValid::Unknown)));
    }
}

on_both! {
    async fn requests_that_go_no_further(world: World) {
        let (client, _) = world.identity.add_client(new_client()).await.expect("a client");
        let (machine, _) = world.identity.add_client(NewClient {
            method: Method::Basic,
            grants: vec![GrantKind::ClientCredentials],
            ..new_client()
        }).await.expect("a client");
        let good = ask(&client);
        let pages = [
            AskToAuthorize { client: None, ..good.clone() },
            AskToAuthorize { client: Some("plc_nobody"), ..good.clone() },
            AskToAuthorize { redirect: Some("https://evil.example"), ..good.clone() },
            AskToAuthorize { redirect: Some("https://app.example.com/callback/"), ..good.clone() },
            AskToAuthorize { redirect: Some("https://app.example.com/callback/..;/x"), ..good.clone() },
            AskToAuthorize { redirect: Some("https://app.example.com/callback?x"), ..good.clone() },
            AskToAuthorize { redirect: Some("HTTPS://app.example.com/callback"), ..good.clone() },
            AskToAuthorize { redirect: Some(""), ..good.clone() },
        ];
        for ask in pages {
            let verdict = world.identity.check_authorize(&ask).await;
            assert!(matches!(verdict, Err(NotAuthorized::Page(_))), "{ask:?} {verdict:?}");
        }
        let backs = [
            (AskToAuthorize { response: Some("token"), ..good.clone() }, "unsupported_response_type"),
            (AskToAuthorize { response: None, ..good.clone() }, "unsupported_response_type"),
            (AskToAuthorize { challenge: None, ..good.clone() }, "invalid_request"),
            (AskToAuthorize { challenge_method: None, ..good.clone() }, "invalid_request"),
            (AskToAuthorize { challenge_method: Some("plain"), ..good.clone() }, "invalid_request"),
            (AskToAuthorize { challenge: Some("short"), ..good.clone() }, "invalid_request"),
            (AskToAuthorize { scope: Some("admin"), ..good.clone() }, "invalid_scope"),
            (AskToAuthorize { scope: Some("notes:read admin"), ..good.clone() }, "invalid_scope"),
            (AskToAuthorize { resources: vec!["https://other.example"], ..good.clone() }, "invalid_target"),
            (AskToAuthorize { client: Some(&machine.id), ..good.clone() }, "unauthorized_client"),
        ];
        for (ask, expected) in backs {
            match world.identity.check_authorize(&ask).await {
                Err(NotAuthorized::Redirect { redirect, error, .. }) => assert_eq!((redirect.as_str(), error), (HOME, expected)),
                other => panic!("{ask:?} {other:?}"),
            }
        }
        let without = AskToAuthorize { redirect: None, scope: None, ..good };
        let what = world.identity.check_authorize(&without).await.expect("the only one, and all scopes");
        assert_eq!((what.redirect.as_str(), what.scopes.len()), (HOME, 2));
    }
}

on_both! {
    async fn consent_is_asked_once_and_can_be_taken_back(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let (client, _) = identity.add_client(new_client()).await.expect("a client");
        let what = identity.check_authorize(&ask(&client)).await.expect("fine");
        assert!(identity.needs_consent(alice.id, &what).await.expect("asked"));
        let tokens = redeem(&world, &code(&world, &client, alice.id).await, &client, VERIFIER).await.expect("tokens");
        assert!(!identity.needs_consent(alice.id, &what).await.expect("asked"));
        let wider = AskToAuthorize { scope: Some("notes:write"), ..ask(&client) };
        let wider = identity.check_authorize(&wider).await.expect("fine");
        assert!(identity.needs_consent(alice.id, &wider).await.expect("asked"), "for more, again");
        let known = identity.consents_of(alice.id).await.expect("a list");
        assert_eq!((known.len(), known[0].scopes.as_slice()), (1, &["notes:read".to_owned()][..]));

        assert!(identity.revoke_consent(alice.id, &client.id).await.expect("revoked"));
        assert!(!identity.revoke_consent(alice.id, &client.id).await.expect("asked"));
        assert!(identity.needs_consent(alice.id, &what).await.expect("asked"));
        assert!(identity.token(tokens.access.text.expose(), &[]).await.is_err());
        assert!(identity.refresh(&tokens.refresh, Some(&client.id), false, &TokenRequest::default(), &from(1)).await.is_err());

        let (own, _) = identity.add_client(NewClient { trusted: true, ..new_client() }).await.expect("a client");
        let what = identity.check_authorize(&ask(&own)).await.expect("fine");
        assert!(!identity.needs_consent(alice.id, &what).await.expect("asked"), "the operator's own");
    }
}

on_both! {
    async fn a_client_proves_who_it_is(world: World) {
        let identity = &world.identity;
        let endpoint = "https://api.example.com/auth/token";
        let (basic, secret) = identity.add_client(NewClient { method: Method::Basic, ..new_client() }).await.expect("a client");
        let secret = secret.expect("a secret");
        let check = async |id: &str, proof: Proof<'_>| identity.authenticate_client(id, proof, endpoint).await.map(|client| client.id.clone());
        assert_eq!(check(&basic.id, Proof::Basic(secret.expose())).await, Ok(basic.id.clone()));
        assert_eq!(check(&basic.id, Proof::Post(secret.expose())).await, Err(NotClient::Method));
        assert_eq!(check(&basic.id, Proof::None).await, Err(NotClient::Method));
        assert_eq!(check(&basic.id, Proof::Basic("plcs_x")).await, Err(NotClient::Proof));
        assert_eq!(check("plc_nobody", Proof::Basic(secret.expose())).await, Err(NotClient::Unknown));
        let (public, _) = identity.add_client(new_client()).await.expect("a client");
        assert_eq!(check(&public.id, Proof::None).await, Ok(public.id.clone()));
        assert_eq!(check(&public.id, Proof::Basic(secret.expose())).await, Err(NotClient::Method));

        let key = SigningKey::generate(Algorithm::Es256).expect("a key");
        let set = serde_json::json!({ "keys": [key.verifying_key().to_jwk().expect("public")] }).to_string();
        let new = NewClient { method: Method::PrivateKey, jwks: Some(set), ..new_client() };
        let (signs, none) = identity.add_client(new).await.expect("a client");
        assert!(none.is_none());
        let assertion = |change: &dyn Fn(&mut Claims)| {
            let mut claims = Claims::new(&signs.id, &signs.id, [endpoint]);
            claims.issued_at = Some(world.clock.now().0 / 1000);
            claims.expires_at = Some(world.clock.now().0 / 1000 + 60);
            claims.id = Some(Uuid::now_v7().to_string());
            change(&mut claims);
            key.sign("JWT", &claims).expect("signed").expose().clone()
        };
        let good = assertion(&|_| {});
        assert_eq!(check(&signs.id, Proof::Assertion(&good)).await, Ok(signs.id.clone()));
        assert_eq!(check(&signs.id, Proof::Assertion(&good)).await, Err(NotClient::Proof), "once");
        let changes: [&dyn Fn(&mut Claims); 7] = [
            &|claims| claims.audience = vec!["https://other.example".into()],
            &|claims| claims.subject = Some("plc_other".into()),
            &|claims| claims.issuer = Some("plc_other".into()),
            &|claims| claims.id = None,
            &|claims| claims.expires_at = Some(1),
            &|claims| claims.expires_at = Some(world.clock.now().0 / 1000 + 7200),
            &|claims| claims.not_before = Some(world.clock.now().0 / 1000 + 600),
        ];
        for change in changes {
            assert_eq!(check(&signs.id, Proof::Assertion(&assertion(change))).await, Err(NotClient::Proof));
        }
        let foreign = SigningKey::generate(Algorithm::Es256).expect("a key");
        let mut claims = Claims::new(&signs.id, &signs.id, [endpoint]);
        claims.expires_at = Some(world.clock.now().0 / 1000 + 60);
        claims.id = Some("x".into());
        let forged = foreign.sign(kind::ID, &claims).expect("signed");
        assert_eq!(check(&signs.id, Proof::Assertion(forged.expose())).await, Err(NotClient::Proof));
    }
}

on_both! {
    async fn a_client_acts_for_itself_until_it_is_revoked(world: World) {
        let alice = world.user("alice").await;
        let identity = &world.identity;
        let grants = vec![GrantKind::ClientCredentials, GrantKind::AuthorizationCode, GrantKind::RefreshToken];
        let new = NewClient { method: Method::Basic, grants, ..new_client() };
        let (client, _) = identity.add_client(new).await.expect("a client");
        let own = identity.client_token(&client, &["notes:read".into()], &[]).expect("a token");
        let caller = identity.token(own.text.expose(), &[]).await.expect("valid");
        assert!(caller.account().is_none() && caller.is_narrow() && caller.covers("notes:read"));
        assert!(identity.token_cached(own.text.expose(), &[]).is_some_and(|known| known.is_ok()));
        let shown = identity.introspect(own.text.expose(), &[]).await.expect("asked").expect("active");
        assert_eq!(shown.claims.subject.as_deref(), Some(client.id.as_str()));
        let foreign = ["https://other.example".to_owned()];
        assert!(identity.introspect(own.text.expose(), &foreign).await.expect("asked").is_none());
        assert!(identity.introspect("nonsense", &[]).await.expect("asked").is_none());

        let tokens = redeem(&world, &code(&world, &client, alice.id).await, &client, VERIFIER).await.expect("tokens");
        let other = world.another().await;
        assert!(other.token(own.text.expose(), &[]).await.is_ok() && other.token(tokens.access.text.expose(), &[]).await.is_ok());
        assert!(identity.revoke_client(&client.id).await.expect("revoked"));
        assert!(!identity.revoke_client(&client.id).await.expect("asked"));
        other.catch_up().await.expect("the feed");
        for instance in [identity, &other] {
            assert!(instance.token(own.text.expose(), &[]).await.is_err());
            assert!(instance.token(tokens.access.text.expose(), &[]).await.is_err());
            assert!(instance.refresh(&tokens.refresh, Some(&client.id), true, &TokenRequest::default(), &from(1)).await.is_err());
            assert!(instance.client(&client.id).await.expect("asked").is_none());
        }
        assert!(identity.list_clients().await.expect("a list").is_empty());
    }
}

on_both! {
    async fn clients_that_are_not_registered(world: World) {
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let private = serde_json::json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "d": "AAAA",
            "x": BASE64URL_NOPAD.encode(&[7; 32]) }] }).to_string();
        drop(key);
        let cases: Vec<NewClient> = vec![
            NewClient { name: " ".into(), ..new_client() },
            NewClient { redirects: vec![], ..new_client() },
            NewClient { redirects: vec!["http://app.example.com/".into()], ..new_client() },
            NewClient { redirects: vec!["javascript:alert(1)".into()], ..new_client() },
            NewClient { scopes: vec!["a b".into()], ..new_client() },
            NewClient { audience: vec!["a b".into()], ..new_client() },
            NewClient { grants: vec![GrantKind::ClientCredentials], ..new_client() },
            NewClient { method: Method::PrivateKey, ..new_client() },
            NewClient { method: Method::PrivateKey, jwks: Some("{}".into()), ..new_client() },
            NewClient { method: Method::PrivateKey, jwks: Some(private), ..new_client() },
        ];
        for new in cases {
            let refused = world.identity.add_client(new.clone()).await;
            assert!(refused.is_err(), "{new:?}");
        }
    }
}

on_both! {
    /// A code is a login that is about to be: it ends with those that are.
    async fn a_code_ends_with_what_it_came_from(world: World) {
        let alice = world.user("alice").await;
        let (client, _) = world.identity.add_client(new_client()).await.expect("a client");
        for how in ["sessions", "consent", "password"] {
            let code = code(&world, &client, alice.id).await;
            world.clock.advance(Duration::from_millis(5));
            match how {
                "sessions" => {
                    world.identity.end_sessions_of(alice.id, None).await.expect("ended");
                }
                "consent" => assert!(world.identity.revoke_consent(alice.id, &client.id).await.expect("revoked")),
                _ => {
                    let checked = world.login("alice").await;
                    let next = "another-horse-battery-43";
                    world.identity.change_password(&checked, next, None, &from(1)).await.expect("changed");
                }
            }
            let late = redeem(&world, &code, &client, VERIFIER).await;
            assert!(matches!(late, Err(GrantError::NotValid(_))), "{how}: {late:?}");
        }
        world.clock.advance(Duration::from_millis(5));
        let code = code(&world, &client, alice.id).await;
        assert!(redeem(&world, &code, &client, VERIFIER).await.is_ok(), "a new one is good");
    }
}

on_both! {
    /// RFC 8707: at `authorize` the resources are named; each token may be for one of them.
    async fn tokens_for_one_of_the_resources(world: World) {
        const API: &str = "https://api.example.com";
        let alice = world.user("alice").await;
        let audience = |token: &Tokens| {
            let payload = token.access.text.expose().split('.').nth(1).map(str::to_owned).unwrap_or_default();
            let claims: serde_json::Value =
                serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).expect("base64url")).expect("JSON");
            claims["aud"].clone()
        };
        // A client that is registered for nobody else names the API, as its metadata does.
        let (client, _) = world.identity.add_client(new_client()).await.expect("a client");
        let named = AskToAuthorize { resources: vec![API], ..ask(&client) };
        assert!(world.identity.check_authorize(&named).await.is_ok());
        let foreign = AskToAuthorize { resources: vec!["https://other.example"], ..ask(&client) };
        assert!(matches!(
            world.identity.check_authorize(&foreign).await,
            Err(NotAuthorized::Redirect { error: "invalid_target", .. })
        ));

        let two = NewClient { audience: vec![API.into(), "https://b.example".into()], ..new_client() };
        let (client, _) = world.identity.add_client(two).await.expect("a client");
        let code = code(&world, &client, alice.id).await;
        let redeem = async |resource: &str| {
            let resources = [resource.to_owned()];
            world.identity.redeem_code(&code, &client, Some(HOME), VERIFIER, &resources, &from(1)).await
        };
        assert_eq!(redeem("https://other.example").await.err(), Some(GrantError::Target));
        let tokens = redeem("https://b.example").await.expect("the code is still good");
        assert_eq!(audience(&tokens), serde_json::json!("https://b.example"));
        let refresh = async |tokens: &Tokens, scope: &str, resource: &str| {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let request = TokenRequest { scopes: words(scope), resources: words(resource) };
            world.identity.refresh(&tokens.refresh, Some(&client.id), false, &request, &from(1)).await
        };
        assert_eq!(refresh(&tokens, "", API).await.err(), Some(GrantError::Target), "the code was used for the other");
        assert_eq!(refresh(&tokens, "notes:write", "").await.err(), Some(GrantError::Scope), "never granted");
        let next = refresh(&tokens, "notes:read", "https://b.example").await.expect("the token is still good");
        assert_eq!(next.scopes, ["notes:read"]);
    }
}
