//! `mode`, for every control that has one: as written it refuses, under `--detect` it says what it would have refused, and
//! `palisade set` is the switch between the two. `report` and `explain` name the lines that would allow it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Body, Palisade, Upstream};
use serde_json::Value;

use crate::support::explained;

const POLICY: &str = r#"
[server]
mode = "development"

[headers]
url_tokens = "block"

[limits]
body = "1KiB"

[waf]
rules = "local.conf"

[[route]]
path = "/once"
rate_limit = "1/hour"
"#;

const RULES: &str = "SecRule ARGS \"@streq attack\" \"id:1,phase:2,deny,status:403,log\"\n";

/// A request that one control refuses, and no other one.
struct Offence {
    control: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// How long its body is. Without one it is a GET.
    bytes: u64,
    /// How often it passes before it is one.
    allowed: usize,
    status: u16,
    code: &'static str,
    /// What the lines say that would allow it.
    remedy: &'static str,
}

const OFFENCES: [Offence; 5] = [
    Offence {
        control: "csrf",
        target: "/transfer",
        headers: &[("cookie", "sid=bob"), ("origin", "https://evil.example")],
        bytes: 5,
        allowed: 0,
        status: 403,
        code: "csrf.origin",
        remedy: r#"exempt = ["/transfer"]"#,
    },
    Offence {
        control: "headers",
        target: "/?access_token=abc",
        headers: &[],
        bytes: 0,
        allowed: 0,
        status: 400,
        code: "headers.url_token",
        remedy: r#"url_tokens = "off""#,
    },
    Offence {
        control: "limits",
        target: "/import",
        headers: &[],
        bytes: 3000,
        allowed: 0,
        status: 413,
        code: "limits.body",
        remedy: r#"limits = { body = ""#,
    },
    Offence {
        control: "rate_limit",
        target: "/once",
        headers: &[],
        bytes: 0,
        allowed: 1,
        status: 429,
        code: "rate_limit.exceeded",
        remedy: r#"rate_limit = { mode = "detect" }"#,
    },
    Offence {
        control: "waf",
        target: "/?word=attack",
        headers: &[],
        bytes: 0,
        allowed: 0,
        status: 403,
        code: "waf.blocked",
        remedy: r#"field = "word", rules = ["1"]"#,
    },
];

impl Offence {
    /// Commits it: the status, the code of a refusal, and the request's id.
    async fn commit(&self, gateway: &Palisade) -> Result<(u16, Option<String>, String)> {
        let client = gateway.http()?;
        let mut request = match self.bytes {
            0 => client.get(self.target),
            bytes => client.post(self.target).header("content-type", "text/plain").body(Body::repeated("x", bytes)),
        };
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send().await?;
        let id = answer.header("x-request-id").context("no `X-Request-Id`")?.to_owned();
        let document = serde_json::from_str::<Value>(&answer.text().await?).unwrap_or_default();
        Ok((answer.status(), document["code"].as_str().map(str::to_owned), id))
    }

    /// It is refused, and everybody who asks is told so, and what would allow it.
    async fn is_refused(&self, gateway: &Palisade) -> Result<()> {
        let (status, code, id) = self.commit(gateway).await?;
        assert_eq!((status, code.as_deref()), (self.status, Some(self.code)), "{}", self.control);
        self.is_told(gateway, &id, "block", "refused").await.with_context(|| format!("{}, refused", self.control))
    }

    /// It reaches the application, and everybody who asks is told that it would have been refused.
    async fn passes_watched(&self, gateway: &Palisade) -> Result<()> {
        let (status, code, id) = self.commit(gateway).await?;
        assert_eq!((status, code), (200, None), "{}", self.control);
        self.is_told(gateway, &id, "detect", "would_refuse").await.with_context(|| format!("{}, watched", self.control))
    }

