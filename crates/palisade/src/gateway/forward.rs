//! What the application behind gets: the request as decided on, and who sent it.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
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

/// Sets what only the gateway may say, on a request whose forgeable headers are gone: exactly one address, one
/// protocol, one host, the request id.
pub fn forwarded_headers(ctx: &Context, headers: &mut HeaderMap) {
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
    headers.insert(X_FORWARDED_FOR, ctx.client_text().value());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if ctx.is_secure() { "https" } else { "http" }));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_REQUEST_ID, text(ctx.request_id().as_str()));
    if let Some(prefix) = ctx.policy.destination(ctx.rule().id).prefix() {
        headers.insert(X_FORWARDED_PREFIX, prefix.clone());
        headers.insert(X_SCRIPT_NAME, prefix.clone());
    }
}

/// The request for the application, in origin form, and the client's side of a WebSocket, where it asks for one.
pub(super) fn prepare(mut request: Request<RequestBody>) -> (Request<RequestBody>, Option<OnUpgrade>) {
    let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    if upgrade.is_some() {
        parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if parts.uri.authority().is_some() {
        // Absolute form and `:authority` end here: the host was checked and stands in `Host`.
        parts.uri = parts.uri.path_and_query().cloned().map(http::Uri::from).unwrap_or_default();
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    (Request::from_parts(parts, body), upgrade)
}

/// Headers of an answer that end at the gateway.
pub(super) fn clean_answer(headers: &mut HeaderMap) {
    // The codec has taken off what belongs to the connection.
    headers.remove(http::header::PROXY_AUTHENTICATE);
    headers.remove(http::header::UPGRADE);
}
