//! The services of identity behind this gateway: the database, keys, caches; and what outlives policies of it.
//!
//! Threats 17: memory proves what cannot change, the signature of a token, or a row as of a place in the feed of changes.
//! Everything else is decided on every request, in `palisade-identity`.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use palisade_base::Secret;
use palisade_identity::Identity;
use palisade_identity::opaque::{ApiKey, Session};
use palisade_identity::password::Breached;
use palisade_identity::password::pool::{Limits, Pool};
use palisade_identity::password::{Cost, Hasher, Policy as Passwords};
use palisade_identity::rings::Rings;
use palisade_identity::service::{
    FeedState, Issuer, Lifetimes, NotValid, Notice, Origin, Parts, Rotated, Settings, Unrecognised,
};
use palisade_identity::token::Refused;
use palisade_store::{Options, Store};
use palisade_vault::Provider;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;

use super::caller::Caller;
use super::codes;
use super::config::{Config, DatabaseUrl};
use super::credential::Offered;
use super::keys::Keys;
use crate::context::Context;
use crate::controls::Config as PolicyConfig;
use crate::observe::event;
use crate::policy::Policy;
use crate::refusal::Refusal;

/// Assertions that are remembered, in number. About a kilobyte each.
const ASSERTIONS: usize = 10_000;

/// The second in which each was signed, and its header, by all that it says.
pub(super) type Assertions = Cache<Box<str>, (i64, HeaderValue)>;

/// What outlives policies.
#[derive(Debug, Default)]
pub(crate) struct Service {
    core: OnceCell<Core>,
}

#[derive(Debug)]
struct Core {
    identity: Identity,
    rings: Rings,
    assertions: Arc<Assertions>,
}

/// What is known of a credential without asking the database.
pub(super) enum Known {
    /// It is this caller's.
    Caller(Box<Caller>),
    /// It is none.
    Rejected(Rejected),
    /// The database has to be asked.
    Ask(Question),
}

/// What the database has to be asked about.
pub(super) enum Question {
    /// A token.
    Token(Secret<String>),
    /// A session.
    Session(Session),
    /// An API key.
    Key(ApiKey),
}

/// Why a credential is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is none, or no longer. `ours`: it is one that we made.
    Invalid {
        /// For the log.
        why: &'static str,
        /// Whether we made it.
        ours: bool,
    },
    /// It could not be checked.
    Away,
}

/// The services under one policy.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Users, sessions, tokens, keys.
    pub(crate) identity: Identity,
    rings: Rings,
    keys: Keys,
    assertions: Arc<Assertions>,
}

/// The services of a policy, once they are there.
#[derive(Debug)]
pub(super) struct Services {
    service: Arc<Service>,
    issuers: Arc<[Issuer]>,
    ready: OnceLock<Arc<Ready>>,
}

impl Services {
    pub(super) fn new(service: Arc<Service>, issuers: Vec<Issuer>) -> Self {
        Self { service, issuers: issuers.into(), ready: OnceLock::new() }
    }

