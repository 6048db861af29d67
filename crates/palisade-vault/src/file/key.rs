//! The key of the file: an age identity, `AGE-SECRET-KEY-1…`, as `age-keygen` makes it.
//!
//! Several may stand in the file, one a line: all of them open, the first one seals. That is how a key is replaced.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use age::{DecryptError, Decryptor};
use palisade_base::Secret;
use zeroize::Zeroizing;

use crate::{Error, exposed};

/// The variable that names the file of the key.
pub(super) const VARIABLE: &str = "PALISADE_SECRETS_KEY_FILE";
/// The longest file of keys, in bytes: room for hundreds.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Where the key of a file of secrets comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    /// This file, which has to be there.
    At(PathBuf),
    /// This file, which is made where it is missing. For development: beside the secrets that it opens, a key protects
    /// only against those who find one without the other.
    Made(PathBuf),
    /// Nobody has named one.
    Unnamed,
}

impl KeyFile {
    /// The file that `PALISADE_SECRETS_KEY_FILE` names; without it `otherwise`, which is for development.
    pub fn from_environment(otherwise: Option<PathBuf>) -> Self {
        match (std::env::var_os(VARIABLE).filter(|named| !named.is_empty()), otherwise) {
            (Some(named), _) => Self::At(named.into()),
            (None, Some(path)) => Self::Made(path),
            (None, None) => Self::Unnamed,
        }
    }

    /// The file; `None` where nobody has named one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::At(path) | Self::Made(path) => Some(path),
            Self::Unnamed => None,
        }
    }

    /// Makes the file with a new key, for this user alone, and says whether it was missing. One that is there stays.
    ///
    /// # Errors
    /// When nobody has named it, or it cannot be written.
    pub fn make(&self) -> Result<bool, Error> {
        let path = self.path().ok_or_else(|| Error::NoKey(PathBuf::from("secrets.age")))?;
        if path.exists() {
            return Ok(false);
        }
        let failed = |error: io::Error| Error::BadKey { path: path.into(), reason: error.to_string() };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let identity = Identity::generate();
        let text = Secret::new(format!(
            "# the key of Palisade's secrets; whoever has it and the file of secrets has them all\n\
             # public key: {}\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        ));
        // Whole under another name first: two processes that start at once must not read half a key, and the one that
        // comes second takes the key of the first.
        static TRY: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), TRY.fetch_add(1, Ordering::Relaxed));
        let new = folder.join(format!(".{}.{process}.{number}", file_name(path)));
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        let linked = file
            .write_all(text.expose().as_bytes())
            .and_then(|()| super::replace::give_to_owner(&file, folder))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&new, path));
        let _ = fs::remove_file(&new);
        match linked {
            Ok(()) => fs::File::open(folder).and_then(|folder| folder.sync_all()).map(|()| true).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Says what would keep the secrets from being opened or written. Nothing is made: one that will be made at the first
    /// need may be missing.
    ///
    /// # Errors
    /// When nobody has named the key, or it cannot be used.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Made(path) if !path.exists() => Ok(()),
            Self::Made(path) => Self::At(path.clone()).check(),
            Self::At(_) | Self::Unnamed => self.identities(Path::new("secrets.age")).map(drop),
        }
    }

    fn identities(&self, secrets: &Path) -> Result<(PathBuf, Vec<Identity>), Error> {
        if let Self::Made(_) = self {
            self.make()?;
        }
        let path = self.path().ok_or_else(|| Error::NoKey(secrets.into()))?;
        let bad = |reason: String| Error::BadKey { path: path.into(), reason };
        let file = fs::File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => bad("there is no such file; `palisade secret init` makes it".into()),
            _ => bad(error.to_string()),
        })?;
        let meta = file.metadata().map_err(|error| bad(error.to_string()))?;
        if let Some(found) = exposed(path, &meta).filter(|found| !found.mounted) {
            return Err(Error::ExposedKey { path: path.into(), mode: found.mode });
        }
        let mut text = Vec::new();
        file.take(MAX_KEY_BYTES + 1).read_to_end(&mut text).map_err(|error| bad(error.to_string()))?;
        let text = Secret::new(text);
        if text.expose().len() as u64 > MAX_KEY_BYTES {
            return Err(bad("it is longer than 64 KiB".into()));
        }
        let text = std::str::from_utf8(text.expose()).map_err(|_| bad("it is not UTF-8".into()))?;
        if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE ENCRYPTED FILE") {
            return Err(bad("it is encrypted itself, and nobody is there to type its passphrase".into()));
        }
        let lines = text.lines().enumerate().map(|(place, line)| (place + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let identities = lines.map(|(number, line)| {
            // The line may be a secret with a typing error: it is not quoted.
            line.parse::<Identity>()
                .map_err(|_| bad(format!("line {number} is no age identity (`AGE-SECRET-KEY-1…`, X25519)")))
        });
        let identities = identities.collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            return Err(bad("it holds no age identity (`AGE-SECRET-KEY-1…`)".into()));
        }
        Ok((path.to_owned(), identities))
    }

    /// Decrypts the file of secrets at `path`.
    pub(super) fn open(&self, path: &Path, sealed: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
        let (key, identities) = self.identities(path)?;
        let damaged = |reason: String| Error::Damaged { path: path.into(), reason };
        let decryptor = Decryptor::new_buffered(age::armor::ArmoredReader::new(sealed))
            .map_err(|error| damaged(error.to_string()))?;
        let mut reader =
            decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity)).map_err(|error| {
                match error {
                    DecryptError::NoMatchingKeys => Error::WrongKey { path: path.into(), key },
                    other => damaged(other.to_string()),
                }
            })?;
        // The plain text is shorter than what it is sealed in: no buffer grows, and leaves a copy behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        reader.read_to_end(&mut plain).map_err(|error| damaged(error.to_string()))?;
        Ok(Secret::new(std::mem::take(&mut *plain)))
    }

    /// Encrypts secrets for the first key.
    pub(super) fn seal(&self, plain: &[u8], path: &Path) -> Result<Vec<u8>, Error> {
        let (key, identities) = self.identities(path)?;
        let first = identities.first().ok_or_else(|| Error::NoKey(path.into()))?;
        age::encrypt_and_armor(&first.to_public(), plain)
            .map(String::into_bytes)
            .map_err(|error| Error::BadKey { path: key, reason: error.to_string() })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
