//! What the application learns of the caller: headers, and a signed assertion of the same.
//!
//! Threats 5 and 22. What a client sends under these names is gone before; here each is set from what was proved, or is
//! absent. Values are encoded so that none can end an item of a list, or a line. The assertion is signed by a key of its
//! own, names the application, method and path that it is for, and lives 60 s.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use palisade_base::Timestamp;
use palisade_identity::service::Credential;
use palisade_identity::token::{Claims, kind};
use serde_json::Value;

use super::caller::Caller;
use super::service::Ready;

const USER: HeaderName = HeaderName::from_static("x-forwarded-user");
const NAME: HeaderName = HeaderName::from_static("x-forwarded-name");
const EMAIL: HeaderName = HeaderName::from_static("x-forwarded-email");
const ROLES: HeaderName = HeaderName::from_static("x-forwarded-roles");
const ASSERTION: HeaderName = HeaderName::from_static("palisade-assertion");

/// How long an assertion is good for, in seconds.
const LIFE: i64 = 60;
/// How long one is used again for the same caller, method and path, in seconds: it then still lives for half a minute.
const AGAIN: i64 = 30;

/// Removes what an application says under these names in its answers.
pub(super) fn remove(headers: &mut HeaderMap) {
    for name in [USER, NAME, EMAIL, ROLES, ASSERTION] {
        headers.remove(name);
    }
}

/// Tells the application who is asking.
pub(crate) fn add(ready: &Ready, caller: &Caller, asked: &Asked<'_>, now: Timestamp, headers: &mut HeaderMap) {
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(encode(value)) {
            headers.insert(name, value);
        }
    };
    put(USER, caller.subject());
    if let Some(user) = caller.account() {
        put(NAME, &user.name);
        if let Some(email) = user.verified_email() {
            put(EMAIL, email);
        }
        let mut roles = String::new();
        // Threats 4: a narrow credential carries its user's roles only where it was asked for one of its scopes, and this
        // header cannot say that it is one, as the assertion does.
        let carried = if caller.scopes().is_some() && !asked.judged { &[][..] } else { &user.roles[..] };
        for role in carried {
            if !roles.is_empty() {
                roles.push(',');
            }
            roles.push_str(&encode(role));
        }
        if let Ok(roles) = HeaderValue::try_from(roles) {
            headers.insert(ROLES, roles);
        }
    }
    if let Some(assertion) = assertion(ready, caller, asked, now) {
        headers.insert(ASSERTION, assertion);
    }
}

/// What the application is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The application, as the policy names it.
    pub(crate) upstream: &'a str,
    /// The method.
    pub(crate) method: &'a str,
    /// The path as the application gets it.
    pub(crate) path: &'a str,
    /// Whether the caller was let in for what they may do, and not because anybody is.
    pub(crate) judged: bool,
}

/// Everything that a list, a quoted text or a line could end at is percent-encoded; so is `%` itself.
fn encode(value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/@+!$&*()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

fn assertion(ready: &Ready, caller: &Caller, asked: &Asked<'_>, now: Timestamp) -> Option<HeaderValue> {
    let second = now.0.div_euclid(1000);
    let key = key(caller, asked);
    if let Some((made, value)) = ready.assertions().get(&key)
        && second >= made
        && second < made + AGAIN
    {
        return Some(value);
    }
    let value = sign(ready, caller, asked, now)?;
    ready.assertions().insert(key, (second, value.clone()));
    Some(value)
}

/// What an assertion says, as one text: nothing else is ever answered from the cache.
fn key(caller: &Caller, asked: &Asked<'_>) -> Box<str> {
    let mut key = String::with_capacity(256);
    let mut add = |part: &str| {
        key.push_str(part);
        key.push('\n');
    };
    for part in [asked.upstream, asked.method, asked.path, caller.subject(), caller.client().unwrap_or_default()] {
        add(part);
    }
    add(caller.by().as_str());
    add(&caller.logged_in().map(|at| at.0.to_string()).unwrap_or_default());
    if let Some(user) = caller.account() {
        add(&user.name);
        add(user.verified_email().unwrap_or_default());
        add(user.app_id.as_deref().unwrap_or_default());
        user.roles.iter().for_each(|role| add(role));
        add("");
        user.permissions.iter().for_each(|permission| add(permission));
    }
    add("");
    if let Some(Credential::Issued { id, .. }) = caller.claims().map(|_| caller.proved().credential()) {
        add(&id.to_string());
    }
    // A word of its own for each of the two, since any word can be a scope.
    add(if caller.scopes().is_some() { "narrow" } else { "whole" });
    caller.scopes().unwrap_or_default().iter().for_each(|scope| add(scope));
    key.into()
}

fn sign(ready: &Ready, caller: &Caller, asked: &Asked<'_>, now: Timestamp) -> Option<HeaderValue> {
    let second = now.0.div_euclid(1000);
    let mut claims = Claims::new(ready.issuer(), caller.subject(), [asked.upstream]);
    claims.issued_at = Some(second);
    claims.expires_at = Some(second + LIFE);
    claims.id = Some(ready.fresh_id());
    claims.client = caller.client().map(str::to_owned);
    claims.scope = caller.scopes().unwrap_or_default().to_vec();
    let mut more = |name: &str, value: Value| drop(claims.other.insert(name.into(), value));
    more("method", asked.method.into());
    more("path", asked.path.into());
    more("by", caller.by().as_str().into());
    if let Some(at) = caller.logged_in() {
        more("auth_time", at.0.div_euclid(1000).into());
    }
    // Under a name of their own: none of them stands for one of ours.
    if let (Some(issuer), Some(said)) = (caller.issuer(), caller.claims()) {
        more("issuer", issuer.into());
        more("claims", said.clone().into());
    }
    if caller.scopes().is_some() {
        more("narrowed", true.into());
    }
    if let Some(user) = caller.account() {
        more("name", user.name.as_str().into());
        if let Some(email) = user.verified_email() {
            more("email", email.into());
        }
        if let Some(id) = &user.app_id {
            more("app_id", id.as_str().into());
        }
        more("permissions", user.permissions.clone().into());
        claims.roles.clone_from(&user.roles);
    }
    let token = ready.rings().assertion_signer().sign(kind::ASSERTION, &claims).ok()?;
    let mut value = HeaderValue::from_str(token.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_an_item_or_a_line() {
        for (value, encoded) in [
            ("ann", "ann"),
            ("a,b", "a%2Cb"),
            ("a\r\nX: y", "a%0D%0AX:%20y"),
            ("é", "%C3%A9"),
            ("100%2C", "100%252C"),
            ("ann@example.com", "ann@example.com"),
        ] {
            assert_eq!(encode(value), encoded);
        }
    }
}
