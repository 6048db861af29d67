//! Cross-site request forgery: requests that a page of another site makes the browser of one's user send.
//!
//! Guide section 5. What has to be proved follows from how the request was authenticated: what a browser adds by itself
//! (cookies, client certificates, Basic) also comes with forged requests, so a request that changes something must show
//! that an own page made it. First by what the browser says (`Sec-Fetch-Site`, `Origin`), which no page can forge; where
//! it says nothing, by a token. A bearer token or API key needs no proof, but only if it was the accepted credential.
//! Sources: OWASP's cheat sheet on CSRF, W3C Fetch Metadata, threats 18 and 44.

mod config;
mod field;
mod how;
mod inject;
mod site;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RANGE, SET_COOKIE,
};
use http::{HeaderMap, Method, Response, StatusCode, request, response};
use palisade_policy::Problems;

pub use self::config::{Config, Route};
use self::field::{Form, WITHIN};
pub use self::how::AuthenticatedBy;
pub(crate) use self::site::{Site, of as site};
use self::token::{Key, Session, Tokens};
use crate::body::{ResponseBody, Start};
use crate::context::{Context, Seen};
use crate::control::{Asked, Check, Control, ControlId, Info, Inspect, Mode, Peek, Remedy, Routes};
use crate::controls::integrity;
use crate::observe::redact;
use crate::policy::Env;
use crate::policy::secrets::weakness;
use crate::policy::values::PathPattern;
use crate::refusal::{Code, Refusal, Stop};
use crate::stack::Instead;

/// A page that is not ours made the browser send it.
pub static ORIGIN: Code =
    Code::client("csrf.origin", StatusCode::FORBIDDEN, 5, "this request was made by a page of another site")
        .owasp("malicious_cors");
/// Nothing shows which page made the browser send it.
pub static TOKEN_MISSING: Code = Code::client(
    "csrf.token_missing",
    StatusCode::FORBIDDEN,
    5,
    "this request needs a CSRF token: in `X-CSRF-Token`, or in the form field `csrf_token`",
)
.owasp("authz_fail");
/// The token is none, or one of another session.
pub static TOKEN_INVALID: Code =
    Code::client("csrf.token_invalid", StatusCode::FORBIDDEN, 5, "the CSRF token is not one of this session")
        .owasp("authz_fail");

/// The header that carries the token.
pub(crate) const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// How long a page may take to come in whole; a slower one stays as it is.
const PAGE_TIME: Duration = Duration::from_secs(10);
/// The shortest key, in bytes.
const MIN_KEY: usize = 32;
/// The key where the policy names none: it outlives reloads, not restarts.
struct Random([u8; 32]);

/// The control.
#[derive(Debug)]
pub struct Csrf(Arc<Shared>);

/// What inspectors of bodies hold too.
#[derive(Debug)]
struct Shared {
    id: ControlId,
    exempt: Vec<PathPattern>,
    login: Vec<PathPattern>,
    tokens: Tokens,
    hands_out: bool,
    injects: bool,
}

/// What is known of a request in this respect.
#[derive(Debug)]
pub(crate) enum Facts {
    /// It needs no proof, or has one.
    Checked,
    /// It asks for a page, which gets a token.
    Page(Page),
}

/// What a page gets.
#[derive(Debug)]
pub(crate) struct Page {
    token: String,
    /// The cookie to set, where the browser has none that fits.
    cookie: Option<String>,
}

impl Control for Csrf {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "csrf",
        section: 5,
        codes: &[&ORIGIN, &TOKEN_MISSING, &TOKEN_INVALID],
        judges: true,
        about: "Requests that a page of another site makes the browser of a user send.",
    };

    fn compile(section: &Config, _: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let key = match &section.key {
            None => usual_key(env),
            Some(named) => match env.secrets.get(&named.secret) {
                Ok(key) => {
                    let short = (key.expose().len() < MIN_KEY).then(|| format!("is shorter than {MIN_KEY} bytes"));
                    let weak = || weakness(key.expose()).filter(|_| !env.is_development()).map(str::to_owned);
                    match short.or_else(weak) {
                        None => Some(Key::own(key.expose().as_bytes())),
                        Some(why) => {
                            let fix = "make one with `openssl rand -base64 32`";
                            problems.error("csrf.key", format!("the key {why}"), fix);
                            None
                        }
                    }
                }
                Err(error) => {
                    problems.error("csrf.key", error.to_string(), "put it where `[secrets]` looks");
                    None
                }
            },
        };
        if let Some(name) = &section.session_cookie
            && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b)))
        {
            problems.error("csrf.session_cookie", "not the name of a cookie", "write its name, such as `sessionid`");
        }
        let id = crate::controls::INFOS.iter().position(|info| info.name == Self::INFO.name).unwrap_or_default();
        Some(Self(Arc::new(Shared {
            id: ControlId(u8::try_from(id).unwrap_or_default()),
            exempt: section.exempt.clone(),
            login: section.login.clone(),
            tokens: Tokens::new(key?, section.session_cookie.as_deref()),
            hands_out: section.tokens || section.inject,
            injects: section.inject,
        })))
    }
}

