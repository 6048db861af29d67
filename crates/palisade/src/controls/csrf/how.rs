//! How a request was authenticated, as far as it matters here: whether a browser adds the credential by itself.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::context::{Context, Seen};

/// Whether the request may act with what the browser added by itself. A bearer token or key counts only where it was the
/// accepted credential: anybody can put one beside a cookie (threat 18). Where nothing was accepted, the application
/// behind may still accept what came along.
pub(super) fn is_ambient(ctx: &Context, headers: &HeaderMap) -> bool {
    match ctx.identity().caller() {
        Some(caller) => caller.by().is_ambient(),
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
