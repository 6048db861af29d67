//! Who sends a request, and whether its route is for them.
//!
//! Guide section 1; threats 4, 17, 18, 21, 32. The one place that answers "who": below it, [`Context::identity`] is
//! settled. Credentials that were used end here, and whatever an application says about ours in its answers is dropped.

mod caller;
pub mod codes;
mod command;
pub mod config;
pub mod credential;
mod handover;
pub(crate) mod keys;
pub mod moving;
pub mod needs;
pub(crate) mod operations;
mod service;
pub(crate) mod streams;
pub mod when;

use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, HeaderValue, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode, request, response};
use palisade_policy::Problems;

pub use self::caller::{By, Caller, Identity};
pub use self::command::{open, open_store};
use self::config::{AccessBy, Config, Issuer, Route, WhenAway};
use self::credential::Offered;
use self::needs::Needs;
use self::operations::{Found, Known, Place, Table};
use self::service::{Known as Credential, Rejected, Services};
pub(crate) use self::service::{Ready, Service, origin, told};
use crate::context::Context;
use crate::control::{Asked, Begun, Check, Control, Info, Remedy, Routes};
use crate::controls::csrf::AuthenticatedBy;
use crate::controls::headers::{Docs, docs_are_for};
use crate::controls::integrity::{is_websocket, preflight_method};
use crate::endpoints;
use crate::endpoints::auth::answer::session_cookie;
use crate::endpoints::auth::call::encode;
use crate::policy::config::Route as PolicyRoute;
use crate::policy::values::PathPattern;
use crate::policy::{Env, Rule};
use crate::refusal::{Code, Refusal, Stop, prefers_html};

/// The role of administrators, which exists from the start.
const ADMIN: &str = "admin";

/// The control.
#[derive(Debug)]
pub struct Auth {
    config: Config,
    forward: Vec<bool>,
    /// Where the metadata of the API lies, as a parameter of `WWW-Authenticate`; none while the issuer is not known.
    metadata: Option<String>,
    services: Services,
    /// With `access = "openapi"`, of each application by its number; made when it is first asked for.
    documents: OnceLock<Vec<(Arc<Known>, Place)>>,
}

impl Control for Auth {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "auth",
        section: 1,
        codes: codes::CODES,
        judges: false,
        about: "Logins, tokens and API keys, and who may use a route. With it, every route needs a login unless it says otherwise.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        for (key, said) in routes.said() {
            if said.forward_credentials.is_some() && !section.present {
                let fix = "add `[auth]`, or leave the line out";
                problems.error(&format!("{key}.auth"), "without `[auth]` no credential is consumed", fix);
            }
        }
        if !section.present {
            return None;
        }
        check(section, env, problems);
        moving::check_paths(section, problems);
        let issuers = moving::compile(section, env, problems);
        let forward =
            routes.map(|said| said.and_then(|said| said.forward_credentials).unwrap_or(section.forward_credentials));
        let service = env.state.get("auth", Service::default);
        let metadata = section.issuer.as_ref().map(|issuer| {
            let (origin, path) = (issuer.origin(), issuer.path());
            format!("resource_metadata=\"{origin}/.well-known/oauth-protected-resource{path}\"")
        });
        Some(Self {
            config: section.clone(),
            forward,
            metadata,
            services: Services::new(service, issuers),
            documents: OnceLock::new(),
        })
    }
}

