//! How a person operates a running gateway: status, explain, report, set, init.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_test::upstream::Reply;
use palisade_test::{Answer, Body, Palisade, Upstream, eventually};

use crate::support::explained;

const POLICY: &str = r#"
[server]
mode = "development"

[limits]
body = "8KiB"

[[route]]
path = "/small/*"
limits = { body = "1KiB" }
"#;

fn id(answer: &Answer) -> Result<String> {
    Ok(answer.header("x-request-id").context("no `X-Request-Id`")?.to_owned())
}

async fn app() -> Result<Upstream> {
    Upstream::answering(|_| Reply::text("fine")).await
}

async fn send(palisade: &Palisade, target: &str, bytes: u64) -> Result<(u16, String)> {
    let mut answer = palisade.http()?.post(target).body(Body::repeated("x", bytes)).send().await?;
    answer.drain().await?;
    Ok((answer.status(), id(&answer)?))
}

#[tokio::test]
async fn any_request_is_explained_and_the_proposed_line_allows_it() -> Result<()> {
    let app = app().await?;
    let palisade = Palisade::serve().policy(POLICY).upstream(&app.url()).start().await?;

    let (status, passed) = send(&palisade, "/small/1", 10).await?;
    assert_eq!(status, 200);
    let why = explained(&palisade, &passed).await?;
    assert_eq!((&why["outcome"], &why["status"], &why["route"]), (&"passed".into(), &200.into(), &"/small/*".into()));
    assert_eq!(why["policy"], "palisade.toml:8");

    let (status, refused) = send(&palisade, "/small/1", 3000).await?;
    assert_eq!(status, 413);
    let why = explained(&palisade, &refused).await?;
    assert_eq!(
        (&why["outcome"], &why["method"], &why["path"]),
        (&"refused".into(), &"POST".into(), &"/small/1".into())
    );
    let decision = &why["decisions"][0];
    assert_eq!((&decision["control"], &decision["code"]), (&"limits".into(), &"limits.body".into()));
    assert_eq!(decision["remedy"]["place"], "palisade.toml:8");
    let line = decision["remedy"]["toml"].as_str().context("no lines")?;
    let people = palisade.run(&["explain", &refused]).await?;
    assert!(people.out.contains(line) && people.out.contains("palisade.toml:8"), "{}", people.out);

    // The line is put where it says; then exactly this request passes.
    palisade.write_policy(&POLICY.replace("limits = { body = \"1KiB\" }", line))?;
    palisade.reload()?;
    let passes = async || send(&palisade, "/small/1", 3000).await.is_ok_and(|(status, _)| status == 200);
    eventually(Duration::from_secs(10), "the request passes", passes).await?;
    assert_eq!(explained(&palisade, &refused).await?["policy_in_force"], false);

    // A head that is refused before it is a request has an id too.
    let answer = palisade.wire_http().await?.ask("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n").await?;
    assert_eq!(answer.status(), 400);
    let framed = answer.header("x-request-id").context("no `X-Request-Id`")?;
    let why = explained(&palisade, framed).await?;
    assert_eq!(why["decisions"][0]["code"], "integrity.framing");
    assert_eq!(why["decisions"][0]["remedy"]["kind"], "elsewhere");

    let unknown = palisade.run(&["explain", "0123456789abcdefghjkmnpqrs"]).await?;
    assert_eq!(unknown.code, Some(1), "{}", unknown.out);
    Ok(())
}

#[tokio::test]
async fn a_route_is_proposed_where_none_stands_and_changes_no_other_method() -> Result<()> {
    let app = app().await?;
    let palisade = Palisade::serve().policy(POLICY).upstream(&app.url()).start().await?;
    let (status, refused) = send(&palisade, "/import", 20_000).await?;
    assert_eq!(status, 413);
    let report = palisade.run(&["report", "--control", "limits", "--json"]).await?.json()?;
    let group = &report["groups"][0];
    assert_eq!((&group["count"], &group["mode"], &group["route"]), (&1.into(), &"block".into(), &"default".into()));
    assert_eq!(group["request_ids"][0], refused.as_str());
    assert_eq!(group["clients"][0], "127.0.0.1");
    let lines = group["remedies"][0]["toml"].as_str().context("no lines")?;
    palisade.write_policy(&format!("{POLICY}\n{lines}\n"))?;
    palisade.reload()?;
    let passes = async || send(&palisade, "/import", 20_000).await.is_ok_and(|(status, _)| status == 200);
    eventually(Duration::from_secs(10), "the request passes", passes).await?;
    assert_eq!(palisade.http()?.get("/import").send().await?.status(), 200);
    assert_eq!(send(&palisade, "/else", 20_000).await?.0, 413);
    Ok(())
}

