//! What is revoked before its time: access tokens by `jti`, and all tokens of a session or family.

use std::collections::HashMap;

use palisade_base::Timestamp;
use palisade_store::Uuid;
use parking_lot::RwLock;

/// Entries of each list. About 64 bytes each.
const MOST: usize = 500_000;

#[derive(Default)]
pub(super) struct Revoked {
    tokens: RwLock<List>,
    grants: RwLock<List>,
}

#[derive(Default)]
struct List {
    /// Until when an entry matters: the end of the last token that it concerns.
    until: HashMap<Uuid, i64>,
    /// Tokens that end before are refused, revoked or not. It rises only when the list is full: what is dropped must not
    /// come to life again, and it is the tokens that have least time left which pay.
    floor: i64,
}

impl List {
    fn add(&mut self, id: Uuid, until: i64) {
        if self.until.len() >= MOST && !self.until.contains_key(&id) {
            self.shrink();
        }
        let known = self.until.entry(id).or_insert(until);
        *known = until.max(*known);
    }

    fn shrink(&mut self) {
        let mut ends: Vec<i64> = self.until.values().copied().collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        self.floor = self.floor.max(*median);
        let floor = self.floor;
        self.until.retain(|_, until| *until > floor);
    }
}

impl Revoked {
    pub(super) fn token(&self, id: Uuid, until: i64) {
        self.tokens.write().add(id, until);
    }

    pub(super) fn grant(&self, id: Uuid, until: i64) {
        self.grants.write().add(id, until);
    }

    /// Whether a token that ends at a time (leeway included) is revoked.
    pub(super) fn has(&self, token: Uuid, grant: Option<Uuid>, ends: Timestamp) -> bool {
        let within = |list: &RwLock<List>, id: Uuid| {
            let list = list.read();
            list.until.contains_key(&id) || ends.0 <= list.floor
        };
        within(&self.tokens, token) || grant.is_some_and(|grant| within(&self.grants, grant))
    }

    pub(super) fn sweep(&self, now: Timestamp) {
        for list in [&self.tokens, &self.grants] {
            list.write().until.retain(|_, until| *until > now.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_stays_refused() {
        let revoked = Revoked::default();
        let ids: Vec<Uuid> = (0..=MOST as u128).map(Uuid::from_u128).collect();
        for (end, id) in (0_i64..).zip(&ids) {
            revoked.token(*id, end);
        }
        assert!(revoked.tokens.read().until.len() <= MOST / 2 + 1);
        for (end, id) in (0_i64..).zip(&ids) {
            assert!(revoked.has(*id, None, Timestamp(end)), "{end}");
        }
        assert!(!revoked.has(Uuid::max(), None, Timestamp(MOST as i64)));
        revoked.grant(Uuid::max(), 10);
        assert!(revoked.has(Uuid::max(), Some(Uuid::max()), Timestamp(MOST as i64)));
        revoked.sweep(Timestamp(10));
        assert!(!revoked.has(Uuid::max(), Some(Uuid::max()), Timestamp(MOST as i64)));
    }
}