/// What of `[auth]` cannot be meant.
fn check(section: &Config, env: &Env, problems: &mut Problems) {
    match &section.issuer {
        None if !env.is_development() => {
            let fix = "write the URL under which clients reach this gateway: `issuer = \"https://api.example.com\"`";
            problems.error("auth", "tokens need an `issuer`", fix);
        }
        Some(issuer) if issuer.is_plain() && !env.is_development() => {
            let fix = "write `https://`: tokens and passwords travel there";
            problems.error("auth.issuer", "an issuer without TLS", fix);
        }
        _ => {}
    }
    if section.path.strip("/.palisade").is_some() || section.path.as_str() == "/.palisade" {
        problems.error("auth.path", "`/.palisade` is taken", "choose another path, such as `/auth`");
    }
    if section.path.as_str().split('/').any(|segment| segment.starts_with('.')) {
        problems.error("auth.path", "paths with a leading dot are not served", "choose another path, such as `/auth`");
    }
    let seconds = |interval: &palisade_base::Interval| interval.duration().as_secs();
    if !(60..=3600).contains(&seconds(&section.access_token)) {
        let fix = "a minute at least, an hour at most; `refresh_token` says how long a login lasts";
        problems.error("auth.access_token", "access tokens are for a short time", fix);
    }
    if seconds(&section.refresh_token) < seconds(&section.access_token) {
        let fix = "make it longer than `access_token`, such as `\"7d\"`";
        problems.error("auth.refresh_token", "a login that ends before its access token", fix);
    }
    if matches!(
        section.host,
        Some(crate::policy::values::HostPattern::Any | crate::policy::values::HostPattern::Below(_))
    ) {
        problems.error("auth.host", "one host is meant", "write its name, such as `\"login.example.com\"`");
    }
}

/// The routes of the endpoints: no other route says who may use them. Threats 21: they may live on a host of their own.
pub(crate) fn own_routes(policy: &crate::controls::Config) -> Vec<PolicyRoute> {
    let config = &policy.auth.config;
    if !config.present {
        return Vec::new();
    }
    let behind = config.issuer.as_ref().map_or("", Issuer::path);
    [
        format!("{}/*", config.path),
        format!("/.well-known/oauth-authorization-server{behind}"),
        format!("/.well-known/oauth-protected-resource{behind}"),
    ]
    .into_iter()
    .chain(config.paths.all().map(|(_, _, path)| path.to_string()))
    .filter_map(|path| {
        let path: PathPattern = path.parse().ok()?;
        Some(PolicyRoute { path, host: config.host.clone(), ..PolicyRoute::default() })
    })
    .collect()
}

/// Whether `[auth]` may ask for less under one of two readings of a path that fall under the same route: `auth.routes` and
/// the application's document go by the path as it is decided on, and the application may go by the other one.
pub(crate) fn tells_apart(policy: &crate::policy::Policy, rule: &Rule, path: &str, other: &str) -> bool {
    let config = &policy.config().auth.config;
    if !config.present || rule.own || !rule.needs.is_silent() {
        return false;
    }
    let (here, there) = (config.takes(path), config.takes(other));
    here != there || (here && config.goes_by_document(rule))
}

impl Auth {
    /// `WWW-Authenticate` of a refusal: where a client finds out how to log in (RFC 9728 section 5.1), and what was wrong with
    /// the credential that it brought, if it did (RFC 6750 section 3).
    pub(crate) fn challenge(&self, error: Option<&str>) -> HeaderValue {
        let error = error.map(|error| format!("error=\"{error}\""));
        let parameters: Vec<&str> = error.iter().chain(&self.metadata).map(String::as_str).collect();
        let text = format!("Bearer {}", parameters.join(", "));
        HeaderValue::try_from(text.trim_end()).unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// `[auth]` as written.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a right may have been taken away without our knowledge (threats 17), and the policy does not say that what
    /// was known last decides.
    pub(crate) fn is_unsure(&self) -> bool {
        self.config.when_away == WhenAway::Closed && self.services.get().is_some_and(|ready| ready.is_stale())
    }

    /// Users, sessions, tokens and keys, once the database was opened.
    pub(crate) fn identity(&self) -> Option<&palisade_identity::Identity> {
        self.services.identity()
    }

    /// The services of identity; opens the database the first time.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn open(&self, policy: &crate::policy::Policy) -> Result<&Arc<Ready>, Refusal> {
        self.services.open(policy).await
    }