#[tokio::test]
async fn a_switch_holds_at_once_is_seen_and_survives_a_restart() -> Result<()> {
    let app = app().await?;
    let palisade = Palisade::serve().policy(POLICY).upstream(&app.url()).start().await?;
    assert_eq!(send(&palisade, "/small/1", 3000).await?.0, 413);

    // The file is broken at this moment: the switch does not depend on it.
    palisade.write_policy("[sever]\n")?;
    let set = ["set", "limits=detect", "--route", "/small/*", "--for", "1h", "--reason", "the import", "--json"];
    let set = palisade.run(&set).await?.json()?;
    assert_eq!(
        (&set["control"], &set["mode"], &set["reason"]),
        (&"limits".into(), &"detect".into(), &"the import".into())
    );
    let (status, would) = send(&palisade, "/small/1", 3000).await?;
    assert_eq!(status, 200);
    assert_eq!(send(&palisade, "/else", 20_000).await?.0, 413, "other routes are as before");
    palisade.write_policy(POLICY)?;

    assert_eq!(explained(&palisade, &would).await?["outcome"], "would_refuse");
    palisade.event("policy.switched", |line| line["control"] == "limits" && line["reason"] == "the import").await?;
    palisade.event("request.refused", |line| line["mode"] == "detect" && line["request_id"] == would.as_str()).await?;
    let status = palisade.run(&["status", "--json"]).await?.json()?;
    assert_eq!(status["overrides"][0]["route"], "/small/*");
    assert_eq!(status["ready"], true);
    assert_eq!(status["upstream"]["reachable"], true);
    assert_eq!(status["certificates"][0]["names"][0], "localhost");
    assert!(status["listeners"].as_array().is_some_and(|all| all.len() >= 2), "{status}");
    let people = palisade.run(&["status"]).await?;
    assert!(people.out.contains("the import") && people.out.contains("palisade.toml"), "{}", people.out);

    assert!(palisade.terminate().await?.success());
    assert_eq!(palisade.run(&["status"]).await?.code, Some(1), "nobody is there");
    let again = Palisade::serve().upstream(&app.url()).after(&palisade).start().await?;
    assert_eq!(send(&again, "/small/1", 3000).await?.0, 200);
    let cleared = again.run(&["set", "limits", "--clear"]).await?;
    assert_eq!(cleared.code, Some(0), "{}", cleared.err);
    assert_eq!(send(&again, "/small/1", 3000).await?.0, 413);
    assert_eq!(again.run(&["set", "--list", "--json"]).await?.json()?, serde_json::json!([]));
    Ok(())
}

