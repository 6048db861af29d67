//! Accounts whose address has to be proved before anybody may use them.

use sea_orm_migration::prelude::*;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m2026_11_29_pending"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = ColumnDef::new("pending_until");
        // Empty for every account that is there, and for those that the release before makes.
        let table = Table::alter().table("palisade_user").add_column(column.big_integer().null()).to_owned();
        manager.alter_table(table).await?;
        let index = Index::create()
            .name("palisade_user_pending_until_idx")
            .table("palisade_user")
            .col("pending_until")
            .to_owned();
        manager.create_index(index).await
    }
}
