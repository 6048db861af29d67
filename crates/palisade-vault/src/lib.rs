//! Where secrets come from. Guide section 11.
//!
//! Secrets are never in the policy file: it names them (`{ secret = "admin-token" }`) and a [`Provider`] finds them.

mod dir;
mod env;

pub use dir::Dir;
pub use env::Env;
use palisade_base::Secret;

/// The largest secret that is read, in bytes: more than any key or token needs.
pub const MAX_BYTES: usize = 64 * 1024;

/// Why a secret cannot be had. Never holds the value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such secret.
    #[error("there is no secret `{name}`: {hint}")]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        hint: String,
    },
    /// The name is not one that any provider could hold.
    #[error("`{0}` is not a name of a secret: letters, digits, `-`, `_` and `.`, not beginning with a dot")]
    BadName(String),
    /// The place where it should be cannot be read.
    #[error("the secret `{name}` cannot be read: {reason}")]
    Unreadable {
        /// Its name.
        name: String,
        /// What the system said.
        reason: String,
    },
}

/// A place that holds secrets under names.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// The secret of a name. A final line end is not part of it.
    ///
    /// # Errors
    /// When it is missing, unreadable, too long or not UTF-8.
    fn get(&self, name: &str) -> Result<Secret<String>, Error>;
}

/// A name is one path segment and one environment variable, so its alphabet is narrow.
fn check_name(name: &str) -> Result<(), Error> {
    let fits = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    fits.then_some(()).ok_or_else(|| Error::BadName(name.chars().take(40).collect()))
}

fn finish(name: &str, bytes: Vec<u8>) -> Result<Secret<String>, Error> {
    let unreadable = |reason: &str| Error::Unreadable { name: name.into(), reason: reason.into() };
    if bytes.len() > MAX_BYTES {
        return Err(unreadable("it is longer than 64 KiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8"))?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    if text.is_empty() {
        return Err(unreadable("it is empty"));
    }
    Ok(Secret::new(text))
}
