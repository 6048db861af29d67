//! API keys: `pal_<env>_<id>_<secret>`.

use std::fmt;

use aws_lc_rs::constant_time;
use data_encoding::{Encoding, Specification};
use palisade_base::Secret;

use super::{NoEntropy, hash, random};

const PREFIX: &str = "pal_";
const ID_BYTES: usize = 10;
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 5;
/// Characters of secret and check sum, five bits each.
const TAIL: usize = ((SECRET_BYTES + CHECK_BYTES) * 8).div_ceil(5);
const MAX_ENVIRONMENT: usize = 16;

/// Why a text is not a key. Whatever it is, it was meant as one: no other scheme tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadApiKey {
    /// It does not begin with `pal_`: not offered at all.
    #[error("not an API key")]
    NotOne,
    /// Cut, mistyped or changed: its check sum is wrong. No look-up is needed to say so.
    #[error("the API key is damaged")]
    Damaged,
}

/// An API key, in the one moment in which it is whole.
pub struct ApiKey {
    environment: String,
    id: String,
    secret: Secret<Vec<u8>>,
}

/// What is stored of a key, beside its id.
#[derive(Clone, Copy)]
pub struct StoredKey([u8; 32]);

impl ApiKey {
    /// A new key. `environment` is for people (`live`, `test`): 1 to 16 lower-case letters and digits, what else it holds
    /// is left out.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(environment: &str) -> Result<Self, NoEntropy> {
        let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let mut environment: String = environment.chars().filter(fits).take(MAX_ENVIRONMENT).collect();
        if environment.is_empty() {
            environment.push_str("live");
        }
        let id = encode(&random::<ID_BYTES>()?);
        Ok(Self { environment, id, secret: Secret::new(random::<SECRET_BYTES>()?.to_vec()) })
    }

    /// Reads a key and checks its sum.
    ///
    /// # Errors
    /// [`BadApiKey`].
    pub fn parse(text: &str) -> Result<Self, BadApiKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(BadApiKey::NotOne)?;
        Self::parts(rest).ok_or(BadApiKey::Damaged)
    }

    fn parts(rest: &str) -> Option<Self> {
        let (environment, rest) = rest.split_once('_')?;
        let (id, tail) = rest.split_once('_')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let sizes = (1..=MAX_ENVIRONMENT).contains(&environment.len()) && id.len() == ID_BYTES * 8 / 5;
        if !sizes || !plain(environment) || !plain(id) || tail.len() != TAIL {
            return None;
        }
        let bytes = decode(tail).filter(|bytes| bytes.len() == SECRET_BYTES + CHECK_BYTES)?;
        let (secret, check) = bytes.split_at(SECRET_BYTES);
        let key = Self { environment: environment.into(), id: id.into(), secret: Secret::new(secret.to_vec()) };
        constant_time::verify_slices_are_equal(&key.check(), check).is_ok().then_some(key)
    }

    /// By which it is found. Not secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole text, to show once.
    pub fn reveal(&self) -> Secret<String> {
        let mut tail = self.secret.expose().clone();
        tail.extend_from_slice(&self.check());
        let tail = Secret::new(tail);
        Secret::new(format!("{PREFIX}{}_{}_{}", self.environment, self.id, encode(tail.expose())))
    }

    /// What to store. The id and the environment go in: a secret under another id is another key.
    pub fn stored(&self) -> StoredKey {
        StoredKey(hash("palisade api key v1", &self.fields()))
    }

    fn fields(&self) -> [&[u8]; 3] {
        [self.environment.as_bytes(), self.id.as_bytes(), self.secret.expose()]
    }

    /// Against mistakes and for scanners of leaked keys; it protects nothing.
    fn check(&self) -> [u8; CHECK_BYTES] {
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hash("palisade api key check v1", &self.fields())[..CHECK_BYTES]);
        check
    }
}

/// The id, never the secret.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({PREFIX}{}_{}_[redacted])", self.environment, self.id)
    }
}

impl StoredKey {
    /// As it was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is the hash of this key. Constant time.
    pub fn matches(&self, presented: &ApiKey) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &presented.stored().0).is_ok()
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKey")
    }
}

/// Base32 in lower case, without padding: one double click takes the whole key, and no character looks like `_`.
fn base32() -> Option<Encoding> {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().ok()
}

fn encode(bytes: &[u8]) -> String {
    base32().map(|encoding| encoding.encode(bytes)).unwrap_or_default()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base32()?.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_shows() {
        for environment in ["live", "test", "", "Prod_ü", "a-very-long-name-of-an-environment"] {
            let key = ApiKey::generate(environment).expect("entropy");
            let text = key.reveal();
            let text = text.expose().as_str();
            assert_eq!(text.matches('_').count(), 3, "{text}");
            let back = ApiKey::parse(text).expect("its text");
            assert!(key.stored().matches(&back) && back.id() == key.id());
            assert!(!ApiKey::generate(environment).expect("entropy").stored().matches(&back));
            let secret = text.rsplit('_').next().expect("a part");
            let shown = format!("{key:?} {:?}", key.stored());
            assert!(!shown.contains(secret) && shown.contains(key.id()));
        }
    }

    /// A key that is cut, or has any one character changed, is known to be damaged without a look-up.
    #[test]
    fn damage_is_seen() {
        let key = ApiKey::generate("live").expect("entropy").reveal();
        let key = key.expose().as_str();
        for length in 4..key.len() {
            assert_eq!(ApiKey::parse(&key[..length]).err(), Some(BadApiKey::Damaged), "{length}");
        }
        for place in 4..key.len() {
            for other in ["a", "7", "_", "A", "=", " ", ""] {
                let changed = format!("{}{other}{}", &key[..place], &key[place + 1..]);
                if changed != key {
                    assert_eq!(ApiKey::parse(&changed).err(), Some(BadApiKey::Damaged), "{place} {other:?}");
                }
            }
        }
        for (text, why) in [
            ("", BadApiKey::NotOne),
            ("eyJhbGciOiJFZERTQSJ9.e30.c2ln", BadApiKey::NotOne),
            ("PAL_live", BadApiKey::NotOne),
            ("pal_", BadApiKey::Damaged),
            ("pal____", BadApiKey::Damaged),
            ("pal_é_é_é", BadApiKey::Damaged),
        ] {
            assert_eq!(ApiKey::parse(text).err(), Some(why), "{text}");
        }
    }
}
