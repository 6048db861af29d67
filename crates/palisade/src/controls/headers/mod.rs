//! Security headers on every answer, also on those that the stack makes itself.
//!
//! Guide section 7. Values are built once, when the policy is compiled. An upstream's stricter header stays
//! (`stricter.rs` says which is the stricter); its own Content-Security-Policy always does.

mod cache;
mod cookies;
mod csp;
mod docs;
mod location;
mod nonce;
mod reports;
mod stricter;
mod theirs;

use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, Entry, HeaderMap, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use http::{Response, StatusCode, request, response};
use palisade_base::Interval;
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::cache::Cache;
pub use self::cookies::{Cookies, SameSite};
pub use self::docs::Docs;
use self::location::{Here, Verdict};
pub(crate) use self::location::{Target, read as read_location};
use self::reports::Reports;
use self::stricter::{Hsts, Merge};
use self::theirs::Theirs;
use crate::body::{RequestBody, ResponseBody, Start};
use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, Mode, Peek, Remedy, Routes};
use crate::observe::redact;
use crate::policy::Env;
use crate::policy::values::{HostPattern, OriginPattern, Timeout};
use crate::refusal::{Code, Refusal, Stop};

/// Who may show a page in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// Nobody.
    None,
    /// Pages of the same origin.
    SameOrigin,
    /// Nothing is said.
    Off,
}

/// `[headers]`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// `Content-Security-Policy` of pages, or `off`. `frame-ancestors` is added as `frames` says. A policy of the
    /// upstream's own stays instead. `{nonce}` in it, as in `script-src 'nonce-{nonce}'`, is another nonce on each answer;
    /// the application gets it as `X-CSP-Nonce`.
    pub csp: String,
    /// `Content-Security-Policy` of everything that is not a page, or `off`.
    pub csp_api: String,
    /// A policy for pages that browsers try out and block nothing by, or `off`.
    pub csp_report_only: String,
    /// Browsers report what these policies for pages block, or would have: to `/.palisade/csp-reports`, which logs it.
    pub csp_reports: bool,
    /// Who may show a page in a frame: `X-Frame-Options`, and `frame-ancestors` of `csp`.
    pub frames: Frames,
    /// How long browsers come back over HTTPS only (`Strict-Transport-Security`), or `off`. Sent over TLS, never in
    /// development and never for localhost.
    pub hsts: Timeout,
    /// The same for every name below the host. Not easily taken back.
    pub hsts_subdomains: bool,
    /// Asks browsers' makers to list the host. Needs `hsts_subdomains` and a year; takes months to be taken back.
    pub hsts_preload: bool,
    /// `Referrer-Policy`, or `off`.
    pub referrer_policy: String,
    /// `Permissions-Policy`, or `off`. Features that the upstream names besides are kept.
    pub permissions_policy: String,
    /// `Cross-Origin-Opener-Policy`, or `off`.
    pub coop: String,
    /// `Cross-Origin-Resource-Policy`, or `off`.
    pub corp: String,
    /// What happens to `Cache-Control` of answers to requests with a credential, and of answers that set a cookie; other
    /// answers to requests that may change something get `no-store` where the application says nothing.
    pub cache: Cache,
    /// What the upstream's cookies get.
    pub cookies: Cookies,
    /// Redirects to other hosts than the own and `redirects`: `block`, `detect` or `off`.
    pub location: Mode,
    /// Requests with a token, key or password in their URL, where logs, histories and other sites see it: `block`,
    /// `detect` or `off`. In logs they are replaced in any case.
    pub url_tokens: Mode,
    /// The hosts that the upstream may redirect to, besides those of `server.hosts`.
    pub redirects: Vec<HostPattern>,
    /// Who may read the documentation pages and the OpenAPI document (`upstream.openapi`). Default `closed`; in
    /// development `open`.
    pub docs: Option<Docs>,
    /// The documentation pages: FastAPI's `docs_url` and `redoc_url`.
    pub docs_pages: Vec<String>,
    /// Where the documentation pages may load scripts, styles and icons from.
    pub docs_origins: Vec<OriginPattern>,
}

