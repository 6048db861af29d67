//! The keys that Palisade signs with, under `server.state`.
//!
//! One for access tokens, one for what the application is handed over, one for cookies: a token of one kind proves nothing
//! where another is asked for (threats 22). Files of mode 0600 in a directory of mode 0700.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use data_encoding::BASE64;
use palisade_base::{Secret, Timestamp};
use palisade_identity::token::{Algorithm, Keyring, SigningKey};
use serde::{Deserialize, Serialize};

use super::config::SigningAlgorithm;

/// The keys of one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Rings {
    /// For access tokens.
    pub(crate) access: Keyring,
    /// For `Palisade-Assertion`.
    pub(crate) assertion: Keyring,
    /// For what only Palisade itself reads again: CSRF tokens and device cookies.
    pub(crate) own: Secret<Vec<u8>>,
}

/// One key as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    algorithm: String,
    private: String,
}

impl From<SigningAlgorithm> for Algorithm {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::EdDsa => Self::EdDsa,
            SigningAlgorithm::Es256 => Self::Es256,
            SigningAlgorithm::Rs256 => Self::Rs256,
            SigningAlgorithm::Hs256 => Self::Hs256,
        }
    }
}

impl Rings {
    /// Reads the keys, and makes those that are not there yet.
    ///
    /// # Errors
    /// When the directory cannot be used, or a file is damaged.
    pub(crate) fn open(state: &Path, algorithm: SigningAlgorithm, now: Timestamp) -> io::Result<Self> {
        let dir = state.join("keys");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let access = key(&dir, "access", algorithm.into())?;
        let assertion = key(&dir, "assertion", Algorithm::EdDsa)?;
        let own = key(&dir, "own", Algorithm::Hs256)?.private().clone();
        Ok(Self { access: Keyring::new(access, now), assertion: Keyring::new(assertion, now), own })
    }
}

fn key(dir: &Path, purpose: &str, algorithm: Algorithm) -> io::Result<SigningKey> {
    let file = dir.join(format!("{purpose}-{}.json", algorithm.name().to_ascii_lowercase()));
    let damaged = |_| io::Error::other(format!("`{}` is damaged", file.display()));
    match read(&file)? {
        Some(text) => {
            let kept: Kept = serde_json::from_slice(text.expose()).map_err(|why| damaged(why.to_string()))?;
            let private = Secret::new(BASE64.decode(kept.private.as_bytes()).map_err(|why| damaged(why.to_string()))?);
            if kept.algorithm != algorithm.name() {
                return Err(damaged("another algorithm".into()));
            }
            let key = SigningKey::from_private(algorithm, private).map_err(|why| damaged(why.to_string()))?;
            Ok(named(key, purpose))
        }
        None => {
            let key = SigningKey::generate(algorithm).map_err(io::Error::other)?;
            let kept = Kept { algorithm: algorithm.name().into(), private: BASE64.encode(key.private().expose()) };
            let text = Secret::new(serde_json::to_vec(&kept)?);
            match write(dir, &file, text.expose()) {
                Ok(()) => Ok(named(key, purpose)),
                // Another process of the same state was faster: its key counts.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self::key(dir, purpose, algorithm),
                Err(error) => Err(error),
            }
        }
    }
}

/// A shared secret has no thumbprint to be called by.
fn named(key: SigningKey, purpose: &str) -> SigningKey {
    match key.verifying_key().id() {
        Some(_) => key,
        None => key.with_id(purpose),
    }
}

fn read(file: &Path) -> io::Result<Option<Secret<Vec<u8>>>> {
    match fs::read(file) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole, or not at all: written beside, flushed, then linked under its name.
fn write(dir: &Path, file: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).tempfile_in(dir)?;
    beside.write_all(text)?;
    beside.as_file().sync_all()?;
    beside.persist_noclobber(file).map_err(|error| error.error)?;
    fs::OpenOptions::new().read(true).custom_flags(0).open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_for_nobody_else() {
        let state = tempfile::tempdir().unwrap();
        let open = |algorithm| Rings::open(state.path(), algorithm, Timestamp(0)).unwrap();
        let set = |rings: &Rings| rings.access.jwk_set(Timestamp(0)).to_string();
        let first = open(SigningAlgorithm::EdDsa);
        assert_eq!(set(&first), set(&open(SigningAlgorithm::EdDsa)), "kept");
        assert_ne!(set(&first), set(&open(SigningAlgorithm::Es256)));
        assert_ne!(set(&first), first.assertion.jwk_set(Timestamp(0)).to_string(), "a key of its own");
        assert!(!set(&open(SigningAlgorithm::Hs256)).contains("kty"), "a shared secret is not published");
        let files: Vec<_> = fs::read_dir(state.path().join("keys")).unwrap().flatten().collect();
        assert_eq!(files.len(), 5, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        fs::write(state.path().join("keys/access-eddsa.json"), "{").unwrap();
        assert!(Rings::open(state.path(), SigningAlgorithm::EdDsa, Timestamp(0)).is_err(), "damaged, not replaced");
    }
}
