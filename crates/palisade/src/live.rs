//! The policy in force, and its replacement while requests run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use palisade_base::Clock;
use palisade_policy::{Problems, Snapshot, Sources};
use parking_lot::Mutex;

use crate::controls::Config;
use crate::error::{Error, Result};
use crate::gateway::Gateway;
use crate::observe::Log;
use crate::observe::event;
use crate::observe::metrics::Metrics;
use crate::policy::values::{SecretProvider, UpstreamUrl};
use crate::policy::{self, Env, Override, Policy, Situation, State};
use crate::stack::{Inner, Live};

/// What was read and checked, before it is compiled.
#[derive(Debug)]
pub struct Checked {
    /// The texts.
    pub snapshot: Snapshot,
    /// The typed values.
    pub config: Config,
    /// Warnings so far.
    pub problems: Problems,
}

/// Reads a policy and checks it against the schema.
///
/// # Errors
/// Every problem of the texts, when one is fatal.
pub fn read(sources: &Sources) -> std::result::Result<Checked, Problems> {
    typed(Snapshot::read(sources)?)
}

fn typed(mut snapshot: Snapshot) -> std::result::Result<Checked, Problems> {
    let mut problems = snapshot.problems();
    let schema = serde_json::to_value(policy::schema()).unwrap_or_default();
    let formats = policy::formats();
    snapshot.check(&schema, &formats, &mut problems);
    let config = snapshot.get::<Config>("", &mut problems);
    match config {
        Some(config) if !problems.is_fatal() => Ok(Checked { snapshot, config, problems }),
        _ => Err(problems),
    }
}

/// Reads and compiles a policy without putting it in force: opens no log and no listener.
///
/// # Errors
/// Every problem, when one is fatal.
pub fn check(sources: &Sources) -> std::result::Result<(Snapshot, Problems), Problems> {
    let checked = read(sources)?;
    let snapshot = checked.snapshot.clone();
    let clock = Clock::real();
    let log = Arc::new(Log::off(clock.clone()));
    let (_, problems) =
        compile(checked, &Target::Policy, Situation::default(), &Arc::default(), &log, &Arc::default(), &clock)?;
    Ok((snapshot, problems))
}

/// What requests are passed to, whatever the policy says.
#[derive(Debug, Clone)]
pub enum Target {
    /// What the policy names.
    Policy,
    /// An application that Palisade supervises, by the address it was told to listen on.
    Supervised(UpstreamUrl),
    /// A router in this process.
    Router(axum::Router),
}

