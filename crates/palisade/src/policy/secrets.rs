//! The secret store that the policy names.

use std::path::PathBuf;
use std::sync::Arc;

use palisade_vault::{Dir, DotEnv, Env, File, KeyFile, Provider};

use super::state_dir;
use super::values::SecretProvider;
use crate::controls::Config;

/// The name of the encrypted file under `server.state`.
const FILE: &str = "secrets.age";
/// The name of its key there, which development makes for itself.
const KEY: &str = "secrets.key";

/// The shortest secret that production takes: 128 bits in hexadecimal are twice as long.
const MIN_BYTES: usize = 16;
/// The fewest different characters of one: 32 random digits in hexadecimal practically always have more.
const MIN_KINDS: usize = 7;
/// The `SECRET_KEY` of FastAPI's tutorial on tokens, which whoever copied it shares with everybody.
const TUTORIAL: &str = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7";

/// Why production does not start with a secret that somebody chose: it can be guessed, or read somewhere.
pub(crate) fn weakness(secret: &str) -> Option<&'static str> {
    let secret = secret.trim_end();
    if secret.len() < MIN_BYTES {
        Some("is too short to be a secret")
    } else if kinds(secret.as_bytes()) < MIN_KINDS {
        Some("is too simple to be a secret")
    } else if secret.eq_ignore_ascii_case(TUTORIAL) {
        Some("is printed in FastAPI's tutorial, where everybody can read it")
    } else {
        None
    }
}

/// How many different bytes there are.
fn kinds(bytes: &[u8]) -> usize {
    (0..=u8::MAX).filter(|kind| bytes.contains(kind)).count()
}

/// The secret store of a policy. Nothing is read or made before the first secret is asked for.
pub fn provider(config: &Config) -> Arc<dyn Provider> {
    match &config.secrets.provider {
        SecretProvider::File(path) => {
            let path = path.clone().unwrap_or_else(|| state_dir(&config.server).join(FILE));
            Arc::new(File::new(path, key_file(config)))
        }
        SecretProvider::Env => Arc::new(Env),
        SecretProvider::Dir(path) => Arc::new(Dir::new(path)),
        SecretProvider::DotEnv(path) => Arc::new(DotEnv::new(path)),
    }
}

/// The key of the encrypted file: the one that `PALISADE_SECRETS_KEY_FILE` names; in development one that is made at the
/// first start. In production a key that lies beside what it opens, and that nobody has put into a backup of its own, is
/// no answer.
pub fn key_file(config: &Config) -> KeyFile {
    let made: Option<PathBuf> = config.server.is_development().then(|| state_dir(&config.server).join(KEY));
    KeyFile::from_environment(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_are_none() {
        for (secret, why) in [
            ("", Some("short")),
            ("hunter2", Some("short")),
            ("abcdefghijklmno\n", Some("short")),
            (&*"a".repeat(64), Some("simple")),
            (&*"abc123".repeat(10), Some("simple")),
            (TUTORIAL, Some("tutorial")),
            (&*TUTORIAL.to_ascii_uppercase(), Some("tutorial")),
            (&*format!("{TUTORIAL}\n"), Some("tutorial")),
            ("f3a1c97be80d4652", None),
            ("a token of the operator's, for scripts", None),
        ] {
            let said = weakness(secret);
            assert_eq!(said.is_some(), why.is_some(), "{secret}");
            assert!(said.unwrap_or_default().contains(why.unwrap_or_default()), "{secret}: {said:?}");
        }
    }
}
