//! `palisade user|role|key|client|session`: the database is opened here, by the policy, and a running gateway learns of
//! each change from the feed, within a second. So they work with the gateway and without it.

pub(crate) mod client;
mod import;
pub(crate) mod key;
pub(crate) mod role;
pub(crate) mod session;
pub(crate) mod user;

use std::future::Future;
use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use palisade::controls::Config;
use palisade_base::Timestamp;
use palisade_identity::Identity;
use palisade_identity::service::{Account, Origin, UserId, rfc3339};
use serde_json::Value;

use super::policy;
use crate::args::Global;
use crate::exit::Usage;

/// Opens the database of the policy and does something with it.
fn with<T, F: Future<Output = anyhow::Result<T>>>(
    global: &Global,
    work: impl FnOnce(Identity) -> F,
) -> anyhow::Result<T> {
    under(&read(global)?, work)
}

fn read(global: &Global) -> anyhow::Result<Config> {
    Ok(palisade::live::read(&policy::sources(global)).map_err(palisade::Error::Policy)?.config)
}

/// The same for a command that has read the policy.
fn under<T, F: Future<Output = anyhow::Result<T>>>(
    config: &Config,
    work: impl FnOnce(Identity) -> F,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let identity = palisade::controls::auth::open(config).await?;
        let done = work(identity.clone()).await;
        identity.store().close().await;
        done
    })
}

/// From this machine: what is counted and limited by address is counted here as well.
fn here() -> Origin {
    Origin { agent: "palisade".into(), ..Origin::new(Ipv4Addr::LOCALHOST.into()) }
}

async fn find(identity: &Identity, text: &str) -> anyhow::Result<Account> {
    let found = identity.find_user(text).await?;
    found.with_context(|| format!("there is no user `{text}`; `palisade user list` shows all"))
}

fn parse_id(text: &str) -> anyhow::Result<UserId> {
    match UserId::parse(text) {
        Some(id) => Ok(id),
        None => bail!(Usage(format!("`{text}` is no id"))),
    }
}

fn date(at: Timestamp) -> Value {
    rfc3339(at).into()
}

fn dates(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, date)
}