impl Default for Config {
    fn default() -> Self {
        let origin = |host: &str| OriginPattern::Exact(format!("https://{host}").into());
        Self {
            csp: "default-src 'self'".into(),
            csp_api: "default-src 'none'; frame-ancestors 'none'".into(),
            csp_report_only: OFF.into(),
            csp_reports: false,
            frames: Frames::None,
            hsts: Timeout::After(Interval::secs(YEAR)),
            hsts_subdomains: false,
            hsts_preload: false,
            referrer_policy: "strict-origin-when-cross-origin".into(),
            permissions_policy: "camera=(), geolocation=(), microphone=(), payment=(), usb=()".into(),
            coop: "same-origin-allow-popups".into(),
            corp: "same-site".into(),
            cache: Cache::default(),
            cookies: Cookies::default(),
            location: Mode::Detect,
            url_tokens: Mode::Detect,
            redirects: Vec::new(),
            docs: None,
            docs_pages: vec!["/docs".into(), "/redoc".into()],
            docs_origins: vec![
                origin("cdn.jsdelivr.net"),
                origin("fastapi.tiangolo.com"),
                origin("fonts.googleapis.com"),
            ],
        }
    }
}

/// What a route may say.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// `Content-Security-Policy` of this route's pages, or `off`.
    pub csp: Option<String>,
    /// `Content-Security-Policy` of everything else of this route, or `off`.
    pub csp_api: Option<String>,
    /// A policy for this route's pages that blocks nothing, or `off`.
    pub csp_report_only: Option<String>,
    /// Who may show this route's pages in a frame.
    pub frames: Option<Frames>,
    /// `Referrer-Policy` of this route, or `off`.
    pub referrer_policy: Option<String>,
    /// `Permissions-Policy` of this route, or `off`.
    pub permissions_policy: Option<String>,
    /// `Cross-Origin-Opener-Policy` of this route, or `off`.
    pub coop: Option<String>,
    /// `Cross-Origin-Resource-Policy` of this route, or `off`.
    pub corp: Option<String>,
    /// What happens to `Cache-Control` of this route's personal answers.
    pub cache: Option<Cache>,
}

/// A redirect to another host.
pub static LOCATION_CODE: Code = Code::upstream(
    "headers.location",
    StatusCode::BAD_GATEWAY,
    7,
    "the application behind this gateway redirects to a host that is not allowed",
)
.owasp("malicious_direct_reference");
/// The documentation pages are closed.
pub static DOCS: Code =
    Code::client("headers.docs", StatusCode::NOT_FOUND, 7, "the documentation of this API is not served here");

/// A credential in a URL.
pub static URL_TOKEN: Code = Code::client(
    "headers.url_token",
    StatusCode::BAD_REQUEST,
    7,
    "a token, key or password stands in the URL, where others see it; send it in a header, and change it",
);
/// No report of a browser.
pub static REPORT: Code =
    Code::client("headers.report", StatusCode::BAD_REQUEST, 7, "this is no report of a violated policy");

const OFF: &str = "off";
const YEAR: u64 = 365 * 86_400;
/// A page of documentation is a file in the application's memory.
const PAGE_TIME: Duration = Duration::from_secs(2);
const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The control.
#[derive(Debug)]
pub struct Headers {
    sets: Vec<Set>,
    hsts: Option<(Hsts, HeaderValue)>,
    development: bool,
    cookies: Cookies,
    location: Mode,
    redirects: Vec<HostPattern>,
    docs_open: bool,
    pages: Vec<String>,
    origins: Vec<OriginPattern>,
    url_tokens: Mode,
    /// Some rule's pages have nonces.
    nonces: bool,
    reports: Option<Reports>,
}

/// What one rule's answers get.
#[derive(Debug)]
struct Set {
    fixed: Vec<(HeaderName, HeaderValue, Merge)>,
    frames: Option<HeaderValue>,
    page: Option<csp::Policy>,
    data: Option<csp::Policy>,
    report_only: Option<csp::Policy>,
    cache: Cache,
    reports: bool,
}

