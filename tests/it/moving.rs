//! Moving in, as `docs/src/01-auth/moving-in.md` says it: a FastAPI application with a users table, integer ids and tokens
//! by python-jose; its commands and policies in their order, while clients go on asking. And the way back.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use palisade_test::kept::Kept;
use palisade_test::python::App;
use palisade_test::{Client, Need, Palisade, Process, eventually, need, on_both, paths, provision};
use serde_json::{Value, json};

use crate::support::SOON;

const PAGE: &str = "docs/src/01-auth/moving-in.md";
const KEY: &str = "aa4ecc94847df139d6cbcae5195e0412e92a0603e9a5ecd9b69830f773a2392f";
const USERS: usize = 6;

/// The blocks of the page in a language, in order.
fn blocks(language: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(paths::workspace().join(PAGE))?;
    let (mut blocks, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) if info.split(' ').next() == Some(language) => open = Some(String::new()),
            // A block in another language: its lines are nobody's.
            (Some(info), None) if !info.is_empty() => {}
            (Some(_), _) => blocks.extend(open.take()),
            (None, Some(block)) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    Ok(blocks)
}

/// The application's database, and what its versions read from the environment.
struct Moving {
    folder: tempfile::TempDir,
}

impl Moving {
    async fn new() -> Result<Self> {
        let moving = Self { folder: tempfile::Builder::new().prefix("palisade-moving-").tempdir()? };
        moving.python(&["items.py", "make", &(USERS + 1).to_string()]).await?;
        Ok(moving)
    }

    fn database(&self) -> String {
        self.folder.path().join("app.db").display().to_string()
    }

    async fn python(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(provision::python_program("python"));
        command.args(arguments).current_dir(paths::tests("apps/moving")).env("APP_DATABASE", self.database());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::spawn(command)?;
        let status = process.wait(Duration::from_secs(60)).await?;
        ensure!(status.success(), "{arguments:?}: {}", process.output().tail());
        Ok(())
    }

    /// A version of the application.
    async fn version(&self, name: &str, gateway: Option<&Palisade>) -> Result<App> {
        let mut environment = format!("APP_DATABASE={}\n", self.database());
        // The last version has no key to lose.
        if name != "after" {
            environment += &format!("APP_SECRET_KEY={KEY}\n");
        }
        if let Some(gateway) = gateway {
            let port = gateway.address("https")?.port();
            let issuer = format!("https://localhost:{port}");
            environment += &format!("PALISADE_ISSUER={issuer}\nPALISADE_JWKS={issuer}/auth/jwks.json\n");
            environment += &format!("PALISADE_CA={}\n", gateway.ca()?.display());
        }
        let file = self.folder.path().join(format!("{name}.env"));
        std::fs::write(&file, environment)?;
        App::named("moving", &format!("{name}:app"), &["--env-file", &file.to_string_lossy()]).await
    }

    /// A command of the page, in the gateway's folder.
    async fn page(&self, gateway: &Palisade, line: &str) -> Result<()> {
        let mut path = vec![paths::binary()?.parent().context("a folder")?.to_owned(), provision::venv().join("bin")];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).current_dir(gateway.directory()).env("PATH", std::env::join_paths(path)?);
        shell.env("APP_SECRET_KEY", KEY).env("APP_DATABASE", self.database());
        shell.env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::spawn(shell)?;
        let status = process.wait(Duration::from_secs(60)).await?;
        ensure!(status.success(), "`{line}`: {status}: {}", process.output().tail());
        Ok(())
    }
}

async fn log_in(client: &Client, number: usize) -> Result<String> {
    let body = format!("grant_type=password&username=user{number}&password=correct-horse-{number}");
    let request = client.post("/token").header("content-type", "application/x-www-form-urlencoded").body(body);
    let mut answer = request.send().await?;
    let text = answer.text().await?;
    ensure!(answer.status() == 200, "a login as user{number}: {} {text}", answer.status());
    let token = serde_json::from_str::<Value>(&text)?["access_token"].as_str().context("no token")?.to_owned();
    Ok(format!("Bearer {token}"))
}

/// What one client asks again and again: every answer has to be right.
async fn ask(client: &Client, number: usize, bearer: &str) -> Result<()> {
    let id = 100 + 7 * number;
    let own = format!("/users/{id}/items");
    for (target, expected) in [
        ("/me", json!({ "id": id, "username": format!("user{number}") })),
        (&own, json!({ "for": id, "items": [format!("item of user{number}")] })),
    ] {
        let mut answer = client.get(target).header("authorization", bearer).send().await?;
        let text = answer.text().await?;
        ensure!(answer.status() == 200, "user{number}: {target}: {} {text}", answer.status());
        let said: Value = serde_json::from_str(&text)?;
        ensure!(said == expected, "user{number}: {target}: {said}");
    }
    let open = client.get("/").send().await?;
    ensure!(open.status() == 200, "the open page: {}", open.status());
    Ok(())
}

