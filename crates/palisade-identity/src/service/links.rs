//! Links that work once: verification of an address, a new password, another address, the first administrator.
//!
//! Whether an account exists is not to be learnt from asking for a link: the same statements run for nobody.

use std::time::Duration;

use palisade_store::{Error as StoreError, Tx, Uuid, consents, devices, links, users};

use super::Identity;
use super::accounts::{Account, UserId, load};
use super::attempts::{address_number, number};
use super::error::Trouble;
use super::login::Origin;
use super::mails::Room;
use super::names::Email;
use super::users::{NewUser, UserError};
use crate::opaque::{EmailLink, Opaque, ResetLink, SetupLink, VerifyLink, purpose};
use crate::password::Weakness;
use crate::password::pool::Asker;
use crate::refresh::End;

const RESET_LIFE: Duration = Duration::from_secs(3600);
const VERIFY_LIFE: Duration = Duration::from_secs(24 * 3600);
const EMAIL_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a setup link works. Threats 3.
pub const SETUP_LIFE: Duration = Duration::from_secs(15 * 60);
/// How long a used link is known.
const KEPT_MS: i64 = 24 * 3_600_000;

/// A link to send, and to whom.
#[derive(Debug)]
pub struct Letter<P> {
    /// For the one mail that carries it.
    pub link: Opaque<P>,
    /// Where the mail goes.
    pub email: String,
    /// Whose account it is.
    pub account: Account,
}

/// What came of asking for a mail. The answer to whoever asked is the same for all of these.
#[derive(Debug)]
pub enum Asked<P> {
    /// There is a mail to send.
    Letter(Box<Letter<P>>),
    /// There is nobody to send it to.
    Nobody,
    /// The address has got as many as it may ([`PER_RECIPIENT`](super::PER_RECIPIENT)).
    Enough(Option<UserId>),
}

impl<P> Asked<P> {
    /// The mail, if there is one.
    pub fn letter(self) -> Option<Letter<P>> {
        match self {
            Self::Letter(letter) => Some(*letter),
            Self::Nobody | Self::Enough(_) => None,
        }
    }
}

/// What came of a registration that is to be proved. The answer is the same for all of these.
#[derive(Debug)]
pub enum Registered {
    /// The account was made; the letter proves its address. Until then nobody can use it.
    New(Box<Letter<purpose::ForVerify>>),
    /// Somebody has the name (`None`), or the address.
    Taken(Option<Box<Account>>),
    /// The address has got as many mails as it may; nothing was made that could not be proved.
    Enough,
}

/// An account that has moved to another address.
#[derive(Debug)]
pub struct Moved {
    /// As it is now.
    pub account: Account,
    /// The address before, where its owner had proved it.
    pub from: Option<String>,
}

/// Why a link did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Unknown, used, over, or of an account that is disabled or has another address by now.
    #[error("the link is not valid")]
    NotValid,
    /// The password may not be set; the link is still good.
    #[error("the password is too weak: {0:?}")]
    Weak(Vec<Weakness>),
    /// The address became somebody else's.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The address is none.
    #[error("this is no e-mail address")]
    Email,
    /// The account to be made.
    #[error(transparent)]
    User(UserError),
    /// Whoever asks has caused as many mails as they may: 429 with `Retry-After`.
    #[error("too many mails were asked for from this address")]
    Wait {
        /// When they may go on.
        retry_after: Duration,
    },
    /// The database, the pool of hashes, or the machine.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for LinkError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(palisade_store::Unique::Email) => Self::EmailTaken,
            other => Self::Trouble(other.into()),
        }
    }
}

impl From<UserError> for LinkError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Weak(why) => Self::Weak(why),
            UserError::EmailTaken => Self::EmailTaken,
            UserError::Trouble(why) => Self::Trouble(why),
            other => Self::User(other),
        }
    }
}

/// How a purpose is stored.
pub(super) trait Named {
    const NAME: &'static str;
}

impl Named for purpose::ForReset {
    const NAME: &'static str = "reset";
}

impl Named for purpose::ForVerify {
    const NAME: &'static str = "verify";
}

impl Named for purpose::ForEmail {
    const NAME: &'static str = "email";
}

