//! Secrets that live as long as the process: for tests, and for programs that bring their own.

use std::collections::BTreeMap;

use palisade_base::{Clock, Secret, Timestamp};
use parking_lot::Mutex;

use crate::{Change, Changing, Error, Listed, MAX_SECRETS, Provider, Ring, Store, check_name, finish};

/// A store that is forgotten when the process ends.
#[derive(Debug, Default)]
pub struct Memory {
    clock: Clock,
    secrets: Mutex<BTreeMap<String, (Timestamp, Secret<String>)>>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Provider for Memory {
    fn get(&self, name: &str) -> Result<Secret<String>, Error> {
        check_name(name)?;
        let missing = || Error::Missing { name: name.into(), hint: "nobody has stored it in this process".into() };
        self.secrets.lock().get(name).map(|(_, value)| value.clone()).ok_or_else(missing)
    }

    fn place(&self, name: &str) -> String {
        format!("the memory of this process under `{name}`")
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(self)
    }
}

impl Store for Memory {
    fn list(&self) -> Result<Vec<Listed>, Error> {
        let listed = |(name, (changed, value)): (&String, &(Timestamp, Secret<String>))| Listed {
            name: name.clone(),
            changed: *changed,
            versions: Ring::count(value),
        };
        Ok(self.secrets.lock().iter().map(listed).collect())
    }

    fn update(&self, name: &str, change: &mut Changing<'_>) -> Result<(), Error> {
        check_name(name)?;
        let mut secrets = self.secrets.lock();
        match change(secrets.get(name).map(|(_, value)| value))? {
            Change::Keep => {}
            Change::Set(value) => {
                let value = finish(name, value.expose().clone().into_bytes())?;
                if secrets.len() >= MAX_SECRETS && !secrets.contains_key(name) {
                    return Err(Error::Full("it holds 1,000 secrets"));
                }
                secrets.insert(name.to_owned(), (self.clock.now(), value));
            }
            Change::Remove => {
                secrets.remove(name);
            }
        }
        Ok(())
    }
}