/// The key where the policy names none: with a login the one that all instances share, which outlives restarts; without
/// one a random one, so that nothing has to be stored.
fn usual_key(env: &Env) -> Option<Key> {
    if let Some(keys) = &env.keys {
        return Some(Key::Ring(keys.clone()));
    }
    let random = env.state.get("csrf.key", || {
        let mut key = [0; 32];
        // Without randomness there are no tokens that anybody could have guessed either.
        aws_lc_rs::rand::fill(&mut key).map(|()| Random(key)).ok()
    });
    random.as_ref().as_ref().map(|random| Key::own(&random.0))
}

/// What has to be done about a request.
#[derive(Debug)]
enum Step {
    /// Nothing: it has a proof, or needs none.
    Passes,
    /// Its body may hold the token.
    Field(Form),
}

impl Shared {
    /// Whether the request shows that an own page made it; looked at as one that changes something.
    fn judge(&self, ctx: &Context, headers: &HeaderMap, socket: bool) -> Result<Step, Refusal> {
        // Palisade's own endpoints ask themselves, whatever the mode is.
        if ctx.rule().own {
            return Ok(Step::Passes);
        }
        let path = ctx.path();
        if self.exempt.iter().any(|pattern| pattern.matches(path)) {
            return Ok(Step::Passes);
        }
        let ambient = how::is_ambient(ctx, headers);
        if !ambient && !self.login.iter().any(|pattern| pattern.matches(path)) {
            return Ok(Step::Passes);
        }
        match site::of(ctx, headers) {
            Site::Own => Ok(Step::Passes),
            Site::Foreign(why) => Err(foreign(ctx, why)),
            // Every browser sends `Origin` with a handshake, and with a form of another site.
            Site::Unknown if socket || !ambient => Ok(Step::Passes),
            Site::Opaque if socket => Err(foreign(ctx, "`Origin` is `null`")),
            Site::Unknown | Site::Opaque => self.token(ctx, headers),
        }
    }

    fn token(&self, ctx: &Context, headers: &HeaderMap) -> Result<Step, Refusal> {
        let mut sent = headers.get_all(X_CSRF_TOKEN).iter();
        let (token, more) = (sent.next(), sent.next().is_some());
        match (token, Form::of(headers)) {
            (Some(_), _) if more => Err(TOKEN_INVALID.refuse("`X-CSRF-Token` is there more than once")),
            (Some(token), _) => self.verify(ctx, headers, token.as_bytes()).map(|()| Step::Passes),
            (None, Some(form)) if ctx.has_body => Ok(Step::Field(form)),
            (None, _) => Err(TOKEN_MISSING.refuse("neither `Sec-Fetch-Site` nor `Origin` nor a token")),
        }
    }

    fn verify(&self, ctx: &Context, headers: &HeaderMap, token: &[u8]) -> Result<(), Refusal> {
        match self.tokens.session(ctx, headers) {
            Some(session) if self.tokens.is_valid(&session, token) => Ok(()),
            Some(_) => Err(TOKEN_INVALID.refuse("a token of another session, or none")),
            None => Err(TOKEN_INVALID.refuse("a token without the cookie that it belongs to")),
        }
    }

    /// The session that a page's tokens belong to; a new cookie where there is none yet.
    fn page(&self, ctx: &Context, headers: &HeaderMap) -> Option<Page> {
        let known = self.tokens.session(ctx, headers);
        let fits = |session: &Session| {
            let sent = token::cookie(headers, token::cookie_name(ctx));
            sent.is_some_and(|sent| self.tokens.is_valid(session, sent.as_bytes()))
        };
        let set = !known.as_ref().is_some_and(fits);
        let session = known.or_else(|| self.tokens.new_cookie())?;
        let cookie = if set { self.tokens.cookie_value(&session) } else { None };
        Some(Page { token: self.tokens.token(&session)?, cookie })
    }
}

