//! Secrets in one encrypted file: the provider `file`, the default.
//!
//! The file is an age file (armored, X25519) and holds JSON, so that `age --decrypt --identity KEY secrets.age` shows it
//! where no Palisade is at hand. It is never changed in place: a change writes a new file beside it and takes the old
//! one's name, so that a reader, a crash or a full disk finds the old or the new one, whole.

mod contents;
mod key;
mod replace;

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_base::{Clock, Secret};
use parking_lot::Mutex;

use self::contents::{Contents, Item};
pub use self::key::KeyFile;
use self::replace::Lock;
use crate::{Change, Changing, Env, Error, Listed, Provider, Ring, Store, check_name, finish};

/// The most secrets of one file.
pub const MAX_SECRETS: usize = 1000;
/// The largest file of secrets that is read, in bytes.
pub const MAX_STORE_BYTES: usize = 4 * 1024 * 1024;

/// An encrypted file of secrets.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    key: KeyFile,
    clock: Clock,
    read: Mutex<Option<Read>>,
}

/// What was read, and of which file.
#[derive(Debug)]
struct Read {
    /// Held open, so that its inode cannot become another file's: that is what tells an old file from a new one.
    _file: fs::File,
    mark: Mark,
    contents: Arc<Contents>,
}

/// Device, inode, length, time of change.
type Mark = (u64, u64, u64, i64, i64);

impl File {
    /// The secrets of this file. Nothing is read or made before the first secret is asked for.
    pub fn new(path: impl Into<PathBuf>, key: KeyFile) -> Self {
        Self { path: path.into(), key, clock: Clock::real(), read: Mutex::new(None) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its key comes from.
    pub const fn key(&self) -> &KeyFile {
        &self.key
    }

    /// What the file holds now. A file that is as it was when it was last read is not read again.
    fn contents(&self) -> Result<Arc<Contents>, Error> {
        let failed = |error: io::Error| self.failed("read", &error);
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        let mark = (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let mut read = self.read.lock();
        if let Some(read) = read.as_ref().filter(|read| read.mark == mark) {
            return Ok(Arc::clone(&read.contents));
        }
        let mut bytes = Vec::new();
        (&file).take(MAX_STORE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_STORE_BYTES {
            return Err(self.damaged("it is longer than 4 MiB"));
        }
        let plain = self.key.open(&self.path, &bytes)?;
        let contents = Contents::read(plain.expose()).map_err(|reason| self.damaged(&reason))?;
        let contents = Arc::new(contents);
        *read = Some(Read { _file: file, mark, contents: Arc::clone(&contents) });
        Ok(contents)
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Damaged { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn failed(&self, doing: &'static str, error: &io::Error) -> Error {
        Error::Storage { path: self.path.clone(), doing, reason: error.to_string() }
    }
}

impl Provider for File {
    fn get(&self, name: &str) -> Result<Secret<String>, Error> {
        check_name(name)?;
        let contents = self.contents()?;
        contents.get(name).map(|item| item.value.clone()).ok_or_else(|| {
            let variable = Env::variable(name);
            let hint = if std::env::var_os(&variable).is_some() {
                // Who has it there has probably meant the other provider.
                format!(
                    "the environment has `{variable}`, but `secrets.provider` is \"file\": write `provider = \"env\"` \
                     under `[secrets]`, or store it with `palisade secret set {name}`"
                )
            } else {
                format!("`{}` does not hold it: store it with `palisade secret set {name}`", self.path.display())
            };
            Error::Missing { name: name.into(), hint }
        })
    }

    fn place(&self, name: &str) -> String {
        format!("`{name}` in `{}`", self.path.display())
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(self)
    }
}

impl Store for File {
    fn list(&self) -> Result<Vec<Listed>, Error> {
        let contents = self.contents()?;
        let listed = contents.iter().map(|(name, item)| Listed {
            name: name.clone(),
            changed: item.changed,
            versions: Ring::count(&item.value),
        });
        Ok(listed.collect())
    }

    fn update(&self, name: &str, change: &mut Changing<'_>) -> Result<(), Error> {
        check_name(name)?;
        let lock = Lock::take(&self.path)?;
        let contents = self.contents()?;
        let mut new = Contents::clone(&contents);
        match change(contents.get(name).map(|item| &item.value))? {
            Change::Keep => return Ok(()),
            Change::Set(value) => {
                let value = finish(name, value.expose().clone().into_bytes())?;
                new.insert(name.to_owned(), Item { value, changed: self.clock.now() });
            }
            Change::Remove => {
                new.remove(name);
            }
        }
        if new.len() > MAX_SECRETS {
            return Err(Error::Full("the file holds 1,000 secrets"));
        }
        let sealed = self.key.seal(new.write().expose(), &self.path)?;
        if sealed.len() > MAX_STORE_BYTES {
            return Err(Error::Full("the file may have 4 MiB"));
        }
        lock.replace(&sealed).map_err(|error| self.failed("written", &error))
    }
}

#[cfg(test)]
mod tests;
