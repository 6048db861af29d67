//! Counters of attempts to guess a secret.

use sea_orm::FromQueryResult as _;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait as _, InsertStatement, OnConflict, Query};

use super::{delete as delete_rows, update};
use crate::connection::{bounded, sealed::Sealed};
use crate::{Result, Tx};

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_attempt")]
pub struct Model {
    /// What is counted: a hash.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: Vec<u8>,
    /// When its window began.
    pub since: i64,
    /// How many attempts were made in it.
    pub count: i32,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Counts one attempt under each key and says how many there are in each window, this one included. One statement: of
/// any number at once, each gets a number of its own.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn count(tx: &Tx, keys: &[[u8; 32]], now: i64, window_ms: i64) -> Result<Vec<Model>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    // In one order, so that two transactions never wait for each other in a circle.
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    let over = Expr::col((Entity, Column::Since)).lte(now.saturating_sub(window_ms));
    let counted = Expr::case(over.clone(), 1).finally(Expr::col((Entity, Column::Count)).add(1));
    let since = Expr::case(over, now).finally(Expr::col((Entity, Column::Since)));
    let conflict = OnConflict::column(Column::Key).value(Column::Count, counted).value(Column::Since, since).to_owned();
    let mut insert: InsertStatement = Query::insert();
    insert.into_table(Entity).columns([Column::Key, Column::Since, Column::Count]);
    for key in keys {
        insert.values_panic([key.to_vec().into(), now.into(), 1_i32.into()]);
    }
    insert.on_conflict(conflict).returning_all();
    let rows = bounded(Sealed::deadline(tx), Sealed::db(tx).query_all(&insert)).await?;
    rows.iter().map(|row| Ok(Model::from_query_result(row, "")?)).collect()
}

/// Sets a counter back.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn forget(tx: &Tx, key: &[u8; 32]) -> Result<()> {
    delete_rows(tx, Entity::delete_many().filter(Column::Key.eq(key.to_vec()))).await.map(|_| ())
}

/// Takes one attempt back.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn refund(tx: &Tx, key: &[u8; 32]) -> Result<()> {
    let set = Entity::update_many().col_expr(Column::Count, Expr::col(Column::Count).sub(1));
    update(tx, set.filter(Column::Key.eq(key.to_vec())).filter(Column::Count.gt(0))).await.map(|_| ())
}

/// Forgets counters whose window began before a time.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, before: i64) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::Since.lt(before))).await
}
