//! A process that a test started: awaited by condition, stopped by handle, gone at the end whatever happens.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::memory::{self, Memory};
use crate::output::{Output, Stream};
use crate::{eventually, watchdog};

/// What was sent SIGKILL ends within this time, or nothing can be done about it.
const ENDS: Duration = Duration::from_secs(10);

/// A running program with all it started, in a process group of its own. Dropping it kills the lot.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    output: Output,
    watched: AtomicBool,
}

impl Process {
    /// Starts a program with nothing on its standard input; its output is collected.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(mut command: Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let pid = child.id();
        watchdog::watch(pid);
        let output = Output::default();
        if let Some(out) = child.stdout.take() {
            output.read(out, Stream::Out);
        }
        if let Some(err) = child.stderr.take() {
            output.read(err, Stream::Err);
        }
        Ok(Process { name, pid, child: Mutex::new(child), output, watched: AtomicBool::new(true) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// What it has printed.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Its memory, without that of what it started.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<Memory> {
        memory::resident_memory(self.pid)
    }

    /// What it started, and they in turn.
    pub fn descendants(&self) -> Vec<u32> {
        memory::descendants(self.pid)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let status = self.child().try_wait().ok().flatten();
        if status.is_some() {
            self.forget();
        }
        status
    }

    /// Once, and at once when it has ended: its number may soon be another's.
    fn forget(&self) {
        if self.watched.swap(false, Ordering::SeqCst) {
            watchdog::forget(self.pid);
        }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it has not within the deadline.
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        eventually(deadline, &format!("`{}` ends", self.name), async || self.ended())
            .await
            .with_context(|| self.output.tail())
    }

    /// Sends a signal to the process alone, as an init system would to its main process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child();
        // Under the lock: nobody else waits for it, so that its number is still its own.
        signal::kill(pid(child.id()), signal).with_context(|| format!("{signal} to `{}`", self.name))
    }

    /// Sends a signal to its group, as a terminal does at Ctrl-C.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        let child = self.child();
        signal::killpg(pid(child.id()), signal).with_context(|| format!("{signal} to the group of `{}`", self.name))
    }

    /// Asks it to end with SIGTERM, and after the deadline kills it and all it started.
    ///
    /// The status says which it was: [`killed`] is true for the second.
    ///
    /// # Errors
    /// When it can't be awaited at all.
    pub async fn stop(&self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Ok(status) = self.wait(deadline).await {
            return Ok(status);
        }
        self.kill();
        self.wait(Duration::from_secs(10)).await
    }

    /// Kills it, its group and all it started in groups of their own.
    pub fn kill(&self) {
        let mut child = self.child();
        if let Ok(Some(_)) = child.try_wait() {
            self.forget();
            return;
        }
        // Stopped first, so that no child is born between looking and killing.
        let _ = signal::kill(pid(child.id()), Signal::SIGSTOP);
        let started = memory::descendants(child.id());
        for id in &started {
            let _ = signal::kill(pid(*id), Signal::SIGKILL);
        }
        let _ = signal::killpg(pid(child.id()), Signal::SIGKILL);
        let _ = child.wait();
        self.forget();
        // What it started is not ours to wait for, and on a busy machine ends later; until then it holds memory and ports
        // that the next one wants.
        let patience = Instant::now() + ENDS;
        while started.iter().any(|id| lives(*id)) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process was ended by SIGKILL.
pub fn killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

/// Whether a process is there and has not ended. What nobody has taken note of yet holds nothing any more.
fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Kills a process that is not a child of ours.
pub(crate) fn kill_other(id: u32) {
    let _ = signal::kill(pid(id), Signal::SIGKILL);
}

fn pid(id: u32) -> Pid {
    // Process ids of Linux are at most 2^22.
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const SECONDS: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command).unwrap()
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
    }

    #[tokio::test]
    async fn output_and_exit_code() {
        let process = sh("echo hello; echo there >&2; exit 7");
        assert_eq!(process.wait(SECONDS).await.unwrap().code(), Some(7));
        let found =
            process.output().find(SECONDS, "there", |line| (line.stream == Stream::Err).then(|| line.text.to_string()));
        assert_eq!(found.await.unwrap(), "there");
        assert!(process.output().contains("hello"));
    }

    #[tokio::test]
    async fn stop_asks_first_and_then_kills() {
        // A shell that starts a program just then may lose a signal.
        let polite = sh("trap 'kill $!; echo bye; exit 0' TERM; sleep 1000 & echo ready; while :; do wait; done");
        polite.output().find(SECONDS, "ready", |line| line.text.contains("ready").then_some(())).await.unwrap();
        assert_eq!(polite.stop(SECONDS).await.unwrap().code(), Some(0));

        let deaf = sh("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        deaf.output().find(SECONDS, "ready", |line| line.text.contains("ready").then_some(())).await.unwrap();
        assert!(killed(deaf.stop(Duration::from_millis(50)).await.unwrap()));
    }

    #[tokio::test]
    async fn nothing_it_started_stays() {
        // The second is in a group of its own, as a supervised app is.
        let process = sh("sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait");
        let mut pids = Vec::new();
        process
            .output()
            .find(SECONDS, "two ids", |line| {
                pids.extend(line.text.parse::<u32>());
                (pids.len() == 2).then_some(())
            })
            .await
            .unwrap();
        eventually(SECONDS, "both are seen", async || process.descendants().len() == 2).await.unwrap();
        drop(process);
        assert!(!pids.iter().any(|&pid| alive(pid)), "both are gone");
    }

    #[tokio::test]
    async fn the_watchdog_ends_what_is_left_when_the_tests_are_killed() {
        const INSIDE: &str = "PALISADE_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            let process = sh("sleep 1000");
            println!("started {}", process.id());
            let _ = process.wait(Duration::from_secs(60)).await;
            return;
        }
        // This test once more, as a process of its own, which is then killed.
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "process::tests::the_watchdog_ends_what_is_left_when_the_tests_are_killed";
        command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
        let tests = Process::spawn(command).unwrap();
        // libtest prints the name of a test without a line's end first.
        let started =
            tests.output().find(SECONDS, "its id", |line| line.text.split_once("started ")?.1.parse::<u32>().ok());
        let started = started.await.unwrap();
        assert!(alive(started));
        tests.signal(Signal::SIGKILL).unwrap();
        eventually(SECONDS, "it is gone", async || !alive(started)).await.unwrap();
    }
}
