//! A module a table: its row, and what is asked of it.
//!
//! Times are milliseconds since the Unix epoch, lists of words are one text with spaces between them, secrets are
//! hashes. Functions that write take a [`Tx`](crate::Tx).

pub mod attempts;
pub mod changes;
pub mod clients;
pub mod codes;
pub mod consents;
pub mod devices;
pub mod families;
pub mod keys;
pub mod links;
pub mod roles;
pub mod sessions;
pub mod users;

use sea_orm::{DeleteMany, EntityTrait, FromQueryResult, Insert, IntoActiveModel, ModelTrait, Select, UpdateMany};

use crate::connection::{bounded, sealed::Sealed};
use crate::{Conn, Result};

async fn one<E>(conn: &impl Conn, select: Select<E>) -> Result<Option<E::Model>>
where
    E: EntityTrait<Model: FromQueryResult + Sync>,
{
    bounded(Sealed::deadline(conn), select.one(Sealed::db(conn))).await
}

async fn all<E>(conn: &impl Conn, select: Select<E>) -> Result<Vec<E::Model>>
where
    E: EntityTrait<Model: FromQueryResult + Sync>,
{
    bounded(Sealed::deadline(conn), select.all(Sealed::db(conn))).await
}

async fn insert<M>(tx: &crate::Tx, row: M) -> Result<()>
where
    M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel>,
    <M::Entity as EntityTrait>::ActiveModel: Send,
{
    let insert: Insert<_> = M::Entity::insert(row.into_active_model());
    bounded(Sealed::deadline(tx), insert.exec_without_returning(Sealed::db(tx))).await.map(|_| ())
}

async fn update<E: EntityTrait>(tx: &crate::Tx, update: UpdateMany<E>) -> Result<u64> {
    bounded(Sealed::deadline(tx), update.exec(Sealed::db(tx))).await.map(|done| done.rows_affected)
}

async fn delete<E: EntityTrait>(tx: &crate::Tx, delete: DeleteMany<E>) -> Result<u64> {
    bounded(Sealed::deadline(tx), delete.exec(Sealed::db(tx))).await.map(|done| done.rows_affected)
}
