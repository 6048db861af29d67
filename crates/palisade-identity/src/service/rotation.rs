//! A session gets another secret when its user may do something else than before, or has proved more.
//!
//! Guide section 10. With each secret its session keeps a hash of what the user could do when it was given out. The first
//! request after a change of roles, or of what a role permits, finds another one: it is served, and its answer brings
//! the next secret. Whoever knew the one before, from a log or planted it, is out.
//!
//! # Grace
//! A browser sends several requests at once, and answers get lost. So the secret before goes on for the time that a spent
//! refresh token has, from the same address and kind of browser; as long as the next one was not used, its answers bring
//! that one again. Afterwards, or from elsewhere, it is a copy in somebody's hands: nobody knows whose, so the session
//! ends, and an event is raised.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use palisade_base::Timestamp;
use palisade_store::sessions::{Grace, Turn};
use palisade_store::{Tx, changes, sessions};

use super::Identity;
use super::accounts::{Account, load};
use super::caller::{Caller, NotValid, Unrecognised};
use super::error::Trouble;
use super::login::{Origin, PasswordChecked};
use super::sessions::Known;
use crate::opaque::{Session, hash};
use crate::refresh::GRACE;

/// A session that goes on under another secret.
#[derive(Debug)]
pub struct Rotated {
    /// For the cookie.
    pub secret: Session,
    /// How long the cookie lives; `None`: as long as the browser.
    pub max_age: Option<Duration>,
}

impl Rotated {
    fn new(secret: Session, row: &sessions::Model, now: Timestamp) -> Self {
        let left = Duration::from_millis(u64::try_from(row.ends_at - now.0).unwrap_or(0));
        Self { secret, max_age: row.remember.then_some(left) }
    }
}

/// What roles come to, and what they permit, in one hash. Both are sorted, and their words hold no spaces.
pub(super) fn rights(roles: &[String], permissions: &[String]) -> [u8; 32] {
    hash("palisade rights v1", &[roles.join(" ").as_bytes(), permissions.join(" ").as_bytes()])
}

/// What is to happen to a session whose secret, now or before, somebody brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Stays,
    /// Nothing, but that its secret is known to have arrived.
    Arrived,
    /// It gets another secret.
    Turns,
    /// It has got one, and whoever asks is told again.
    Again,
    /// It has got one, and what its user may do has changed once more: whoever has that one is told the next.
    Overtaken,
    /// It ends.
    Ends,
}

fn judge(row: &sessions::Model, stored: &[u8; 32], rights: &[u8; 32], place: &[u8; 32], now: Timestamp) -> Verdict {
    let same = row.rights.as_deref() == Some(rights);
    if verify_slices_are_equal(&row.hash, stored).is_ok() {
        return match (same, &row.successor) {
            (false, _) => Verdict::Turns,
            (true, Some(_)) => Verdict::Arrived,
            (true, None) => Verdict::Stays,
        };
    }
    if row.spent_until.is_none_or(|until| now.0 >= until) || row.spent_place.as_deref() != Some(place) {
        return Verdict::Ends;
    }
    match (same, &row.successor) {
        (true, Some(_)) => Verdict::Again,
        // Nobody has the secret of now: it is replaced as if it had never been.
        (false, Some(_)) => Verdict::Turns,
        (true, None) => Verdict::Stays,
        (false, None) => Verdict::Overtaken,
    }
}

impl Identity {
    /// Recognises a session by what the database says, all in one step: for all that memory cannot decide, a secret that
    /// is to be replaced, or was.
    pub(super) async fn settle(
        &self,
        secret: &Session,
        origin: &Origin,
    ) -> Result<(Caller, Option<Rotated>), Unrecognised> {
        let (now, stored, place) = (self.now(), secret.stored(), origin.place());
        let tx = self.store().begin().await?;
        let row = sessions::lock(&tx, stored.as_bytes()).await?.ok_or(NotValid::Unknown)?;
        let account = load(&tx, row.user).await?.ok_or(NotValid::Unknown)?;
        let verdict = judge(&row, stored.as_bytes(), &account.rights, place.as_bytes(), now);
        if verdict == Verdict::Ends {
            self.end_in(&tx, row.id, now).await?;
            self.apply(tx.commit().await?);
            return Err(NotValid::Replayed { user: row.user, session: row.id }.into());
        }
        let account = Arc::new(account);
        let caller = self.judge_session(&Known::of(&row), Arc::clone(&account))?;
        let rotated = match verdict {
            Verdict::Overtaken | Verdict::Ends => return Err(NotValid::Unknown.into()),
            Verdict::Stays => None,
            Verdict::Arrived => {
                sessions::arrived(&tx, row.id).await?;
                None
            }
            Verdict::Again => {
                let sealed = row.successor.as_deref().unwrap_or_default();
                let next = secret.open(sealed).ok_or(Trouble::Damaged("successor of a session"))?;
                Some(Rotated::new(next, &row, now))
            }
            Verdict::Turns => {
                let next = Session::generate().map_err(Trouble::from)?;
                let grace = Grace {
                    spent: stored.as_bytes().to_vec(),
                    until: now.plus(GRACE).0,
                    place: place.as_bytes().to_vec(),
                    successor: secret.seal(&next).map_err(Trouble::from)?,
                };
                self.turn_in(&tx, &row, &next, &account, None, Some(grace)).await?;
                Some(Rotated::new(next, &row, now))
            }
        };
        self.apply(tx.commit().await?);
        Ok((caller, rotated))
    }

