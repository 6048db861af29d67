//! Migrations meet databases that have rows in them, and the release before goes on beside them.

use palisade_base::Secret;
use palisade_test::postgres::Postgres;
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Query, SimpleExpr};

use super::{ALL, up};
use crate::{Options, Store, Uuid, changes, roles, sessions, users};

/// A row as the first release wrote it: no other columns are named.
async fn insert(store: &Store, table: &'static str, row: Vec<(&'static str, SimpleExpr)>) {
    let (columns, values): (Vec<_>, Vec<_>) = row.into_iter().unzip();
    let mut insert = Query::insert();
    insert.into_table(table).columns(columns).values_panic(values);
    store.connection().execute(&insert).await.expect("inserted");
}

/// An account with a role and a session.
async fn of_the_first_release(store: &Store, name: &'static str) -> (Uuid, Uuid) {
    let (user, session) = (Uuid::now_v7(), Uuid::now_v7());
    let times = [("password_at", 1), ("tokens_from", 2), ("created_at", 3), ("updated_at", 4)];
    let mut row: Vec<(&str, SimpleExpr)> = times.iter().map(|(name, at)| (*name, (*at as i64).into())).collect();
    row.extend([("id", user.into()), ("name", name.into()), ("name_key", name.into()), ("password", "hash".into())]);
    insert(store, "palisade_user", row).await;
    insert(store, "palisade_user_role", vec![("user", user.into()), ("role", "admin".into())]).await;
    let times = [("created_at", 5), ("authenticated_at", 6), ("seen_at", 7), ("idle_ms", 8), ("ends_at", 9)];
    let mut row: Vec<(&str, SimpleExpr)> = times.iter().map(|(name, at)| (*name, (*at as i64).into())).collect();
    row.extend([("id", session.into()), ("user", user.into()), ("hash", session.as_bytes().to_vec().into())]);
    row.extend([("remember", true.into()), ("address", "192.0.2.1".into()), ("device", "a browser".into())]);
    insert(store, "palisade_session", row).await;
    let change: Vec<(&str, SimpleExpr)> =
        vec![("kind", 3_i16.into()), ("subject", name.into()), ("at", 1_i64.into()), ("until", 2_i64.into())];
    insert(store, "palisade_change", change).await;
    (user, session)
}

async fn forward(options: Options) {
    let store = Store::open(&options).await.expect("opened");
    up(store.connection(), 1).await.expect("the first release");
    let mut there = vec![of_the_first_release(&store, "alice").await];
    for step in 1..ALL.len() {
        up(store.connection(), 1).await.expect("one further");
        // The release before, which knows nothing of it.
        let name = ["bob", "carol", "dave", "erin", "frank"][step - 1];
        there.push(of_the_first_release(&store, name).await);
    }
    assert_eq!(store.pending().await.expect("asked"), Vec::<String>::new());
    store.migrate().await.expect("nothing to do");
    for (user, session) in &there {
        let row = users::by_id(&store, *user).await.expect("asked").expect("kept");
        assert_eq!((row.password.as_deref(), row.password_at, row.tokens_from), (Some("hash"), 1, 2));
        assert_eq!((row.created_at, row.updated_at, row.pending_until), (3, 4, None), "to be used as before");
        let held = roles::of_user(&store, *user).await.expect("asked");
        assert_eq!(held.iter().map(|role| role.name.as_str()).collect::<Vec<_>>(), ["admin"]);
        let row = sessions::by_id(&store, *session).await.expect("asked").expect("kept");
        assert_eq!((row.user, row.hash.as_slice(), row.remember), (*user, session.as_bytes().as_slice(), true));
        assert_eq!((row.rights, row.spent, row.spent_until, row.successor), (None, None, None, None));
    }
    assert_eq!(changes::after(&store, 0, 100).await.expect("asked").len(), there.len());
    assert_eq!(roles::list(&store).await.expect("asked").len(), 2, "the roles of the start, once");
}

#[tokio::test]
async fn sqlite_goes_forward_with_its_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    forward(Options::sqlite(folder.path().join("palisade.db"))).await;
}

#[tokio::test]
async fn postgres_goes_forward_with_its_rows() {
    let server = Postgres::shared().await.expect("PostgreSQL");
    let database = server.database().await.expect("a database");
    let url = Secret::new(database.url());
    forward(Options::parse(&url, std::path::Path::new("")).expect("a URL")).await;
}
