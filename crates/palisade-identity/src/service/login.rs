//! The password step of a login. Every door that takes an account's password comes through here.
//!
//! An unknown name, a wrong password, a locked and a disabled account cost the same work and end in the same answer
//! ([`LoginError::Refused`]); what it was is for the log only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_store::{Uuid, devices, users};
use tokio::sync::oneshot;

use super::accounts::{Account, load};
use super::attempts::{Allowed, Counters, Whose, address_number, number};
use super::error::Trouble;
use super::names::Identifier;
use super::{Identity, bounded};
use crate::opaque::Device;
use crate::password::pool::{Asker, Shed};
use crate::password::{CannotHash, Password, Stored, Verdict};

/// How long a login waits for its hash, queue included, before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the cost of an imported hash is remembered.
const IMPORTS_SEEN: Duration = Duration::from_secs(3600);
/// So long whoever fails waits at most for what somebody else's imported hash would have cost.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Where an attempt comes from.
#[derive(Debug)]
pub struct Origin {
    /// The client's address, as the gateway believes it.
    pub address: IpAddr,
    /// What it calls itself (`User-Agent`), for people and for the class of refresh tokens.
    pub agent: String,
    /// What the cookie of a device says.
    pub device: Option<Device>,
}

impl Origin {
    /// From an address, without anything else.
    pub const fn new(address: IpAddr) -> Self {
        Self { address, agent: String::new(), device: None }
    }

    /// What a list of sessions shows: printable, and not longer than a line.
    pub(super) fn shown_agent(&self) -> String {
        self.agent.chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

/// Why a login was refused. For the log, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Nobody of that name or address.
    Unknown,
    /// Another password.
    Wrong,
    /// Too many attempts. `just`: this one was the first too many; tell the owner.
    Locked {
        /// Whether this attempt locked it.
        just: bool,
    },
    /// The account is disabled.
    Disabled,
    /// Nobody has proved the address yet that it was registered with.
    Unproved,
    /// The account has no password.
    NoPassword,
}

/// Why nobody was let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// 401, the same for every reason.
    #[error("unknown user or wrong password")]
    Refused {
        /// What it was.
        why: Why,
        /// The account that was meant, if there is one.
        user: Option<Uuid>,
    },
    /// The address made too many attempts: 429 with `Retry-After`.
    #[error("too many attempts from this address")]
    Wait {
        /// When it may go on.
        retry_after: Duration,
    },
    /// It could not be decided.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<palisade_store::Error> for LoginError {
    fn from(error: palisade_store::Error) -> Self {
        Self::Trouble(error.into())
    }
}

/// Evidence that somebody just gave the right password of an enabled account. What a session or a token is made from.
#[derive(Debug)]
pub struct PasswordChecked {
    pub(super) account: Arc<Account>,
    pub(super) known_device: bool,
}

impl PasswordChecked {
    /// Whose.
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Whether the account was used on this device before: if not, its owner is told.
    pub const fn is_known_device(&self) -> bool {
        self.known_device
    }
}

