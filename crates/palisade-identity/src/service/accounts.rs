//! An account as it is in force now: what every request is decided on.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use palisade_base::Timestamp;
use palisade_store::{Conn, Uuid, roles, users};
use quick_cache::sync::Cache;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::error::Trouble;

/// Who: never reused, `sub` of tokens, `X-Forwarded-User`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub Uuid);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl UserId {
    /// Reads one in its one spelling, 36 lower-case characters: subjects of other issuers are no users of ours.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().filter(|id| id.to_string() == text).map(Self)
    }
}

/// What is known of an account, with its roles and all that they permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: UserId,
    /// The id that the application gave it.
    pub app_id: Option<String>,
    /// Its name, as it was typed.
    pub name: String,
    /// Its e-mail address, verified or not.
    pub email: Option<String>,
    /// Whether its owner proved to have that address.
    pub email_verified: bool,
    /// Its roles, by name.
    pub roles: Vec<String>,
    /// What its roles permit, sorted, each once.
    pub permissions: Vec<String>,
    /// When it was disabled.
    pub disabled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its password was set.
    pub password_at: Timestamp,
    /// Access tokens that were issued until then are refused.
    pub(super) tokens_from: i64,
    /// A hash of its roles and permissions.
    pub(super) rights: [u8; 32],
}

impl Account {
    pub(super) fn of(row: users::Model, roles: Vec<roles::Model>) -> Self {
        let mut permissions: Vec<String> =
            roles.iter().flat_map(|role| role.permissions.split_whitespace()).map(Into::into).collect();
        permissions.sort_unstable();
        permissions.dedup();
        let roles: Vec<String> = roles.into_iter().map(|role| role.name).collect();
        Self {
            rights: super::rotation::rights(&roles, &permissions),
            id: UserId(row.id),
            app_id: row.app_id,
            name: row.name,
            email_verified: row.email_verified_at.is_some(),
            email: row.email,
            roles,
            permissions,
            disabled_at: row.disabled_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            password_at: Timestamp(row.password_at),
            tokens_from: row.tokens_from,
        }
    }

    /// Its e-mail address, if its owner proved to have it.
    pub fn verified_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified)
    }

    /// Whether it has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known == role)
    }

    /// Whether one of its roles permits something.
    pub fn may(&self, permission: &str) -> bool {
        self.permissions.binary_search_by(|known| known.as_str().cmp(permission)).is_ok()
    }

    /// What operators see of it, in commands, in the administrators' calls and in an export.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "app_id": self.app_id,
            "username": self.name,
            "email": self.email,
            "email_verified": self.email_verified,
            "roles": self.roles,
            "permissions": self.permissions,
            "created": rfc3339(self.created_at),
            "disabled": !self.is_enabled(),
            "disabled_at": self.disabled_at.map(rfc3339),
        })
    }

    /// Whether it may do anything at all.
    pub const fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

/// A time as JSON has it, to the second.
pub fn rfc3339(at: Timestamp) -> String {
    let whole_seconds = at.date().replace_nanosecond(0).unwrap_or(at.date());
    whole_seconds.format(&Rfc3339).unwrap_or_default()
}

pub(super) async fn load(conn: &impl Conn, id: Uuid) -> Result<Option<Account>, Trouble> {
    let Some(row) = users::by_id(conn, id).await? else { return Ok(None) };
    let roles = roles::of_user(conn, id).await?;
    Ok(Some(Account::of(row, roles)))
}

/// Rows of the database in memory, as long as the feed does not say that they changed.
///
/// The order of things keeps out a row that was read before a change and arrives after it: whoever fills the cache puts
/// the row in and then looks whether anything was forgotten meanwhile; whoever forgets counts first and then removes.
pub(super) struct Rows<K, V> {
    rows: Cache<K, V>,
    forgotten: AtomicU64,
}

impl<K: Hash + Eq + Clone, V: Clone> Rows<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { rows: Cache::new(most), forgotten: AtomicU64::new(0) }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.rows.get(key)
    }

    /// To be taken before the database is asked.
    pub(super) fn mark(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    pub(super) fn fill(&self, mark: u64, key: K, value: V) {
        self.rows.insert(key.clone(), value);
        if self.mark() != mark {
            self.rows.remove(&key);
        }
    }

    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.rows.remove(key);
    }

    pub(super) fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.rows.clear();
    }
}

/// Accounts by id.
pub(super) type Accounts = Rows<Uuid, Arc<Account>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_read_before_a_change_is_not_kept() {
        let rows: Rows<u8, u8> = Rows::new(10);
        let mark = rows.mark();
        rows.fill(mark, 1, 1);
        assert_eq!(rows.get(&1), Some(1));
        let mark = rows.mark();
        rows.forget(&1);
        rows.fill(mark, 1, 1);
        assert_eq!(rows.get(&1), None, "read before the change, filled after it");
        rows.fill(rows.mark(), 1, 2);
        assert_eq!(rows.get(&1), Some(2));
        rows.forget_all();
        assert_eq!(rows.get(&1), None);
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = UserId(Uuid::now_v7());
        assert_eq!(UserId::parse(&id.to_string()), Some(id));
        for text in [id.to_string().to_uppercase(), id.0.simple().to_string(), format!("{{{id}}}"), String::new()] {
            assert_eq!(UserId::parse(&text), None, "{text}");
        }
    }
}
