//! The policy in force, and its replacement while requests run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use palisade_base::Clock;
use palisade_policy::{Origin, Problems, Snapshot, Sources};
use parking_lot::Mutex;

use crate::controls::Config;
use crate::controls::auth::config::{DatabaseText, DatabaseUrl};
use crate::controls::auth::keys::Keys;
use crate::error::{Error, Result};
use crate::gateway::{self, Gateway};
use crate::observe::Log;
use crate::observe::event;
use crate::observe::metrics::Metrics;
use crate::observe::sink::Sink;
use crate::policy::config::Upstream;
use crate::policy::values::{SecretProvider, UpstreamUrl};
use crate::policy::{self, Env, InForce, Override, Policy, Situation, State};
use crate::server::startup::{self, Occasion};
use crate::server::supervise::{AppStatus, Plan};
use crate::server::tls;
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

/// The sections that an upstream may have of its own: they hold for the routes that lead to it, below what these say.
const OF_UPSTREAMS: [&str; 2] = ["cors", "limits"];

/// Reads a policy and checks it against the schema.
///
/// # Errors
/// Every problem of the texts, when one is fatal.
pub fn read(sources: &Sources) -> std::result::Result<Checked, Problems> {
    typed(Snapshot::read(sources)?)
}

fn typed(mut snapshot: Snapshot) -> std::result::Result<Checked, Problems> {
    let mut problems = snapshot.problems();
    let pages = crate::guide::pages();
    problems.set_guides(pages.iter().map(|(name, section, page)| (*name, *section, page.as_str())));
    problems.set_holders(crate::guide::HOLDERS);
    let schema = serde_json::to_value(policy::schema()).unwrap_or_default();
    let formats = policy::formats();
    snapshot.check(&schema, &formats, &mut problems);
    for place in 0..snapshot.len("route") {
        let Some(name) = snapshot.text(&format!("route[{place}].upstream")).map(str::to_owned) else { continue };
        for section in OF_UPSTREAMS {
            let (over, under) = (format!("route[{place}].{section}"), format!("upstreams.\"{name}\".{section}"));
            snapshot.lay_under(&over, &under, &mut problems);
        }
    }
    let mut config = snapshot.get::<Config>("", &mut problems);
    if let Some(config) = &mut config {
        prefer_flags(&snapshot, &mut config.upstream);
    }
    match config {
        Some(mut config) if !problems.is_fatal() => {
            resolve(&snapshot, &mut config);
            Ok(Checked { snapshot, config, problems })
        }
        _ => Err(problems),
    }
}

/// Relative paths start at the file that they were written in.
fn resolve(snapshot: &Snapshot, config: &mut Config) {
    let at = |key: &str, path: &mut std::path::PathBuf| *path = snapshot.base_dir(key).join(&*path);
    if let SecretProvider::Dir(path) = &mut config.secrets.provider {
        at("secrets.provider", path);
    }
    config.tls.cert.iter_mut().for_each(|path| at("tls.cert", path));
    config.tls.key.iter_mut().for_each(|path| at("tls.key", path));
    for (place, pair) in config.tls.certificate.iter_mut().enumerate() {
        at(&format!("tls.certificate[{place}].cert"), &mut pair.cert);
        at(&format!("tls.certificate[{place}].key"), &mut pair.key);
    }
    for (key, path) in config.waf.config.rules.paths_mut() {
        *path = snapshot.base_dir(&key).join(&*path).to_string_lossy().into_owned();
    }
    config.password.breached.iter_mut().for_each(|path| at("password.breached", path));
    if let Some(DatabaseUrl::Url(url)) = &mut config.database.url
        && let Some(file) = url.file()
    {
        *url = DatabaseText::of_file(&snapshot.base_dir("database.url").join(file));
    }
    for (place, files) in config.r#static.config.iter_mut().enumerate() {
        at(&format!("static[{place}].root"), &mut files.root);
    }
    for (key, upstream) in std::iter::once(("upstream".to_owned(), &mut config.upstream))
        .chain(config.upstreams.iter_mut().map(|(name, upstream)| (format!("upstreams.{name}"), upstream)))
    {
        // A path of the application begins with a slash.
        if upstream.openapi != "off" && !upstream.openapi.starts_with(['/']) {
            let file = snapshot.base_dir(&format!("{key}.openapi")).join(&upstream.openapi);
            upstream.openapi = format!("file:{}", file.display());
        }
        upstream.ca.iter_mut().for_each(|path| at(&format!("{key}.ca"), path));
        upstream.client_cert.iter_mut().for_each(|path| at(&format!("{key}.client_cert"), path));
        upstream.client_key.iter_mut().for_each(|path| at(&format!("{key}.client_key"), path));
    }
    policy::mail::resolve(&mut config.mail, |key| snapshot.base_dir(key).to_owned());
    config.redis.ca.iter_mut().for_each(|path| at("redis.ca", path));
    config.redis.client_cert.iter_mut().for_each(|path| at("redis.client_cert", path));
    config.redis.client_key.iter_mut().for_each(|path| at("redis.client_key", path));
    config.server.state.iter_mut().for_each(|path| at("server.state", path));
    for (key, target) in [("log.access", &mut config.log.access), ("log.security", &mut config.log.security)] {
        if let Some(file) = Sink::file(target) {
            *target = snapshot.base_dir(key).join(file).to_string_lossy().into_owned();
        }
    }
    if let SecretProvider::File(Some(path)) | SecretProvider::DotEnv(path) = &mut config.secrets.provider {
        at("secrets.provider", path);
    }
}

