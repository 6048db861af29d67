//! Accounts whose address has to be proved before anybody may use them.

use sea_orm::sea_query::{ColumnDef, Index, Table};
use sea_orm::{DbBackend, Statement};

use super::Migration;

pub(super) const MIGRATION: Migration = Migration { name: "m2026_11_29_pending", statements };

fn statements(backend: DbBackend) -> Vec<Statement> {
    // Empty for every account that is there, and for those that the release before makes.
    let mut column = ColumnDef::new("pending_until");
    let table = Table::alter().table("palisade_user").add_column(column.big_integer().null()).to_owned();
    let index =
        Index::create().name("palisade_user_pending_until_idx").table("palisade_user").col("pending_until").to_owned();
    vec![backend.build(&table), backend.build(&index)]
}
