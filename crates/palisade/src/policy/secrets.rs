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
