//! Two gateways on one PostgreSQL and one Redis are one product: what is made at one is good at the other, and what ends
//! at one is refused by the other within a second, whatever becomes of Redis meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::client::Request;
use palisade_test::palisade::Setup;
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Postgres, Redis, Upstream, eventually};
use serde_json::{Value, json};

use crate::support::{Kept, SOON, Servers, timed};

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
    _folder: tempfile::TempDir,
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
        Ok(Self { one, two, servers: *servers, postgres, _upstream: upstream, _folder: folder })
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
            eventually(SOON, &format!("{trouble:?}: {name} is refused by the other"), async || {
                status(&two, target, (name, value), REDIS_TIMEOUT).await.is_ok_and(|status| status == 401)
            })
            .await?;
            // An answer that is under way while it is revoked counts for neither side.
            let took = acknowledged.elapsed();
            ensure!(took < SECOND + REDIS_TIMEOUT, "{trouble:?}: {name} was good for {took:?} more");
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
