//! The binary `palisade`: makes an HTTP API safe to put on the internet.

mod args;
mod commands;
mod demo;
mod exit;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let args = args::Args::parse();
    let color = args.global.color();
    exit::code(commands::run(args), color)
}