fn foreign(ctx: &Context, why: &'static str) -> Refusal {
    let refusal = ORIGIN.refuse(why);
    match ctx.origin.as_ref().and_then(|origin| origin.to_str().ok()) {
        // A header of the client's, in which anything may stand.
        Some(origin) => refusal.with("origin", redact::text(origin)),
        None => refusal,
    }
}

/// Methods that change nothing (RFC 9110 §9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

impl Check for Csrf {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        let csrf = &*self.0;
        let socket = ctx.seen.any(Seen::CONNECTION) && integrity::is_websocket(parts);
        if is_safe(&parts.method) && !socket {
            // In `detect` nothing changes, what an application is told neither.
            if csrf.hands_out && parts.method == Method::GET && ctx.mode(csrf.id) == Mode::Block {
                // Whatever a client says here is not the token of this page.
                parts.headers.remove(X_CSRF_TOKEN);
                if wants_html(&parts.headers)
                    && let Some(page) = csrf.page(ctx, &parts.headers)
                {
                    if let Ok(token) = HeaderValue::from_str(&page.token) {
                        parts.headers.insert(X_CSRF_TOKEN, token);
                    }
                    if csrf.injects {
                        // Nothing can be put into a page that is compressed, a piece, or one that the browser has.
                        for name in [ACCEPT_ENCODING, IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE] {
                            parts.headers.remove(name);
                        }
                    }
                    ctx.set_csrf(Facts::Page(page));
                }
            }
            return Ok(());
        }
        match csrf.judge(ctx, &parts.headers, socket)? {
            Step::Passes => ctx.set_csrf(Facts::Checked),
            Step::Field(_) => {}
        }
        Ok(())
    }

    fn inspect(&self, ctx: &Context, parts: &request::Parts) -> Option<Box<dyn Inspect>> {
        // What was decided with the head needs no second look.
        if is_safe(&parts.method) || ctx.csrf().is_some() {
            return None;
        }
        let Ok(Step::Field(form)) = self.0.judge(ctx, &parts.headers, false) else { return None };
        let session = self.0.tokens.session(ctx, &parts.headers);
        let field = Field { csrf: Arc::clone(&self.0), form, session, kept: Vec::new(), look_at: 1024, found: false };
        Some(Box::new(field))
    }

    fn inspects(&self) -> bool {
        true
    }

    fn response(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        let Some(Facts::Page(page)) = ctx.csrf() else { return Ok(()) };
        if !is_html(&parts.headers) || parts.extensions.get::<&'static Code>().is_some() {
            return Ok(());
        }
        if let Some(cookie) = page.cookie.as_deref().and_then(|cookie| token::set_cookie(ctx, cookie)) {
            parts.headers.append(SET_COOKIE, cookie);
        }
        // The token is this visitor's: no cache may give the page to another one.
        if !parts.headers.contains_key(CACHE_CONTROL) {
            parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        Ok(())
    }

    fn peeks(&self, ctx: &Context, _: StatusCode, headers: &HeaderMap) -> Option<Peek> {
        let page = matches!(ctx.csrf(), Some(Facts::Page(_)));
        let plain = page && is_html(headers) && is_utf8(headers) && !headers.contains_key(CONTENT_ENCODING);
        (self.0.injects && plain).then_some(Peek { bytes: inject::MAX_PAGE, within: PAGE_TIME })
    }

    fn peeked(&self, ctx: &Context, parts: &mut response::Parts, start: &Start) -> Result<(), Refusal> {
        let (Some(Facts::Page(page)), true) = (ctx.csrf(), start.whole) else { return Ok(()) };
        let Ok(text) = std::str::from_utf8(&start.bytes) else { return Ok(()) };
        if let Some(with) = inject::inject(text, &page.token, &origin(ctx)) {
            for name in [CONTENT_LENGTH, ETAG, LAST_MODIFIED] {
                parts.headers.remove(name);
            }
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(with.len()));
            parts.extensions.insert(Instead(with.into()));
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        self.0.injects
    }

    fn answers(&self) -> bool {
        self.0.hands_out
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let mut exempt: Vec<String> =
            asked.policy.config().csrf.config.exempt.iter().map(ToString::to_string).collect();
        exempt.push(asked.path.to_owned());
        Some(Remedy::Section(format!("[csrf]\nexempt = {exempt:?}")))
    }
}

/// This host's origin, as its pages see it.
fn origin(ctx: &Context) -> String {
    format!("{}://{}", if ctx.is_secure() { "https" } else { "http" }, ctx.authority().to_ascii_lowercase())
}

