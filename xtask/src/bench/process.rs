//! Processes tied to one core, and what they cost: CPU time and memory of the whole tree.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::install;

/// Length of one step of `utime` and `stime` in µs. `USER_HZ` is 100 on every Linux this runs on.
const TICK_US: u64 = 10_000;

/// A command bound to one core that dies with us, whatever ends us.
pub(super) fn pinned(core: usize, program: &Path) -> Result<Command> {
    on(&core.to_string(), program)
}

/// The same under a class of scheduling, in options of `chrt`.
pub(super) fn scheduled(core: usize, class: &[&str; 2], program: &Path) -> Result<Command> {
    let mut command = pinned(core, &install::program("chrt")?)?;
    command.args(class).arg(program);
    Ok(command)
}

/// The same on a list of cores.
pub(super) fn on(cores: &str, program: &Path) -> Result<Command> {
    let mut command = Command::new(install::program("setpriv")?);
    command.args(["--pdeathsig", "TERM"]).arg(install::program("taskset")?).args(["--cpu-list", cores]);
    command.arg(program).stdin(Stdio::null());
    Ok(command)
}

/// The same pinned command run by another program, such as valgrind, which stands between the core and the command.
pub(super) fn under(runner: &[String], pinned: &Command) -> Command {
    let mut command = Command::new(pinned.get_program());
    let args: Vec<&OsStr> = pinned.get_args().collect();
    let own = args.iter().position(|word| *word == "--cpu-list").map_or(0, |at| at + 2);
    command.args(&args[..own]).args(runner).args(&args[own..]).stdin(Stdio::null());
    command
}

/// A server that runs until it is dropped.
pub(super) struct Server {
    child: Child,
    /// Its name in messages.
    pub(super) name: String,
    output: PathBuf,
}

impl Server {
    /// Starts a command with its standard output and error in `NAME.stdout` and `NAME.stderr` of `folder`.
    pub(super) fn start(name: &str, mut command: Command, folder: &Path) -> Result<Server> {
        let output = folder.join(format!("{name}.stderr"));
        let child = command
            .stdout(appending(&folder.join(format!("{name}.stdout")))?)
            .stderr(File::create(&output)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Server { child, name: name.to_owned(), output })
    }

    /// Asks `ready` until it has an answer. Fails when the server ends, or after `deadline`.
    pub(super) fn until<T>(&mut self, deadline: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, tail(&self.output));
            }
            if Instant::now() > end {
                bail!("{} was not ready within {deadline:?}:\n{}", self.name, tail(&self.output));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails when the server has ended, with its last words.
    pub(super) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, tail(&self.output)),
            None => Ok(()),
        }
    }

    /// CPU time of the process and its descendants, all threads.
    pub(super) fn cpu(&self) -> CpuTime {
        let mut total = CpuTime::default();
        for pid in tree(self.child.id()) {
            total.stat_us += stat(pid).map_or(0, |stat| stat.cpu_us);
            total.sched_us += sched_us(pid);
            total.processes += 1;
        }
        total
    }

    /// Resident memory of the tree in KiB, pages shared between its processes counted once (PSS).
    pub(super) fn memory_kib(&self) -> u64 {
        tree(self.child.id()).into_iter().map(pss_kib).sum()
    }

    /// Ends the server in its own orderly way and waits for it.
    pub(super) fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        signal("TERM", self.child.id());
        match wait(&mut self.child, deadline)? {
            Some(status) => Ok(status),
            None => bail!("{} did not end within {deadline:?} of SIGTERM", self.name),
        }
    }
}

