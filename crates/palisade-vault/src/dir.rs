//! Secrets from files of a directory, as containers mount them.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use palisade_base::Secret;

use crate::{Error, MAX_BYTES, Provider, check_name, finish};

/// `admin-token` is the file of that name.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// The files of this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Provider for Dir {
    fn get(&self, name: &str) -> Result<Secret<String>, Error> {
        check_name(name)?;
        let path = self.0.join(name);
        let file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Missing { name: name.into(), hint: format!("there is no file `{}`", path.display()) }
            }
            _ => Error::Unreadable { name: name.into(), reason: error.to_string() },
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::Unreadable { name: name.into(), reason: error.to_string() })?;
        finish(name, bytes)
    }

    fn place(&self, name: &str) -> String {
        format!("the file `{}`", self.0.join(name).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_secrets_without_their_line_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        std::fs::write(dir.path().join("huge"), vec![b'a'; MAX_BYTES + 1]).unwrap();
        let provider = Dir::new(dir.path());
        assert!(provider.get("token").unwrap().matches(b"s3cret"));
        assert!(matches!(provider.get("none"), Err(Error::Missing { .. })));
        assert!(matches!(provider.get("empty"), Err(Error::Unreadable { .. })));
        assert!(matches!(provider.get("huge"), Err(Error::Unreadable { .. })));
        assert!(matches!(provider.get("../token"), Err(Error::BadName(_))));
    }
}
