//! Accounts: made, shown, changed, disabled, deleted.

use std::sync::Arc;

use palisade_base::Timestamp;
use palisade_store::{Error as StoreError, Tx, Unique, Uuid, changes, devices, keys, roles, users};
use serde_json::{Value, json};

use super::accounts::{Account, UserId, load, rfc3339};
use super::attempts::{address_number, number};
use super::error::Trouble;
use super::login::{Origin, PasswordChecked};
use super::names::{BadEmail, BadName, Email, Name};
use super::{Identity, new_id};
use crate::opaque::purpose;
use crate::password::pool::Asker;
use crate::password::{Password, Weakness};
use crate::refresh::End;

/// An account that is to be made. These fields and no others: whoever registers cannot name a role, an id, or say that
/// an address is verified.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its e-mail address.
    pub email: Option<&'a str>,
    /// Its password.
    pub password: &'a str,
}

/// What is to be changed of an account; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct Edit<'a> {
    /// Its name.
    pub name: Option<&'a str>,
    /// Its e-mail address, which is unverified from then on unless `email_verified` says otherwise. `Some(None)`: none.
    pub email: Option<Option<&'a str>>,
    /// Whether the address counts as verified.
    pub email_verified: Option<bool>,
    /// All its roles.
    pub roles: Option<&'a [String]>,
    /// Whether it may do anything. Disabling ends all that it is logged in by.
    pub enabled: Option<bool>,
}

/// Why an account was not made, or not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// There is no such account.
    #[error("there is no such user")]
    NoUser,
    /// There is no role of that name.
    #[error("there is no role `{0}`")]
    NoRole(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The address is none.
    #[error(transparent)]
    Email(#[from] BadEmail),
    /// The password may not be set.
    #[error("the password is too weak: {0:?}")]
    Weak(Vec<Weakness>),
    /// Somebody has that name.
    #[error("the name is taken")]
    NameTaken,
    /// Somebody has that address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The database, the pool of hashes, or the machine.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for UserError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Unique::Name) => Self::NameTaken,
            StoreError::Conflict(Unique::Email) => Self::EmailTaken,
            other => Self::Trouble(other.into()),
        }
    }
}