/// Looks for the token in a form while it comes in.
#[derive(Debug)]
struct Field {
    csrf: Arc<Shared>,
    form: Form,
    session: Option<Session>,
    kept: Vec<u8>,
    /// Looked at again from this length on: a body in pieces of a byte is not read anew for each.
    look_at: usize,
    found: bool,
}

impl Field {
    fn look(&mut self, whole: bool) -> Result<(), Refusal> {
        let Some(token) = self.form.token(&self.kept, whole) else { return Ok(()) };
        let valid = self.session.as_ref().is_some_and(|session| self.csrf.tokens.is_valid(session, token));
        if !valid {
            return Err(TOKEN_INVALID.refuse("field `csrf_token` holds a token of another session, or none").close());
        }
        self.found = true;
        self.kept = Vec::new();
        Ok(())
    }
}

impl Inspect for Field {
    fn holds(&self) -> Option<usize> {
        Some(WITHIN)
    }

    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        if self.found {
            return Ok(());
        }
        let room = WITHIN - self.kept.len().min(WITHIN);
        self.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
        if self.kept.len() < self.look_at {
            return Ok(());
        }
        self.look_at = self.kept.len().saturating_mul(2).min(WITHIN);
        self.look(false)?;
        if !self.found && self.kept.len() >= WITHIN {
            return Err(TOKEN_MISSING.refuse("field `csrf_token` is not in the first 64 KiB of the form").close());
        }
        Ok(())
    }

    fn finish(&mut self, ctx: &Context) -> Result<(), Refusal> {
        if !self.found {
            self.look(true)?;
        }
        if !self.found {
            return Err(TOKEN_MISSING.refuse("neither `Sec-Fetch-Site` nor `Origin` nor a token in the form"));
        }
        ctx.set_csrf(Facts::Checked);
        Ok(())
    }
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// In other encodings a page may have tags where UTF-8 has none.
fn is_utf8(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    kind.split_once("charset=").is_some_and(|(_, charset)| charset.trim().trim_matches('"') == "utf-8")
}

/// Whether requests of this route that change something must show that an own page made them.
pub(crate) fn blocks(ctx: &Context) -> bool {
    let csrf = &ctx.policy.controls().csrf;
    csrf.control.is_some() && ctx.mode(csrf.id) == Mode::Block
}

/// Whether a request has shown that an own page made it, or needs to show nothing; also where its method changes nothing
/// by itself, or the control is off.
pub(crate) fn is_checked(ctx: &Context, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(ctx.csrf(), Some(Facts::Checked)) {
        return Ok(());
    }
    let Some(csrf) = &ctx.policy.controls().csrf.control else {
        return Err(TOKEN_MISSING.refuse("`csrf` is off everywhere, and a handler asks for it"));
    };
    match csrf.0.judge(ctx, headers, false)? {
        Step::Passes => Ok(()),
        Step::Field(_) => Err(TOKEN_MISSING.refuse("the form was not judged: `csrf` does not block here")),
    }
}

/// A token of the session that this request came by.
pub(crate) fn session_token(ctx: &Context) -> Option<String> {
    let session = Session::Known(ctx.session_secret()?.into());
    with_tokens(ctx, |tokens| tokens.token(&session))?
}

/// Whether a token is one of the session that this request came by.
pub(crate) fn is_session_token(ctx: &Context, token: &str) -> bool {
    let Some(session) = ctx.session_secret() else { return false };
    let session = Session::Known(session.into());
    with_tokens(ctx, |tokens| tokens.is_valid(&session, token.as_bytes())).unwrap_or(false)
}

/// Palisade's own endpoints ask for tokens also where the control is off for the application.
fn with_tokens<T>(ctx: &Context, ask: impl FnOnce(&Tokens) -> T) -> Option<T> {
    match &ctx.policy.controls().csrf.control {
        Some(csrf) => Some(ask(&csrf.0.tokens)),
        None => Some(ask(&Tokens::new(usual_key(ctx.policy.env())?, None))),
    }
}

/// `GET /.palisade/csrf`: a token for programs and scripts, and the cookie that it belongs to. None where the control is
/// off.
pub(crate) fn endpoint(ctx: &Context, parts: &request::Parts) -> Option<Response<ResponseBody>> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let csrf = ctx.policy.controls().csrf.control.as_ref()?;
    let page = csrf.0.page(ctx, &parts.headers)?;
    let mut answer = Response::new(ResponseBody::fixed(format!("{{\"csrf_token\":\"{}\"}}", page.token)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cookie) = page.cookie.as_deref().and_then(|cookie| token::set_cookie(ctx, cookie)) {
        headers.append(SET_COOKIE, cookie);
    }
    Some(answer)
}
