//! What follows from one login.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time;
use palisade_base::Timestamp;

use super::token::RefreshToken;
use super::{CannotRefresh, GRACE, GRACE_TIMES};
use crate::opaque::{hash, random};

/// What a family is bound to for its whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The client that it was given to; empty for Palisade's own password login.
    pub client: String,
    /// Whether that client proves who it is. Such a one can be asked to try again, so it gets no grace.
    pub confidential: bool,
    /// The thumbprint of the client's DPoP key (RFC 9449).
    pub dpop: Option<[u8; 32]>,
}

impl Binding {
    const fn has_grace(&self) -> bool {
        !self.confidential && self.dpop.is_none()
    }
}

/// Where a request came from, as far as it is compared: equal places get grace. Kept as a hash only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place([u8; 32]);

impl Place {
    /// The address (of IPv6, its /64) and the class of TLS stack and user agent, in whatever form the caller names it.
    pub fn new(address: IpAddr, class: &str) -> Self {
        let network: [u8; 16] = match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => (address.to_bits() & !u128::from(u64::MAX)).to_be_bytes(),
        };
        Self(hash("palisade refresh place v1", &[&network, class.as_bytes()]))
    }

    /// As it is stored.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// How long refreshing goes on.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// From one refresh to the next, at most.
    pub idle: Duration,
    /// From the login, at most.
    pub absolute: Duration,
}

/// Why a family ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Logged out or revoked by whom it belongs to.
    Logout,
    /// The password was changed or reset.
    Password,
    /// The account was disabled or deleted, or an administrator ended it.
    Disabled,
    /// A token came that should not have.
    Replay(Replay),
}

/// How a token came that should not have. Each is a security event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replay {
    /// A spent token, after the time of grace or where there is none.
    Spent,
    /// A spent token whose successor had been used.
    SuccessorUsed,
    /// A spent token, in time, from another address or another kind of client.
    OtherPlace,
    /// Any token, for another client or with another DPoP key.
    OtherClient,
    /// A spent token, in time and place, more than 64 times.
    TooOften,
    /// Any token of a family that had ended.
    AfterEnd,
}

/// A chain of refresh tokens, of which one is current. See the [module](super).
#[derive(Clone)]
pub struct Family {
    id: [u8; 16],
    version: u64,
    /// Makes the tags of its tokens. In a dump, it lets a thief end this family, and no more.
    key: [u8; 32],
    binding: Binding,
    generation: u32,
    current: [u8; 32],
    issued_at: Timestamp,
    ends_at: Timestamp,
    idle: Duration,
    spent: Option<Spent>,
    ended: Option<End>,
}

/// The token before the current one.
#[derive(Clone)]
struct Spent {
    hash: [u8; 32],
    at: Timestamp,
    place: Place,
    times: u32,
    /// The current token, for whoever holds the spent one.
    sealed: Vec<u8>,
}

/// A verdict. Where there is a `family`, it replaces the stored one before anything is answered.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// Here is the next token. `again`: the same one as before, within grace.
    Refreshed {
        /// To store.
        family: Family,
        /// For the client.
        token: RefreshToken,
        /// Whether it was given before.
        again: bool,
    },
    /// The family has ended, now or before. Raise an event; end its access tokens too.
    Replayed {
        /// To store; nothing changes where it had ended before.
        family: Option<Family>,
        /// For the event.
        how: Replay,
    },
    /// The right token, too late. No event.
    Expired,
    /// Not a token of this family: made up, damaged, or of a state that a backup undid. No event, and nothing changes.
    Unknown,
}

