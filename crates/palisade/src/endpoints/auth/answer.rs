//! Answers of the endpoints: JSON, pages, redirects, cookies. None of them is ever cached.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use palisade_base::Secret;
use palisade_identity::service::Rotated;
use serde_json::Value;

use crate::body::ResponseBody;
use crate::context::Context;
use crate::controls::auth::credential::{COOKIE_PLAIN, COOKIE_SECURE, DEVICE_PLAIN, DEVICE_SECURE, is_secure};

pub(crate) type Answer = Response<ResponseBody>;

fn of(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(ResponseBody::fixed(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Answer {
    of(status, "application/json", value.to_string())
}

/// JSON that says the same to everybody and may be kept for a while.
pub(crate) fn document(kind: &'static str, body: impl Into<Bytes>, cache: &'static str) -> Answer {
    let mut answer = of(StatusCode::OK, kind, body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    answer
}

/// Nothing more to say.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A page. It loads one style sheet of ours and nothing else, runs no script, and stands in nobody's frame. `targets`: the
/// origins besides our own that a form of it may lead to, since browsers hold redirects behind a form to the same rule.
pub(crate) fn page(status: StatusCode, html: String, targets: Option<&str>) -> Answer {
    let mut answer = of(status, "text/html; charset=utf-8", html);
    page_headers(answer.headers_mut(), targets);
    answer
}

/// The headers that make a document such a page.
pub(crate) fn page_headers(headers: &mut HeaderMap, targets: Option<&str>) {
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self'{}{}; base-uri 'none'; frame-ancestors 'none'",
        if targets.is_some() { " " } else { "" },
        targets.unwrap_or_default()
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    // Links with tokens lead here: nothing of them goes on to others. Not `no-referrer`: under that, browsers say `null`
    // where a form comes from, also to us.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}

/// On to another page, with GET.
pub(crate) fn see_other(to: &str) -> Answer {
    let mut answer = empty(StatusCode::SEE_OTHER);
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// The session's cookie. `lasting`: for so many seconds beyond the life of the browser.
pub(crate) fn set_session(answer: &mut Answer, ctx: &Context, value: &Secret<String>, lasting: Option<u64>) {
    cookie(answer, ctx, (COOKIE_SECURE, COOKIE_PLAIN), value.expose(), lasting, "Lax");
}

/// The cookie of a session that goes on under another secret.
pub(crate) fn session_cookie(ctx: &Context, next: &Rotated) -> Option<HeaderValue> {
    let lasting = next.max_age.map(|age| age.as_secs());
    line(ctx, (COOKIE_SECURE, COOKIE_PLAIN), next.secret.reveal().expose(), lasting, "Lax")
}

/// Ends the session's cookie.
pub(crate) fn clear_session(answer: &mut Answer, ctx: &Context) {
    cookie(answer, ctx, (COOKIE_SECURE, COOKIE_PLAIN), "", Some(0), "Lax");
}

/// The mark of a browser in which the account was used.
pub(crate) fn set_device(answer: &mut Answer, ctx: &Context, value: &str) {
    cookie(answer, ctx, (DEVICE_SECURE, DEVICE_PLAIN), value, Some(400 * 86_400), "Lax");
}

fn cookie(answer: &mut Answer, ctx: &Context, names: (&str, &str), value: &str, lasting: Option<u64>, same_site: &str) {
    if let Some(line) = line(ctx, names, value, lasting, same_site) {
        answer.headers_mut().append(SET_COOKIE, line);
    }
}

fn line(
    ctx: &Context,
    (over_tls, plain): (&str, &str),
    value: &str,
    lasting: Option<u64>,
    same_site: &str,
) -> Option<HeaderValue> {
    let (name, secure) = if is_secure(ctx) { (over_tls, "; Secure") } else { (plain, "") };
    let lasting = lasting.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let text = format!("{name}={value}; Path=/{secure}; HttpOnly; SameSite={same_site}{lasting}");
    let mut line = HeaderValue::try_from(text).ok()?;
    line.set_sensitive(true);
    Some(line)
}

/// Tells a browser to forget what it kept of the application for whoever logged out.
pub(crate) fn clear_site_data(answer: &mut Answer) {
    let value = HeaderValue::from_static("\"cache\", \"storage\"");
    answer.headers_mut().insert(HeaderName::from_static("clear-site-data"), value);
}
