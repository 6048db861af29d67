//! The programs the comparison needs, from Debian's archive, when they are absent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

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

/// Answers `invoke-rc.d` with "action forbidden", so that no installed service starts by itself.
const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";

/// Installs what is absent: the programs of every run, and `more`: programs, or files by their path, and their packages.
pub(super) fn ensure(more: &[(&str, &'static str)]) -> Result<()> {
    let is_there = |what: &str| if what.starts_with('/') { Path::new(what).exists() } else { find(what).is_some() };
    let wanted = PROGRAMS.iter().chain(more);
    let mut packages: Vec<&str> = wanted.filter(|(what, _)| !is_there(what)).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("bench: installing with apt-get: {} (their services stay stopped and disabled)", packages.join(" "));
    let denied = forbid_service_starts()?;
    let installed = apt(&packages);
    if denied {
        privileged("rm", ["-f", POLICY_RC_D])?;
    }
    installed?;
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

/// Installs packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    // Another apt may be at work, on a machine that was just set up for instance.
    const PATIENT: [&str; 2] = ["-o", "DPkg::Lock::Timeout=300"];
    privileged("apt-get", [&PATIENT[..], &["update", "-qq"]].concat())?;
    let mut args = [&PATIENT[..], &["install", "-y", "-qq", "--no-install-recommends"]].concat();
    args.extend(packages);
    privileged("apt-get", args)
}

/// True when this call put the file there, and so has to take it away again.
fn forbid_service_starts() -> Result<bool> {
    if Path::new(POLICY_RC_D).exists() {
        return Ok(false);
    }
    privileged("sh", ["-c", &format!("printf '#!/bin/sh\\nexit 101\\n' > {POLICY_RC_D} && chmod 755 {POLICY_RC_D}")])?;
    Ok(true)
}

/// Runs a command as root: directly when we are root, else through `sudo`.
pub(super) fn privileged<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", program]);
        sudo
    };
    let status = command
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{program}`: this needs root or sudo"))?;
    if !status.success() {
        bail!("`{program}` ended with {status}");
    }
    Ok(())
}

/// Whether we run as root: owner of our own entry in /proc.
pub(super) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
