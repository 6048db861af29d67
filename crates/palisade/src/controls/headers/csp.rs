//! The Content-Security-Policy that fits an answer. Source: W3C CSP Level 3.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{nonce, stricter};

pub(super) const CSP: HeaderName = http::header::CONTENT_SECURITY_POLICY;
pub(super) const REPORT_ONLY: HeaderName = http::header::CONTENT_SECURITY_POLICY_REPORT_ONLY;

/// What a browser makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A page, or a script, which as a worker has the policy it came with.
    Page,
    /// Data.
    Data,
    /// Pictures, sound, fonts, styles and PDF: shown by the browser's own viewers, which a policy may break.
    Media,
}

/// By the answer's type. Without one it is data, and `nosniff` keeps it so.
pub(super) fn kind(headers: &HeaderMap) -> Kind {
    let Some(Ok(text)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return Kind::Data };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    let begins = |start: &str| essence.get(..start.len()).is_some_and(|e| e.eq_ignore_ascii_case(start));
    // The commonest first.
    if is("application/json") {
        Kind::Data
    } else if [
        "text/html",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/javascript",
        "application/javascript",
        "application/wasm",
    ]
    .into_iter()
    .any(is)
    {
        Kind::Page
    } else if ["image/", "video/", "audio/", "font/"].into_iter().any(begins) || is("text/css") || is("application/pdf")
    {
        Kind::Media
    } else {
        Kind::Data
    }
}

/// A policy as written, in the two forms that go out.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// With the `frame-ancestors` that fits `frames`, where it was written without.
    pub(super) usual: HeaderValue,
    /// The same for an answer of which the application says that nobody may frame it.
    pub(super) unframed: HeaderValue,
    /// Both have a place for a nonce.
    pub(super) nonce: bool,
}

impl Policy {
    /// `text` with `frame-ancestors`, unless it has one; `frames` is its source list. With `reports` and where violations
    /// are reported, unless it says that itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str, frames: Option<&str>, reports: bool) -> Result<Self, &'static str> {
        check(text)?;
        let text = text.trim().trim_end_matches(';').trim_end();
        let own = has_directive(text, "report-uri") || has_directive(text, "report-to");
        let end = if reports && !own { super::reports::directives() } else { String::new() };
        let nonce = text.contains(nonce::PLACE);
        if nonce && text.replace(&format!("'nonce-{}'", nonce::PLACE), "").contains(nonce::PLACE) {
            return Err("`{nonce}` stands in `'nonce-{nonce}'`");
        }
        let value =
            |text: &str| HeaderValue::from_str(&format!("{text}{end}")).map_err(|_| "a policy is visible ASCII");
        let with = |list: &str| value(&format!("{text}; frame-ancestors {list}"));
        if has_directive(text, "frame-ancestors") {
            return Ok(Self { usual: value(text)?, unframed: value(text)?, nonce });
        }
        let usual = match frames {
            Some(list) => with(list)?,
            None => value(text)?,
        };
        Ok(Self { usual, unframed: with("'none'")?, nonce })
    }

    /// What goes out, with the nonce that the application was told. A page that it did not make has one of nobody's.
    pub(super) fn value(&self, unframed: bool, nonce: Option<&HeaderValue>) -> HeaderValue {
        let policy = if unframed { &self.unframed } else { &self.usual };
        if !self.nonce {
            return policy.clone();
        }
        nonce::put(policy, &nonce.cloned().unwrap_or_else(nonce::new)).unwrap_or(HeaderValue::from_static(CLOSED))
    }
}

/// Where a policy cannot be written.
const CLOSED: &str = "default-src 'none'";

/// The directives of Level 3 and the older ones that browsers still know.
const DIRECTIVES: &[&str] = &[
    "base-uri",
    "block-all-mixed-content",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "webrtc",
    "worker-src",
];

fn check(text: &str) -> Result<(), &'static str> {
    if text.contains(',') {
        return Err("a comma would begin a second policy");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err("a policy is visible ASCII on one line");
    }
    let mut any = false;
    for name in directives(text) {
        any = true;
        if !DIRECTIVES.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err("a directive that browsers do not know");
        }
    }
    if any { Ok(()) } else { Err("a policy without directives") }
}

