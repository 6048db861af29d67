//! A database that is away, full, or may not be written to.

use std::time::Duration;

use super::*;

fn is_away<T, E: std::fmt::Display>(result: Result<T, E>) -> bool {
    result.err().is_some_and(|why| why.to_string().contains("the database is away"))
}

/// PostgreSQL ends and comes back: calls end in time with a clear error, and what was committed is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_goes_and_comes_back() {
    let server = Postgres::start().await.expect("PostgreSQL");
    let place = Place::Postgres(server.database().await.expect("a database"));
    let world = World::new(place).await;
    world.user("alice").await;
    let checked = world.login("alice").await;
    let tokens = world.identity.grant(&checked, NewGrant::default(), &from(1)).await.expect("tokens");
    assert!(world.identity.token(tokens.access.text.expose(), &[]).await.is_ok());

    server.pause().expect("stalled");
    let before = std::time::Instant::now();
    assert!(is_away(world.identity.catch_up().await));
    assert!(is_away(world.identity.check_password("alice", PASSWORD, &from(1)).await));
    assert!(before.elapsed() < Duration::from_secs(25), "each within its deadline: {:?}", before.elapsed());
    assert!(world.identity.token(tokens.access.text.expose(), &[]).await.is_ok(), "from memory");
    server.resume().expect("back");
    world.identity.catch_up().await.expect("the feed");

    server.kill();
    assert!(is_away(world.identity.catch_up().await));
    server.restart().await.expect("back");
    world.identity.catch_up().await.expect("reconnected by itself");
    world.login("alice").await;
    assert!(world.identity.refresh(&tokens.refresh, None, false, &TokenRequest::default(), &from(1)).await.is_ok());
}

/// The file may not grow, as on a disk without room: writes fail with a clear error, nothing is lost, reading goes on,
/// and once there is room writing does.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let world = World::sqlite().await;
    world.user("alice").await;
    let options = |bytes| {
        let mut options = world.place.options();
        options.max_bytes = bytes;
        options
    };
    let size = 400 << 10;
    let small = Store::open(&options(Some(size))).await.expect("opened");
    let fill = async |store: &Store, n: usize| -> palisade_store::Result<()> {
        let tx = store.begin().await?;
        let name = format!("user{n}-{}", "x".repeat(2000));
        let row = palisade_store::users::Model { name_key: name.clone(), name, ..palisade_store::users::new(0) };
        palisade_store::users::insert(&tx, row).await?;
        tx.commit().await.map(|_| ())
    };
    let mut stored = 0;
    let full = loop {
        match fill(&small, stored).await {
            Ok(()) => stored += 1,
            Err(why) => break why,
        }
        assert!(stored < 1000, "it is never full");
    };
    assert_eq!(full, palisade_store::Error::Full);
    assert!(full.to_string().contains("make room"), "{full}");
    assert_eq!(fill(&small, stored).await.err(), Some(palisade_store::Error::Full), "and again");
    let rows = palisade_store::users::list(&small, None, 1000).await.expect("read");
    assert_eq!(rows.len(), stored + 1, "all that was acknowledged, and no more");
    let large = Store::open(&options(None)).await.expect("opened");
    fill(&large, stored).await.expect("there is room again");
}

#[tokio::test]
async fn a_database_that_may_not_be_written() {
    let world = World::sqlite().await;
    world.user("alice").await;
    let Place::Sqlite(folder) = &world.place else { panic!("a file") };
    world.identity.store().close().await;
    let file = folder.path().join("palisade.db");
    // Root may write to what nobody may; a file system that is read-only cannot be made here. SQLite's own mode is the
    // same to it: the header says that the file may not be written.
    let mut bytes = std::fs::read(&file).expect("the file");
    // File format: bytes 18 and 19 are the versions for writing and reading; a writer from the future makes it read-only.
    bytes[18] = 3;
    std::fs::write(&file, &bytes).expect("written");
    let store = Store::open(&Options::sqlite(&file)).await;
    let refused = match store {
        Ok(store) => match store.begin().await {
            Ok(tx) => palisade_store::users::insert(&tx, palisade_store::users::new(0)).await.err(),
            Err(why) => Some(why),
        },
        Err(why) => Some(why),
    };
    assert_eq!(refused, Some(palisade_store::Error::ReadOnly));
    bytes[18] = 2;
    std::fs::write(&file, &bytes).expect("written");
    let store = Store::open(&Options::sqlite(&file)).await.expect("opened");
    assert!(palisade_store::users::by_name(&store, "alice").await.expect("read").is_some());
}
