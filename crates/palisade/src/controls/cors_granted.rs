//! What an application that answers for itself has allowed to whom, so that its failures can be read too.
//!
//! Frameworks put their CORS headers on what their handlers return. What fails above them (FastAPI's answer to an
//! exception that nobody caught), and what a gateway refuses, has none, and a page sees a network error instead of the
//! status. The memory is of the last answer to each origin, and an origin that is no longer allowed is forgotten at once.
//!
//! What one application allows is nothing to another, and so it is with its names and its parts: an application that is
//! mounted in another one has a list of origins of its own. Of its parts the policy knows routes, so there is one memory
//! for each. A page that asks on a route for the first time reads its failures too, where its browser asks with a preflight
//! first, and in all other cases from the first answer on.

use arc_swap::ArcSwap;
use http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue};
use http::response;
use parking_lot::Mutex;

use super::{TRUE, vary};
use crate::context::Context;
use crate::policy::values::UpstreamUrl;
use crate::refusal::Code;

/// Origins that are remembered for a route; the oldest leaves. An application has a handful of own pages; one that allows
/// every origin fills this with what passes by, and loses nothing but the errors of rare ones.
const MAX_ORIGINS: usize = 64;
/// A longer origin or host is not remembered.
const MAX_BYTES: usize = 300;
const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// Whose page asks whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'r> {
    /// Where the application listens; none of one that Palisade starts, or that is in this process: there is one at most.
    pub(super) app: Option<&'r UpstreamUrl>,
    pub(super) host: &'r str,
    pub(super) origin: &'r HeaderValue,
    /// The application answers, not this gateway in its place.
    pub(super) answered: bool,
}

impl<'r> Asked<'r> {
    /// Of a request of a page.
    pub(super) fn of(ctx: &'r Context) -> Option<Self> {
        let app = ctx.policy.upstream(ctx.rule().id).url.as_ref();
        Some(Self { app, host: ctx.host(), origin: ctx.origin.as_ref()?, answered: ctx.is_answered() })
    }
}

/// One origin, and what it was allowed.
#[derive(Debug, Clone)]
struct Grant {
    app: Option<UpstreamUrl>,
    host: Box<str>,
    origin: HeaderValue,
    allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowed {
    /// It was said with `*`.
    anybody: bool,
    credentials: bool,
}

impl Grant {
    fn is_for(&self, asked: &Asked<'_>) -> bool {
        self.origin == asked.origin && *self.host == *asked.host && self.app.as_ref() == asked.app
    }
}

/// All of a route. Read without a lock; written only when something has changed.
#[derive(Debug, Default)]
pub(super) struct Granted {
    grants: ArcSwap<Vec<Grant>>,
    writing: Mutex<()>,
}

impl Granted {
    /// Learns from an answer of the application, or adds to one that failed.
    pub(super) fn response(&self, asked: &Asked<'_>, parts: &mut response::Parts) {
        let refused_by = parts.extensions.get::<&'static Code>().map(|code| code.control());
        let grants = self.grants.load();
        let known = grants.iter().find(|grant| grant.is_for(asked)).map(|grant| grant.allowed);
        match (parts.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN), refused_by) {
            (Some(said), None) if asked.answered && (said == asked.origin || said == "*") => {
                let credentials = parts.headers.get(ACCESS_CONTROL_ALLOW_CREDENTIALS) == Some(&TRUE);
                let allowed = Allowed { anybody: said == "*", credentials };
                if known != Some(allowed) {
                    self.change(asked, Some(allowed));
                }
            }
            (None, refused_by) => {
                let Some(known) = known else { return };
                let failed = match refused_by {
                    // Who is banned, or asked for a name that isn't ours, learns nothing about origins.
                    Some(control) => !matches!(control, "hosts" | "bans"),
                    None => asked.answered && parts.status.is_server_error(),
                };
                if failed {
                    let origin = if known.anybody { ANYBODY } else { asked.origin.clone() };
                    parts.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                    if known.credentials {
                        parts.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
                    }
                    vary(&mut parts.headers);
                } else if refused_by.is_none() && asked.answered && parts.status.is_success() {
                    self.change(asked, None);
                }
            }
            _ => {}
        }
    }

    /// Puts what is allowed into the place of what was.
    fn change(&self, asked: &Asked<'_>, allowed: Option<Allowed>) {
        if asked.origin.len().max(asked.host.len()) > MAX_BYTES {
            return;
        }
        // A copy: the value of a request holds on to the whole of its head.
        let Ok(origin) = HeaderValue::from_bytes(asked.origin.as_bytes()) else { return };
        let _one_at_a_time = self.writing.lock();
        let mut grants: Vec<Grant> = self.grants.load().iter().filter(|known| !known.is_for(asked)).cloned().collect();
        if let Some(allowed) = allowed {
            if grants.len() == MAX_ORIGINS {
                grants.remove(0);
            }
            grants.push(Grant { app: asked.app.cloned(), host: asked.host.into(), origin, allowed });
        }
        self.grants.store(grants.into());
    }
}
