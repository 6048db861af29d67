//! The binary `palisade`: makes an HTTP API safe to put on the internet.

mod args;
mod commands;
mod demo;
mod exit;

use clap::Parser as _;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    // Whatever this process writes is for its user alone: state, keys, logs, sockets.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let args = args::Args::try_parse().unwrap_or_else(|error| args::explain(error).exit());
    let color = args.global.color();
    exit::code(commands::run(args), color)
}
