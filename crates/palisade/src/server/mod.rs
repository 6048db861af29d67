//! The server round the stack: listeners, TLS, connections, draining.

mod activation;
pub mod admin;
pub(crate) mod admission;
mod batch;
mod calm;
mod connection;
pub(crate) mod descriptors;
mod frames;
pub(crate) mod framing;
mod handshake;
mod keep;
mod linger;
mod listen;
mod local_ca;
mod notify;
mod patience;
mod proxy_protocol;
pub mod request_id;
pub(crate) mod seats;
pub(crate) mod startup;
pub mod status;
mod streams;
pub(crate) mod supervise;
pub(crate) mod tls;
mod turns;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_base::Clock;
use palisade_policy::{Problems, Sources};
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch as phases;

use crate::context::Listener;
use crate::embed::{Protected, State};
use crate::error::Result;
use crate::live::{Handle, Target};
use crate::observe::event;
use crate::policy::values::Listen;
use crate::policy::{Env, Situation};

pub use listen::Bound;
use supervise::Supervisor;

/// How long an idle connection is kept once nothing is accepted any more. Closing it at once would lose the request that
/// its client is just sending; within this time that one is answered, with `Connection: close`.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long mail that waits keeps a developer who pressed Ctrl-C.
const LAST_MAIL: Duration = Duration::from_secs(2);

/// How a server is doing.
#[derive(Debug)]
pub struct ServerState {
    started: AtomicBool,
    /// All certificates of the API are valid.
    certificates: AtomicBool,
    /// What `ready_needs` names is there.
    needs: AtomicBool,
    phase: phases::Sender<Phase>,
    /// The same, for those that ask on every request.
    phase_now: AtomicU8,
    connections: AtomicUsize,
    admission: admission::Admission,
    room: descriptors::Room,
    since: std::time::Instant,
    listeners: std::sync::OnceLock<Vec<(&'static str, std::net::SocketAddr)>>,
    /// How long idle connections are kept when the server leaves, in milliseconds.
    idle_grace_ms: AtomicU64,
}

/// The life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
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

impl Phase {
    /// As in status and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::LameDuck => "lame_duck",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl Default for ServerState {
    fn default() -> Self {
        Self {
            started: AtomicBool::new(false),
            certificates: AtomicBool::new(true),
            needs: AtomicBool::new(true),
            phase: phases::channel(Phase::Serving).0,
            phase_now: AtomicU8::new(Phase::Serving as u8),
            connections: AtomicUsize::new(0),
            admission: admission::Admission::default(),
            room: descriptors::Room::default(),
            since: std::time::Instant::now(),
            listeners: std::sync::OnceLock::new(),
            idle_grace_ms: AtomicU64::new(0),
        }
    }
}

impl ServerState {
    /// The port of a listener, once it is open.
    pub(crate) fn port(&self, listener: &str) -> Option<u16> {
        let listeners = self.listeners.get()?;
        listeners.iter().find(|(name, _)| *name == listener).map(|(_, address)| address.port())
    }

    /// Whether `/ready` succeeds.
    pub fn is_ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why `/ready` fails, if it does.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.phase() {
            Phase::Serving if !self.started.load(Ordering::Relaxed) => Some("starting"),
            Phase::Serving if !self.certificates.load(Ordering::Relaxed) => Some("certificate"),
            Phase::Serving if !self.needs.load(Ordering::Relaxed) => Some("upstream"),
            Phase::Serving => None,
            _ => Some("draining"),
        }
    }

    /// The phase of its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether answers end their connection, since nothing is accepted any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase_now.load(Ordering::Relaxed) >= Phase::Draining as u8
    }

    /// How long it has been there.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
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
        self.phase_now.fetch_max(phase as u8, Ordering::Relaxed);
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = (*now).max(phase);
            later
        });
    }
}

/// The codes of what is refused before there is a request, or before it costs a descriptor.
pub(crate) static CODES: &[&crate::refusal::Code] = &[
    &framing::HEAD_TIME,
    &calm::FRAMES,
    &admission::CONNECTIONS,
    &admission::PER_ADDRESS,
    &admission::HANDSHAKES,
    &seats::REQUESTS,
    &seats::PER_ADDRESS,
];