impl Server {
    /// As [`Server::stop`], told to every process of the tree: what traces another one does not pass signals on.
    pub(super) fn stop_all(&mut self, deadline: Duration) -> Result<ExitStatus> {
        for pid in tree(self.child.id()).into_iter().skip(1) {
            signal("TERM", pid);
        }
        self.stop(deadline)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("TERM", self.child.id());
            if !matches!(wait(&mut self.child, Duration::from_secs(3)), Ok(Some(_))) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Runs a command to its end and returns what it printed; kills it at the deadline. `meanwhile` is called every 50 ms.
pub(super) fn output(
    mut command: Command,
    log: &Path,
    deadline: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<String> {
    let shown = shown(&command);
    let mut child = command
        .stdout(File::create(log)?)
        .stderr(File::options().append(true).open(log)?)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    // Waited for, not asked again and again: that took a tenth of the core that is measured.
    let pid = child.id();
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait()));
    let end = Instant::now() + deadline;
    let status = loop {
        match ended.recv_timeout(Duration::from_millis(50)) {
            Ok(status) => break status.with_context(|| format!("cannot wait for {shown}"))?,
            Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for {shown} any more"),
            Err(RecvTimeoutError::Timeout) => meanwhile(),
        }
        if Instant::now() > end {
            signal("KILL", pid);
            let _ = ended.recv();
            bail!("{shown} was still running after {deadline:?}");
        }
    };
    let printed = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if !status.success() {
        bail!("{shown} ended with {status}:\n{}", printed.trim_end());
    }
    Ok(printed)
}

/// A command as one would type it, without the two wrappers of [`pinned`].
pub(super) fn shown(command: &Command) -> String {
    let words: Vec<&OsStr> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let own = words.iter().position(|word| *word == "--cpu-list").map_or(0, |at| at + 2);
    let mut text = String::new();
    for (index, word) in words.iter().skip(own).enumerate() {
        let word = word.to_string_lossy();
        let word = if index == 0 { word.rsplit('/').next().unwrap_or(&word).to_owned() } else { word.into_owned() };
        if index > 0 {
            text.push(' ');
        }
        if word.contains([' ', '"', '{']) { text.push_str(&format!("'{word}'")) } else { text.push_str(&word) }
    }
    text
}

/// CPU time used so far, in µs, by two clocks of the kernel.
#[derive(Default, Clone, Copy)]
pub(super) struct CpuTime {
    /// `utime + stime`: complete, threads that ended included, in steps of 10 ms.
    stat_us: u64,
    /// Run time of the living threads: exact, but what ended is gone.
    sched_us: u64,
    processes: u64,
}

impl CpuTime {
    /// µs used between two readings. The exact clock where it agrees with the complete one, else the complete one.
    pub(super) fn since(self, before: CpuTime) -> u64 {
        let complete = self.stat_us.saturating_sub(before.stat_us);
        let exact = self.sched_us.saturating_sub(before.sched_us);
        // Each of a process's two counters may be off by a step at either end.
        if exact.abs_diff(complete) <= 2 * TICK_US * self.processes.max(1) { exact } else { complete }
    }
}

/// Time a core was busy since boot, in µs, whoever used it.
pub(super) fn core_busy_us(core: usize) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let label = format!("cpu{core} ");
    let Some(line) = text.lines().find_map(|line| line.strip_prefix(&label)) else { return 0 };
    let values: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all but the two idle ones.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| values.get(index)).sum::<u64>() * TICK_US
}

/// Sends a signal by name.
pub(super) fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// An empty file that is written at its end, so that it can be emptied while a server writes to it.
fn appending(path: &Path) -> Result<File> {
    let _ = fs::remove_file(path);
    File::options().create(true).append(true).open(path).with_context(|| format!("cannot create {}", path.display()))
}

/// The last lines of a file, for messages.
pub(super) fn tail(file: &Path) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

struct Stat {
    parent: u32,
    cpu_us: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): the second field is the program's name in brackets, which may hold spaces and brackets itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, cpu_us: (number(11)? + number(12)?) * TICK_US })
}

fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn sched_us(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks
        .filter_map(|task| {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
        })
        .sum::<u64>();
    nanoseconds / 1000
}

fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_name_with_brackets_and_spaces() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 4 0 100 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.cpu_us), (7, 420_000));
        assert!(parse_stat("42 (a S").is_none());
    }

    #[test]
    fn the_exact_clock_counts_unless_a_thread_has_gone() {
        let at = |stat_us, sched_us| CpuTime { stat_us, sched_us, processes: 1 };
        assert_eq!(at(110_000, 107_123).since(at(10_000, 5_000)), 102_123);
        assert_eq!(at(510_000, 107_123).since(at(10_000, 5_000)), 500_000);
    }

    #[test]
    fn a_command_is_shown_without_its_wrappers() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "TERM", "/usr/bin/taskset", "--cpu-list", "1", "/usr/bin/wrk", "-H", "A: b"]);
        assert_eq!(shown(&command), "wrk -H 'A: b'");
    }
}