impl Family {
    /// A new family, its first token, and what to store.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn start(binding: Binding, life: Lifetimes, now: Timestamp) -> Result<(Self, RefreshToken), CannotRefresh> {
        let (id, key) = (random()?, random()?);
        let token = RefreshToken::generate(id, 0, &key)?;
        let family = Self {
            id,
            version: 0,
            key,
            binding,
            generation: 0,
            current: token.hash(),
            issued_at: now,
            ends_at: now.plus(life.absolute),
            idle: life.idle,
            spent: None,
            ended: None,
        };
        Ok((family, token))
    }

    /// Its id: [`RefreshToken::family`] of each of its tokens.
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Goes up with every change: what a store compares before it replaces.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Why it ended; `None` while it goes on.
    pub const fn ended(&self) -> Option<End> {
        self.ended
    }

    /// From then on the store may forget it: nothing it ever issued is within its life.
    pub fn forget_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Judges a token that somebody presents, as the client `binding` says, from a place.
    ///
    /// # Errors
    /// When the system gives no random bytes, or the cryptographic library fails. Nothing changed then.
    pub fn present(
        &self,
        token: &RefreshToken,
        binding: &Binding,
        place: Place,
        now: Timestamp,
    ) -> Result<Outcome, CannotRefresh> {
        if token.family() != self.id || !token.is_genuine(&self.key) {
            return Ok(Outcome::Unknown);
        }
        let hash = token.hash();
        let is = |known: &[u8; 32]| constant_time::verify_slices_are_equal(known, &hash).is_ok();
        if token.generation() > self.generation || (token.generation() == self.generation && !is(&self.current)) {
            return Ok(Outcome::Unknown);
        }
        if self.ended.is_some() {
            return Ok(Outcome::Replayed { family: None, how: Replay::AfterEnd });
        }
        let end = |how| {
            let mut family = self.clone();
            family.end(End::Replay(how));
            Ok(Outcome::Replayed { family: Some(family), how })
        };
        // A client that was given a secret or a key and now comes without is another client as well.
        if *binding != self.binding {
            return end(Replay::OtherClient);
        }
        if token.generation() == self.generation {
            return if now >= self.issued_at.plus(self.idle) || now >= self.ends_at {
                Ok(Outcome::Expired)
            } else {
                self.rotate(token, place, now)
            };
        }
        let Some(spent) = self.spent.as_ref().filter(|spent| is(&spent.hash)) else {
            return end(if token.generation() + 1 == self.generation { Replay::Spent } else { Replay::SuccessorUsed });
        };
        if !self.binding.has_grace() || now >= spent.at.plus(GRACE) || now >= self.ends_at {
            return end(Replay::Spent);
        }
        if spent.place != place {
            return end(Replay::OtherPlace);
        }
        if spent.times >= GRACE_TIMES {
            return end(Replay::TooOften);
        }
        let Some(successor) = token.open(&spent.sealed) else { return Err(CannotRefresh::Library) };
        let mut family = self.clone();
        family.version += 1;
        if let Some(spent) = &mut family.spent {
            spent.times += 1;
        }
        Ok(Outcome::Refreshed { family, token: successor, again: true })
    }

    fn rotate(&self, token: &RefreshToken, place: Place, now: Timestamp) -> Result<Outcome, CannotRefresh> {
        // 2³² refreshes of one login: not in anybody's lifetime, but a generation must never come twice.
        let Some(generation) = self.generation.checked_add(1) else { return Ok(Outcome::Expired) };
        let successor = RefreshToken::generate(self.id, generation, &self.key)?;
        let spent = match self.binding.has_grace() {
            true => Some(Spent { hash: token.hash(), at: now, place, times: 0, sealed: token.seal(&successor)? }),
            false => None,
        };
        let family = Self {
            version: self.version + 1,
            generation,
            current: successor.hash(),
            issued_at: now,
            spent,
            ..self.clone()
        };
        Ok(Outcome::Refreshed { family, token: successor, again: false })
    }

    /// Whether it issued a token, ever: what revoking asks for. A made-up token ends nothing.
    pub fn issued(&self, token: &RefreshToken) -> bool {
        token.family() == self.id && token.is_genuine(&self.key)
    }

    /// Ends it. The first reason stays.
    pub fn end(&mut self, why: End) {
        self.version += 1;
        self.ended.get_or_insert(why);
        self.spent = None;
    }

    /// Drops the encrypted successor once grace is over; says whether there was one to drop, and the family is to be
    /// stored again. For the store's sweep: what is not there cannot be stolen, even together with the spent token.
    pub fn tidy(&mut self, now: Timestamp) -> bool {
        let over = self.spent.as_ref().is_some_and(|spent| now >= spent.at.plus(GRACE));
        if over {
            self.spent = None;
            self.version += 1;
        }
        over
    }
}

