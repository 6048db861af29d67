//! What caches may keep of an answer that is meant for one person. Sources: RFC 9111 §5.2.2, RFC 9213.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to `Cache-Control` of answers to requests with a credential, and of answers that set a cookie; answers
/// to requests that change something get `no-store` where the application says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// `no-store` where the application says nothing; what it says is narrowed to `private`.
    #[default]
    Private,
    /// `no-store` where the application says nothing; what it says stays.
    Unset,
    /// The application's word stays, also when it says nothing.
    Upstream,
}

impl Cache {
    /// The same, but what the application says stays.
    pub(super) fn at_most_unset(self) -> Self {
        match self {
            Self::Private => Self::Unset,
            other => other,
        }
    }
}

/// Directives that let a shared cache keep an answer, whoever asked.
const SHARED: [&str; 3] = ["public", "s-maxage", "proxy-revalidate"];

/// Narrows what a personal answer says to caches.
pub(super) fn narrow(cache: Cache, headers: &mut HeaderMap) {
    if cache == Cache::Upstream {
        return;
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if cache == Cache::Unset {
        return;
    }
    // Addressed to caches of content delivery networks, and stronger there than `Cache-Control`.
    for name in ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control"] {
        headers.remove(name);
    }
    if let Some(value) = private(headers) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// The narrower value, where the present one would let a shared cache keep the answer.
fn private(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept: Vec<&str> = Vec::new();
    let mut narrowed = false;
    let mut closed = false;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(text) = value.to_str() else { return Some(HeaderValue::from_static("no-store")) };
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let name = directive.split('=').next().unwrap_or_default().trim_end();
            if SHARED.iter().any(|shared| name.eq_ignore_ascii_case(shared)) {
                narrowed = true;
                continue;
            }
            // With a list of fields `private` closes only those (RFC 9111 §5.2.2.7).
            closed |= directive.eq_ignore_ascii_case("private") || name.eq_ignore_ascii_case("no-store");
            kept.push(directive);
        }
    }
    if closed && !narrowed {
        return None;
    }
    if !closed {
        kept.push("private");
    }
    HeaderValue::from_str(&kept.join(", ")).ok().or(Some(HeaderValue::from_static("no-store")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_personal_answer_is_for_one_person() {
        for (sent, private, unset) in [
            (&[][..], "no-store", "no-store"),
            (&["public, max-age=60"][..], "max-age=60, private", "public, max-age=60"),
            (&["max-age=60"], "max-age=60, private", "max-age=60"),
            (&["PUBLIC"], "private", "PUBLIC"),
            (&["s-maxage=9, private"], "private", "s-maxage=9, private"),
            (&["private, max-age=5"], "private, max-age=5", "private, max-age=5"),
            (&["no-store"], "no-store", "no-store"),
            (&["private=\"set-cookie\""], "private=\"set-cookie\", private", "private=\"set-cookie\""),
            (&["public", "max-age=1"], "max-age=1, private", "public"),
            (&["no-cache"], "no-cache, private", "no-cache"),
        ] {
            for (cache, expected) in [(Cache::Private, private), (Cache::Unset, unset)] {
                let mut headers = HeaderMap::new();
                for value in sent {
                    headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
                }
                headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=9"));
                narrow(cache, &mut headers);
                assert_eq!(headers[CACHE_CONTROL], expected, "{sent:?} {cache:?}");
                assert_eq!(headers.contains_key("cdn-cache-control"), cache == Cache::Unset);
            }
        }
        let mut headers = HeaderMap::new();
        narrow(Cache::Upstream, &mut headers);
        assert!(headers.is_empty());
    }
}
