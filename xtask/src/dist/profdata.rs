//! `llvm-profdata`, of the LLVM that the compiler has: it merges what the counters wrote.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use palisade_test::{apt, provision};

use crate::bench::install;

const NAME: &str = "llvm-profdata";

/// Where it lies; installs it where that can be done. Files of one LLVM are not always read by another.
pub(super) fn find() -> Result<PathBuf> {
    let llvm = super::rustc("LLVM version")?;
    let major = llvm.split('.').next().unwrap_or(&llvm).to_owned();
    if let Some(found) = there(&major)? {
        return Ok(found);
    }
    if !provision::is_forbidden() {
        eprintln!(
            "dist: installing {NAME} of LLVM {major} (rustup's component llvm-tools, or the package llvm-{major})"
        );
        let rustup = Command::new("rustup").args(["component", "add", "llvm-tools"]).stdout(Stdio::null()).status();
        if !rustup.is_ok_and(|status| status.success()) {
            // Said below, where it matters.
            let _ = apt::install(&[&format!("llvm-{major}")], "it merges what the counters wrote");
        }
    }
    there(&major)?.with_context(|| {
        format!(
            "there is no {NAME} of LLVM {major}: `rustup component add llvm-tools` brings it, or a package llvm-{major}"
        )
    })
}

fn there(major: &str) -> Result<Option<PathBuf>> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let component = sysroot.join("lib/rustlib").join(super::host()?).join("bin").join(NAME);
    let package = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/{NAME}"));
    let all = [component, package].into_iter().chain(install::find(&format!("{NAME}-{major}")));
    Ok(all.into_iter().find(|path| path.is_file()))
}

/// Makes one file of all in a folder.
pub(super) fn merge(program: &Path, counts: &Path, out: &Path) -> Result<()> {
    let status = Command::new(program)
        .args(["merge", "--sparse", "--output"])
        .args([out, counts])
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{} could not merge {}", program.display(), counts.display());
    Ok(())
}
