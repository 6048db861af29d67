//! `cargo xtask dist`: the binary as it is published, optimised for what a gateway does most (profile-guided, PGO).
//!
//! The program is compiled with counters, serves a minute of load, and is compiled again with the counts. What runs for
//! every request then lies together and fits into the processor's first cache, which is what small requests wait for
//! (docs/src/speed.md).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for the terminal: the path on stdout")]

mod profdata;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::bench;

const PALISADE: [&str; 2] = ["--package", "palisade-cli"];
/// The profile of what is published. Both builds are of it: functions have other names in another, and counts no meaning.
pub(crate) const PUBLISHED: &str = "published";

/// Options of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Counts once more, where counts of this code are there already.
    #[arg(long)]
    again: bool,
}

/// Builds it and prints where it lies.
///
/// # Errors
/// When one of the two builds, the load between them, or `llvm-profdata` fails.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the xtask crate has no folder above it")?;
    println!("{}", build(root, arguments.again)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds `target/dist/palisade`. What has not changed since the last time is not done again, unless `again` asks for it.
///
/// # Errors
/// As [`run`].
pub(crate) fn build(root: &Path, again: bool) -> Result<PathBuf> {
    // Asked for first: it may have to be installed, and who cannot has lost minutes otherwise.
    let merge = profdata::find()?;
    let folder = target(root)?.join("dist");
    let counts = folder.join("counts");
    fs::create_dir_all(&counts)?;

    eprintln!("dist: 1 of 3: building with counters");
    let counting = format!("-Cprofile-generate={}", counts.display());
    let counting = with_flags(root, &folder.join("counting"), &[&counting])?;
    let profile = folder.join("palisade.profdata");
    if again || older(&profile, &counting)? {
        fs::remove_dir_all(&counts)?;
        fs::create_dir_all(&counts)?;
        eprintln!("dist: 2 of 3: a minute of load");
        bench::train(&counting)?;
        profdata::merge(&merge, &counts, &profile)?;
    } else {
        eprintln!("dist: 2 of 3: the counts in {} are of this code", profile.display());
    }

    eprintln!("dist: 3 of 3: building with the counts");
    // What was not counted is kept as it would be without counts, not made small: a password is seldom hashed.
    let counted = format!("-Cprofile-use={}", profile.display());
    // Relocations take a bit, not 24 bytes, of a page that is read when the program starts: less memory. glibc 2.36 reads them.
    let packed = "-Clink-arg=-Wl,-z,pack-relative-relocs";
    let mut flags = vec![counted.as_str(), "-Cllvm-args=-pgso=false"];
    flags.extend(host()?.ends_with("linux-gnu").then_some(packed));
    let built = with_flags(root, &folder.join("counted"), &flags)?;
    let binary = folder.join("palisade");
    fs::copy(&built, &binary).with_context(|| format!("cannot write {}", binary.display()))?;
    Ok(binary)
}

/// Builds into a target folder of its own, with flags for all code of the program and none for what runs while it is built.
fn with_flags(root: &Path, target: &Path, flags: &[&str]) -> Result<PathBuf> {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags: Vec<&str> = own.split_whitespace().chain(flags.iter().copied()).collect();
    let mut cargo = cargo(root);
    cargo.args(["build", "--locked", "--features", "jemalloc", "--target", &host()?, "--target-dir"]).arg(target);
    // A path among them may have spaces.
    compile(cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).args(PALISADE), PUBLISHED, "palisade")
}

/// `cargo build --release`, as anybody builds it.
///
/// # Errors
/// When it fails.
pub(crate) fn plainly(root: &Path) -> Result<PathBuf> {
    compile(cargo(root).arg("build").args(PALISADE), "release", "palisade")
}

/// Adds the profile, and says where the program lies that cargo made (cargo alone knows).
///
/// # Errors
/// When it fails, or makes no program of that name.
pub(crate) fn compile(cargo: &mut Command, profile: &str, name: &str) -> Result<PathBuf> {
    let output = cargo
        .args(["--profile", profile, "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "{name} could not be built");
    let lines = String::from_utf8_lossy(&output.stdout);
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program named `{name}`"))
}

/// Cargo, in the folder of the workspace.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// The folder that cargo builds into, which its configuration or the environment may have moved.
fn target(root: &Path) -> Result<PathBuf> {
    let output = cargo(root).args(["metadata", "--format-version=1", "--no-deps"]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target folder")
}

/// What `rustc -vV` says behind a name, such as `host`.
fn rustc(name: &str) -> Result<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")) {
        Some(value) => Ok(value.to_owned()),
        None => bail!("`rustc -vV` says nothing of `{name}`:\n{said}"),
    }
}

fn host() -> Result<String> {
    rustc("host")
}

/// Whether the first file was made before the second, or is not there.
fn older(first: &Path, second: &Path) -> Result<bool> {
    let Ok(first) = fs::metadata(first) else { return Ok(true) };
    Ok(first.modified()? < fs::metadata(second)?.modified()?)
}
