//! A server that tests stop, kill, freeze and start again: on the same port, over the same data.

use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::process::Process;

/// A start, a recovery after a kill included, is over within this time also on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// So is an orderly end.
const STOP: Duration = Duration::from_secs(60);

/// What distinguishes one program from another.
pub(crate) struct Program {
    /// For messages.
    pub(crate) name: &'static str,
    /// How it is started, each time the same.
    pub(crate) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// What it prints once it accepts connections.
    pub(crate) ready: &'static str,
    /// What makes it end in order without waiting for its clients.
    pub(crate) stop: Signal,
}

/// A program, running or not. It runs again on the same port and over the same data.
pub struct Service {
    program: Program,
    process: Mutex<Arc<Process>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.program.name).field("pid", &self.process().id()).finish()
    }
}

impl Service {
    /// Starts the program and waits until it accepts connections.
    pub(crate) async fn start(program: Program) -> Result<Service> {
        let process = Arc::new(started(&program).await?);
        Ok(Service { program, process: Mutex::new(process) })
    }

    /// The process that runs, or ran last: another one after each [`Service::restart`].
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it runs, frozen or not.
    pub fn runs(&self) -> bool {
        self.process().ended().is_none()
    }

    /// Ends it in order: clients are disconnected, and its port refuses.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&self) -> Result<ExitStatus> {
        let process = self.process();
        if let Some(status) = process.ended() {
            return Ok(status);
        }
        // Whoever is frozen can't end in order.
        self.resume()?;
        process.signal(self.program.stop)?;
        process.wait(STOP).await
    }

    /// Ends it and all it started with SIGKILL, as a crash would.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Freezes it and all it started with SIGSTOP: the system goes on accepting connections for it, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        let process = self.process();
        // First the one that starts others, so that none is missed.
        process.signal(Signal::SIGSTOP)?;
        signal_all(&process, Signal::SIGSTOP);
        Ok(())
    }

    /// Lets it go on after [`Service::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        let process = self.process();
        signal_all(&process, Signal::SIGCONT);
        process.signal(Signal::SIGCONT)
    }

    /// Ends it in order, if it still runs, and starts it again; after [`Service::kill`] it recovers first.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        let process = Arc::new(started(&self.program).await?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }
}

async fn started(program: &Program) -> Result<Process> {
    let process = Process::spawn((program.command)())?;
    let ready = process.output().find(START, program.ready, |line| line.text.contains(program.ready).then_some(()));
    ready.await.with_context(|| format!("{} does not start", program.name))?;
    Ok(process)
}

fn signal_all(process: &Process, signal: Signal) {
    for pid in process.descendants() {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = signal::kill(Pid::from_raw(pid), signal);
        }
    }
}
