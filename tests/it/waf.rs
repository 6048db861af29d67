//! The WAF with the Core Rule Set of Debian, unchanged, in the real gateway.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::palisade::run_within;
use palisade_test::upstream::Reply;
use palisade_test::{Need, Palisade, Upstream, need, provision, vectors};

use crate::support::written;

/// The tests that may fail, and why; the list may only shrink.
const EXCEPTIONS: &str = include_str!("waf_exceptions.txt");

/// For all tests of the rule set.
const TIME: Duration = Duration::from_secs(180);

fn rules() -> Result<String> {
    need(Need::CoreRuleSet)?;
    Ok(provision::core_rule_set().join("usr/share/modsecurity-crs").display().to_string())
}

#[tokio::test]
async fn regression_tests_of_the_core_rule_set() -> Result<()> {
    let Some(tests) = vectors("crs-tests/3.3") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (rules, tests) = (rules()?, tests.display().to_string());
    let ran = run_within(TIME, folder.path(), &["waf", "crs-test", &tests, "--rules", &rules, "--json"]).await?;
    ensure!(ran.code.is_some_and(|code| code <= 1), "{}", ran.err);
    let report: serde_json::Value = serde_json::from_str(&ran.out)?;
    let (all, passed) = (report["tests"].as_u64().context("tests")?, report["passed"].as_u64().context("passed")?);
    println!("CRS 3.3 through the gateway: {passed} of {all} pass");
    ensure!(all >= 2396, "only {all} tests were found");
    ensure!(passed * 1000 >= all * 990, "{passed} of {all} are fewer than 99.0 %");
    let excused: BTreeSet<(&str, &str)> = EXCEPTIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(test, code)| (test, code.trim()))
        .collect();
    let failed: BTreeSet<(&str, &str)> = report["failed"]
        .as_array()
        .context("failed")?
        .iter()
        .filter_map(|row| Some((row["test"].as_str()?, row["refused"].as_str().unwrap_or("-"))))
        .collect();
    let new: Vec<_> = failed.difference(&excused).collect();
    ensure!(new.is_empty(), "these fail: {new:?}\n{}", report["failed"]);
    let healed: Vec<_> = excused.difference(&failed).collect();
    ensure!(healed.is_empty(), "these pass now, remove them from the list: {healed:?}");
    Ok(())
}

/// Tests in the format of version 4: of a request, of answers that the request or the test asks for, of the log's text, and
/// three that must fail.
const FOUR: &str = r#"---
meta:
  author: "tests"
rule_id: 942100
tests:
  - test_id: 1
    stages:
      - input:
          dest_addr: 127.0.0.1
          headers: { Host: localhost, User-Agent: "OWASP CRS test agent", Accept: "*/*" }
          method: POST
          uri: "/post"
          data: "var=1' or 1=1--"
        output:
          status: 200
          log: { expect_ids: [942100], match_regex: 'msg "SQL Injection Attack Detected' }
  - test_id: 2
    stages:
      - input:
          headers: { Host: localhost, User-Agent: "OWASP CRS test agent", Accept: "*/*", Content-Type: application/json }
          method: POST
          uri: "/reflect"
          data: '{"body": "PostgreSQL query failed: ERROR:  invalid input syntax for integer", "headers": {"X-A": "b"}}'
        output:
          log: { no_expect_ids: [942100] }
          response_contains: "invalid input syntax"
  - test_id: 3
    stages:
      - input:
          headers: { Host: localhost, User-Agent: "OWASP CRS test agent", Accept: "*/*" }
          uri: "/get"
          response:
            status: 500
            headers: { Content-Type: "text/html" }
            encoded_body: "PGI+V2FybmluZzwvYj46ICBteXNxbF9xdWVyeSgp"
        output: { status: 500 }
  - test_id: 4
    stages:
      - input: { headers: { Host: localhost }, uri: "/?a=harmless" }
        output: { log: { no_expect_ids: [942100], no_match_regex: 'id "942' } }
  - test_id: 5
    stages:
      - input: { headers: { Host: localhost }, uri: "/?a=harmless" }
        output: { log: { expect_ids: [942100] } }
  - test_id: 6
    stages:
      - input: { headers: { Host: localhost }, uri: "/?a=harmless" }
        output: { status: 403 }
  - stages:
      - input: { headers: { Host: localhost }, uri: "/?a=1%27%20or%201=1--" }
        output: { log: { expect_ids: [942100] }, isolated: true }
"#;

#[tokio::test]
async fn regression_tests_in_the_format_of_version_4() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tests = folder.path().join("tests");
    std::fs::create_dir_all(&tests)?;
    std::fs::write(tests.join("942100.yaml"), FOUR)?;
    let (rules, tests) = (rules()?, tests.display().to_string());
    let ran = run_within(TIME, folder.path(), &["waf", "crs-test", &tests, "--rules", &rules, "--json"]).await?;
    ensure!(ran.code == Some(1), "{:?} {}", ran.code, ran.err);
    let report: serde_json::Value = serde_json::from_str(&ran.out)?;
    let failed: Vec<&str> =
        report["failed"].as_array().context("failed")?.iter().filter_map(|row| row["test"].as_str()).collect();
    ensure!(report["tests"] == 7 && failed == ["942100-5", "942100-6", "942100-7"], "{report:#}");
    Ok(())
}

