//! Several instances that count together on a Redis server: what passes is what one limit lets pass, whatever happens to
//! the server meanwhile. Guide section 8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use palisade_test::redis::Options;
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Redis, Relay, Upstream, eventually};
use serde_json::Value;

use crate::support::{SOON, heavy, written_policy};

const INSTANCES: usize = 4;
const CLIENTS: usize = 64;

fn policy(upstream: &Upstream, redis: &str, more: &str) -> String {
    let redis = redis.trim_end_matches('/');
    let text = written_policy(
        &upstream.url(),
        &format!(
            "[redis]\nurl = \"{redis}\"\ntimeout = \"5s\"\n\n[rate_limit]\nstore = \"redis\"\nwhen_away = \"closed\"\n{more}"
        ),
    );
    // So that a test can say where its clients are.
    text.replacen("mode = \"development\"\n", "mode = \"development\"\ntrusted_proxies = [\"127.0.0.1\"]\n", 1)
}

async fn instances(policy: &str) -> Result<Vec<Palisade>> {
    join_all((0..INSTANCES).map(|_| Palisade::serve().policy(policy).start())).await.into_iter().collect()
}

/// What became of a flood.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    passed: usize,
    refused: usize,
    away: usize,
    /// Earliest and latest moments that the server can have counted the first and the last request at.
    first: Option<(Instant, Instant)>,
    last: Option<(Instant, Instant)>,
}

impl Tally {
    fn add(&mut self, status: u16, sent: Instant, answered: Instant) -> Result<()> {
        match status {
            200 => self.passed += 1,
            429 => self.refused += 1,
            503 => self.away += 1,
            other => anyhow::bail!("status {other}"),
        }
        let counted = (sent, answered);
        self.first = Some(self.first.map_or(counted, |(from, to)| (from.min(sent), to.min(answered))));
        self.last = Some(self.last.map_or(counted, |(from, to)| (from.max(sent), to.max(answered))));
        Ok(())
    }

    fn and(self, other: Tally) -> Tally {
        let earlier = |one: (Instant, Instant), other: (Instant, Instant)| (one.0.min(other.0), one.1.min(other.1));
        let later = |one: (Instant, Instant), other: (Instant, Instant)| (one.0.max(other.0), one.1.max(other.1));
        let both = |one: Option<_>, other: Option<_>, pick: fn(_, _) -> _| match (one, other) {
            (Some(one), Some(other)) => Some(pick(one, other)),
            (one, other) => one.or(other),
        };
        Tally {
            passed: self.passed + other.passed,
            refused: self.refused + other.refused,
            away: self.away + other.away,
            first: both(self.first, other.first, earlier),
            last: both(self.last, other.last, later),
        }
    }

    /// How many the model lets pass: N at once, and one more with each interval between the first and the last request.
    fn model(&self, at_once: usize, interval: Duration) -> std::ops::RangeInclusive<usize> {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0..=0 };
        let units = |time: Duration| (time.as_nanos() / interval.as_nanos()) as usize;
        at_once + units(last.0.saturating_duration_since(first.1))..=at_once + units(last.1.duration_since(first.0))
    }
}

/// All clients ask without a pause, spread over the instances, until `done` says so.
async fn flood(
    gateways: &[Palisade],
    target: &str,
    address: impl Fn(usize) -> String,
    done: Arc<AtomicBool>,
) -> Result<Vec<Tally>> {
    let clients = (0..CLIENTS).map(|number| {
        let (gateway, address, done) = (&gateways[number % gateways.len()], address(number), Arc::clone(&done));
        async move {
            let mut tally = Tally::default();
            let mut connection = gateway.http()?.connect().await?;
            while !done.load(Ordering::Relaxed) {
                let sent = Instant::now();
                let mut answer = connection.get(target).header("x-forwarded-for", &address).send().await?;
                answer.drain().await?;
                tally.add(answer.status(), sent, Instant::now())?;
            }
            Ok(tally)
        }
    });
    join_all(clients).await.into_iter().collect()
}