/// What is known of one page.
#[derive(Debug, Default)]
struct Page {
    /// The policy of a documentation page.
    policy: Option<HeaderValue>,
    /// What its templates were told.
    nonce: Option<HeaderValue>,
}

/// The policy of a documentation page, on its way from its body to its head.
#[derive(Debug, Clone)]
struct PagePolicy(HeaderValue);

impl Control for Headers {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "headers",
        section: 7,
        codes: &[&LOCATION_CODE, &DOCS, &URL_TOKEN, &REPORT],
        judges: true,
        about: "Security headers on every answer, caching of personal answers, the upstream's cookies and redirects, and who may read the API's documentation.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, env: &Env, problems: &mut Problems) -> Option<Self> {
        let mut rule = 0_usize;
        let sets: Vec<Set> = routes.map(|route| {
            // A value of the section is reported once, by the default rule; a route reports only its own.
            let at = rule.checked_sub(1).map(|place| format!("route[{place}].headers"));
            rule += 1;
            Set::compile(section, route, at.as_deref(), problems)
        });
        for (place, page) in section.docs_pages.iter().enumerate() {
            if !page.starts_with('/') {
                problems.error(
                    &format!("headers.docs_pages[{place}]"),
                    "a path begins with `/`",
                    format!("write `/{page}`"),
                );
            }
        }
        Some(Self {
            url_tokens: section.url_tokens,
            nonces: sets.iter().any(Set::has_nonce),
            reports: section.csp_reports.then(|| Reports::new(env)),
            sets,
            hsts: hsts(section, problems).map(|hsts| (hsts, hsts.value())),
            development: env.is_development(),
            cookies: section.cookies.clone(),
            location: section.location,
            redirects: section.redirects.clone(),
            docs_open: match section.docs {
                Some(docs) => docs == Docs::Open,
                None => env.is_development(),
            },
            pages: section.docs_pages.clone(),
            origins: section.docs_origins.clone(),
        })
    }
}

fn hsts(section: &Config, problems: &mut Problems) -> Option<Hsts> {
    let age = section.hsts.duration()?;
    if section.hsts_preload && (!section.hsts_subdomains || age.as_secs() < YEAR) {
        problems.error(
            "headers.hsts_preload",
            "browsers' makers list a host only with all names below it, for a year",
            "add `hsts_subdomains = true` and `hsts = \"365d\"`, or remove `hsts_preload`",
        );
    }
    Some(Hsts::new(age, section.hsts_subdomains, section.hsts_preload))
}