/// The state of the server that an environment belongs to.
pub fn state(env: &Env) -> Arc<ServerState> {
    of(&env.state)
}

/// The same by what outlives its policies.
pub(crate) fn of(state: &crate::policy::State) -> Arc<ServerState> {
    state.get("server", ServerState::default)
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
    pub async fn serve(self, router: axum::Router<State>) -> Result<()> {
        let state = State::new();
        let (running, problems) = self.target(Target::Router(router.with_state(state.clone()))).start()?;
        state.bind(&running.handle);
        if !problems.is_empty() {
            event::WARNINGS.line(running.handle.log()).str("problems", &problems.render(false));
        }
        running.serve_here()?;
        running.ready();
        running.until_signal().await;
        Ok(())
    }

    /// Puts the stack round a router, for a server of your own. Nothing listens; the policy is not watched.
    ///
    /// # Errors
    /// When the policy is not in order.
    pub fn protect(self, router: axum::Router<State>) -> Result<Protected> {
        let state = State::new();
        let target = Target::Router(router.with_state(state.clone()));
        let (handle, _) = Handle::start(self.sources, target, self.situation, self.clock)?;
        state.bind(&handle);
        Ok(Protected::new(handle))
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
        // Known before the first request: what a gateway calls itself may depend on its port.
        let addresses = bound.iter().map(|bound| (bound.name(), bound.address())).collect();
        let _ = state(handle.live().policy.env()).listeners.set(addresses);
        if !embedded {
            descriptors::provide(&handle);
        }
        // Last: a port that is taken must not start an application.
        let app = handle.take_plan().map(|mut plan| {
            for (name, value) in crate::controls::auth::told(&handle.live().policy) {
                plan.tell(name, value);
            }
            let status = crate::live::app_status(handle.state());
            Supervisor::start(plan, status, Arc::clone(handle.log()))
        });
        let app = Mutex::new(app.transpose()?);
        Ok((Running { handle, bound, control, app, signals: Mutex::default() }, problems))
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
    control: Option<crate::control_socket::Opened>,
    signals: Mutex<Option<Signals>>,
    /// The application that is supervised.
    app: Mutex<Option<Supervisor>>,
}

impl Running {
    /// Accepts connections on the current runtime.
    ///
    /// # Errors
    /// When a listener cannot be opened.
    pub fn serve_here(&self) -> Result<()> {
        self.bound.iter().try_for_each(|bound| bound.serve_here(&self.handle))
    }

    /// Starts `workers` threads, each with a runtime and listeners of its own: a connection stays on its core.
    ///
    /// # Errors
    /// When a thread or runtime cannot be made.
    pub fn start_workers(&self) -> Result<Vec<std::thread::JoinHandle<()>>> {
        let workers = self.handle.live().policy.config().server.workers();
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

    /// Begins what is done besides requests and says that everything is up. To be called within the runtime for that.
    pub fn ready(&self) {
        // Before anybody is told to send one: a signal without a handler ends the process.
        *self.signals.lock() = Signals::new().ok();
        tokio::spawn(keep::keep(Arc::clone(&self.handle)));
        tokio::spawn(keep::look(Arc::clone(&self.handle)));
        tokio::spawn(crate::controls::auth::operations::follow(Arc::downgrade(&self.handle)));
        if let Some(control) = &self.control {
            control.serve_here(&self.handle);
        }
        // In development that is a directory, and its line says where.
        let live = self.handle.live();
        let _ = crate::mail::post(live.policy.env()).mailer(live.policy.env());
        // The database is opened before anybody logs in, and its changes are followed on this runtime.
        let handle = Arc::clone(&self.handle);
        tokio::spawn(async move {
            if let Err(error) = crate::controls::auth::identity(&handle).await {
                event::IDENTITY_AWAY.line(handle.log()).show("reason", error);
            }
        });
        for bound in &self.bound {
            if let Err(error) = bound.serve_control(&self.handle) {
                event::CONNECTION.line(self.handle.log()).str("listener", bound.name()).show("reason", error);
            }
        }
        for bound in &self.bound {
            event::LISTENING.line(self.handle.log()).str("listener", bound.name()).show("address", bound.address());
        }
        self.state().started.store(true, Ordering::Relaxed);
        drop(event::READY.line(self.handle.log()));
        notify::send(notify::READY);
    }

    fn state(&self) -> Arc<ServerState> {
        state(self.handle.live().policy.env())
    }

    /// Waits for SIGTERM or SIGINT, reloading at SIGHUP, and drains. A second one ends at once.
    pub async fn until_signal(&self) {
        let signals = self.signals.lock().take();
        let Some(mut signals) = signals.or_else(|| Signals::new().ok()) else { return };
        loop {
            match signals.next().await {
                Asked::End => break,
                Asked::Reload => {
                    self.handle.log().reopen();
                    keep::reload(&self.handle).await;
                }
            }
        }
        tokio::select! {
            () = self.drain() => {}
            // Whoever asks twice does not want to wait for the application either.
            () = signals.once_more() => self.end(Duration::ZERO, Duration::ZERO).await,
        }
    }

    /// Leaves: `/ready` fails at once, connections are accepted for `lame_duck`, then requests finish within `drain`.
    pub async fn drain(&self) {
        let live = self.handle.live();
        let state = self.state();
        let server = &live.policy.config().server;
        let end = tokio::time::Instant::now() + server.drain.duration();
        // A developer who presses Ctrl-C has no balancer to wait for.
        let (lame_duck, grace) = match server.is_development() {
            true => (Duration::ZERO, listen::LAST_LOOK),
            false => (server.lame_duck.duration(), IDLE_GRACE),
        };
        let grace = grace.min(server.drain.duration().saturating_sub(lame_duck) / 2);
        state.idle_grace_ms.store(u64::try_from(grace.as_millis()).unwrap_or(0), Ordering::Relaxed);
        drop(event::DRAINING.line(self.handle.log()));
        notify::send(notify::STOPPING);
        state.enter(Phase::LameDuck);
        tokio::time::sleep(lame_duck).await;
        state.enter(Phase::Draining);
        let tunnels = tunnels(&self.handle);
        // What was queued by the kernel is accepted after this moment: connections may still come for an instant.
        tokio::time::sleep(listen::LAST_LOOK).await;
        let mail = crate::mail::post(live.policy.env());
        let busy = || state.connections() > tunnels.count() || mail.is_busy();
        while busy() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let for_mail = if server.is_development() { left.min(LAST_MAIL) } else { left };
        self.end(live.policy.config().upstream.stop_timeout.duration(), for_mail).await;
    }

    /// Ends at once: what still runs is cut. A supervised application gets this long before it is killed, and mail that
    /// waits so long for its last attempt.
    async fn end(&self, patience: Duration, for_mail: Duration) {
        tunnels(&self.handle).end();
        let state = self.state();
        let cut = state.connections();
        state.enter(Phase::Ended);
        let app = self.app.lock().take();
        let mail = crate::mail::post(self.handle.live().policy.env());
        let stop = async {
            if let Some(app) = app {
                app.stop(patience).await;
            }
        };
        tokio::join!(stop, mail.close(for_mail));
        drop(event::STOPPED.line(self.handle.log()).u64("cut", cut as u64));
        self.handle.log().flush();
    }
}

fn tunnels(handle: &Handle) -> Arc<crate::gateway::Tunnels> {
    crate::gateway::Tunnels::of(handle.state())
}

/// The signals that a server obeys.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.reload.recv() => Asked::Reload,
        }
    }

    /// Another signal to end; a server that leaves does not reload.
    async fn once_more(&mut self) {
        while let Asked::Reload = self.next().await {}
    }
}

enum Asked {
    End,
    Reload,
}

/// Every listener as written, with what it is for.
fn listeners(handle: &Handle) -> Vec<(&'static str, listen::Role, Listen)> {
    let live = handle.live();
    let server = &live.policy.config().server;
    vec![
        ("server.https", listen::Role::Public(Listener::Https), server.https()),
        ("server.http", listen::Role::Public(Listener::Http), server.http()),
        ("server.admin", listen::Role::Control(admin::Door::Admin), server.admin),
        ("server.probes", listen::Role::Control(admin::Door::Probes), server.probes),
    ]
}