impl Named for purpose::ForSetup {
    const NAME: &'static str = "setup";
}

impl Identity {
    /// Somebody forgot the password of the account with this address. The same work where nobody has it. A link that was
    /// sent before goes on as long as no other takes its place.
    ///
    /// # Errors
    /// [`LinkError::Wait`] or [`LinkError::Trouble`].
    pub async fn ask_reset(&self, email: &str, origin: &Origin) -> Result<Asked<purpose::ForReset>, LinkError> {
        let key = Email::parse(email).map(|email| email.key().to_owned()).unwrap_or_default();
        let (tx, has_room) = self.begin_mail::<purpose::ForReset>(&key, origin).await?;
        let row = users::by_email(&tx, &key).await?.filter(|row| row.disabled_at.is_none());
        let roles = palisade_store::roles::of_user(&tx, row.as_ref().map_or(Uuid::nil(), |row| row.id)).await?;
        let account = row.map(|row| Account::of(row, roles));
        let user = account.as_ref().map(|account| account.id.0);
        let to = account.as_ref().and_then(|account| account.email.clone());
        if !has_room {
            self.apply(tx.commit().await?);
            return Ok(Asked::Enough(user.map(UserId)));
        }
        let link = self.issue_link::<purpose::ForReset>(&tx, user, to.clone(), RESET_LIFE).await?;
        self.apply(tx.commit().await?);
        let letter = account.zip(to).map(|(account, email)| Box::new(Letter { link, email, account }));
        Ok(letter.map_or(Asked::Nobody, Asked::Letter))
    }

    /// Sets a new password by a link. Everything that the account was logged in by ends, and so do its API keys and
    /// consents; a second factor stays. The link came by mail, so the address is verified from now on.
    ///
    /// # Errors
    /// [`LinkError`]. After [`LinkError::Weak`] the link is still good.
    pub async fn reset_password(
        &self,
        link: &ResetLink,
        password: &str,
        origin: &Origin,
    ) -> Result<Account, LinkError> {
        let hash = *link.stored().as_bytes();
        // Looked at first, so that a stranger without a link makes us hash nothing.
        let row = links::by_hash(self.store(), &hash).await?;
        let user = self.good(row.as_ref()).ok_or(LinkError::NotValid)?;
        let account = load(self.store(), user).await?.filter(Account::is_enabled).ok_or(LinkError::NotValid)?;
        let names: Vec<&str> = [Some(account.name.as_str()), account.email.as_deref()].into_iter().flatten().collect();
        let asker = Asker { address: address_number(origin.address), account: number(user.as_bytes()), known: false };
        let new_hash = self.hash_new(asker, password, &names).await?;

        let tx = self.store().begin().await?;
        let (row, sent_to) = self.redeem(&tx, &hash).await?;
        let (user, now) = (row.id, self.now());
        if sent_to.is_none() || row.email != sent_to {
            return Err(LinkError::NotValid);
        }
        let verified_at = row.email_verified_at.or(Some(now.0));
        let row = users::Model { email_verified_at: verified_at, pending_until: None, ..row };
        self.set_password_in(&tx, row, new_hash, None).await?;
        self.drop_rights_in(&tx, user).await?;
        links::delete_all(&tx, user).await?;
        // Whoever locked it by guessing locks out nobody but themselves any more.
        self.forget_attempts_in(&tx, user).await?;
        let account = load(&tx, user).await?.ok_or(LinkError::NotValid)?;
        self.apply(tx.commit().await?);
        Ok(account)
    }

