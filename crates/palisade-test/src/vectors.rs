//! Published test vectors, which lie beside the workspace and are never copied into it.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::paths;

/// The folder `../shared/NAME`, or `None` (after [`not_run`]) where it is absent.
///
/// # Panics
/// When it is absent and `CI=true`.
pub fn vectors(name: &str) -> Option<PathBuf> {
    let folder = paths::workspace().join("../shared").join(name);
    if folder.exists() {
        return Some(folder);
    }
    not_run(&format!("the vectors `{name}` are not beside the workspace"));
    None
}

/// Says that a test did not run, and why. `cargo xtask test` counts it as skipped instead of passed.
///
/// # Panics
/// When `CI=true`: there, what cannot run has failed.
pub fn not_run(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("NOT RUN: {test}: {reason}\n");
    assert!(env::var("CI").as_deref() != Ok("true"), "{line}");
    // To the stream itself, since what a passing test prints is not shown.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(file) = env::var_os("PALISADE_NOT_RUN")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(file)
    {
        // One write, so that lines of several processes don't mix.
        let _ = file.write_all(line.as_bytes());
    }
}
