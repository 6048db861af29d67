//! The supervised application: started with Palisade, restarted when it dies, ended with it. Guide section 21.
//!
//! A thread of its own, so that it neither waits for requests nor holds one up. The application runs in a process group
//! that is ended as one, with an environment and descriptors that hold nothing of Palisade's ([`command`]), behind a
//! socket that nobody else can reach ([`place`]); should Palisade itself be killed, a guard ends the group ([`guard`]).

mod backoff;
mod command;
mod group;
mod guard;
mod output;
mod place;
pub(crate) mod socket;
mod status;

use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::observe::{Log, event};
use crate::policy::config::{AppOutput, Upstream};
use crate::policy::values::UpstreamUrl;

use backoff::Backoff;
use command::User;
use guard::Guard;
use output::Output;
use place::Place;
pub(crate) use place::check;
pub(crate) use status::{AppStatus, Patience};

/// How often a starting application is asked whether it listens.
const PROBE: Duration = Duration::from_millis(20);
/// How often processes that nobody waits for are reaped, when Palisade is the first of its container.
const REAP: Duration = Duration::from_secs(1);
/// What remains of a group after its leader ended by itself gets this long before it is killed.
const REMAINS: Duration = Duration::from_millis(500);

/// A supervised application in the making: where it will listen and how it is started.
#[derive(Debug)]
pub(crate) struct Plan {
    upstream: Upstream,
    /// What it is told beside its address, as variables of its environment.
    told: Vec<(&'static str, String)>,
    place: Place,
    user: Option<User>,
    output: AppOutput,
}

impl Plan {
    /// Chooses the place where the application of `upstream.command` will listen.
    ///
    /// # Errors
    /// When there is no such user, or no directory or port can be had.
    pub(crate) fn new(upstream: &Upstream, prefix: Option<&str>, output: AppOutput) -> Result<Self> {
        let user = upstream.user.as_deref().map(command::user).transpose()?.flatten();
        let place = Place::choose(&upstream.command, user.as_ref())?;
        // What is taken off its paths, so that the links and the documentation it makes are right.
        let told = prefix.map(|prefix| ("UVICORN_ROOT_PATH", prefix.to_owned())).into_iter().collect();
        Ok(Self { upstream: upstream.clone(), told, place, user, output })
    }

    /// Tells the application something more: a variable of its environment, which the policy may set otherwise.
    pub(crate) fn tell(&mut self, name: &'static str, value: String) {
        self.told.push((name, value));
    }

    /// Where it will listen.
    pub(crate) fn url(&self) -> UpstreamUrl {
        self.place.url()
    }

    /// The user that owns its socket.
    pub(crate) fn owner(&self) -> u32 {
        self.user.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid)
    }
}

/// What the supervising thread is told.
#[derive(Debug)]
enum Order {
    /// The application has ended; it is not yet reaped.
    Exited,
    /// End it, and kill it after this time.
    Stop(Duration),
}

/// A supervised application. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the application, and from then on sees to it that it runs.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn start(plan: Plan, status: Arc<AppStatus>, log: Arc<Log>) -> Result<Self> {
        let (orders, inbox) = channel();
        let work = Work { plan, status, log, inbox, outbox: orders.clone() };
        let first = work.spawn().map_err(|error| Error::App(work.cannot_start(&error)))?;
        let thread = std::thread::Builder::new().name("palisade-app".into()).spawn(move || work.run(first))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Ends the application: SIGTERM to its group, after `timeout` SIGKILL. Returns when nothing of it is left.
    pub(crate) async fn stop(mut self, timeout: Duration) {
        let _ = self.orders.send(Order::Stop(timeout));
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            tokio::time::sleep(PROBE).await;
        }
        self.thread = None;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.orders.send(Order::Stop(Duration::from_secs(1)));
            let _ = thread.join();
        }
    }
}

/// One run of the application.
#[derive(Debug)]
struct Run {
    child: Child,
    group: Pid,
    since: Instant,
    output: Output,
    guard: Guard,
    reaped: bool,
}

impl Run {
    /// Ends what is left of it; returns how it ended, and the last it said.
    fn reap(&mut self) -> (Option<ExitStatus>, String) {
        if !self.reaped {
            // Before the leader is reaped: until then its number, the group's, is its own.
            group::signal(self.group, Signal::SIGKILL);
            self.reaped = true;
        }
        let status = self.child.wait().ok();
        self.guard.dismiss();
        (status, self.output.last_lines())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.reap();
    }
}

/// What the thread works with.
#[derive(Debug)]
struct Work {
    plan: Plan,
    status: Arc<AppStatus>,
    log: Arc<Log>,
    inbox: Receiver<Order>,
    outbox: Sender<Order>,
}

