//! One policy: read from files, compiled, in force until the next one.

#[cfg(test)]
mod access_tests;
pub mod config;
mod in_force;
pub mod mail;
pub mod request_headers;
mod routing;
#[cfg(test)]
mod routing_tests;
mod rules;
pub mod secrets;
mod spelling;
mod stricter;
pub mod template;
pub mod values;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use palisade_base::{Clock, Timestamp};
use palisade_policy::{Origin, Problems, Snapshot};
use parking_lot::Mutex;

use self::config::{Deployment, Server};
pub(crate) use self::in_force::InForce;
pub use self::routing::Destination;
pub(crate) use self::routing::{Routing, supervised_prefix, upstreams};
pub(crate) use self::rules::USUAL;
pub use self::rules::{Found, Rule, Rules};
use self::values::PathPattern;
use crate::context::Context;
use crate::control::{ControlId, Mode};
use crate::controls::{self, Config, Controls};
use crate::observe::Log;
use crate::observe::decisions::Decisions;
use crate::observe::metrics::{Metrics, RouteTimes};
use crate::redis::Redis;

/// The starter policy: what `palisade serve` runs when there is no policy file.
pub const STARTER: &str = include_str!("starter.toml");
/// What it is called among the sources of a policy: by this it is known to be in force.
pub const STARTER_NAME: &str = "starter policy";

/// The JSON Schema of `palisade.toml`.
pub fn schema() -> schemars::Schema {
    let mut schema =
        schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>();
    drop_absent(schema.as_object_mut());
    schema
}

/// The same as text, as `palisade schema` prints it and the documentation has it: closed, so that an editor marks a key
/// that does not exist.
pub fn schema_text() -> String {
    palisade_policy::json_schema(&serde_json::to_value(schema()).unwrap_or_default())
}

/// Sections that routes have nothing to say of are marked, and leave the schema here.
fn drop_absent(object: Option<&mut serde_json::Map<String, serde_json::Value>>) {
    let Some(object) = object else { return };
    if let Some(serde_json::Value::Object(properties)) = object.get_mut("properties") {
        properties.retain(|_, property| !is_absent(property));
    }
    for (_, value) in object.iter_mut() {
        match value {
            serde_json::Value::Object(inner) => drop_absent(Some(inner)),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| drop_absent(item.as_object_mut())),
            _ => {}
        }
    }
}

fn is_absent(property: &serde_json::Value) -> bool {
    property.get("x-absent").is_some()
        || property.get("anyOf").and_then(|any| any.as_array()).is_some_and(|any| any.iter().any(is_absent))
}

/// A grammar's name, and the check that says why a text does not fit.
pub type NamedCheck = (&'static str, fn(&str) -> Result<(), String>);

/// Every grammar of the policy's text values.
pub fn formats() -> Vec<NamedCheck> {
    palisade_base::FORMATS.iter().chain(values::FORMATS).map(|format| (format.name, format.check)).collect()
}

/// What outlives policies: buckets, pools, caches. A reload takes over what is here under the same key.
#[derive(Default)]
pub struct State(Mutex<HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>>);

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("entries", &self.0.lock().len()).finish()
    }
}

impl State {
    /// What is kept under a key; made the first time.
    pub fn get<T: Send + Sync + 'static>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.0.lock();
        let entry = entries.entry((TypeId::of::<T>(), key.to_owned())).or_insert_with(|| Arc::new(make()));
        Arc::clone(entry).downcast().unwrap_or_else(|_| unreachable!("the key holds the type"))
    }

    /// All of a type that is kept.
    pub(crate) fn all<T: Send + Sync + 'static>(&self) -> Vec<Arc<T>> {
        let entries = self.0.lock();
        entries.values().filter_map(|entry| Arc::clone(entry).downcast().ok()).collect()
    }
}

/// One switch of `palisade set`: a mode for a control, for some paths, until a time.
#[derive(Debug, Clone)]
pub struct Override {
    /// Which control.
    pub control: ControlId,
    /// Its mode.
    pub mode: Mode,
    /// For which paths; all where absent.
    pub route: Option<PathPattern>,
    /// Until when.
    pub until: Timestamp,
    /// Why, as the operator said.
    pub reason: String,
}

