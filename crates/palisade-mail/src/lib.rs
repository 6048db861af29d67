//! Mail that Palisade sends: messages, their texts, a bounded queue, and ways out.
//!
//! Guide section 1. A request hands a message to [`Mailer::send`] and goes on: nothing here makes it wait, and nothing of
//! how the mail fares can be seen in the answer.
//!
//! Three habits run through it:
//! - **Nothing of a stranger's is in a header.** A recipient is an [`Address`], which cannot hold a line break, and the
//!   subject is made of the template and the service's name alone.
//! - **Links begin with the issuer** that the policy names ([`Links`]), never with the `Host` of a request.
//! - **A message has an end**: it is sent, or refused by the server, or its time is over, or there was no room for it. Each
//!   end is [told](Outcome) and counted.

mod address;
mod files;
mod links;
mod message;
mod queue;
mod smtp;
mod template;

pub use address::{Address, BadAddress};
pub use links::{BadIssuer, Link, Links};
pub use message::{Kind, Mail};
pub use queue::{Counts, Dropped, Mailer, Outcome, Patience};
pub use smtp::{Encryption, Smtp};
pub use template::{BadTemplate, Templates};

/// The way out.
#[derive(Debug, Clone)]
pub enum Transport {
    /// A server.
    Smtp(Smtp),
    /// A directory, into which every mail is written as a file `.eml`: for development.
    Directory(std::path::PathBuf),
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Smtp(smtp) => smtp.fmt(f),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// What cannot be used of what the policy says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadTransport {
    /// The authority's certificate cannot be read.
    #[error("the certificate of the mail server's authority cannot be used: {0}")]
    Authority(String),
    /// TLS cannot be set up.
    #[error("TLS to the mail server cannot be set up: {0}")]
    Tls(String),
    /// The directory cannot be written.
    #[error("mail cannot be written to `{}`: {reason}", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No thread for the queue.
    #[error("the queue of mail cannot be started: {0}")]
    Start(String),
}