impl Identity {
    /// Makes an account without a role.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn register(&self, new: NewUser<'_>, origin: &Origin) -> Result<Account, UserError> {
        self.add_user(new, &[], false, origin).await
    }

    /// Makes an account with roles: for operators.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn add_user(
        &self,
        new: NewUser<'_>,
        with_roles: &[String],
        email_verified: bool,
        origin: &Origin,
    ) -> Result<Account, UserError> {
        let row = self.new_row(new, email_verified, origin).await?;
        let id = row.id;
        let tx = self.store().begin().await?;
        users::insert(&tx, row).await?;
        set_roles(&tx, id, with_roles).await?;
        let account = load(&tx, id).await?.ok_or(UserError::NoUser)?;
        self.apply(tx.commit().await?);
        Ok(account)
    }

    /// A new account with its hash, not stored yet.
    pub(super) async fn new_row(
        &self,
        new: NewUser<'_>,
        email_verified: bool,
        origin: &Origin,
    ) -> Result<users::Model, UserError> {
        let (name, email) = (Name::parse(new.name)?, new.email.map(Email::parse).transpose()?);
        check_at(&name, email.as_ref())?;
        let names: Vec<&str> = [Some(name.shown()), email.as_ref().map(Email::shown)].into_iter().flatten().collect();
        let asker =
            Asker { address: address_number(origin.address), account: number(name.key().as_bytes()), known: false };
        let password = self.hash_new(asker, new.password, &names).await?;
        let now = self.now().0;
        Ok(users::Model {
            id: new_id(self.now()),
            name: name.shown().to_owned(),
            name_key: name.key().to_owned(),
            email: email.as_ref().map(|email| email.shown().to_owned()),
            email_key: email.as_ref().map(|email| email.key().to_owned()),
            email_verified_at: (email_verified && email.is_some()).then_some(now),
            password: Some(password),
            ..users::new(now)
        })
    }

    /// Judges a password that is to be set, and hashes it: both in the pool, for both take time that a stranger chooses.
    pub(super) async fn hash_new(&self, asker: Asker, password: &str, names: &[&str]) -> Result<String, UserError> {
        let password = Password::new(password).map_err(|_| UserError::Weak(Vec::new()))?;
        let (policy, hasher) = (self.shared.policy.load_full(), self.hasher());
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let work = move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            policy.check(&password, &names).map_err(Err)?;
            hasher.hash(&password).map_err(Ok)
        };
        let memory = self.hasher().memory_bytes(None);
        match self.pooled(asker, memory, work).await? {
            Ok(hash) => Ok(hash),
            Err(Err(weak)) => Err(UserError::Weak(weak)),
            Err(Ok(cannot)) => Err(Trouble::Hash(cannot).into()),
        }
    }

    /// An account as it is now.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn user(&self, id: UserId) -> Result<Option<Arc<Account>>, Trouble> {
        let mark = self.shared.accounts.mark();
        self.account_marked(id.0, mark).await
    }

    /// An account by its name, e-mail address, id or application's id: for operators.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn find_user(&self, text: &str) -> Result<Option<Account>, Trouble> {
        let store = self.store();
        let row = match super::names::Identifier::parse(text) {
            super::names::Identifier::Email(key) => users::by_email(store, &key).await?,
            super::names::Identifier::Name(key) => users::by_name(store, &key).await?,
            super::names::Identifier::Nobody(_) => None,
        };
        let row = match (row, UserId::parse(text)) {
            (Some(row), _) => Some(row),
            (None, Some(id)) => users::by_id(store, id.0).await?,
            (None, None) => users::by_app_id(store, text).await?,
        };
        let Some(row) = row else { return Ok(None) };
        let roles = roles::of_user(store, row.id).await?;
        Ok(Some(Account::of(row, roles)))
    }

    /// So many accounts behind one, in the order of their making.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn list_users(&self, after: Option<UserId>, limit: u64) -> Result<Vec<Account>, Trouble> {
        let mut list = Vec::new();
        for row in users::list(self.store(), after.map(|id| id.0), limit.min(1000)).await? {
            let roles = roles::of_user(self.store(), row.id).await?;
            list.push(Account::of(row, roles));
        }
        Ok(list)
    }

    /// Changes an account. What it changes is in force for all its credentials at once; a change of roles or of the
    /// enabled state reaches open sessions without a new login.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn edit_user(&self, id: UserId, edit: Edit<'_>) -> Result<Account, UserError> {
        let now = self.now();
        let tx = self.store().begin().await?;
        let mut row = users::lock(&tx, id.0).await?.ok_or(UserError::NoUser)?;
        // A name with `@` is the address, and goes with it.
        let named_after = row.email_key.as_deref() == Some(row.name_key.as_str());
        if let Some(email) = edit.email {
            let email = email.map(Email::parse).transpose()?;
            let same = email.as_ref().map(Email::key) == row.email_key.as_deref();
            row.email = email.as_ref().map(|email| email.shown().to_owned());
            row.email_key = email.as_ref().map(|email| email.key().to_owned());
            if !same {
                row.email_verified_at = None;
            }
            if let Some(email) = email.filter(|_| named_after && edit.name.is_none()) {
                row.name = email.shown().to_owned();
                row.name_key = email.key().to_owned();
            }
        }
        if let Some(name) = edit.name {
            let name = Name::parse(name)?;
            row.name = name.shown().to_owned();
            row.name_key = name.key().to_owned();
        }
        if row.name_key.contains('@') && row.email_key.as_deref() != Some(row.name_key.as_str()) {
            return Err(BadName::At.into());
        }
        if edit.email_verified == Some(true) || edit.enabled == Some(true) {
            row.pending_until = None;
        }
        if let Some(verified) = edit.email_verified {
            row.email_verified_at = (verified && row.email.is_some()).then(|| row.email_verified_at.unwrap_or(now.0));
        }
        let disables = edit.enabled == Some(false) && row.disabled_at.is_none();
        match edit.enabled {
            Some(true) => row.disabled_at = None,
            Some(false) => row.disabled_at = Some(row.disabled_at.unwrap_or(now.0)),
            None => {}
        }
        if disables {
            row.tokens_from = now.0;
        }
        row.updated_at = now.0;
        users::replace(&tx, row).await?;
        if let Some(names) = edit.roles {
            set_roles(&tx, id.0, names).await?;
        }
        if disables {
            self.end_all_in(&tx, id.0, None, End::Disabled, now).await?;
        }
        let kind = if disables { changes::Kind::UserRevoked } else { changes::Kind::User };
        tx.announce(self.changed(kind, id, now));
        let account = load(&tx, id.0).await?.ok_or(UserError::NoUser)?;
        self.apply(tx.commit().await?);
        Ok(account)
    }

    /// Deletes an account with all that belongs to it. Its id is never given again. `false`: there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn delete_user(&self, id: UserId) -> Result<bool, Trouble> {
        let now = self.now();
        let tx = self.store().begin().await?;
        // Said of each, for each may be in a cache.
        self.end_all_in(&tx, id.0, None, End::Disabled, now).await?;
        self.drop_keys_in(&tx, id.0, now).await?;
        let gone = users::delete(&tx, id.0).await?;
        tx.announce(self.changed(changes::Kind::UserRevoked, id, now));
        self.apply(tx.commit().await?);
        Ok(gone)
    }

    /// Sets another password. All sessions and refresh tokens of the account end but the session `keep`, which is to be
    /// [rotated](Self::rotate_session); access tokens that were issued are refused.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn change_password(
        &self,
        checked: &PasswordChecked,
        password: &str,
        keep: Option<Uuid>,
        origin: &Origin,
    ) -> Result<(), UserError> {
        let account = &checked.account;
        let names: Vec<&str> = [Some(account.name.as_str()), account.email.as_deref()].into_iter().flatten().collect();
        let asker = Asker {
            address: address_number(origin.address),
            account: number(account.id.0.as_bytes()),
            known: checked.known_device,
        };
        let hash = self.hash_new(asker, password, &names).await?;
        let tx = self.store().begin().await?;
        let row = users::lock(&tx, account.id.0).await?.filter(|row| row.disabled_at.is_none());
        // The password that was checked is still the one in force.
        let row = row.filter(|row| row.password_at == account.password_at.0).ok_or(UserError::NoUser)?;
        self.set_password_in(&tx, row, hash, keep).await?;
        self.apply(tx.commit().await?);
        Ok(())
    }

    pub(super) async fn set_password_in(
        &self,
        tx: &Tx,
        row: users::Model,
        hash: String,
        keep: Option<Uuid>,
    ) -> Result<(), UserError> {
        let now = self.now();
        let id = UserId(row.id);
        // Never twice the same time: a login under way compares it.
        let password_at = now.0.max(row.password_at + 1);
        let row = users::Model { password: Some(hash), password_at, tokens_from: now.0, updated_at: now.0, ..row };
        users::replace(tx, row).await?;
        self.end_all_in(tx, id.0, keep, End::Password, now).await?;
        self.withdraw_links::<purpose::ForReset>(tx, id.0).await?;
        // Who knew the old password may have been on any of them.
        devices::forget_all(tx, id.0).await?;
        tx.announce(self.changed(changes::Kind::UserRevoked, id, now));
        Ok(())
    }

    /// All that is stored about an account, for its owner: no hashes, no secrets. `None`: there is none.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn export_user(&self, id: UserId) -> Result<Option<Value>, Trouble> {
        let Some(account) = load(self.store(), id.0).await? else { return Ok(None) };
        let date = rfc3339;
        let sessions: Vec<Value> = (self.sessions_of(id).await?.into_iter())
            .map(|one| {
                json!({ "id": one.id.to_string(), "created": date(one.created_at), "last_seen": date(one.seen_at),
                    "ends": date(one.ends_at), "address": one.address, "device": one.device, "browser": one.is_browser })
            })
            .collect();
        let keys: Vec<Value> = (self.keys_of(id).await?.into_iter())
            .map(|one| {
                json!({ "id": one.id, "name": one.name, "scopes": one.scopes, "created": date(one.created_at),
                    "expires": one.expires_at.map(date), "last_used": one.used_at.map(date) })
            })
            .collect();
        let consents: Vec<Value> = (self.consents_of(id).await?.into_iter())
            .map(|one| json!({ "client": one.client, "scopes": one.scopes, "at": date(one.at) }))
            .collect();
        let mut all = account.to_json();
        all["password_set"] = date(account.password_at).into();
        all["sessions"] = sessions.into();
        all["keys"] = keys.into();
        all["consents"] = consents.into();
        Ok(Some(all))
    }

    /// Nobody's guesses count against an account any more.
    pub(super) async fn forget_attempts_in(&self, tx: &Tx, user: Uuid) -> Result<(), Trouble> {
        for key in super::attempts::keys_of(user) {
            palisade_store::attempts::forget(tx, &key).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_keys_in(&self, tx: &Tx, user: Uuid, now: Timestamp) -> Result<(), Trouble> {
        for key in keys::of_user(tx, user, 1000).await? {
            keys::delete(tx, &key.id).await?;
            tx.announce(changes::New { kind: changes::Kind::Key, subject: key.id, at: now.0, until: now.0 });
        }
        Ok(())
    }

    pub(super) fn changed(&self, kind: changes::Kind, id: UserId, now: Timestamp) -> changes::New {
        changes::New { kind, subject: id.to_string(), at: now.0, until: self.tokens_end(now) }
    }
}

/// Only the account's own address may be a name with `@`: otherwise one's name would be another's address, and both may
/// be typed at login.
pub(super) fn check_at(name: &Name, email: Option<&Email>) -> Result<(), BadName> {
    let own = email.is_some_and(|email| email.key() == name.key());
    if name.has_at() && !own { Err(BadName::At) } else { Ok(()) }
}

pub(super) async fn set_roles(tx: &Tx, user: Uuid, names: &[String]) -> Result<(), UserError> {
    for name in names {
        if roles::by_name(tx, name).await?.is_none() {
            return Err(UserError::NoRole(name.clone()));
        }
    }
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    roles::set(tx, user, &names).await?;
    Ok(())
}
