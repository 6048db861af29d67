//! Roles, what they permit, and who has them.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::{all, delete as delete_rows, insert as insert_row, one};
use crate::{Conn, Result, Tx};

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_role")]
pub struct Model {
    /// Its name, as a policy writes it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// Its permissions, with spaces between them.
    pub permissions: String,
    /// When it was made.
    pub created_at: i64,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Who has a role.
pub mod held {
    use sea_orm::entity::prelude::*;

    /// One account's one role.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "palisade_user_role")]
    pub struct Model {
        /// The account.
        #[sea_orm(primary_key, auto_increment = false)]
        pub user: Uuid,
        /// The role.
        #[sea_orm(primary_key, auto_increment = false)]
        pub role: String,
    }

    /// None: the tables are joined by hand.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Stores a new one.
///
/// # Errors
/// [`Error::Conflict`](crate::Error::Conflict).
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    insert_row(tx, row).await
}

/// By its name.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn by_name(conn: &impl Conn, name: &str) -> Result<Option<Model>> {
    if !super::storable(name) {
        return Ok(None);
    }
    one(conn, Entity::find_by_id(name)).await
}

/// All roles, by name.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn list(conn: &impl Conn) -> Result<Vec<Model>> {
    all(conn, Entity::find().order_by_asc(Column::Name)).await
}

/// Sets what a role permits. `false`: there is none of that name.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn permit(tx: &Tx, name: &str, permissions: &str) -> Result<bool> {
    if !super::storable(name) {
        return Ok(false);
    }
    let set = Entity::update_many().col_expr(Column::Permissions, sea_orm::sea_query::Expr::value(permissions));
    Ok(super::update(tx, set.filter(Column::Name.eq(name))).await? == 1)
}

/// Deletes a role; nobody has it any more then.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn delete(tx: &Tx, name: &str) -> Result<bool> {
    if !super::storable(name) {
        return Ok(false);
    }
    Ok(delete_rows(tx, Entity::delete_many().filter(Column::Name.eq(name))).await? == 1)
}

/// The roles of an account, by name.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn of_user(conn: &impl Conn, user: Uuid) -> Result<Vec<Model>> {
    let held = held::Entity::find().filter(held::Column::User.eq(user)).limit(1000);
    let names: Vec<String> = all(conn, held).await?.into_iter().map(|held| held.role).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    all(conn, Entity::find().filter(Column::Name.is_in(names)).order_by_asc(Column::Name)).await
}

/// How many accounts have a role.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn holders(conn: &impl Conn, role: &str, limit: u64) -> Result<Vec<Uuid>> {
    let held = held::Entity::find().filter(held::Column::Role.eq(role)).limit(limit);
    Ok(all(conn, held).await?.into_iter().map(|held| held.user).collect())
}

/// Gives an account these roles and takes all others.
///
/// # Errors
/// [`Error::Orphan`](crate::Error::Orphan) where a role does not exist.
pub async fn set(tx: &Tx, user: Uuid, roles: &[String]) -> Result<()> {
    delete_rows(tx, held::Entity::delete_many().filter(held::Column::User.eq(user))).await?;
    for role in roles {
        insert_row(tx, held::Model { user, role: role.clone() }).await?;
    }
    Ok(())
}
