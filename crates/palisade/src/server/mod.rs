//! The server round the stack: listeners, TLS, connections, draining.

mod connection;
mod listen;
mod local_ca;
pub mod request_id;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_base::Clock;
use palisade_policy::{Problems, Sources};
use tokio::sync::watch;

use crate::context::Listener;
use crate::error::Result;
use crate::live::{Handle, Target};
use crate::observe::event;
use crate::policy::values::Listen;
use crate::policy::{Env, Situation};

pub use listen::Bound;

/// How a server is doing.
#[derive(Debug)]
pub struct ServerState {
    ready: AtomicBool,
    phase: watch::Sender<Phase>,
    connections: AtomicUsize,
}

/// The life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are accepted.
    Serving,
    /// `/ready` fails, connections are still accepted.
    LameDuck,
    /// Nothing is accepted; requests finish.
    Draining,
    /// What still runs is cut.
    Ended,
}

impl Default for ServerState {
    fn default() -> Self {
        Self {
            ready: AtomicBool::new(false),
            phase: watch::channel(Phase::Serving).0,
            connections: AtomicUsize::new(0),
        }
    }
}

impl ServerState {
    /// Whether `/ready` succeeds.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && *self.phase.borrow() == Phase::Serving
    }

    /// The phase of its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns once a phase has come.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = (*now).max(phase);
            later
        });
    }
}

/// The state of the server that an environment belongs to.
pub fn state(env: &Env) -> Arc<ServerState> {
    env.state.get("server", ServerState::default)
}

/// A server in the making: a policy, and what it protects.
#[derive(Debug)]
pub struct Palisade {
    sources: Sources,
    situation: Situation,
    target: Target,
    clock: Clock,
}

impl Palisade {
    /// A server under the policy of a file; variables `PALISADE__…` of the environment override it.
    ///
    /// # Errors
    /// The file's problems, with file, line, cause and fix. They are found again, if the file changed, when it serves.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self> {
        let sources = Sources::new().file(path).environment(std::env::vars_os());
        crate::live::read(&sources).map_err(crate::Error::Policy)?;
        Ok(Self::from_sources(sources))
    }

    /// A server under the policy of these sources.
    pub fn from_sources(sources: Sources) -> Self {
        Self { sources, situation: Situation::default(), target: Target::Policy, clock: Clock::real() }
    }

    /// Starts the controls that judge in `detect`.
    pub fn detect(mut self, detect: bool) -> Self {
        self.situation.detect = detect;
        self
    }

    /// What requests are passed to.
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Protects a router, until SIGTERM or Ctrl-C has drained it. Runs on the caller's runtime.
    ///
    /// # Errors
    /// When the policy is not in order, a certificate cannot be used, or a port is taken.
    pub async fn serve(self, router: axum::Router) -> Result<()> {
        let (running, problems) = self.target(Target::Router(router)).start()?;
        if !problems.is_empty() {
            event::LISTENING.line(running.handle.log()).str("warnings", &problems.render(false));
        }
        for bound in &running.bound {
            bound.serve_here(&running.handle)?;
        }
        running.ready();
        running.until_signal().await;
        Ok(())
    }

    /// Reads the policy, opens the listeners and starts nothing yet.
    ///
    /// # Errors
    /// When the policy is not in order, a certificate cannot be used, or a port is taken.
    pub fn start(self) -> Result<(Running, Problems)> {
        let embedded = matches!(self.target, Target::Router(_));
        let (handle, problems) = Handle::start(self.sources, self.target, self.situation, self.clock)?;
        // Before any port: one that is taken by a gateway on the same state is better told from this end.
        let control = match crate::control_socket::open(&handle) {
            // An application may run more than one of its kind in a directory; commands reach the first.
            Err(crate::Error::State(reason)) if embedded => {
                event::STATE.line(handle.log()).str("reason", &reason);
                None
            }
            opened => opened?,
        };
        if control.is_some() {
            crate::operate::restore(&handle);
        }
        let bound = listen::bind(&handle)?;
        Ok((Running { handle, bound, control }, problems))
    }
}

/// A server whose listeners are open.
#[derive(Debug)]
pub struct Running {
    /// The policy in force.
    pub handle: Arc<Handle>,
    /// The listeners.
    pub bound: Vec<Bound>,
    /// The state directory and its control socket, where it can be written.
    pub control: Option<crate::control_socket::Opened>,
}

impl Running {
    /// Starts `workers` threads, each with a runtime and listeners of its own: a connection stays on its core.
    ///
    /// # Errors
    /// When a thread or runtime cannot be made.
    pub fn start_workers(&self) -> Result<Vec<std::thread::JoinHandle<()>>> {
        let configured = self.handle.live().policy.config().server.workers;
        let workers = configured.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let mut threads = Vec::with_capacity(workers);
        for number in 0..workers {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let guard = runtime.enter();
            for bound in &self.bound {
                bound.serve_here(&self.handle)?;
            }
            drop(guard);
            let state = state(self.handle.live().policy.env());
            let run = move || runtime.block_on(state.reached(Phase::Ended));
            threads.push(std::thread::Builder::new().name(format!("palisade-io-{number}")).spawn(run)?);
        }
        Ok(threads)
    }

    /// Says that everything is up, and answers commands on the current runtime.
    pub fn ready(&self) {
        if let Some(control) = &self.control {
            control.serve_here(&self.handle);
        }
        for bound in &self.bound {
            crate::status::listening(self.handle.live().policy.env(), bound.name(), bound.address().to_string());
            event::LISTENING.line(self.handle.log()).str("listener", bound.name()).show("address", bound.address());
        }
        state(self.handle.live().policy.env()).ready.store(true, Ordering::Relaxed);
        drop(event::READY.line(self.handle.log()));
    }

    /// Waits for SIGTERM or SIGINT, reloading at SIGHUP, and drains.
    pub async fn until_signal(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
        else {
            return;
        };
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => drop(self.handle.reload()),
            }
        }
        self.drain().await;
    }

    /// Leaves: `/ready` fails at once, connections are accepted for `lame_duck`, then requests finish within `drain`.
    pub async fn drain(&self) {
        let live = self.handle.live();
        let state = state(live.policy.env());
        let server = &live.policy.config().server;
        // A developer who presses Ctrl-C has no balancer to wait for.
        let lame_duck = if server.is_development() { Duration::ZERO } else { server.lame_duck.duration() };
        let end = tokio::time::Instant::now() + server.drain.duration();
        drop(event::DRAINING.line(self.handle.log()));
        state.enter(Phase::LameDuck);
        tokio::time::sleep(lame_duck).await;
        state.enter(Phase::Draining);
        let tunnels = live.policy.env().state.get("tunnels", crate::gateway::Tunnels::default);
        while state.connections() > tunnels.count() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tunnels.end();
        let cut = state.connections();
        state.enter(Phase::Ended);
        drop(event::STOPPED.line(self.handle.log()).u64("cut", cut as u64));
        self.handle.log().flush();
    }
}

/// The address of a listener as written, for each that serves the API.
fn public_listeners(handle: &Handle) -> Vec<(&'static str, Listener, Listen)> {
    let live = handle.live();
    let server = &live.policy.config().server;
    vec![("server.https", Listener::Https, server.https()), ("server.http", Listener::Http, server.http())]
}
