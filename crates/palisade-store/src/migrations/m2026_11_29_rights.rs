//! Sessions that get another secret when what their user may do has changed.

use sea_orm::sea_query::{ColumnDef, Index, Table};
use sea_orm::{DbBackend, Statement};

use super::Migration;

pub(super) const MIGRATION: Migration = Migration { name: "m2026_11_29_rights", statements };

fn statements(backend: DbBackend) -> Vec<Statement> {
    // Empty for every session that is there, and for those that the release before makes: their first use here gives
    // them another secret. One column a statement: SQLite takes no more.
    let add =
        |column: &mut ColumnDef| backend.build(&Table::alter().table("palisade_session").add_column(column).to_owned());
    let blobs = ["rights", "spent", "spent_place", "successor"];
    let mut all: Vec<Statement> = blobs.map(|name| add(ColumnDef::new(name).blob().null())).into();
    all.push(add(ColumnDef::new("spent_until").big_integer().null()));
    let index = Index::create().name("palisade_session_spent_idx").table("palisade_session").col("spent").to_owned();
    all.push(backend.build(&index));
    all
}