/// `url` and `command` exclude each other, and a flag beats a file: the other one, if written, does not count.
fn prefer_flags(snapshot: &Snapshot, upstream: &mut Upstream) {
    let from_flag = |key: &str| matches!(snapshot.origin(key), Origin::Flag(_));
    match (from_flag("upstream.url"), from_flag("upstream.command")) {
        (true, false) => upstream.command.clear(),
        (false, true) => upstream.url = None,
        _ => {}
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
    let (state, metrics) = Default::default();
    let situation = Situation::default();
    let (_, problems) = compile(checked, &Target::Policy, situation, &state, &log, &metrics, &clock, Occasion::Start)?;
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
    held: Mutex<Held>,
    state: Arc<State>,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// `upstream` as it was when the server started: its command cannot be replaced by a reload.
    started: Upstream,
    /// The supervised application until it is started.
    plan: Mutex<Option<Plan>>,
}

/// What the policy in force was made of.
#[derive(Debug)]
struct Held {
    situation: Situation,
    snapshot: Snapshot,
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
        let mut checked = read(&sources).map_err(Error::Policy)?;
        // Before there is a log to say it.
        startup::logs(&checked.config, &mut checked.problems);
        if checked.problems.is_fatal() {
            return Err(Error::Policy(checked.problems));
        }
        let log = Arc::new(Log::open(&checked.config.log, clock.clone())?);
        let metrics = Arc::<Metrics>::default();
        let state = Arc::<State>::default();
        let started = checked.config.upstream.clone();
        let prefix = policy::supervised_prefix(&checked.config).map(ToString::to_string);
        let mut target = target;
        let mut plan = None;
        // A command without a place for the address is a problem that is found, with all others, when compiling.
        if matches!(target, Target::Policy) && !started.command.is_empty() {
            let chosen = Plan::new(&started, prefix.as_deref(), checked.config.log.app)?;
            app_status(&state).set_owner(chosen.owner());
            target = Target::Supervised(chosen.url());
            plan = Some(chosen);
        }
        let plan = Mutex::new(plan);
        let snapshot = checked.snapshot.clone();
        let held = Mutex::new(Held { situation: situation.clone(), snapshot: snapshot.clone() });
        let (live, problems) = compile(checked, &target, situation, &state, &log, &metrics, &clock, Occasion::Start)
            .map_err(Error::Policy)?;
        crate::mail::post(live.policy.env()).put_in_force(&live.policy);
        InForce::of(live.policy.env()).put(&live.policy);
        say_overrides(&snapshot, &log);
        let live = ArcSwap::from_pointee(live);
        Ok((Arc::new(Self { live, sources, target, held, state, log, metrics, clock, started, plan }), problems))
    }

    /// The policy in force, with its stack.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The supervised application that is to be started, once.
    pub(crate) fn take_plan(&self) -> Option<Plan> {
        self.plan.lock().take()
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

    /// The texts that the policy in force was read from.
    pub fn snapshot(&self) -> Snapshot {
        self.held.lock().snapshot.clone()
    }

    /// Reads everything again, certificates too, and puts it in force, or keeps what is and says why.
    ///
    /// # Errors
    /// The problems of the new policy; the old one stays in force.
    pub fn reload(&self) -> std::result::Result<Problems, Problems> {
        // One reload at a time; the situation is read under the lock, so that a switch and a reload cannot cross.
        let mut held = self.held.lock();
        let outcome = self.replace(&mut held, None);
        let snapshot = held.snapshot.clone();
        drop(held);
        match &outcome {
            Ok(_) => {
                event::RELOADED.line(&self.log).str("policy_hash", self.live().policy.hash());
                say_overrides(&snapshot, &self.log);
            }
            Err(problems) => drop(event::REJECTED.line(&self.log).str("problems", &problems.render(false))),
        }
        outcome
    }

    /// Reads the certificates of the policy in force again.
    ///
    /// # Errors
    /// When one cannot be used; the old ones stay in force.
    pub fn reload_certificates(&self) -> Result<()> {
        // Held, so that a reload of the policy cannot put older certificates over these.
        let held = self.held.lock();
        let live = self.live();
        let certificates = tls::certificates(live.policy.env());
        let loaded = certificates.read(&live.policy)?;
        certificates.store(loaded);
        drop(held);
        for fact in certificates.facts() {
            event::CERTIFICATE.line(&self.log).str("file", &fact.source).show("not_after", fact.not_after.date());
        }
        Ok(())
    }

    /// Puts a switch of `palisade set` in force, over the policy that is; expired ones go. The files on disk are not
    /// read: they may be broken at that moment.
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
        let mut held = self.held.lock();
        let now = self.clock.now();
        let mut next = held.situation.clone();
        next.overrides.retain(|kept| kept.until > now);
        let (taken, kept): (Vec<_>, Vec<_>) = next.overrides.into_iter().partition(gone);
        next.overrides = kept;
        next.overrides.extend(new);
        self.replace(&mut held, Some(next))?;
        Ok(taken)
    }

    /// The switches in force.
    pub fn overrides(&self) -> Vec<Override> {
        let now = self.clock.now();
        self.held.lock().situation.overrides.iter().filter(|over| over.until > now).cloned().collect()
    }

    /// Where time comes from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The files that the policy in force was read from; none for the starter policy.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.held.lock().snapshot.files().map(std::path::Path::to_path_buf).collect()
    }

    /// With a situation it is a switch, over the texts in force; without one a reload.
    fn replace(&self, held: &mut Held, switched: Option<Situation>) -> std::result::Result<Problems, Problems> {
        let occasion = if switched.is_some() { Occasion::Switch } else { Occasion::Reload };
        let mut checked = match &switched {
            Some(_) => typed(held.snapshot.clone())?,
            None => read(&self.sources)?,
        };
        let situation = switched.unwrap_or_else(|| held.situation.clone());
        let before = self.live();
        let old = (&held.snapshot, before.policy.config());
        startup::check_change(old, (&checked.snapshot, &checked.config), &mut checked.problems);
        if !matches!(self.target, Target::Router(_)) {
            let upstream = &checked.config.upstream;
            let (now, started) = (upstream, &self.started);
            if (&now.command, &now.env, &now.user) != (&started.command, &started.env, &started.user) {
                let fix = "restart Palisade, or write what was there";
                let message = "the supervised application cannot be replaced by a reload";
                checked.problems.error("upstream.command", message, fix);
            } else if !started.command.is_empty()
                && policy::supervised_prefix(&checked.config) != policy::supervised_prefix(before.policy.config())
            {
                let message = "the supervised application was started with another prefix";
                checked.problems.error("upstream.root_path", message, "restart Palisade, or write what was there");
            }
        }
        let snapshot = checked.snapshot.clone();
        let (live, mut problems) = compile(
            checked,
            &self.target,
            situation.clone(),
            &self.state,
            &self.log,
            &self.metrics,
            &self.clock,
            occasion,
        )?;
        let certificates = tls::certificates(live.policy.env());
        if occasion == Occasion::Reload && certificates.are_used() {
            match certificates.read(&live.policy) {
                Ok(loaded) => certificates.store(loaded),
                Err(error) => {
                    problems.error("tls", error.to_string(), "mend the file; the old certificates stay in force");
                    return Err(problems);
                }
            }
        }
        crate::mail::post(live.policy.env()).put_in_force(&live.policy);
        let live = Arc::new(live);
        self.live.store(Arc::clone(&live));
        // Behind it: what a stream is told then is what a new request meets.
        InForce::of(live.policy.env()).put(&live.policy);
        *held = Held { situation, snapshot };
        Ok(problems)
    }
}

