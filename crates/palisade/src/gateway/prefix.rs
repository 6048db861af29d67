//! Answers of an application that does not know its prefix: redirects to its own paths and cookies for them get it.
//!
//! In every mode, since it belongs to taking the prefix off; what a redirect leads to is judged by `headers`. An
//! application that knows its prefix (uvicorn's `--root-path`) writes it itself, and nothing changes.

use http::header::{HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use http::uri::Authority;

use crate::context::Context;
use crate::controls::headers::{Target, read_location};
use crate::policy::values::UpstreamUrl;

/// Puts the prefix that was taken off the request back into the answer.
pub(crate) fn mend(ctx: &Context, headers: &mut HeaderMap) {
    if ctx.stripped_path().is_none() {
        return;
    }
    let prefix = ctx.policy.destination(ctx.rule().id).prefix().and_then(|prefix| prefix.to_str().ok());
    let Some(prefix) = prefix else { return };
    let mended = headers.get(LOCATION).and_then(|value| location(ctx, prefix, value.to_str().ok()?));
    if let Some(value) = mended.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(LOCATION, value);
    }
    if headers.get_all(SET_COOKIE).iter().any(|value| cookie(prefix, value).is_some()) {
        let all: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.remove(SET_COOKIE);
        for value in all {
            headers.append(SET_COOKIE, cookie(prefix, &value).unwrap_or(value));
        }
    }
}

/// The location with the prefix, where it is a path of the application without it.
fn location(ctx: &Context, prefix: &str, text: &str) -> Option<String> {
    let mut room = String::new();
    let rest_at = match read_location(text, &mut room) {
        Target::Relative => 0,
        Target::Host { host: Some(host), port, rest, .. } => {
            let rest = rest.len();
            if !is_application(ctx, &host, port) {
                return None;
            }
            room.len() - rest
        }
        _ => return None,
    };
    let (before, rest) = room.split_at(rest_at);
    // A relative path follows the address that the browser sees, which has the prefix.
    if !rest.starts_with('/') && (before.is_empty() || !rest.is_empty()) {
        return None;
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    (!is_below(prefix, path) && !belongs_to_another(ctx, path)).then(|| format!("{before}{prefix}{rest}"))
}

/// Whether a host is the application's, by its public name or by the one that only the gateway knows.
fn is_application(ctx: &Context, host: &str, port: Option<u16>) -> bool {
    let upstream = ctx.policy.upstream(ctx.rule().id).url.as_ref().and_then(UpstreamUrl::host_and_port);
    let own_port = ctx.authority().parse::<Authority>().ok().and_then(|own| own.port_u16());
    let public = *host == *ctx.host() && (port.is_none() || port == own_port || matches!(port, Some(80 | 443)));
    public || upstream.is_some_and(|(name, at)| *name == *host && port.unwrap_or(80) == at)
}

fn is_below(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a route leads this path to another application: then it is meant as it stands.
fn belongs_to_another(ctx: &Context, path: &str) -> bool {
    let rule = ctx.policy.rules().find(ctx.host(), path, &http::Method::GET).id();
    rule != 0 && ctx.policy.destination(rule).upstream != ctx.policy.destination(ctx.rule().id).upstream
}

/// A cookie with the prefix in its path. `/` stays: it is right for every prefix, and `__Host-` cookies need it.
fn cookie(prefix: &str, value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let mut changed = false;
    let parts: Vec<String> = text
        .split(';')
        .enumerate()
        .map(|(place, part)| {
            let (name, path) = part.split_once('=').unwrap_or((part, ""));
            let path = path.trim();
            if place > 0
                && name.trim().eq_ignore_ascii_case("path")
                && path.len() > 1
                && path.starts_with('/')
                && !is_below(prefix, path)
            {
                changed = true;
                return format!("{name}={prefix}{path}");
            }
            part.to_owned()
        })
        .collect();
    changed.then(|| HeaderValue::from_str(&parts.join(";")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_for_paths_of_the_application_get_the_prefix() {
        for (sent, mended) in [
            ("a=1; Path=/account; HttpOnly", Some("a=1; Path=/v2/account; HttpOnly")),
            ("a=1;path=/x", Some("a=1;path=/v2/x")),
            ("a=1; Path=/", None),
            ("a=1; Path=/v2/account", None),
            ("a=1; Path=/v22", Some("a=1; Path=/v2/v22")),
            ("a=1", None),
            ("path=/x; Secure", None),
            ("a=1; Path=x", None),
        ] {
            let outcome = cookie("/v2", &HeaderValue::from_static(sent));
            assert_eq!(outcome.as_ref().map(|value| value.to_str().unwrap()), mended, "{sent}");
        }
    }
}
