//! Runs one step: its output goes on as it comes, and is read on the way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::count::Count;
use super::hang::Watch;

/// Whether a step passed, and the tests in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) passed: bool,
    pub(crate) count: Count,
}

impl Outcome {
    pub(crate) fn passed() -> Self {
        Outcome { passed: true, count: Count::default() }
    }

    pub(crate) fn failed() -> Self {
        Outcome { passed: false, count: Count::default() }
    }
}

/// A command whose exit code says everything.
pub(crate) fn run(command: &mut Command) -> Result<Outcome> {
    let status = command.stdin(Stdio::null()).status().context("cannot start cargo")?;
    Ok(if status.success() { Outcome::passed() } else { Outcome::failed() })
}

/// `cargo test`, whose results are counted.
pub(crate) fn run_tests(command: &mut Command) -> Result<Outcome> {
    let mut count = Count::default();
    let passed = each_line(command, Hang::Ended, |line| {
        if let Some(result) = Count::of_line(line) {
            count.plus(result);
        }
        true
    })?;
    Ok(Outcome { passed, count })
}

/// `cargo test --no-run`, and where the program under test lies (cargo alone knows: target folder, profile).
pub(crate) fn build(command: &mut Command) -> Result<(Outcome, Option<PathBuf>)> {
    let mut binary = None;
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let passed = each_line(command, Hang::WaitedFor, |line| {
        if let Ok(message) = serde_json::from_str::<Value>(line)
            && message["target"]["name"] == "palisade"
            && message["target"]["kind"][0] == "bin"
            && message["profile"]["test"] == false
            && let Some(path) = message["executable"].as_str()
        {
            binary = Some(PathBuf::from(path));
        }
        false
    })?;
    Ok((if passed { Outcome::passed() } else { Outcome::failed() }, binary))
}

/// What becomes of what says nothing for long.
enum Hang {
    /// As of a compiler, which ends by itself.
    WaitedFor,
    /// As of a test, so that the others are run and the run says which it was.
    Ended,
}

/// Gives each line of standard output to `see`, and passes it on where that says so. Standard error goes its own way.
fn each_line(command: &mut Command, hang: Hang, mut see: impl FnMut(&str) -> bool) -> Result<bool> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let watch = match hang {
        Hang::WaitedFor => None,
        Hang::Ended => Some(Watch::over(child.id())),
    };
    let mut lines = BufReader::new(child.stdout.take().context("a pipe from cargo")?);
    let mut line = Vec::new();
    // Bytes, since a test may print anything.
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Some(watch) = &watch {
            watch.see(&text);
        }
        if see(&text) {
            let mut out = std::io::stdout().lock();
            out.write_all(&line)?;
            out.flush()?;
        }
        line.clear();
    }
    Ok(child.wait()?.success())
}
