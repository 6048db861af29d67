//! What the policy may say of headers: `[headers]`, and `headers` of a route.

use palisade_base::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cache, Cookies, Docs};
use crate::control::Mode;
use crate::policy::values::{HostPattern, OriginPattern, Timeout};

/// What leaves a header out.
pub(super) const OFF: &str = "off";
pub(super) const YEAR: u64 = 365 * 86_400;

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
    /// What happens to `Cache-Control` of answers to requests with a credential, and of answers that set a cookie: by
    /// default they are `no-store` whatever the application says. A route says otherwise by `cache = "upstream"`. Other
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
    /// Who may read the documentation pages and the OpenAPI document (`upstream.openapi`), whatever `mode` says: `open`
    /// leaves it to the routes, `admin` asks for a login with the role `admin`, whatever the routes open, and `closed`
    /// answers 404. Default `closed`; in development `open`.
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

impl Config {
    /// `docs`, with the default of the mode.
    pub(super) fn docs(&self, development: bool) -> Docs {
        self.docs.unwrap_or(if development { Docs::Open } else { Docs::Closed })
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
}