    /// Takes the credentials out that were used or are of ours, and tells the application who is asking. Where the request
    /// is about to be forwarded: what comes before sees it as it was sent.
    pub(crate) fn hand_over(&self, ctx: &Context, parts: &mut request::Parts) {
        credential::cut_cookies(&mut parts.headers);
        if !self.owns(ctx) {
            return;
        }
        let caller = ctx.identity().caller();
        let used = caller.map(Caller::by).filter(|by| *by != By::Token || !self.forwards(ctx));
        // An application on a public route may have tokens of its own, but none that we made.
        if let Some(by) = used.or(parts.extensions.get::<Worthless>().map(|worthless| worthless.0)) {
            cut(by, &mut parts.headers);
        }
        // Whoever was identified was so by these.
        let (Some(caller), Some(ready)) = (caller, self.services.get()) else { return };
        let asked = handover::Asked {
            upstream: ctx.policy.upstream_name(ctx.rule().id),
            method: ctx.method.as_str(),
            path: parts.uri.path(),
            judged: parts.extensions.get::<Unasked>().is_none(),
        };
        handover::add(ready, caller, &asked, ctx.policy.clock().now(), &mut parts.headers);
    }

    /// Threats 21: an application neither sets nor clears our cookies, and does not speak in the name of the hand-over.
    pub(crate) fn clean(&self, ctx: &Context, headers: &mut HeaderMap) {
        handover::remove(headers);
        if !headers.get_all(SET_COOKIE).iter().any(|value| credential::sets_ours(value.as_bytes())) {
            return;
        }
        let theirs = |value: &&HeaderValue| !credential::sets_ours(value.as_bytes());
        let kept: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter(theirs).cloned().collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
        crate::observe::event::COOKIE
            .line(&ctx.policy.env().log)
            .str("name", credential::COOKIE_SECURE)
            .str("why", "the application tried to set a cookie of Palisade's")
            .str("route", &ctx.rule().label)
            .str("request_id", ctx.request_id().as_str());
    }

    /// Whether a path is under `[auth] routes`, or its route asks for something anyway.
    fn owns(&self, ctx: &Context) -> bool {
        ctx.rule().own
            || !ctx.rule().needs.is_silent()
            || self.config.takes(ctx.path())
            || docs_are_for(Docs::Admin, ctx)
    }

    /// What follows once it is known who asks.
    fn decide(&self, ctx: &Context, parts: &mut request::Parts, outcome: Outcome) -> Result<(), Stop> {
        let rule = ctx.rule();
        let rejected = match outcome {
            Outcome::Nobody => None,
            Outcome::Caller(caller) => {
                ctx.set_authenticated_by(match caller.by() {
                    By::Session => AuthenticatedBy::Cookie,
                    By::Token => AuthenticatedBy::Bearer,
                    By::Key => AuthenticatedBy::ApiKey,
                });
                if let Some(session) = caller.session_id() {
                    ctx.set_session_secret(*session.as_bytes());
                }
                ctx.set_identity(Identity::Caller(caller));
                None
            }
            Outcome::Rejected(refusal, by, ours) => {
                if ours {
                    parts.extensions.insert(Worthless(by));
                }
                Some(refusal)
            }
            Outcome::Away => Some(away()),
        };
        // The endpoints say themselves whom they are for, and one that needs nobody works with an old credential.
        if rule.own || endpoints::is_ours(ctx) || (rule.needs.public && !docs_are_for(Docs::Admin, ctx)) {
            parts.extensions.insert(Unasked);
            if let Some(refusal) = rejected {
                ctx.set_identity(Identity::Rejected(refusal));
            }
            return Ok(());
        }
        let table = match self.asks_document(ctx).then(|| self.table(ctx)) {
            None => None,
            Some(Some(table)) => Some(table),
            Some(None) => {
                let refusal = codes::DOCUMENT.refuse("the application's OpenAPI document was never read");
                return Err(refusal.retry_after(1).into());
            }
        };
        let found = table.as_deref().map(|table| table.find(ctx.app_path(), ctx.method.as_str()));
        if matches!(found, Some(Found::Open)) {
            parts.extensions.insert(Unasked);
            return Ok(());
        }
        let verdict = match (ctx.identity().caller(), rejected) {
            (Some(_), _) if needs_news(ctx) && self.is_unsure() => Err(away()),
            // No document describes a WebSocket's handshake: it needs a login.
            (Some(_), _) if matches!(found, Some(Found::Undeclared)) && !is_websocket(parts) => {
                Err(codes::UNDECLARED.refuse("neither a route nor the application's document names it"))
            }
            (Some(caller), _) => admits(ctx, caller, found),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(self.required(ctx, parts)),
        };
        verdict.map_err(Stop::from)
    }

