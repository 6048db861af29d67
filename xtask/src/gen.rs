//! `cargo xtask gen`: writes what the program knows about itself into the documentation: policy reference, schemas,
//! errors, log lines, the map of sections. The tests that compare them are also what writes them.

use std::process::{Command, ExitCode};

/// Options of `cargo xtask gen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only say whether they are up to date.
    #[arg(long)]
    check: bool,
}

/// Writes or compares.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--package", "palisade", "--test", "it", "docs::"]);
    if !arguments.check {
        cargo.env("PALISADE_GEN", "write");
    }
    Ok(if cargo.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
