//! `palisade completions`: what a shell completes.

use clap::CommandFactory as _;

use super::output::print;
use crate::args::{Args, Completions};
use crate::exit::Done;

/// Prints them.
pub(crate) fn run(completions: &Completions) -> anyhow::Result<Done> {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), "palisade", &mut text);
    print(&String::from_utf8(text)?);
    Ok(Done::Ok)
}