/// What is given from outside when a policy is compiled.
#[derive(Debug, Clone)]
pub struct Env {
    /// Where time comes from.
    pub clock: Clock,
    /// `[server]`.
    pub server: Arc<Server>,
    /// What outlives policies.
    pub state: Arc<State>,
    /// The logs.
    pub log: Arc<Log>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where secrets come from.
    pub secrets: Arc<dyn palisade_vault::Provider>,
    /// `[redis]`, where there is one.
    pub redis: Option<Redis>,
    /// Whether there is a login, `[auth]`.
    pub has_login: bool,
    /// Whether the starter policy is in force: what it lets pass and a strict one would not is noted, for its end and for
    /// `palisade init`.
    pub starter: bool,
    /// The keys that Palisade makes for itself; with a login.
    pub(crate) keys: Option<crate::controls::auth::keys::Keys>,
    /// Whether files that the policy names are read anew; not for a switch, which is put over what is in force.
    pub rereads: bool,
}

impl Env {
    /// Whether this is development.
    pub fn is_development(&self) -> bool {
        self.server.mode == Deployment::Development
    }
}

/// How a policy is put in force: what comes from flags and the operator instead of the file.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    /// `--detect`: controls that judge start in `detect`.
    pub detect: bool,
    /// The switches of `palisade set`.
    pub overrides: Vec<Override>,
}

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    config: Config,
    rules: Rules,
    routing: Routing,
    controls: Controls,
    /// A rule's modes lie together, in the order of the registry.
    modes: Vec<Mode>,
    overrides: Vec<Override>,
    hash: Box<str>,
    times: Vec<RouteTimes>,
    decisions: Arc<Decisions>,
    number: u16,
    mail: Option<Arc<mail::Setup>>,
    env: Env,
}

impl Policy {
    /// Compiles what was read. Every problem is reported; only fatal ones prevent the policy.
    ///
    /// # Errors
    /// The problems, warnings included, when one of them is fatal.
    pub fn compile(
        snapshot: &Snapshot,
        config: Config,
        env: Env,
        situation: Situation,
        mut problems: Problems,
    ) -> Result<(Self, Problems), Problems> {
        let mut rules = Rules::new(config.route.iter().map(|route| &route.route), |place| {
            line(snapshot, &format!("route[{place}]"))
        });
        rules.conditions(config.route.iter().map(|route| &route.route), &mut problems);
        let files = controls::static_files::routes(&config);
        rules.imply(files.iter().map(|(place, route)| (line(snapshot, &format!("static[{place}]")), route)));
        let own = controls::auth::own_routes(&config);
        rules.own(own.iter());
        for (later, earlier) in rules.unreachable() {
            problems.error(
                &format!("route[{}].path", later - 1),
                format!(
                    "this route can never be reached: `{}` ({}) takes all of it",
                    rules.get(earlier).label,
                    rules.get(earlier).line
                ),
                "move it above that route, or remove it",
            );
        }
        controls::auth::needs::check(&config, &mut problems);
        stricter::check(&rules, config.auth.config.present, &mut problems);
        let routing = Routing::compile(&config, &rules, &env, &mut problems);
        let modes = modes(&config, &situation, rules.iter().len());
        let wanted = |control: ControlId| {
            modes.chunks(controls::INFOS.len()).any(|rule| rule[usize::from(control.0)] != Mode::Off)
                || situation.overrides.iter().any(|over| over.control == control && over.mode != Mode::Off)
        };
        let controls = controls::compile(&config, &env, wanted, &mut problems);
        check_server(&config, &mut problems);
        let mail = match env.rereads {
            true => mail::Setup::compile(&config, &env, &mut problems),
            // A switch is put over what is in force, and reads nothing.
            false => crate::mail::post(&env).setup(),
        };
        if problems.is_fatal() {
            return Err(problems);
        }
        let times = rules.iter().map(|_| RouteTimes::default()).collect();
        let hash: Box<str> = data_encoding::HEXLOWER.encode(&snapshot.hash()[..8]).into();
        let decisions = env.state.get("decisions", Decisions::default);
        let number = decisions.policy(&hash, &rules, env.clock.now());
        let overrides = situation.overrides;
        Ok((
            Self { config, rules, routing, controls, modes, overrides, hash, times, decisions, number, mail, env },
            problems,
        ))
    }

    /// What was written, with defaults.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The compiled controls.
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// The compiled routes.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// One compiled route.
    pub fn rule(&self, id: u16) -> &Rule {
        self.rules.get(id)
    }

    /// Where the requests of a rule go.
    pub fn destination(&self, rule: u16) -> &Destination {
        self.routing.get(rule)
    }