/// The policy in force. Requests take it once and end under it.
#[derive(Debug)]
pub struct Handle {
    live: ArcSwap<Live>,
    sources: Sources,
    target: Target,
    situation: Mutex<Situation>,
    /// What is in force was read from this: a switch at three in the morning depends on no file.
    snapshot: Mutex<Snapshot>,
    state: Arc<State>,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Handle {
    /// Puts a policy in force for the first time.
    ///
    /// # Errors
    /// The problems of the policy, or a log that cannot be opened.
    pub fn start(
        sources: Sources,
        target: Target,
        situation: Situation,
        clock: Clock,
    ) -> Result<(Arc<Self>, Problems)> {
        let checked = read(&sources).map_err(Error::Policy)?;
        let snapshot = Mutex::new(checked.snapshot.clone());
        let log = Arc::new(Log::open(&checked.config.log, clock.clone())?);
        let metrics = Arc::<Metrics>::default();
        let state = Arc::<State>::default();
        let (live, problems) =
            compile(checked, &target, situation.clone(), &state, &log, &metrics, &clock).map_err(Error::Policy)?;
        let live = ArcSwap::from_pointee(live);
        let situation = Mutex::new(situation);
        Ok((Arc::new(Self { live, sources, target, situation, snapshot, state, log, metrics, clock }), problems))
    }

    /// The policy in force, with its stack.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The logs.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What outlives policies.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// What the policy is read from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Reads everything again and puts it in force, or keeps what is and says why.
    ///
    /// # Errors
    /// The problems of the new policy; the old one stays in force.
    pub fn reload(&self) -> std::result::Result<Problems, Problems> {
        // One reload at a time; the situation is read under the lock, so that a switch and a reload cannot cross.
        let situation = self.situation.lock();
        let outcome = read(&self.sources).and_then(|checked| self.replace(checked, situation.clone()));
        drop(situation);
        match &outcome {
            Ok(_) => drop(event::RELOADED.line(&self.log).str("policy_hash", self.live().policy.hash())),
            Err(problems) => drop(event::REJECTED.line(&self.log).str("problems", &problems.render(false))),
        }
        outcome
    }

    /// Puts a switch of `palisade set` in force, over the policy that is; expired ones go.
    ///
    /// # Errors
    /// When the policy in force cannot be compiled with it.
    pub fn switch(&self, over: Override) -> std::result::Result<(), Problems> {
        let replaced = |kept: &Override| kept.control == over.control && kept.route == over.route;
        let over = over.clone();
        self.change(replaced, Some(over)).map(drop)
    }

    /// Takes switches back; returns those that were in force.
    ///
    /// # Errors
    /// When the policy in force cannot be compiled without them.
    pub fn unswitch(&self, which: impl Fn(&Override) -> bool) -> std::result::Result<Vec<Override>, Problems> {
        self.change(which, None)
    }

    fn change(
        &self,
        gone: impl Fn(&Override) -> bool,
        new: Option<Override>,
    ) -> std::result::Result<Vec<Override>, Problems> {
        let mut situation = self.situation.lock();
        let now = self.clock.now();
        let mut next = situation.clone();
        next.overrides.retain(|kept| kept.until > now);
        let (taken, kept): (Vec<_>, Vec<_>) = next.overrides.into_iter().partition(gone);
        next.overrides = kept;
        next.overrides.extend(new);
        let checked = typed(self.snapshot.lock().clone())?;
        self.replace(checked, next.clone())?;
        *situation = next;
        Ok(taken)
    }

    /// The switches in force.
    pub fn overrides(&self) -> Vec<Override> {
        let now = self.clock.now();
        self.situation.lock().overrides.iter().filter(|over| over.until > now).cloned().collect()
    }

    /// Where time comes from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The files that the policy in force was read from; none for the starter policy.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.snapshot.lock().files().map(std::path::Path::to_path_buf).collect()
    }

    /// Where the application listens, when it is one behind.
    pub(crate) fn upstream_url(&self, policy: &Policy) -> Option<UpstreamUrl> {
        match &self.target {
            Target::Supervised(url) => Some(url.clone()),
            Target::Policy => policy.config().upstream.url.clone(),
            Target::Router(_) => None,
        }
    }

    fn replace(&self, checked: Checked, situation: Situation) -> std::result::Result<Problems, Problems> {
        let snapshot = checked.snapshot.clone();
        let (live, problems) =
            compile(checked, &self.target, situation, &self.state, &self.log, &self.metrics, &self.clock)?;
        self.live.store(Arc::new(live));
        *self.snapshot.lock() = snapshot;
        Ok(problems)
    }
}

fn compile(
    checked: Checked,
    target: &Target,
    situation: Situation,
    state: &Arc<State>,
    log: &Arc<Log>,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> std::result::Result<(Live, Problems), Problems> {
    let Checked { snapshot, config, problems } = checked;
    let secrets: Arc<dyn palisade_vault::Provider> = match &config.secrets.provider {
        SecretProvider::Env => Arc::new(palisade_vault::Env),
        SecretProvider::Dir(path) => Arc::new(palisade_vault::Dir::new(path)),
    };
    let env = Env {
        clock: clock.clone(),
        server: Arc::new(config.server.clone()),
        state: Arc::clone(state),
        log: Arc::clone(log),
        metrics: Arc::clone(metrics),
        secrets,
    };
    let upstream = config.upstream.clone();
    let (policy, problems) = Policy::compile(&snapshot, config, env.clone(), situation, problems)?;
    let proxy = |url: UpstreamUrl| Inner::Proxy(Arc::new(Gateway::new("upstream", url, &upstream, &env)));
    let inner = match target {
        Target::Router(router) => Inner::Router(router.clone()),
        Target::Supervised(url) => proxy(url.clone()),
        Target::Policy => upstream.url.clone().map_or(Inner::Nothing, proxy),
    };
    Ok((Live::new(Arc::new(policy), inner), problems))
}
