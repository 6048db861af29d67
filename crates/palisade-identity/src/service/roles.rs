//! Roles and what they permit.

use palisade_store::{Error as StoreError, Unique, changes, roles};

use super::error::Trouble;
use super::{Identity, joined, split};

/// Roles that exist from the start and stay.
pub const BUILT_IN: [&str; 2] = ["user", "admin"];
/// Permissions of one role.
const MAX_PERMISSIONS: usize = 500;
/// Roles.
const MAX_ROLES: usize = 1000;

/// One role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name, as a policy writes it.
    pub name: String,
    /// What it permits, sorted.
    pub permissions: Vec<String>,
}

impl From<roles::Model> for Role {
    fn from(row: roles::Model) -> Self {
        Self { permissions: split(&row.permissions), name: row.name }
    }
}

/// Why a role was not made or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// Not what a policy can write.
    #[error("a role has a name of 1 to 64 letters, digits, `.`, `_`, `-` and `:`")]
    Name,
    /// Not what a policy can write.
    #[error("a role has at most {MAX_PERMISSIONS} permissions of 1 to 100 letters, digits, `.`, `_`, `-`, `:` and `/`")]
    Permission,
    /// There is one of that name.
    #[error("there is a role of that name")]
    Exists,
    /// There is none of that name.
    #[error("there is no such role")]
    NoRole,
    /// `user` and `admin` stay.
    #[error("the roles `user` and `admin` stay")]
    BuiltIn,
    /// Too many.
    #[error("there are {MAX_ROLES} roles already")]
    TooMany,
    /// The database.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for RoleError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Unique::Role) => Self::Exists,
            other => Self::Trouble(other.into()),
        }
    }
}

fn word(text: &str, longest: usize, signs: &[u8]) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || signs.contains(&b))
}

fn check_permissions(permissions: &[String]) -> Result<Vec<String>, RoleError> {
    let fits = permissions.iter().all(|text| word(text, 100, b"._-:/"));
    if permissions.len() > MAX_PERMISSIONS || !fits {
        return Err(RoleError::Permission);
    }
    let mut sorted = permissions.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

impl Identity {
    /// All roles, by name.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn list_roles(&self) -> Result<Vec<Role>, Trouble> {
        Ok(roles::list(self.store()).await?.into_iter().map(Into::into).collect())
    }

    /// Makes a role.
    ///
    /// # Errors
    /// [`RoleError`].
    pub async fn add_role(&self, name: &str, permissions: &[String]) -> Result<Role, RoleError> {
        if !word(name, 64, b"._-:") {
            return Err(RoleError::Name);
        }
        let permissions = check_permissions(permissions)?;
        let tx = self.store().begin().await?;
        if roles::list(&tx).await?.len() >= MAX_ROLES {
            return Err(RoleError::TooMany);
        }
        let row = roles::Model { name: name.to_owned(), permissions: joined(&permissions), created_at: self.now().0 };
        roles::insert(&tx, row).await?;
        self.apply(tx.commit().await?);
        Ok(Role { name: name.to_owned(), permissions })
    }

    /// Sets all that a role permits. In force at once, for everybody who has it.
    ///
    /// # Errors
    /// [`RoleError`].
    pub async fn set_permissions(&self, name: &str, permissions: &[String]) -> Result<Role, RoleError> {
        let permissions = check_permissions(permissions)?;
        let tx = self.store().begin().await?;
        if !roles::permit(&tx, name, &joined(&permissions)).await? {
            return Err(RoleError::NoRole);
        }
        self.announce_role(&tx, name);
        self.apply(tx.commit().await?);
        Ok(Role { name: name.to_owned(), permissions })
    }

    /// Deletes a role; nobody has it any more. `false`: there is none.
    ///
    /// # Errors
    /// [`RoleError`].
    pub async fn delete_role(&self, name: &str) -> Result<bool, RoleError> {
        if BUILT_IN.contains(&name) {
            return Err(RoleError::BuiltIn);
        }
        let tx = self.store().begin().await?;
        let gone = roles::delete(&tx, name).await?;
        self.announce_role(&tx, name);
        self.apply(tx.commit().await?);
        Ok(gone)
    }

    fn announce_role(&self, tx: &palisade_store::Tx, name: &str) {
        let now = self.now();
        let until = self.tokens_end(now);
        tx.announce(changes::New { kind: changes::Kind::Role, subject: name.to_owned(), at: now.0, until });
    }
}
