//! `palisade version`.

use super::output::{json, print};
use crate::args::Global;
use crate::exit::Done;

/// Prints the version.
pub(crate) fn run(global: &Global) -> anyhow::Result<Done> {
    let version = env!("CARGO_PKG_VERSION");
    if global.json {
        json(&serde_json::json!({ "name": "palisade", "version": version, "policy_version": 1 }))?;
    } else {
        print(&format!("palisade {version}\n"));
    }
    Ok(Done::Ok)
}