impl Identity {
    /// Checks a password. `identifier` is a name or an e-mail address, as it was typed.
    ///
    /// Cancel safety: the attempt is counted before anything else, and stays counted.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn check_password(
        &self,
        identifier: &str,
        password: &str,
        origin: &Origin,
    ) -> Result<PasswordChecked, LoginError> {
        let identifier = Identifier::parse(identifier);
        let row = match &identifier {
            Identifier::Name(key) => users::by_name(self.store(), key).await?,
            Identifier::Email(key) => users::by_email(self.store(), key).await?,
            Identifier::Nobody(key) => users::by_name(self.store(), key).await?,
        };
        self.check_password_of(row, identifier.text(), password, origin).await
    }

    /// Checks the password of an account that is known, as when it is changed. The same counters.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn check_password_again(
        &self,
        account: &Account,
        password: &str,
        origin: &Origin,
    ) -> Result<PasswordChecked, LoginError> {
        let row = users::by_id(self.store(), account.id.0).await?;
        self.check_password_of(row, &account.name, password, origin).await
    }

    async fn check_password_of(
        &self,
        row: Option<users::Model>,
        typed: &str,
        password: &str,
        origin: &Origin,
    ) -> Result<PasswordChecked, LoginError> {
        // Asked for nobody as well: a look-up less would be a difference.
        let known = match &origin.device {
            None => false,
            Some(device) => {
                let user = row.as_ref().map_or(Uuid::nil(), |row| row.id);
                devices::find(self.store(), user, device.stored().as_bytes()).await?.is_some()
            }
        };
        let whose = row.as_ref().map_or(Whose::Nobody(typed), |row| Whose::User(row.id));
        let counters = Counters::new(whose, origin.address, known);
        let (locked, after) = match counters.count(self.store(), self.now()).await? {
            Allowed::Wait(retry_after) => return Err(LoginError::Wait { retry_after }),
            Allowed::Locked { just, after } => (Some(just), after),
            Allowed::Yes { after } => (None, after),
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let user = row.as_ref().map(|row| row.id);
        let why = match (&row, locked) {
            (_, Some(just)) => Some(Why::Locked { just }),
            (None, None) => Some(Why::Unknown),
            (Some(row), None) if row.disabled_at.is_some() => Some(Why::Disabled),
            (Some(row), None) if row.pending_until.is_some() => Some(Why::Unproved),
            (Some(row), None) if row.password.is_none() => Some(Why::NoPassword),
            _ => None,
        };
        let text = if why.is_none() { row.as_ref().and_then(|row| row.password.clone()) } else { None };
        let stored = match &text {
            Some(text) => Some(Stored::parse(text).map_err(|_| Trouble::Damaged("password hash"))?),
            None => None,
        };
        let asker = Asker {
            address: address_number(origin.address),
            account: number(user.as_ref().map_or(typed.as_bytes(), |id| id.as_bytes())),
            known,
        };
        let (verdict, took) = self.verify(asker, stored, Password::new(password).ok()).await?;
        let (upgrade, user) = match (why, verdict, user) {
            (None, Verdict::Right { upgrade }, Some(user)) => (upgrade, user),
            (why, _, user) => {
                self.wait_like_imports(took).await;
                return Err(LoginError::Refused { why: why.unwrap_or(Why::Wrong), user });
            }
        };
        let better = match (upgrade, Password::new(password)) {
            // A hash more, and only once per account. When the pool is full, the next login does it.
            (true, Ok(password)) => self.hash(asker, password).await.ok(),
            _ => None,
        };
        let tx = self.store().begin().await?;
        if let (Some(better), Some(text)) = (better, &text) {
            users::rehash(&tx, user, text, &better).await?;
        }
        counters.was_right(&tx).await?;
        let account = load(&tx, user).await?;
        self.apply(tx.commit().await?);
        match account {
            Some(account) if account.is_enabled() => {
                Ok(PasswordChecked { account: Arc::new(account), known_device: known })
            }
            // Disabled or deleted while the hash was computed.
            _ => Err(LoginError::Refused { why: Why::Disabled, user: Some(user) }),
        }
    }

    async fn verify(
        &self,
        asker: Asker,
        stored: Option<Stored>,
        password: Option<Password>,
    ) -> Result<(Verdict, Duration), Trouble> {
        let hasher = self.hasher();
        let memory = hasher.memory_bytes(stored.as_ref());
        let is_import = stored.as_ref().is_some_and(|stored| hasher.wants_upgrade(stored));
        let work = move || {
            let begun = Instant::now();
            (hasher.verify(stored.as_ref(), password.as_ref()), begun.elapsed())
        };
        let (verdict, took) = self.pooled(asker, memory, work).await?;
        if is_import {
            let slowest = took.max(self.slowest_import());
            *self.shared.slowest_import.lock() = Some((self.now(), slowest));
        }
        Ok((verdict.map_err(Trouble::Hash)?, took))
    }

    pub(super) fn slowest_import(&self) -> Duration {
        let seen = *self.shared.slowest_import.lock();
        seen.filter(|(at, _)| self.now() < at.plus(IMPORTS_SEEN)).map_or(Duration::ZERO, |(_, slowest)| slowest)
    }

    /// A hash that was imported costs what it costs, and one of ours something else: while there are both, who fails waits
    /// as if theirs had been the slowest. Otherwise the time would say who has moved in and never logged in since.
    async fn wait_like_imports(&self, took: Duration) {
        let rest = self.slowest_import().min(LONGEST_WAIT).saturating_sub(took);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }

    pub(super) async fn hash(&self, asker: Asker, password: Password) -> Result<String, Trouble> {
        let hasher = self.hasher();
        let memory = hasher.memory_bytes(None);
        let hashed: Result<String, CannotHash> = self.pooled(asker, memory, move || hasher.hash(&password)).await?;
        Ok(hashed?)
    }

    /// Runs work in the pool of hashes and waits for it, within bounds.
    pub(super) async fn pooled<T: Send + 'static>(
        &self,
        asker: Asker,
        memory: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let (sender, receiver) = oneshot::channel();
        // An error: who asked has hung up.
        self.pool().submit(asker, memory, work, move |done| drop(sender.send(done)))?;
        match bounded(PATIENCE, receiver).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(_)) | None => Err(Shed::Dropped.into()),
        }
    }
}
