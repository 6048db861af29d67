//! Process groups: who is in one, and ending them as one. Read from `/proc`, since a group cannot be waited for.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    ended: bool,
    /// In ticks since the machine started: with it a number names one process for ever.
    started: u64,
}

/// Processes that an application started and that left its group.
#[derive(Debug, Default)]
pub(super) struct Outside(Vec<Process>);

/// A process id of the standard library's as a signal takes it.
pub(super) fn pid(id: u32) -> Pid {
    // Process ids of Linux are at most 2^22.
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

/// Sends a signal to all of a group. Its leader is not yet reaped, so the number is still its own.
pub(super) fn signal(group: Pid, signal: Signal) {
    let _ = signal::killpg(group, signal);
}

/// Whether all of a group have ended.
pub(super) fn is_over(group: Pid) -> bool {
    !processes().iter().any(|process| process.group == group.as_raw() && !process.ended)
}

/// Ends what remains of a group whose leader has ended by itself.
pub(super) fn end_rest(group: Pid, timeout: Duration) {
    if is_over(group) {
        return;
    }
    signal(group, Signal::SIGTERM);
    let end = Instant::now() + timeout;
    while !is_over(group) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(group, Signal::SIGKILL);
}

/// The descendants of a group's leader that are not in the group.
pub(super) fn outside(group: Pid) -> Outside {
    let all = processes();
    let mut family = vec![group.as_raw()];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        next += 1;
        for child in all.iter().filter(|process| process.parent == parent) {
            // A process has one parent, so nobody is met twice, but numbers may be reused while `/proc` is read.
            if !family.contains(&child.pid) {
                family.push(child.pid);
                found.extend((child.group != group.as_raw()).then_some(*child));
            }
        }
    }
    Outside(found)
}

impl Outside {
    /// Kills those that still run.
    pub(super) fn kill(&self) {
        for process in &self.0 {
            // The same number at the same start is the same process.
            if read(process.pid).is_some_and(|now| now.started == process.started && !now.ended) {
                let _ = signal::kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
    }
}

/// Reaps processes that were handed to the first process of a container, as an init does; `own` are awaited elsewhere.
pub(super) fn reap_strangers(own: &[u32]) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // A bound, not a pace: what is left comes at the next call.
    for _ in 0..1_000 {
        let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, flags) else { return };
        if own.iter().any(|&id| self::pid(id) == pid) || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn read(pid: i32) -> Option<Process> {
    let text = std::fs::read(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    parse(&String::from_utf8_lossy(&text))
}

/// `PID (NAME) STATE PPID PGRP … STARTTIME`: the name may hold spaces and parentheses, so the last one counts.
fn parse(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X" | "x"),
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let rest = "S 7 11 11 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2";
        for name in ["uvicorn", "a b", "x) Z 1 1", "((", ""] {
            let process = parse(&format!("42 ({name}) {rest}")).unwrap();
            assert_eq!(process, Process { pid: 42, parent: 7, group: 11, ended: false, started: 4711 }, "{name}");
        }
        assert!(parse(&format!("42 (x) {}", rest.replacen('S', "Z", 1))).unwrap().ended);
        for broken in ["", "42", "42 (x", "42 (x) S", "x (x) S 1 2"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn we_are_among_them() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(processes().iter().any(|process| process.pid == own && !process.ended));
        assert!(!is_over(nix::unistd::getpgrp()));
    }
}
