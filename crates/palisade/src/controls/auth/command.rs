//! The services of identity for commands, which open the database themselves: with the gateway running or not.
//!
//! Nothing is signed here, so of the keys only the pepper is read; a running gateway learns of each change from the feed.

use palisade_base::Clock;
use palisade_identity::Identity;
use palisade_identity::password::pool::{Limits, Pool};
use palisade_identity::password::{Cost, Hasher, Peppers};
use palisade_identity::rings::Rings;
use palisade_identity::service::Parts;
use palisade_identity::token::Keyring;
use palisade_store::Store;

use super::service::{options, passwords, settings};
use crate::controls::Config;
use crate::{Error, Result};

/// The database of a policy, whatever is in it.
///
/// # Errors
/// When it cannot be opened, or the policy has no `[auth]`.
pub async fn open_store(config: &Config) -> Result<Store> {
    if !config.auth.config.present {
        return Err(Error::State(
            "the policy has no `[auth]`, so there are no users: add the section, or name another policy with `--policy`"
                .into(),
        ));
    }
    let state = crate::policy::state_dir(&config.server);
    make_private(&state).map_err(|why| Error::State(format!("{}: {why}", state.display())))?;
    let secrets = crate::policy::secrets::provider(config);
    let options = options(config, &state, &*secrets).map_err(Error::State)?;
    Store::open(&options).await.map_err(|why| Error::State(why.to_string()))
}

/// The services over the database of a policy. SQLite is migrated; PostgreSQL has to be.
///
/// # Errors
/// As [`open_store`], and where migrations are pending.
pub async fn open(config: &Config) -> Result<Identity> {
    let said = |why: &dyn std::fmt::Display| Error::State(why.to_string());
    let store = open_store(config).await?;
    if store.is_embedded() {
        store.migrate().await.map_err(|why| said(&why))?;
    } else if !store.pending().await.map_err(|why| said(&why))?.is_empty() {
        return Err(Error::State("the database has pending migrations: run `palisade db migrate`".into()));
    }
    let clock = Clock::real();
    let peppers = if config.password.pepper {
        let secrets = crate::policy::secrets::provider(config);
        let rings = Rings::open(secrets, super::keys::settings(config), clock.clone());
        rings.map_err(|why| said(&why))?.peppers()
    } else {
        Peppers::default()
    };
    // One person waits: there is nobody to be fair to.
    let limits = Limits { threads: 1, ..Limits::default() };
    let issuer = config.auth.config.issuer.as_ref().map_or("https://localhost", |issuer| issuer.as_str());
    Ok(Identity::new(Parts {
        store,
        pool: Pool::new(limits, clock.clone()).map_err(|why| said(&why))?,
        clock,
        hasher: Hasher::new(Cost::default(), peppers),
        policy: passwords(config),
        keyring: Keyring::default(),
        settings: settings(config, issuer.to_owned()),
    }))
}

fn make_private(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
