//! API keys.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_key")]
pub struct Model {
    /// Its id, a part of its text.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Whose.
    pub user: Uuid,
    /// What its user calls it.
    pub name: String,
    /// What it may be used for, with spaces between.
    pub scopes: String,
    /// Its own rate limit.
    pub rate: Option<String>,
    /// The hash of its secret.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was last used, to the minute.
    pub used_at: Option<i64>,
    /// The key that takes its place: this one lives on for the time of overlap.
    pub successor: Option<String>,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Stores a new one.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    insert_row(tx, row).await
}

/// By its id.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_id(conn: &impl Conn, id: &str) -> Result<Option<Model>> {
    if !super::storable(id) {
        return Ok(None);
    }
    one(conn, Entity::find_by_id(id)).await
}

/// The keys of an account, youngest first.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user(conn: &impl Conn, user: Uuid, limit: u64) -> Result<Vec<Model>> {
    let keys = Entity::find().filter(Column::User.eq(user));
    all(conn, keys.order_by_desc(Column::CreatedAt).order_by_asc(Column::Id).limit(limit)).await
}

/// So many keys behind an id.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn list(conn: &impl Conn, after: Option<&str>, limit: u64) -> Result<Vec<Model>> {
    let mut select = Entity::find().order_by_asc(Column::Id).limit(limit);
    if let Some(after) = after {
        select = select.filter(Column::Id.gt(after));
    }
    all(conn, select).await
}

/// Lets another key take its place, and ends it at a time. `false`: it is not there, or was replaced already.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn replace(tx: &Tx, id: &str, successor: &str, expires_at: i64) -> Result<bool> {
    let set = Entity::update_many()
        .col_expr(Column::Successor, Expr::value(successor))
        .col_expr(Column::ExpiresAt, Expr::value(expires_at));
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::Successor.is_null())).await? == 1)
}

/// Notes a use. Never goes back.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn used(tx: &Tx, id: &str, at: i64) -> Result<()> {
    let earlier = sea_orm::Condition::any().add(Column::UsedAt.is_null()).add(Column::UsedAt.lt(at));
    let set = Entity::update_many().col_expr(Column::UsedAt, Expr::value(at));
    update(tx, set.filter(Column::Id.eq(id)).filter(earlier)).await.map(|_| ())
}

/// Deletes one. `false`: it was not there.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete(tx: &Tx, id: &str) -> Result<bool> {
    Ok(delete_rows(tx, Entity::delete_many().filter(Column::Id.eq(id))).await? == 1)
}

/// Deletes all of an account.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete_all(tx: &Tx, user: Uuid) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::User.eq(user))).await
}