#[tokio::test]
async fn what_always_enforces_cannot_be_switched() -> Result<()> {
    let palisade = Palisade::serve().policy(POLICY).start().await?;
    for (what, said) in [
        (&["set", "integrity=off", "--for", "1h", "--reason", "x"][..], "`integrity` always enforces"),
        (&["set", "hosts=detect", "--for", "1h", "--reason", "x"], "`hosts` always enforces"),
        (&["set", "limts=off", "--for", "1h", "--reason", "x"], "there is no control `limts`"),
        (&["set", "limits=off", "--for", "31d", "--reason", "x"], "30 days"),
        (&["set", "limits=off", "--for", "1h", "--reason", " "], "--reason"),
        (&["set", "limits=off", "--for", "1h"], "--reason"),
        (&["set", "limits", "--clear"], "no switch of `limits`"),
    ] {
        let ran = palisade.run(what).await?;
        assert_eq!(ran.code, Some(2), "{what:?}: {}", ran.out);
        assert!(ran.err.contains(said), "{what:?}: {}", ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn a_state_directory_has_one_server_and_is_nobody_elses() -> Result<()> {
    let palisade = Palisade::serve().policy(POLICY).start().await?;
    let mode = |name: &str| -> Result<u32> {
        Ok(std::fs::metadata(palisade.state().join(name))?.permissions().mode() & 0o777)
    };
    assert_eq!((mode("")?, mode("palisade.sock")?), (0o700, 0o600));
    let second = Palisade::serve().after(&palisade).refused().await?;
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("uses the state directory"), "{}", second.err);
    // What a killed one leaves is replaced.
    palisade.process().kill();
    palisade.process().wait(Duration::from_secs(10)).await?;
    let third = Palisade::serve().after(&palisade).start().await?;
    assert_eq!(third.run(&["status", "--json"]).await?.json()?["ready"], true);
    Ok(())
}

#[tokio::test]
async fn the_written_policy_starts_and_allows_what_was_seen() -> Result<()> {
    let app = app().await?;
    // No file: the starter policy, under which large files pass.
    let starter = Palisade::serve()
        .upstream(&app.url())
        .file("main.py", "from fastapi import FastAPI\napp = FastAPI()\n")
        .file(".git/HEAD", "ref: refs/heads/main\n")
        .start()
        .await?;
    let upload = async |palisade: &Palisade| -> Result<u16> {
        let (body, kind) = Body::multipart("file", "a.bin", "x", 3_000_000);
        Ok(palisade.http()?.post("/upload").header("content-type", &kind).body(body).send().await?.status())
    };
    let nested = async |palisade: &Palisade, target: &str, depth: usize| -> Result<u16> {
        let tree = "[".repeat(depth) + &"]".repeat(depth);
        let client = palisade.http()?;
        let request = client.post(target).header("content-type", "application/json").body(tree);
        Ok(request.send().await?.status())
    };
    // Two readings each, of which the starter policy leaves it to the application what they mean.
    let paths = ["/files/a%2Fb", "/files/c%2fd%2fe", "/shop/1;color=red/x", "/cars;color=red", "/files/f%2Fg;h=i"];
    let get = async |palisade: &Palisade, target: &str| -> Result<u16> {
        Ok(palisade.http()?.get(target).send().await?.status())
    };
    assert_eq!(upload(&starter).await?, 200);
    for path in paths {
        assert_eq!(get(&starter, path).await?, 200, "{path}");
    }
    assert_eq!(nested(&starter, "/tree", 64).await?, 200);
    assert_eq!(nested(&starter, "/tree", 129).await?, 400, "the starter policy has a limit too");
    starter.access(|line| line["path"] == "/tree" && line["outcome"] == "refused").await?;
    assert!(starter.interrupt().await?.success());
    let end = starter.output().tail();
    assert!(end.contains("The strict policy would also have refused") && end.contains("`palisade init`"), "{end}");
    for (control, count) in [("integrity", paths.len()), ("limits", 2)] {
        assert!(end.contains(&format!("  {control:<16} {count:>8}")), "{end}");
    }

    let init = starter.run(&["init", "--yes"]).await?;
    assert_eq!(init.code, Some(0), "{}", init.err);
    assert!(init.out.contains("main:app") && init.out.contains(".env"), "{}", init.out);
    let again = starter.run(&["init", "--yes"]).await?;
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("--force"), "{}", again.err);

    let strict = Palisade::serve().after(&starter).start().await?;
    assert_eq!(upload(&strict).await?, 200, "what was seen goes on");
    for path in paths {
        assert_eq!(get(&strict, path).await?, 200, "{path}");
    }
    assert_eq!(nested(&strict, "/tree", 64).await?, 200);
    // And nothing else does.
    assert_eq!(get(&strict, "/elsewhere/a%2Fb").await?, 400);
    assert_eq!(nested(&strict, "/elsewhere", 33).await?, 400);
    // Its head alone: a body would still be on its way when the answer comes.
    let mut wire = strict.wire_http().await?;
    wire.send("POST /other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n").await?;
    assert_eq!(wire.answer().await?.status(), 413, "what was not is refused");
    let check = strict.run(&["check", "--json"]).await?.json()?;
    assert_eq!(check["ok"], true);
    Ok(())
}

/// The first start of many: the log says which variables lie over the files, and never what is in them.
#[tokio::test]
async fn what_the_environment_overrides_is_said_by_name() -> Result<()> {
    const NAME: &str = "PALISADE__SERVER__DRAIN";
    let palisade = Palisade::serve().policy(POLICY).env(NAME, "\"23457ms\"").start().await?;
    let said = palisade.event("policy.overridden", |_| true).await?;
    assert_eq!((&said["name"], &said["level"]), (&NAME.into(), &"info".into()));
    let position = palisade.output().position();
    palisade.reload()?;
    palisade.event_since(position, "policy.overridden", |line| line["name"] == NAME).await?;
    let said = palisade.log().iter().filter(|line| line["event"] == "policy.overridden").count();
    assert_eq!(said, 2, "once at the start, once after the reload");
    assert!(palisade.terminate().await?.success());
    let everything = palisade.output().everything()?;
    assert!(!everything.contains("23457"), "{everything}");

    let without = Palisade::serve().policy(POLICY).start().await?;
    assert!(without.terminate().await?.success());
    assert!(!without.output().contains("policy.overridden"));
    Ok(())
}

#[tokio::test]
async fn a_policy_for_production_is_in_order() -> Result<()> {
    let folder = Palisade::serve().policy(POLICY).start().await?;
    let arguments = ["init", "--yes", "--production", "--host", "api.example.com", "--output", "production.toml"];
    let init = folder.run(&arguments).await?;
    assert_eq!(init.code, Some(0), "{}", init.err);
    let check = folder.run(&["check", "--policy", "production.toml"]).await?;
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(check.out.contains("when something is away"), "{}", check.out);
    let starter = folder.run(&["init", "--starter"]).await?;
    assert!(starter.out.contains("mode = \"development\""), "{}", starter.out);
    for (command, said) in [
        (&["version"][..], "palisade "),
        (&["completions", "bash"], "_palisade"),
        (&["trust", "--print"], "BEGIN CERTIFICATE"),
    ] {
        let ran = folder.run(command).await?;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains(said), "{command:?}: {}", ran.out);
    }
    Ok(())
}
