//! What Palisade remembers: users, sessions, keys, clients, links, attempts, and the feed of what changed.
//!
//! Guide sections 3 and 15. One set of entities and migrations for SQLite (embedded) and PostgreSQL (several
//! instances). No policy and no HTTP: what may be done is decided above, in `palisade-identity`.
//!
//! Four habits run through it:
//! - **The database is the one truth.** What was acknowledged was committed: with `synchronous = FULL` on SQLite, and
//!   PostgreSQL's own default.
//! - **A write is a transaction**, and carries the announcement of what it changed. [`Tx::announce`] collects, and
//!   [`Tx::commit`] appends to the [feed](changes) in the same transaction, in the order in which transactions commit.
//! - **Every statement has its values bound** and a deadline. A test reads this source and fails where a statement is
//!   put together as text.
//! - **Errors say what to do**: [`Error::Away`] is tried again later, [`Error::Conflict`] is somebody's mistake,
//!   [`Error::Full`] and [`Error::ReadOnly`] are the operator's to mend.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use palisade_store::{Options, Store, users};
//!
//! let folder = tempfile::tempdir()?;
//! let store = Store::open(&Options::sqlite(folder.path().join("palisade.db"))).await?;
//! store.migrate().await?;
//! let tx = store.begin().await?;
//! users::insert(&tx, users::Model { name: "alice".into(), name_key: "alice".into(), ..users::new(0) }).await?;
//! tx.commit().await?;
//! assert!(users::by_name(&store, "alice").await?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod connection;
mod error;
mod migrations;
mod open;
mod options;
mod own;
#[cfg(test)]
mod source;
mod tables;

pub use connection::{Committed, Conn, Feed, Tx};
pub use error::{Error, Result, Unique};
pub use open::Store;
pub use options::{BadUrl, Options};
pub use own::{Change, Tables};
/// What statements over [`Tables`] are made of.
pub use sea_orm;
pub use tables::{attempts, changes, clients, codes, consents, devices, families, keys, links, roles, sessions, users};
pub use uuid::Uuid;
