//! What a request costs in user-space instructions (callgrind) and in system calls (strace): repeatable to about 1 %, on
//! any machine and in any company.
//!
//! Each gateway runs twice under either, for few and for four times as many requests. The difference is free of start,
//! handshakes and end. No word about time: the kernel's part of a request is seen in the calls alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cell::{Cell, Load, What};
use super::gateway::{Gateway, Kind};
use super::generator;
use super::process;
use super::site::Site;

/// Requests of the shorter run.
const FEW: u64 = 400;
/// The same where each is a mebibyte.
const FEW_LARGE: u64 = 40;
/// The longer run has so many times as many.
const TIMES: u64 = 4;
/// Until a program that is traced has ended.
const END: Duration = Duration::from_secs(120);

/// What one cell costs on one gateway, per request.
pub(super) struct Count {
    /// Of which gateway.
    pub(super) kind: Kind,
    /// Of which cell.
    pub(super) cell: &'static Cell,
    /// User-space instructions.
    pub(super) instructions: f64,
    /// System calls.
    pub(super) calls: f64,
}

/// Whether a cell can be counted: what new connections cost is mostly cryptography, for which valgrind knows other
/// instructions than the processor.
pub(super) fn counts(cell: &Cell) -> bool {
    !matches!(cell.load, Load::NewConnections(_))
}

#[derive(Clone, Copy)]
enum Tool {
    Callgrind,
    Strace,
}

/// Counts one cell on one gateway.
pub(super) fn count(site: &Site, kind: Kind, binary: Option<&PathBuf>, cell: &'static Cell) -> Result<Count> {
    let few = if cell.what == What::Download { FEW_LARGE } else { FEW };
    let mut each = [0.0; 2];
    for (tool, result) in [Tool::Callgrind, Tool::Strace].into_iter().zip(&mut each) {
        eprintln!("bench: {}: {} on {}, {few} and {} requests", tool.name(), cell.name, kind.name(), TIMES * few);
        let less = total(site, kind, binary, cell, few, tool)?;
        let more = total(site, kind, binary, cell, TIMES * few, tool)?;
        let name = kind.name();
        ensure!(more > less, "{name} took less for more requests: {more} for {}, {less} for {few}", TIMES * few);
        *result = (more - less) as f64 / ((TIMES - 1) * few) as f64;
    }
    let [instructions, calls] = each;
    Ok(Count { kind, cell, instructions, calls })
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Callgrind => "valgrind",
            Self::Strace => "strace",
        }
    }

    fn command(self, site: &Site, out: &Path) -> Result<Vec<String>> {
        let mut command = vec![super::install::program(self.name())?.to_string_lossy().into_owned()];
        match self {
            Self::Callgrind => command.extend([
                "--tool=callgrind".to_owned(),
                // One thread may otherwise keep valgrind's lock for long.
                "--fair-sched=try".to_owned(),
                format!("--callgrind-out-file={}", out.display()),
                format!("--log-file={}", site.folder.join("valgrind.log").display()),
            ]),
            Self::Strace => {
                command.extend(["-f", "-c", "-o"].map(str::to_owned).into_iter().chain([out.display().to_string()]))
            }
        }
        Ok(command)
    }
}

fn total(
    site: &Site,
    kind: Kind,
    binary: Option<&PathBuf>,
    cell: &'static Cell,
    requests: u64,
    tool: Tool,
) -> Result<u64> {
    let out = site.folder.join(format!("{}.{}.{requests}.out", tool.name(), kind.name()));
    for stale in counted_files(site, &out)? {
        fs::remove_file(stale)?;
    }
    let mut gateway = Gateway::start(kind, site, binary, &tool.command(site, &out)?)?;
    let log = site.folder.join("generator.out");
    let command = generator::counted(site, &gateway, cell, requests)?;
    let seen = generator::parse_h2load(&process::output(command, &log, Duration::from_secs(300), || ())?)?;
    ensure!(
        seen.requests == requests && seen.errors == 0,
        "{} answered {} of {requests} requests",
        kind.name(),
        seen.requests
    );
    gateway.server.stop_all(END)?;
    // A child process, if there is one, writes a file of its own beside.
    let files = counted_files(site, &out)?;
    ensure!(!files.is_empty(), "{} wrote no counts for {}", tool.name(), kind.name());
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file)?;
        let number = match tool {
            Tool::Callgrind => instructions(&text),
            Tool::Strace => calls(&text),
        };
        number.with_context(|| format!("no total in {}", file.display()))
    };
    files.iter().map(read).sum()
}

fn counted_files(site: &Site, out: &Path) -> Result<Vec<PathBuf>> {
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = fs::read_dir(&site.folder)?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name))).collect())
}

/// `totals: 123` (or `summary: 123`) of callgrind's file.
fn instructions(text: &str) -> Option<u64> {
    let number = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    number.and_then(|number| number.split_whitespace().next()?.parse().ok())
}

/// The fourth column of strace's last line: `100.00    0.012345           2      5432       123 total`.
fn calls(text: &str) -> Option<u64> {
    let total = text.lines().rfind(|line| line.ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

/// The table: each gateway's instructions and calls, and the subject's as a ratio to the others'.
pub(super) fn table(counts: &[Count], kinds: &[Kind], subject: Option<Kind>) -> String {
    let peers: Vec<Kind> = kinds.iter().copied().filter(|kind| Some(*kind) != subject).collect();
    let of = |cell: &Cell, kind: Kind| counts.iter().find(|count| count.kind == kind && count.cell.name == cell.name);
    let title = "per request: thousand instructions · system calls";
    let mut head = vec![title.to_owned()];
    head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
    if let Some(subject) = subject {
        head.extend(peers.iter().map(|peer| format!("{}/{}", subject.name(), peer.name())));
    }
    let mut lines = vec![head];
    let mut cells: Vec<&Cell> = counts.iter().map(|count| count.cell).collect();
    cells.dedup_by_key(|cell| cell.name);
    for cell in cells {
        let mut line = vec![match cell.load {
            // Nothing is shared with others then: not a wake-up, not a write.
            Load::FixedRate => format!("{}, one after the other", cell.title.replace(" at 2,000/s", " 200 B")),
            _ => cell.title.to_owned(),
        }];
        for &kind in kinds {
            let shown = of(cell, kind).map(|c| format!("{:.1} · {:.1}", c.instructions / 1000.0, c.calls));
            line.push(shown.unwrap_or_default());
        }
        if let Some(ours) = subject.and_then(|subject| of(cell, subject)) {
            for theirs in peers.iter().filter_map(|peer| of(cell, *peer)) {
                line.push(format!("{:.2} · {:.2}", ours.instructions / theirs.instructions, ours.calls / theirs.calls));
            }
        }
        lines.push(line);
    }
    super::report::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found() {
        assert_eq!(instructions("version: 1\nsummary: 77\nfn=x\ntotals: 78\n"), Some(77));
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
             60.00    0.000100           1        90         2 writev\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000200           2       123        12 total\n";
        assert_eq!(calls(strace), Some(123));
        assert_eq!(calls("100.00    0.000200           2       123           total\n"), Some(123));
        assert_eq!((instructions("nothing"), calls("nothing")), (None, None));
    }
}
