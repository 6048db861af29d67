//! What statements run on: the pool, or a transaction. Each has a deadline.

use std::future::Future;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr};
use tokio::sync::OwnedSemaphorePermit;

use crate::changes::{self, Change};
use crate::{Error, Result, Store};

/// The pool ([`Store`]) or a transaction ([`Tx`]): reads take either, writes take a transaction.
pub trait Conn: sealed::Sealed {}

pub(crate) mod sealed {
    use super::*;

    pub trait Sealed: Sync {
        type Db: ConnectionTrait;
        fn db(&self) -> &Self::Db;
        fn deadline(&self) -> Duration;
    }
}

/// A transaction that may write. Dropped without [`commit`](Self::commit), it never was.
///
/// SQLite has one writer at a time: transactions wait for their turn in the order in which they came, instead of finding
/// the file locked. They are short, and no password is hashed inside one.
pub struct Tx {
    tx: DatabaseTransaction,
    deadline: Duration,
    announced: parking::Announced,
    _turn: Option<OwnedSemaphorePermit>,
}

/// What a transaction changed, as the feed has it.
#[derive(Debug, Clone, Default)]
#[must_use = "the caches of this process have to hear of it before anything is answered"]
pub struct Committed {
    /// In the order of the feed.
    pub changes: Vec<Change>,
}

impl Tx {
    pub(crate) fn new(tx: DatabaseTransaction, deadline: Duration, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { tx, deadline, announced: parking::Announced::default(), _turn: turn }
    }

    /// Lets all instances know, once the transaction is committed.
    pub fn announce(&self, change: changes::New) {
        self.announced.push(change);
    }

    /// Appends what was announced to the feed, and commits.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Away`] it is not known whether the transaction took place.
    pub async fn commit(self) -> Result<Committed> {
        let announced = self.announced.take();
        let changes = match announced.is_empty() {
            true => Vec::new(),
            false => changes::append(&self, announced).await?,
        };
        let Self { tx, deadline, _turn: turn, .. } = self;
        bounded(deadline, tx.commit()).await?;
        drop(turn);
        Ok(Committed { changes })
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx")
    }
}

/// A list behind a lock that is held for a push only, so that a transaction can be lent to several at once.
mod parking {
    use std::sync::{Mutex, PoisonError};

    use crate::changes::New;

    #[derive(Default)]
    pub(super) struct Announced(Mutex<Vec<New>>);

    impl Announced {
        pub(super) fn push(&self, change: New) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        }

        pub(super) fn take(&self) -> Vec<New> {
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

impl sealed::Sealed for Tx {
    type Db = DatabaseTransaction;

    fn db(&self) -> &Self::Db {
        &self.tx
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Conn for Tx {}

impl sealed::Sealed for Store {
    type Db = DatabaseConnection;

    fn db(&self) -> &Self::Db {
        self.connection()
    }

    fn deadline(&self) -> Duration {
        self.statement_timeout()
    }
}

impl Conn for Store {}

/// The connection that [reads the feed](Store::feed).
#[derive(Debug, Clone, Copy)]
pub struct Feed<'s>(pub(crate) &'s Store);

impl sealed::Sealed for Feed<'_> {
    type Db = DatabaseConnection;

    fn db(&self) -> &Self::Db {
        self.0.feed_connection()
    }

    fn deadline(&self) -> Duration {
        self.0.statement_timeout()
    }
}

impl Conn for Feed<'_> {}

/// Runs a statement for so long at most.
pub(crate) async fn bounded<T>(deadline: Duration, work: impl Future<Output = Result<T, DbErr>>) -> Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done.map_err(Error::from),
        Err(_) => Err(Error::Away("no answer in time".into())),
    }
}
