//! The tables of identity.
//!
//! Names of constraints are those that PostgreSQL would give (`table_column_key`), because errors are told apart by them.

use sea_orm::sea_query::{
    ColumnDef, ForeignKey, ForeignKeyAction, ForeignKeyCreateStatement, Index, IndexCreateStatement, Query, Table,
    TableCreateStatement,
};
use sea_orm::{DbBackend, Statement};

use super::Migration;

pub(super) const MIGRATION: Migration = Migration { name: "m2026_11_29_identity", statements };

/// A column of milliseconds, a number, a text, bytes, a UUID: all that there is.
fn column(name: &'static str) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    column.not_null();
    column
}

fn nullable(name: &'static str) -> ColumnDef {
    ColumnDef::new(name)
}

/// A table that belongs to accounts: deleted with them.
fn of_user(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().from(table, "user").to("palisade_user", "id").on_delete(ForeignKeyAction::Cascade).to_owned()
}

fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name([&[table], columns, &["idx"]].concat().join("_")).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}

fn unique(table: &'static str, column: &'static str) -> IndexCreateStatement {
    index(table, &[column]).name([table, column, "key"].join("_")).unique().to_owned()
}

fn statements(backend: DbBackend) -> Vec<Statement> {
    let tables = tables().into_iter().map(|table| backend.build(&table));
    let indexes = indexes().into_iter().map(|index| backend.build(&index));
    // They exist from the start; nobody has one.
    let roles = ["admin", "user"].map(|role| {
        let mut insert = Query::insert();
        insert.into_table("palisade_role").columns(["name", "permissions", "created_at"]);
        insert.values_panic([role.into(), "".into(), 0_i64.into()]);
        backend.build(&insert)
    });
    tables.chain(indexes).chain(roles).collect()
}

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).to_owned()
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        table("palisade_user")
            .col(column("id").uuid().primary_key())
            .col(nullable("app_id").text())
            .col(column("name").text())
            .col(column("name_key").text())
            .col(nullable("email").text())
            .col(nullable("email_key").text())
            .col(nullable("email_verified_at").big_integer())
            .col(nullable("password").text())
            .col(column("password_at").big_integer())
            .col(nullable("disabled_at").big_integer())
            .col(column("tokens_from").big_integer())
            .col(column("created_at").big_integer())
            .col(column("updated_at").big_integer())
            .to_owned(),
        table("palisade_role")
            .col(column("name").text().primary_key())
            .col(column("permissions").text())
            .col(column("created_at").big_integer())
            .to_owned(),
        table("palisade_user_role")
            .col(column("user").uuid())
            .col(column("role").text())
            .primary_key(Index::create().col("user").col("role"))
            .foreign_key(&mut of_user("palisade_user_role"))
            .foreign_key(
                ForeignKey::create()
                    .from("palisade_user_role", "role")
                    .to("palisade_role", "name")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned(),
        table("palisade_session")
            .col(column("id").uuid().primary_key())
            .col(column("user").uuid())
            .col(column("hash").blob())
            .col(column("created_at").big_integer())
            .col(column("authenticated_at").big_integer())
            .col(column("seen_at").big_integer())
            .col(column("idle_ms").big_integer())
            .col(column("ends_at").big_integer())
            .col(column("remember").boolean())
            .col(column("address").text())
            .col(column("device").text())
            .foreign_key(&mut of_user("palisade_session"))
            .to_owned(),
        table("palisade_family")
            .col(column("id").uuid().primary_key())
            .col(column("user").uuid())
            .col(column("client").text())
            .col(column("scope").text())
            .col(column("audience").text())
            .col(column("version").big_integer())
            .col(column("record").blob())
            .col(column("authenticated_at").big_integer())
            .col(column("created_at").big_integer())
            .col(column("seen_at").big_integer())
            .col(column("ends_at").big_integer())
            .col(nullable("ended_at").big_integer())
            .col(column("address").text())
            .col(column("device").text())
            .foreign_key(&mut of_user("palisade_family"))
            .to_owned(),
        table("palisade_key")
            .col(column("id").text().primary_key())
            .col(column("user").uuid())
            .col(column("name").text())
            .col(column("scopes").text())
            .col(nullable("rate").text())
            .col(column("hash").blob())
            .col(column("created_at").big_integer())
            .col(nullable("expires_at").big_integer())
            .col(nullable("used_at").big_integer())
            .col(nullable("successor").text())
            .foreign_key(&mut of_user("palisade_key"))
            .to_owned(),
        table("palisade_change")
            .col(column("seq").big_integer().auto_increment().primary_key())
            .col(column("kind").small_integer())
            .col(column("subject").text())
            .col(column("at").big_integer())
            .col(column("until").big_integer())
            .to_owned(),
        table("palisade_attempt")
            .col(column("key").blob().primary_key())
            .col(column("since").big_integer())
            .col(column("count").integer())
            .to_owned(),
        table("palisade_device")
            .col(column("user").uuid())
            .col(column("hash").blob())
            .col(column("created_at").big_integer())
            .col(column("seen_at").big_integer())
            .primary_key(Index::create().col("user").col("hash"))
            .foreign_key(&mut of_user("palisade_device"))
            .to_owned(),
        table("palisade_client")
            .col(column("id").text().primary_key())
            .col(column("name").text())
            .col(column("method").text())
            .col(nullable("secret").blob())
            .col(nullable("jwks").text())
            .col(column("redirects").text())
            .col(column("grants").text())
            .col(column("scopes").text())
            .col(column("audience").text())
            .col(column("trusted").boolean())
            .col(column("created_at").big_integer())
            .col(nullable("revoked_at").big_integer())
            .to_owned(),
        table("palisade_assertion")
            .col(column("hash").blob().primary_key())
            .col(column("until").big_integer())
            .to_owned(),
        table("palisade_code")
            .col(column("hash").blob().primary_key())
            .col(column("client").text())
            .col(column("user").uuid())
            .col(column("redirect").text())
            .col(column("scope").text())
            .col(column("audience").text())
            .col(column("challenge").blob())
            .col(nullable("nonce").text())
            .col(column("authenticated_at").big_integer())
            .col(column("expires_at").big_integer())
            .col(nullable("used_at").big_integer())
            .col(nullable("family").uuid())
            .foreign_key(&mut of_user("palisade_code"))
            .to_owned(),
        table("palisade_consent")
            .col(column("user").uuid())
            .col(column("client").text())
            .col(column("scope").text())
            .col(column("at").big_integer())
            .primary_key(Index::create().col("user").col("client"))
            .foreign_key(&mut of_user("palisade_consent"))
            .to_owned(),
        table("palisade_link")
            .col(column("hash").blob().primary_key())
            .col(column("purpose").text())
            .col(nullable("user").uuid())
            .col(nullable("email").text())
            .col(column("expires_at").big_integer())
            .col(nullable("used_at").big_integer())
            .foreign_key(&mut of_user("palisade_link"))
            .to_owned(),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        unique("palisade_user", "name_key"),
        unique("palisade_user", "email_key"),
        unique("palisade_user", "app_id"),
        index("palisade_user_role", &["role"]),
        unique("palisade_session", "hash"),
        index("palisade_session", &["user"]),
        index("palisade_session", &["ends_at"]),
        index("palisade_family", &["user"]),
        index("palisade_family", &["seen_at"]),
        index("palisade_family", &["ends_at"]),
        index("palisade_key", &["user"]),
        index("palisade_change", &["until"]),
        index("palisade_attempt", &["since"]),
        index("palisade_device", &["seen_at"]),
        index("palisade_family", &["client"]),
        index("palisade_assertion", &["until"]),
        index("palisade_code", &["expires_at"]),
        index("palisade_code", &["user"]),
        index("palisade_link", &["expires_at"]),
        index("palisade_link", &["user"]),
    ]
}
