//! Clients of OAuth.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one, update};
use crate::{Conn, Result, Tx};

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_client")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// What people call it, as the consent page shows it.
    pub name: String,
    /// How it proves who it is: `none`, `client_secret_basic`, `client_secret_post`, `private_key_jwt`.
    pub method: String,
    /// The hash of its secret.
    pub secret: Option<Vec<u8>>,
    /// Its public keys, as a JWK set.
    pub jwks: Option<String>,
    /// Where it may be sent back to, a line each, compared as bytes.
    pub redirects: String,
    /// The grants that it may use.
    pub grants: String,
    /// What it may ask for.
    pub scopes: String,
    /// Whom its tokens may be for, with spaces between; empty: the API.
    pub audience: String,
    /// Whether it is the operator's own: its users are not asked for consent.
    pub trusted: bool,
    /// When it was made.
    pub created_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
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
    one(conn, Entity::find_by_id(id)).await
}

/// All clients, by id.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn list(conn: &impl Conn, limit: u64) -> Result<Vec<Model>> {
    all(conn, Entity::find().order_by_asc(Column::Id).limit(limit)).await
}

/// Revokes one. It stays, so that its id is never given again. `false`: there is none that goes on.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn revoke(tx: &Tx, id: &str, now: i64) -> Result<bool> {
    let set = Entity::update_many().col_expr(Column::RevokedAt, Expr::value(now));
    Ok(update(tx, set.filter(Column::Id.eq(id)).filter(Column::RevokedAt.is_null())).await? == 1)
}

/// A `jti` that a client signed, so that no assertion comes twice.
pub mod assertions {
    use sea_orm::entity::prelude::*;

    /// One assertion.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "palisade_assertion")]
    pub struct Model {
        /// The hash of client and `jti`.
        #[sea_orm(primary_key, auto_increment = false)]
        pub hash: Vec<u8>,
        /// When it ends.
        pub until: i64,
    }

    /// None: the tables are joined by hand.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Notes an assertion.
///
/// # Errors
/// [`Error::Conflict`](crate::Error::Conflict) where it came before.
pub async fn assert_once(tx: &Tx, hash: &[u8; 32], until: i64) -> Result<()> {
    insert_row(tx, assertions::Model { hash: hash.to_vec(), until }).await
}

/// Forgets assertions whose time is over.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, now: i64) -> Result<u64> {
    delete_rows(tx, assertions::Entity::delete_many().filter(assertions::Column::Until.lt(now))).await
}
