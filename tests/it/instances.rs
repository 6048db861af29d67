//! Two gateways on one PostgreSQL and one Redis are one product: what is made at one is good at the other, and what ends
//! at one is refused by the other within a second, whatever becomes of Redis meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::client::Request;
use palisade_test::kept::{Kept, Servers};
use palisade_test::palisade::Setup;
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Postgres, Redis, Upstream, eventually};
use serde_json::{Value, json};

use crate::support::{SOON, timed};

const PASSWORD: &str = "vier alte Kutschen im Nebel";
/// What a request may wait for Redis, as the policy says.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// And for the database.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// What everything else may take, of a debug build on a busy machine.
const AIR: Duration = Duration::from_millis(1500);
const SECOND: Duration = Duration::from_secs(1);

/// Two gateways, and what they share.
pub(crate) struct Pair {
    pub(crate) one: Palisade,
    pub(crate) two: Palisade,
    servers: Servers,
    postgres: Postgres,
    _upstream: Upstream,
    folder: tempfile::TempDir,
}

impl Pair {
    /// `secrets`: what stands under `[secrets]` of both; `auth`: under `[auth]` of the second.
    pub(crate) async fn start(secrets: &str, auth: &str) -> Result<Self> {
        let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
        let postgres = Postgres::start().await?;
        let servers = Servers { database: postgres.database().await?, redis: Redis::start().await? };
        let kept = Kept::Shared(Box::new(servers));
        let folder = tempfile::tempdir()?;
        let instance = |auth: &str| instance(&kept, &upstream, folder.path(), secrets, auth).start();
        let (one, two) = (instance("").await?, instance(auth).await?);
        let Kept::Shared(servers) = kept else { unreachable!("it was made so") };
        Ok(Self { one, two, servers: *servers, postgres, _upstream: upstream, folder })
    }

    /// Runs a command as an operator does who has the key of the secrets.
    fn command(&self, arguments: &[&str]) -> Result<()> {
        let mut command = std::process::Command::new(palisade_test::paths::binary()?);
        command.args(arguments).current_dir(self.one.directory());
        command.env("STATE_DIRECTORY", self.one.state());
        command.env("PALISADE_SECRETS_KEY_FILE", self.folder.path().join("secrets.key"));
        palisade_test::shell::fed(&mut command, "").with_context(|| format!("palisade {arguments:?}"))?;
        Ok(())
    }
}

/// One of them: in a directory of its own, with the secrets that both share.
fn instance(kept: &Kept, upstream: &Upstream, folder: &Path, secrets: &str, auth: &str) -> Setup {
    let (file, key) = (folder.join("secrets.age"), folder.join("secrets.key"));
    // A setting of a section that others write as well.
    let setup = Palisade::serve()
        .secrets_key(&key)
        .env("PALISADE__REDIS__TIMEOUT", &format!("\"{}ms\"", REDIS_TIMEOUT.as_millis()))
        .env("PALISADE__DATABASE__TIMEOUT", &format!("\"{}s\"", DATABASE_TIMEOUT.as_secs()));
    let more = format!(
        "[auth]\nissuer = \"https://api.example.com\"\nregistration = \"open\"\n{auth}\n\
         [secrets]\nprovider = \"file:{}\"\n{secrets}\n\
         [rate_limit]\ndefault = \"100000/minute\"\nstore = \"redis\"\nwhen_away = \"local\"\n\
         [[route]]\npath = \"/admin/*\"\nwhen = \"user.name == 'ann'\"\n\
         [[route]]\npath = \"/notes/*\"\nscopes = [\"notes:read\"]\n",
        file.display()
    );
    kept.over(setup, &upstream.url(), &more)
}

