//! Whether an answer, or the time it takes, says which accounts there are: logins, resets, verification, registration.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use palisade_test::provision::python_program;
use palisade_test::{Need, need, paths};
use serde_json::Value;

use super::gateway::{Gateway, Kind};
use super::process::Server;
use super::site::{self, Site};
use super::{identity, machine, process, report};

/// The most by which a median may differ from that of the first kind …
const WITHIN: f64 = 0.03;
/// … unless the two distributions cannot be told apart either, by the test of Kolmogorov and Smirnov.
const LIKELY: f64 = 0.001;

/// Compares, with so many accounts of each kind.
pub(super) fn measure(site: &mut Site, root: &Path, binary: Option<&PathBuf>, count: u64, write: bool) -> Result<()> {
    need(Need::PythonSmtp)?;
    let binary = binary.context("there is no palisade binary")?;
    let (_mail, port) = mail_server(site)?;
    (site.auth, site.mail) = (Some("verified"), Some(port));
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[]);
    (site.auth, site.mail) = (None, None);
    let gateway = gateway?;
    identity::add_user(site, binary, identity::NAME, &["--email", "bench@example.com"])?;
    let mut python = process::pinned(site.cores.load, &python_program("python"))?;
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/cost/oracle.py"));
    python.arg(site.state()).arg(format!("https://127.0.0.1:{}", gateway.port)).arg(count.to_string());
    let printed = run(python, site)?;
    let found: Value = serde_json::from_str(printed.lines().last().context("oracle.py printed nothing")?)?;
    let (table, told) = table(&found)?;
    println!("{table}");
    if write {
        let facts = machine::facts(Some(binary));
        let mut head =
            report::heading("What an answer says of an account", &facts, &["date", "commit", "cpu", "palisade"]);
        head.push_str(&format!(
            "\n{count} different accounts of each kind, those of a comparison in random order, `registration = \"verified\"`. Status, headers and bytes of the answers are the same but for the request's id; the times may differ by {:.0} % in the median, or by no more than chance does (p of Kolmogorov and Smirnov above {LIKELY}).\n\n",
            WITHIN * 100.0
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "oracle", &(head + &table))?;
    }
    ensure!(told.is_empty(), "accounts can be told apart:\n{}", told.join("\n"));
    Ok(())
}

/// Takes all mail, on the core of the clients.
fn mail_server(site: &Site) -> Result<(Server, u16)> {
    let port = site::free_port()?;
    let mut python = process::pinned(site.cores.load, &python_program("python"))?;
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/smtp/server.py"));
    python.args(["--port", &port.to_string()]);
    let mut server = Server::start("mail", python, &site.folder)?;
    server.until(site::READY, || site::listening(port))?;
    Ok((server, port))
}

fn run(python: Command, site: &Site) -> Result<String> {
    process::output(python, &site.folder.join("oracle.out"), Duration::from_secs(900), || ())
}

/// The table, and what can be told apart.
fn table(found: &Value) -> Result<(String, Vec<String>)> {
    let mut lines = vec![["", "kind", "median, ms", "to the first", "KS p"].map(str::to_owned).to_vec()];
    let mut told = Vec::new();
    for (comparison, result) in found.as_object().context("no comparisons")? {
        if result["same_answer"] != true {
            told.push(format!("{comparison}: different answers: {}", result["answers"]));
        }
        for (place, (kind, seen)) in result["kinds"].as_object().context("no kinds")?.iter().enumerate() {
            let number = |name: &str| seen[name].as_f64().with_context(|| format!("no `{name}`"));
            let (median, ratio, likely) = (number("median_ms")?, number("ratio")?, number("ks_p")?);
            if (ratio - 1.0).abs() > WITHIN && likely <= LIKELY {
                told.push(format!("{comparison}: {kind} takes {ratio:.3} of the first, p {likely:.2e}"));
            }
            let name = if place == 0 { comparison.clone() } else { String::new() };
            let p = if likely < 0.0005 { format!("{likely:.0e}") } else { format!("{likely:.3}") };
            lines.push(vec![name, kind.clone(), format!("{median:.2}"), format!("{ratio:.3}"), p]);
        }
    }
    Ok((report::table(&lines), told))
}
