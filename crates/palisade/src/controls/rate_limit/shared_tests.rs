//! Against a real server: the script is the in-process table, number for number, and one round trip.

use std::time::{Duration, Instant};

use palisade_base::Rate;
use palisade_test::ca::Authority;
use palisade_test::redis::Options;
use palisade_test::{Redis as Server, eventually};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::gcra::Quota;
use super::shared::{Place, TAKE, decided};
use super::table::{Bucket, Key, Table};
use crate::redis::{Redis, Script, State};
use crate::testing_local::App;

const SECONDS: Duration = Duration::from_secs(20);

fn policy(server: &Server, more: &str) -> String {
    format!(
        "[redis]\nurl = \"{}\"\nprefix = \"test:\"\n[rate_limit]\nstore = \"redis\"\n{more}",
        server.url().trim_end_matches('/')
    )
}

fn client(app: &App) -> Redis {
    app.handle.live().policy.env().redis.clone().expect("the policy names one")
}

/// The script with the time as its last argument instead of the server's.
fn at_a_given_time() -> Script {
    let asked = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]";
    assert!(TAKE.text.contains(asked));
    Script::new(TAKE.text.replace(asked, "local now = tonumber(ARGV[#ARGV])").leak())
}

#[derive(Debug, Clone)]
struct Step {
    pause_micros: u64,
    cost: u32,
    /// Which of the buckets it takes from, as bits.
    from: u8,
    /// Under the second of their quotas: as after a reload.
    other: bool,
}

