//! `cargo xtask test`: everything that must hold, on a machine that has only Rust, Python and apt.
//!
//! All steps run even when one fails, so that one run tells everything. The last line is the count over all test
//! binaries, `N passed, N failed, N skipped`, for people and for CI.

mod count;
mod hang;
mod step;

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use palisade_test::{Need, need, paths};

use count::Count;
use step::Outcome;

/// The package that holds the end-to-end tests, and their binary.
const END_TO_END: &str = "palisade-tests";
const END_TO_END_BINARY: &str = "end_to_end";
/// The tests that are compiled together, with the program that they run: cargo builds it for the integration test of its
/// package. Everything else is in here, with the same features, so that nothing is compiled twice. They are those of all
/// tests together; that the program can be built as it is published is seen by [`Step::Cost`].
const TESTS: [&str; 4] = ["--lib", "--bins", "--tests", "--examples"];
/// The same for the end-to-end tests alone.
const END_TO_END_TESTS: [&str; 4] = ["--test", END_TO_END_BINARY, "--test", "version"];

/// User-space instructions that a plain GET may cost what is published, which takes three quarters of it. Counted here is what
/// `--release` builds, which may take 5 % more; counting differs by 1 %.
const INSTRUCTIONS: u64 = 55_000;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Runs these steps and no others.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STEP")]
    only: Vec<Step>,
    /// Runs the tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Installs nothing. Tests whose needs are not met fail.
    #[arg(long)]
    no_provision: bool,
}

impl Arguments {
    fn wants(&self, step: Step) -> bool {
        self.only.is_empty() || self.only.contains(&step)
    }
}

/// The steps, in the order in which they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The tests, and the binary under test.
    Build,
    /// What the tests need from the machine. It waits for downloads, so that it begins beside the build.
    Provision,
    /// `cargo fmt --check`.
    Fmt,
    /// Clippy, with warnings as errors.
    Clippy,
    /// The tests beside the code.
    Unit,
    /// The examples in the documentation.
    Doc,
    /// The real binary in front of real apps.
    E2e,
    /// What a plain GET costs the release build, in instructions: repeatable, where times are not.
    Cost,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Provision => "provision",
            Step::Fmt => "fmt",
            Step::Build => "build",
            Step::Clippy => "clippy",
            Step::Unit => "unit",
            Step::Doc => "doc",
            Step::E2e => "e2e",
            Step::Cost => "cost",
        }
    }
}

/// What one step came to.
struct Done {
    step: Step,
    passed: bool,
    took: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut run = Run::new(arguments)?;
    if arguments.wants(Step::Provision) && !arguments.no_provision {
        run.provision = Some(thread::spawn(provision));
    }
    let mut done = Vec::new();
    for &step in Step::value_variants() {
        if !arguments.wants(step) {
            continue;
        }
        if step == Step::Provision && run.provision.is_none() {
            continue;
        }
        line(&format!("\n== {}", step.name()));
        let start = Instant::now();
        let outcome = run.step(step).unwrap_or_else(|error| {
            line(&format!("error: {error:#}"));
            Outcome::failed()
        });
        let took = start.elapsed();
        run.count.add(&outcome);
        line(&format!(
            "== {}: {} in {:.1} s",
            step.name(),
            if outcome.passed { "passed" } else { "FAILED" },
            took.as_secs_f64()
        ));
        done.push(Done { step, passed: outcome.passed, took });
    }
    Ok(summary(&done, run.finish()))
}

