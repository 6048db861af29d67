//! Where secrets come from. Guide section 11.
//!
//! Secrets are never in the policy file: it names them (`{ secret = "admin-token" }`) and a [`Provider`] finds them.
//! Some providers are a [`Store`] as well: `palisade secret set` writes there, and keys that Palisade makes for itself
//! live there as a [`Ring`] of versions.
//!
//! ```
//! use palisade_base::Secret;
//! use palisade_vault::{File, KeyFile, Provider as _, Store as _};
//!
//! let dir = tempfile::tempdir()?;
//! let secrets = File::new(dir.path().join("secrets.age"), KeyFile::Made(dir.path().join("secrets.key")));
//! secrets.set("admin-token", Secret::new("correct horse battery staple".into()))?;
//! assert!(secrets.get("admin-token")?.matches(b"correct horse battery staple"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dir;
mod dotenv;
mod env;
mod error;
mod exposed;
mod file;
mod memory;
mod ring;

pub use dir::Dir;
pub use dotenv::DotEnv;
pub use env::Env;
pub use error::Error;
pub use exposed::{Exposed, exposed};
pub use file::{File, KeyFile, MAX_SECRETS, MAX_STORE_BYTES};
pub use memory::Memory;
use palisade_base::{Secret, Timestamp};
pub use ring::{BadRing, MAX_VERSIONS, Ring, Version};

/// The largest secret that is read or stored, in bytes: more than any key or token needs.
pub const MAX_BYTES: usize = 64 * 1024;

/// A place that holds secrets under names.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// The secret of a name. A final line end is not part of it.
    ///
    /// # Errors
    /// When it is missing, unreadable, too long or not UTF-8.
    fn get(&self, name: &str) -> Result<Secret<String>, Error>;

    /// Where the secret of a name is looked for, for messages: ``the variable `PALISADE_SECRET_ADMIN_TOKEN` ``.
    fn place(&self, name: &str) -> String;

    /// The same place as one that can be written; `None` where only the operator can put secrets.
    fn store(&self) -> Option<&dyn Store> {
        None
    }
}

/// A place that Palisade can write. Each change is atomic and durable when the call returns, and changes of several
/// processes come one after the other.
pub trait Store: Provider {
    /// Names and times of all secrets, by name.
    ///
    /// # Errors
    /// When the store cannot be opened.
    fn list(&self) -> Result<Vec<Listed>, Error>;

    /// Reads a secret and changes it, with nobody in between: how two processes agree on which of them makes a key.
    ///
    /// # Errors
    /// When the store cannot be opened or written, or what `change` returns; nothing has changed then.
    fn update(&self, name: &str, change: &mut Changing<'_>) -> Result<(), Error>;

    /// Stores a secret, over an older one of that name.
    ///
    /// # Errors
    /// When the store cannot be opened or written, or the value is not one that [`Provider::get`] would give back.
    fn set(&self, name: &str, value: Secret<String>) -> Result<(), Error> {
        let mut value = Some(value);
        self.update(name, &mut |_| Ok(value.take().map_or(Change::Keep, Change::Set)))
    }

    /// Removes a secret, and says whether there was one.
    ///
    /// # Errors
    /// When the store cannot be opened or written.
    fn remove(&self, name: &str) -> Result<bool, Error> {
        let mut was = false;
        self.update(name, &mut |old| {
            was = old.is_some();
            Ok(if was { Change::Remove } else { Change::Keep })
        })?;
        Ok(was)
    }
}

/// What [`Store::update`] calls with the value of now.
pub type Changing<'a> = dyn FnMut(Option<&Secret<String>>) -> Result<Change, Error> + 'a;

/// What becomes of a secret in [`Store::update`].
#[derive(Debug)]
pub enum Change {
    /// It stays as it is, and nothing is written.
    Keep,
    /// It gets this value.
    Set(Secret<String>),
    /// It goes.
    Remove,
}

/// One line of a list: everything but the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// When it was last set.
    pub changed: Timestamp,
    /// The versions, where it is a ring.
    pub versions: Option<usize>,
}

/// Whether this can be the name of a secret. A name is one path segment and one environment variable, so its alphabet is
/// narrow.
///
/// # Errors
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), Error> {
    let fits = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    fits.then_some(()).ok_or_else(|| Error::BadName(name.chars().take(40).collect()))
}

/// A value as every provider gives it: UTF-8, without its final line end, neither empty nor endless.
fn finish(name: &str, bytes: Vec<u8>) -> Result<Secret<String>, Error> {
    let unreadable = |reason: &str| Error::Unreadable { name: name.into(), reason: reason.into() };
    // In custody before the first way out, so that a refused value is cleared as well.
    let bytes = Secret::new(bytes);
    if bytes.expose().len() > MAX_BYTES {
        return Err(unreadable("it is longer than 64 KiB"));
    }
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| unreadable("it is not UTF-8"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(unreadable("it is empty"));
    }
    Ok(Secret::new(text.to_owned()))
}
