//! How a request was authenticated, as far as it matters here: whether a browser adds the credential by itself.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::context::{Context, Seen};

/// What said who sends a request. Set by whatever identifies requests; see [`Context::set_authenticated_by`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticatedBy {
    /// A session's cookie.
    Cookie,
    /// A client certificate.
    Certificate,
    /// `Authorization: Basic`, `Negotiate` and the like, which browsers repeat by themselves once they were asked.
    Browser,
    /// A token in `Authorization: Bearer`, which only a script of the page can send.
    Bearer,
    /// An API key in a header of its own.
    ApiKey,
}

impl AuthenticatedBy {
    /// Whether a browser attaches it to a request that a page of another site makes it send.
    pub const fn is_ambient(self) -> bool {
        matches!(self, Self::Cookie | Self::Certificate | Self::Browser)
    }
}

/// Whether the request may act with what the browser added by itself. A bearer token or key counts only where it was the
/// accepted credential: anybody can put one beside a cookie (threat 18). Where nothing was accepted, the application
/// behind may still accept what came along.
pub(super) fn is_ambient(ctx: &Context, headers: &HeaderMap) -> bool {
    match ctx.authenticated_by() {
        Some(by) => by.is_ambient(),
        None => {
            ctx.seen.any(Seen::COOKIE) && headers.contains_key(COOKIE)
                || ctx.seen.any(Seen::CREDENTIAL) && headers.get_all(AUTHORIZATION).iter().any(|v| !is_bearer(v))
        }
    }
}

fn is_bearer(value: &http::HeaderValue) -> bool {
    let scheme = value.as_bytes().split(|b| *b == b' ').next().unwrap_or_default();
    // What an unknown scheme does in a browser is unknown; the ones of machines are these.
    [&b"bearer"[..], b"dpop", b"apikey", b"token", b"hmac", b"aws4-hmac-sha256", b"signature"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
}