    /// Users, sessions, tokens and keys, once the database was opened under any policy.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.service.core.get().map(|core| &core.identity)
    }

    /// The services, where somebody has asked for them before.
    pub(super) fn get(&self) -> Option<&Arc<Ready>> {
        self.ready.get()
    }

    /// The services; opens the database and the keys the first time.
    pub(super) async fn open(&self, policy: &Policy) -> Result<&Arc<Ready>, Refusal> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let away = |why: String| {
            codes::AWAY.refuse("the database or the keys cannot be opened").with("reason", why).retry_after(1)
        };
        let keys = policy.env().keys.clone().ok_or_else(|| away("the policy has no `[auth]`".into()))?;
        let opened = self.service.core.initialized();
        let core = self.service.core.get_or_try_init(|| Core::open(policy, &keys)).await.map_err(away)?;
        if opened {
            // Another policy than the one that they were opened under.
            let keys = keys.clone();
            let _ = tokio::task::spawn_blocking(move || keys.adopt()).await;
        }
        let settings = settings(policy.config(), issuer(policy, &policy.config().auth.config));
        let identity = core.identity.with(Settings { issuers: Arc::clone(&self.issuers), ..settings });
        identity.set_password_policy(passwords(policy.config()));
        let ready = Ready { identity, rings: core.rings.clone(), keys, assertions: Arc::clone(&core.assertions) };
        Ok(self.ready.get_or_init(|| Arc::new(ready)))
    }

    /// What is known of a credential.
    pub(super) fn known(&self, offered: &Offered<'_>) -> Known {
        let invalid = |why| Known::Rejected(Rejected::Invalid { why, ours: false });
        let ready = self.ready.get().filter(|ready| ready.identity.feed_state() != FeedState::Never);
        match offered {
            Offered::Nothing => invalid("nothing"),
            Offered::Token(text) => {
                let known = ready.and_then(|ready| ready.identity.token_cached(text, &[]));
                let known = known.filter(|known| !matches!(known, Err(NotValid::Token(Refused::UnknownKey))));
                answered(known, || Question::Token(Secret::new((*text).to_owned())))
            }
            Offered::Session(text) => match Session::parse(text) {
                None => invalid("not the spelling of a session"),
                Some(session) => answered(ready.and_then(|ready| ready.identity.session_cached(&session)), || {
                    Question::Session(session)
                }),
            },
            Offered::Key(text) => match ApiKey::parse(text) {
                Err(_) => invalid("not an API key, or a damaged one"),
                Ok(key) => answered(ready.and_then(|ready| ready.identity.key_cached(&key)), || Question::Key(key)),
            },
        }
    }

    /// Asks the database. A session may go on under another secret, which the answer has to bring.
    pub(super) async fn ask(
        &self,
        ctx: &Context,
        question: &Question,
        headers: &HeaderMap,
    ) -> Result<(Box<Caller>, Option<Rotated>), Rejected> {
        let ready = self.open(&ctx.policy).await.map_err(|_| Rejected::Away)?;
        // Several statements, each with a deadline of its own: together they take no longer than one may.
        let deadline = ctx.policy.config().database.timeout.duration();
        tokio::time::timeout(deadline, ready.recognise(ctx, question, headers)).await.unwrap_or(Err(Rejected::Away))
    }
}

impl Ready {
    async fn recognise(
        &self,
        ctx: &Context,
        question: &Question,
        headers: &HeaderMap,
    ) -> Result<(Box<Caller>, Option<Rotated>), Rejected> {
        let Self { identity, keys, .. } = self;
        if identity.feed_state() == FeedState::Never {
            identity.catch_up().await.map_err(|_| Rejected::Away)?;
        }
        let asked = match question {
            Question::Token(text) => match identity.token(text.expose(), &[]).await {
                // Another instance may have begun to sign with a key that this one has not seen yet.
                Err(Unrecognised::NotValid(NotValid::Token(Refused::UnknownKey))) if keys.ask_again() => {
                    identity.token(text.expose(), &[]).await
                }
                asked => asked,
            }
            .map(|caller| (caller, None)),
            Question::Session(session) => identity.session(session, &origin(ctx, headers)).await,
            Question::Key(key) => identity.key(key).await.map(|caller| (caller, None)),
        };
        match asked {
            Ok((caller, rotated)) => Ok((Box::new(Caller::new(caller)), rotated)),
            Err(Unrecognised::NotValid(why)) => {
                if let NotValid::Replayed { user, session } = why {
                    replayed(ctx, &user.to_string(), &session.to_string());
                }
                Err(rejected(why))
            }
            Err(Unrecognised::Trouble(_)) => Err(Rejected::Away),
        }
    }
}

/// Where a request comes from, as far as what it brings is bound to that.
pub(crate) fn origin(ctx: &Context, headers: &HeaderMap) -> Origin {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    Origin { agent: agent.chars().take(300).collect(), ..Origin::new(ctx.client_ip()) }
}

fn replayed(ctx: &Context, user: &str, session: &str) {
    event::SESSION_REPLAYED
        .line(&ctx.policy.env().log)
        .str("owasp", "session_use_after_expire")
        .str("user", user)
        .str("session", session)
        .str("client", ctx.client_text())
        .str("request_id", ctx.request_id().as_str());
}

/// What memory says; where it says nothing, what is to be asked.
fn answered(
    cached: Option<Result<palisade_identity::service::Caller, NotValid>>,
    question: impl FnOnce() -> Question,
) -> Known {
    match cached {
        None => Known::Ask(question()),
        Some(Ok(caller)) => Known::Caller(Box::new(Caller::new(caller))),
        Some(Err(why)) => Known::Rejected(rejected(why)),
    }
}