    /// What the policy says of the application that the requests of a rule go to.
    pub fn upstream(&self, rule: u16) -> &config::Upstream {
        let number = usize::from(self.destination(rule).upstream);
        let named = || self.config.upstreams.values().nth(number - 1);
        if number == 0 { &self.config.upstream } else { named().unwrap_or(&self.config.upstream) }
    }

    /// What that application is called: `upstream`, or its name in `[upstreams.NAME]`.
    pub fn upstream_name(&self, rule: u16) -> &str {
        let number = usize::from(self.destination(rule).upstream);
        let named = number.checked_sub(1).and_then(|place| self.config.upstreams.keys().nth(place));
        named.map_or("upstream", String::as_str)
    }

    /// The headers that only the gateway sets, since some route does.
    pub(crate) fn owned_headers(&self) -> &request_headers::Owned {
        self.routing.owned()
    }

    /// What was given from outside.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Where time comes from.
    pub fn clock(&self) -> &Clock {
        &self.env.clock
    }

    /// The start of the SHA-256 of all that was read: `policy_hash` of the access log.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What was decided about recent requests; outlives the policy.
    pub fn decisions(&self) -> &Arc<Decisions> {
        &self.decisions
    }

    /// The number that decisions made under this policy are kept with.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The switches in force, expired ones included until the next reload.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// How mail is sent; `None` where nothing sends any.
    pub fn mail(&self) -> Option<&Arc<mail::Setup>> {
        self.mail.as_ref()
    }

    /// The directory for what Palisade writes.
    pub fn state_dir(&self) -> PathBuf {
        state_dir(&self.env.server)
    }

    /// The times of a rule's requests.
    pub(crate) fn times(&self, rule: u16) -> &RouteTimes {
        self.times.get(usize::from(rule)).unwrap_or(&self.times[0])
    }

    /// The mode of a control for a request.
    #[inline]
    pub(crate) fn mode(&self, control: ControlId, ctx: &Context) -> Mode {
        let written = self.written_mode(control, ctx.rule().id);
        if self.overrides.is_empty() { written } else { self.overridden(control, ctx, written) }
    }

    #[cold]
    fn overridden(&self, control: ControlId, ctx: &Context, written: Mode) -> Mode {
        let now = self.env.clock.now();
        let applies = |over: &&Override| {
            over.control == control
                && now < over.until
                && over.route.as_ref().is_none_or(|route| route.matches(ctx.path()))
        };
        self.overrides.iter().rev().find(applies).map_or(written, |over| over.mode)
    }

    /// Whether a control runs for any request at all: in some rule, or by an override.
    pub(crate) fn runs(&self, control: ControlId) -> bool {
        let place = usize::from(control.0);
        self.modes.chunks(controls::INFOS.len()).any(|modes| modes[place] != Mode::Off)
            || self.overrides.iter().any(|over| over.control == control && over.mode != Mode::Off)
    }

    /// The mode of a control as written for a rule, before overrides.
    pub fn written_mode(&self, control: ControlId, rule: u16) -> Mode {
        self.modes[usize::from(rule) * controls::INFOS.len() + usize::from(control.0)]
    }
}

/// Where state lies: as configured, or by the mode's default.
pub fn state_dir(server: &Server) -> PathBuf {
    server.state.clone().unwrap_or_else(|| match (server.is_development(), std::env::var_os("STATE_DIRECTORY")) {
        (true, _) => ".palisade".into(),
        (false, Some(given)) => given.into(),
        (false, None) => "/var/lib/palisade".into(),
    })
}

/// The place of a key in the policy, as logs show it: `palisade.toml:14`.
fn line(snapshot: &Snapshot, path: &str) -> Arc<str> {
    match snapshot.origin(path) {
        Origin::File { file, line, .. } => format!("{}:{line}", file.display()).into(),
        other => other.to_string().into(),
    }
}

/// The mode of every control for every rule: route over `--detect` over section. A control that always enforces has
/// one mode, and a policy that says otherwise is wrong.
fn modes(config: &Config, situation: &Situation, rules: usize) -> Vec<Mode> {
    let written = controls::written_modes(config);
    let controls = controls::INFOS.len();
    let mut table = vec![Mode::Off; rules * controls];
    for (place, (info, written)) in controls::INFOS.iter().zip(&written).enumerate() {
        let mut section = written.section.unwrap_or(Mode::Block);
        if situation.detect && section == Mode::Block {
            section = Mode::Detect;
        }
        if !info.judges {
            // The schema has no `mode` there, so it was reported as an unknown key with a reason of its own.
            section = Mode::Block;
        }
        for (rule, modes) in table.chunks_mut(controls).enumerate() {
            let said = rule.checked_sub(1).and_then(|route| written.routes.get(route).copied().flatten());
            modes[place] = said
                .filter(|_| info.judges)
                .map_or(section, |mode| if situation.detect && mode == Mode::Block { Mode::Detect } else { mode });
        }
    }
    table
}