impl Set {
    /// `at`: the key path of the route, for its own values; none for the default rule, which has the section's.
    fn compile(section: &Config, route: Option<&Route>, at: Option<&str>, problems: &mut Problems) -> Self {
        let standard = Route::default();
        let route = route.unwrap_or(&standard);
        let mut ranked = |key: &str, own: &Option<String>, usual: &String, order: &'static [&'static str]| {
            let value = own.as_ref().unwrap_or(usual);
            if value == OFF {
                return None;
            }
            let header = HeaderValue::from_str(value).ok().filter(|value| stricter::rank(order, value) > 0);
            if header.is_none() {
                report(
                    problems,
                    at,
                    key,
                    own.is_some(),
                    "not a value of this header",
                    &format!("write one of `{}`, or `off`", order.join("`, `")),
                );
            }
            header
        };
        let referrer = ranked("referrer_policy", &route.referrer_policy, &section.referrer_policy, stricter::REFERRER);
        let coop = ranked("coop", &route.coop, &section.coop, stricter::OPENER);
        let corp = ranked("corp", &route.corp, &section.corp, stricter::RESOURCE);
        let permissions = route.permissions_policy.as_ref().unwrap_or(&section.permissions_policy);
        let permissions = if permissions == OFF {
            None
        } else {
            let value = HeaderValue::from_str(permissions).ok().filter(|_| permissions.contains('='));
            if value.is_none() {
                report(
                    problems,
                    at,
                    "permissions_policy",
                    route.permissions_policy.is_some(),
                    "not a list of features",
                    "write it like `camera=(), geolocation=(self)`, or `off`",
                );
            }
            value
        };
        let frames = route.frames.unwrap_or(section.frames);
        let (frame_header, ancestors) = match frames {
            Frames::None => (Some(HeaderValue::from_static("DENY")), Some("'none'")),
            Frames::SameOrigin => (Some(HeaderValue::from_static("SAMEORIGIN")), Some("'self'")),
            Frames::Off => (None, None),
        };
        let mut policy = |key: &str, own: &Option<String>, usual: &String, ancestors: Option<&str>| {
            let text = own.as_ref().unwrap_or(usual);
            if text == OFF {
                return None;
            }
            // Browsers report on behalf of pages.
            let reports = section.csp_reports && key != "csp_api";
            match csp::Policy::new(text, ancestors, reports) {
                // The answer to a call has no scripts, and what comes before a request has no nonce.
                Ok(policy) if policy.nonce && key == "csp_api" => {
                    report(problems, at, key, own.is_some(), "`{nonce}` is for pages", "write it into `csp`");
                    None
                }
                Ok(policy) => Some(policy),
                Err(wrong) => {
                    let fix = "write it like `default-src 'self'; img-src 'self' data:`, or `off`";
                    report(problems, at, key, own.is_some(), wrong, fix);
                    None
                }
            }
        };
        let page = policy("csp", &route.csp, &section.csp, ancestors);
        let data = policy("csp_api", &route.csp_api, &section.csp_api, ancestors);
        let report_only = policy("csp_report_only", &route.csp_report_only, &section.csp_report_only, None);
        let fixed = [
            (X_CONTENT_TYPE_OPTIONS, Some(HeaderValue::from_static("nosniff")), Merge::Replace),
            (X_XSS_PROTECTION, Some(HeaderValue::from_static("0")), Merge::Replace),
            (REFERRER_POLICY, referrer, Merge::Rank(stricter::REFERRER)),
            (PERMISSIONS_POLICY, permissions, Merge::Features),
            (OPENER_POLICY, coop, Merge::Rank(stricter::OPENER)),
            (RESOURCE_POLICY, corp, Merge::Rank(stricter::RESOURCE)),
        ];
        Self {
            fixed: fixed.into_iter().filter_map(|(name, value, merge)| Some((name, value?, merge))).collect(),
            frames: frame_header,
            page,
            data,
            report_only,
            cache: route.cache.unwrap_or(section.cache),
            reports: section.csp_reports,
        }
    }

    fn has_nonce(&self) -> bool {
        [&self.page, &self.report_only].into_iter().flatten().any(|policy| policy.nonce)
    }

    fn apply(&self, headers: &mut HeaderMap, theirs: Theirs, status: StatusCode, page: Page) {
        let says_frames = theirs.any(Theirs::POLICY) && csp::says_frames(headers);
        // A 304 updates the head of a stored answer, of whose kind nothing is known here.
        if status != StatusCode::NOT_MODIFIED {
            self.add_policies(headers, theirs, page);
        }
        if let Some(frames) = &self.frames
            && !says_frames
        {
            put(headers, &X_FRAME_OPTIONS, frames, Merge::Rank(stricter::FRAMES));
        }
        for (name, value, merge) in &self.fixed {
            put(headers, name, value, *merge);
        }
    }

    fn add_policies(&self, headers: &mut HeaderMap, theirs: Theirs, page: Page) {
        let Page { policy: page_policy, nonce } = page;
        let has_policy = theirs.any(Theirs::POLICY);
        let unframed = has_policy && csp::is_unframed(headers);
        let choose = |policy: &csp::Policy| policy.value(unframed, nonce.as_ref());
        let kind = csp::kind(headers);
        if self.reports && kind == csp::Kind::Page && !headers.contains_key(REPORTING_ENDPOINTS) {
            headers.insert(REPORTING_ENDPOINTS, reports::endpoints());
        }
        let (enforced, tried) = match kind {
            csp::Kind::Page => (&self.page, &self.report_only),
            csp::Kind::Data => (&self.data, &None),
            csp::Kind::Media => (&None, &None),
        };
        if let Some(page) = page_policy.as_ref().filter(|_| csp::breaks_inline(headers)) {
            // One for the whole application, under which a documentation page cannot work: this one says what it needs.
            headers.insert(csp::CSP, page.clone());
        }
        if let Some(policy) = enforced
            && !(has_policy && headers.contains_key(csp::CSP))
        {
            headers.insert(csp::CSP, page_policy.clone().unwrap_or_else(|| choose(policy)));
        }
        if let Some(policy) = tried
            && !(has_policy && headers.contains_key(csp::REPORT_ONLY))
        {
            headers.insert(csp::REPORT_ONLY, page_policy.unwrap_or_else(|| policy.value(false, nonce.as_ref())));
        }
    }
}