fn rejected(why: NotValid) -> Rejected {
    let (why, ours) = match why {
        NotValid::Token(
            Refused::TooLong
            | Refused::Form
            | Refused::Header
            | Refused::Extension
            | Refused::BringsKey
            | Refused::UnknownKey
            | Refused::Algorithm
            | Refused::Signature,
        ) => ("the token is not signed by a key of ours", false),
        NotValid::Token(Refused::Expired) => ("the token has expired", true),
        NotValid::Token(_) => ("the token is for something else", true),
        NotValid::Unknown => ("unknown, or ended", true),
        NotValid::Replayed { .. } => ("replaced, and brought again", true),
        NotValid::Revoked => ("revoked", true),
        NotValid::Expired => ("expired", true),
        NotValid::Disabled => ("the account is disabled", true),
        _ => ("malformed", false),
    };
    Rejected::Invalid { why, ours }
}

impl Core {
    async fn open(policy: &Policy, keys: &Keys) -> Result<Self, String> {
        let (clock, config) = (policy.clock().clone(), policy.config());
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let state = policy.state_dir();
        let opening = keys.clone();
        // Files are read, and a key may be made, which takes its time.
        let rings = tokio::task::spawn_blocking(move || opening.open().cloned()).await.map_err(|why| text(&why))??;
        let options = options(config, &state, &*policy.env().secrets)?;
        let store = Store::open(&options).await.map_err(|why| text(&why))?;
        if options.is_embedded() {
            store.migrate().await.map_err(|why| text(&why))?;
        } else {
            match store.pending().await {
                Ok(pending) if !pending.is_empty() => {
                    return Err("the database has pending migrations: run `palisade db migrate`".into());
                }
                Ok(_) => {}
                Err(why) => return Err(text(&why)),
            }
        }
        let identity = Identity::new(Parts {
            store,
            pool: Pool::new(Limits::default(), clock.clone()).map_err(|why| text(&why))?,
            clock,
            hasher: Hasher::new(Cost::default(), rings.peppers()),
            policy: passwords(config),
            keyring: rings.access(),
            settings: settings(config, issuer(policy, &config.auth.config)),
        });
        let assertions = Arc::new(Assertions::new(ASSERTIONS));
        let (follower, signed) = (identity.clone(), Arc::clone(&assertions));
        keys.followed_by(move |rings| {
            follower.set_keyring(rings.access());
            follower.set_hasher(Hasher::new(Cost::default(), rings.peppers()));
            signed.clear();
        });
        // Believed from here on; should it fail, the follower goes on trying.
        let _ = identity.catch_up().await;
        let (follower, log) = (identity.clone(), policy.env().log.clone());
        tokio::spawn(async move {
            let tell = |notice| match notice {
                Notice::Away(why) => drop(event::FEED_AWAY.line(&log).show("reason", why)),
                Notice::Back => drop(event::FEED_BACK.line(&log)),
                Notice::Restarted => drop(event::FEED_RESTARTED.line(&log)),
                Notice::NotSwept(why) => drop(event::NOT_SWEPT.line(&log).show("reason", why)),
            };
            follower.follow(tell).await;
        });
        // With `[redis]` other instances look at once, and this one when they say so; without it a little later.
        let (news, looks) = (identity.clone(), identity.clone());
        let announced = move || {
            let news = news.clone();
            async move { news.announced().await }
        };
        tokio::spawn(crate::redis::carry(Arc::clone(&policy.env().state), "feed", announced, move || looks.nudge()));
        event::IDENTITY
            .line(&policy.env().log)
            .str("database", if options.is_embedded() { "sqlite" } else { "postgresql" });
        Ok(Self { identity, rings, assertions })
    }
}

/// Where the database is.
pub(super) fn options(config: &PolicyConfig, state: &Path, secrets: &dyn Provider) -> Result<Options, String> {
    let database = &config.database;
    let mut options = match &database.url {
        None => Options::sqlite(state.join("palisade.db")),
        Some(DatabaseUrl::Url(url)) => {
            let here = std::path::Path::new("");
            Options::parse(&Secret::new(url.as_str().to_owned()), here).map_err(|why| why.to_string())?
        }
        Some(DatabaseUrl::Secret(name)) => {
            let url = secrets.get(&name.secret).map_err(|why| why.to_string())?;
            let url = Secret::new(url.expose().trim().to_owned());
            Options::parse(&url, state).map_err(|why| why.to_string())?
        }
    };
    options.max_connections = database.connections;
    options.acquire_timeout = database.timeout.duration();
    options.statement_timeout = database.timeout.duration();
    Ok(options)
}

