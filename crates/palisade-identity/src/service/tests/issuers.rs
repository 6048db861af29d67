//! Tokens that an application made itself before it moved here.

use std::io::Cursor;
use std::sync::Arc;

use palisade_base::{Secret, Timestamp};

use super::*;
use crate::token::{Algorithm, Claims, SigningKey, kind};

const KEY: &[u8] = b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4c";
const UNTIL_S: i64 = 4_000_000_000;

fn new(subject: Subject) -> NewIssuer<'static> {
    NewIssuer {
        name: "old-app",
        issuer: None,
        audience: &[],
        claim: "sub",
        subject,
        demanded: &[],
        until: Timestamp(UNTIL_S * 1000),
    }
}

fn issuer(new: &NewIssuer<'_>) -> Issuer {
    Issuer::hs256(new, KEY).expect("long enough")
}

/// What python-jose makes.
fn token(payload: &str) -> String {
    token_by(KEY, r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

fn token_by(key: &[u8], header: &str, payload: &str) -> String {
    let key = SigningKey::from_private(Algorithm::Hs256, Secret::new(key.to_vec())).expect("a key");
    key.sign_raw(header.as_bytes(), payload.as_bytes())
}

/// Two accounts that came along, and one that was made here.
async fn move_in(world: &World) {
    let csv = "id,username,email,hashed_password\n7,Ann,ann@example.com,\n8,bob,bob@example.com,\n";
    let options =
        ImportOptions { format: Format::Csv, columns: Vec::new(), roles: Vec::new(), superusers: None, dry_run: false };
    let report = world.identity.import_users(Cursor::new(csv), &options, &mut |_| {}).await.expect("imported");
    assert_eq!(report.imported, 2);
    world.user("root").await;
}

fn with(world: &World, issuers: Vec<Issuer>) -> Identity {
    world.identity.with(Settings { issuers: issuers.into(), ..world.identity.settings().clone() })
}

/// Whose a token is: in two ways, and twice from memory, which all have to say the same.
async fn whose(identity: &Identity, text: &str) -> Result<String, NotValid> {
    let verdict = |caller: Result<Caller, NotValid>| {
        caller.map(|caller| {
            let account = caller.account().expect("an account");
            format!("{} {:?} {:?}", account.name, caller.is_narrow(), caller.scopes())
        })
    };
    let asked = match identity.token(text, &[]).await {
        Ok(caller) => Ok(caller),
        Err(Unrecognised::NotValid(why)) => Err(why),
        Err(Unrecognised::Trouble(why)) => panic!("{why}"),
    };
    let asked = verdict(asked);
    for _ in 0..2 {
        match identity.token_cached(text, &[]) {
            Some(cached) => assert_eq!(verdict(cached), asked, "{text}"),
            None => assert_eq!(asked, Err(NotValid::Unknown), "memory knows whom it was asked about: {text}"),
        }
    }
    asked
}

on_both! {
    async fn whose_a_token_is(world: World) {
        use crate::token::Refused;
        move_in(&world).await;
        let by_id = with(&world, vec![issuer(&new(Subject::AppId))]);
        let ann = || Ok("Ann false []".to_owned());
        let exp = UNTIL_S - 1000;
        let claims = |more: &str| format!(r#"{{"sub":"7","exp":{exp}{more}}}"#);
        let refused = |why: Refused| Err(NotValid::Token(why));
        for (payload, expected) in [
            (claims(""), ann()),
            (claims(r#","tenant":"acme","iat":1700000000"#), ann()),
            (claims(r#","type":"access","token_type":"bearer""#), ann()),
            (format!(r#"{{"sub":"9","exp":{exp}}}"#), Err(NotValid::Unknown)),
            (format!(r#"{{"sub":"Ann","exp":{exp}}}"#), Err(NotValid::Unknown)),
            (format!(r#"{{"sub":"07","exp":{exp}}}"#), Err(NotValid::Unknown)),
            (format!(r#"{{"sub":7,"exp":{exp}}}"#), refused(Refused::Claims)),
            (r#"{"sub":"7"}"#.into(), refused(Refused::Missing)),
            (r#"{"sub":"7","exp":1000}"#.into(), refused(Refused::Expired)),
            (format!(r#"{{"exp":{exp}}}"#), refused(Refused::Missing)),
            // What is not expected is somebody else's, or for somebody else.
            (claims(r#","iss":"https://other.example""#), refused(Refused::Issuer)),
            (claims(r#","aud":"fastapi-users:reset""#), refused(Refused::Audience)),
            (claims(r#","type":"refresh""#), refused(Refused::Kind)),
            (claims(r#","token_use":"id""#), refused(Refused::Kind)),
            (claims(r#","nonce":"x""#), refused(Refused::Kind)),
            (claims(r#","nbf":3999999999"#), refused(Refused::NotYet)),
            // A limited token stays one, also where it is limited to nothing.
            (claims(r#","scope":"a b""#), Ok(r#"Ann true ["a", "b"]"#.into())),
            (claims(r#","scopes":["a"]"#), Ok(r#"Ann true ["a"]"#.into())),
            (claims(r#","scopes":[]"#), Ok("Ann true []".into())),
            (claims(r#","scopes":"a""#), refused(Refused::Claims)),
            (claims(r#","scopes":[1]"#), refused(Refused::Claims)),
            (claims(r#","scope":["a"]"#), refused(Refused::Claims)),
        ] {
            assert_eq!(whose(&by_id, &token(&payload)).await, expected, "{payload}");
        }
        // The key and its algorithm are the issuer's, whatever the token says.
        let good = claims("");
        for (header, expected) in [
            (r#"{"alg":"HS256"}"#, ann()),
            (r#"{"alg":"HS256","kid":"any"}"#, ann()),
            (r#"{"alg":"HS256","typ":"at+jwt"}"#, ann()),
            (r#"{"alg":"none"}"#, refused(Refused::Algorithm)),
            (r#"{"alg":"HS512"}"#, refused(Refused::Algorithm)),
            (r#"{"alg":"EdDSA"}"#, refused(Refused::Signature)),
            (r#"{"alg":"HS256","typ":"palisade-assertion+jwt"}"#, refused(Refused::Kind)),
        ] {
            assert_eq!(whose(&by_id, &token_by(KEY, header, &good)).await, expected, "{header}");
        }
        let other_key = token_by(&[b'k'; 32], r#"{"alg":"HS256"}"#, &good);
        assert!(whose(&by_id, &other_key).await.is_err());
        assert!(whose(&world.identity, &token(&good)).await.is_err(), "without the issuer");
        // By name and address, in any spelling of these; never an account that was made here.
        let by_name = with(&world, vec![issuer(&new(Subject::Username))]);
        let by_email = with(&world, vec![issuer(&new(Subject::Email))]);
        for (identity, subject, expected) in [
            (&by_name, "ANN", ann()),
            (&by_name, "root", Err(NotValid::Unknown)),
            (&by_name, "7", Err(NotValid::Unknown)),
            (&by_email, "Ann@Example.com", ann()),
            (&by_email, "ann", Err(NotValid::Unknown)),
        ] {
            let payload = format!(r#"{{"sub":"{subject}","exp":{exp}}}"#);
            assert_eq!(whose(identity, &token(&payload)).await, expected, "{subject}");
        }
        // Another claim, an issuer, an audience, and what tells an access token.
        let audience = ["fastapi-users:auth".to_owned()];
        let demanded = [("type".to_owned(), "user".to_owned())];
        let strict = with(
            &world,
            vec![issuer(&NewIssuer {
                claim: "user_id",
                issuer: Some("https://old.example"),
                audience: &audience,
                demanded: &demanded,
                ..new(Subject::AppId)
            })],
        );
        let say = |id: &str, iss: &str, aud: &str, kind: &str| {
            format!(r#"{{"user_id":{id},"sub":"8","iss":"{iss}","aud":"{aud}","type":"{kind}","exp":{exp}}}"#)
        };
        for (payload, expected) in [
            (say("7", "https://old.example", "fastapi-users:auth", "user"), ann()),
            (say("7.5", "https://old.example", "fastapi-users:auth", "user"), refused(Refused::Missing)),
            (say("7", "https://new.example", "fastapi-users:auth", "user"), refused(Refused::Issuer)),
            (say("7", "https://old.example", "fastapi-users:verify", "user"), refused(Refused::Audience)),
            (say("7", "https://old.example", "fastapi-users:auth", "access"), refused(Refused::Kind)),
            (claims(""), refused(Refused::Issuer)),
        ] {
            assert_eq!(whose(&strict, &token(&payload)).await, expected, "{payload}");
        }
    }
}

on_both! {
    async fn it_ends_with_its_day_its_account_and_its_revocation(world: World) {
        move_in(&world).await;
        let now = world.clock.now().0 / 1000;
        let until = Timestamp((now + 100) * 1000);
        let identity = with(&world, vec![issuer(&NewIssuer { until, ..new(Subject::AppId) })]);
        let undated = |id: u8| token(&format!(r#"{{"sub":"{id}","exp":{}}}"#, now + 10_000));
        let dated = |iat: i64| token(&format!(r#"{{"sub":"7","iat":{iat},"exp":{}}}"#, now + 10_000));
        assert!(whose(&identity, &undated(7)).await.is_ok());
        assert!(whose(&identity, &dated(now)).await.is_ok());

        // A new password ends what is older, and what does not say how old it is.
        let ann = identity.find_user("ann").await.expect("the database").expect("Ann");
        world.clock.advance(Duration::from_secs(10));
        let row = palisade_store::users::by_id(identity.store(), ann.id.0).await.expect("the database").expect("Ann");
        let tx = identity.store().begin().await.expect("begun");
        let changed = palisade_store::users::Model { tokens_from: world.clock.now().0, ..row };
        palisade_store::users::replace(&tx, changed).await.expect("saved");
        tx.announce(palisade_store::changes::New {
            kind: palisade_store::changes::Kind::User,
            subject: ann.id.to_string(),
            at: world.clock.now().0,
            until: world.clock.now().0,
        });
        identity.apply(tx.commit().await.expect("kept"));
        assert_eq!(whose(&identity, &undated(7)).await, Err(NotValid::Revoked));
        assert_eq!(whose(&identity, &dated(now)).await, Err(NotValid::Revoked));
        assert!(whose(&identity, &dated(now + 20)).await.is_ok());
        assert!(whose(&identity, &undated(8)).await.is_ok(), "somebody else's");

        // Revoked, on another instance too.
        let other = world.another().await;
        let other = other.with(Settings { issuers: Arc::clone(&identity.settings().issuers), ..other.settings().clone() });
        assert!(whose(&other, &undated(8)).await.is_ok());
        assert_eq!(identity.revoke_token(&undated(8), Some("a-client")).await, Ok(false), "no client's");
        assert_eq!(identity.revoke_token(&undated(8), None).await, Ok(true));
        assert_eq!(whose(&identity, &undated(8)).await, Err(NotValid::Revoked));
        other.catch_up().await.expect("the feed");
        assert_eq!(whose(&other, &undated(8)).await, Err(NotValid::Revoked));

        // The day.
        let caller = identity.token(&dated(now + 20), &[]).await.expect("good until then");
        assert!(identity.still(&caller).await.is_ok());
        assert_eq!((caller.issuer(), caller.client()), (Some("old-app"), None));
        world.clock.advance(Duration::from_secs(90));
        assert_eq!(whose(&identity, &dated(now + 20)).await, Err(NotValid::Expired));
        assert!(identity.still(&caller).await.is_err(), "an open stream ends too");
    }
}

on_both! {
    /// Threats 22: a token of one sort is none of another.
    async fn neither_key_speaks_for_the_other(world: World) {
        move_in(&world).await;
        let identity = with(&world, vec![issuer(&new(Subject::AppId))]);
        let own = Claims::new("https://api.example.com", "7", ["https://api.example.com"]);
        let key = SigningKey::from_private(Algorithm::Hs256, Secret::new(KEY.to_vec())).expect("a key");
        let forged = key.sign(kind::ACCESS, &Claims { expires_at: Some(UNTIL_S - 1), ..own }).expect("signed");
        assert!(whose(&identity, forged.expose()).await.is_err(), "in our own name, by the old key");
        // The secret of an issuer is gone with the issuer, whatever was remembered.
        let text = token(&format!(r#"{{"sub":"7","exp":{}}}"#, UNTIL_S - 1));
        assert!(whose(&identity, &text).await.is_ok());
        let app_id = new(Subject::AppId);
        let another = with(&world, vec![Issuer::hs256(&app_id, &[b'x'; 32]).expect("a key")]);
        assert!(whose(&another, &text).await.is_err());
        assert_eq!(Issuer::hs256(&app_id, &KEY[..31]).err(), Some(crate::token::BadKey::Short));
        assert!(!format!("{:?}", issuer(&new(Subject::AppId))).contains("09d25"));
    }
}
