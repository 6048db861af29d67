//! `palisade db`.

use serde_json::json;

use super::output::{self, print};
use super::policy;
use crate::args::{Db, Global};
use crate::exit::Done;

/// Runs one.
pub(crate) fn run(global: &Global, command: &Db) -> anyhow::Result<Done> {
    match command {
        Db::Migrate => migrate(global),
    }
}

fn migrate(global: &Global) -> anyhow::Result<Done> {
    let checked = palisade::live::read(&policy::sources(global)).map_err(palisade::Error::Policy)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let store = palisade::controls::auth::open_store(&checked.config).await?;
        let pending = store.pending().await?;
        store.migrate().await?;
        store.close().await;
        anyhow::Ok(pending)
    })?;
    if global.json {
        output::json(&json!({ "migrated": done }))?;
    } else if done.is_empty() {
        print("the tables are those of this version\n");
    } else {
        print(&format!("migrated: {}\n", done.join(", ")));
    }
    Ok(Done::Ok)
}