#[tokio::test]
async fn a_reload_of_the_rule_set_holds_no_request_up() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("app")).await?;
    let waf = format!("[waf]\nrules = [\"{}\", \"local.conf\"]\nparanoia = 1\n", rules()?);
    let rule = |word: &str| format!("SecRule ARGS \"@streq {word}\" \"id:1,phase:2,deny,status:403,log\"\n");
    let policy = crate::support::written_policy(&upstream.url(), &waf);
    let gateway = Palisade::serve().policy(&policy).file("local.conf", rule("bad")).start().await?;
    let client = gateway.http()?;
    let ask = async |target: &str| anyhow::Ok(client.get(target).header("user-agent", "tests").send().await?.status());
    ensure!(ask("/?q=bad").await? == 403);
    std::fs::write(gateway.directory().join("local.conf"), rule("worse"))?;
    let begin = Instant::now();
    let (mut slowest, mut answered) = (Duration::ZERO, 0u32);
    // Until the new rules are in force, one request after the other; none waits for hundreds of patterns to be compiled.
    let took = loop {
        let sent = Instant::now();
        let status = ask("/?q=worse").await?;
        slowest = slowest.max(sent.elapsed());
        answered += 1;
        if status == 403 {
            break begin.elapsed();
        }
        ensure!(begin.elapsed() < Duration::from_secs(120), "the reload never came");
    };
    println!("{answered} answers in the {took:?} of the reload, the slowest after {slowest:?}");
    ensure!(answered > 20, "only {answered} answers in {took:?}");
    ensure!(slowest < took / 2 || slowest < Duration::from_millis(300), "one waited {slowest:?} of {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_hard_body_holds_no_other_request_up() -> Result<()> {
    let _timed = crate::support::timed().await;
    let upstream = Upstream::answering(|_| Reply::text("app")).await?;
    let waf =
        format!("[waf]\nrules = \"{}\"\nparanoia = 1\nbudget = \"60s\"\n[rate_limit]\ndefault = \"off\"\n", rules()?);
    let gateway = written(&upstream.url(), &waf).await?;
    let (cores, begin) = (std::thread::available_parallelism()?.get(), Instant::now());
    // More of them than may be evaluated at once: the others wait, and whoever costs little goes past.
    let hard = (0..cores * 12).map(|_| {
        let client = gateway.http()?;
        Ok(tokio::spawn(async move {
            let body = serde_json::json!({ "a": "/*".repeat(480 << 10) }).to_string();
            let post = client.post("/").header("user-agent", "tests").header("content-type", "application/json");
            let status = post.body(body).send().await?.status();
            anyhow::Ok((status, begin.elapsed()))
        }))
    });
    let hard: Vec<_> = hard.collect::<Result<_>>()?;
    let (mut slowest, mut answered) = (Duration::ZERO, 0u32);
    while !hard.iter().all(tokio::task::JoinHandle::is_finished) {
        // A connection each, so that every I/O thread has some of them.
        let sent = Instant::now();
        let answer = gateway.http()?.get("/?q=hello").header("user-agent", "tests").send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        slowest = slowest.max(sent.elapsed());
        answered += 1;
    }
    let mut longest = Duration::ZERO;
    for post in hard {
        let (status, took) = post.await??;
        ensure!(matches!(status, 200 | 403), "{status}");
        longest = longest.max(took);
    }
    println!("{answered} answers beside hard bodies that took {longest:?}, the slowest after {slowest:?}");
    ensure!(answered > 20, "only {answered} answers in {longest:?}");
    ensure!(slowest * 4 < longest, "one waited {slowest:?} of {longest:?}");
    Ok(())
}

