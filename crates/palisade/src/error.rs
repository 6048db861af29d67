//! Why a server does not start.

use std::io;

use palisade_policy::Problems;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server does not start.
#[derive(thiserror::Error)]
pub enum Error {
    /// The policy is not in order; rendered, the problems show file, line, cause and fix.
    #[error("{}", .0.render(false))]
    Policy(Problems),
    /// A listener could not be opened.
    #[error("cannot listen on {address} (`{key}`): {reason}")]
    Listen {
        /// The key of the policy.
        key: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said, and who has the port.
        reason: String,
    },
    /// The state directory is another server's.
    #[error("{0}")]
    State(String),
    /// A certificate or key could not be used.
    #[error("{0}")]
    Tls(String),
    /// A file or directory could not be used.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The supervised application cannot be started.
    #[error("{0}")]
    App(String),
    /// Anything else that the system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl std::fmt::Debug for Error {
    // `main` shows errors with `Debug`: it must be the text for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
