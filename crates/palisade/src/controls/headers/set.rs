//! What the answers of one rule get: values are made once, when the policy is compiled, and merged with what the
//! application says itself.

use http::StatusCode;
use http::header::{
    Entry, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    X_XSS_PROTECTION,
};
use palisade_policy::Problems;

use super::config::{Config, Frames, OFF, Route};
use super::stricter::{self, Merge};
use super::theirs::Theirs;
use super::{csp, reports};

const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What one rule's answers get.
#[derive(Debug)]
pub(super) struct Set {
    fixed: Vec<(HeaderName, HeaderValue, Merge)>,
    frames: Option<HeaderValue>,
    pub(super) page: Option<csp::Policy>,
    data: Option<csp::Policy>,
    pub(super) report_only: Option<csp::Policy>,
    reports: bool,
}

/// What is known of one page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The policy of a documentation page.
    pub(super) policy: Option<HeaderValue>,
    /// What its templates were told.
    pub(super) nonce: Option<HeaderValue>,
}

impl Set {
    /// `at`: the key path of the route, for its own values; none for the default rule, which has the section's.
    pub(super) fn compile(section: &Config, route: Option<&Route>, at: Option<&str>, problems: &mut Problems) -> Self {
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
            reports: section.csp_reports,
        }
    }

    pub(super) fn has_nonce(&self) -> bool {
        [&self.page, &self.report_only].into_iter().flatten().any(|policy| policy.nonce)
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, theirs: Theirs, status: StatusCode, page: Page) {
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
