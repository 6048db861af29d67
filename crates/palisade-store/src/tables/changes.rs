//! The feed: what changed, in the order in which it was committed.
//!
//! Each instance reads it and forgets what it had cached. An entry whose `until` lies ahead also says that something is
//! revoked until then: whoever starts reads those first.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, DbBackend, QueryOrder, QuerySelect, Statement};

use super::{all, delete as delete_rows, one};
use crate::connection::{bounded, sealed::Sealed};
use crate::{Conn, Result, Tx};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "palisade_change")]
pub struct Model {
    /// Its place in the feed.
    #[sea_orm(primary_key)]
    pub seq: i64,
    /// What sort of thing changed; see [`Kind`].
    pub kind: i16,
    /// Which one.
    pub subject: String,
    /// When.
    pub at: i64,
    /// How long the entry matters to an instance that starts: the end of the last token that it revokes.
    pub until: i64,
}

/// None: the tables are joined by hand.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// What sort of thing changed. The numbers are stored and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Kind {
    /// A session or a family of refresh tokens ended, and with it its access tokens. Subject: its id.
    Ended = 1,
    /// A session's secret changed. Subject: the session's id.
    Session = 2,
    /// An account changed: name, address, roles, disabled, deleted. Subject: its id.
    User = 3,
    /// All that was issued for an account before is void. Subject: its id.
    UserRevoked = 4,
    /// An API key was revoked or changed. Subject: its id.
    Key = 5,
    /// What a role permits changed, or it was deleted: it may concern every account. Subject: its name.
    Role = 6,
    /// A client changed or was revoked. Subject: its id.
    Client = 7,
    /// One access token was revoked. Subject: its `jti`.
    Token = 8,
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Ended, Self::Session, Self::User, Self::UserRevoked, Self::Key, Self::Role, Self::Client, Self::Token];

    /// By its number. An unknown one is of a later version.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i16 == number)
    }
}

/// An entry that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// What sort of thing changed.
    pub kind: Kind,
    /// Which one.
    pub subject: String,
    /// When.
    pub at: i64,
    /// How long it matters to an instance that starts.
    pub until: i64,
}

/// An entry of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place; larger is later.
    pub seq: i64,
    /// What sort of thing changed; `None`: something that only a later version knows. Forget everything.
    pub kind: Option<Kind>,
    /// Which one.
    pub subject: String,
    /// When.
    pub at: i64,
    /// How long it matters to an instance that starts.
    pub until: i64,
}

impl From<Model> for Change {
    fn from(row: Model) -> Self {
        let Model { seq, kind, subject, at, until } = row;
        Self { seq, kind: Kind::from_number(kind), subject, at, until }
    }
}

/// One of PostgreSQL's advisory locks, ours by its number ("palisade").
const FEED_LOCK: &str = "SELECT pg_advisory_xact_lock(8097864085262787685)";

/// Appends entries. On PostgreSQL numbers are given before a commit, so that a reader could see a later one first and
/// skip the earlier: the lock, held until the commit, makes the order of numbers that of commits. SQLite has one writer.
pub(crate) async fn append(tx: &Tx, entries: Vec<New>) -> Result<Vec<Change>> {
    let (db, deadline) = (Sealed::db(tx), Sealed::deadline(tx));
    if db.get_database_backend() == DbBackend::Postgres {
        bounded(deadline, db.execute_raw(Statement::from_string(DbBackend::Postgres, FEED_LOCK))).await?;
    }
    let mut appended = Vec::with_capacity(entries.len());
    for New { kind, subject, at, until } in entries {
        let row = ActiveModel {
            seq: ActiveValue::NotSet,
            kind: ActiveValue::Set(kind as i16),
            subject: ActiveValue::Set(subject),
            at: ActiveValue::Set(at),
            until: ActiveValue::Set(until),
        };
        appended.push(bounded(deadline, row.insert(db)).await?.into());
    }
    Ok(appended)
}

/// What came behind a place, so many entries at most.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn after(conn: &impl Conn, seq: i64, limit: u64) -> Result<Vec<Change>> {
    let later = Entity::find().filter(Column::Seq.gt(seq)).order_by_asc(Column::Seq).limit(limit);
    Ok(all(conn, later).await?.into_iter().map(Into::into).collect())
}

/// What is still revoked: entries between two places that matter to whoever starts now.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn alive(conn: &impl Conn, now: i64, after: i64, up_to: i64, limit: u64) -> Result<Vec<Change>> {
    let alive =
        Entity::find().filter(Column::Until.gt(now)).filter(Column::Seq.gt(after)).filter(Column::Seq.lte(up_to));
    Ok(all(conn, alive.order_by_asc(Column::Seq).limit(limit)).await?.into_iter().map(Into::into).collect())
}

/// The place of the latest entry; 0 where there was none yet.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn head(conn: &impl Conn) -> Result<i64> {
    Ok(one(conn, Entity::find().order_by_desc(Column::Seq).limit(1)).await?.map_or(0, |row| row.seq))
}

/// The place of the oldest entry that is kept; 0 where there is none.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn tail(conn: &impl Conn) -> Result<i64> {
    Ok(one(conn, Entity::find().order_by_asc(Column::Seq).limit(1)).await?.map_or(0, |row| row.seq))
}

/// Forgets entries that matter to nobody: made and over before a time. The latest stays, so that the places go on.
///
/// # Errors
/// [`Error`](crate::Error).
pub async fn sweep(tx: &Tx, before: i64) -> Result<u64> {
    let head = head(tx).await?;
    let over = Entity::delete_many().filter(Column::Until.lt(before)).filter(Column::At.lt(before));
    delete_rows(tx, over.filter(Column::Seq.lt(head))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_to_one() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as i16), Some(kind));
        }
        assert_eq!((Kind::from_number(0), Kind::from_number(9)), (None, None));
    }
}