impl Work {
    fn run(self, first: Run) {
        let mut backoff = Backoff::default();
        let mut next = Some(first);
        loop {
            let run = match next.take() {
                Some(run) => Ok(run),
                None => self.spawn(),
            };
            let (what, lines, ran) = match run {
                Ok(run) => {
                    let since = run.since;
                    match self.watch(run) {
                        Some((status, lines)) => (describe(status), lines, since.elapsed()),
                        None => return,
                    }
                }
                Err(error) => (self.cannot_start(&error), String::new(), Duration::ZERO),
            };
            let pause = backoff.after(ran);
            self.status.down(Instant::now() + pause);
            self.tell(&what, &lines, ran, pause);
            if !matches!(self.inbox.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                self.status.stopped();
                return;
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Run> {
        self.status.starting();
        self.plan.place.clear();
        let words = self.plan.place.fill(&self.plan.upstream.command);
        let mut child =
            command::build(&words, &self.plan.upstream.env, &self.plan.told, self.plan.user.as_ref()).spawn()?;
        let group = group::pid(child.id());
        let guard = Guard::start(group, &self.plan.place);
        let output = Output::pass(&mut child, self.plan.output);
        let run = Run { child, group, since: Instant::now(), output, guard, reaped: false };
        let outbox = self.outbox.clone();
        std::thread::Builder::new().name("palisade-wait".into()).spawn(move || {
            await_exit(group);
            let _ = outbox.send(Order::Exited);
        })?;
        event::APP_STARTED.line(&self.log).u64("pid", u64::from(run.child.id()));
        Ok(run)
    }

    /// Watches one run to its end. `None` when it was ended on order.
    fn watch(&self, mut run: Run) -> Option<(Option<ExitStatus>, String)> {
        let first_process = std::process::id() == 1;
        let mut up = false;
        loop {
            let wait = match (up, first_process) {
                (false, _) => PROBE,
                (true, true) => REAP,
                (true, false) => Duration::from_secs(3600),
            };
            match self.inbox.recv_timeout(wait) {
                Ok(Order::Exited) => {
                    // Requests wait from now on, instead of meeting workers that end.
                    self.status.starting();
                    group::end_rest(run.group, REMAINS);
                    return Some(run.reap());
                }
                Ok(Order::Stop(timeout)) => {
                    self.stop(run, timeout);
                    return None;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.stop(run, Duration::ZERO);
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if first_process {
                group::reap_strangers(&[run.child.id(), run.guard.id()]);
            }
            if !up && self.plan.place.is_listening(self.plan.owner()) {
                up = true;
                self.status.up();
                let after = u64::try_from(run.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                event::APP_READY.line(&self.log).u64("pid", u64::from(run.child.id())).u64("after_ms", after);
            }
        }
    }

    fn stop(&self, mut run: Run, timeout: Duration) {
        self.status.stopped();
        let pid = run.child.id();
        let escaped = group::outside(run.group);
        group::signal(run.group, Signal::SIGTERM);
        let mut end = Instant::now() + timeout;
        let mut late = "killed after `upstream.stop_timeout`";
        while !group::is_over(run.group) && Instant::now() < end {
            // Whoever asks a second time has less patience.
            match self.inbox.recv_timeout(PROBE) {
                Ok(Order::Stop(sooner)) => {
                    end = end.min(Instant::now() + sooner);
                    late = "killed: the server was asked to end at once";
                }
                Ok(Order::Exited) | Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could ask: what was said holds.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PROBE),
            }
        }
        let killed = !group::is_over(run.group);
        group::signal(run.group, Signal::SIGKILL);
        // What left the group (a daemon of the application's own) goes with it all the same.
        escaped.kill();
        let (status, _) = run.reap();
        event::APP_STOPPED
            .line(&self.log)
            .u64("pid", u64::from(pid))
            .str("status", &describe(status))
            .str("how", if killed { late } else { "ended when asked to" });
    }

    /// Says that the application has ended: in the log, and for the person who looks at the terminal.
    #[expect(clippy::print_stderr, reason = "the application's own output stands there, and this explains its end")]
    fn tell(&self, what: &str, lines: &str, ran: Duration, pause: Duration) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        event::APP_EXITED
            .line(&self.log)
            .str("status", what)
            .u64("ran_ms", millis(ran))
            .u64("restart_in_ms", millis(pause))
            .str("last_lines", lines);
        eprintln!(
            "palisade: the application `{}`: {what} after {:.1} s; started again in {:.1} s",
            self.program(),
            ran.as_secs_f32(),
            pause.as_secs_f32()
        );
    }

    fn program(&self) -> &str {
        self.plan.upstream.command.first().map_or("", String::as_str)
    }

    fn cannot_start(&self, error: &std::io::Error) -> String {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such program in `PATH`: install it, activate its virtual environment, or name its full path"
            }
            std::io::ErrorKind::PermissionDenied => {
                "it may not be executed, or its directory not be entered, by this user"
            }
            _ => return format!("cannot start `{}`: {error}", self.program()),
        };
        format!("cannot start `{}`: {fix}", self.program())
    }
}

/// Blocks until a child has ended, and leaves it to be reaped: until then its number stays its own.
fn await_exit(pid: Pid) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
}

fn describe(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let Some(status) = status else { return "ended".into() };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("signal {number} ({signal})"),
            Err(_) => format!("signal {number}"),
        },
        (None, None) => "ended".into(),
    }
}
