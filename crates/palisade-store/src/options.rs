//! Where the database is and how it is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use palisade_base::Secret;

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) target: Target,
    /// Connections at most. SQLite has one writer whatever stands here.
    pub max_connections: u32,
    /// How long a connection may take to come free.
    pub acquire_timeout: Duration,
    /// How long one statement may take, with its wait for locks.
    pub statement_timeout: Duration,
    /// After that time without use a connection is closed.
    pub idle_timeout: Duration,
    /// After that time a connection is replaced, so that a change of servers or of a password reaches all.
    pub max_lifetime: Duration,
    /// How large the file of SQLite may grow, in bytes, so that it leaves room for what else is on the disk.
    pub max_bytes: Option<u64>,
    /// A file of PEM certificates that the server's has to lead to, instead of the public authorities.
    pub root_certificates: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Sqlite(PathBuf),
    Postgres(Secret<String>),
}

/// Why a text is not the address of a database. None of them repeats it, for there may be a password in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUrl {
    /// Another database, or no URL.
    #[error("a database is `sqlite:FILE` or `postgres://USER@HOST/DATABASE`")]
    Scheme,
    /// `sqlite:` without a file, or with options.
    #[error("behind `sqlite:` stands the path of a file, without options")]
    File,
    /// A database in memory would be another one for each connection, and gone with the process.
    #[error("a database in memory keeps nothing; name a file")]
    Memory,
}

impl Options {
    /// A database in a file, which is made when it is not there.
    pub fn sqlite(file: impl AsRef<Path>) -> Self {
        Self::of(Target::Sqlite(file.as_ref().to_owned()))
    }

    /// `sqlite:FILE` (relative to `folder`) or `postgres://…`. The URL is a secret, for it may hold a password.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn parse(url: &Secret<String>, folder: &Path) -> Result<Self, BadUrl> {
        let text = url.expose().as_str();
        if let Some(file) = text.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            if file.contains(":memory:") {
                return Err(BadUrl::Memory);
            }
            if file.is_empty() || file.contains('?') {
                return Err(BadUrl::File);
            }
            return Ok(Self::sqlite(folder.join(file)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::of(Target::Postgres(url.clone())));
        }
        Err(BadUrl::Scheme)
    }

    fn of(target: Target) -> Self {
        Self {
            target,
            max_connections: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
            max_bytes: None,
            root_certificates: None,
        }
    }

    /// Whether it is a file of this machine: it migrates itself then.
    pub const fn is_embedded(&self) -> bool {
        matches!(self.target, Target::Sqlite(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parse = |text: &str| Options::parse(&Secret::new(text.to_owned()), Path::new("/var/lib/palisade"));
        let file = |text: &str| match parse(text).unwrap().target {
            Target::Sqlite(file) => file,
            Target::Postgres(_) => panic!("{text}"),
        };
        assert_eq!(file("sqlite:palisade.db"), Path::new("/var/lib/palisade/palisade.db"));
        assert_eq!(file("sqlite://palisade.db"), Path::new("/var/lib/palisade/palisade.db"));
        assert_eq!(file("sqlite:///srv/p.db"), Path::new("/srv/p.db"));
        assert_eq!(file("sqlite:/srv/p.db"), Path::new("/srv/p.db"));
        for url in ["postgres://u:p@h/d", "postgresql://h/d"] {
            assert!(!parse(url).unwrap().is_embedded());
            assert!(!format!("{:?}", parse(url)).contains("h/d"));
        }
        for (bad, why) in [
            ("", BadUrl::Scheme),
            ("mysql://h/d", BadUrl::Scheme),
            ("palisade.db", BadUrl::Scheme),
            ("sqlite:", BadUrl::File),
            ("sqlite://", BadUrl::File),
            ("sqlite:a.db?mode=ro", BadUrl::File),
            ("sqlite::memory:", BadUrl::Memory),
        ] {
            assert_eq!(parse(bad).err(), Some(why), "{bad}");
        }
    }
}
