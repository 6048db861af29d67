//! The keys that Palisade makes for itself: they outlive restarts, are replaced without a refused request, and go at once
//! when they were stolen.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use palisade_test::kept::Kept;
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Upstream, eventually, on_both};
use serde_json::{Value, json};

use crate::instances::Pair;
use crate::support::{SOON, written_policy};

const PASSWORD: &str = "vier alte Kutschen im Nebel";
// An issuer, so that it is the same on another port.
const POLICY: &str =
    "[auth]\nissuer = \"https://api.example.com\"\nregistration = \"open\"\n[rate_limit]\ndefault = \"off\"\n";
/// Three take their turn while the load runs.
const QUICK: &str = "lead = \"5s\"\nrotate = \"10s\"";

async fn hello() -> Result<Upstream> {
    Upstream::answering(|_| Reply::text("hello")).await
}

/// A registered user's access and refresh token.
async fn tokens(client: &Client, name: &str) -> Result<Value> {
    let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
    let mut answer = client.post("/auth/register").json(&body).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let body = format!("grant_type=password&username={name}&password={}", PASSWORD.replace(' ', "+"));
    form(client, &body).await
}

async fn form(client: &Client, body: &str) -> Result<Value> {
    let request =
        client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(body.to_owned());
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    answer.json().await
}

fn text<'a>(answer: &'a Value, name: &str) -> Result<&'a str> {
    answer[name].as_str().with_context(|| format!("no `{name}` in {answer}"))
}

async fn status(client: &Client, token: &str) -> Result<u16> {
    Ok(client.get("/x").header("authorization", &format!("Bearer {token}")).send().await?.status())
}

/// The `kid` of a token.
fn key_of(token: &str) -> Result<String> {
    let header = BASE64URL_NOPAD.decode(token.split('.').next().unwrap_or_default().as_bytes())?;
    Ok(text(&serde_json::from_slice(&header)?, "kid")?.to_owned())
}

/// The ids of the JWK set, and for how long it may be kept.
async fn published(client: &Client) -> Result<(BTreeSet<String>, u64)> {
    let mut answer = client.get("/auth/jwks.json").send().await?;
    let kept = answer.header("cache-control").and_then(|value| value.rsplit('=').next()?.parse().ok());
    let kept = kept.context("how long it may be kept")?;
    let keys = answer.json().await?;
    let ids = keys["keys"].as_array().context("keys")?.iter().map(|key| Ok(text(key, "kid")?.to_owned()));
    Ok((ids.collect::<Result<_>>()?, kept))
}

on_both!(keys_outlive_a_restart, a_stolen_key_goes_at_once, passwords_get_a_pepper_and_another_one);

async fn keys_outlive_a_restart(kept: Kept) -> Result<()> {
    let upstream = hello().await?;
    let first = kept.setup(&upstream.url(), POLICY).start().await?;
    let client = first.https()?;
    let made = tokens(&client, "ann").await?;
    let before = published(&client).await?;
    ensure!(before.0.len() == 2, "one for tokens, one for assertions: {before:?}");
    let login = client.post("/auth/login").json(&json!({ "username": "ann", "password": PASSWORD })).send().await?;
    let cookies = login.all("set-cookie");
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade=")).context("no session")?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let csrf = client.get("/auth/csrf").header("cookie", &cookie).send().await?.json().await?;
    let csrf = text(&csrf, "csrf_token")?.to_owned();
    first.terminate().await?;

    let second = Palisade::serve().policy(&policy(&kept, &upstream)).after(&first).start().await?;
    let client = second.https()?;
    assert_eq!(published(&client).await?, before);
    assert_eq!(status(&client, text(&made, "access_token")?).await?, 200);
    // The token of a page that was open all the while: for the application, and for our own endpoints.
    let post = |target: &str, token: &str| client.post(target).header("cookie", &cookie).header("x-csrf-token", token);
    assert_eq!(post("/x", &csrf).send().await?.status(), 200);
    assert_eq!(post("/x", "another").send().await?.status(), 403);
    assert_eq!(post("/auth/logout", "another").send().await?.status(), 403);
    assert_eq!(post("/auth/logout", &csrf).send().await?.status(), 204);
    Ok(())
}

fn policy(kept: &Kept, upstream: &Upstream) -> String {
    format!("{}{}", written_policy(&upstream.url(), POLICY), kept.sections())
}

async fn a_stolen_key_goes_at_once(kept: Kept) -> Result<()> {
    let upstream = hello().await?;
    let gateway = kept.setup(&upstream.url(), POLICY).start().await?;
    let client = gateway.https()?;
    let made = tokens(&client, "ann").await?;
    let old = text(&made, "access_token")?;
    // Its signature is remembered by now.
    assert_eq!(status(&client, old).await?, 200);
    let ran = gateway.run(&["secret", "rotate", "signing-key", "--revoke", "--json"]).await?;
    ensure!(ran.code == Some(0), "{}", ran.err);
    eventually(SOON, "the old key is gone", async || status(&client, old).await.is_ok_and(|status| status == 401))
        .await?;
    let (ids, _) = published(&client).await?;
    ensure!(!ids.contains(&key_of(old)?), "{ids:?}");
    // The login goes on: refresh tokens are signed by nobody.
    let body = format!("grant_type=refresh_token&refresh_token={}", text(&made, "refresh_token")?);
    let new = form(&client, &body).await?;
    assert_eq!(status(&client, text(&new, "access_token")?).await?, 200);
    gateway.event("keys.changed", |_| true).await?;
    Ok(())
}

