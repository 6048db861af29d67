//! Debian packages: installed without a question and without starting what they bring.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::provision::is_forbidden;
use crate::shell::{first_line, has, run, say};

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Named in the file, so that one left by an interrupted run is known as ours and removed by the next.
const POLICY_TEXT: &str = "#!/bin/sh\n# by palisade-test, while it installs packages\nexit 101\n";

/// Installs packages, saying so and why.
///
/// # Errors
/// Without apt, without root or a `sudo` that asks nothing, where nothing may be installed, or when apt fails.
pub fn install(packages: &[&str], why: &str) -> Result<()> {
    allowed(packages, why, is_forbidden())?;
    say(&format!("installing: {} ({why})", packages.join(", ")));
    update()?;
    let _guard = NoServices::new(Path::new(POLICY))?;
    run(as_root(&["apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])?
        .args(packages))
}

/// Unpacks a package into a folder without installing it: no service, no user, no trace in the system.
///
/// # Errors
/// When it can't be downloaded or unpacked, or nothing may be installed.
pub fn unpack(package: &str, folder: &Path, why: &str) -> Result<()> {
    allowed(&[package], why, is_forbidden())?;
    say(&format!("installing: {package}, unpacked into {} ({why})", folder.display()));
    update()?;
    fs::create_dir_all(folder)?;
    run(Command::new("apt-get").args(["download", package]).current_dir(folder))?;
    let deb = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no package for `{package}`"))?;
    run(Command::new("dpkg").arg("-x").arg(&deb).arg(folder))?;
    fs::remove_file(deb).context("removing the downloaded package")
}

/// Says what is missing where it must not be installed.
fn allowed(packages: &[&str], why: &str, forbidden: bool) -> Result<()> {
    if forbidden {
        bail!("missing: {} ({why}), and `PALISADE_PROVISION=never`: install it by hand", packages.join(", "));
    }
    Ok(())
}

/// Once in a process, and only if something is to be installed at all.
fn update() -> Result<()> {
    static ONCE: Once = Once::new();
    if !has("apt-get") {
        bail!("`apt-get` is not there: on other systems, install the named packages by hand");
    }
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = as_root(&["apt-get", "update", "--quiet", "-o", "DPkg::Lock::Timeout=300"])
            .and_then(|mut command| run(&mut command));
    });
    result
}

/// A command with the rights and the environment an installation needs, which asks nothing. `RUNLEVEL=1` keeps init scripts
/// from starting what was installed.
///
/// # Errors
/// Without root or a `sudo` that asks for no password.
pub fn as_root(command: &[&str]) -> Result<Command> {
    let mut words = Vec::new();
    if first_line(Command::new("id").arg("-u")).as_deref() != Some("0") {
        // `-n`: fail rather than ask for a password.
        if first_line(Command::new("sudo").args(["-n", "id", "-u"])).as_deref() != Some("0") {
            bail!("this needs root: run it as root, or with a `sudo` that asks for no password");
        }
        words.extend(["sudo", "-n"]);
    }
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]);
    words.extend(command);
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    Ok(command)
}

/// Under systemd only `policy-rc.d` keeps a package from starting its service. One that is there already stays.
struct NoServices<'a> {
    /// The file, if it is ours to remove.
    ours: Option<&'a Path>,
}

impl<'a> NoServices<'a> {
    fn new(policy: &'a Path) -> Result<Self> {
        if policy.exists() {
            let left_by_us = fs::read_to_string(policy).is_ok_and(|text| text == POLICY_TEXT);
            return Ok(NoServices { ours: left_by_us.then_some(policy) });
        }
        let path = policy.to_string_lossy();
        let mut tee = as_root(&["tee", &path])?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let guard = NoServices { ours: Some(policy) };
        tee.stdin.take().context("a pipe to `tee`")?.write_all(POLICY_TEXT.as_bytes())?;
        if !tee.wait()?.success() {
            bail!("cannot write {path}");
        }
        run(&mut as_root(&["chmod", "755", &path])?)?;
        Ok(guard)
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if let Some(policy) = self.ours
            && let Ok(mut command) = as_root(&["rm", "-f", &policy.to_string_lossy()])
        {
            let _ = run(&mut command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_must_not_be_installed_is_named() {
        assert!(allowed(&["wrk", "nginx"], "the bench", false).is_ok());
        let said = allowed(&["wrk", "nginx"], "the bench", true).unwrap_err().to_string();
        for part in ["wrk, nginx", "the bench", "PALISADE_PROVISION=never"] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }

    #[test]
    fn the_policy_against_services_is_removed_only_if_it_is_ours() {
        if as_root(&["true"]).is_err() {
            return crate::not_run("neither root nor a `sudo` that asks nothing");
        }
        let folder = std::env::temp_dir().join(format!("palisade-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let policy = folder.join("policy-rc.d");

        let guard = NoServices::new(&policy).unwrap();
        assert_eq!(fs::metadata(&policy).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
        drop(guard);
        assert!(!policy.exists());

        // Left by a run that was killed.
        fs::write(&policy, POLICY_TEXT).unwrap();
        drop(NoServices::new(&policy).unwrap());
        assert!(!policy.exists());

        // The system's own.
        fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::new(&policy).unwrap());
        assert!(policy.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