    /// Makes an account that nobody can use until its address is proved, and the link that proves it. Nothing in the work
    /// or the answer tells whether somebody has the name or the address. Where nobody proves it within a day, it goes, and
    /// the name is free again.
    ///
    /// # Errors
    /// [`LinkError`] for a name, an address or a password that could not be anybody's, [`LinkError::Wait`] and
    /// [`LinkError::Trouble`].
    pub async fn register_by_mail(&self, new: NewUser<'_>, origin: &Origin) -> Result<Registered, LinkError> {
        let email = new.email.and_then(|email| Email::parse(email).ok()).ok_or(LinkError::Email)?;
        let (tx, has_room) = self.begin_mail::<purpose::ForVerify>(email.key(), origin).await?;
        self.apply(tx.commit().await?);
        let row = self.new_row(new, false, origin).await?;
        let pending_until = Some(self.now().plus(VERIFY_LIFE).0);
        let row = users::Model { pending_until, ..row };
        if !has_room {
            return Ok(Registered::Enough);
        }
        let id = row.id;
        let tx = self.store().begin().await?;
        let holder = users::by_email(&tx, email.key()).await?;
        let taken = users::by_name(&tx, &row.name_key).await?.is_some() || holder.is_some();
        if !taken {
            match users::insert(&tx, row).await {
                // Somebody else did the same at the same moment.
                Err(StoreError::Conflict(_)) => return Ok(Registered::Taken(None)),
                done => done?,
            }
        }
        let to = email.shown().to_owned();
        let link = self.issue_link(&tx, (!taken).then_some(id), Some(to.clone()), VERIFY_LIFE).await?;
        let account = load(&tx, holder.as_ref().map_or(id, |row| row.id)).await?;
        self.apply(tx.commit().await?);
        Ok(match account.filter(|_| !taken || holder.is_some()) {
            Some(account) if !taken => Registered::New(Box::new(Letter { link, email: to, account })),
            holder => Registered::Taken(holder.map(Box::new)),
        })
    }

    /// A link that proves an account's address; where it has none, or it is proved, there is nobody to send it to.
    ///
    /// # Errors
    /// [`LinkError::Wait`] or [`LinkError::Trouble`].
    pub async fn ask_verification(
        &self,
        user: UserId,
        origin: &Origin,
    ) -> Result<Asked<purpose::ForVerify>, LinkError> {
        let account = load(self.store(), user.0).await?;
        let account = account.filter(|account| account.is_enabled() && !account.email_verified);
        let Some((email, account)) = account.and_then(|account| Some((account.email.clone()?, account))) else {
            return Ok(Asked::Nobody);
        };
        let key = Email::parse(&email).map_err(|_| LinkError::Email)?;
        let (tx, has_room) = self.begin_mail::<purpose::ForVerify>(key.key(), origin).await?;
        if !has_room {
            self.apply(tx.commit().await?);
            return Ok(Asked::Enough(Some(user)));
        }
        let link = self.issue_link(&tx, Some(user.0), Some(email.clone()), VERIFY_LIFE).await?;
        self.apply(tx.commit().await?);
        Ok(Asked::Letter(Box::new(Letter { link, email, account })))
    }