/// Clients that go on asking until they are told to stop. Of each user one never logs in again, and one does all the time.
struct Load {
    over: Arc<AtomicBool>,
    /// Of each client, how often it has asked everything.
    rounds: Vec<Arc<AtomicU64>>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    async fn start(gateway: &Palisade, lasting: bool) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (mut tasks, mut rounds) = (Vec::new(), Vec::new());
        for number in 0..USERS {
            let client = gateway.https()?;
            let first = log_in(&client, number).await?;
            for again in [false, true].into_iter().filter(|again| *again || lasting) {
                let (client, over, first) = (client.clone(), Arc::clone(&over), first.clone());
                let done = Arc::new(AtomicU64::new(0));
                rounds.push(Arc::clone(&done));
                tasks.push(tokio::spawn(async move {
                    let mut bearer = first;
                    while !over.load(Ordering::Relaxed) {
                        ask(&client, number, &bearer).await?;
                        if again {
                            bearer = log_in(&client, number).await?;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }));
            }
        }
        Ok(Self { over, rounds, tasks })
    }

    /// Returns once every client has had all answers, from now on, three times over; or one was disappointed.
    async fn goes_on(&mut self) -> Result<()> {
        let rounds = &self.rounds;
        let count = || -> Vec<u64> { rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect() };
        let before = count();
        eventually(Duration::from_secs(120), "the clients go on", async || {
            let failed = self.tasks.iter().any(tokio::task::JoinHandle::is_finished);
            let enough = count().iter().zip(&before).all(|(now, before)| *now >= before + 3);
            (failed || enough).then_some(())
        })
        .await?;
        if let Some(place) = self.tasks.iter().position(tokio::task::JoinHandle::is_finished) {
            self.tasks.swap_remove(place).await??;
            bail!("a client ended by itself");
        }
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

/// Clients that ask without a pause are no flood here.
const RATES: &str = "[rate_limit]\ndefault = \"off\"\n\n";

/// The policy of the tests.
fn written_policy(kept: &Kept, url: &str, more: &str) -> String {
    crate::support::written_policy(url, &format!("{RATES}{more}{}", kept.sections()))
}

/// Puts a policy in force.
async fn put(gateway: &Palisade, policy: &str) -> Result<()> {
    let position = gateway.output().position();
    gateway.write_policy(policy)?;
    gateway.event_since(position, "policy.reloaded", |_| true).await.map(drop)
}

on_both!(an_application_moves_in_and_out_and_nobody_notices);

async fn an_application_moves_in_and_out_and_nobody_notices(kept: Kept) -> Result<()> {
    need(Need::PythonGuide)?;
    let policies = blocks("toml")?;
    let commands = blocks("console")?;
    ensure!((policies.len(), commands.len()) == (2, 3), "the page has other steps than this test");
    let lines =
        |block: &str| -> Vec<String> { block.lines().filter_map(|l| l.strip_prefix("$ ")).map(Into::into).collect() };

    let moving = Moving::new().await?;
    let before = moving.version("before", None).await?;
    let policy = crate::support::written_policy(&before.url(), RATES);
    let gateway = kept.named(Palisade::serve(), &policy).start().await?;
    std::fs::copy(paths::tests("apps/moving/items.py"), gateway.directory().join("items.py"))?;
    let mut load = Load::start(&gateway, true).await?;
    load.goes_on().await?;
    let client = gateway.https()?;
    let old = log_in(&client, 1).await?;
    let (revocable, ended) = (log_in(&client, 2).await?, log_in(&client, USERS).await?);

    // 1 and 2: the key is stored, the policy is written, and the application takes both.
    moving.page(&gateway, "printf %s \"$APP_SECRET_KEY\" | palisade secret set old-jwt-key").await?;
    let between = moving.version("between", Some(&gateway)).await?;
    std::fs::write(gateway.directory().join("next.toml"), written_policy(&kept, &between.url(), &policies[0]))?;
    for line in lines(&commands[0]) {
        moving.page(&gateway, &line).await?;
    }
    put(&gateway, &written_policy(&kept, &between.url(), "")).await?;
    load.goes_on().await?;
    drop(before);

    // 3 and 4: the accounts come, and logins are Palisade's.
    if let Kept::Shared(_) = kept {
        moving.page(&gateway, "palisade db migrate --policy next.toml").await?;
    }
    for line in lines(&commands[1]) {
        moving.page(&gateway, &line).await?;
    }
    load.goes_on().await?;
    let position = gateway.output().position();
    for line in lines(&commands[2]) {
        moving.page(&gateway, &line).await?;
    }
    gateway.event_since(position, "policy.reloaded", |_| true).await?;
    load.goes_on().await?;
    let new = log_in(&client, 1).await?;
    ensure!(algorithm(&new)? == "EdDSA" && algorithm(&old)? == "HS256", "two kinds of token");
    // What nobody could say before: another user's items.
    for bearer in [&old, &new] {
        let asked = |target: &'static str| client.get(target).header("authorization", bearer);
        assert_eq!(asked("/users/107/items").send().await?.status(), 200);
        assert_eq!(asked("/users/100/items").send().await?.status(), 403, "somebody else's");
        assert_eq!(asked("/auth/me").send().await?.status(), 200, "an account like any other");
        assert_eq!(asked("/auth/keys").send().await?.status(), 200);
    }

    // 5: the login code goes.
    let after = moving.version("after", Some(&gateway)).await?;
    put(&gateway, &written_policy(&kept, &after.url(), &policies[0])).await?;
    load.goes_on().await?;
    drop(between);
    load.goes_on().await?;

    load.stop().await?;

    // An account that is disabled here has no use of its old token either.
    let disabled = gateway.run(&["user", "disable", &format!("user{USERS}")]).await?;
    ensure!(disabled.code == Some(0), "{disabled:?}");
    eventually(SOON, "the old token of a disabled account is refused", async || {
        let answer = client.get("/me").header("authorization", &ended).send().await.ok()?;
        (answer.status() == 401).then_some(())
    })
    .await?;
    gateway.run(&["user", "enable", &format!("user{USERS}")]).await?;
    // Disabling ended it, as it ends our own; a login is possible again.
    eventually(SOON, "an enabled account logs in", async || log_in(&client, USERS).await.ok()).await?;
    assert_eq!(client.get("/me").header("authorization", &ended).send().await?.status(), 401);
    // Revoked, it stays so.
    assert_eq!(client.get("/me").header("authorization", &revocable).send().await?.status(), 200);
    let body = format!("token={}", revocable.trim_start_matches("Bearer "));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let revoked = client.post("/auth/revoke").header(form.0, form.1).body(body).send().await?;
    assert_eq!(revoked.status(), 200);
    assert_eq!(client.get("/me").header("authorization", &revocable).send().await?.status(), 401);

    // The way back.
    let mut load = Load::start(&gateway, false).await?;
    load.goes_on().await?;
    let between = moving.version("between", Some(&gateway)).await?;
    put(&gateway, &written_policy(&kept, &between.url(), &policies[0])).await?;
    load.goes_on().await?;
    put(&gateway, &written_policy(&kept, &between.url(), &policies[1])).await?;
    load.goes_on().await?;
    ensure!(algorithm(&log_in(&client, 2).await?)? == "HS256", "the application's own tokens again");
    // By now every client has one of them.
    let before = moving.version("before", None).await?;
    put(&gateway, &written_policy(&kept, &between.url(), "")).await?;
    load.goes_on().await?;
    put(&gateway, &written_policy(&kept, &before.url(), "")).await?;
    load.goes_on().await?;
    load.stop().await
}

/// What a token says of its signature.
fn algorithm(bearer: &str) -> Result<String> {
    let header = bearer.trim_start_matches("Bearer ").split('.').next().context("a header")?;
    let header: Value = serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(header.as_bytes())?)?;
    Ok(header["alg"].as_str().context("no `alg`")?.to_owned())
}

/// The secret is looked at when the policy is read.
#[tokio::test]
async fn a_key_that_can_be_guessed_is_no_key() -> Result<()> {
    let policy = written_policy(&Kept::Embedded, "http://127.0.0.1:1", &blocks("toml")?[0])
        + "\n[secrets]\nprovider = \"env\"\n";
    for (key, message) in [
        // The guide's own, as printed there.
        ("your-secret-key-keep-it-secret", "the key is too short"),
        (&"a".repeat(64), "one character, repeated"),
        ("", "one character, repeated"),
    ] {
        let refused = Palisade::serve().policy(&policy).env("PALISADE_SECRET_OLD_JWT_KEY", key).refused().await?;
        ensure!(refused.code == Some(2), "{refused:?}");
        ensure!(refused.err.contains(message) || key.is_empty(), "{}", refused.err);
        ensure!(refused.err.contains("hs256 = { secret"), "the line: {}", refused.err);
        ensure!(key.is_empty() || !refused.err.contains(key), "the secret is printed: {}", refused.err);
    }
    let absent = Palisade::serve().policy(&policy).refused().await?;
    ensure!(absent.code == Some(2) && absent.err.contains("old-jwt-key"), "{absent:?}");
    Ok(())
}
