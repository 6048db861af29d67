//! How often somebody may guess: counted before the guess is checked, over all doors together.
//!
//! An account has one counter whatever it is called by (its id, or the hash of a name that nobody has), and each address
//! has one (of IPv6 its /64, and its /48 with more room). Accounts on devices that they were used on before have a
//! counter of their own, which strangers cannot fill; the address does not count there.

use std::net::IpAddr;
use std::time::Duration;

use palisade_base::Timestamp;
use palisade_store::{Store, Uuid, attempts};

use super::error::Trouble;
use crate::opaque::hash;

/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Guesses of one account in a window.
pub const PER_ACCOUNT: i32 = 10;
/// Of them, those that are answered at once.
const FREE: i32 = 5;
/// Guesses from one address (of IPv6, its /64) in a window.
pub const PER_ADDRESS: i32 = 100;
/// Guesses from one /48 in a window.
pub const PER_SITE: i32 = 400;

/// Whose secret is guessed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    User(Uuid),
    Nobody(&'a str),
}

/// The counters of one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    account: [u8; 32],
    address: Option<[u8; 32]>,
    site: Option<[u8; 32]>,
}

/// What the counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// The secret is checked, after a while.
    Yes {
        /// How long the answer takes longer.
        after: Duration,
    },
    /// It is not checked, and the answer is that to a wrong one. `just`: this attempt was the first of those.
    Locked {
        just: bool,
        /// How long the answer takes longer.
        after: Duration,
    },
    /// The address has to wait. This says nothing of the account.
    Wait(Duration),
}

impl Counters {
    pub(super) fn new(whose: Whose<'_>, address: IpAddr, known: bool) -> Self {
        let account = match whose {
            Whose::User(id) => of_user(id, known),
            Whose::Nobody(name) => hash("palisade attempts v1", &[b"name", door(known), name.as_bytes()]),
        };
        if known {
            return Self { account, address: None, site: None };
        }
        let (near, far) = networks(address);
        let of = |kind: &[u8], network: &[u8]| hash("palisade attempts v1", &[kind, network]);
        Self { account, address: Some(of(b"address", &near)), site: far.map(|far| of(b"site", &far)) }
    }

    /// Counts the attempt. Committed before anything is checked: of any number of simultaneous guesses, only the allowed
    /// ones are checked.
    pub(super) async fn count(&self, store: &Store, now: Timestamp) -> Result<Allowed, Trouble> {
        let window_ms = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
        let keys: Vec<[u8; 32]> = [Some(self.account), self.address, self.site].into_iter().flatten().collect();
        let tx = store.begin().await?;
        let counted = attempts::count(&tx, &keys, now.0, window_ms).await?;
        let _ = tx.commit().await?;
        let of = |key: Option<[u8; 32]>| key.and_then(|key| counted.iter().find(|row| row.key == key));
        for (row, most) in [(of(self.address), PER_ADDRESS), (of(self.site), PER_SITE)] {
            if let Some(row) = row.filter(|row| row.count > most) {
                let left = row.since.saturating_add(window_ms).saturating_sub(now.0);
                return Ok(Allowed::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(1000).max(1000))));
            }
        }
        let count = of(Some(self.account)).map_or(i32::MAX, |row| row.count);
        let after = slower(count);
        let locked = count > PER_ACCOUNT;
        Ok(if locked { Allowed::Locked { just: count == PER_ACCOUNT + 1, after } } else { Allowed::Yes { after } })
    }

    /// The secret was right: the account's counter starts again, and the address gets this attempt back, not those
    /// before it, or an account of the attacker's own would clear the way for more guesses.
    pub(super) async fn was_right(&self, tx: &palisade_store::Tx) -> Result<(), Trouble> {
        let mut keys: Vec<[u8; 32]> = [Some(self.account), self.address, self.site].into_iter().flatten().collect();
        // In the order in which they are counted: two transactions never wait for each other in a circle.
        keys.sort_unstable();
        for key in keys {
            if key == self.account {
                attempts::forget(tx, &key).await?;
            } else {
                attempts::refund(tx, &key).await?;
            }
        }
        Ok(())
    }
}

/// From the sixth attempt on each takes twice as long as the one before, up to a second and a half: for a person who
/// mistypes that is nothing. Nobody's names are slower in the same way.
fn slower(count: i32) -> Duration {
    let doublings = u32::try_from(count.saturating_sub(FREE + 1)).ok().filter(|_| count > FREE);
    doublings.map_or(Duration::ZERO, |doublings| Duration::from_millis(100 << doublings.min(4)))
}

const fn door(known: bool) -> &'static [u8] {
    if known { b"known" } else { b"stranger" }
}

fn of_user(id: Uuid, known: bool) -> [u8; 32] {
    hash("palisade attempts v1", &[b"user", door(known), id.as_bytes()])
}

/// The counters of an account: of strangers, and of its known devices.
pub(super) fn keys_of(user: Uuid) -> [[u8; 32]; 2] {
    [of_user(user, false), of_user(user, true)]
}

/// The networks that count as one address: IPv4 as it is, of IPv6 the /64 and the /48.
pub(super) fn networks(address: IpAddr) -> (Vec<u8>, Option<Vec<u8>>) {
    match address.to_canonical() {
        IpAddr::V4(address) => (address.octets().to_vec(), None),
        IpAddr::V6(address) => {
            let octets = address.octets();
            (octets[..8].to_vec(), Some(octets[..6].to_vec()))
        }
    }
}

/// A number for the pool of hashes, which is fair by address and account.
pub(super) fn number(text: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash("palisade pool v1", &[text]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

pub(super) fn address_number(address: IpAddr) -> u64 {
    number(&networks(address).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_grow_slower() {
        let ms: Vec<u128> = [i32::MIN, 1, 5, 6, 7, 8, 9, 10, 11, 1000, i32::MAX].map(|n| slower(n).as_millis()).into();
        assert_eq!(ms, [0, 0, 0, 100, 200, 400, 800, 1600, 1600, 1600, 1600]);
    }

    #[test]
    fn what_counts_as_one() {
        let counters = |address: &str, known| Counters::new(Whose::Nobody("x"), address.parse().unwrap(), known);
        let (a, b, c) =
            (counters("2001:db8:1:2::1", false), counters("2001:db8:1:2::2", false), counters("2001:db8:1:3::", false));
        assert_eq!((a.address, a.site), (b.address, b.site));
        assert_ne!(a.address, c.address);
        assert_eq!(a.site, c.site);
        assert_ne!(c.site, counters("2001:db8:2:3::", false).site);
        assert_eq!(counters("::ffff:1.2.3.4", false).address, counters("1.2.3.4", false).address);
        assert_ne!(counters("1.2.3.5", false).address, counters("1.2.3.4", false).address);
        let known = counters("1.2.3.4", true);
        assert_eq!((known.address, known.site), (None, None));
        assert_ne!(known.account, a.account);
        let (id, text) = (Uuid::nil(), Uuid::nil().to_string());
        let address = "1.2.3.4".parse().unwrap();
        let user = Counters::new(Whose::User(id), address, false);
        assert_ne!(user.account, Counters::new(Whose::Nobody(&text), address, false).account);
    }
}