/// Keys replace each other every ten seconds, by age, while users refresh their tokens at one gateway and use them at both;
/// a reader of the other one's JWKS keeps it as long as it may.
#[tokio::test]
async fn keys_are_replaced_by_age_without_a_refused_request() -> Result<()> {
    let pair = Pair::start(QUICK, "").await?;
    let (client, other) = (pair.one.https()?, pair.two.https()?);
    let (signed_by, done, asked) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false), AtomicU64::new(0));
    let reader = async || -> Result<BTreeSet<String>> {
        let (ids, kept) = published(&other).await?;
        ensure!(kept == 2, "half of `lead`: {kept}");
        Ok(ids)
    };
    let user = async |number: usize| -> Result<()> {
        let mut held = tokens(&client, &format!("user{number}")).await?;
        let mut known = (tokio::time::Instant::now(), reader().await?);
        while !done.load(Ordering::Relaxed) {
            let token = text(&held, "access_token")?.to_owned();
            for (name, at, gateway) in [("one", &client, &pair.one), ("the other", &other, &pair.two)].repeat(3) {
                let status = status(at, &token).await?;
                ensure!(status == 200, "{status} at {name} after {asked:?} requests: {}", gateway.output().tail());
                asked.fetch_add(1, Ordering::Relaxed);
            }
            if known.0.elapsed() > Duration::from_secs(2) {
                known = (tokio::time::Instant::now(), reader().await?);
            }
            let key = key_of(&token)?;
            ensure!(known.1.contains(&key), "`{key}` signs, and a reader who may keep {:?} does not know it", known.1);
            signed_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key);
            held = form(&client, &format!("grant_type=refresh_token&refresh_token={}", text(&held, "refresh_token")?))
                .await?;
        }
        Ok(())
    };
    let end = async {
        let turned = async || signed_by.lock().is_ok_and(|keys| keys.len() >= 3);
        let outcome = eventually(Duration::from_secs(90), "three keys have signed", turned).await;
        done.store(true, Ordering::Relaxed);
        outcome
    };
    let users = futures_util::future::try_join_all((0..4).map(user));
    let (ended, users) = tokio::join!(end, users);
    users?;
    ended?;
    ensure!(asked.load(Ordering::Relaxed) > 100, "{asked:?} requests");
    Ok(())
}

async fn passwords_get_a_pepper_and_another_one(kept: Kept) -> Result<()> {
    let upstream = hello().await?;
    let more = format!("{POLICY}{}", "[secrets]\nlead = \"5s\"\n[password]\npepper = true\n");
    let gateway = kept.setup(&upstream.url(), &more).start().await?;
    let client = gateway.https()?;
    tokens(&client, "ann").await?;
    let ran = gateway.run(&["secret", "rotate", "pepper", "--lead", "0s"]).await?;
    ensure!(ran.code == Some(0), "{}", ran.err);
    gateway.event("keys.changed", |_| true).await?;
    let login = async |name: &str, password: &str| {
        let body = json!({ "username": name, "password": password });
        anyhow::Ok(client.post("/auth/login").json(&body).send().await?.status())
    };
    assert_eq!(login("ann", PASSWORD).await?, 200, "hashed with the old one");
    assert_eq!(login("ann", PASSWORD).await?, 200, "and anew with the new one");
    // One that the command line makes has it too.
    let add = ["user", "add", "bob", "--password-stdin"];
    let added = crate::identity_commands::run(gateway.directory(), &add, PASSWORD, &[])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(login("bob", PASSWORD).await?, 200);
    // Without the pepper nobody can check a password, not even by mistake.
    let ran = gateway.run(&["secret", "rotate", "pepper", "--revoke"]).await?;
    ensure!(ran.code == Some(1) && ran.err.contains("a pepper cannot be revoked"), "{}", ran.err);
    Ok(())
}

/// Before anything is opened that keeps something.
#[tokio::test]
async fn what_keeps_logins_from_their_keys_is_said_at_the_start() -> Result<()> {
    let upstream = hello().await?;
    let policy = written_policy(&upstream.url(), POLICY);
    let secrets = "[secrets]\nprovider = \"env\"\n";
    let missing = Palisade::serve().policy(&format!("{policy}{secrets}")).refused().await?;
    for part in ["signing-key", "PALISADE_SECRET_MAC_KEY", "openssl genpkey -algorithm ed25519", "palisade.toml:"] {
        ensure!(missing.code == Some(2) && missing.err.contains(part), "{part}: {}", missing.err);
    }
    let (cert, key) = ("fullchain.pem", "key.pem");
    let production = policy.replace("mode = \"development\"", "hosts = [\"api.example.com\"]")
        + &format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n");
    let unnamed = Palisade::serve().policy(&production).refused().await?;
    for part in ["PALISADE_SECRETS_KEY_FILE", "palisade secret init", "guide: section 1"] {
        ensure!(unnamed.code == Some(2) && unnamed.err.contains(part), "{part}: {}", unnamed.err);
    }
    Ok(())
}
