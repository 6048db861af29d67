//! Security headers on every answer, also on those that the stack makes itself.
//!
//! Guide section 7. Values are built once, when the policy is compiled. An upstream's stricter header stays
//! (`stricter.rs` says which is the stricter); its own Content-Security-Policy always does.

mod cache;
mod config;
mod cookies;
mod csp;
mod docs;
mod location;
mod nonce;
mod reports;
mod set;
mod stricter;
#[cfg(test)]
mod tests;
mod theirs;

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{Response, StatusCode, request, response};
use palisade_policy::Problems;

pub use self::cache::Cache;
pub(crate) use self::cache::vary;
use self::config::YEAR;
pub use self::config::{Config, Frames, Route};
pub use self::cookies::{Cookies, SameSite};
pub use self::docs::Docs;
pub(crate) use self::docs::{is_for as docs_are_for, is_guarded as docs_are_guarded};
use self::location::{Here, Verdict};
pub(crate) use self::location::{Target, read as read_location};
pub(crate) use self::reports::PATH as REPORTS;
use self::reports::Reports;
use self::set::{Page, Set};
use self::stricter::Hsts;
use self::theirs::Theirs;
use crate::body::{RequestBody, ResponseBody, Start};
use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, Mode, Peek, Remedy, Routes};
use crate::observe::redact;
use crate::policy::Env;
use crate::policy::values::{HostPattern, OriginPattern};
use crate::refusal::{Code, Refusal, Stop};

/// A redirect to another host.
pub static LOCATION_CODE: Code = Code::upstream(
    "headers.location",
    StatusCode::BAD_GATEWAY,
    7,
    "the application behind this gateway redirects to a host that is not allowed",
)
.owasp("malicious_direct_reference");
/// The documentation pages are closed. Judged by `access`, which always enforces.
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

/// A page of documentation is a file in the application's memory.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// The control.
#[derive(Debug)]
pub struct Headers {
    sets: Vec<Set>,
    hsts: Option<(Hsts, HeaderValue)>,
    development: bool,
    cache: Cache,
    cookies: Cookies,
    location: Mode,
    redirects: Vec<HostPattern>,
    docs_served: bool,
    pages: Vec<String>,
    origins: Vec<OriginPattern>,
    url_tokens: Mode,
    /// Some rule's pages have nonces.
    nonces: bool,
    reports: Option<Reports>,
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
            cache: section.cache,
            cookies: section.cookies.clone(),
            location: section.location,
            redirects: section.redirects.clone(),
            docs_served: section.docs(env.is_development()) != Docs::Closed,
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
        // Our own endpoints know where they send whom: a client on a desktop listens on a loopback address (RFC 8252).
        if ctx.rule().own {
            return Ok(());
        }
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
        if self.docs_served && docs::is_page(&self.pages, ctx.app_path()) {
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
        !self.pages.is_empty() && self.docs_served
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        match asked.judged.code.name {
            "headers.url_token" => Some(Remedy::Section("[headers]\nurl_tokens = \"off\"".to_owned())),
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
            theirs::remove(&mut parts.headers, Theirs::BANNER);
        }
        let policy = parts.extensions.remove::<PagePolicy>().map(|policy| policy.0);
        set.apply(&mut parts.headers, theirs, parts.status, Page { policy, nonce: ctx.csp_nonce().cloned() });
        self.transport_security(ctx, theirs, &mut parts.headers);
        let cache = ctx.rule().cache.unwrap_or(self.cache);
        cache::say(cache, ctx, theirs, parts.status.is_success(), &mut parts.headers);
        if theirs.any(Theirs::COOKIE) {
            cookies::harden(&self.cookies, ctx, &mut parts.headers);
        }
        if theirs.any(Theirs::LOCATION) { self.location(ctx, parts) } else { Ok(()) }
    }

    fn answers(&self) -> bool {
        true
    }
}
