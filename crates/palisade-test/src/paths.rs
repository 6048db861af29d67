//! Where things are: the workspace, the cache of what was installed, the binary under test.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
///
/// Taken from where this crate was compiled, so that it holds for any current directory a test is started in.
pub fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// A folder or file under `tests/`, such as `apps/plausible`.
pub fn tests(relative: &str) -> PathBuf {
    workspace().join("tests").join(relative)
}

/// What [`crate::provision`] installed: `target/palisade-test`, which `cargo clean` empties with the rest.
pub fn cache() -> PathBuf {
    target().join("palisade-test")
}

fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// The binary under test: `PALISADE_BIN`, which `cargo xtask test` sets, or the one that `cargo build` left.
///
/// # Errors
/// When there is none; the message says how to get it.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os("PALISADE_BIN") {
        Some(path) => PathBuf::from(path),
        None => target().join("debug/palisade"),
    };
    if !path.is_file() {
        bail!(
            "no binary to test at `{}`: run `cargo xtask test`, or set `PALISADE_BIN`; \
             `cargo build -p palisade-cli` makes it",
            path.display()
        );
    }
    path.canonicalize().with_context(|| format!("`{}`", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_where_the_crates_are() {
        assert!(super::workspace().join("crates/palisade-test/Cargo.toml").is_file());
        assert!(super::tests("apps").is_dir());
    }
}
