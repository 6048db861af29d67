//! Authorization codes.

use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;

use super::{delete as delete_rows, insert as insert_row, one, update};
use crate::{Result, Tx};

/// One code.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_code")]
pub struct Model {
    /// The hash of its text.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    /// The client that it was given to.
    pub client: String,
    /// Whose login it is.
    pub user: Uuid,
    /// Where it was sent to.
    pub redirect: String,
    /// What was granted.
    pub scope: String,
    /// Whom the tokens are for, with spaces between; empty: the API.
    pub audience: String,
    /// The challenge of PKCE: SHA-256.
    pub challenge: Vec<u8>,
    /// What an ID token will repeat.
    pub nonce: Option<String>,
    /// When the user proved who they are.
    pub authenticated_at: i64,
    /// When it ends.
    pub expires_at: i64,
    /// When it was used.
    pub used_at: Option<i64>,
    /// The family that its use began: ended when the code comes again.
    pub family: Option<Uuid>,
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
pub async fn used(tx: &Tx, hash: &[u8; 32], now: i64, family: Option<Uuid>) -> Result<bool> {
    let set =
        Entity::update_many().col_expr(Column::UsedAt, Expr::value(now)).col_expr(Column::Family, Expr::value(family));
    Ok(update(tx, set.filter(Column::Hash.eq(hash.to_vec())).filter(Column::UsedAt.is_null())).await? == 1)
}

/// Takes back those of an account that were not used, or those that one client has of it.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn withdraw(tx: &Tx, user: Uuid, client: Option<&str>) -> Result<u64> {
    if client.is_some_and(|client| !super::storable(client)) {
        return Ok(0);
    }
    let mut unused = Entity::delete_many().filter(Column::User.eq(user)).filter(Column::UsedAt.is_null());
    if let Some(client) = client {
        unused = unused.filter(Column::Client.eq(client));
    }
    delete_rows(tx, unused).await
}

/// Forgets those that ended before a time. Used ones are kept for a while, to know them again.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, before: i64) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::ExpiresAt.lt(before))).await
}
