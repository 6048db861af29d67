//! What can go wrong between a name and its secret.

use std::path::PathBuf;

/// Why a secret cannot be had or kept. Never holds the value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The file of secrets is encrypted, and nothing says with what.
    #[error(
        "no key for the secrets in `{}`: name the file of an age identity in `PALISADE_SECRETS_KEY_FILE`; \
         `palisade secret init` makes one", .0.display()
    )]
    NoKey(PathBuf),
    /// The file of the key cannot be used.
    #[error("the key of the secrets, `{}`, cannot be used: {reason}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Others can read the key.
    #[error(
        "others may read the key of the secrets, `{0}` (mode {1:04o}): run `chmod 600 {0}`, and replace the key and \
         the secrets if others were there", path.display(), mode
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file of secrets was encrypted for another key.
    #[error("the secrets in `{}` were encrypted for another key than `{}`", path.display(), key.display())]
    WrongKey {
        /// The file of secrets.
        path: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The file of secrets is not what was written.
    #[error(
        "the secrets in `{}` are damaged ({reason}): restore the file from a backup; nothing was overwritten",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of secrets cannot be read or written.
    #[error("the secrets in `{}` cannot be {doing}: {reason}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// What the system said.
        reason: String,
    },
    /// Another process holds the lock for longer than any change takes.
    #[error("another process is changing the secrets in `{}` and does not come to an end", .0.display())]
    Busy(PathBuf),
    /// There are as many secrets, or as many bytes of them, as the file may hold.
    #[error("there is no room for another secret: {0}")]
    Full(&'static str),
    /// What a caller of `update` found.
    #[error("{0}")]
    Refused(String),
}