/// The id, the state, and no key.
impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Family");
        debug.field("id", &data_encoding::HEXLOWER.encode(&self.id)).field("version", &self.version);
        debug.field("generation", &self.generation).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// A family as the store keeps it: its secrets are one blob, for there is nothing to search in them.
mod record {
    use super::*;

    /// The layout, so that a later one can tell.
    const VERSION: u8 = 1;

    impl Family {
        /// As bytes to store.
        pub fn to_bytes(&self) -> Vec<u8> {
            let mut out = vec![VERSION];
            out.extend(self.id);
            out.extend(self.version.to_be_bytes());
            out.extend(self.key);
            put(&mut out, self.binding.client.as_bytes());
            out.push(self.binding.confidential.into());
            put(&mut out, self.binding.dpop.as_ref().map_or(&[], |dpop| dpop.as_slice()));
            out.extend(self.generation.to_be_bytes());
            out.extend(self.current);
            out.extend(self.issued_at.0.to_be_bytes());
            out.extend(self.ends_at.0.to_be_bytes());
            out.extend(u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
            match &self.spent {
                None => out.push(0),
                Some(spent) => {
                    out.push(1);
                    out.extend(spent.hash);
                    out.extend(spent.at.0.to_be_bytes());
                    out.extend(spent.place.0);
                    out.extend(spent.times.to_be_bytes());
                    put(&mut out, &spent.sealed);
                }
            }
            out.push(match self.ended {
                None => 0,
                Some(End::Logout) => 1,
                Some(End::Password) => 2,
                Some(End::Disabled) => 3,
                Some(End::Replay(how)) => 16 + REPLAYS.iter().position(|known| *known == how).unwrap_or(0) as u8,
            });
            out
        }

        /// What [`to_bytes`](Self::to_bytes) gave; `None` when it is anything else.
        pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
            let mut from = bytes;
            if take::<1>(&mut from)? != [VERSION] {
                return None;
            }
            let family = Self {
                id: take(&mut from)?,
                version: u64::from_be_bytes(take(&mut from)?),
                key: take(&mut from)?,
                binding: Binding {
                    client: String::from_utf8(get(&mut from)?.to_vec()).ok()?,
                    confidential: flag(&mut from)?,
                    dpop: match get(&mut from)? {
                        [] => None,
                        dpop => Some(dpop.try_into().ok()?),
                    },
                },
                generation: u32::from_be_bytes(take(&mut from)?),
                current: take(&mut from)?,
                issued_at: Timestamp(i64::from_be_bytes(take(&mut from)?)),
                ends_at: Timestamp(i64::from_be_bytes(take(&mut from)?)),
                idle: Duration::from_millis(u64::from_be_bytes(take(&mut from)?)),
                spent: match flag(&mut from)? {
                    false => None,
                    true => Some(Spent {
                        hash: take(&mut from)?,
                        at: Timestamp(i64::from_be_bytes(take(&mut from)?)),
                        place: Place(take(&mut from)?),
                        times: u32::from_be_bytes(take(&mut from)?),
                        sealed: get(&mut from)?.to_vec(),
                    }),
                },
                ended: match take::<1>(&mut from)? {
                    [0] => None,
                    [1] => Some(End::Logout),
                    [2] => Some(End::Password),
                    [3] => Some(End::Disabled),
                    [other] => Some(End::Replay(*REPLAYS.get(usize::from(other.checked_sub(16)?))?)),
                },
            };
            from.is_empty().then_some(family)
        }
    }

    /// In the order of their numbers, which never change.
    const REPLAYS: [Replay; 6] = [
        Replay::Spent,
        Replay::SuccessorUsed,
        Replay::OtherPlace,
        Replay::OtherClient,
        Replay::TooOften,
        Replay::AfterEnd,
    ];

    fn put(out: &mut Vec<u8>, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        out.extend(length.to_be_bytes());
        out.extend(&bytes[..usize::from(length)]);
    }

    fn get<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(take(from)?);
        let (bytes, rest) = from.split_at_checked(length.into())?;
        *from = rest;
        Some(bytes)
    }

    fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
        let (bytes, rest) = from.split_first_chunk::<N>()?;
        *from = rest;
        Some(*bytes)
    }

    fn flag(from: &mut &[u8]) -> Option<bool> {
        match take::<1>(from)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}
