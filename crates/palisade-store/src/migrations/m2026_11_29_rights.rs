//! Sessions that get another secret when what their user may do has changed.

use sea_orm_migration::prelude::*;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m2026_11_29_rights"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Empty for every session that is there, and for those that the release before makes: their first use here gives
        // them another secret.
        for name in ["rights", "spent", "spent_place", "successor"] {
            add(manager, ColumnDef::new(name).blob().null()).await?;
        }
        add(manager, ColumnDef::new("spent_until").big_integer().null()).await?;
        let index =
            Index::create().name("palisade_session_spent_idx").table("palisade_session").col("spent").to_owned();
        manager.create_index(index).await
    }
}

/// One column a statement: SQLite takes no more.
async fn add(manager: &SchemaManager<'_>, column: &mut ColumnDef) -> Result<(), DbErr> {
    manager.alter_table(Table::alter().table("palisade_session").add_column(column).to_owned()).await
}
