//! What can go wrong with a database, by what somebody can do about it.

use sea_orm::{DbErr, RuntimeErr, sqlx};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be reached, or did not answer in time. Whether a commit that ends so took place is not known; the feed
    /// tells.
    #[error("the database is away: {0}")]
    Away(String),
    /// Something that has to be unique exists already.
    #[error("it exists already ({0:?})")]
    Conflict(Unique),
    /// A row that this one refers to is not there (any more).
    #[error("what it belongs to does not exist")]
    Orphan,
    /// The disk of the database is full. Nothing of the transaction was kept, and nothing from before is lost.
    #[error("the database's disk is full: make room, nothing that was stored is lost")]
    Full,
    /// The database does not take writes: a file or directory without the right to write, a read-only file system, a
    /// standby.
    #[error(
        "the database is read-only: check the rights of its file and directory, or whether the server is a standby"
    )]
    ReadOnly,
    /// The tables are not those of this version: `palisade db migrate` has to run.
    #[error("the database's tables are not those of this version: run `palisade db migrate`")]
    Unmigrated,
    /// The file is not a database, or is damaged.
    #[error("the database file is damaged or is no database: {0}")]
    Damaged(String),
    /// Anything else: a mistake of ours.
    #[error("the database refused a statement: {0}")]
    Failed(String),
}

/// What was to be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unique {
    /// The name of a user, in its canonical form.
    Name,
    /// The e-mail address of a user, in its canonical form.
    Email,
    /// The application's own id of a user.
    AppId,
    /// The name of a role.
    Role,
    /// Anything else.
    Other,
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(_) => Self::Away("no connection came free in time".into()),
            DbErr::Conn(RuntimeErr::SqlxError(inner))
            | DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner)) => of_driver(inner),
            DbErr::Conn(RuntimeErr::Internal(text)) => Self::Away(text.clone()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

pub(crate) fn of_driver(error: &sqlx::Error) -> Error {
    use sqlx::Error as Driver;
    match error {
        Driver::Database(said) => {
            let code = said.code().unwrap_or_default();
            if said.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                of_sqlite(&code, said.message())
            } else {
                of_postgres(&code, said.message(), said.constraint())
            }
        }
        Driver::Io(why) => Error::Away(why.to_string()),
        Driver::Tls(why) => Error::Away(why.to_string()),
        Driver::PoolTimedOut => Error::Away("no connection came free in time".into()),
        Driver::PoolClosed | Driver::WorkerCrashed => Error::Away("the connections were closed".into()),
        Driver::Protocol(why) => Error::Away(why.clone()),
        other => Error::Failed(other.to_string()),
    }
}

/// The code is the extended one; its low byte is the primary one (<https://sqlite.org/rescode.html>).
fn of_sqlite(code: &str, message: &str) -> Error {
    let code: u32 = code.parse().unwrap_or(1);
    match (code & 0xff, code) {
        (_, 787) => Error::Orphan,
        (19, 1555 | 2067) => Error::Conflict(unique(message)),
        (13, _) => Error::Full,
        (8, _) => Error::ReadOnly,
        // Without the right to write to the directory the journal cannot be opened.
        (14, _) => Error::ReadOnly,
        (11 | 26, _) => Error::Damaged(message.into()),
        (5 | 6, _) => Error::Away("another process holds the database".into()),
        (10, _) => Error::Away(message.into()),
        (1, _) if message.starts_with("no such table") || message.contains("no such column") => Error::Unmigrated,
        _ => Error::Failed(message.into()),
    }
}

/// By SQLSTATE (PostgreSQL, appendix A).
fn of_postgres(code: &str, message: &str, constraint: Option<&str>) -> Error {
    match code {
        "23505" => Error::Conflict(unique(constraint.unwrap_or(message))),
        "23503" => Error::Orphan,
        "53100" => Error::Full,
        "25006" => Error::ReadOnly,
        "42P01" | "42703" | "3F000" => Error::Unmigrated,
        // Shutting down, starting, too many connections, a broken connection, a wait that was too long, a deadlock.
        _ if matches!(code.get(..2), Some("57" | "53" | "08" | "55" | "40")) => Error::Away(message.into()),
        _ => Error::Failed(message.into()),
    }
}

/// SQLite names the columns, PostgreSQL the constraint, and ours are named after table and column.
fn unique(text: &str) -> Unique {
    let known = [
        ("name_key", Unique::Name),
        ("email_key", Unique::Email),
        ("app_id", Unique::AppId),
        ("palisade_role.", Unique::Role),
        ("palisade_role_pkey", Unique::Role),
    ];
    known.iter().find(|(part, _)| text.contains(part)).map_or(Unique::Other, |(_, which)| *which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_sqlite() {
        let cases = [
            ("2067", "UNIQUE constraint failed: palisade_user.name_key", Error::Conflict(Unique::Name)),
            ("1555", "UNIQUE constraint failed: palisade_role.name", Error::Conflict(Unique::Role)),
            ("787", "FOREIGN KEY constraint failed", Error::Orphan),
            ("13", "database or disk is full", Error::Full),
            ("8", "attempt to write a readonly database", Error::ReadOnly),
            ("1032", "attempt to write a readonly database", Error::ReadOnly),
            ("1544", "attempt to write a readonly database", Error::ReadOnly),
            ("14", "unable to open database file", Error::ReadOnly),
            ("5", "database is locked", Error::Away("another process holds the database".into())),
            ("517", "database is locked", Error::Away("another process holds the database".into())),
            ("26", "file is not a database", Error::Damaged("file is not a database".into())),
            ("1", "no such table: palisade_user", Error::Unmigrated),
            ("1", "near \"x\": syntax error", Error::Failed("near \"x\": syntax error".into())),
        ];
        for (code, message, error) in cases {
            assert_eq!(of_sqlite(code, message), error, "{code} {message}");
        }
    }

    #[test]
    fn codes_of_postgres() {
        let cases = [
            ("23505", Some("palisade_user_email_key"), Error::Conflict(Unique::Email)),
            ("23505", Some("palisade_role_pkey"), Error::Conflict(Unique::Role)),
            ("23505", None, Error::Conflict(Unique::Other)),
            ("23503", None, Error::Orphan),
            ("53100", None, Error::Full),
            ("25006", None, Error::ReadOnly),
            ("42P01", None, Error::Unmigrated),
            ("57P01", None, Error::Away("m".into())),
            ("57014", None, Error::Away("m".into())),
            ("53300", None, Error::Away("m".into())),
            ("40001", None, Error::Away("m".into())),
            ("42601", None, Error::Failed("m".into())),
            ("", None, Error::Failed("m".into())),
        ];
        for (code, constraint, error) in cases {
            assert_eq!(of_postgres(code, "m", constraint), error, "{code}");
        }
    }
}
