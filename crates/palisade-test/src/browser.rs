//! A browser, driven by the scripts of `tests/node`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::output::Stream;
use crate::paths;
use crate::process::Process;
use crate::provision::{self, Need, need};

/// A browser's start, a page and a few clicks take seconds; on a loaded machine tens of them.
const RUN: Duration = Duration::from_secs(180);

/// Runs a script of `tests/node`, such as `docs_page.mjs`, and gives the JSON of the last line it prints.
///
/// The script finds the packages and the browser by `PALISADE_NODE_MODULES` and `PALISADE_CHROMIUM`.
///
/// # Errors
/// When it fails; the error holds what it printed.
pub async fn run(script: &str, arguments: &[&str]) -> Result<Value> {
    need(Need::Node)?;
    need(Need::Chromium)?;
    let mut command = Command::new("node");
    command
        .arg(paths::tests("node").join(script))
        .args(arguments)
        .env("PALISADE_NODE_MODULES", provision::node().join("node_modules"))
        .env("PALISADE_CHROMIUM", provision::chromium());
    let process = Process::spawn(command)?;
    let status = process.wait(RUN).await?;
    // What it printed last may still be on its way through the pipe.
    process.output().closed(Duration::from_secs(10)).await?;
    if !status.success() {
        bail!("`{script}` ended with {status}; {}", process.output().tail());
    }
    let lines = process.output().since(0);
    let last = lines.iter().rev().find(|line| line.stream == Stream::Out && !line.text.is_empty());
    let last = last.with_context(|| format!("`{script}` printed nothing; {}", process.output().tail()))?;
    serde_json::from_str(&last.text).with_context(|| format!("`{script}` printed {:?}", last.text))
}
