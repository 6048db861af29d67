//! User-space instructions per plain GET, counted by callgrind: repeatable to about 1 %, on any machine.
//!
//! Each gateway runs twice under callgrind, for 400 and for 1,600 requests over 8 connections. The difference, divided by 1,200, is free of
//! start, handshakes and end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::gateway::{Gateway, Kind};
use super::generator;
use super::process;
use super::site::Site;

const FEW: u64 = 400;
const MANY: u64 = 1600;

/// Thousand instructions per GET.
pub(super) struct Count {
    /// Of which gateway.
    pub(super) kind: Kind,
    /// Over HTTP/1.1.
    pub(super) h1: f64,
    /// Over HTTP/2.
    pub(super) h2: f64,
}

/// Counts for one gateway.
pub(super) fn count(site: &Site, kind: Kind, binary: Option<&PathBuf>) -> Result<Count> {
    let mut per_request = [0.0; 2];
    for (h2, result) in [false, true].into_iter().zip(&mut per_request) {
        eprintln!(
            "bench: callgrind: {} over HTTP/{}, {FEW} and {MANY} requests",
            kind.name(),
            if h2 { "2" } else { "1.1" }
        );
        let few = total(site, kind, binary, h2, FEW)?;
        let many = total(site, kind, binary, h2, MANY)?;
        ensure!(
            many > few,
            "{} took fewer instructions for more requests: {many} for {MANY}, {few} for {FEW}",
            kind.name()
        );
        *result = (many - few) as f64 / (MANY - FEW) as f64;
    }
    let [h1, h2] = per_request.map(|instructions| instructions / 1000.0);
    Ok(Count { kind, h1, h2 })
}

fn total(site: &Site, kind: Kind, binary: Option<&PathBuf>, h2: bool, requests: u64) -> Result<u64> {
    let out = site.folder.join(format!("callgrind.{}.{requests}.out", kind.name()));
    for stale in counted_files(site, &out)? {
        fs::remove_file(stale)?;
    }
    let valgrind = super::install::program("valgrind")?;
    let under = [
        valgrind.to_string_lossy().into_owned(),
        "--tool=callgrind".to_owned(),
        // One thread may otherwise keep valgrind's lock for long.
        "--fair-sched=try".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
        format!("--log-file={}", site.folder.join("valgrind.log").display()),
    ];
    let mut gateway = Gateway::start(kind, site, binary, &under)?;
    let log = site.folder.join("generator.out");
    let seen = generator::parse_h2load(&process::output(
        generator::small(site, &gateway, h2, requests)?,
        &log,
        Duration::from_secs(300),
        || (),
    )?)?;
    ensure!(
        seen.requests == requests && seen.errors == 0,
        "{} answered {} of {requests} requests",
        kind.name(),
        seen.requests
    );
    gateway.server.stop(Duration::from_secs(120))?;
    // A child process, if there is one, writes a file of its own beside.
    let files = counted_files(site, &out)?;
    ensure!(!files.is_empty(), "callgrind wrote no counts for {}", kind.name());
    files.iter().map(|file| instructions(file)).sum()
}

fn counted_files(site: &Site, out: &Path) -> Result<Vec<PathBuf>> {
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = fs::read_dir(&site.folder)?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name))).collect())
}

/// `totals: 123` (or `summary: 123`) of callgrind's file.
fn instructions(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    number
        .and_then(|number| number.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no total in {}", file.display()))
}

/// The table.
pub(super) fn table(counts: &[Count], subject: Option<Kind>) -> String {
    let of = |kind: Kind| counts.iter().find(|count| count.kind == kind);
    let subject = subject.and_then(of);
    let mut lines = vec![vec![
        "thousand user-space instructions per GET of 200 B".to_owned(),
        "HTTP/1.1".to_owned(),
        "HTTP/2".to_owned(),
    ]];
    for count in counts {
        lines.push(vec![count.kind.name().to_owned(), format!("{:.1}", count.h1), format!("{:.1}", count.h2)]);
    }
    for peer in counts.iter().filter(|count| subject.is_some_and(|subject| subject.kind != count.kind)) {
        if let Some(subject) = subject {
            let name = format!("{}/{}", subject.kind.name(), peer.kind.name());
            lines.push(vec![name, format!("{:.2}", subject.h1 / peer.h1), format!("{:.2}", subject.h2 / peer.h2)]);
        }
    }
    super::report::table(&lines)
}
