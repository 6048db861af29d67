//! What is done to the project rather than by it. A module a subcommand.

mod bench;
mod dist;
mod r#gen;
mod test;

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
    /// Builds the binary as it is published.
    Dist(dist::Arguments),
    /// Writes the generated parts of the documentation.
    Gen(r#gen::Arguments),
    /// Installs what the tests need, runs all of them and counts.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Gen(arguments) => r#gen::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        palisade_test::shell::say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
