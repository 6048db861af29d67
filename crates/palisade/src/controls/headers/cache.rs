//! What caches may keep of an answer that is meant for one person.
//!
//! Threat 37, cache deception: `/me/x.css` is `/me` to the application and a style sheet to a cache in front, and an
//! application that says `public` on an answer to a cookie has not thought of either. So such an answer is `no-store`
//! whatever the application says; a route whose answers are the same for everybody says `cache = "upstream"`.
//! Sources: RFC 9111 §5.2.2, RFC 9213.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, VARY};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::theirs::Theirs;
use crate::context::{Context, Seen};
use crate::observe::redact;

/// What happens to `Cache-Control` of answers to requests with a credential, and of answers that set a cookie; answers
/// to requests that change something get `no-store` where the application says nothing, unless this is `upstream`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// `no-store`, whatever the application says.
    #[default]
    NoStore,
    /// `no-store` where the application says nothing; what it says is narrowed to `private`.
    Private,
    /// `no-store` where the application says nothing; what it says stays.
    Unset,
    /// The application's word stays, also when it says nothing.
    Upstream,
}

/// Directives that let a shared cache keep an answer, whoever asked. `must-understand` takes `no-store` back.
const SHARED: [&str; 4] = ["public", "s-maxage", "proxy-revalidate", "must-understand"];
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Says to caches what they may keep. `theirs`: what the answer came with.
pub(super) fn say(cache: Cache, ctx: &Context, theirs: Theirs, success: bool, headers: &mut HeaderMap) {
    if cache == Cache::Upstream {
        return;
    }
    let asked_by = ctx.has_credential() || ctx.target.query().is_some_and(|query| redact::credential(query).is_some());
    if asked_by || theirs.any(Theirs::COOKIE) {
        if narrow(cache, theirs, headers) {
            for (seen, name) in NAMES {
                if ctx.seen.any(seen) {
                    vary(headers, name);
                }
            }
        }
    } else if success && !ctx.method.is_safe() && !headers.contains_key(CACHE_CONTROL) {
        // What a login or a form answers is for who sent it, also before there is a credential.
        headers.insert(CACHE_CONTROL, NO_STORE);
    }
}

/// The headers that decided, as `Vary` names them.
const NAMES: [(Seen, &str); 3] =
    [(Seen::AUTHORIZATION, "Authorization"), (Seen::COOKIE, "Cookie"), (Seen::API_KEY, "X-API-Key")];

/// Narrows what a personal answer says to caches. Whether the word is ours now.
fn narrow(cache: Cache, theirs: Theirs, headers: &mut HeaderMap) -> bool {
    let said = headers.contains_key(CACHE_CONTROL);
    if cache == Cache::Unset && said {
        return false;
    }
    if cache != Cache::Unset && theirs.any(Theirs::CDN) {
        // Addressed to caches of content delivery networks, and stronger there than `Cache-Control`.
        super::theirs::remove(headers, Theirs::CDN);
    }
    let value = match cache {
        Cache::NoStore if !is_no_store(headers) => Some(NO_STORE),
        _ if !said => Some(NO_STORE),
        Cache::Private => private(headers),
        _ => None,
    };
    if let Some(value) = value {
        headers.insert(CACHE_CONTROL, value);
    }
    true
}

/// Whether no cache may keep the answer as it is: `no-store`, and nothing that weakens it.
fn is_no_store(headers: &HeaderMap) -> bool {
    let mut closed = false;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(text) = value.to_str() else { return false };
        for name in directives(text).map(name) {
            if is_shared(name) {
                return false;
            }
            closed |= name.eq_ignore_ascii_case("no-store");
        }
    }
    closed
}

/// The narrower value, where the present one would let a shared cache keep the answer.
fn private(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut kept: Vec<&str> = Vec::new();
    let mut narrowed = false;
    let mut closed = false;
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(text) = value.to_str() else { return Some(NO_STORE) };
        for directive in directives(text) {
            if is_shared(name(directive)) {
                narrowed = true;
                continue;
            }
            // With a list of fields `private` closes only those (RFC 9111 §5.2.2.7).
            closed |= directive.eq_ignore_ascii_case("private") || name(directive).eq_ignore_ascii_case("no-store");
            kept.push(directive);
        }
    }
    if closed && !narrowed {
        return None;
    }
    if !closed {
        kept.push("private");
    }
    HeaderValue::from_str(&kept.join(", ")).ok().or(Some(NO_STORE))
}

fn directives(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|directive| !directive.is_empty())
}

fn name(directive: &str) -> &str {
    directive.split('=').next().unwrap_or_default().trim_end()
}

fn is_shared(name: &str) -> bool {
    SHARED.iter().any(|shared| name.eq_ignore_ascii_case(shared))
}

/// Adds a header to what the answer depends on.
pub(crate) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let said = headers.get_all(VARY).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').map(str::trim).any(|said| said == "*" || said.eq_ignore_ascii_case(name))
        })
    });
    if !said {
        headers.append(VARY, HeaderValue::from_static(name));
    }
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
            for (cache, expected) in [(Cache::NoStore, "no-store"), (Cache::Private, private), (Cache::Unset, unset)] {
                let mut headers = HeaderMap::new();
                for value in sent {
                    headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
                }
                headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=9"));
                let theirs = Theirs::new(&headers);
                let ours = narrow(cache, theirs, &mut headers);
                assert_eq!(headers[CACHE_CONTROL], expected, "{sent:?} {cache:?}");
                assert_eq!(headers.contains_key("cdn-cache-control"), cache == Cache::Unset, "{sent:?} {cache:?}");
                assert_eq!(ours, cache != Cache::Unset || sent.is_empty(), "{sent:?} {cache:?}");
            }
        }
    }

    #[test]
    fn no_store_stays_as_it_is_said_unless_something_takes_it_back() {
        for (sent, expected) in [
            (&["no-store"][..], "no-store"),
            (&["private, No-Store, max-age=0"], "private, No-Store, max-age=0"),
            (&["no-cache, no-store, must-revalidate"], "no-cache, no-store, must-revalidate"),
            (&["no-store, public"], "no-store"),
            (&["must-understand, no-store"], "no-store"),
            (&["no-store", "s-maxage = 60"], "no-store"),
            (&["no-store-at-all"], "no-store"),
            (&["max-age=60, immutable"], "no-store"),
            (&["private"], "no-store"),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            assert!(narrow(Cache::NoStore, Theirs::new(&HeaderMap::new()), &mut headers));
            assert_eq!(headers.get_all(CACHE_CONTROL).iter().collect::<Vec<_>>(), [expected], "{sent:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_bytes(b"no-store, \xff").expect("a value"));
        narrow(Cache::NoStore, Theirs::new(&HeaderMap::new()), &mut headers);
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn vary_names_a_header_once() {
        for (said, expected) in [
            (&[][..], &["Cookie"][..]),
            (&["Accept-Encoding"], &["Accept-Encoding", "Cookie"]),
            (&["accept, COOKIE"], &["accept, COOKIE"]),
            (&["*"], &["*"]),
            (&["Cookies"], &["Cookies", "Cookie"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(VARY, HeaderValue::from_static(value));
            }
            vary(&mut headers, "Cookie");
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), expected);
        }
    }
}