    /// Whether the application's document says whom a request is for: no route does, and it is not for the documentation
    /// itself, which no document describes.
    fn asks_document(&self, ctx: &Context) -> bool {
        let rule = ctx.rule();
        if !self.config.goes_by_document(rule) {
            return false;
        }
        let path = ctx.app_path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let document = &ctx.policy.upstream(rule.id).openapi;
        path != document && !matches!(path, "/docs" | "/docs/oauth2-redirect" | "/redoc")
    }

    /// The operations of the application that a request goes to.
    fn table(&self, ctx: &Context) -> Option<Arc<Table>> {
        let number = usize::from(ctx.policy.destination(ctx.rule().id).upstream);
        self.all_documents(&ctx.policy).get(number)?.0.table()
    }

    fn all_documents(&self, policy: &crate::policy::Policy) -> &[(Arc<Known>, Place)] {
        self.documents.get_or_init(|| {
            let names = std::iter::once("upstream").chain(policy.config().upstreams.keys().map(String::as_str));
            let known = |name: &str| {
                let waits = !policy.env().is_development();
                let place = Place { name: name.to_owned(), state: policy.state_dir(), waits };
                let known = policy.env().state.get(&format!("openapi {name}"), Known::default);
                known.open(&place, &policy.env().log);
                (known, place)
            };
            names.map(known).collect()
        })
    }

    /// The documents that are to be read: of each application its number, what is known of it, and where that is kept.
    pub(crate) fn documents(&self, policy: &crate::policy::Policy) -> Vec<(u16, Arc<Known>, Place)> {
        if self.config.access != AccessBy::Openapi {
            return Vec::new();
        }
        let sources = std::iter::once(&policy.config().upstream).chain(policy.config().upstreams.values());
        let all = (0_u16..).zip(self.all_documents(policy)).zip(sources);
        all.filter(|(_, upstream)| upstream.openapi != "off")
            .map(|((number, (known, place)), _)| (number, Arc::clone(known), place.clone()))
            .collect()
    }

    /// Whether a request that was let in may go on, with its caller as they are now.
    fn still_admits(&self, ctx: &Context, caller: Option<&Caller>) -> Result<(), Refusal> {
        let rule = ctx.rule();
        if !self.owns(ctx) || rule.own || (rule.needs.public && !docs_are_for(Docs::Admin, ctx)) {
            return Ok(());
        }
        let table = self.asks_document(ctx).then(|| self.table(ctx)).flatten();
        let found = table.as_deref().map(|table| table.find(ctx.app_path(), ctx.method.as_str()));
        match (caller, found) {
            (_, Some(Found::Open)) => Ok(()),
            (Some(caller), found) => admits(ctx, caller, found),
            (None, _) => Err(codes::REQUIRED.refuse("by now a login is asked for")),
        }
    }

    fn forwards(&self, ctx: &Context) -> bool {
        self.forward.get(usize::from(ctx.rule().id)).copied().unwrap_or(false)
    }