fn directives(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').filter_map(|directive| directive.split_ascii_whitespace().next())
}

fn has_directive(text: &str, wanted: &str) -> bool {
    directives(text).any(|name| name.eq_ignore_ascii_case(wanted))
}

/// Whether the application's own policy says nothing of scripts but by `default-src`, and that without inline ones: it was
/// not written for a page that has some.
pub(super) fn breaks_inline(headers: &HeaderMap) -> bool {
    headers.get_all(CSP).iter().any(|value| {
        let Ok(text) = value.to_str() else { return false };
        let mut default = None;
        for directive in text.split(';') {
            let mut words = directive.split_ascii_whitespace();
            match words.next() {
                Some(name) if name.to_ascii_lowercase().starts_with("script-src") => return false,
                Some(name) if name.eq_ignore_ascii_case("default-src") => default = Some(words),
                _ => {}
            }
        }
        let allows = |word: &str| {
            let word = word.to_ascii_lowercase();
            word == "'unsafe-inline'" || word.starts_with("'sha") || word.starts_with("'nonce-")
        };
        default.is_some_and(|mut words| !words.any(allows))
    })
}

/// Whether the application itself says by an enforced policy who may frame the answer.
pub(super) fn says_frames(headers: &HeaderMap) -> bool {
    headers
        .get_all(CSP)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.split(',').any(|policy| has_directive(policy, "frame-ancestors")))
}

/// Whether the application says that nobody may frame the answer.
pub(super) fn is_unframed(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::X_FRAME_OPTIONS)
        .is_some_and(|value| stricter::rank(stricter::FRAMES, value) == stricter::FRAMES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_for_everything_breaks_pages_with_inline_scripts() {
        for (policy, breaks) in [
            ("default-src 'self'", true),
            ("Default-Src 'none'; img-src 'self'", true),
            ("default-src 'self' 'unsafe-inline'", false),
            ("default-src 'self' 'sha256-abc='", false),
            ("default-src 'self'; script-src 'self'", false),
            ("default-src 'self'; script-src-elem 'self' https://cdn.example", false),
            ("frame-ancestors 'none'", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CSP, HeaderValue::from_static(policy));
            assert_eq!(breaks_inline(&headers), breaks, "{policy}");
        }
        assert!(!breaks_inline(&HeaderMap::new()));
    }

    #[test]
    fn policies_fit_what_a_browser_makes_of_the_answer() {
        for (content_type, expected) in [
            ("text/html; charset=utf-8", Kind::Page),
            ("TEXT/HTML", Kind::Page),
            ("image/svg+xml", Kind::Page),
            ("text/javascript", Kind::Page),
            ("application/json", Kind::Data),
            ("application/problem+json", Kind::Data),
            ("text/plain", Kind::Data),
            ("application/xml", Kind::Data),
            ("text/event-stream", Kind::Data),
            ("é", Kind::Data),
            ("image/png", Kind::Media),
            ("application/pdf", Kind::Media),
            ("text/css", Kind::Media),
        ] {
            let value = HeaderValue::from_bytes(content_type.as_bytes()).unwrap();
            assert_eq!(kind(&HeaderMap::from_iter([(CONTENT_TYPE, value)])), expected, "{content_type}");
        }
        assert_eq!(kind(&HeaderMap::new()), Kind::Data);
    }

    #[test]
    fn frame_ancestors_are_added_where_the_policy_has_none() {
        let policy = Policy::new("default-src 'self';", Some("'self'"), false).unwrap();
        assert_eq!(policy.usual, "default-src 'self'; frame-ancestors 'self'");
        assert_eq!(policy.unframed, "default-src 'self'; frame-ancestors 'none'");
        let own = "default-src 'self'; Frame-Ancestors https://a.example";
        assert_eq!(Policy::new(own, Some("'none'"), false).unwrap().unframed, own);
        assert_eq!(Policy::new("default-src 'self'", None, false).unwrap().usual, "default-src 'self'");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            ";",
            "default-src 'self', script-src 'none'",
            "default-source 'self'",
            "default-src 'sélf'",
            "script-src {nonce}",
            "script-src 'nonce-{nonce}x'",
        ] {
            assert!(Policy::new(text, None, false).is_err(), "{text}");
        }
    }
}
