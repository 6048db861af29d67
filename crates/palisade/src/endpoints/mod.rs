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

/// The answer, where the path is one of ours.
pub(crate) fn answer(ctx: &Context, parts: &request::Parts) -> Option<Response<ResponseBody>> {
    let path = ctx.path();
    let accept = || parts.headers.get(ACCEPT);
    if path == "/.palisade/csrf"
        && let Some(token) = crate::controls::csrf::endpoint(ctx, parts)
    {
        return Some(token);
    }
    if let Some(own) = path.strip_prefix("/.palisade/") {
        return Some(own_path(ctx, own, accept()));
    }
    if path == "/.palisade" {
        return Some(own_path(ctx, "", accept()));
    }
    if ctx.policy.env().server.public_health && matches!(parts.method, Method::GET | Method::HEAD) {
        return match path {
            "/health" => Some(text(StatusCode::OK, "ok\n")),
            "/ready" if crate::server::state(ctx.policy.env()).is_ready() => Some(text(StatusCode::OK, "ready\n")),
            "/ready" => Some(text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")),
            _ => None,
        };
    }
    None
}

fn own_path(ctx: &Context, own: &str, accept: Option<&HeaderValue>) -> Response<ResponseBody> {
    let described = own.strip_prefix("problems/").and_then(|name| codes().find(|code| code.name == name));
    match described {
        Some(code) => {
            let page = format!(
                "{}\n\nstatus: {}\nguide section: {}\n\n{}\n",
                code.name,
                code.status.as_u16(),
                code.section,
                code.sentence
            );
            text(StatusCode::OK, page)
        }
        None => NOT_FOUND.refuse("no endpoint of Palisade's").render(ctx, accept),
    }
}

/// A short plain answer.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::fixed(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
