//! What the application said itself: one pass over the head of its answer, instead of a look-up for each header it might
//! have sent.

use http::{HeaderMap, HeaderName};

use crate::controls::integrity::remove_where;

/// The kinds of headers an answer came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Theirs(u8);

impl Theirs {
    /// What tells strangers which software answers.
    pub(super) const BANNER: Self = Self(1);
    pub(super) const TRANSPORT_SECURITY: Self = Self(1 << 1);
    /// A policy for the content, enforced or tried, or `X-Frame-Options`.
    pub(super) const POLICY: Self = Self(1 << 2);
    pub(super) const COOKIE: Self = Self(1 << 3);
    pub(super) const LOCATION: Self = Self(1 << 4);
    /// What speaks to caches of content delivery networks only.
    pub(super) const CDN: Self = Self(1 << 5);

    pub(super) fn new(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self(0), |all, name| Self(all.0 | Self::of(name).0))
    }

    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "server" | "x-powered-by" | "x-aspnet-version" | "x-aspnetmvc-version" => Self::BANNER,
            "strict-transport-security" => Self::TRANSPORT_SECURITY,
            "content-security-policy" | "content-security-policy-report-only" | "x-frame-options" => Self::POLICY,
            "set-cookie" => Self::COOKIE,
            "location" => Self::LOCATION,
            "surrogate-control" | "edge-control" | "x-accel-expires" => Self::CDN,
            name if name.ends_with("cdn-cache-control") => Self::CDN,
            _ => Self(0),
        }
    }

    pub(super) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

/// Takes headers of a kind off.
pub(super) fn remove(headers: &mut HeaderMap, kind: Theirs) {
    remove_where(headers, |name| Theirs::of(name) == kind);
}
