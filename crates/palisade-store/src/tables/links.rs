//! Links that work once: to verify an address, to set a password, to move to another address, to set up.

use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;

use super::{delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_link")]
pub struct Model {
    /// The hash of its secret, which says what it is for.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    /// What it is for, so that the older ones of one purpose can be ended.
    pub purpose: String,
    /// Whose; none for the link that sets up.
    pub user: Option<Uuid>,
    /// The address that it was sent to, as it is shown.
    pub email: Option<String>,
    /// When it ends.
    pub expires_at: i64,
    /// When it was used.
    pub used_at: Option<i64>,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Stores a new one; those of the same purpose and account that were not used end.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    let older = Entity::delete_many().filter(Column::Purpose.eq(row.purpose.as_str())).filter(Column::UsedAt.is_null());
    let older = match row.user {
        Some(user) => older.filter(Column::User.eq(user)),
        None => older.filter(Column::User.is_null()),
    };
    delete_rows(tx, older).await?;
    insert_row(tx, row).await
}

/// By its hash, without using it.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_hash(conn: &impl Conn, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id(hash.to_vec())).await
}

/// By its hash, and nobody else's until the transaction ends.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn lock(tx: &Tx, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(tx, Entity::find_by_id(hash.to_vec()).lock_exclusive()).await
}

/// Notes its use. `false`: it was used before.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn used(tx: &Tx, hash: &[u8; 32], now: i64) -> Result<bool> {
    let set = Entity::update_many().col_expr(Column::UsedAt, Expr::value(now));
    Ok(update(tx, set.filter(Column::Hash.eq(hash.to_vec())).filter(Column::UsedAt.is_null())).await? == 1)
}

/// Ends all links of an account.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete_all(tx: &Tx, user: Uuid) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::User.eq(user))).await
}

/// Takes back those of one purpose that an account did not use.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn withdraw(tx: &Tx, user: Uuid, purpose: &str) -> Result<u64> {
    let unused = Entity::delete_many().filter(Column::User.eq(user)).filter(Column::Purpose.eq(purpose));
    delete_rows(tx, unused.filter(Column::UsedAt.is_null())).await
}

/// Forgets those that ended before a time.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, before: i64) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::ExpiresAt.lt(before))).await
}