/// One of each kind of credential, as headers.
struct Credentials {
    token: (&'static str, String),
    session: (&'static str, String),
    key: (&'static str, String),
    key_id: String,
    /// The session that made the key, and ends it.
    owner: String,
}

async fn log_in(client: &Client) -> Result<String> {
    let body = json!({ "username": "ann", "password": PASSWORD });
    let mut answer = client.post("/auth/login").json(&body).send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    let cookies = answer.all("set-cookie");
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade=")).context("no session")?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

async fn credentials(client: &Client) -> Result<Credentials> {
    let body = format!("grant_type=password&username=ann&password={}", PASSWORD.replace(' ', "+"));
    let tokens = form(client, "/auth/token", &body).await?;
    let (owner, session) = (log_in(client).await?, log_in(client).await?);
    let body = json!({ "name": "ci", "scopes": ["notes:read"], "expires_in": 3600 });
    let mut answer = own(client.post("/auth/keys"), &owner).json(&body).send().await?;
    ensure!(answer.status() == 201, "{}", answer.text().await?);
    let key = answer.json().await?;
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned).context("a text");
    Ok(Credentials {
        token: ("authorization", format!("Bearer {}", text(&tokens, "access_token")?)),
        session: ("cookie", session),
        key: ("x-api-key", text(&key, "key")?),
        key_id: text(&key, "id")?,
        owner,
    })
}

async fn form(client: &Client, target: &str, body: &str) -> Result<Value> {
    let request = client.post(target).header("content-type", "application/x-www-form-urlencoded").body(body.to_owned());
    let mut answer = request.send().await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    let text = answer.text().await?;
    Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
}

/// Asks, and fails where it waited for longer than the policy allows.
async fn status(client: &Client, target: &str, credential: (&str, &str), wait: Duration) -> Result<u16> {
    let start = Instant::now();
    let status = client.get(target).header(credential.0, credential.1).send().await?.status();
    ensure!(start.elapsed() < wait + AIR, "{target} waited {:?}", start.elapsed());
    Ok(status)
}

impl Credentials {
    fn all(&self) -> [(&'static str, &'static str, &str); 3] {
        [
            ("/x", self.token.0, &self.token.1),
            ("/x", self.session.0, &self.session.1),
            ("/notes/1", self.key.0, &self.key.1),
        ]
    }

    /// Ends each at a gateway; how long ago each was acknowledged.
    async fn end(&self, at: &Client) -> Result<[Instant; 3]> {
        let token = self.token.1.trim_start_matches("Bearer ");
        form(at, "/auth/revoke", &format!("token={token}")).await?;
        let first = Instant::now();
        let logout = own(at.post("/auth/logout"), &self.session.1).send().await?;
        ensure!(logout.status() == 204, "{}", logout.status());
        let second = Instant::now();
        let path = format!("/auth/keys/{}", self.key_id);
        let delete = own(at.request(http::Method::DELETE, &path), &self.owner).send().await?;
        ensure!(delete.status() == 204, "{}", delete.status());
        Ok([first, second, Instant::now()])
    }
}

/// As a page of ours asks.
fn own<'a>(request: Request<'a>, cookie: &str) -> Request<'a> {
    request.header("cookie", cookie).header("sec-fetch-site", "same-origin")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Killed,
    Stalled,
    Restarted,
}

#[tokio::test]
async fn what_ends_at_one_is_refused_by_the_other_whatever_redis_does() -> Result<()> {
    let _timed = timed().await;
    let pair = Pair::start("", "").await?;
    let (one, two, redis) = (pair.one.https()?, pair.two.https()?, &pair.servers.redis);
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(one.post("/auth/register").json(&body).send().await?.status(), 201);
    let jwks = async |client: &Client| client.get("/auth/jwks.json").send().await?.json().await;
    assert_eq!(jwks(&one).await?, jwks(&two).await?, "one set of keys");

    let mut ended: Vec<Credentials> = Vec::new();
    for trouble in [Trouble::None, Trouble::Killed, Trouble::Restarted, Trouble::Stalled, Trouble::None] {
        match trouble {
            Trouble::None if !redis.runs() => redis.restart().await?,
            Trouble::None => drop(redis.resume()),
            Trouble::Killed => redis.kill(),
            Trouble::Restarted => redis.restart().await?,
            Trouble::Stalled => redis.pause()?,
        }
        let made = credentials(&one).await?;
        for (target, name, value) in made.all() {
            for (at, client) in [("one", &one), ("two", &two)] {
                let status = status(client, target, (name, value), REDIS_TIMEOUT).await?;
                ensure!(status == 200, "{trouble:?}: {name} at {at}: {status}");
            }
        }
        let moments = made.end(&one).await?;
        for ((target, name, value), acknowledged) in made.all().into_iter().zip(moments) {
            let mut last_good = acknowledged;
            eventually(SOON, &format!("{trouble:?}: {name} is refused by the other"), async || {
                let asked = Instant::now();
                let status = status(&two, target, (name, value), REDIS_TIMEOUT).await;
                if status.as_ref().is_ok_and(|status| *status == 200) {
                    last_good = asked;
                }
                status.is_ok_and(|status| status == 401)
            })
            .await?;
            // News come by the database alone, so Redis has no part in it. Whoever asks a second later is refused, however
            // long counting the request may take before somebody looks who is asking.
            let good = last_good.duration_since(acknowledged);
            ensure!(good < SECOND, "{trouble:?}: {name} was good for {good:?} more");
        }
        ended.push(made);
        // Nothing of before is forgotten.
        for made in &ended {
            for (target, name, value) in made.all() {
                for client in [&one, &two] {
                    assert_eq!(status(client, target, (name, value), REDIS_TIMEOUT).await?, 401, "{trouble:?}: {name}");
                }
            }
        }
    }
    Ok(())
}

/// A role is given at one gateway: whatever a browser sends at once to both goes on under one other secret, and the one
/// before is worth nothing a moment later.
#[tokio::test]
async fn other_rights_are_another_secret_at_both() -> Result<()> {
    let pair = Pair::start("", "").await?;
    let clients = [pair.one.https()?, pair.two.https()?];
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(clients[0].post("/auth/register").json(&body).send().await?.status(), 201);
    let before = log_in(&clients[0]).await?;
    let seen = async |client: &Client, session: &str| {
        let answer = client.get("/x").header("cookie", session).send().await?;
        let cookies = answer.all("set-cookie");
        let next = cookies.iter().find(|cookie| cookie.starts_with("__Host-palisade="));
        anyhow::Ok((answer.status(), next.map(|next| next.split(';').next().unwrap_or_default().to_owned())))
    };
    for client in &clients {
        assert_eq!(seen(client, &before).await?, (200, None));
    }
    pair.command(&["user", "set", "ann", "--role", "admin"])?;
    // The command opens the database itself: both gateways hear of it by the feed.
    let changed = Instant::now();
    let mut next = None;
    eventually(SOON, "another secret", async || {
        next = seen(&clients[1], &before).await.ok().and_then(|(status, next)| next.filter(|_| status == 200));
        next.is_some()
    })
    .await?;
    ensure!(changed.elapsed() < SECOND + AIR, "{:?}", changed.elapsed());
    let next = next.context("another secret")?;
    let at_once = clients.iter().cycle().take(16).map(|client| seen(client, &before));
    for answer in futures_util::future::join_all(at_once).await {
        let (status, again) = answer?;
        ensure!(status == 200 && again.is_none_or(|again| again == next), "{status}");
    }
    for client in &clients {
        assert_eq!(seen(client, &next).await?, (200, None));
    }
    // Ten seconds later the one before is a copy in somebody's hands, and ends the session.
    eventually(SOON, "the secret before is worth nothing", async || {
        seen(&clients[1], &before).await.is_ok_and(|(status, _)| status == 401)
    })
    .await?;
    pair.two.event("auth.session_replayed", |line| line["session"].is_string()).await?;
    for client in &clients {
        let ended = async || seen(client, &next).await.is_ok_and(|(status, _)| status == 401);
        eventually(SECOND + AIR, "the session has ended", ended).await?;
    }
    Ok(())
}

/// While spent tokens and cookies have their grace, what both share holds none that could be used.
#[tokio::test]
async fn what_is_shared_holds_no_usable_credential() -> Result<()> {
    let pair = Pair::start("", "").await?;
    let client = pair.one.https()?;
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(client.post("/auth/register").json(&body).send().await?.status(), 201);
    let made = credentials(&client).await?;
    let body = format!("grant_type=password&username=ann&password={}", PASSWORD.replace(' ', "+"));
    let first = form(&client, "/auth/token", &body).await?;
    let of = |tokens: &Value, name: &str| tokens[name].as_str().map(str::to_owned).context("a token");
    let refresh = format!("grant_type=refresh_token&refresh_token={}", of(&first, "refresh_token")?);
    let second = form(&client, "/auth/token", &refresh).await?;
    pair.command(&["user", "set", "ann", "--role", "admin"])?;
    let mut next = None;
    eventually(SOON, "another secret", async || {
        let answer = client.get("/x").header("cookie", &made.session.1).send().await.ok();
        let cookies = answer.map(|answer| answer.all("set-cookie").iter().map(|line| (*line).to_owned()).collect());
        let cookies: Vec<String> = cookies.unwrap_or_default();
        next = cookies.into_iter().find(|cookie| cookie.starts_with("__Host-palisade="));
        next.is_some()
    })
    .await?;

    let (database, redis) = (&pair.servers.database, &pair.servers.redis);
    // Counters are gone as soon as they have nothing to say.
    ensure!(redis.calls("evalsha").await? > 0 && redis.calls("publish").await? > 0, "it counts and nudges there");
    let dump = pair.servers.dump().await?;
    let cookie = |text: &str| text.split(['=', ';']).nth(1).map(str::to_owned).context("a cookie");
    let key = made.key.1.rsplit('_').next().context("a key")?.to_owned();
    let next = cookie(&next.context("another secret")?)?;
    let texts = [
        ("session", cookie(&made.session.1)?),
        ("next session", next),
        ("spent refresh token", of(&first, "refresh_token")?.trim_start_matches("palr_").to_owned()),
        ("refresh token", of(&second, "refresh_token")?.trim_start_matches("palr_").to_owned()),
        ("access token", of(&second, "access_token")?),
        ("API key", key),
        ("password", PASSWORD.to_owned()),
    ];
    for (what, text) in texts {
        ensure!(!dump.contains(&text), "the text of a {what}");
        // The bytes that it stands for: all of them, or the last 16, which are of the secret and its tag.
        if let Ok(raw) = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()) {
            let hex = data_encoding::HEXLOWER.encode(&raw[raw.len().saturating_sub(16)..]);
            ensure!(!dump.contains(&hex), "the bytes of a {what}");
        }
    }
    let seen = |table: &str, column: &str| {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column}");
        async move { database.sql(&sql).await }
    };
    ensure!(seen("palisade_session", "successor IS NOT NULL").await?.trim() == "1", "the grace was under way");
    ensure!(dump.contains("\\x"), "bytes are written as digits");
    Ok(())
}

