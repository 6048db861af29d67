//! Nonces of a `Content-Security-Policy`: `{nonce}` in `csp` is another one on each answer, and the application is told
//! which, so that its templates can name it. Source: W3C CSP Level 3 §2.3.1.

use data_encoding::BASE64;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use rand::Rng as _;

/// What stands in a policy for the nonce.
pub(super) const PLACE: &str = "{nonce}";

/// How the application gets it: as `X-CSP-Nonce`.
const X_CSP_NONCE: HeaderName = HeaderName::from_static("x-csp-nonce");

/// 128 bits that nobody guesses, in base64.
pub(super) fn new() -> HeaderValue {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    // Letters, digits, `+`, `/` and `=`.
    HeaderValue::from_str(&BASE64.encode(&bytes)).unwrap_or(HeaderValue::from_static(""))
}

/// Tells the application; what the client sent under that name never arrives.
pub(super) fn tell(headers: &mut HeaderMap, nonce: Option<&HeaderValue>) {
    match nonce {
        Some(nonce) => drop(headers.insert(X_CSP_NONCE, nonce.clone())),
        None => drop(headers.remove(X_CSP_NONCE)),
    }
}

/// A policy with the nonce in its place.
pub(super) fn put(policy: &HeaderValue, nonce: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_str(&policy.to_str().ok()?.replace(PLACE, nonce.to_str().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_and_stands_in_its_place() {
        let (one, other) = (new(), new());
        assert!(one != other && one.len() == 24, "{one:?}");
        let policy = HeaderValue::from_static("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'");
        let text = put(&policy, &one).unwrap();
        assert_eq!(text.to_str().unwrap().matches(one.to_str().unwrap()).count(), 2);
        let mut headers = HeaderMap::new();
        headers.append(X_CSP_NONCE, HeaderValue::from_static("mine"));
        headers.append(X_CSP_NONCE, HeaderValue::from_static("mine too"));
        tell(&mut headers, Some(&one));
        assert_eq!(headers.get_all(X_CSP_NONCE).iter().collect::<Vec<_>>(), [&one]);
        tell(&mut headers, None);
        assert!(headers.is_empty());
    }
}
