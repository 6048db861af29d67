use std::time::Duration;

use super::*;
use crate::control::Mode;
use crate::policy::Situation;
use crate::testing_local::{Answer, App, request};

const ONE: &str = "203.0.113.1";

fn outcome(answer: &Answer) -> (u16, Option<String>) {
    (answer.status, answer.code())
}

async fn passed(app: &App, peer: &str, path: &str, tries: usize) -> usize {
    let mut passed = 0;
    for _ in 0..tries {
        passed += usize::from(app.get(peer, path).await.status == 200);
    }
    passed
}

#[tokio::test]
async fn n_pass_then_one_every_nth_of_the_period() {
    let app = App::start("[rate_limit]\ndefault = \"5/minute\"\n");
    for left in (0..5).rev() {
        let answer = app.get(ONE, "/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy").as_deref(), Some("\"5/minute\";q=5;w=60"));
        assert_eq!(answer.header("ratelimit"), Some(format!("\"5/minute\";r={left};t=12")));
        assert_eq!(answer.header("retry-after"), None);
    }
    let refused = app.get(ONE, "/other").await;
    assert_eq!(outcome(&refused), (429, Some("rate_limit.exceeded".into())));
    assert_eq!(refused.header("retry-after").as_deref(), Some("12"));
    assert_eq!(refused.header("ratelimit").as_deref(), Some("\"5/minute\";r=0;t=12"));
    assert_eq!(refused.header("ratelimit-policy").as_deref(), Some("\"5/minute\";q=5;w=60"));
    assert_eq!(app.get("203.0.113.2", "/").await.status, 200, "another address");
    app.advance(Duration::from_secs(12));
    assert_eq!(passed(&app, ONE, "/", 3).await, 1);
    app.advance(Duration::from_secs(3600));
    assert_eq!(passed(&app, ONE, "/", 20).await, 5);
}

#[tokio::test]
async fn the_default_is_a_thousand_a_minute_and_the_starter_policy_has_none() {
    let app = App::start("");
    assert_eq!(app.get(ONE, "/").await.header("ratelimit").as_deref(), Some("\"1000/minute\";r=999;t=1"));
    for off in ["[rate_limit]\ndefault = \"off\"\n", "[rate_limit]\nmode = \"off\"\n", crate::policy::STARTER] {
        let app = App::start(off);
        assert!(!app.handle.live().controls().contains(&"rate_limit"), "off means absent");
        assert_eq!(app.get(ONE, "/").await.header("ratelimit"), None);
    }
}

#[tokio::test]
async fn a_reload_refills_nothing() {
    let app = App::start("[rate_limit]\ndefault = \"5/hour\"\n[[route]]\npath = \"/x\"\nrate_limit = \"2/hour\"\n");
    assert_eq!((passed(&app, ONE, "/", 9).await, passed(&app, ONE, "/x", 9).await), (5, 2));
    // Also where the route moves, another comes before it, or the number changes.
    app.reload("[rate_limit]\ndefault = \"6/hour\"\n[[route]]\npath = \"/y\"\n[[route]]\npath = \"/x\"\nrate_limit = \"2/hour\"\n");
    assert_eq!((passed(&app, ONE, "/", 9).await, passed(&app, ONE, "/x", 9).await), (0, 0));
    // Also where another limit joins it, and where the period changes: a slower one's debt locks nobody out, and is kept
    // as far as the new period reaches.
    app.reload("[rate_limit]\ndefault = \"100/second;6/hour\"\n");
    assert_eq!(passed(&app, ONE, "/", 5).await, 0);
    app.reload("[rate_limit]\ndefault = \"5/minute\"\n");
    assert_eq!(passed(&app, ONE, "/", 5).await, 0);
    app.advance(Duration::from_secs(12));
    assert_eq!(passed(&app, ONE, "/", 5).await, 1);
    app.advance(Duration::from_secs(60));
    assert_eq!(passed(&app, ONE, "/", 9).await, 5);
}

#[tokio::test]
async fn slowapi_s_spellings_of_a_list() {
    for text in
        ["\"2/minute;5/day\"", "\"2 per minute, 5 per day\"", "\"2/MINUTES|5per1day\"", "[\"2/minute\", \"5/day\"]"]
    {
        let app =
            App::start(&format!("[rate_limit]\ndefault = {text}\n[[route]]\npath = \"/x\"\nrate_limit = {text}\n"));
        for path in ["/", "/x"] {
            let answer = app.get(ONE, path).await;
            let policy = answer.header("ratelimit-policy");
            assert_eq!(policy.as_deref(), Some("\"2/minute\";q=2;w=60, \"5/day\";q=5;w=86400"), "{text}");
            assert_eq!(passed(&app, ONE, path, 9).await, 1, "{text}");
        }
    }
}

#[tokio::test]
async fn the_name_of_a_header_may_be_long() {
    let name = format!("x-{}", "n".repeat(200));
    let app = App::start(&format!(
        "[[route]]\npath = \"/t\"\nrate_limit = {{ limit = \"3/hour\", by = \"header:{name}\" }}\n"
    ));
    let answer = app.ask(ONE, "GET", "/t", &[(&name, "a")]).await;
    assert_eq!(answer.header("ratelimit"), Some(format!("\"3/hour by {name}\";r=2;t=1200")));
}