/// What spans several keys of the fixed sections.
fn check_server(config: &Config, problems: &mut Problems) {
    let server = &config.server;
    let listeners = [
        ("server.https", server.https()),
        ("server.http", server.http()),
        ("server.admin", server.admin),
        ("server.probes", server.probes),
    ];
    if server.is_development() && !server.insecure_development_on_network {
        for (key, listen) in listeners {
            if listen.address().is_some_and(|address| !address.ip().is_loopback()) {
                problems.error(
                    key,
                    "development mode listens on loopback only",
                    "write a loopback address, use `mode = \"production\"`, or accept the risk with `insecure_development_on_network = true`",
                );
            }
        }
    }
    for (place, (key, listen)) in listeners.iter().enumerate() {
        let Some(address) = listen.address().filter(|address| address.port() != 0) else { continue };
        if let Some((other, _)) = listeners[..place].iter().find(|(_, earlier)| earlier.address() == Some(address)) {
            problems.error(
                key,
                format!("`{address}` is the address of `{other}` too"),
                "give each listener a port of its own",
            );
        }
    }
    if config.upstream.url.is_some() && !config.upstream.command.is_empty() {
        problems.error(
            "upstream.command",
            "`url` and `command` exclude each other",
            "keep the one that says where the application is",
        );
    }
    crate::server::supervise::check(&config.upstream, problems);
    for (name, upstream) in upstreams(config) {
        let Some((host, port)) = upstream.url.as_ref().and_then(values::UpstreamUrl::host_and_port) else { continue };
        let own = listeners.iter().find(|(_, listen)| {
            listen.address().is_some_and(|at| {
                at.port() == port
                    && (host.parse() == Ok(at.ip())
                        || (at.ip().is_loopback() || at.ip().is_unspecified())
                            && (host == "localhost" || host == "127.0.0.1" || host == "[::1]"))
            })
        });
        if let Some((key, _)) = own {
            problems.error(
                &format!("{name}.url"),
                format!("the upstream is Palisade's own listener `{key}`"),
                "name the address of the application",
            );
        }
    }
    if config.server.lame_duck > config.server.drain {
        problems.error(
            "server.lame_duck",
            "`lame_duck` is part of `drain` and cannot be longer",
            "raise `drain`, or lower `lame_duck`",
        );
    }
    if !server.is_development() {
        let has_certificate =
            config.tls.cert.is_some() || !config.tls.certificate.is_empty() || config.tls.self_signed == Some(true);
        match server.https() {
            values::Listen::At(_) if !has_certificate => {
                problems.error(
                    "tls.cert",
                    "`https` needs a certificate",
                    "name `cert` and `key` in `[tls]`, or write `self_signed = true`",
                );
            }
            values::Listen::Off if server.trusted_proxies.is_empty() => {
                problems.error(
                    "server.https",
                    "production without TLS",
                    "serve HTTPS here, or name the proxy that ends TLS in `trusted_proxies`",
                );
            }
            values::Listen::At(_)
                if server.plaintext() && server.http().address().is_some() && server.trusted_proxies.is_empty() =>
            {
                problems.error(
                    "server.plaintext",
                    "production serves the API in clear",
                    "take the line out, so that `http` redirects, or name the proxy that ends TLS in `trusted_proxies`",
                );
            }
            _ => {}
        }
        if server.https() == values::Listen::Off && !server.plaintext() && server.http().address().is_some() {
            problems.error(
                "server.plaintext",
                "nothing serves the API: `https` is off and `http` only redirects",
                "write `plaintext = true` behind a proxy that ends TLS",
            );
        }
    }
    if config.tls.cert.is_some() != config.tls.key.is_some() {
        let (there, missing) = if config.tls.cert.is_some() { ("tls.cert", "key") } else { ("tls.key", "cert") };
        problems.error(
            there,
            format!("a certificate and its key belong together: `{missing}` is missing"),
            format!("add `{missing}` to `[tls]`"),
        );
    }
}
