//! Limits that several instances count together: the same arithmetic as in process, in one script on Redis.
//!
//! A request takes from all of its buckets or from none, in one round trip. What the script answers is how much each
//! bucket lacked; everything else (what is left, how long to wait) is computed here from that by the same [`Quota`].
//!
//! Names of keys are hashes: whoever reads the server learns no header's value, and nobody makes a key longer or finds two
//! that are one. A key expires when its bucket is full, so that those of idle clients are gone.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use data_encoding::BASE64URL_NOPAD;

use super::config::WhenAway;
use super::gcra::{Outcome, Quota};
use super::{Limit, Subject};
use crate::observe::metrics::Metrics;
use crate::redis::{Away, Redis, Script};

pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// What stands between the prefix of `[redis]` and the hash.
const KIND: &[u8] = b"rl:";
/// Of SHA-256, 128 bits: nobody finds two that are one.
const HASH: usize = 16;

/// The store that instances share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) when_away: WhenAway,
    metrics: Arc<Metrics>,
}

/// One bucket that a request is counted in.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Vec<u8>,
    pub(super) quota: Quota,
    /// Which limit of the plan this is.
    pub(super) limit: u8,
}

impl Shared {
    pub(super) fn new(redis: Redis, when_away: WhenAway, metrics: Arc<Metrics>) -> Self {
        Self { redis, when_away, metrics }
    }

    /// The key of a limit and of who is counted.
    pub(super) fn key(&self, limit: &Limit, subject: &Subject<'_>) -> Vec<u8> {
        let mut digest = Digest::new(&SHA256);
        digest.update(&limit.name);
        match subject {
            Subject::V4(address) => {
                digest.update(b"4");
                digest.update(&address.to_be_bytes());
            }
            Subject::V6(network) => {
                digest.update(b"6");
                digest.update(&network.to_be_bytes());
            }
            Subject::V6Wide(network) => {
                digest.update(b"w");
                digest.update(&network.to_be_bytes());
            }
            Subject::Value(value, _) => {
                digest.update(b"h");
                digest.update(value);
            }
        }
        let hash = digest.finish();
        let prefix = self.redis.prefix().as_bytes();
        let mut key = Vec::with_capacity(prefix.len() + KIND.len() + BASE64URL_NOPAD.encode_len(HASH));
        key.extend_from_slice(prefix);
        key.extend_from_slice(KIND);
        let from = key.len();
        key.resize(from + BASE64URL_NOPAD.encode_len(HASH), 0);
        BASE64URL_NOPAD.encode_mut(&hash.as_ref()[..HASH], &mut key[from..]);
        key
    }

    /// Takes `cost` units from each of the buckets, or from none. Says which has least left, or which refused.
    pub(super) async fn take(&self, places: &[Place], cost: u32) -> Result<Option<(u8, Outcome)>, Away> {
        let mut arguments = Vec::with_capacity(places.len() * 4);
        for place in places {
            for nanos in [place.quota.worth(cost), place.quota.tolerance()] {
                arguments.extend([nanos / 1000, nanos % 1000]);
            }
        }
        let keys: Vec<&[u8]> = places.iter().map(|place| &*place.key).collect();
        let answer = self.redis.script(&TAKE, &keys, &arguments).await?;
        decided(places, cost, &answer).ok_or_else(|| Away::new("an answer of another script"))
    }

    /// Counts a request that was decided without the store.
    pub(super) fn without(&self) {
        self.redis.health().without();
        self.metrics.decided_without("rate_limit", "redis", self.when_away.as_str());
    }
}

/// What a script's answer means. `None`: it is no answer to this.
pub(super) fn decided(places: &[Place], cost: u32, answer: &[i64]) -> Option<Option<(u8, Outcome)>> {
    let (passed, lacks) = answer.split_first()?;
    if lacks.len() != places.len() * 2 {
        return None;
    }
    let mut least: Option<(u8, Outcome)> = None;
    let mut refused: Option<(u8, Outcome)> = None;
    for (place, lacks) in places.iter().zip(lacks.chunks_exact(2)) {
        let (micros, nanos) = (u64::try_from(lacks[0]).ok()?, u64::try_from(lacks[1]).ok()?);
        let outcome = place.quota.take(micros.checked_mul(1000)?.checked_add(nanos)?, cost, 0);
        match outcome.store {
            // Of several that refuse, the one that does longest: whoever comes back then is not refused again.
            None if refused.is_none_or(|(_, other)| outcome.wait > other.wait) => {
                refused = Some((place.limit, outcome));
            }
            Some(_) if least.is_none_or(|(_, other)| outcome.left < other.left) => {
                least = Some((place.limit, outcome));
            }
            _ => {}
        }
    }
    (refused.is_some() == (*passed == 0)).then_some(refused.or(least))
}