fn end_after(time: Duration) -> Arc<AtomicBool> {
    let done = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&done);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        end.store(true, Ordering::Relaxed);
    });
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_instances_let_pass_what_one_would() -> Result<()> {
    let _machine = heavy().await;
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let redis = Redis::start().await?;
    let more = "default = \"100/minute\"\n[[route]]\npath = \"/day\"\nrate_limit = \"100/day\"\n";
    let gateways = instances(&policy(&upstream, &redis.url(), more)).await?;

    // One client to the limit: 64 connections.
    let one = flood(&gateways, "/", |_| "198.51.100.1".into(), end_after(Duration::from_millis(2100))).await?;
    let one = one.into_iter().fold(Tally::default(), Tally::and);
    let model = one.model(100, Duration::from_millis(600));
    assert!(model.contains(&one.passed) && one.refused > 300 && one.away == 0, "{model:?} {one:?}");

    // The same while the server is told to forget its scripts again and again.
    let done = end_after(Duration::from_millis(2100));
    let flush = async {
        let mut flushed = 0;
        while !done.load(Ordering::Relaxed) {
            redis.command(&["SCRIPT", "FLUSH"]).await?;
            flushed += 1;
        }
        anyhow::Ok(flushed)
    };
    let (flushed, one) = tokio::join!(flush, flood(&gateways, "/", |_| "198.51.100.2".into(), Arc::clone(&done)));
    let one = one?.into_iter().fold(Tally::default(), Tally::and);
    let model = one.model(100, Duration::from_millis(600));
    assert!(model.contains(&one.passed) && one.refused > 300 && one.away == 0, "{model:?} {one:?}");
    ensure!(flushed? > 10 && redis.calls("eval").await? > 10, "the script was not forgotten");

    // 64 clients to the limit, each at one instance after the other.
    let mut passed = vec![0; CLIENTS];
    for turn in 0..INSTANCES {
        let turned: Vec<&Palisade> = (0..INSTANCES).map(|place| &gateways[(place + turn) % INSTANCES]).collect();
        let asked = (0..CLIENTS).map(|number| {
            let gateway = turned[number % INSTANCES];
            async move {
                let mut connection = gateway.http()?.connect().await?;
                let mut passed = 0;
                for _ in 0..30 {
                    let address = format!("203.0.113.{number}");
                    let mut answer = connection.get("/day").header("x-forwarded-for", &address).send().await?;
                    answer.drain().await?;
                    passed += usize::from(answer.status() == 200);
                }
                anyhow::Ok(passed)
            }
        });
        for (number, more) in join_all(asked).await.into_iter().enumerate() {
            passed[number] += more?;
        }
    }
    assert_eq!(passed, vec![100; CLIENTS], "120 requests each");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_no_count() -> Result<()> {
    let _machine = heavy().await;
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let first = Redis::with(Options { password: Some("secret"), ..Options::default() }).await?;
    let second = Redis::with(Options { replica_of: Some(&first), ..Options::default() }).await?;
    // The address that follows the primary.
    let relay = Relay::to(first.port()).await?;
    let policy = policy(&upstream, "unused", "default = \"1500/day\"\n");
    let policy = policy.replace("url = \"unused\"", "url = { secret = \"redis-url\" }");
    let policy = format!("{policy}[secrets]\nprovider = \"env\"\n");
    let url = first.url_at(relay.port());
    let start = |_| Palisade::serve().policy(&policy).env("PALISADE_SECRET_REDIS_URL", &url).start();
    let gateways: Vec<Palisade> = join_all((0..INSTANCES).map(start)).await.into_iter().collect::<Result<_>>()?;

    let done = Arc::new(AtomicBool::new(false));
    let fail_over = async {
        eventually(SOON, "some were counted", async || first.calls("evalsha").await.is_ok_and(|calls| calls > 300))
            .await?;
        let before = first.calls("evalsha").await?;
        first.fail_over_to(&second).await?;
        relay.lead_to(second.port());
        let counted = eventually(Duration::from_secs(60), "the limit is reached", async || {
            second.calls("evalsha").await.is_ok_and(|calls| calls > 2500)
        })
        .await;
        done.store(true, Ordering::Relaxed);
        counted?;
        anyhow::Ok(before)
    };
    let (before, tallies) =
        tokio::join!(fail_over, flood(&gateways, "/", |_| "198.51.100.1".into(), Arc::clone(&done)));
    let tally = tallies?.into_iter().fold(Tally::default(), Tally::and);
    let before = before?;
    assert!(before < 1500, "the limit was reached before the failover: {before}");
    let model = tally.model(1500, Duration::from_millis(57_600));
    assert!(model.contains(&tally.passed) && tally.refused > 0, "{model:?} {tally:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_holds_nobody_up() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let redis = Redis::start().await?;
    let more = "default = \"1000/day\"\n[[route]]\npath = \"/free\"\nrate_limit = \"off\"\n";
    let policy = policy(&upstream, &redis.url(), more)
        .replace("timeout = \"5s\"", "timeout = \"250ms\"")
        .replace("when_away = \"closed\"", "when_away = \"local\"");
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let checked = gateway.run(&["check"]).await?;
    let row = checked.out.lines().find(|line| line.trim_start().starts_with("rate_limit  redis: redis://127.0.0.1:"));
    ensure!(row.is_some_and(|row| row.contains("local: each instance counts for itself")), "{}", checked.out);

    let status = async || -> Result<Value> {
        let ran = gateway.run(&["status", "--json"]).await?;
        Ok(serde_json::from_str::<Value>(&ran.out)?["dependencies"][0].clone())
    };
    let is = async |state: &str| status().await.is_ok_and(|one| one["state"] == state);
    eventually(SOON, "it is seen to be up without a request", async || is("up").await).await?;
    let (http, mut longest) = (gateway.http()?, [Duration::ZERO; 2]);
    for round in 0..3 {
        match round {
            0 => {}
            1 => redis.pause()?,
            _ => redis.kill(),
        }
        let end = Instant::now() + Duration::from_secs(if round == 1 { 5 } else { 1 });
        while Instant::now() < end {
            for (place, target) in ["/free", "/limited"].into_iter().enumerate() {
                let start = Instant::now();
                let answer = http.get(target).header("x-forwarded-for", "198.51.100.1").send().await?;
                longest[place] = longest[place].max(start.elapsed());
                ensure!(answer.status() == 200, "{target}: {}", answer.status());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if round == 1 {
            let seen = status().await?;
            assert_eq!((&seen["state"], &seen["used_by"][0]["when_away"]), (&"away".into(), &"local".into()), "{seen}");
            ensure!(seen["decided_without"].as_u64() > Some(10), "{seen}");
            let shown = gateway.run(&["status"]).await?.out;
            ensure!(shown.contains("AWAY: no answer within 250ms") || shown.contains("AWAY: no connection"), "{shown}");
            redis.resume()?;
            eventually(SOON, "it is seen to be back", async || is("up").await).await?;
        }
    }
    assert!(longest[0] < Duration::from_millis(200), "a route without a limit waited {:?}", longest[0]);
    assert!(longest[1] < Duration::from_millis(700), "a request waited {:?} for 250 ms", longest[1]);
    eventually(SOON, "it is seen to be away", async || is("away").await).await?;
    redis.restart().await?;
    eventually(SOON, "it is seen to be back", async || is("up").await).await?;
    let events = gateway.output().everything()?;
    let count = |event: &str| events.lines().filter(|line| line.contains(event)).count();
    assert_eq!((count("\"dependency.away\""), count("\"dependency.back\"")), (2, 2), "once a change");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_keys_are_counted_on_top_of_the_address() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("ok")).await?;
    let redis = Redis::start().await?;
    let more = "default = \"1000/day\"\n[auth]\nregistration = \"open\"\n\n[[route]]\npath = \"/mine\"\nrate_limit = { limit = \"3/day\", by = \"user\" }\n[[route]]\npath = \"/keys\"\nscopes = [\"x\"]\n";
    let policy = policy(&upstream, &redis.url(), more);
    let gateway = Palisade::serve().policy(&policy).start().await?;
    let client = gateway.https()?;
    let mut bearers = Vec::new();
    for name in ["ada", "bob"] {
        let password = "vier alte Kutschen im Nebel";
        let user =
            serde_json::json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
        let registered = client.post("/auth/register").json(&user).send().await?;
        ensure!(registered.status() == 201, "{}", registered.status());
        let form = format!("grant_type=password&username={name}&password={}", password.replace(' ', "+"));
        let token = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(form);
        let token: Value = token.send().await?.json().await?;
        bearers.push(format!("Bearer {}", token["access_token"].as_str().unwrap_or_default()));
    }
    let mut passed = [0, 0];
    for _ in 0..5 {
        for (place, bearer) in bearers.iter().enumerate() {
            let mut answer = client.get("/mine").header("authorization", bearer).send().await?;
            passed[place] += usize::from(answer.status() == 200);
            if answer.status() != 200 {
                assert_eq!(answer.header("ratelimit"), Some("\"3/day by user\";r=0;t=28800"));
                assert_eq!(answer.json().await?["code"], "rate_limit.exceeded");
            }
        }
    }
    assert_eq!(passed, [3, 3]);
    // What is no credential is nobody's bucket: 100 fresh ones are counted by their address, and end at the login.
    let before: usize = redis.command(&["DBSIZE"]).await?.parse()?;
    for number in 0..100 {
        let made_up = client.get("/mine").header("authorization", &format!("Bearer made.up.{number}"));
        assert_eq!(made_up.send().await?.status(), 401);
    }
    let after: usize = redis.command(&["DBSIZE"]).await?.parse()?;
    assert_eq!(before, after, "no key for a made-up credential");

    // A key's own limit is kept there as well: another instance goes on where this one ended.
    let key = gateway.run(&["key", "create", "--user", "ada", "--scope", "x", "--rate", "4/day", "--json"]).await?;
    let key = key.json()?["key"].as_str().context("a key")?.to_owned();
    let asked = async |client: &Client| -> Result<usize> {
        let mut passed = 0;
        for _ in 0..3 {
            let mut answer = client.get("/keys").header("x-api-key", &key).send().await?;
            passed += usize::from(answer.status() == 200);
            if answer.status() != 200 {
                let stands = answer.header("ratelimit").unwrap_or_default().to_owned();
                ensure!(stands.starts_with("\"4/day of the key\";r=0;t=21"), "{stands}");
                assert_eq!(answer.json().await?["code"], "rate_limit.exceeded");
            }
        }
        Ok(passed)
    };
    assert_eq!(asked(&client).await?, 3);
    gateway.terminate().await?;
    let again = Palisade::serve().after(&gateway).policy(&policy).start().await?;
    assert_eq!(asked(&again.https()?).await?, 1);
    Ok(())
}
