//! Where a request comes from, as the browser says it: `Sec-Fetch-Site` and `Origin`, which no page can forge.
//!
//! Sources: W3C Fetch Metadata §2.4, the Fetch standard ("Origin header"), RFC 6454.

use http::HeaderMap;

use crate::context::{Context, Seen};

/// Whose page made the browser send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// An own page, or the person at the browser.
    Own,
    /// A page that is not ours; why, for the log.
    Foreign(&'static str),
    /// Nothing says it: no browser, or a very old one.
    Unknown,
    /// `Origin` is `null`: the page is in a sandbox, or hides where it is.
    Opaque,
}

/// Whose page it was.
pub(crate) fn of(ctx: &Context, headers: &HeaderMap) -> Site {
    let mut fetch = headers.get_all("sec-fetch-site").iter();
    let site = fetch.next().map(http::HeaderValue::as_bytes);
    if fetch.next().is_some() {
        return Site::Foreign("`Sec-Fetch-Site` is there more than once");
    }
    match site {
        // `none`: typed, bookmarked, reloaded. No page can make a browser say so.
        Some(b"same-origin" | b"none") => Site::Own,
        // Whoever controls a subdomain is not who controls this one.
        Some(b"same-site") => listed_or(ctx, "a page of another origin of this site"),
        Some(b"cross-site") => listed_or(ctx, "a page of another site"),
        Some(_) => listed_or(ctx, "`Sec-Fetch-Site` is none of the known values"),
        None => origin(ctx),
    }
}

/// By `Origin` alone: browsers before 2023 that send no `Sec-Fetch-Site`, and all of them over plain HTTP.
fn origin(ctx: &Context) -> Site {
    if !ctx.seen.any(Seen::ORIGIN) {
        return Site::Unknown;
    }
    let Some(origin) = ctx.origin.as_ref() else { return Site::Foreign("`Origin` is there more than once") };
    match origin.to_str() {
        // Sandboxed frames and pages of files, but also own pages under `Referrer-Policy: no-referrer`.
        Ok("null") => Site::Opaque,
        Ok(origin) if is_own(ctx, origin) => Site::Own,
        _ => listed_or(ctx, "`Origin` is that of another site"),
    }
}

/// Whether the origin is where this request went. `http` is not the origin of what is served over `https`: whoever is
/// on the network can be a page there.
pub(super) fn is_own(ctx: &Context, origin: &str) -> bool {
    let Some((scheme, from)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" if !ctx.is_secure() => ":80",
        _ => return false,
    };
    let plain = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    !from.is_empty() && plain(from) == plain(ctx.authority())
}

/// Origins of `[cors]` are own ones.
fn listed_or(ctx: &Context, why: &'static str) -> Site {
    let origin = ctx.origin.as_ref().and_then(|origin| origin.to_str().ok());
    let cors = ctx.policy.controls().cors.control.as_ref();
    match (origin, cors) {
        (Some(origin), Some(cors)) if cors.is_own(ctx, origin) => Site::Own,
        _ => Site::Foreign(why),
    }
}
