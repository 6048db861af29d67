//! What an application that answers for itself has allowed to whom, so that its failures can be read too.
//!
//! Frameworks put their CORS headers on what their handlers return. What fails above them (FastAPI's answer to an
//! exception that nobody caught), and what a gateway refuses, has none, and a page sees a network error instead of the
//! status. The memory is of the last answer of each origin: an origin that is no longer allowed is forgotten at once.

use arc_swap::ArcSwap;
use http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue};
use http::response;
use parking_lot::Mutex;

use super::{TRUE, vary};
use crate::refusal::Code;

/// Origins that are remembered; the oldest leaves. An application has a handful of own pages; one that allows every
/// origin fills this with what passes by, and loses nothing but the errors of rare ones.
const MAX_ORIGINS: usize = 64;
/// A longer one is not remembered.
const MAX_BYTES: usize = 300;

/// One origin, and what it was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    origin: HeaderValue,
    /// The origin itself, or `*`.
    allowed: HeaderValue,
    credentials: bool,
}

/// All of them. Read without a lock; written only when something has changed.
#[derive(Debug, Default)]
pub(super) struct Granted {
    grants: ArcSwap<Vec<Grant>>,
    writing: Mutex<()>,
}

impl Granted {
    /// Learns from an answer of the application, or adds to one that failed.
    pub(super) fn response(&self, origin: &HeaderValue, parts: &mut response::Parts) {
        let refused_by = parts.extensions.get::<&'static Code>().map(|code| code.control());
        let grants = self.grants.load();
        let known = grants.iter().find(|grant| grant.origin == *origin);
        match (parts.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN), refused_by) {
            (Some(allowed), None) if allowed == origin || allowed == "*" => {
                let credentials = parts.headers.get(ACCESS_CONTROL_ALLOW_CREDENTIALS) == Some(&TRUE);
                if !known.is_some_and(|known| known.allowed == allowed && known.credentials == credentials) {
                    let (origin, allowed) = (origin.clone(), allowed.clone());
                    self.change(&origin, Some(Grant { origin: origin.clone(), allowed, credentials }));
                }
            }
            (None, refused_by) => {
                let Some(known) = known else { return };
                let failed = match refused_by {
                    // Who is banned, or asked for a name that isn't ours, learns nothing about origins.
                    Some(control) => !matches!(control, "hosts" | "bans"),
                    None => parts.status.is_server_error(),
                };
                if failed {
                    parts.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, known.allowed.clone());
                    if known.credentials {
                        parts.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
                    }
                    vary(&mut parts.headers);
                } else if refused_by.is_none() && parts.status.is_success() {
                    self.change(origin, None);
                }
            }
            _ => {}
        }
    }

    /// Puts a grant into the place of the origin's last one.
    fn change(&self, origin: &HeaderValue, grant: Option<Grant>) {
        if origin.len() > MAX_BYTES {
            return;
        }
        let _one_at_a_time = self.writing.lock();
        let mut grants: Vec<Grant> =
            self.grants.load().iter().filter(|known| known.origin != origin).cloned().collect();
        if let Some(grant) = grant {
            if grants.len() == MAX_ORIGINS {
                grants.remove(0);
            }
            grants.push(grant);
        }
        self.grants.store(grants.into());
    }
}
