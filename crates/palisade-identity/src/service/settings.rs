//! What the policy says about identity, in the types of this crate.

use std::sync::Arc;
use std::time::Duration;

use super::issuers::Issuer;

/// Names, audiences and lifetimes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `iss` of every token: `auth.issuer`.
    pub issuer: String,
    /// `aud` of access tokens for the API itself; the issuer by default.
    pub audience: Vec<String>,
    /// How long what is.
    pub lifetimes: Lifetimes,
    /// The second part of an API key, for people: `live`, `dev`.
    pub environment: String,
    /// Whose tokens are accepted besides our own.
    pub issuers: Arc<[Issuer]>,
}

/// How long what lives.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// An access token.
    pub access_token: Duration,
    /// A refresh token, from one use to the next.
    pub refresh_idle: Duration,
    /// A family of refresh tokens, from its login on.
    pub refresh_absolute: Duration,
    /// A session without use.
    pub session_idle: Duration,
    /// A session in any case.
    pub session_absolute: Duration,
    /// A session of somebody who wants to be remembered: idle and absolute alike.
    pub session_remembered: Duration,
    /// How long a replaced API key goes on beside its successor.
    pub key_overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            access_token: Duration::from_secs(15 * 60),
            refresh_idle: 7 * DAY,
            refresh_absolute: 90 * DAY,
            session_idle: Duration::from_secs(30 * 60),
            session_absolute: DAY / 2,
            session_remembered: 30 * DAY,
            key_overlap: DAY,
        }
    }
}

impl Settings {
    /// The defaults under an issuer.
    pub fn new(issuer: &str) -> Self {
        Self {
            issuer: issuer.into(),
            audience: vec![issuer.into()],
            lifetimes: Lifetimes::default(),
            environment: "live".into(),
            issuers: Arc::default(),
        }
    }
}
