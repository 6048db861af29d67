//! Metrics, judged by Prometheus' own tool.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::provision::{self, Need, need};

/// Asks `promtool check metrics` about a scrape. It complains about syntax, and about names and types that mislead.
///
/// # Errors
/// With its complaints.
pub fn check(scrape: &str) -> Result<()> {
    need(Need::Promtool)?;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(scrape.as_bytes())?;
    let mut command = Command::new(provision::promtool());
    let ran = command.args(["check", "metrics"]).stdin(Stdio::from(File::open(file.path())?)).output();
    let ran = ran.context("promtool")?;
    // Of mere advice it prints lines and ends with 3; both are to be dealt with.
    if !ran.status.success() {
        bail!("promtool: {}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    }
    Ok(())
}
