//! Migrations, in order. One that was published is never changed; the next one comes behind it.
//!
//! A migration works with the previous release running beside it (spec section 15): it adds tables, columns that may be
//! empty and indexes; what is no longer used is dropped one release later.

mod m2026_11_29_identity;
mod m2026_11_29_pending;
mod m2026_11_29_rights;
#[cfg(test)]
mod tests;

use sea_orm_migration::prelude::*;

/// All migrations.
pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m2026_11_29_identity::Migration),
            Box::new(m2026_11_29_pending::Migration),
            Box::new(m2026_11_29_rights::Migration),
        ]
    }

    // A database may be shared with the application: every table of ours begins with `palisade_`.
    fn migration_table_name() -> DynIden {
        "palisade_migration".into_iden()
    }
}
