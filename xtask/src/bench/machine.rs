//! What the figures were measured on: machine, versions, date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::install;

/// The two cores of a run: the gateway's own, and the one of load generator and upstream.
#[derive(Clone, Copy)]
pub(super) struct Cores {
    /// Gateways, one at work at a time.
    pub(super) gateway: usize,
    /// Load generator and upstream.
    pub(super) load: usize,
}

impl Cores {
    /// Both, as a list.
    pub(super) fn both(self) -> String {
        format!("{},{}", self.gateway, self.load)
    }

    /// The first two cores this process may use.
    pub(super) fn choose() -> Result<Cores> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        match parse_list(list).as_slice() {
            [gateway, load, ..] => Ok(Cores { gateway: *gateway, load: *load }),
            _ => bail!("two cores are needed: one for the gateway, one for load generator and upstream"),
        }
    }
}

/// `0-2,5` of the kernel.
fn parse_list(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

/// Facts for the head of the report, in order of print. Of a palisade binary, also the folder that it was built to: its profile.
pub(super) fn facts(palisade: Option<&PathBuf>) -> BTreeMap<&'static str, String> {
    let mut facts = BTreeMap::new();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    };
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    facts.insert("cpu", format!("{} ({cores} cores)", field("model name").unwrap_or("unknown")));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    facts.insert("kernel", release.trim().to_owned());
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    facts.insert("system", name.trim_matches('"').to_owned());
    for (program, argument) in [
        ("nginx", "-v"),
        ("haproxy", "-v"),
        ("wrk", "-v"),
        ("h2load", "--version"),
        ("openssl", "version"),
        ("valgrind", "--version"),
    ] {
        if let Some(version) = version(program, argument) {
            facts.insert(program, version);
        }
    }
    if let Some((binary, version)) =
        palisade.and_then(|binary| Some((binary, said(&binary.to_string_lossy(), &["version"])?)))
    {
        let folder = binary.parent().and_then(Path::file_name).unwrap_or_default();
        facts.insert("palisade", format!("{version} ({})", folder.to_string_lossy()));
    }
    facts.insert("commit", said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(|| "unknown".to_owned()));
    facts.insert("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_default());
    facts
}

fn version(program: &str, argument: &str) -> Option<String> {
    let line = said(&install::find(program)?.to_string_lossy(), &[argument])?;
    // haproxy adds a web address, wrk its build options, openssl its library's version.
    let line =
        [" - http", " [", " (Library"].iter().fold(line.as_str(), |line, end| line.split(end).next().unwrap_or(line));
    Some(line.trim_start_matches("nginx version: ").to_owned())
}

/// The first line a program prints, on either stream (nginx uses the second).
pub(super) fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        for (list, cores) in [("0-1", vec![0, 1]), ("\t2,4-6", vec![2, 4, 5, 6]), ("3", vec![3]), ("", vec![])] {
            assert_eq!(parse_list(list), cores, "{list}");
        }
    }
}
