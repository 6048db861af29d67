//! Accounts.

use std::fmt;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One account.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_user")]
pub struct Model {
    /// Never reused: `sub` of tokens, `X-Forwarded-User`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The id that the application gave it before it moved here.
    pub app_id: Option<String>,
    /// The name as it was typed.
    pub name: String,
    /// The name as it is compared.
    pub name_key: String,
    /// The e-mail address as it was typed.
    pub email: Option<String>,
    /// The e-mail address as it is compared.
    pub email_key: Option<String>,
    /// When its owner proved to have it.
    pub email_verified_at: Option<i64>,
    /// The hash of the password; none for an account that nobody can log in to by one.
    pub password: Option<String>,
    /// When the password was set.
    pub password_at: i64,
    /// When the account was disabled.
    pub disabled_at: Option<i64>,
    /// Access tokens that were issued before are refused.
    pub tokens_from: i64,
    /// When it was made.
    pub created_at: i64,
    /// When it was changed last.
    pub updated_at: i64,
    /// Until when its owner has to have proved the address; nobody may use it until then. None: it is to be used.
    pub pending_until: Option<i64>,
}

/// Without the hash.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A new account with an id of its own, without a name.
pub fn new(now: i64) -> Model {
    Model {
        id: Uuid::now_v7(),
        app_id: None,
        name: String::new(),
        name_key: String::new(),
        email: None,
        email_key: None,
        email_verified_at: None,
        password: None,
        password_at: now,
        disabled_at: None,
        tokens_from: 0,
        created_at: now,
        updated_at: now,
        pending_until: None,
    }
}

/// Stores a new one.
///
/// # Errors
/// [`Error::Conflict`](crate::Error::Conflict) of name, address or the application's id.
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    insert_row(tx, row).await
}

/// By its id.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_id(conn: &impl Conn, id: Uuid) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id(id)).await
}

/// By its id, and nobody else's to change until the transaction ends: whoever writes a whole row writes what was there when
/// it was read. Before any row of what belongs to the account is locked, so that no two wait for each other. Rows that refer
/// to it may be added meanwhile.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn lock(tx: &Tx, id: Uuid) -> Result<Option<Model>> {
    one(tx, Entity::find_by_id(id).lock(LockType::NoKeyUpdate)).await
}

/// By its name in canonical form.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_name(conn: &impl Conn, name_key: &str) -> Result<Option<Model>> {
    if !super::storable(name_key) {
        return Ok(None);
    }
    one(conn, Entity::find().filter(Column::NameKey.eq(name_key))).await
}

/// By its e-mail address in canonical form.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_email(conn: &impl Conn, email_key: &str) -> Result<Option<Model>> {
    if !super::storable(email_key) {
        return Ok(None);
    }
    one(conn, Entity::find().filter(Column::EmailKey.eq(email_key))).await
}

/// By the id that the application gave it.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_app_id(conn: &impl Conn, app_id: &str) -> Result<Option<Model>> {
    if !super::storable(app_id) {
        return Ok(None);
    }
    one(conn, Entity::find().filter(Column::AppId.eq(app_id))).await
}

/// So many accounts behind an id, in the order of their making.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn list(conn: &impl Conn, after: Option<Uuid>, limit: u64) -> Result<Vec<Model>> {
    let mut select = Entity::find().order_by_asc(Column::Id).limit(limit);
    if let Some(after) = after {
        select = select.filter(Column::Id.gt(after));
    }
    all(conn, select).await
}

/// Stores another hash of the same password: only where the one that was read is still there, for the password may have
/// been changed meanwhile.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn rehash(tx: &Tx, id: Uuid, before: &str, after: &str) -> Result<bool> {
    let set = Entity::update_many().col_expr(Column::Password, Expr::value(after));
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::Password.eq(before))).await? == 1)
}

/// Replaces a row, all but its id and the time of its making. `false`: it is gone.
///
/// # Errors
/// [`Error::Conflict`](crate::Error::Conflict).
pub async fn replace(tx: &Tx, row: Model) -> Result<bool> {
    let id = row.id;
    let set = Entity::update_many()
        .col_expr(Column::AppId, Expr::value(row.app_id))
        .col_expr(Column::Name, Expr::value(row.name))
        .col_expr(Column::NameKey, Expr::value(row.name_key))
        .col_expr(Column::Email, Expr::value(row.email))
        .col_expr(Column::EmailKey, Expr::value(row.email_key))
        .col_expr(Column::EmailVerifiedAt, Expr::value(row.email_verified_at))
        .col_expr(Column::Password, Expr::value(row.password))
        .col_expr(Column::PasswordAt, Expr::value(row.password_at))
        .col_expr(Column::DisabledAt, Expr::value(row.disabled_at))
        .col_expr(Column::TokensFrom, Expr::value(row.tokens_from))
        .col_expr(Column::UpdatedAt, Expr::value(row.updated_at))
        .col_expr(Column::PendingUntil, Expr::value(row.pending_until));
    Ok(update(tx, set.filter(Column::Id.eq(id))).await? == 1)
}

/// Those whose address was not proved in time, a thousand at most.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn unproved(conn: &impl Conn, now: i64) -> Result<Vec<Model>> {
    all(conn, Entity::find().filter(Column::PendingUntil.lt(now)).limit(1000)).await
}

/// Deletes it with all that belongs to it. `false`: it was not there.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete(tx: &Tx, id: Uuid) -> Result<bool> {
    Ok(delete_rows(tx, Entity::delete_many().filter(Column::Id.eq(id))).await? == 1)
}