    /// The address is verified. What was there before ends: whoever registered an address that is not theirs may have
    /// left a session, a key or a consent behind. `keep`: the session in which the link was opened, if it is one of the
    /// account's.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn verify_email(&self, link: &VerifyLink, keep: Option<Uuid>) -> Result<Account, LinkError> {
        let tx = self.store().begin().await?;
        let (row, sent_to) = self.redeem(&tx, link.stored().as_bytes()).await?;
        let user = row.id;
        if sent_to.is_none() || row.email != sent_to {
            return Err(LinkError::NotValid);
        }
        let first = row.email_verified_at.is_none();
        self.verified_in(&tx, row, first, keep).await?;
        let account = load(&tx, user).await?.ok_or(LinkError::NotValid)?;
        self.apply(tx.commit().await?);
        Ok(account)
    }

    /// A link that moves an account to another address, to be sent there. Where somebody has that address there is nobody
    /// to send it to, and whoever asked does not learn that.
    ///
    /// # Errors
    /// [`LinkError::Email`], [`LinkError::Wait`] or [`LinkError::Trouble`].
    pub async fn ask_email_change(
        &self,
        user: UserId,
        email: &str,
        origin: &Origin,
    ) -> Result<Asked<purpose::ForEmail>, LinkError> {
        let email = Email::parse(email).map_err(|_| LinkError::Email)?;
        let (tx, has_room) = self.begin_mail::<purpose::ForEmail>(email.key(), origin).await?;
        let account = load(&tx, user.0).await?.filter(Account::is_enabled).ok_or(LinkError::NotValid)?;
        let taken = users::by_email(&tx, email.key()).await?.is_some_and(|row| row.id != user.0);
        let to = email.shown().to_owned();
        if !has_room {
            self.apply(tx.commit().await?);
            return Ok(Asked::Enough(Some(user)));
        }
        let link = self.issue_link(&tx, Some(user.0), Some(to.clone()), EMAIL_LIFE).await?;
        self.apply(tx.commit().await?);
        Ok(if taken { Asked::Nobody } else { Asked::Letter(Box::new(Letter { link, email: to, account })) })
    }

    /// The account has the address that the link was sent to, verified. The address before is told by whoever calls.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn change_email(&self, link: &EmailLink, keep: Option<Uuid>) -> Result<Moved, LinkError> {
        let tx = self.store().begin().await?;
        let (row, sent_to) = self.redeem(&tx, link.stored().as_bytes()).await?;
        let user = row.id;
        let email = sent_to.as_deref().and_then(|to| Email::parse(to).ok()).ok_or(LinkError::NotValid)?;
        let first = row.email_verified_at.is_none();
        let from = row.email.clone().filter(|before| !first && before.as_str() != email.shown());
        let named_after = row.email_key.as_deref() == Some(row.name_key.as_str());
        let mut row =
            users::Model { email: Some(email.shown().to_owned()), email_key: Some(email.key().to_owned()), ..row };
        if named_after {
            row.name = email.shown().to_owned();
            row.name_key = email.key().to_owned();
        }
        self.verified_in(&tx, row, first, keep).await?;
        let account = load(&tx, user).await?.ok_or(LinkError::NotValid)?;
        self.apply(tx.commit().await?);
        Ok(Moved { account, from })
    }

    /// The link by which the first administrator is made, to be printed once. An earlier one ends. `None`: there is an
    /// administrator already.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn setup_link(&self) -> Result<Option<SetupLink>, Trouble> {
        let tx = self.store().begin().await?;
        if !palisade_store::roles::holders(&tx, "admin", 1).await?.is_empty() {
            return Ok(None);
        }
        let link = self.issue_link::<purpose::ForSetup>(&tx, None, None, SETUP_LIFE).await?;
        self.apply(tx.commit().await?);
        Ok(Some(link))
    }

    /// Whether a setup link is good, to show its page.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn is_setup_link(&self, link: &SetupLink) -> Result<bool, Trouble> {
        let row = links::by_hash(self.store(), link.stored().as_bytes()).await?;
        Ok(row.is_some_and(|row| self.is_open(&row)))
    }

    /// Makes the first administrator. Works once, within [`SETUP_LIFE`].
    ///
    /// # Errors
    /// [`LinkError`]. After a name or a password that is refused the link is still good.
    pub async fn set_up(&self, link: &SetupLink, new: NewUser<'_>, origin: &Origin) -> Result<Account, LinkError> {
        if !self.is_setup_link(link).await? {
            return Err(LinkError::NotValid);
        }
        let row = self.new_row(new, false, origin).await?;
        let id = row.id;
        let tx = self.store().begin().await?;
        let used = self.redeem_any(&tx, link.stored().as_bytes()).await?;
        // Somebody may have become an administrator since it was made.
        let is_over = !palisade_store::roles::holders(&tx, "admin", 1).await?.is_empty();
        if is_over || used.user.is_some() {
            return Err(LinkError::NotValid);
        }
        users::insert(&tx, row).await.map_err(UserError::from)?;
        super::users::set_roles(&tx, id, &["admin".to_owned()]).await?;
        let account = load(&tx, id).await?.ok_or(LinkError::NotValid)?;
        self.apply(tx.commit().await?);
        Ok(account)
    }

    /// Takes back the links of a purpose that an account did not use.
    pub(super) async fn withdraw_links<P: Named>(&self, tx: &Tx, user: Uuid) -> Result<(), Trouble> {
        links::withdraw(tx, user, P::NAME).await?;
        Ok(())
    }

    /// Counts a mail that somebody asks for, and goes on in the same transaction. `false`: the recipient has got enough.
    async fn begin_mail<P: Named>(&self, recipient: &str, origin: &Origin) -> Result<(Tx, bool), LinkError> {
        let tx = self.store().begin().await?;
        match self.count_mail(&tx, P::NAME, recipient, origin).await? {
            Room::Wait(retry_after) => {
                self.apply(tx.commit().await?);
                Err(LinkError::Wait { retry_after })
            }
            room => Ok((tx, room == Room::Yes)),
        }
    }

    async fn issue_link<P: Named + crate::opaque::Purpose>(
        &self,
        tx: &Tx,
        user: Option<Uuid>,
        email: Option<String>,
        life: Duration,
    ) -> Result<Opaque<P>, Trouble> {
        let link = Opaque::<P>::generate()?;
        let row = links::Model {
            hash: link.stored().as_bytes().to_vec(),
            purpose: P::NAME.into(),
            user,
            email,
            expires_at: self.now().plus(life).0,
            used_at: None,
        };
        links::insert(tx, row).await?;
        Ok(link)
    }

    fn is_open(&self, row: &links::Model) -> bool {
        row.used_at.is_none() && self.now().0 < row.expires_at
    }

    fn good(&self, row: Option<&links::Model>) -> Option<Uuid> {
        row.filter(|row| self.is_open(row)).and_then(|row| row.user)
    }

    /// Uses a link up. Its purpose is in its hash: one of another purpose is not found.
    async fn redeem_any(&self, tx: &Tx, hash: &[u8; 32]) -> Result<links::Model, LinkError> {
        let row = links::lock(tx, hash).await?.filter(|row| self.is_open(row)).ok_or(LinkError::NotValid)?;
        if !links::used(tx, hash, self.now().0).await? {
            return Err(LinkError::NotValid);
        }
        Ok(row)
    }

    /// The account of a link, locked, and the address that it was sent to. The account before the link, as everybody locks
    /// them who needs both.
    async fn redeem(&self, tx: &Tx, hash: &[u8; 32]) -> Result<(users::Model, Option<String>), LinkError> {
        let user = self.good(links::by_hash(tx, hash).await?.as_ref()).ok_or(LinkError::NotValid)?;
        let account = users::lock(tx, user).await?.filter(|row| row.disabled_at.is_none());
        let account = account.ok_or(LinkError::NotValid)?;
        let row = self.redeem_any(tx, hash).await?;
        Ok((account, row.email))
    }

    async fn verified_in(&self, tx: &Tx, row: users::Model, first: bool, keep: Option<Uuid>) -> Result<(), LinkError> {
        use palisade_store::changes::Kind;
        let now = self.now();
        let id = UserId(row.id);
        let tokens_from = if first { now.0 } else { row.tokens_from };
        let row = users::Model {
            email_verified_at: Some(row.email_verified_at.unwrap_or(now.0)),
            tokens_from,
            updated_at: now.0,
            pending_until: None,
            ..row
        };
        users::replace(tx, row).await?;
        if first {
            self.end_all_in(tx, id.0, keep, End::Password, now).await?;
            self.drop_rights_in(tx, id.0).await?;
            devices::forget_all(tx, id.0).await?;
        }
        tx.announce(self.changed(if first { Kind::UserRevoked } else { Kind::User }, id, now));
        Ok(())
    }

    /// Keys and consents: what outlives a session.
    async fn drop_rights_in(&self, tx: &Tx, user: Uuid) -> Result<(), Trouble> {
        self.drop_keys_in(tx, user, self.now()).await?;
        consents::delete_all(tx, user).await?;
        Ok(())
    }

    /// Forgets accounts whose address nobody proved in time.
    pub(super) async fn sweep_unproved(&self, tx: &Tx) -> Result<(), Trouble> {
        let now = self.now();
        for row in users::unproved(tx, now.0).await? {
            if users::delete(tx, row.id).await? {
                tx.announce(self.changed(palisade_store::changes::Kind::UserRevoked, UserId(row.id), now));
            }
        }
        Ok(())
    }

    pub(super) async fn sweep_links(&self, tx: &Tx, now: i64) -> Result<(), Trouble> {
        links::sweep(tx, now - KEPT_MS).await?;
        Ok(())
    }
}