#[tokio::test]
async fn every_limit_of_a_list_holds_and_a_refusal_costs_nothing() {
    let app = App::start("[[route]]\npath = \"/x\"\nrate_limit = [\"2/minute\", \"5/day\"]\n");
    assert_eq!(passed(&app, ONE, "/x", 50).await, 2);
    assert_eq!(app.get(ONE, "/x").await.header("retry-after").as_deref(), Some("30"));
    app.advance(Duration::from_secs(60));
    // Had the 48 refusals counted, the day's limit would be spent.
    let answer = app.get(ONE, "/x").await;
    assert_eq!((answer.status, answer.header("ratelimit").as_deref()), (200, Some("\"2/minute\";r=1;t=30")));
    assert_eq!(answer.header("ratelimit-policy").as_deref(), Some("\"2/minute\";q=2;w=60, \"5/day\";q=5;w=86400"));
    app.advance(Duration::from_secs(600));
    assert_eq!(passed(&app, ONE, "/x", 9).await, 2);
    app.advance(Duration::from_secs(600));
    assert_eq!(passed(&app, ONE, "/x", 9).await, 0);
    assert_eq!(passed(&app, ONE, "/", 9).await, 9, "the default is another bucket");
}

#[tokio::test]
async fn keys_of_a_client_s_choice_come_on_top_of_the_address() {
    let policy = "[rate_limit]\ndefault = \"20/hour\"\n[[route]]\npath = \"/t\"\nrate_limit = { limit = \"3/hour\", by = \"header:X-Tenant\" }\n";
    let app = App::start(policy);
    let mut results = [0, 0];
    for turn in 0..5 {
        let tenants = [("x-tenant", "a"), ("x-tenant", "b")];
        let answer = app.ask(ONE, "GET", "/t", &tenants[turn % 2..=turn % 2]).await;
        results[turn % 2] += usize::from(answer.status == 200);
    }
    assert_eq!(results, [3, 2]);
    let fourth = app.ask("203.0.113.9", "GET", "/t", &[("x-tenant", "a")]).await;
    assert_eq!(fourth.status, 429, "one tenant from anywhere");
    let mut fresh = 0;
    for number in 0..10_000 {
        fresh += usize::from(app.ask(ONE, "GET", "/t", &[("x-tenant", &format!("t{number}"))]).await.status == 200);
    }
    assert_eq!(fresh, 15, "20 of the address, less the 5 above");
    let twice = app.ask("203.0.113.8", "GET", "/t", &[("x-tenant", "a"), ("x-tenant", "b")]).await;
    assert_eq!(outcome(&twice), (400, Some("rate_limit.key".into())));
    let long = "x".repeat(300);
    assert_eq!(app.ask("203.0.113.8", "GET", "/t", &[("x-tenant", &long)]).await.status, 400);
    assert_eq!(passed(&app, "203.0.113.7", "/t", 9).await, 3, "without the header, by address");
}

#[tokio::test]
async fn ipv6_counts_by_64_and_at_sixteen_times_the_rate_by_48() {
    let app = App::start("[rate_limit]\ndefault = \"3/hour\"\n");
    let mut same = 0;
    for host in 0..10 {
        same += passed(&app, &format!("2001:db8:1:1::{host:x}"), "/", 1).await;
    }
    assert_eq!(same, 3);
    let mut all = same;
    for network in 2..10_000 {
        all += passed(&app, &format!("2001:db8:1:{network:x}::1"), "/", 1).await;
    }
    assert_eq!(all, 48);
    assert_eq!(passed(&app, "2001:db8:2:1::1", "/", 9).await, 3);
    assert_eq!(passed(&app, "::ffff:203.0.113.1", "/", 2).await + passed(&app, ONE, "/", 9).await, 3, "mapped is IPv4");
}

#[tokio::test]
async fn costs_groups_bursts_and_exempt_networks() {
    let app = App::start(
        r#"
[rate_limit]
default = "10/hour"
exempt = ["192.0.2.0/24"]
[[route]]
path = "/dear"
rate_limit = { cost = 4 }
[[route]]
path = "/a"
rate_limit = { limit = "3/hour", group = "ab" }
[[route]]
path = "/b"
rate_limit = { limit = "3/hour", group = "ab" }
[[route]]
path = "/burst"
rate_limit = { limit = "60/hour", burst = 2 }
[[route]]
path = "/free"
rate_limit = "off"
[[route]]
path = "/quiet"
rate_limit = { mode = "off" }
"#,
    );
    assert_eq!(passed(&app, ONE, "/dear", 9).await, 2);
    assert_eq!(passed(&app, ONE, "/", 9).await, 2, "what two dear ones left of ten");
    assert_eq!((passed(&app, ONE, "/a", 2).await, passed(&app, ONE, "/b", 9).await), (2, 1));
    assert_eq!(passed(&app, ONE, "/burst", 9).await, 2);
    app.advance(Duration::from_secs(60));
    assert_eq!(passed(&app, ONE, "/burst", 9).await, 1);
    assert_eq!((passed(&app, ONE, "/free", 50).await, passed(&app, ONE, "/quiet", 50).await), (50, 50));
    assert_eq!(passed(&app, "192.0.2.7", "/", 50).await, 50);
    assert_eq!(app.get("192.0.2.7", "/").await.header("ratelimit"), None);
}

