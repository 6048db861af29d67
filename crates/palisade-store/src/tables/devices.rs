//! Devices on which an account was used before.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One account on one device.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_device")]
pub struct Model {
    /// The account.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user: Uuid,
    /// The hash of the secret in the device's cookie.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    /// When it was first used.
    pub created_at: i64,
    /// When it was last used.
    pub seen_at: i64,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Whether an account was used on a device.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn find(conn: &impl Conn, user: Uuid, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id((user, hash.to_vec()))).await
}

/// Whether an account was used on any device.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn any(conn: &impl Conn, user: Uuid) -> Result<bool> {
    Ok(one(conn, Entity::find().filter(Column::User.eq(user)).limit(1)).await?.is_some())
}

/// Notes a use, and forgets all but the latest `keep` of the account.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn seen(tx: &Tx, user: Uuid, hash: &[u8; 32], now: i64, keep: u64) -> Result<()> {
    let set = Entity::update_many().col_expr(Column::SeenAt, Expr::value(now));
    let known = set.filter(Column::User.eq(user)).filter(Column::Hash.eq(hash.to_vec()));
    if update(tx, known).await? > 0 {
        return Ok(());
    }
    insert_row(tx, Model { user, hash: hash.to_vec(), created_at: now, seen_at: now }).await?;
    let of_user = Entity::find().filter(Column::User.eq(user)).order_by_desc(Column::SeenAt);
    for old in all(tx, of_user.offset(keep).limit(100)).await? {
        let gone = Entity::delete_many().filter(Column::User.eq(user)).filter(Column::Hash.eq(old.hash));
        delete_rows(tx, gone).await?;
    }
    Ok(())
}

/// Forgets all of an account.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn forget_all(tx: &Tx, user: Uuid) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::User.eq(user))).await
}

/// Forgets those not used since a time.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, before: i64) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::SeenAt.lt(before))).await
}
