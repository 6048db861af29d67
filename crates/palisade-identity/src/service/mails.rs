//! How much mail strangers may cause: counted in the database, so that it holds for all instances and after a restart.
//!
//! Two counters: of the recipient and what the mail is for, whoever asks and whether or not there is an account, and of
//! whoever asks. That a recipient has got enough is told to nobody; that somebody asked too often is, for it says nothing of
//! any account. Each purpose counts for itself, so that nobody keeps an owner from resetting a password by asking for mails
//! of another kind, which may go to nobody.

use std::time::Duration;

use palisade_store::{Tx, attempts};

use super::Identity;
use super::accounts::{Account, UserId, load};
use super::attempts::networks;
use super::error::Trouble;
use super::login::Origin;
use crate::opaque::hash;

/// How long a window is.
pub const MAIL_WINDOW: Duration = Duration::from_secs(3600);
/// Mails of one purpose that one address gets in a window because somebody asked for them.
pub const PER_RECIPIENT: i32 = 3;
/// Mails that are caused from one network address (of IPv6, its /64) in a window.
pub const PER_ASKER: i32 = 20;
/// Mails that are caused from one /48 in a window.
pub const PER_ASKING_SITE: i32 = 80;

/// Whether there is room for another mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Yes,
    /// The recipient has got enough.
    No,
    /// Whoever asks has to wait.
    Wait(Duration),
}

impl Identity {
    /// Counts a mail that somebody asked for. The same statements whoever the recipient is.
    pub(super) async fn count_mail(
        &self,
        tx: &Tx,
        purpose: &str,
        recipient: &str,
        origin: &Origin,
    ) -> Result<Room, Trouble> {
        let (near, far) = networks(origin.address);
        let key = |kind: &[u8], text: &[u8]| hash("palisade mails v1", &[kind, text]);
        let to = hash("palisade mails v1", &[b"recipient", purpose.as_bytes(), recipient.as_bytes()]);
        let from = key(b"address", &near);
        let site = far.map(|far| key(b"site", &far));
        let keys: Vec<[u8; 32]> = [Some(to), Some(from), site].into_iter().flatten().collect();
        let (now, window) = (self.now().0, window_ms());
        let counted = attempts::count(tx, &keys, now, window).await?;
        let of = |key: [u8; 32]| counted.iter().find(|row| row.key == key);
        for (key, most) in [(Some(from), PER_ASKER), (site, PER_ASKING_SITE)] {
            if let Some(row) = key.and_then(of).filter(|row| row.count > most) {
                let left = row.since.saturating_add(window).saturating_sub(now);
                return Ok(Room::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(1000).max(1000))));
            }
        }
        let full = of(to).is_none_or(|row| row.count > PER_RECIPIENT);
        Ok(if full { Room::No } else { Room::Yes })
    }

    /// The account whose owner is to hear of something by mail. `None`: its address is not proved, or the owner has heard
    /// of it `most` times within an hour.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn notice(&self, user: UserId, what: &str, most: i32) -> Result<Option<Account>, Trouble> {
        let tx = self.store().begin().await?;
        let key = hash("palisade mails v1", &[b"notice", user.0.as_bytes(), what.as_bytes()]);
        let counted = attempts::count(&tx, &[key], self.now().0, window_ms()).await?;
        let account = load(&tx, user.0).await?;
        self.apply(tx.commit().await?);
        let heard = counted.first().is_none_or(|row| row.count > most);
        Ok(account.filter(|account| !heard && account.is_enabled() && account.verified_email().is_some()))
    }
}

pub(super) fn window_ms() -> i64 {
    i64::try_from(MAIL_WINDOW.as_millis()).unwrap_or(i64::MAX)
}
