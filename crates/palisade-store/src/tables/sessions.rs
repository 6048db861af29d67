//! Sessions of browsers.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{Condition, QueryOrder, QuerySelect, Select};

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
    /// The hash of what its user could do when the secret was given out. None: an older release made it.
    pub rights: Option<Vec<u8>>,
    /// The hash of the secret before.
    pub spent: Option<Vec<u8>>,
    /// Until when that one may still come.
    pub spent_until: Option<i64>,
    /// And from where.
    pub spent_place: Option<Vec<u8>>,
    /// The secret, for whoever holds the one before; none once it was used.
    pub successor: Option<Vec<u8>>,
}

/// How a session gets another secret.
#[derive(Debug)]
pub struct Turn {
    /// The hash of the secret that it has now: it is replaced only where it is still this one.
    pub from: Vec<u8>,
    /// The hash of the next one.
    pub to: Vec<u8>,
    /// When its user has just proved who they are.
    pub authenticated_at: Option<i64>,
    /// The hash of what its user can do now.
    pub rights: Vec<u8>,
    /// The grace of a secret before, if it has any.
    pub grace: Option<Grace>,
}

/// How a secret that was replaced goes on for a moment.
#[derive(Debug)]
pub struct Grace {
    /// Its hash.
    pub spent: Vec<u8>,
    /// Until when.
    pub until: i64,
    /// From where.
    pub place: Vec<u8>,
    /// The next one, for whoever holds this one.
    pub successor: Vec<u8>,
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

/// By the hash of its secret, or of the one before.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_secret(conn: &impl Conn, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(conn, of_secret(hash)).await
}

/// The same, and nobody else's until the transaction ends: of many requests at once, one gives it another secret, and the
/// others find that one.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn lock(tx: &Tx, hash: &[u8; 32]) -> Result<Option<Model>> {
    one(tx, of_secret(hash).lock_exclusive()).await
}

fn of_secret(hash: &[u8; 32]) -> Select<Entity> {
    let either = Condition::any().add(Column::Hash.eq(hash.to_vec())).add(Column::Spent.eq(hash.to_vec()));
    Entity::find().filter(either)
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

/// Gives it another secret. `false`: it is not there, or has another one already.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn turn(tx: &Tx, id: Uuid, turn: Turn) -> Result<bool> {
    let Turn { from, to, authenticated_at, rights, grace } = turn;
    let (spent, until, place, successor) = match grace {
        None => (None, None, None, None),
        Some(Grace { spent, until, place, successor }) => (Some(spent), Some(until), Some(place), Some(successor)),
    };
    let mut set = Entity::update_many()
        .col_expr(Column::Hash, Expr::value(to))
        .col_expr(Column::Rights, Expr::value(rights))
        .col_expr(Column::Spent, Expr::value(spent))
        .col_expr(Column::SpentUntil, Expr::value(until))
        .col_expr(Column::SpentPlace, Expr::value(place))
        .col_expr(Column::Successor, Expr::value(successor));
    if let Some(at) = authenticated_at {
        set = set.col_expr(Column::AuthenticatedAt, Expr::value(at));
    }
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::Hash.eq(from))).await? == 1)
}

/// Its secret has been used: it is not given again to whoever holds the one before.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn arrived(tx: &Tx, id: Uuid) -> Result<()> {
    let set = Entity::update_many().col_expr(Column::Successor, Expr::value(None::<Vec<u8>>));
    update(tx, set.filter(Column::Id.eq(id))).await.map(|_| ())
}

/// Forgets the encrypted secrets that nobody can ask for any more.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn tidy(tx: &Tx, now: i64) -> Result<u64> {
    let set = Entity::update_many().col_expr(Column::Successor, Expr::value(None::<Vec<u8>>));
    update(tx, set.filter(Column::Successor.is_not_null()).filter(Column::SpentUntil.lt(now))).await
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
    let over = Condition::any().add(Column::EndsAt.lt(now)).add(idle_over);
    delete_rows(tx, Entity::delete_many().filter(over)).await
}