    async fn is_told(&self, gateway: &Palisade, id: &str, mode: &str, outcome: &str) -> Result<()> {
        let security = gateway.event("request.refused", |line| line["request_id"] == id).await?;
        assert_eq!(
            (&security["control"], &security["code"], &security["mode"]),
            (&self.control.into(), &self.code.into(), &mode.into()),
            "{security}"
        );
        let access = gateway.access(|line| line["request_id"] == id).await?;
        assert_eq!((&access["outcome"], &access["code"]), (&outcome.into(), &self.code.into()), "{access}");

        let why = explained(gateway, id).await?;
        let decisions = why["decisions"].as_array().context("no decisions")?;
        ensure!(why["outcome"] == outcome && decisions.len() == 1, "{why:#}");
        let decision = &decisions[0];
        assert_eq!(
            (&decision["control"], &decision["code"], &decision["mode"]),
            (&self.control.into(), &self.code.into(), &mode.into()),
            "{why:#}"
        );
        let people = gateway.run(&["explain", id]).await?;
        ensure!(people.out.contains(self.remedy), "no {:?}: {}", self.remedy, people.out);

        let report = gateway.run(&["report", "--control", self.control, "--json"]).await?.json()?;
        let groups = report["groups"].as_array().context("no groups")?;
        let group = groups.iter().find(|group| group["code"] == self.code && group["mode"] == mode);
        let group = group.with_context(|| format!("no such group: {report:#}"))?;
        ensure!(group["request_ids"].as_array().is_some_and(|ids| ids.contains(&id.into())), "{group:#}");
        let lines = group["remedies"][0]["toml"].as_str().unwrap_or_default();
        ensure!(lines.contains(self.remedy), "no {:?}: {group:#}", self.remedy);
        Ok(())
    }
}

/// The controls that have a `mode`, as the registry knows them: whoever mistypes one is told.
async fn judging(gateway: &Palisade) -> Result<BTreeSet<String>> {
    let said = gateway.run(&["set", "nothing=detect"]).await?.err;
    let names =
        said.split_once("there is no control `nothing`: ").and_then(|(_, rest)| rest.split_once(" can be switched"));
    let (names, _) = names.with_context(|| said.clone())?;
    Ok(names.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[tokio::test]
async fn every_control_that_judges_refuses_or_watches_as_it_is_told() -> Result<()> {
    let app = Upstream::answering(|_| Reply::text("fine")).await?;
    let setup = || Palisade::serve().policy(POLICY).file("local.conf", RULES).upstream(&app.url());
    let (written, watching) = (setup().start().await?, setup().arg("--detect").start().await?);
    let tried = OFFENCES.iter().map(|offence| offence.control.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(tried, judging(&written).await?, "each of them has its offence here");

    for offence in &OFFENCES {
        for gateway in [&written, &watching] {
            for _ in 0..offence.allowed {
                assert_eq!(offence.commit(gateway).await?.0, 200, "{}", offence.control);
            }
        }
        offence.is_refused(&written).await?;
        offence.passes_watched(&watching).await?;
        let switch = format!("{}=detect", offence.control);
        let set = written.run(&["set", &switch, "--for", "1h", "--reason", "a test"]).await?;
        ensure!(set.code == Some(0), "{switch}: {}", set.err);
        for _ in 0..2 {
            offence.passes_watched(&written).await?;
        }
    }
    let report = watching.run(&["report", "--json"]).await?.json()?;
    assert_eq!((&report["refused"], &report["would_refuse"]), (&0.into(), &OFFENCES.len().into()), "{report:#}");
    Ok(())
}

#[tokio::test]
async fn a_demo_watches_as_well() -> Result<()> {
    // More than the demo's 64 KiB, and than its application takes as a note.
    let note = format!("title=t&text={}", "x".repeat(70_000));
    for (setup, status, outcome) in
        [(Palisade::demo(), 413, "refused"), (Palisade::demo().arg("--detect"), 422, "would_refuse")]
    {
        let demo = setup.start().await?;
        let client = demo.http()?;
        let request = client.post("/form").header("content-type", "application/x-www-form-urlencoded");
        let mut answer = request.body(note.clone()).send().await?;
        answer.drain().await?;
        let line = demo.access_of(&answer).await?;
        let said = (answer.status(), &line["outcome"], &line["code"]);
        assert_eq!(said, (status, &outcome.into(), &"limits.body".into()), "{line}");
    }
    Ok(())
}