/// A database that does not answer: who was seen before goes on, who was not is told so in time, and where rights may have
/// been taken away the policy says what happens.
#[tokio::test]
async fn without_the_database_the_policy_says_what_happens() -> Result<()> {
    let _timed = timed().await;
    let pair = Pair::start("", "when_away = \"open\"").await?;
    let (closed, open) = (pair.one.https()?, pair.two.https()?);
    let body = json!({ "username": "ann", "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(closed.post("/auth/register").json(&body).send().await?.status(), 201);
    let made = credentials(&closed).await?;
    let unseen = credentials(&closed).await?;
    let token = (made.token.0, made.token.1.as_str());
    for client in [&closed, &open] {
        for target in ["/x", "/admin/x"] {
            assert_eq!(status(client, target, token, REDIS_TIMEOUT).await?, 200, "{target}");
        }
    }
    pair.postgres.pause()?;
    // For five seconds what was read last is news enough.
    let sure = async || status(&closed, "/admin/x", token, DATABASE_TIMEOUT).await.is_ok_and(|status| status == 503);
    eventually(SOON, "a right may have been taken away", sure).await?;
    assert_eq!(status(&open, "/admin/x", token, DATABASE_TIMEOUT).await?, 200, "`when_away = \"open\"`");
    for client in [&closed, &open] {
        assert_eq!(status(client, "/x", token, DATABASE_TIMEOUT).await?, 200, "a token that was seen before");
    }
    let unseen = (unseen.session.0, unseen.session.1.as_str());
    assert_eq!(status(&open, "/x", unseen, DATABASE_TIMEOUT).await?, 503, "a session that has to be looked up");
    let said = pair.one.run(&["status", "--json"]).await?.json()?;
    let dependencies = said["dependencies"].as_array().context("dependencies")?;
    let database = dependencies.iter().find(|one| one["dependency"] == "database").context("the database")?;
    assert_eq!((&database["state"], &database["used_by"][0]["when_away"]), (&json!("away"), &json!("closed")));
    pair.postgres.resume()?;
    let back = async || status(&closed, "/admin/x", token, DATABASE_TIMEOUT).await.is_ok_and(|status| status == 200);
    eventually(SOON, "the database is back", back).await?;
    Ok(())
}