#[test]
fn the_script_is_the_table_in_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start()).unwrap();
    let redis = {
        let _guard = runtime.enter();
        client(&App::start(&policy(&server, "default = \"5/minute\"\n")))
    };
    let script = at_a_given_time();
    let quota = |(amount, seconds, burst): (u32, u64, u32)| {
        Quota::new(format!("{amount}/{seconds} seconds").parse::<Rate>().unwrap(), burst).unwrap()
    };
    let quotas = || prop::collection::vec((1u32..2_000, 1u64..200, 1u32..60), 6);
    let step = (0u64..3_000_000, 1u32..4, 1u8..8, prop::bool::weighted(0.1))
        .prop_map(|(pause_micros, cost, from, other)| Step { pause_micros, cost, from, other });
    let mut runner = TestRunner::new(Runs { cases: 24, ..Runs::default() });
    let runs = std::cell::Cell::new(0u64);
    let outcome = runner.run(&(quotas(), prop::collection::vec(step, 1..60)), |(quotas, steps)| {
        runs.set(runs.get() + 1);
        let run = runs.get();
        let quotas: Vec<Quota> = quotas.into_iter().map(quota).collect();
        let table = Table::new(Instant::now());
        // Today in microseconds, since that is what stretches the numbers of the script.
        let mut now = 1_800_000_000_000_000u64 + run * 1_000_000_000_000;
        for step in steps {
            now += step.pause_micros;
            let chosen: Vec<usize> = (0..3).filter(|place| step.from & (1 << place) != 0).collect();
            let quota = |place: usize| &quotas[place * 2 + usize::from(step.other)];
            let buckets: Vec<Bucket<'_>> = chosen
                .iter()
                .map(|&place| {
                    let key = Key { limit: run, subject: place as u64 };
                    Bucket { key, neighbours: key, quota: quota(place), limit: place as u8 }
                })
                .collect();
            let places: Vec<Place> = chosen
                .iter()
                .map(|&place| Place {
                    key: format!("test:{run}:{place}").into(),
                    quota: *quota(place),
                    limit: place as u8,
                })
                .collect();
            let (bucket, here) = table.take_all(buckets.iter(), step.cost, now * 1000).unwrap();
            let mut arguments = Vec::new();
            for place in &places {
                for nanos in [place.quota.worth(step.cost), place.quota.tolerance()] {
                    arguments.extend([nanos / 1000, nanos % 1000]);
                }
            }
            arguments.push(now);
            let keys: Vec<&[u8]> = places.iter().map(|place| &*place.key).collect();
            let answer = runtime.block_on(redis.script(&script, &keys, &arguments)).unwrap();
            let (limit, there) = decided(&places, step.cost, &answer).expect("an answer").expect("a limit");
            prop_assert_eq!(
                (bucket.limit, here.store.is_some(), here.left, here.wait),
                (limit, there.store.is_some(), there.left, there.wait)
            );
        }
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn one_round_trip_a_request_also_after_the_script_was_forgotten() {
    let server = Server::with(Options { password: Some("secret"), ..Options::default() }).await.unwrap();
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("redis-url"), server.url()).unwrap();
    let policy = format!(
        "[secrets]\nprovider = \"dir:{}\"\n[redis]\nurl = {{ secret = \"redis-url\" }}\n[rate_limit]\nstore = \"redis\"\ndefault = \"50/day;60/year\"\n[[route]]\npath = \"/t\"\nrate_limit = {{ limit = \"3/day\", by = \"header:X-Tenant\" }}\n",
        secret.path().display()
    );
    let app = App::start(&policy);
    for number in 0..10 {
        let answer = app.get("2001:db8::1", "/").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let left = 49 - number;
        assert_eq!(answer.header("ratelimit"), Some(format!("\"50/day\";r={left};t=1728")));
    }
    assert_eq!((server.calls("evalsha").await.unwrap(), server.calls("eval").await.unwrap()), (10, 1));
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    for tenant in ["a", "a", "b"] {
        assert_eq!(app.ask("2001:db8::1", "GET", "/t", &[("x-tenant", tenant)]).await.status, 200);
    }
    assert_eq!((server.calls("evalsha").await.unwrap(), server.calls("eval").await.unwrap()), (13, 2));

    // Names say nothing of whom they are for, and everything is gone when its bucket is full.
    let keys = server.command(&["KEYS", "*"]).await.unwrap();
    let names: Vec<&str> = keys.lines().collect();
    assert_eq!(names.len(), 2 * 2 + 2, "two limits by /64 and by /48, two tenants: {keys}");
    for name in names {
        assert!(name.starts_with("palisade:rl:") && name.len() == 12 + 22, "{name}");
        let left: i64 = server.command(&["PTTL", name]).await.unwrap().parse().unwrap();
        assert!(left > 0, "{name} expires in {left} ms");
    }
}

#[tokio::test]
async fn instances_count_together_and_a_reload_keeps_everything() {
    let server = Server::start().await.unwrap();
    let text = policy(&server, "default = \"10/day\"\n");
    let instances = [App::start(&text), App::start(&text), App::start(&text)];
    let mut passed = 0;
    for turn in 0..60 {
        passed += usize::from(instances[turn % 3].get("203.0.113.1", "/").await.status == 200);
    }
    assert_eq!(passed, 10);
    let first = client(&instances[0]);
    instances[0].reload(&policy(&server, "default = \"11/day\"\n"));
    assert_eq!(instances[0].get("203.0.113.1", "/").await.status, 429);
    assert_eq!(instances[0].get("203.0.113.2", "/").await.status, 200);
    let refused = instances[1].get("203.0.113.1", "/").await;
    assert_eq!(refused.code().as_deref(), Some("rate_limit.exceeded"));
    assert_eq!(refused.header("retry-after").as_deref(), Some("8640"));
    // The same client over the reload, with the same connections; another one where its section changed.
    assert_eq!(format!("{first:?}"), format!("{:?}", client(&instances[0])));
    assert_eq!(first.connections(), client(&instances[0]).connections());
    let slower = policy(&server, "default = \"11/day\"\n").replace("[redis]\n", "[redis]\ntimeout = \"2s\"\n");
    instances[0].reload(&slower);
    assert_eq!(client(&instances[0]).connections(), 0);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_request() {
    let server = Server::start().await.unwrap();
    let app = App::start(&policy(&server, "when_away = \"closed\"\n"));
    for round in 0..5 {
        assert_eq!(app.get("203.0.113.1", "/").await.status, 200, "{round}");
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
        eventually(SECONDS, "it is seen to be closed", async || client(&app).connections() == 0).await.unwrap();
    }
    assert_eq!(client(&app).health().decided_without(), 0);
}

#[tokio::test]
async fn each_way_to_be_away() {
    for (when_away, here, code) in [("local", 5, None), ("open", 30, None), ("closed", 0, Some("rate_limit.away"))] {
        let server = Server::with(Options { persistent: true, ..Options::default() }).await.unwrap();
        let app = App::start(&policy(&server, &format!("default = \"5/day\"\nwhen_away = \"{when_away}\"\n")));
        assert_eq!(app.get("203.0.113.1", "/").await.status, 200);

        server.pause().unwrap();
        let (mut passed, mut waited, mut last) = (0, Vec::new(), None);
        for _ in 0..30 {
            let start = Instant::now();
            let answer = app.get("203.0.113.1", "/").await;
            waited.push(start.elapsed());
            passed += usize::from(answer.status == 200);
            last = answer.code();
        }
        assert_eq!(passed, here, "{when_away}");
        if let Some(code) = code {
            assert_eq!(last.as_deref(), Some(code));
        }
        // One waits until the deadline, the others are not made to.
        let patient = waited.iter().filter(|waited| **waited > Duration::from_millis(200)).count();
        assert!(patient <= 1 && waited.iter().all(|waited| *waited < Duration::from_secs(1)), "{waited:?}");
        let health = client(&app);
        assert!(matches!(health.health().state().0, State::Away(_)));
        assert_eq!(health.health().decided_without(), 30);

        server.resume().unwrap();
        eventually(SECONDS, "it is asked again", async || {
            app.get("203.0.113.9", "/").await;
            health.connections() > 0
        })
        .await
        .unwrap();
        let mut passed = 0;
        for _ in 0..30 {
            passed += usize::from(app.get("203.0.113.1", "/").await.status == 200);
        }
        assert!(passed <= 4, "{passed}: what was taken before is still taken");

        server.kill();
        let answer = app.get("203.0.113.2", "/").await;
        assert_eq!((answer.status, answer.code().as_deref()), (if code.is_some() { 503 } else { 200 }, code));
        if code.is_some() {
            assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
        }
        server.restart().await.unwrap();
        eventually(SECONDS, "it is there again", async || {
            app.get("203.0.113.9", "/").await;
            health.connections() > 0
        })
        .await
        .unwrap();
        assert_eq!(app.get("203.0.113.1", "/").await.status, 429, "the server has kept it");
    }
}

#[tokio::test]
async fn a_nudge_reaches_every_instance_also_after_the_server_was_away() {
    let server = Server::start().await.unwrap();
    let text = policy(&server, "");
    let (one, two) = (App::start(&text), App::start(&text));
    let woken = std::sync::Arc::new(tokio::sync::Notify::new());
    let wake = std::sync::Arc::clone(&woken);
    let _listener = client(&two).listen("feed", move || wake.notify_one());
    let one = client(&one);
    for round in 0..3 {
        // Once it is subscribed, which is said by a nudge of its own.
        tokio::time::timeout(SECONDS, woken.notified()).await.expect("subscribed");
        for _ in 0..3 {
            one.nudge("other").await.unwrap();
            one.nudge("feed").await.unwrap();
            tokio::time::timeout(SECONDS, woken.notified()).await.expect("nudged");
        }
        if round == 0 {
            server.kill();
            assert!(one.nudge("feed").await.is_err());
            server.restart().await.unwrap();
        } else if round == 1 {
            server.pause().unwrap();
            let start = Instant::now();
            assert!(one.nudge("feed").await.is_err());
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            server.resume().unwrap();
        }
        eventually(SECONDS, "it can be said", async || one.nudge("feed").await.is_ok()).await.unwrap();
    }
}

#[tokio::test]
async fn news_are_carried_to_the_other_instance_also_after_a_reload() {
    let (first, second) = (Server::start().await.unwrap(), Server::start().await.unwrap());
    let apps = [App::start(&policy(&first, "")), App::start("")];
    let said = std::sync::Arc::new(tokio::sync::Notify::new());
    let heard = std::sync::Arc::new(tokio::sync::Notify::new());
    let (to, from) = (std::sync::Arc::clone(&said), std::sync::Arc::clone(&heard));
    let states = apps.each_ref().map(|app| std::sync::Arc::clone(app.handle.state()));
    let [one, other] = states;
    let carried = tokio::spawn(crate::redis::carry(
        one,
        "feed",
        move || {
            let said = std::sync::Arc::clone(&to);
            async move { said.notified().await }
        },
        || {},
    ));
    let listening =
        tokio::spawn(crate::redis::carry(other, "feed", std::future::pending::<()>, move || from.notify_one()));
    // Without a server at first, then on the first, then on the second.
    for server in [&first, &second] {
        for app in &apps {
            app.reload(&policy(server, ""));
        }
        eventually(SECONDS, "both listen", async || {
            server.command(&["PUBSUB", "NUMSUB", "test:feed"]).await.is_ok_and(|said| said.ends_with('2'))
        })
        .await
        .unwrap();
        tokio::time::timeout(SECONDS, heard.notified()).await.expect("subscribed");
        said.notify_one();
        tokio::time::timeout(SECONDS, heard.notified()).await.expect("carried");
    }
    assert!(!carried.is_finished() && !listening.is_finished());
}

#[tokio::test]
async fn tls_is_verified() {
    let (ours, other) = (Authority::new("ours").unwrap(), Authority::new("other").unwrap());
    let identity = ours.server(&["cache.internal", "127.0.0.1"]).unwrap();
    let server = Server::with(Options { tls: Some(&identity), ..Options::default() }).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    for (name, authority) in [("ours.pem", &ours), ("other.pem", &other)] {
        std::fs::write(files.path().join(name), authority.pem()).unwrap();
    }
    let at = |name: &str| format!("ca = \"{}\"\n", files.path().join(name).display());
    let named = |name: &str| format!("{}server_name = \"{name}\"\n", at("ours.pem"));
    for (keys, why) in [
        (at("ours.pem"), None),
        (named("cache.internal"), None),
        (named("elsewhere.internal"), Some("not valid for name")),
        (at("other.pem"), Some("UnknownIssuer")),
        // The system's authorities know nothing of it.
        (String::new(), Some("UnknownIssuer")),
    ] {
        let text = policy(&server, "when_away = \"closed\"\n");
        let app = App::start(&text.replace("prefix", &format!("{keys}prefix")));
        let status = app.get("203.0.113.1", "/").await.status;
        let state = client(&app).health().state().0;
        match (why, &state) {
            (None, State::Up) => assert_eq!(status, 200, "{keys}"),
            (Some(why), State::Away(away)) => {
                assert!(status == 503 && away.why().contains(why), "{keys}: {status} {}", away.why());
            }
            _ => panic!("{keys}: {status} {state:?}"),
        }
    }
    // In the clear nobody answers there.
    let clear = policy(&server, "when_away = \"closed\"\n").replace("rediss://", "redis://");
    assert_eq!(App::start(&clear).get("203.0.113.1", "/").await.status, 503);
}

#[test]
fn mistakes_are_shown() {
    let url = "url = \"redis://127.0.0.1:6379\"";
    for (policy, said) in [
        ("[rate_limit]\nstore = \"redis\"\n".to_owned(), "no server that instances could share"),
        ("[redis]\ntimeout = \"1s\"\n".to_owned(), "says not where it is"),
        (format!("[redis]\n{url}\ntimeout = \"0s\"\n"), "no answer comes in no time"),
        (format!("[redis]\n{url}\nca = \"ca.pem\"\n"), "not reached over TLS"),
        ("[redis]\nurl = \"redis://:hunter2@host\"\n".to_owned(), "does not belong into the policy"),
        ("[redis]\nurl = { secret = \"no-such-secret\" }\n".to_owned(), "no-such-secret"),
        ("[redis]\nurl = \"http://host\"\n".to_owned(), "begins with"),
        (format!("[redis]\n{url}\n[rate_limit]\nwhen_away = \"panic\"\n"), "when_away"),
    ] {
        let problems = App::problems(&policy);
        assert!(problems.contains("error") && problems.contains(said), "{policy}\n{problems}");
    }
    let fine = App::problems(&format!("[redis]\n{url}\n[rate_limit]\nstore = \"redis\"\nwhen_away = \"closed\"\n"));
    assert!(!fine.contains("error"), "{fine}");
}
