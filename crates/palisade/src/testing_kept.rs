//! A folder for the state of a gateway whose identity is kept in either place: see [`palisade_test::kept`].

use palisade_base::Secret;
use palisade_store::{Options, Store as Database};
use palisade_test::kept::Kept;
use palisade_vault::{File, KeyFile, Store as _};
use tempfile::TempDir;

/// The folder, with these secrets in it; what the database needs is there as well. The policy names both:
/// `server.state`, and the sections that [`Kept::sections`] says.
pub(crate) async fn state(kept: &Kept, secrets: &[(&str, &str)]) -> TempDir {
    let state = tempfile::tempdir().unwrap();
    let key = KeyFile::from_environment(Some(state.path().join("secrets.key")));
    let store = File::new(state.path().join("secrets.age"), key);
    let url = kept.url();
    for (name, value) in url.iter().map(|url| ("database-url", url.as_str())).chain(secrets.iter().copied()) {
        store.set(name, Secret::new(value.to_owned())).unwrap();
    }
    // As `palisade db migrate` does.
    if let Some(url) = url {
        let options = Options::parse(&Secret::new(url), state.path()).unwrap();
        let database = Database::open(&options).await.unwrap();
        database.migrate().await.unwrap();
        database.close().await;
    }
    state
}