/// Names the variables of the environment that lie over the files. Their values may be secrets that somebody put into the
/// wrong place, and are nobody's business (threats 14).
fn say_overrides(snapshot: &Snapshot, log: &Log) {
    for name in snapshot.env_overrides() {
        event::OVERRIDDEN.line(log).str("name", name);
    }
}

/// How the supervised application is doing.
pub(crate) fn app_status(state: &State) -> Arc<AppStatus> {
    state.get("app", AppStatus::default)
}

#[expect(clippy::too_many_arguments, reason = "private, and every one of them is another kind of thing")]
fn compile(
    checked: Checked,
    target: &Target,
    situation: Situation,
    state: &Arc<State>,
    log: &Arc<Log>,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    occasion: Occasion,
) -> std::result::Result<(Live, Problems), Problems> {
    let Checked { snapshot, config, mut problems } = checked;
    let secrets = policy::secrets::provider(&config);
    let mut env = Env {
        clock: clock.clone(),
        server: Arc::new(config.server.clone()),
        state: Arc::clone(state),
        log: Arc::clone(log),
        metrics: Arc::clone(metrics),
        secrets,
        redis: None,
        has_login: snapshot.is_set("auth"),
        starter: snapshot.has_builtin(policy::STARTER_NAME),
        keys: None,
        rereads: occasion != Occasion::Switch,
    };
    if env.has_login {
        env.keys = Some(Keys::new(&config, Arc::clone(&env.secrets), state, clock, log));
    }
    if snapshot.is_set("redis") && config.redis.url.is_none() {
        problems.error(
            "redis",
            "`[redis]` says not where it is",
            "add `url = { secret = \"redis-url\" }`, or remove the section",
        );
    }
    env.redis = crate::redis::client(&config.redis, &env, occasion, &mut problems);
    startup::check(&snapshot, &config, &env, occasion, &mut problems);
    let upstream = config.upstream.clone();
    let clients: Vec<_> = policy::upstreams(&config)
        .map(|(key, upstream)| gateway::tls::client(&key, upstream, &env, occasion, &mut problems))
        .collect();
    let (policy, problems) = Policy::compile(&snapshot, config, env.clone(), situation, problems)?;
    let mut clients = clients.into_iter();
    let tls = clients.next().flatten();
    let proxy = |url: UpstreamUrl| Inner::Proxy(Arc::new(Gateway::new("upstream", url, tls, &upstream, &env)));
    let inner = match target {
        Target::Router(router) => Inner::Router(router.clone()),
        Target::Supervised(url) => {
            let gateway = Gateway::new("upstream", url.clone(), None, &upstream, &env);
            Inner::Proxy(Arc::new(gateway.supervised(app_status(state))))
        }
        Target::Policy => upstream.url.clone().map_or(Inner::Nothing, proxy),
    };
    let named = policy.config().upstreams.iter().zip(clients).filter_map(|((name, config), tls)| {
        // One without a `url` is a problem that has been reported.
        Some(Arc::new(Gateway::new(name, config.url.clone()?, tls, config, &env)))
    });
    let named = named.collect();
    Ok((Live::new(Arc::new(policy), inner).with_upstreams(named), problems))
}
