//! Families of refresh tokens.

use std::fmt;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect, Select};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One family.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_family")]
pub struct Model {
    /// Its id, which its tokens name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// The client that it was given to; empty for a password login.
    pub client: String,
    /// What it may be used for at most; empty for all that its user may.
    pub scope: String,
    /// For whom its access tokens are, with spaces between; empty for the default.
    pub audience: String,
    /// Goes up with each change.
    pub version: i64,
    /// The family itself, as `palisade-identity` writes it.
    pub record: Vec<u8>,
    /// When its user proved who they are.
    pub authenticated_at: i64,
    /// When it was made.
    pub created_at: i64,
    /// When it was last used.
    pub seen_at: i64,
    /// From then on it may be forgotten.
    pub ends_at: i64,
    /// When it ended before its time.
    pub ended_at: Option<i64>,
    /// From where it was made.
    pub address: String,
    /// What it was made with, for people.
    pub device: String,
}

/// Without the record, whose key makes tags.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("id", &self.id).field("version", &self.version).finish_non_exhaustive()
    }
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
pub async fn by_id(conn: &impl Conn, id: Uuid) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id(id)).await
}

/// By its id, and nobody else's until the transaction ends: of many refreshes at once, each waits for the one before
/// instead of being told to try again.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn lock(tx: &Tx, id: Uuid) -> Result<Option<Model>> {
    one(tx, Entity::find_by_id(id).lock_exclusive()).await
}

/// Those of an account that go on, youngest first.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user(conn: &impl Conn, user: Uuid, limit: u64) -> Result<Vec<Model>> {
    all(conn, youngest_first(user).limit(limit)).await
}

fn youngest_first(user: Uuid) -> Select<Entity> {
    let open = Entity::find().filter(Column::User.eq(user)).filter(Column::EndedAt.is_null());
    open.order_by_desc(Column::CreatedAt).order_by_asc(Column::Id)
}

/// The ids of those of an account that go on, but for the `first` youngest.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user_from(conn: &impl Conn, user: Uuid, first: u64, limit: u64) -> Result<Vec<Uuid>> {
    let older = all(conn, youngest_first(user).offset(first).limit(limit)).await?;
    let mut ids: Vec<Uuid> = older.into_iter().map(|row| row.id).collect();
    // In the order in which all others end them: two orders of locks would wait for each other.
    ids.sort_unstable();
    Ok(ids)
}

/// So many that go on, oldest first.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn list(conn: &impl Conn, limit: u64) -> Result<Vec<Model>> {
    all(conn, Entity::find().filter(Column::EndedAt.is_null()).order_by_asc(Column::Id).limit(limit)).await
}

/// Whose families.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    /// An account's.
    User(Uuid),
    /// A client's.
    Client(&'a str),
    /// Those that a client has of an account.
    Both(Uuid, &'a str),
}

/// The ids of those that go on, so many from the first after `after`: page by page all of them, however many there are.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn open_after(conn: &impl Conn, of: Of<'_>, after: Option<Uuid>, limit: u64) -> Result<Vec<Uuid>> {
    let (user, client) = match of {
        Of::User(user) => (Some(user), None),
        Of::Client(client) => (None, Some(client)),
        Of::Both(user, client) => (Some(user), Some(client)),
    };
    if client.is_some_and(|client| !super::storable(client)) {
        return Ok(Vec::new());
    }
    let mut open = Entity::find().filter(Column::EndedAt.is_null());
    if let Some(user) = user {
        open = open.filter(Column::User.eq(user));
    }
    if let Some(client) = client {
        open = open.filter(Column::Client.eq(client));
    }
    if let Some(after) = after {
        open = open.filter(Column::Id.gt(after));
    }
    let rows = all(conn, open.order_by_asc(Column::Id).limit(limit)).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Compare and swap: stores the record in place of the one of version `from`. `false`: somebody was faster, read again.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn swap(
    tx: &Tx,
    id: Uuid,
    from: i64,
    to: i64,
    record: Vec<u8>,
    seen_at: i64,
    ended_at: Option<i64>,
) -> Result<bool> {
    let set = Entity::update_many()
        .col_expr(Column::Version, Expr::value(to))
        .col_expr(Column::Record, Expr::value(record))
        .col_expr(Column::SeenAt, Expr::value(seen_at))
        .col_expr(Column::EndedAt, Expr::value(ended_at));
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::Version.eq(from))).await? == 1)
}

/// Those with an encrypted successor whose grace is over: last used before `before`, and maybe to be tidied.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn used_between(conn: &impl Conn, from: i64, before: i64, limit: u64) -> Result<Vec<Model>> {
    let used = Entity::find().filter(Column::SeenAt.gte(from)).filter(Column::SeenAt.lt(before));
    all(conn, used.order_by_asc(Column::SeenAt).limit(limit)).await
}

/// Forgets those whose time is over: nothing that they issued could still be presented as valid.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, now: i64) -> Result<u64> {
    delete_rows(tx, Entity::delete_many().filter(Column::EndsAt.lt(now))).await
}
