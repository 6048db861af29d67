//! What users allowed clients.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One account's consent to one client.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_consent")]
pub struct Model {
    /// The account.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user: Uuid,
    /// The client.
    #[sea_orm(primary_key, auto_increment = false)]
    pub client: String,
    /// What was allowed.
    pub scope: String,
    /// When.
    pub at: i64,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// What an account allowed a client.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn find(conn: &impl Conn, user: Uuid, client: &str) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id((user, client.to_owned()))).await
}

/// What an account allowed to whom.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user(conn: &impl Conn, user: Uuid) -> Result<Vec<Model>> {
    all(conn, Entity::find().filter(Column::User.eq(user)).order_by_asc(Column::Client).limit(1000)).await
}

/// Stores it, in place of what was allowed before.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn set(tx: &Tx, row: Model) -> Result<()> {
    let set = Entity::update_many()
        .col_expr(Column::Scope, Expr::value(row.scope.as_str()))
        .col_expr(Column::At, Expr::value(row.at));
    let known = set.filter(Column::User.eq(row.user)).filter(Column::Client.eq(row.client.as_str()));
    if update(tx, known).await? == 0 {
        insert_row(tx, row).await?;
    }
    Ok(())
}

/// Takes it back. `false`: there was none.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete(tx: &Tx, user: Uuid, client: &str) -> Result<bool> {
    let gone = Entity::delete_many().filter(Column::User.eq(user)).filter(Column::Client.eq(client));
    Ok(delete_rows(tx, gone).await? == 1)
}

/// Takes all of an account back.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete_all(tx: &Tx, user: Uuid) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::User.eq(user))).await
}
