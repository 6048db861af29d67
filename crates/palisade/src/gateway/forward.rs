//! What the application behind gets: the request as decided on, and who sent it.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;

use crate::body::RequestBody;
use crate::context::Context;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_SCRIPT_NAME: HeaderName = HeaderName::from_static("x-script-name");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets what only the gateway may say, on a request whose forgeable headers are gone.
pub fn forwarded_headers(ctx: &Context, headers: &mut HeaderMap) {
    let host = client_host(ctx, headers);
    forwarded(ctx, host, |name, value| drop(headers.insert(name, value)));
}

/// The host that the client asked for, also where the policy has put another one into `Host`.
pub(super) fn client_host(ctx: &Context, headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = ctx.authority();
    match headers.get(HOST) {
        Some(host) if host.as_bytes().eq_ignore_ascii_case(asked.as_bytes()) => Some(host.clone()),
        _ => HeaderValue::from_str(&asked.to_ascii_lowercase()).ok().filter(|host| !host.is_empty()),
    }
}

/// What only the gateway may say: exactly one address, one protocol, one host, the request id.
pub(super) fn forwarded(ctx: &Context, host: Option<HeaderValue>, mut put: impl FnMut(HeaderName, HeaderValue)) {
    put(X_FORWARDED_FOR, ctx.client_text().value());
    put(X_FORWARDED_PROTO, HeaderValue::from_static(if ctx.is_secure() { "https" } else { "http" }));
    if let Some(host) = host {
        put(X_FORWARDED_HOST, host);
    }
    if let Ok(id) = HeaderValue::from_bytes(ctx.request_id().as_bytes()) {
        put(X_REQUEST_ID, id);
    }
    if let Some(prefix) = ctx.policy.destination(ctx.rule().id).prefix() {
        put(X_FORWARDED_PREFIX, prefix.clone());
        put(X_SCRIPT_NAME, prefix.clone());
    }
}

/// Makes it the request for an application that speaks HTTP/2, trailers of which it is told that they are welcome: gRPC
/// servers insist on it. None where it cannot be written.
pub(super) fn prepare_http2(ctx: &Context, request: &mut Request<RequestBody>, secure: bool) -> Option<()> {
    let asked = client_host(ctx, request.headers());
    let host = request.headers_mut().remove(HOST)?;
    let target = request.uri().path_and_query()?.clone();
    let scheme = if secure { "https" } else { "http" };
    let uri = http::Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(target);
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().clear();
    let headers = request.headers_mut();
    forwarded(ctx, asked, |name, value| drop(headers.insert(name, value)));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    Some(())
}

/// Makes it the request for the application, in origin form; gives the client's side of a WebSocket, where it asks for
/// one. In place: a request is moved often enough.
pub(super) fn prepare(request: &mut Request<RequestBody>) -> Option<OnUpgrade> {
    let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut *request));
    if upgrade.is_some() {
        request.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if request.uri().authority().is_some() {
        // Absolute form and `:authority` end here: the host was checked and stands in `Host`.
        *request.uri_mut() = request.uri().path_and_query().cloned().map(http::Uri::from).unwrap_or_default();
    }
    *request.version_mut() = Version::HTTP_11;
    request.extensions_mut().clear();
    upgrade
}