#[tokio::test]
async fn a_hard_answer_holds_no_other_request_up() -> Result<()> {
    let _timed = crate::support::timed().await;
    let hard = "ab".repeat(256 << 10);
    let upstream = Upstream::answering(move |request| match request.target() {
        "/hard" => Reply::text(&hard),
        _ => Reply::text("app"),
    })
    .await?;
    // No filter spares a rule that asks for what is missing, and the second half never holds.
    let rules: String = (1..=200)
        .map(|id| {
            format!(
                "SecRule RESPONSE_BODY \"!@rx [ab][^ab]{{{id}}}\" \"id:{id},phase:4,deny,chain\"\n\
                 SecRule RESPONSE_STATUS \"@eq 599\" \"\"\n"
            )
        })
        .collect();
    let rules = format!("SecResponseBodyAccess On\nSecResponseBodyMimeType text/plain\n{rules}");
    let waf = "[waf]\nrules = \"answers.conf\"\nbudget = \"60s\"\n[rate_limit]\ndefault = \"off\"\n";
    let policy = crate::support::written_policy(&upstream.url(), waf);
    let gateway = Palisade::serve().policy(&policy).file("answers.conf", rules).start().await?;
    let (cores, begin) = (std::thread::available_parallelism()?.get(), Instant::now());
    let asked = (0..cores * 12).map(|_| {
        let client = gateway.http()?;
        Ok(tokio::spawn(async move {
            let mut answer = client.get("/hard").send().await?;
            let took = begin.elapsed();
            ensure!(answer.status() == 200 && answer.bytes().await?.len() == 512 << 10, "{}", answer.status());
            anyhow::Ok(took)
        }))
    });
    let asked: Vec<_> = asked.collect::<Result<_>>()?;
    let (mut slowest, mut answered) = (Duration::ZERO, 0u32);
    while !asked.iter().all(tokio::task::JoinHandle::is_finished) {
        let sent = Instant::now();
        let answer = gateway.http()?.get("/?q=hello").send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        slowest = slowest.max(sent.elapsed());
        answered += 1;
    }
    let mut longest = Duration::ZERO;
    for hard in asked {
        longest = longest.max(hard.await??);
    }
    println!("{answered} answers beside hard ones that took {longest:?}, the slowest after {slowest:?}");
    ensure!(answered > 20, "only {answered} answers in {longest:?}");
    ensure!(slowest * 4 < longest, "one waited {slowest:?} of {longest:?}");
    Ok(())
}

#[tokio::test]
async fn attacks_end_at_the_gateway_and_are_explained() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("app")).await?;
    let gateway = written(&upstream.url(), &format!("[waf]\nrules = \"{}\"\nparanoia = 1\n", rules()?)).await?;
    for client in [gateway.http()?, gateway.https()?, gateway.https()?.http2()] {
        let query = client.get("/items?q=1%27%20or%201%3D1--%20").header("user-agent", "tests").send().await?;
        assert_eq!(query.status(), 403);
        let json = r#"{"title":"<script>alert(document.cookie)</script>","password":"hunter2"}"#;
        let post = client.post("/items").header("user-agent", "tests").header("content-type", "application/json");
        let refused = post.body(json).send().await?;
        assert_eq!(refused.status(), 403);
        let id = refused.header("x-request-id").context("an id")?.to_owned();
        let is_xss = |line: &serde_json::Value| {
            line["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "attack-xss"))
        };
        let line = gateway.event("waf.match", |line| line["request_id"] == id.as_str() && is_xss(line)).await?;
        assert_eq!(line["target"], "ARGS:json.title");
        assert!(line["score"].as_u64().is_some_and(|score| score >= 5), "{line}");
        let explained = gateway.run(&["explain", &id]).await?.out;
        assert!(explained.contains("field = \"json.title\"") && explained.contains("path = \"/items\""), "{explained}");
        assert!(explained.contains("941100"), "{explained}");
        let good = client.post("/items").header("user-agent", "tests").header("content-type", "application/json");
        assert_eq!(good.body(r#"{"title":"Groceries","done":false}"#).send().await?.status(), 200);
    }
    ensure!(upstream.requests().iter().all(|request| request.text().is_empty() || !request.text().contains("script")));
    Ok(())
}

#[tokio::test]
async fn a_wrong_rule_keeps_the_old_rules_and_a_right_one_comes_into_force() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("app")).await?;
    let rule =
        |word: &str| format!("SecRule ARGS \"@streq {word}\" \"id:1,phase:2,deny,status:403,log,msg:'{word}'\"\n");
    let policy = crate::support::written_policy(&upstream.url(), "[waf]\nrules = [\"local.conf\"]\n");
    let gateway = Palisade::serve().policy(&policy).file("local.conf", rule("bad")).start().await?;
    let file = gateway.directory().join("local.conf");
    let status = async |word: &str| anyhow::Ok(gateway.http()?.get(&format!("/?q={word}")).send().await?.status());
    assert_eq!((status("bad").await?, status("worse").await?), (403, 200));
    std::fs::write(&file, "SecRule ARGZ \"@rx x\" \"id:1,deny\"\n")?;
    let rejected = gateway.event("policy.rejected", |_| true).await?;
    assert!(rejected["problems"].as_str().is_some_and(|text| text.contains("local.conf:1")), "{rejected}");
    assert_eq!(status("bad").await?, 403);
    std::fs::write(&file, rule("worse"))?;
    gateway.event("policy.reloaded", |_| true).await?;
    assert_eq!((status("bad").await?, status("worse").await?), (200, 403));
    let tried = gateway.run(&["waf", "test", "/?q=worse"]).await?;
    assert!(
        tried.code == Some(1) && tried.out.contains("waf.blocked") && tried.out.contains("ARGS:q"),
        "{}",
        tried.out
    );
    assert_eq!(gateway.run(&["waf", "test", "/?q=fine"]).await?.code, Some(0));
    Ok(())
}
