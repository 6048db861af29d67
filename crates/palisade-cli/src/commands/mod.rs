//! The commands, one file each.

mod check;
mod demo;
mod policy;
mod schema;
mod serve;

use crate::args::{Args, Command};
use crate::exit::Done;

/// Runs what was asked for.
pub(crate) fn run(args: Args) -> anyhow::Result<Done> {
    match args.command {
        Command::Demo(demo) => demo::run(&args.global, &demo),
        Command::Serve(serve) => serve::run(&args.global, &serve),
        Command::Check(check) => check::run(&args.global, &check),
        Command::Schema => schema::run(),
    }
}
