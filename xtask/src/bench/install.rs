//! The programs the comparison needs, from Debian's archive, when they are absent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use palisade_test::{apt, shell};

/// A program and the Debian package it comes in.
const PROGRAMS: &[(&str, &str)] = &[
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
    ("slowhttptest", "slowhttptest"),
    ("ip", "iproute2"),
];

/// Installs what is absent: the programs of every run, and `more`: programs, or files by their path, and their packages.
pub(super) fn ensure(more: &[(&str, &'static str)]) -> Result<()> {
    let is_there = |what: &str| if what.starts_with('/') { Path::new(what).exists() } else { find(what).is_some() };
    let wanted = PROGRAMS.iter().chain(more);
    let mut packages: Vec<&str> = wanted.filter(|(what, _)| !is_there(what)).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    // Their services are not started meanwhile.
    apt::install(&packages, "the bench runs on them; their services stay stopped and disabled")?;
    for service in ["nginx", "haproxy"] {
        if packages.contains(&service) && find("systemctl").is_some() {
            // Fails where systemd is not running (containers): there is nothing to disable there.
            let _ = privileged("systemctl", ["disable", "--now", "--quiet", service]);
        }
    }
    Ok(())
}

/// Where a program lies, also in the `sbin` folders that are not on a normal user's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// As [`find`], as an error that says what is missing.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("`{name}` is not installed"))
}

/// Runs a command as root: directly when we are root, else through a `sudo` that asks nothing.
pub(super) fn privileged<'a>(program: &'a str, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let words: Vec<&str> = std::iter::once(program).chain(args).collect();
    shell::run(&mut apt::as_root(&words)?)
}

/// Whether we run as root: owner of our own entry in /proc.
pub(super) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
