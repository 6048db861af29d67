//! Commands as they are typed: what they print goes into pipes, and whoever reads there may leave.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Palisade, Upstream, paths};

use crate::support::{SOON, limited, written_policy};

/// `palisade schema | head -1` shows one line, and not how the program ends.
#[test]
fn a_reader_that_leaves_is_no_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("palisade.toml"), "[server]\nmode = \"development\"\n[limits]\nbodi = 1\n")?;
    let mut ran = 0;
    for (arguments, expected) in [
        (&["schema"][..], 0),
        (&["completions", "bash"], 0),
        (&["init", "--starter"], 0),
        (&["version"], 0),
        (&["waf", "--help"], 0),
        (&["--help"], 0),
        (&["check"], 2),
        (&["check", "--json"], 2),
        (&["check", "--effective"], 2),
        (&["status"], 1),
        (&["serve"], 2),
        (&["nonsense"], 2),
    ] {
        let mut child = Command::new(paths::binary()?)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{arguments:?}"))?;
        // Nobody reads what it prints, nor what it complains about.
        drop((child.stdout.take(), child.stderr.take()));
        let status = child.wait()?;
        ensure!(status.code() == Some(expected), "{arguments:?}: {status}");
        ran += 1;
    }
    ensure!(ran == 12);
    Ok(())
}

/// What an editor gets from the command is what it gets from the documentation: a schema that knows which keys there are not.
#[test]
fn the_schema_is_the_documented_one() -> Result<()> {
    let ran = Command::new(paths::binary()?).arg("schema").stdin(Stdio::null()).output()?;
    let documented = std::fs::read_to_string(paths::workspace().join("docs/src/reference/palisade.schema.json"))?;
    ensure!(ran.status.success() && String::from_utf8(ran.stdout)? == documented);
    let schema: serde_json::Value = serde_json::from_str(&documented)?;
    ensure!(schema["additionalProperties"] == false && schema["properties"]["limits"]["additionalProperties"] == false);
    Ok(())
}

/// Relative paths start at the policy file, wherever the command was typed; what cannot be written is said with its place.
#[tokio::test]
async fn log_files_lie_beside_the_policy() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let policy = |file: &str| {
        let log = format!("[log]\naccess = \"{file}\"\n[limits]\nbody = \"2MiB\"\n");
        written_policy(&upstream.url(), &log)
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("palisade.toml");
    std::fs::write(&file, policy("access.log"))?;
    let named = || Palisade::serve().arg("--policy").arg(&file.to_string_lossy());
    let gateway = named().start().await?;
    ensure!(gateway.http()?.get("/seen").send().await?.status() == 200);
    gateway.terminate().await?;
    let lines = std::fs::read_to_string(folder.path().join("access.log")).context("beside the policy")?;
    ensure!(lines.contains("\"path\":\"/seen\""), "{lines}");
    ensure!(!gateway.directory().join("access.log").exists(), "where it was started");
    std::fs::write(&file, policy("missing/access.log"))?;
    let ran = named().refused().await?;
    ensure!(ran.code == Some(2), "{:?}", ran.code);
    for part in ["palisade.toml:", "missing/access.log", "does not exist", "log.html"] {
        ensure!(ran.err.contains(part), "`{part}` is not in {}", ran.err);
    }
    Ok(())
}

/// A full disk: the lines are lost, and not silently.
#[tokio::test]
async fn a_log_that_takes_nothing_is_reported() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let policy = written_policy(&upstream.url(), "[log]\naccess = \"/dev/full\"\n");
    let gateway = Palisade::serve().policy(&policy).start().await?;
    ensure!(gateway.http()?.get("/").send().await?.status() == 200);
    let said = gateway.event("log.failed", |_| true).await?;
    ensure!(said["target"] == "/dev/full" && said["lines"] == 1 && said["level"] == "error", "{said}");
    ensure!(gateway.http()?.get("/").send().await?.status() == 200, "it serves on");
    Ok(())
}

/// Where there are fewer descriptors than connections, the rest is refused and told so, instead of waiting in a queue.
#[tokio::test]
async fn few_descriptors_mean_few_connections() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let (_folder, wrapper) = limited("ulimit -n 300")?;
    let policy = written_policy(&upstream.url(), "[limits]\nconnections_per_address = 1000\n");
    let gateway = Palisade::serve().binary(&wrapper).policy(&policy).start().await?;
    let said = gateway.event("server.descriptors", |_| true).await?;
    ensure!(said["limit"] == 300 && said["connections"] == 86 && said["requests"] == 86, "{said}");
    let mut held = Vec::new();
    for _ in 0..86 {
        let mut wire = gateway.wire_http().await?;
        ensure!(wire.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?.status() == 200);
        held.push(wire);
    }
    let mut refused = gateway.wire_http().await?;
    let answer = refused.answer().await?;
    ensure!(answer.status() == 503 && answer.header("retry-after").is_some(), "{}", answer.start);
    drop(held);
    let again = async || {
        let Ok(mut wire) = gateway.wire_http().await else { return false };
        wire.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok_and(|answer| answer.status() == 200)
    };
    palisade_test::eventually(SOON, "there is room again", again).await?;
    Ok(())
}

/// A policy that comes into force later gets descriptors for its connections too.
#[tokio::test]
async fn a_reload_provides_descriptors() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let (_folder, wrapper) = limited("ulimit -Sn 300")?;
    let policy =
        |connections: u32| written_policy(&upstream.url(), &format!("[limits]\nconnections = {connections}\n"));
    let gateway = Palisade::serve().binary(&wrapper).policy(&policy(50)).start().await?;
    let soft = || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process().id()))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("open files")?;
        anyhow::Ok(line.split_ascii_whitespace().next().context("a limit")?.parse::<u64>()?)
    };
    ensure!(soft()? == 300, "{}: enough as it is", soft()?);
    gateway.write_policy(&policy(400))?;
    gateway.reload()?;
    let provided = async || soft().is_ok_and(|limit| limit == 400 + 400 + 128);
    palisade_test::eventually(SOON, "one for each connection and request, and some", provided).await
}

/// The commonest mistake of a first start: the address of the application is the wrong one. The log names it, and at the
/// end nobody says that Palisade refused anything.
#[tokio::test]
async fn an_application_that_is_not_there_is_named() -> Result<()> {
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let gateway = Palisade::serve().upstream(&format!("http://{nobody}")).start().await?;
    let answer = gateway.http()?.get("/").send().await?;
    ensure!(answer.status() == 502, "{}", answer.status());
    let line = gateway.event("request.failed", |_| true).await?;
    ensure!(line["code"] == "upstream.unreachable" && line["url"] == format!("http://{nobody}"), "{line}");
    ensure!(gateway.interrupt().await?.success());
    let said = gateway.output().tail();
    ensure!(said.contains("1 request seen, 0 refused, 1 without an answer of the application"), "{said}");
    Ok(())
}

/// Each file of a certificate that is not there, or not what it should be, says so.
#[tokio::test]
async fn files_of_certificates_are_named_with_what_is_wrong() -> Result<()> {
    let policy = "[server]\nmode = \"development\"\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    let ran = Palisade::serve().policy(policy).refused().await?;
    ensure!(ran.code == Some(2) && ran.err.contains("`cert.pem`: there is no such file"), "{}", ran.err);
    let ran = Palisade::serve().policy(policy).file("cert.pem", "nothing").refused().await?;
    ensure!(ran.err.contains("holds no certificate") && !ran.err.contains("os error"), "{}", ran.err);
    Ok(())
}