fn report(problems: &mut Problems, at: Option<&str>, key: &str, own: bool, wrong: &str, fix: &str) {
    let place = match at {
        None => format!("headers.{key}"),
        Some(route) if own => format!("{route}.{key}"),
        // Reported with the section.
        Some(_) => return,
    };
    problems.error(&place, wrong, fix);
}

/// Sets a header, unless the application's is the stricter. Several values of one header say nothing certain.
fn put(headers: &mut HeaderMap, name: &HeaderName, ours: &HeaderValue, merge: Merge) {
    match headers.entry(name.clone()) {
        // Nearly always: one look-up and nothing to compare.
        Entry::Vacant(place) => drop(place.insert(ours.clone())),
        Entry::Occupied(mut theirs) => {
            let several = theirs.iter().nth(1).is_some();
            let value = if several { Some(ours.clone()) } else { merge.instead(ours, theirs.get()) };
            if let Some(value) = value {
                theirs.insert(value);
            }
        }
    }
}

impl Headers {
    /// The header lines of an answer that is written before there is a request: data, and the rule that of no route.
    pub(crate) fn lines(&self, secure: bool) -> String {
        let mut headers = HeaderMap::new();
        if let Some(set) = self.sets.first() {
            let nothing = Theirs::new(&headers);
            set.apply(&mut headers, nothing, StatusCode::BAD_REQUEST, Page::default());
        }
        if let Some((_, value)) = self.hsts.as_ref().filter(|_| secure && !self.development) {
            headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
        }
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            Some(format!("{}: {}\r\n", name.as_str(), value.to_str().ok()?))
        };
        headers.iter().filter_map(line).collect()
    }

    /// Whether a request is a browser's report of a violated policy.
    pub(crate) fn wants_report(&self, ctx: &Context) -> bool {
        self.reports.is_some() && Reports::wants(ctx)
    }

    /// Takes such a report.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) async fn report(
        &self,
        ctx: &Context,
        parts: &request::Parts,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Refusal> {
        match &self.reports {
            Some(reports) => reports.take(ctx, parts, body).await,
            None => Err(REPORT.refuse("`headers.csp_reports` does not ask for reports")),
        }
    }

    /// Whether the path is one of the documentation's.
    fn is_docs(&self, ctx: &Context) -> bool {
        let openapi = &ctx.policy.upstream(ctx.rule().id).openapi;
        docs::is_page(&self.pages, ctx.app_path())
            || (openapi.starts_with('/') && docs::without_slash(ctx.app_path()) == docs::without_slash(openapi))
    }

    fn transport_security(&self, ctx: &Context, theirs: Theirs, headers: &mut HeaderMap) {
        let host = ctx.host();
        let local = host == "localhost" || host.ends_with(".localhost") || !ctx.is_secure() || self.development;
        if local {
            if theirs.any(Theirs::TRANSPORT_SECURITY) {
                headers.remove(STRICT_TRANSPORT_SECURITY);
            }
        } else if let Some((ours, value)) = &self.hsts {
            let theirs = headers.get(STRICT_TRANSPORT_SECURITY).and_then(Hsts::parse);
            if !theirs.is_some_and(|theirs| ours.is_met_by(theirs)) {
                headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
            }
        }
    }

    /// Mends a location; another host's is judged where the client would go there by itself.
    fn location(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        let Some(location) = parts.headers.get(LOCATION) else { return Ok(()) };
        let text = String::from_utf8_lossy(location.as_bytes());
        let here = Here {
            host: ctx.host(),
            authority: ctx.authority(),
            secure: ctx.is_secure(),
            upstream: ctx.policy.upstream(ctx.rule().id).url.as_ref(),
            hosts: &ctx.policy.env().server.hosts,
            redirects: &self.redirects,
        };
        match location::judge(&text, &here) {
            Verdict::Stays => Ok(()),
            Verdict::Mended(mended) => {
                if let Ok(value) = HeaderValue::from_str(&mended) {
                    parts.headers.insert(LOCATION, value);
                }
                Ok(())
            }
            Verdict::Elsewhere(_) if !parts.status.is_redirection() || self.location == Mode::Off => Ok(()),
            Verdict::Elsewhere(host) => {
                let refusal =
                    LOCATION_CODE.refuse("neither the own host nor one of `headers.redirects`").with("to", host);
                Err(if self.location == Mode::Block { refusal } else { refusal.watched() })
            }
        }
    }
}

