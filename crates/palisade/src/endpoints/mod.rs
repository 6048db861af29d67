//! Palisade's own routes on the public port: `/.palisade/*`, and `/health` and `/ready` where asked for.

pub(crate) mod auth;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, request};

use crate::body::ResponseBody;
use crate::context::Context;
use crate::refusal::Code;

/// Nothing of Palisade's is here.
pub static NOT_FOUND: Code =
    Code::client("palisade.not_found", StatusCode::NOT_FOUND, 13, "nothing is served under this path");

/// Every code that can be asked about under `/.palisade/problems/`.
pub fn codes() -> impl Iterator<Item = &'static Code> {
    crate::controls::INFOS
        .iter()
        .flat_map(|info| info.codes.iter().copied())
        .chain(crate::gateway::CODES.iter().copied())
        .chain(crate::stack::CODES.iter().copied())
        .chain(crate::extract::CODES.iter().copied())
        .chain(crate::server::admin::CODES.iter().copied())
        .chain(crate::server::CODES.iter().copied())
        .chain(crate::controls::auth::codes::PASSWORDS.iter().copied())
        .chain([&NOT_FOUND])
}

/// What one of our places is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Csrf,
    /// Answered where the body is read: see `controls::headers`.
    Reports,
    Problem,
    Health,
    Ready,
}

/// What is ours on the public port, whatever the policy says of `[auth]`.
static PLACES: &[(Method, &str, Place)] = &[
    (Method::GET, "/.palisade/csrf", Place::Csrf),
    (Method::POST, crate::controls::headers::REPORTS, Place::Reports),
    (Method::GET, "/.palisade/problems/{id}", Place::Problem),
    (Method::GET, "/health", Place::Health),
    (Method::GET, "/ready", Place::Ready),
];

/// The same by method and path, for tests that try every endpoint.
#[cfg(test)]
pub(crate) fn places() -> impl Iterator<Item = (&'static Method, &'static str)> {
    PLACES.iter().map(|(method, path, _)| (method, *path))
}

fn is_below(path: &str) -> bool {
    path == "/.palisade" || path.starts_with("/.palisade/")
}

/// Whether a path is one of ours, which are for everybody: refusals refer to them, browsers report to them without having
/// logged in, and whoever asks how this server is knows no password.
pub(crate) fn is_ours(ctx: &Context) -> bool {
    let path = ctx.path();
    is_below(path) || ctx.policy.env().server.public_health && matches!(path, "/health" | "/ready")
}

/// The answer, where the path is one of ours.
pub(crate) fn answer(ctx: &Context, parts: &request::Parts) -> Option<Response<ResponseBody>> {
    if !is_ours(ctx) {
        return None;
    }
    let path = ctx.path();
    // HEAD is GET without the body, which the server leaves out.
    let asked = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
    let mut places = PLACES.iter().filter(|(method, ..)| method == asked);
    let found = places.find_map(|(_, pattern, place)| Some((*place, fits(pattern, path)?)));
    let answer = match found {
        Some((Place::Csrf, _)) => crate::controls::csrf::endpoint(ctx, parts),
        Some((Place::Problem, name)) => codes().find(|code| code.name == name).map(described),
        Some((Place::Health, _)) => Some(text(StatusCode::OK, "ok\n")),
        Some((Place::Ready, _)) if crate::server::state(ctx.policy.env()).is_ready() => {
            Some(text(StatusCode::OK, "ready\n"))
        }
        Some((Place::Ready, _)) => Some(text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")),
        Some((Place::Reports, _)) | None => None,
    };
    let nothing = || NOT_FOUND.refuse("no endpoint of Palisade's").render(ctx, parts.headers.get(ACCEPT));
    answer.or_else(|| is_below(path).then(nothing))
}

/// A code, as `type` of a problem document refers to it.
fn described(code: &'static Code) -> Response<ResponseBody> {
    let page = format!(
        "{}\n\nstatus: {}\nguide section: {}\n\n{}\n",
        code.name,
        code.status.as_u16(),
        code.section,
        code.sentence
    );
    text(StatusCode::OK, page)
}

/// Whether a path is of a pattern with one `{id}` at most, and what stands for it.
pub(crate) fn fits<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once("{id}") else { return (pattern == path).then_some("") };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && id.len() <= 64 && !id.contains(['/', '%'])).then_some(id)
}

/// A short plain answer.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::fixed(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