    /// What a rejected credential comes to. A session that has ended is as good as none, for browsers send its cookie until
    /// somebody logs in again.
    fn outcome(&self, offered: &Offered<'_>, rejected: Rejected) -> Outcome {
        let refuse =
            |code: &'static Code, why| code.refuse(why).header(WWW_AUTHENTICATE, self.challenge(Some("invalid_token")));
        match (offered, rejected) {
            (_, Rejected::Away) => Outcome::Away,
            (Offered::Nothing | Offered::Session(_), _) => Outcome::Nobody,
            (Offered::Token(_), Rejected::Invalid { why, ours }) => {
                Outcome::Rejected(refuse(&codes::TOKEN, why), By::Token, ours)
            }
            (Offered::Key(value), Rejected::Invalid { why, .. }) => {
                Outcome::Rejected(refuse(&codes::KEY, why), By::Key, value.starts_with("pal_"))
            }
        }
    }

    /// The refusal of somebody who brings nothing: a browser that navigates is shown where to log in.
    fn required(&self, ctx: &Context, parts: &request::Parts) -> Refusal {
        let refusal = codes::REQUIRED.refuse("no credential");
        let elsewhere = self.config.host.as_ref().is_some_and(|host| !host.matches(ctx.host()));
        // A session of another host would not come back to this one.
        if !is_navigation(parts) || elsewhere {
            return refusal.header(WWW_AUTHENTICATE, self.challenge(None));
        }
        let back = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let back = if back.len() <= 2048 && back.starts_with('/') && !back.starts_with("//") { back } else { "/" };
        let login = format!("{}/login?return_to={}", self.config.path, encode(back));
        match HeaderValue::from_str(&login) {
            Ok(login) => refusal.status(StatusCode::SEE_OTHER).header(LOCATION, login),
            Err(_) => refusal,
        }
    }
}

/// Whether the route of a request asks for what can be taken away at any moment. On others everything goes on until it ends
/// by itself.
fn needs_news(ctx: &Context) -> bool {
    let needs = &ctx.rule().needs;
    !needs.roles.is_empty()
        || !needs.permissions.is_empty()
        || ctx.rule().when.is_some()
        || docs_are_for(Docs::Admin, ctx)
}

/// Whether the route of a request is for its caller, or what the application's document says of it. The condition comes
/// last: what can be said without the request's values has been said.
fn admits(ctx: &Context, caller: &Caller, found: Option<Found<'_>>) -> Result<(), Refusal> {
    let (rule, now) = (ctx.rule(), ctx.policy.clock().now());
    if docs_are_for(Docs::Admin, ctx) {
        // On top of what the route asks, never instead: a `public` one opens the documentation to nobody else.
        Needs { roles: vec![ADMIN.into()], ..Needs::default() }.judge(caller, now)?;
    }
    if let Some(Found::Asks(all)) = found {
        return all.into_iter().try_for_each(|any_of| operations::judge(any_of, caller, now));
    }
    rule.needs.judge(caller, now)?;
    rule.when.as_ref().map_or(Ok(()), |when| when.judge(ctx, caller))
}

/// The services of identity of a running gateway: users, sessions, tokens, keys. None without `[auth]`.
///
/// # Errors
/// When the database does not answer.
pub async fn identity(handle: &crate::live::Handle) -> crate::Result<Option<palisade_identity::Identity>> {
    let live = handle.live();
    let Some(auth) = &live.policy.controls().auth.control else { return Ok(None) };
    match auth.open(&live.policy).await {
        Ok(ready) => Ok(Some(ready.identity.clone())),
        Err(refusal) => {
            let reason = refusal.fields().iter().find(|(name, _)| *name == "reason").map(|(_, why)| why.to_string());
            Err(crate::Error::State(reason.unwrap_or_default()))
        }
    }
}

/// Whether a browser wants to show a page.
fn is_navigation(parts: &request::Parts) -> bool {
    let mode = parts.headers.get("sec-fetch-mode");
    matches!(parts.method, Method::GET | Method::HEAD)
        && mode.is_none_or(|mode| mode.as_bytes() == b"navigate")
        && prefers_html(parts.headers.get(http::header::ACCEPT))
}

fn away() -> Refusal {
    codes::AWAY.refuse("the database does not answer").retry_after(1)
}

