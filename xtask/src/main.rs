//! What is done to the project rather than by it. A module a subcommand.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measures the gateway beside nginx and haproxy and writes docs/benchmarks.md.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "the last word of a command for the terminal")]
        {
            eprintln!("error: {error:#}");
        }
        ExitCode::FAILURE
    })
}