    /// Gives a session another secret at once, since its user has just proved who they are (`checked`) or may do something
    /// else from now on. Whoever brings the one before is a stranger.
    ///
    /// # Errors
    /// [`Unrecognised`].
    pub async fn rotate_session(
        &self,
        secret: &Session,
        checked: Option<&PasswordChecked>,
    ) -> Result<Rotated, Unrecognised> {
        let now = self.now();
        let next = Session::generate().map_err(Trouble::from)?;
        let tx = self.store().begin().await?;
        let stored = secret.stored();
        let row = sessions::lock(&tx, stored.as_bytes()).await?.ok_or(NotValid::Unknown)?;
        // The one before, within its grace: the request that brings it began before the change.
        let is_current = verify_slices_are_equal(&row.hash, stored.as_bytes()).is_ok();
        if !is_current && row.spent_until.is_none_or(|until| now.0 >= until) {
            return Err(NotValid::Unknown.into());
        }
        if checked.is_some_and(|checked| checked.account.id.0 != row.user) {
            return Err(NotValid::Unknown.into());
        }
        let account = load(&tx, row.user).await?.ok_or(NotValid::Unknown)?;
        self.turn_in(&tx, &row, &next, &account, checked.map(|_| now), None).await?;
        self.apply(tx.commit().await?);
        Ok(Rotated::new(next, &row, now))
    }

    async fn turn_in(
        &self,
        tx: &Tx,
        row: &sessions::Model,
        next: &Session,
        account: &Account,
        authenticated_at: Option<Timestamp>,
        grace: Option<Grace>,
    ) -> Result<(), Unrecognised> {
        let turn = Turn {
            from: row.hash.clone(),
            to: next.stored().as_bytes().to_vec(),
            authenticated_at: authenticated_at.map(|at| at.0),
            rights: account.rights.to_vec(),
            grace,
        };
        // The row is locked, so its secret is the one that was read.
        if !sessions::turn(tx, row.id, turn).await? {
            return Err(NotValid::Unknown.into());
        }
        let now = self.now().0;
        let subject = row.id.to_string();
        tx.announce(changes::New { kind: changes::Kind::Session, subject, at: now, until: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use palisade_store::Uuid;

    use super::*;

    fn row() -> sessions::Model {
        sessions::Model {
            id: Uuid::nil(),
            user: Uuid::nil(),
            hash: vec![1; 32],
            created_at: 0,
            authenticated_at: 0,
            seen_at: 0,
            idle_ms: 0,
            ends_at: 0,
            remember: false,
            address: String::new(),
            device: String::new(),
            rights: Some(vec![9; 32]),
            spent: None,
            spent_until: None,
            spent_place: None,
            successor: None,
        }
    }

    /// Every case of a secret, what its user may do, and what is known of the next one.
    #[test]
    fn verdicts() {
        let turned = sessions::Model {
            spent: Some(vec![2; 32]),
            spent_until: Some(100),
            spent_place: Some(vec![5; 32]),
            successor: Some(vec![7; 80]),
            ..row()
        };
        let arrived = sessions::Model { successor: None, ..turned.clone() };
        let older = sessions::Model { rights: None, ..row() };
        let (now, spent, same, other) = ([1; 32], [2; 32], [9; 32], [8; 32]);
        let (here, there) = ([5; 32], [6; 32]);
        for (what, row, stored, rights, place, at, expected) in [
            ("nothing changed", row(), now, same, there, 0, Verdict::Stays),
            ("another role", row(), now, other, there, 0, Verdict::Turns),
            ("made by an older release", older, now, same, there, 0, Verdict::Turns),
            ("the next one is used first", turned.clone(), now, same, there, 0, Verdict::Arrived),
            ("and again", arrived.clone(), now, same, there, 0, Verdict::Stays),
            ("another change before it was used", turned.clone(), now, other, there, 0, Verdict::Turns),
            ("beside the one that turned it", turned.clone(), spent, same, here, 99, Verdict::Again),
            ("beside it, once the next one arrived", arrived.clone(), spent, same, here, 99, Verdict::Stays),
            ("another change, and the next one was lost", turned.clone(), spent, other, here, 99, Verdict::Turns),
            ("another change, and the next one arrived", arrived.clone(), spent, other, here, 99, Verdict::Overtaken),
            ("too late", turned.clone(), spent, same, here, 100, Verdict::Ends),
            ("too late, and the next one arrived", arrived.clone(), spent, same, here, 100, Verdict::Ends),
            ("elsewhere", turned, spent, same, there, 0, Verdict::Ends),
            ("elsewhere, once the next one arrived", arrived, spent, same, there, 0, Verdict::Ends),
        ] {
            assert_eq!(judge(&row, &stored, &rights, &place, Timestamp(at)), expected, "{what}");
        }
    }

    #[test]
    fn a_right_is_a_role_or_a_permission() {
        let of = |roles: &[&str], permissions: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            rights(&words(roles), &words(permissions))
        };
        let all = [of(&[], &[]), of(&["a"], &[]), of(&[], &["a"]), of(&["a", "b"], &[]), of(&["a"], &["b"])];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| one != other), "{place}");
        }
    }
}
