//! Redis or Valkey: what several instances of the gateway share. Guide section 8.
//!
//! It carries rate limits and signals, and nothing whose loss would matter: a server that is away, slow or empty after a
//! restart costs accuracy for a while and no safety. Three rules hold for everything that asks it:
//!
//! - No request waits longer than `redis.timeout`, the making of a connection and a second try included.
//! - Who is away is not asked: the first call without an answer in time marks the connection, and until a new one has
//!   answered (tried in the background, at least once a second) every caller is told so at once.
//! - What then happens is the caller's, by a key of the policy (`when_away`).
//!
//! Each I/O thread has a connection of its own, which all of its requests share, so that an answer wakes no other core.
//! One primary is spoken to, directly or behind an address that follows it; not Redis Cluster, since the limits of one
//! request lie in different slots.

mod carry;
mod config;
mod health;

#[cfg(feature = "redis")]
mod client;
#[cfg(feature = "redis")]
mod link;
#[cfg(feature = "redis")]
mod nudge;

#[cfg(not(feature = "redis"))]
mod absent;

use std::sync::Arc;

use palisade_policy::Problems;

use crate::policy::Env;
use crate::server::startup::Occasion;

#[cfg(not(feature = "redis"))]
pub use absent::{Listener, Redis};
pub use carry::carry;
#[cfg(feature = "redis")]
pub use client::Redis;
pub use config::{At, Config, OpenUrl, Place, Url};
pub use health::{Health, State};
#[cfg(feature = "redis")]
pub use nudge::Listener;

/// Why there was no answer, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away(Arc<str>);

impl Away {
    pub(crate) fn new(why: impl Into<Arc<str>>) -> Self {
        Self(why.into())
    }

    /// In words.
    pub fn why(&self) -> &str {
        &self.0
    }
}

/// A script that is kept by the server under its hash.
#[derive(Debug)]
pub struct Script {
    /// Lua 5.1.
    pub text: &'static str,
    /// SHA-1 of the text, in hexadecimal.
    pub hash: Box<str>,
}

impl Script {
    /// A script of this text.
    pub fn new(text: &'static str) -> Self {
        // The server's name for it, not a matter of security.
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, hash: data_encoding::HEXLOWER.encode(hash.as_ref()).into() }
    }
}

/// The client that `[redis]` describes, the same as before where nothing about it changed. Connects to nothing yet.
pub(crate) fn client(config: &Config, env: &Env, occasion: Occasion, problems: &mut Problems) -> Option<Redis> {
    let kept = env.state.get("redis", parking_lot::Mutex::<Option<Redis>>::default);
    let mut kept = kept.lock();
    // While a switch is put in force what was read before stays: secrets and files have been judged, and may be gone.
    if occasion != Occasion::Switch || kept.is_none() {
        *kept = read(config, env, occasion, kept.as_ref(), problems);
    }
    kept.clone()
}

fn read(
    config: &Config,
    env: &Env,
    occasion: Occasion,
    kept: Option<&Redis>,
    problems: &mut Problems,
) -> Option<Redis> {
    let url = match config.url.as_ref()? {
        Place::Plain(url) => url.0.clone(),
        Place::Secret(named) => match env.secrets.get(&named.secret) {
            Ok(value) => match value.expose().parse() {
                Ok(url) => url,
                Err(error) => {
                    problems.error("redis.url", format!("the secret `{}`: {error}", named.secret), "store another one");
                    return None;
                }
            },
            Err(error) => {
                problems.error("redis.url", error.to_string(), "store the secret, or take the section out");
                return None;
            }
        },
    };
    if !env.is_development() && !url.is_private() {
        problems.warn(
            "redis.url",
            "what is said to this server crosses a network in the clear",
            "reach it by `rediss://`, or by a network that only these machines are on",
        );
    }
    Redis::new(config, url, env, occasion, kept, problems)
}