/// What the policy says, in the types of identity.
pub(super) fn settings(config: &PolicyConfig, issuer: String) -> Settings {
    let (auth, session) = (&config.auth.config, &config.session);
    Settings {
        audience: if auth.audience.is_empty() { vec![issuer.clone()] } else { auth.audience.clone() },
        issuer,
        lifetimes: Lifetimes {
            access_token: auth.access_token.duration(),
            refresh_idle: auth.refresh_token.duration(),
            session_idle: session.idle.duration(),
            session_absolute: session.absolute.duration(),
            session_remembered: session.remember.duration(),
            ..Lifetimes::default()
        },
        issuers: Arc::default(),
        environment: if config.server.is_development() { "dev".into() } else { "live".into() },
    }
}

/// In development the address of the HTTPS listener, once it is open.
fn issuer(policy: &Policy, auth: &Config) -> String {
    if let Some(issuer) = &auth.issuer {
        return issuer.as_str().to_owned();
    }
    let server = crate::server::state(policy.env());
    match (server.port("https"), server.port("http")) {
        (Some(port), _) => format!("https://localhost:{port}"),
        (None, Some(port)) => format!("http://localhost:{port}"),
        (None, None) => "https://localhost".to_owned(),
    }
}

/// What a supervised application needs to believe `Palisade-Assertion`: who signs it, and where the keys are. On ports that
/// the system chose nobody else could tell it. Nothing of it is secret.
pub(crate) fn told(policy: &Policy) -> Vec<(&'static str, String)> {
    let (auth, server) = (&policy.config().auth.config, &policy.config().server);
    if !auth.present {
        return Vec::new();
    }
    let issuer = issuer(policy, auth);
    // In development over the plain listener, where there is one: the application need not trust the local authority.
    let near = crate::server::state(policy.env()).port("http").filter(|_| auth.issuer.is_none() && server.plaintext());
    let origin = near.map_or_else(|| origin_of(&issuer).to_owned(), |port| format!("http://localhost:{port}"));
    vec![("PALISADE_JWKS", format!("{origin}{}/jwks.json", auth.path)), ("PALISADE_ISSUER", issuer)]
}

/// Scheme, host and port of an issuer.
fn origin_of(issuer: &str) -> &str {
    let from = issuer.find("://").map_or(0, |place| place + 3);
    issuer[from..].find('/').map_or(issuer, |slash| &issuer[..from + slash])
}

/// Which passwords may be set.
pub(super) fn passwords(config: &PolicyConfig) -> Passwords {
    let mut names: Vec<String> = config.server.hosts.iter().map(ToString::to_string).collect();
    if let Some(issuer) = &config.auth.config.issuer {
        names.push(issuer.origin().to_owned());
    }
    let passwords = Passwords::default().min_length(usize::from(config.password.min_length)).service(names);
    match config.password.breached.as_deref().map(Breached::open) {
        Some(Ok(list)) => passwords.breached(list),
        _ => passwords,
    }
}

impl Ready {
    /// `iss` of tokens.
    pub(crate) fn issuer(&self) -> &str {
        &self.identity.settings().issuer
    }

    /// Scheme, host and port of the issuer.
    pub(crate) fn origin(&self) -> &str {
        origin_of(self.issuer())
    }

    /// The keys.
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// How long readers of the JWKS may keep it, in seconds.
    pub(crate) fn published_for(&self) -> u64 {
        self.keys.published_for()
    }

    /// Whether what others revoke is known.
    pub(super) fn is_stale(&self) -> bool {
        self.identity.feed_state() != FeedState::Fresh
    }

    /// Assertions that were signed.
    pub(super) fn assertions(&self) -> &Assertions {
        &self.assertions
    }

    /// An id that nobody guesses.
    pub(crate) fn fresh_id(&self) -> String {
        palisade_store::Uuid::now_v7().to_string()
    }
}
