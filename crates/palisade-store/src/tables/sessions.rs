//! Sessions of browsers.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_session")]
pub struct Model {
    /// Its id, which may be shown.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// The hash of the secret in the cookie.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: i64,
    /// When its user last proved who they are.
    pub authenticated_at: i64,
    /// When it was last used, to the minute.
    pub seen_at: i64,
    /// How long it lives without use.
    pub idle_ms: i64,
    /// When it ends in any case.
    pub ends_at: i64,
    /// Whether the cookie outlives the browser.
    pub remember: bool,
    /// From where it was made.
    pub address: String,
    /// What it was made with, for people.
    pub device: String,
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

/// By the hash of its secret.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_hash(conn: &impl Conn, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(conn, Entity::find().filter(Column::Hash.eq(hash.to_vec()))).await
}

/// By its id.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_id(conn: &impl Conn, id: Uuid) -> Result<Option<Model>> {
    one(conn, Entity::find_by_id(id)).await
}

/// The sessions of an account, youngest first.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user(conn: &impl Conn, user: Uuid, limit: u64) -> Result<Vec<Model>> {
    all(conn, Entity::find().filter(Column::User.eq(user)).order_by_desc(Column::Id).limit(limit)).await
}

/// So many sessions behind an id.
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

/// Gives it another secret: the old one is worth nothing from now on. `authenticated_at` where its user has just proved
/// who they are. `false`: it is not there, or has another secret already.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn rotate(tx: &Tx, id: Uuid, from: &[u8; 32], to: &[u8; 32], authenticated_at: Option<i64>) -> Result<bool> {
    let mut set = Entity::update_many().col_expr(Column::Hash, Expr::value(to.to_vec()));
    if let Some(at) = authenticated_at {
        set = set.col_expr(Column::AuthenticatedAt, Expr::value(at));
    }
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::Hash.eq(from.to_vec()))).await? == 1)
}

/// Notes a use. Never goes back.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn seen(tx: &Tx, id: Uuid, at: i64) -> Result<()> {
    let set = Entity::update_many().col_expr(Column::SeenAt, Expr::value(at));
    update(tx, set.filter(Column::Id.eq(id)).filter(Column::SeenAt.lt(at))).await.map(|_| ())
}

/// Ends one. `false`: it was not there.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn end(tx: &Tx, id: Uuid) -> Result<bool> {
    Ok(delete_rows(tx, Entity::delete_many().filter(Column::Id.eq(id))).await? == 1)
}

/// Ends all of an account but one.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn end_all(tx: &Tx, user: Uuid, except: Option<Uuid>) -> Result<u64> {
    let mut gone = Entity::delete_many().filter(Column::User.eq(user));
    if let Some(except) = except {
        gone = gone.filter(Column::Id.ne(except));
    }
    delete_rows(tx, gone).await
}

/// Forgets those whose time is over.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, now: i64) -> Result<u64> {
    let idle_over = Expr::col(Column::SeenAt).add(Expr::col(Column::IdleMs)).lt(now);
    let over = sea_orm::Condition::any().add(Column::EndsAt.lt(now)).add(idle_over);
    delete_rows(tx, Entity::delete_many().filter(over)).await
}
