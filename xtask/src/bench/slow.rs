//! What a thousand slow connections cost everybody else: `slowhttptest` in its four modes, beside 2,000 requests a second.
//!
//! The tool cannot choose its address, so the policy lets one address have as many connections as it likes: what holds is
//! what remains without the limit by address.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cell::{CELLS, Cell};
use super::gateway::{Gateway, Kind};
use super::site::Site;
use super::{generator, install, machine, process, report};

/// Of each measurement, in seconds, where the command says nothing.
pub(super) const SECONDS: u64 = 30;
/// Until the connections are there.
const RAMP: Duration = Duration::from_secs(6);
/// Until they are gone: what they leave behind is not what the next measurement is about.
const SETTLE: Duration = Duration::from_secs(3);

struct Mode {
    title: &'static str,
    path: &'static str,
    flags: &'static [&'static str],
}

const MODES: [Mode; 4] = [
    Mode { title: "slow heads", path: "/", flags: &["-H", "-i", "5"] },
    Mode { title: "slow bodies", path: "/", flags: &["-B", "-i", "5", "-s", "8192"] },
    // As many as the upstream takes: a head of over 8 kB is answered with an error, which costs nothing.
    Mode { title: "ranges", path: "/1m", flags: &["-R", "-a", "10", "-b", "900"] },
    Mode {
        title: "slow reading",
        path: "/1m",
        flags: &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"],
    },
];

/// Measures each mode against the same load without it, in turn.
pub(super) fn measure(
    site: &Site,
    root: &Path,
    kind: Kind,
    binary: Option<&PathBuf>,
    seconds: u64,
    write: bool,
) -> Result<()> {
    let cell = CELLS.iter().find(|cell| cell.name == "h1-rate").context("no cell at a fixed rate")?;
    let gateway = Gateway::start(kind, site, binary, &[])?;
    let mut table = String::from(
        "| 1,000 connections of | p99 without, ms | p99 with, ms | ratio | memory after, MiB |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    let mut starved = Vec::new();
    for mode in &MODES {
        eprintln!("bench: {}", mode.title);
        let without = p99(site, &gateway, cell, seconds)?;
        let mut command = process::pinned(site.cores.load, &install::program("slowhttptest")?)?;
        command.args(mode.flags).args(["-c", "1000", "-r", "200", "-v", "1", "-l"]);
        command.arg((seconds + RAMP.as_secs()).to_string()).arg("-u");
        command.arg(format!("https://127.0.0.1:{}{}", gateway.port, mode.path));
        let out = fs::File::create(site.folder.join("slowhttptest.out"))?;
        let mut tool = command.stdout(out.try_clone()?).stderr(out).spawn().context("cannot run slowhttptest")?;
        std::thread::sleep(RAMP);
        let with = p99(site, &gateway, cell, seconds);
        let _ = tool.kill();
        let _ = tool.wait();
        let memory = gateway.server.memory_kib() as f64 / 1024.0;
        let title = mode.title;
        let (with, ratio) = match with {
            Ok(with) => (format!("{with:.2}"), format!("{:.2}", with / without)),
            Err(error) => {
                eprintln!("bench: {title}: {error:#}");
                starved.push(title);
                ("none".to_owned(), "none".to_owned())
            }
        };
        table.push_str(&format!("| {title} | {without:.2} | {with} | {ratio} | {memory:.1} |\n"));
        gateway.empty_log();
        std::thread::sleep(SETTLE);
    }
    println!("{table}");
    ensure!(starved.is_empty(), "others were not served beside: {}", starved.join(", "));
    if write {
        let facts = machine::facts(binary);
        let mut text = String::from("## Slow connections\n\n");
        for name in ["date", "commit", "cpu", "palisade"] {
            if let Some(value) = facts.get(name) {
                text.push_str(&format!("- {name}: {value}\n"));
            }
        }
        text.push_str(&format!(
            "\nThe 99th percentile of 2,000 GETs a second over HTTP/1.1 with TLS, for {seconds} s each, alone and beside `slowhttptest`.\n\n{table}"
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "slow", &text)?;
    }
    Ok(())
}

/// In milliseconds.
fn p99(site: &Site, gateway: &Gateway, cell: &Cell, seconds: u64) -> Result<f64> {
    let seen = generator::run(site, gateway, cell, seconds)?;
    ensure!(seen.errors == 0, "{} errors beside {} good answers", seen.errors, seen.requests);
    let p99 = seen.p99_us.context("no latencies")?;
    Ok(p99 as f64 / 1000.0)
}