/// Ends with the counts, exactly in the form that CI reads.
fn summary(done: &[Done], count: Count) -> ExitCode {
    line("");
    for Done { step, passed, took } in done {
        line(&format!(
            "{:10} {:6} {:7.1} s",
            step.name(),
            if *passed { "passed" } else { "FAILED" },
            took.as_secs_f64()
        ));
    }
    let failed: Vec<_> = done.iter().filter(|done| !done.passed).map(|done| done.step.name()).collect();
    if !failed.is_empty() {
        line(&format!("failed: {}", failed.join(", ")));
    }
    line(&count.to_string());
    if failed.is_empty() && count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run: what the steps tell each other.
struct Run<'a> {
    arguments: &'a Arguments,
    /// Whether whoever works here compiles the tests incrementally. For a first build it would take time, and may never be of
    /// use; another answer than the last time's compiles the whole workspace again.
    incremental: bool,
    /// The binary under test, once built.
    binary: Option<PathBuf>,
    /// Whether building it was tried.
    built: bool,
    /// What is being installed.
    provision: Option<JoinHandle<Result<Outcome>>>,
    /// Where tests write that they did not run; see `palisade_test::not_run`.
    not_run: PathBuf,
    /// The build that [`Step::Cost`] is about.
    release: Option<Child>,
    count: Count,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        fs::create_dir_all(paths::cache()).context("the cache of the tests")?;
        let not_run = paths::cache().join(format!("not-run-{}", std::process::id()));
        let _ = fs::remove_file(&not_run);
        let (incremental, binary, provision, release) = (is_incremental(), None, None, None);
        Ok(Run { arguments, incremental, binary, built: false, provision, not_run, release, count: Count::default() })
    }

    fn step(&mut self, step: Step) -> Result<Outcome> {
        match step {
            Step::Provision => match self.provision.take().map(JoinHandle::join) {
                Some(Ok(outcome)) => outcome,
                _ => bail!("what installs has panicked"),
            },
            Step::Fmt => step::run(&mut self.cargo(&["fmt", "--all", "--check"])),
            Step::Build => self.build(&TESTS),
            Step::Clippy => {
                step::run(&mut self.cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
            }
            Step::Unit => {
                self.begin_release();
                self.tests(&[&["--exclude", END_TO_END], TESTS.as_slice()].concat())
            }
            Step::Doc => self.tests(&["--exclude", END_TO_END, "--doc"]),
            Step::E2e => {
                // With `--only e2e` too: what is tested is what the source says, never an older build. And where another
                // test could not be compiled.
                let built = if self.binary.is_some() { Outcome::passed() } else { self.build(&END_TO_END_TESTS)? };
                self.begin_release();
                let mut outcome = self.tests(&["--test", END_TO_END_BINARY])?;
                outcome.passed &= built.passed;
                Ok(outcome)
            }
            Step::Cost => self.cost(),
        }
    }

    fn build(&mut self, selection: &[&str]) -> Result<Outcome> {
        self.built = true;
        let (outcome, binary) = step::build(self.cargo(&["test", "--workspace"]).args(selection))?;
        self.binary = binary.filter(|_| outcome.passed);
        Ok(outcome)
    }

    /// With the first tests that run.
    fn begin_release(&mut self) {
        if self.release.is_none() && self.arguments.wants(Step::Cost) {
            self.release = release_aside();
        }
    }

    fn cost(&mut self) -> Result<Outcome> {
        if let Some(mut build) = self.release.take() {
            // Whether it has succeeded is seen below, where it would be made.
            build.wait().context("the release build")?;
        }
        step::run(&mut self.bench()?)
    }

    fn bench(&self) -> Result<Command> {
        let at_most = INSTRUCTIONS + INSTRUCTIONS / 20;
        let mut bench = Command::new(env::current_exe().context("the path of this program")?);
        bench.args(["bench", "--profile", "release", "--instructions", "--only", "h1-get", "--against", "palisade"]);
        bench.args(["--at-most", &at_most.to_string()]);
        self.tell(&mut bench);
        Ok(bench)
    }

    /// Of the whole workspace, although a selection may be of one package: dependencies then have the features that they
    /// were compiled with before.
    fn tests(&self, selection: &[&str]) -> Result<Outcome> {
        let mut command = self.cargo(&["test", "--workspace", "--no-fail-fast"]);
        command.args(selection).args(self.arguments.filter.iter());
        step::run_tests(&mut command)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(paths::workspace()).env("PALISADE_NOT_RUN", &self.not_run);
        // The engine's tests know nothing of the kit; an installed rule set is found without this.
        if env::var_os("PALISADE_CRS_ROOT").is_none() {
            command.env("PALISADE_CRS_ROOT", palisade_test::provision::core_rule_set());
        }
        match &self.binary {
            Some(binary) => {
                command.env("PALISADE_BIN", binary);
            }
            // A path where nothing is, so that no test takes an older binary for the one that did not build.
            None if self.built => {
                command.env("PALISADE_BIN", paths::cache().join("the-build-failed"));
            }
            None => {}
        }
        self.tell(&mut command);
        if !self.incremental {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// Whoever is started here installs nothing either, where that was said.
    fn tell(&self, command: &mut Command) {
        if self.arguments.no_provision {
            command.env("PALISADE_PROVISION", "never");
        }
    }

    fn finish(mut self) -> Count {
        for reason in lines(&self.not_run) {
            line(&reason);
            self.count.skip_one();
        }
        let _ = fs::remove_file(&self.not_run);
        self.count
    }
}

/// Whether the tests have incremental files here, which plain `cargo test` leaves.
fn is_incremental() -> bool {
    let files = fs::read_dir(paths::cache().with_file_name("debug").join("incremental"));
    files.into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        name.to_str().and_then(|name| name.strip_prefix(END_TO_END_BINARY)).is_some_and(|hash| hash.starts_with('-'))
    })
}

/// Begins the release build on what the tests leave of the processor, which is half of it: they wait for processes and
/// clocks. `None` where that class of scheduling is not to be had; it is built later then.
fn release_aside() -> Option<Child> {
    let mut build = Command::new("chrt");
    build.args(["--idle", "0"]).arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--quiet", "--package", "palisade-cli"]).current_dir(paths::workspace());
    build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Each need on its own, so that one that can't be met hides no other.
fn provision() -> Result<Outcome> {
    let mut passed = true;
    for what in Need::ALL {
        match need(what) {
            Ok(()) => line(&format!("{}: there", what.name())),
            Err(error) => {
                line(&format!("error: {error:#}"));
                passed = false;
            }
        }
    }
    Ok(if passed { Outcome::passed() } else { Outcome::failed() })
}

/// To standard output, where the streamed output of the steps goes too, so that the order is kept.
fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_to_be_installed_every_step_is_told() {
        for no_provision in [false, true] {
            let arguments = Arguments { only: Vec::new(), filter: None, no_provision };
            let run = Run::new(&arguments).unwrap();
            for command in [run.bench().unwrap(), run.cargo(&["test"])] {
                let mut set = command.get_envs();
                let told = set.any(|(name, value)| name == "PALISADE_PROVISION" && value.is_some_and(|v| v == "never"));
                assert_eq!(told, no_provision, "{command:?}");
            }
        }
    }
}