#[tokio::test]
async fn requests_in_flight_are_counted_until_their_answer_ends() {
    let app = App::start("[[route]]\npath = \"/echo\"\nrate_limit = { in_flight = 2 }\n");
    let live = app.handle.live();
    let connection = Arc::new(crate::context::Connection::embedded("203.0.113.1:1".parse().unwrap()));
    let send = |text: &'static str| {
        live.serve(&connection, request("POST", "/echo", &[], text.into()).map(crate::body::RequestBody::axum))
    };
    let (first, second) = (send("a").await, send("b").await);
    let third = send("c").await;
    assert_eq!(third.headers().get("ratelimit").map(|v| v.as_bytes()), Some(&b"\"1000/minute\";r=998;t=1"[..]));
    assert_eq!((first.status().as_u16(), second.status().as_u16(), third.status().as_u16()), (200, 200, 429));
    assert_eq!(third.headers().get("retry-after").map(|v| v.as_bytes()), Some(&b"1"[..]));
    drop(first);
    assert_eq!(send("d").await.status().as_u16(), 200);
    assert_eq!(send("e").await.status().as_u16(), 200);
    drop(second);
    let flights = app.handle.state().get("rate_limit", Flights::default);
    assert_eq!(flights.len(), 0);
}

#[tokio::test]
async fn detect_counts_and_changes_nothing() {
    for (policy, detect) in [
        ("[rate_limit]\nmode = \"detect\"\ndefault = \"2/hour\"\n", false),
        ("[rate_limit]\ndefault = \"2/hour\"\n", true),
    ] {
        let app = App::with(policy, Situation { detect, ..Situation::default() }).unwrap();
        for _ in 0..5 {
            let answer = app.get(ONE, "/").await;
            assert_eq!(answer.status, 200);
            for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
                assert_eq!(answer.header(name), None);
            }
        }
        let live = app.handle.live();
        assert_eq!(live.policy.written_mode(live.policy.controls().rate_limit.id, 0), Mode::Detect);
    }
}

#[tokio::test]
async fn an_unnamed_proxy_is_reported_and_its_clients_are_not_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("security.log");
    let policy =
        format!("[rate_limit]\ndefault = \"3/hour\"\n[log]\naccess = \"off\"\nsecurity = \"{}\"\n", log.display());
    let app = App::start(&policy);
    let from = [("x-forwarded-for", "198.51.100.7")];
    for _ in 0..10 {
        assert_eq!(app.ask("172.18.0.2", "GET", "/", &from).await.status, 200);
    }
    // A stranger's claim changes nothing, and neither does a private peer that claims nothing.
    for (peer, headers) in [(ONE, &from[..]), ("10.0.0.9", &[])] {
        let mut passed = 0;
        for _ in 0..10 {
            passed += usize::from(app.ask(peer, "GET", "/", headers).await.status == 200);
        }
        assert_eq!(passed, 3, "{peer}");
    }
    app.handle.log().flush();
    let text = std::fs::read_to_string(&log).unwrap();
    let reports: Vec<_> = text.lines().filter(|line| line.contains("client_ip.unnamed_proxy")).collect();
    assert_eq!(reports.len(), 1, "{text}");
    let report: serde_json::Value = serde_json::from_str(reports[0]).unwrap();
    assert_eq!(report["add"], "trusted_proxies = [\"172.18.0.2\"]");
}

#[test]
fn mistakes_are_shown() {
    for (policy, said) in [
        ("[rate_limit]\ndefault = \"5/fortnight\"\n", "the period is"),
        ("[rate_limit]\ndefault = []\n", "default"),
        ("[rate_limit]\ndefault = \"5/minute;\"\n", "begins with a whole number"),
        ("[rate_limit]\ndefault = \"1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day\"\n", "eight rates"),
        ("[[route]]\npath = \"/x\"\nrate_limit = { limit = \"5/minute\", cost = 6 }\n", "lower `cost`"),
        ("[[route]]\npath = \"/x\"\nrate_limit = { limit = \"1/year\", burst = 1000 }\n", "hundred years"),
        ("[[route]]\npath = \"/x\"\nrate_limit = { by = \"user\" }\n", "there is no `[auth]`"),
        ("[[route]]\npath = \"/x\"\nrate_limit = { by = \"moon\" }\n", "by"),
        (
            "[[route]]\npath = \"/x\"\nrate_limit = { limit = \"5/minute\", group = \"g\" }\n[[route]]\npath = \"/y\"\nrate_limit = { limit = \"6/minute\", group = \"g\" }\n",
            "different limits",
        ),
    ] {
        let problems = App::problems(policy);
        assert!(problems.contains("error") && problems.contains(said), "{policy}\n{problems}");
    }
}