impl Check for Headers {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if self.nonces {
            let nonce = self.sets[usize::from(ctx.rule().id)].has_nonce().then(nonce::new);
            nonce::tell(&mut parts.headers, nonce.as_ref());
            if let Some(nonce) = nonce {
                ctx.set_csp_nonce(nonce);
            }
        }
        if self.is_docs(ctx) {
            if !self.docs_open {
                return Err(DOCS.refuse("`headers.docs` does not open the documentation").into());
            }
            // The page is read to know its scripts.
            parts.headers.remove(ACCEPT_ENCODING);
        }
        // Last: what is only watched must not keep the rest from being judged.
        if self.url_tokens != Mode::Off
            && let Some(name) = parts.uri.query().and_then(redact::credential)
        {
            let refusal = URL_TOKEN.refuse("a credential in the query").with("name", name);
            return Err(if self.url_tokens == Mode::Block { refusal } else { refusal.watched() }.into());
        }
        Ok(())
    }

    fn peeks(&self, ctx: &Context, status: StatusCode, headers: &HeaderMap) -> Option<Peek> {
        let set = &self.sets[usize::from(ctx.rule().id)];
        (status == StatusCode::OK
            && (set.page.is_some() || set.report_only.is_some())
            && docs::is_page(&self.pages, ctx.app_path())
            && !headers.contains_key(http::header::CONTENT_ENCODING)
            && csp::kind(headers) == csp::Kind::Page)
            .then_some(Peek { bytes: docs::MAX_PAGE, within: PAGE_TIME })
    }

    fn peeked(&self, _: &Context, parts: &mut response::Parts, start: &Start) -> Result<(), Refusal> {
        let page = std::str::from_utf8(&start.bytes).ok().filter(|page| start.whole && !page.is_empty());
        if let Some(policy) = page.and_then(|page| docs::policy(page, &self.origins)) {
            parts.extensions.insert(PagePolicy(policy));
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        !self.pages.is_empty() && self.docs_open
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        match asked.judged.code.name {
            "headers.url_token" => Some(Remedy::Section("[headers]\nurl_tokens = \"off\"".to_owned())),
            "headers.docs" => Some(Remedy::Section("[headers]\ndocs = \"open\"".to_owned())),
            "headers.location" => {
                let host = asked.judged.field("to")?.parse::<HostPattern>().ok()?;
                let mut redirects: Vec<String> = self.redirects.iter().map(ToString::to_string).collect();
                redirects.push(host.to_string());
                Some(Remedy::Section(format!("[headers]\nredirects = {redirects:?}")))
            }
            _ => None,
        }
    }

    fn response(&self, ctx: &Context, parts: &mut response::Parts) -> Result<(), Refusal> {
        if parts.status.is_informational() {
            return Ok(());
        }
        let set = &self.sets[usize::from(ctx.rule().id)];
        let theirs = Theirs::new(&parts.headers);
        if theirs.any(Theirs::BANNER) {
            theirs::remove_banners(&mut parts.headers);
        }
        let policy = parts.extensions.remove::<PagePolicy>().map(|policy| policy.0);
        set.apply(&mut parts.headers, theirs, parts.status, Page { policy, nonce: ctx.csp_nonce().cloned() });
        self.transport_security(ctx, theirs, &mut parts.headers);
        let sets_cookie = theirs.any(Theirs::COOKIE);
        if ctx.has_credential() || sets_cookie {
            cache::narrow(set.cache, &mut parts.headers);
        } else if parts.status.is_success() && !ctx.method.is_safe() {
            // What a login or a form answers is for who sent it, also before there is a credential.
            cache::narrow(set.cache.at_most_unset(), &mut parts.headers);
        }
        if sets_cookie {
            cookies::harden(&self.cookies, ctx, &mut parts.headers);
        }
        if theirs.any(Theirs::LOCATION) { self.location(ctx, parts) } else { Ok(()) }
    }

    fn answers(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::testing::Harness;

    const PAGE: &str = "<script src=https://cdn.jsdelivr.net/a.js></script><script>alert(1)</script>";

    fn app(policy: &str) -> Harness {
        use axum::routing::get;
        let header = |name: &'static str, value: &'static str| get(move || async move { ([(name, value)], "{}") });
        let router = axum::Router::new()
            .route(
                "/json",
                get(|| async {
                    ([("content-type", "application/json"), ("server", "x"), ("x-powered-by", "y")], "{}")
                }),
            )
            .route("/page", get(|| async { axum::response::Html("<p>") }))
            .route("/docs", get(|| async { axum::response::Html(PAGE) }))
            .route("/own", header("content-security-policy", "default-src https://a.example"))
            .route("/hsts", header("strict-transport-security", "max-age=1"))
            .route("/public", header("cache-control", "public, max-age=9"))
            .route("/cookie", header("set-cookie", "a=1"))
            .route("/away", get(|| async { (StatusCode::FOUND, [("location", "https://evil.example/")]) }))
            .route("/http", get(|| async { (StatusCode::FOUND, [("location", "http://localhost/x")]) }));
        Harness::new(policy, router)
    }

    #[tokio::test]
    async fn every_answer_has_its_set() {
        let app = app("");
        for (path, csp) in [
            ("/json", "default-src 'none'; frame-ancestors 'none'"),
            ("/page", "default-src 'self'; frame-ancestors 'none'"),
            ("/own", "default-src https://a.example"),
            ("/nothing", "default-src 'none'; frame-ancestors 'none'"),
            ("/.palisade/nothing", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            let answer = app.get(path).await;
            assert_eq!(answer.header("content-security-policy"), csp, "{path}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("cross-origin-opener-policy", "same-origin-allow-popups"),
                ("cross-origin-resource-policy", "same-site"),
                ("strict-transport-security", ""),
                ("server", ""),
                ("x-powered-by", ""),
            ] {
                assert_eq!(answer.header(name), value, "{path}: {name}");
            }
        }
        let refused = app.send(Method::GET, "/json", &[("host", "evil.example")], "").await;
        assert_eq!((refused.status(), refused.header("x-content-type-options")), (421, "nosniff"));
        assert_eq!(app.get("/hsts").await.header("strict-transport-security"), "");
    }

    #[tokio::test]
    async fn personal_answers_and_cookies() {
        let app = app("[[route]]\npath = \"/public\"\nmethods = [\"GET\"]\nheaders = { cache = \"upstream\" }");
        let login = [("cookie", "s=1")];
        assert_eq!(app.get("/json").await.header("cache-control"), "");
        assert_eq!(app.send(Method::GET, "/json", &login, "").await.header("cache-control"), "no-store");
        assert_eq!(app.send(Method::GET, "/public", &login, "").await.header("cache-control"), "public, max-age=9");
        let cookie = app.get("/cookie").await;
        assert_eq!(
            (cookie.header("set-cookie"), cookie.header("cache-control")),
            ("a=1; Secure; SameSite=Lax", "no-store")
        );
        assert_eq!(app.plain().get("/cookie").await.header("set-cookie"), "a=1; SameSite=Lax");
    }

    #[tokio::test]
    async fn redirects_are_mended_and_judged() {
        let watched = app("");
        assert_eq!(watched.get("/http").await.header("location"), "https://localhost/x");
        assert_eq!(watched.get("/away").await.header("location"), "https://evil.example/");
        let refused = app("[headers]\nlocation = \"block\"").get("/away").await;
        assert_eq!((refused.status(), refused.refusal()), (502, Some(&LOCATION_CODE)));
        assert_eq!((refused.header("location"), refused.header("x-content-type-options")), ("", "nosniff"));
        let allowed = app("[headers]\nlocation = \"block\"\nredirects = [\"*.example\"]").get("/away").await;
        assert_eq!(allowed.status(), 302);
    }

    #[tokio::test]
    async fn documentation_is_open_with_its_own_policy_or_closed() {
        let open = app("").get("/docs").await;
        assert_eq!(open.text(), PAGE);
        assert!(open.header("content-security-policy").contains("script-src https://cdn.jsdelivr.net/a.js 'sha256-"));
        let closed = app("[headers]\ndocs = \"closed\"");
        for path in ["/docs", "/docs/", "/redoc", "/docs/oauth2-redirect", "/openapi.json"] {
            assert_eq!(closed.get(path).await.refusal(), Some(&DOCS), "{path}");
        }
        assert_eq!(closed.get("/page").await.status(), 200);
    }
    #[tokio::test]
    async fn each_page_has_a_nonce_and_the_application_knows_it() {
        use axum::response::Html;
        let router = axum::Router::new().fallback(|headers: HeaderMap| async move {
            let told: Vec<&str> =
                headers.get_all("x-csp-nonce").iter().filter_map(|value| value.to_str().ok()).collect();
            Html(told.join(","))
        });
        let policy = "[headers]\ncsp_report_only = \"script-src 'nonce-{nonce}'\"\n[[route]]\npath = \"/plain\"\n\
                      headers = { csp_report_only = \"off\" }\n[[route]]\npath = \"/*\"\n\
                      headers = { csp = \"script-src 'nonce-{nonce}' 'strict-dynamic'\" }";
        let app = Harness::new(policy, router);
        let forged = [("x-csp-nonce", "mine"), ("X-CSP-Nonce", "mine too"), ("x_csp_nonce", "and mine")];
        let (one, other) =
            (app.send(Method::GET, "/", &forged, "").await, app.send(Method::GET, "/", &forged, "").await);
        for answer in [&one, &other] {
            let nonce = answer.text();
            assert_eq!(nonce.len(), 24, "{nonce}");
            let tried = format!("script-src 'nonce-{nonce}'");
            let enforced = format!("{tried} 'strict-dynamic'; frame-ancestors 'none'");
            assert_eq!(answer.header("content-security-policy"), enforced);
            assert_eq!(answer.header("content-security-policy-report-only"), tried);
        }
        assert_ne!(one.text(), other.text());
        // Where no page has one, nobody makes one up.
        let plain = app.send(Method::GET, "/plain", &forged, "").await;
        assert_eq!((plain.text().as_str(), plain.header("content-security-policy-report-only")), ("", ""));
        // A page of our own has one of nobody's, and data none.
        let page = app.send(Method::GET, "/.env", &[("accept", "text/html")], "").await;
        let policy = page.header("content-security-policy-report-only");
        assert!(page.status() == 404 && policy.starts_with("script-src 'nonce-") && !policy.contains('{'), "{policy}");
    }

    #[tokio::test]
    async fn credentials_in_urls_are_noted_or_refused() {
        let ask = async |policy: &str, target: &str| app(policy).get(target).await;
        let block = "[headers]\nurl_tokens = \"block\"";
        for target in
            ["/json?access_token=abc", "/json?a=1&api-key=abc", "/json?x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"]
        {
            assert_eq!(ask(block, target).await.refusal(), Some(&URL_TOKEN), "{target}");
            assert_eq!(ask("", target).await.status(), 200, "{target}");
        }
        for target in ["/json?code=abc&state=x", "/json?page_token=abc", "/json?token=", "/json"] {
            assert_eq!(ask(block, target).await.status(), 200, "{target}");
        }
        // What is only watched opens nothing.
        assert_eq!(ask("[headers]\ndocs = \"closed\"", "/docs?token=abc").await.refusal(), Some(&DOCS));
    }
}
