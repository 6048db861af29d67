//! The application's cookies on their way out. Source: RFC 6265bis (cookies), §4.1.3 (prefixes), §5.6 (sizes).

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::observe::event;

/// `cookies` of `[headers]`: what the application's cookies get on their way out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cookies {
    /// Adds `Secure` where the client speaks TLS.
    pub secure: bool,
    /// What is added where the application says nothing of `SameSite`.
    pub same_site: SameSite,
    /// Cookies of these names get `HttpOnly`: no script reads them. Name session cookies here; one that scripts must
    /// read, as for CSRF, stays out.
    pub http_only: Vec<String>,
    /// Drops, with a line in the log, what browsers refuse as well: cookies over 4096 bytes, `__Host-` and
    /// `__Secure-` names without what they promise.
    pub check: bool,
}

impl Default for Cookies {
    fn default() -> Self {
        Self { secure: true, same_site: SameSite::Lax, http_only: Vec::new(), check: true }
    }
}

/// `SameSite` for cookies without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Not sent with what other sites cause, but for links that are followed.
    Lax,
    /// Not sent with anything that another site causes.
    Strict,
    /// Nothing is added.
    Off,
}

/// Name and value together, as browsers bound them.
const MAX_PAIR: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    Changed(HeaderValue),
    Dropped(&'static str),
}

/// Hardens every `Set-Cookie` of an answer.
pub(super) fn harden(cookies: &Cookies, ctx: &Context, headers: &mut HeaderMap) {
    let secure = cookies.secure && ctx.is_secure();
    let outcomes: Vec<Outcome> =
        headers.get_all(SET_COOKIE).iter().map(|value| judge(cookies, secure, value)).collect();
    if outcomes.iter().all(|outcome| *outcome == Outcome::Same) {
        return;
    }
    let sent: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for (value, outcome) in sent.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Same => drop(headers.append(SET_COOKIE, value)),
            Outcome::Changed(value) => drop(headers.append(SET_COOKIE, value)),
            Outcome::Dropped(why) => {
                let name = value.as_bytes().split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default();
                event::COOKIE
                    .line(&ctx.policy.env().log)
                    .str("name", &String::from_utf8_lossy(&name[..name.len().min(100)]))
                    .str("why", why)
                    .str("route", &ctx.rule().label)
                    .str("request_id", ctx.request_id().as_str());
            }
        }
    }
}

fn judge(cookies: &Cookies, secure: bool, value: &HeaderValue) -> Outcome {
    let bytes = value.as_bytes();
    let mut parts = bytes.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let pair = parts.next().unwrap_or_default();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    let (mut has_secure, mut same_site, mut http_only, mut domain, mut root) = (false, false, false, false, false);
    for attribute in parts {
        let mut sides = attribute.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let (key, argument) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
        has_secure |= key.eq_ignore_ascii_case(b"secure");
        same_site |= key.eq_ignore_ascii_case(b"samesite");
        http_only |= key.eq_ignore_ascii_case(b"httponly");
        domain |= key.eq_ignore_ascii_case(b"domain") && !argument.is_empty();
        if key.eq_ignore_ascii_case(b"path") {
            // Of several the last counts.
            root = argument == b"/";
        }
    }
    if cookies.check {
        let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
        let will_be_secure = has_secure || secure;
        if pair.len() > MAX_PAIR {
            return Outcome::Dropped("name and value are more than 4096 bytes");
        }
        if begins(b"__secure-") && !will_be_secure {
            return Outcome::Dropped("`__Secure-` without `Secure`");
        }
        if begins(b"__host-") && (!will_be_secure || domain || !root) {
            return Outcome::Dropped("`__Host-` needs `Secure`, `Path=/` and no `Domain`");
        }
    }
    let mut added = String::new();
    if secure && !has_secure {
        added.push_str("; Secure");
    }
    if !same_site {
        added.push_str(match cookies.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Off => "",
        });
    }
    if !http_only && cookies.http_only.iter().any(|wanted| wanted.as_bytes() == name) {
        added.push_str("; HttpOnly");
    }
    if added.is_empty() {
        return Outcome::Same;
    }
    let bytes = bytes.trim_ascii_end();
    let bytes = bytes.strip_suffix(b";").unwrap_or(bytes);
    HeaderValue::from_bytes(&[bytes, added.as_bytes()].concat()).map_or(Outcome::Same, Outcome::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_get_what_they_lack_and_keep_what_they_have() {
        let cookies = Cookies { http_only: vec!["session".into()], ..Cookies::default() };
        let long = format!("a={}", "x".repeat(4095));
        let cases: &[(&str, bool, Result<&str, &str>)] = &[
            ("a=1", true, Ok("a=1; Secure; SameSite=Lax")),
            ("a=1", false, Ok("a=1; SameSite=Lax")),
            ("a=1; secure; samesite=none", true, Ok("a=1; secure; samesite=none")),
            ("a=1; SameSite=None", true, Ok("a=1; SameSite=None; Secure")),
            ("session=1; Path=/;", true, Ok("session=1; Path=/; Secure; SameSite=Lax; HttpOnly")),
            ("session=1; Secure; HttpOnly; SameSite=Strict", true, Ok("session=1; Secure; HttpOnly; SameSite=Strict")),
            ("Session=1; Secure; SameSite=Lax", true, Ok("Session=1; Secure; SameSite=Lax")),
            ("__Host-a=1; Path=/; SameSite=Lax", true, Ok("__Host-a=1; Path=/; SameSite=Lax; Secure")),
            ("__Host-a=1; Path=/; Domain=a.example", true, Err("`__Host-` needs `Secure`, `Path=/` and no `Domain`")),
            ("__host-a=1; Path=/x", true, Err("`__Host-` needs `Secure`, `Path=/` and no `Domain`")),
            ("__Host-a=1; Path=/", false, Err("`__Host-` needs `Secure`, `Path=/` and no `Domain`")),
            ("__Secure-a=1", false, Err("`__Secure-` without `Secure`")),
            ("secure=samesite", true, Ok("secure=samesite; Secure; SameSite=Lax")),
            (&long, true, Err("name and value are more than 4096 bytes")),
            ("a=\u{e9}", true, Ok("a=\u{e9}; Secure; SameSite=Lax")),
            ("", true, Ok("; Secure; SameSite=Lax")),
        ];
        for (sent, tls, expected) in cases {
            let value = HeaderValue::from_bytes(sent.as_bytes()).unwrap();
            match (judge(&cookies, *tls, &value), expected) {
                (Outcome::Same, Ok(expected)) => assert_eq!(sent, expected),
                (Outcome::Changed(value), Ok(expected)) => assert_eq!(value.as_bytes(), expected.as_bytes()),
                (Outcome::Dropped(why), Err(expected)) => assert_eq!(&why, expected),
                (outcome, expected) => panic!("{sent}: {outcome:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn as_in_the_starter_policy_nothing_but_secure_is_added() {
        let cookies = Cookies { same_site: SameSite::Off, check: false, ..Cookies::default() };
        let judged = |text: &'static str, tls| judge(&cookies, tls, &HeaderValue::from_static(text));
        assert_eq!(judged("a=1", false), Outcome::Same);
        assert_eq!(judged("__Host-a=1", false), Outcome::Same);
        assert_eq!(judged("a=1", true), Outcome::Changed(HeaderValue::from_static("a=1; Secure")));
    }
}
