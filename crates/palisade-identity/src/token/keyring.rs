//! Signing keys over time: published before they sign, kept until their last token has expired.

use std::sync::Arc;
use std::time::Duration;

use palisade_base::Timestamp;
use serde_json::{Value, json};

use super::jwk::VerifyingKey;
use super::keys::{BadKeys, Keys};
use super::sign::SigningKey;

/// The keys of one purpose. A value: whoever stores it replaces it as a whole, so that all instances go through the same
/// states at the same times.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// In the order in which they sign.
    keys: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Arc<SigningKey>,
    signs_from: Timestamp,
    /// From then on nothing that it signed is valid any more. `None`: not replaced yet.
    gone_at: Option<Timestamp>,
}

impl Keyring {
    /// A ring of one key that signs from now on.
    pub fn new(key: SigningKey, now: Timestamp) -> Self {
        Self { keys: vec![Entry { key: Arc::new(key), signs_from: now, gone_at: None }] }
    }

    /// A ring of these keys, in the order in which they sign: each with the time from which on it does, and with the
    /// time when nothing that it signed is valid any more.
    pub fn of(keys: impl IntoIterator<Item = (SigningKey, Timestamp, Option<Timestamp>)>) -> Self {
        let entry = |(key, signs_from, gone_at)| Entry { key: Arc::new(key), signs_from, gone_at };
        Self { keys: keys.into_iter().map(entry).collect() }
    }

    /// Brings in a new key: published at once, signing after `lead`. The one before is kept for `longest_life` after its
    /// last signature, which has to hold the verifiers' leeway as well.
    ///
    /// A `lead` of at least the time in which every instance and every reader of the JWKS learns of the key makes a
    /// rotation that no request notices. Zero is for a key that was stolen; [`revoke`](Self::revoke) that one too.
    pub fn rotate(&mut self, key: SigningKey, now: Timestamp, lead: Duration, longest_life: Duration) {
        let signs_from = now.plus(lead);
        self.keys.retain(|entry| entry.gone_at.is_none_or(|gone| gone > now));
        for entry in &mut self.keys {
            // A key that waited for its turn and is overtaken never signs.
            entry.gone_at.get_or_insert(signs_from.plus(longest_life));
        }
        self.keys.retain(|entry| entry.signs_from < signs_from);
        self.keys.push(Entry { key: Arc::new(key), signs_from, gone_at: None });
    }

    /// Drops a key at once, with all tokens that it signed. Nothing happens when it is the last one: rotate first.
    pub fn revoke(&mut self, id: &str) {
        if self.keys.len() > 1 {
            self.keys.retain(|entry| entry.key.verifying_key().id() != Some(id));
        }
    }

    /// The key that signs now: the youngest whose time has come.
    pub fn signer(&self, now: Timestamp) -> Option<Arc<SigningKey>> {
        let due = self.keys.iter().rev().find(|entry| entry.signs_from <= now);
        due.or(self.keys.first()).map(|entry| entry.key.clone())
    }

    /// The keys whose signatures are accepted now, future ones among them: another instance's clock may be ahead.
    ///
    /// # Errors
    /// When two keys have one id, or secrets are among public keys.
    pub fn verifying(&self, now: Timestamp) -> Result<Keys, BadKeys> {
        Keys::new(self.current(now))
    }

    /// The JWK set to publish. Shared secrets are never in it.
    pub fn jwk_set(&self, now: Timestamp) -> Value {
        json!({ "keys": self.current(now).filter_map(|key| key.to_jwk()).collect::<Vec<_>>() })
    }

    fn current(&self, now: Timestamp) -> impl Iterator<Item = VerifyingKey> {
        self.keys.iter().filter(move |entry| entry.gone_at.is_none_or(|gone| gone > now)).map(|e| e.key.verifying_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Algorithm, Claims, kind};

    #[test]
    fn no_token_is_lost_in_a_rotation() {
        let make = || SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let (lead, life, lifetime) = (60, 930, 900);
        let mut ring = Keyring::new(make(), Timestamp(0));
        let mut alive: Vec<(i64, String)> = Vec::new();
        for second in 0..6000_i64 {
            let now = Timestamp(second * 1000);
            if second % 1500 == 700 {
                ring.rotate(make(), now, Duration::from_secs(lead), Duration::from_secs(life));
            }
            if second % 30 == 0 {
                let mut claims = Claims::new("i", "s", ["a"]);
                claims.expires_at = Some(second + lifetime);
                let token = ring.signer(now).expect("one").sign(kind::ACCESS, &claims).expect("signed");
                alive.push((second + lifetime, token.expose().clone()));
                // What was published `lead` seconds ago already knows this key: `verifying` of then.
                let keys = ring.verifying(now).expect("keys");
                alive.retain(|(end, _)| *end > second);
                assert!(alive.iter().all(|(_, token)| keys.verify(token).is_ok()), "at {second}");
                assert!(keys.iter().count() <= 3, "old keys go");
            }
        }
        assert_eq!(ring.jwk_set(Timestamp(0))["keys"].as_array().map(Vec::len), Some(ring.keys.len()));
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_can_be_revoked() {
        let mut ring = Keyring::new(SigningKey::generate(Algorithm::EdDsa).expect("a key"), Timestamp(0));
        let first = ring.signer(Timestamp(0)).expect("one").verifying_key().id().expect("an id").to_owned();
        ring.revoke(&first);
        assert!(ring.signer(Timestamp(0)).is_some(), "the last one stays");
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let second = key.verifying_key().id().expect("an id").to_owned();
        ring.rotate(key, Timestamp(1000), Duration::from_secs(10), Duration::from_secs(900));
        assert_eq!(ring.verifying(Timestamp(1000)).expect("two").iter().count(), 2);
        assert_eq!(ring.signer(Timestamp(10_999)).expect("one").verifying_key().id(), Some(first.as_str()));
        assert_eq!(ring.signer(Timestamp(11_000)).expect("one").verifying_key().id(), Some(second.as_str()));
        ring.revoke(&first);
        assert_eq!(ring.verifying(Timestamp(11_000)).expect("one").iter().count(), 1);
    }

    #[test]
    fn secrets_are_not_published() {
        let ring = Keyring::new(SigningKey::generate(Algorithm::Hs256).expect("a key"), Timestamp(0));
        assert_eq!(ring.jwk_set(Timestamp(0)), json!({ "keys": [] }));
    }
}
