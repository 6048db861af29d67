//! Migrations, in order. One that was published is never changed; the next one comes behind it.
//!
//! A migration works with the previous release running beside it (spec section 15): it adds tables, columns that may be
//! empty and indexes; what is no longer used is dropped one release later.

mod m2026_11_29_identity;
mod m2026_11_29_pending;
mod m2026_11_29_rights;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use sea_orm::sea_query::{ColumnDef, Expr, ExprTrait as _, Func, Query, Table};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// One step forward.
pub(crate) struct Migration {
    /// As the database remembers it.
    pub(crate) name: &'static str,
    statements: fn(DbBackend) -> Vec<Statement>,
}

/// All of them.
pub(crate) const ALL: &[Migration] =
    &[m2026_11_29_identity::MIGRATION, m2026_11_29_pending::MIGRATION, m2026_11_29_rights::MIGRATION];

/// A database may be shared with the application: every table of ours begins with `palisade_`.
const TABLE: &str = "palisade_migration";

/// What has not run on this database yet. Changes nothing, not even where no table is there.
///
/// # Errors
/// When the database cannot be asked.
pub(crate) async fn pending(db: &impl ConnectionTrait) -> Result<Vec<&'static Migration>, DbErr> {
    let done = match remembers(db).await? {
        true => names(db).await?,
        false => Vec::new(),
    };
    Ok(ALL.iter().filter(|migration| !done.iter().any(|name| name == migration.name)).collect())
}

/// Runs so many of those that are pending. To be called in a transaction: half a migration is none.
///
/// # Errors
/// When a statement fails.
pub(crate) async fn up(db: &impl ConnectionTrait, most: usize) -> Result<(), DbErr> {
    let table = Table::create()
        .table(TABLE)
        .if_not_exists()
        .col(ColumnDef::new("version").string().not_null().primary_key())
        .col(ColumnDef::new("applied_at").big_integer().not_null())
        .to_owned();
    db.execute(&table).await?;
    for migration in pending(db).await?.into_iter().take(most) {
        for statement in (migration.statements)(db.get_database_backend()) {
            db.execute_raw(statement).await?;
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let mut done = Query::insert();
        done.into_table(TABLE).columns(["version", "applied_at"]);
        done.values_panic([migration.name.into(), i64::try_from(now).unwrap_or(i64::MAX).into()]);
        db.execute(&done).await?;
    }
    Ok(())
}

async fn names(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let rows = db.query_all(Query::select().column("version").from(TABLE)).await?;
    rows.iter().map(|row| row.try_get("", "version")).collect()
}

/// Whether the table of what has run is there, in the schema that is written to.
async fn remembers(db: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let mut found = Query::select();
    found.expr(Expr::val(1));
    match db.get_database_backend() {
        DbBackend::Sqlite => found.from("sqlite_master").and_where(Expr::col("type").eq("table")),
        _ => found
            .from(("information_schema", "tables"))
            .and_where(Expr::col("table_schema").eq(Func::cust("current_schema"))),
    };
    let name = if db.get_database_backend() == DbBackend::Sqlite { "name" } else { "table_name" };
    found.and_where(Expr::col(name).eq(TABLE));
    Ok(db.query_one(&found).await?.is_some())
}
