//! New versions of keys.

use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::BASE32_NOPAD;
use palisade_base::{Secret, Timestamp};
use palisade_vault::{BadRing, Change, Ring, Store, Version};

use super::{Error, Name, provided};
use crate::token::{Algorithm, SigningKey};

/// Length of the keys that are no signing keys, in bytes.
const KEY_BYTES: usize = 32;

/// How a ring gets a new version.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotation {
    /// For which algorithm; as before where absent. Only for rings that sign.
    pub algorithm: Option<Algorithm>,
    /// From now to its first use, so that every instance and every reader of the JWKS knows it by then.
    pub lead: Duration,
    /// Whether the old versions go at once, with all that they made, and the new one is used at once: for a stolen key.
    pub revoke: bool,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The ring.
    pub name: Name,
    /// The id of the new version.
    pub id: String,
    /// From when on it is used.
    pub from: Timestamp,
    /// How many versions the ring has now.
    pub versions: usize,
}

/// Gives a ring a new version; makes the ring where there is none. Running servers that share the store see it within a
/// second.
///
/// # Errors
/// When the store cannot be written or holds something else under that name, and for a pepper that shall be revoked.
pub fn rotate(store: &dyn Store, name: Name, rotation: &Rotation, now: Timestamp) -> Result<Rotated, Error> {
    if name == Name::Pepper && rotation.revoke {
        return Err(Error::PepperKept);
    }
    let done = change(store, name, now, rotation.algorithm.unwrap_or(Algorithm::EdDsa), &|_| Some(*rotation))?;
    done.ok_or_else(|| Error::Make("the ring was changed by somebody else".into()))
}

/// Makes the ring, unless somebody else has in the meantime.
pub(super) fn make(store: &dyn Store, name: Name, algorithm: Algorithm, now: Timestamp) -> Result<(), Error> {
    let first = Rotation { algorithm: Some(algorithm), ..Rotation::default() };
    change(store, name, now, algorithm, &|ring| ring.is_none().then_some(first)).map(|_| ())
}

/// Looks at the ring and rotates it as `wanted` says, `None` meaning not at all. It is asked once to know which key to
/// make, which may take seconds, and once more under the lock.
pub(super) fn change(
    store: &dyn Store,
    name: Name,
    now: Timestamp,
    preferred: Algorithm,
    wanted: &dyn Fn(Option<&Ring>) -> Option<Rotation>,
) -> Result<Option<Rotated>, Error> {
    let unusable = |reason: String| Error::Unusable { name: name.secret(), place: store.place(name.secret()), reason };
    let read = |text: &Secret<String>| provided::read(name, text, preferred);
    let before = match store.get(name.secret()) {
        Ok(text) => Some(read(&text).map_err(unusable)?),
        Err(palisade_vault::Error::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(rotation) = wanted(before.as_ref()) else { return Ok(None) };
    let mut version = Some(version(name, algorithm(before.as_ref(), rotation), now)?);
    let (mut failed, mut done) = (None, None);
    store.update(name.secret(), &mut |text| {
        let ring = match text.map(read).transpose() {
            Ok(ring) => ring,
            Err(reason) => {
                failed = Some(unusable(reason));
                return Ok(Change::Keep);
            }
        };
        let (Some(rotation), Some(version)) = (wanted(ring.as_ref()), version.take()) else { return Ok(Change::Keep) };
        match apply(ring.unwrap_or_default(), version, rotation, now) {
            Ok((ring, id, from)) => {
                done = Some(Rotated { name, id, from, versions: ring.versions().len() });
                Ok(Change::Set(ring.write()))
            }
            Err(reason) => {
                failed = Some(unusable(reason.to_string()));
                Ok(Change::Keep)
            }
        }
    })?;
    failed.map_or(Ok(done), Err)
}

fn apply(
    mut ring: Ring,
    mut version: Version,
    rotation: Rotation,
    now: Timestamp,
) -> Result<(Ring, String, Timestamp), BadRing> {
    let symmetric = |version: &Version| Algorithm::named(&version.algorithm).is_some_and(Algorithm::is_symmetric);
    // Shared secrets and public keys never check the same tokens: a public key could be taken for a secret then. Tokens
    // of the old kind end here.
    let other_kind = ring.versions().iter().any(|old| symmetric(old) != symmetric(&version));
    let alone = rotation.revoke || other_kind || ring.versions().is_empty();
    version.from = if alone { now } else { now.plus(rotation.lead) };
    let (id, from) = (version.id.clone(), version.from);
    if alone {
        ring = Ring::new([version])?;
    } else {
        ring.rotate(version)?;
    }
    Ok((ring, id, from))
}

/// What the next version is for: as was asked, or as the youngest, or the default.
fn algorithm(ring: Option<&Ring>, rotation: Rotation) -> Algorithm {
    let youngest = ring.and_then(|ring| ring.versions().last()).and_then(|last| Algorithm::named(&last.algorithm));
    rotation.algorithm.or(youngest).unwrap_or(Algorithm::EdDsa)
}

fn version(name: Name, algorithm: Algorithm, now: Timestamp) -> Result<Version, Error> {
    let failed = |_| Error::Make("the system gave no random bytes".into());
    let mut id = [0; 5];
    rand::fill(&mut id).map_err(failed)?;
    // Eight characters: what fits into the `keyid` of a stored hash.
    let id = BASE32_NOPAD.encode(&id).to_ascii_lowercase();
    let (id, algorithm, key) = match name {
        Name::Signing | Name::Assertion => {
            let key = SigningKey::generate(algorithm).map_err(|error| Error::Make(error.to_string()))?;
            let id = key.verifying_key().id().map_or(id, str::to_owned);
            (id, algorithm.name().to_owned(), key.private().clone())
        }
        Name::Mac | Name::Pepper => {
            let mut key = vec![0; KEY_BYTES];
            rand::fill(&mut key).map_err(failed)?;
            (id, String::new(), Secret::new(key))
        }
    };
    Ok(Version { id, algorithm, made: now, from: now, key })
}