/// Who asks.
enum Outcome {
    Nobody,
    Caller(Box<Caller>),
    /// `true`: the credential is one that we made.
    Rejected(Refusal, By, bool),
    Away,
}

/// Marks a request with a credential of ours that is worth nothing: it does not reach the application either.
#[derive(Debug, Clone, Copy)]
struct Worthless(By);

/// Marks a request that anybody may send: nobody has asked its caller for anything.
#[derive(Debug, Clone, Copy)]
struct Unasked;

/// Takes the header of a credential out.
fn cut(by: By, headers: &mut HeaderMap) {
    match by {
        By::Session => {}
        By::Token => drop(headers.remove(AUTHORIZATION)),
        By::Key => {
            headers.remove(credential::API_KEY);
            let is_key = |value: &HeaderValue| value.as_bytes().windows(4).any(|four| four == b"pal_");
            if headers.get(AUTHORIZATION).is_some_and(is_key) {
                headers.remove(AUTHORIZATION);
            }
        }
    }
}

impl Check for Auth {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        // Only asked where nothing waits: see `begin`.
        self.decide(ctx, parts, Outcome::Nobody)
    }

    /// What a session goes on under, whatever the answer is: a refusal by the route, an error of the application. Where an
    /// endpoint has set another or ended it, that is the last word.
    fn response(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        if let Some(cookie) = ctx.session_cookie()
            && !parts.headers.get_all(SET_COOKIE).iter().any(|line| credential::sets_session(line.as_bytes()))
        {
            parts.headers.append(SET_COOKIE, cookie.clone());
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        true
    }

    fn waits(&self) -> bool {
        true
    }

    fn begin<'a>(&'a self, ctx: &'a Arc<Context>, parts: &'a mut request::Parts) -> Begun<'a> {
        if !self.owns(ctx) || preflight_method(parts).is_some() {
            return Begun::Done(Ok(()));
        }
        if parts.uri.query().is_some_and(credential::has_key) {
            return Begun::Done(Err(codes::IN_URL.refuse("an API key in the query").into()));
        }
        if !ctx.has_credential() {
            return Begun::Done(self.decide(ctx, parts, Outcome::Nobody));
        }
        let offered = match credential::offered(&parts.headers, credential::is_secure(ctx)) {
            Ok(offered) => offered,
            Err(refusal) => return Begun::Done(Err(refusal.into())),
        };
        if offered == Offered::Nothing {
            return Begun::Done(self.decide(ctx, parts, Outcome::Nobody));
        }
        match self.services.known(&offered) {
            Credential::Caller(caller) => Begun::Done(self.decide(ctx, parts, Outcome::Caller(caller))),
            Credential::Rejected(rejected) => {
                let outcome = self.outcome(&offered, rejected);
                Begun::Done(self.decide(ctx, parts, outcome))
            }
            Credential::Ask(question) => Begun::Waits(Box::pin(async move {
                let offered = credential::offered(&parts.headers, credential::is_secure(ctx))?;
                let outcome = match self.services.ask(ctx, &question, &parts.headers).await {
                    Ok((caller, rotated)) => {
                        if let Some(cookie) = rotated.and_then(|rotated| session_cookie(ctx, &rotated)) {
                            ctx.set_session_cookie(cookie);
                        }
                        Outcome::Caller(caller)
                    }
                    Err(rejected) => self.outcome(&offered, rejected),
                };
                self.decide(ctx, parts, outcome)
            })),
        }
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let code = asked.judged.code;
        if *code == codes::REQUIRED {
            return Some(Remedy::Route("public = true".into()));
        }
        if *code == codes::UNDECLARED {
            return Some(Remedy::Route("user = true".into()));
        }
        if *code == codes::FORBIDDEN {
            return Some(Remedy::Elsewhere(format!(
                "`auth` always enforces: {}; give the user the role (`palisade user set`), or the credential the scope",
                asked.judged.why
            )));
        }
        None
    }
}
