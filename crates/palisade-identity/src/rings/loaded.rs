//! Rings ready for use, and how they come from the store.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use palisade_base::{Secret, Timestamp};
use palisade_vault::{Change, MAX_VERSIONS, Provider, Ring, Store, Version};
use serde_json::json;

use super::make::{self, Rotation};
use super::{Error, Name, Settings, Source, TAG_BYTES, provided};
use crate::password::Peppers;
use crate::token::{Algorithm, Keyring, Keys, SigningKey};

/// Old versions stay in the store for a while after their end, for instances whose clocks are behind.
const PRUNE_AFTER: Duration = Duration::from_secs(3600);

/// All rings ready for use.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) signing: Keyring,
    pub(super) assertion: Keyring,
    pub(super) access_keys: Arc<Keys>,
    pub(super) assertion_keys: Arc<Keys>,
    pub(super) jwk_set: Arc<str>,
    pub(super) macs: Macs,
    pub(super) peppers: Peppers,
    /// What was read, in the order of [`Name::ALL`].
    texts: Vec<Option<Secret<String>>>,
    /// When a version takes its turn or ends.
    next: Option<Timestamp>,
}

/// What the one use of `mac-key` is derived by: a second one would get another.
const MAC: &[u8] = b"palisade mac csrf";

/// The keys of [`super::Rings::mac`], one a version.
#[derive(Debug, Default)]
pub(super) struct Macs(Vec<(Timestamp, hmac::Key)>);

impl Macs {
    fn new<'a>(versions: impl Iterator<Item = &'a Version>) -> Self {
        Self(versions.map(|version| (version.from, Self::derive(version))).collect())
    }

    /// HMAC as the pseudo-random function of NIST SP 800-108, of one block.
    fn derive(version: &Version) -> hmac::Key {
        let ring = hmac::Key::new(hmac::HMAC_SHA256, version.key.expose());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&ring, MAC).as_ref())
    }

    pub(super) fn tag(&self, message: &[u8], now: Timestamp) -> [u8; TAG_BYTES] {
        let due = self.0.iter().rev().find(|(from, _)| *from <= now).or(self.0.first());
        let (_, key) = due.expect("a ring that was loaded has a key");
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(hmac::sign(key, message).as_ref());
        tag
    }

    pub(super) fn checks(&self, message: &[u8], tag: &[u8]) -> bool {
        self.0.iter().rev().any(|(_, key)| hmac::verify(key, message, tag).is_ok())
    }
}

/// Says what would keep [`Rings::open`](super::Rings::open) from succeeding, and makes nothing: keys that it would make
/// may be missing.
///
/// # Errors
/// As `open`.
pub fn check(provider: &dyn Provider, settings: &Settings) -> Result<(), Error> {
    let mut missing = Vec::new();
    for name in Name::ALL {
        match provider.get(name.secret()) {
            Ok(text) => {
                let algorithm = settings.algorithm_of(name);
                provided::read(name, &text, algorithm).map_err(|reason| unusable(provider, name, reason))?;
            }
            Err(palisade_vault::Error::Missing { .. }) if provider.store().is_some() || !settings.uses(name) => {}
            Err(palisade_vault::Error::Missing { .. }) => missing.push(wanted(provider, name, settings)),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Provide(missing.join("; "))) }
}

fn wanted(provider: &dyn Provider, name: Name, settings: &Settings) -> String {
    let place = provider.place(name.secret());
    format!("`{}` in {place}: {}", name.secret(), provided::advice(name, settings.algorithm_of(name)))
}

fn unusable(provider: &dyn Provider, name: Name, reason: String) -> Error {
    Error::Unusable { name: name.secret(), place: provider.place(name.secret()), reason }
}

/// What may be done beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Rings are made, replaced and pruned where that is due, which may wait for another process.
    All,
    /// Nothing: somebody waits for the answer.
    Look,
}

impl Source {
    /// Reads the rings. `None` where all is as it was in `old`.
    pub(super) fn load(&self, old: Option<&Loaded>, now: Timestamp, work: Work) -> Result<Option<Loaded>, Error> {
        let mut missing = Vec::new();
        let mut texts = Vec::new();
        for name in Name::ALL {
            texts.push(self.text(name, now, work, &mut missing)?);
        }
        if !missing.is_empty() {
            return Err(Error::Provide(missing.join("; ")));
        }
        let same = |old: &Loaded| {
            old.next.is_none_or(|next| now < next)
                && old.texts.iter().zip(&texts).all(|(old, new)| match (old, new) {
                    (Some(old), Some(new)) => old.matches(new.expose().as_bytes()),
                    (old, new) => old.is_none() && new.is_none(),
                })
        };
        if old.is_some_and(same) {
            return Ok(None);
        }
        self.build(texts, now).map(Some)
    }

    /// The text of a ring, after it was made or replaced where that is due.
    fn text(
        &self,
        name: Name,
        now: Timestamp,
        work: Work,
        missing: &mut Vec<String>,
    ) -> Result<Option<Secret<String>>, Error> {
        let secret = name.secret();
        let found = match self.provider.get(secret) {
            Ok(text) => Some(text),
            Err(palisade_vault::Error::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        match (found, self.provider.store()) {
            // A pepper that is not wanted any more is still needed by the hashes that have it.
            (None, _) if !self.settings.uses(name) => Ok(None),
            (None, None) => {
                missing.push(wanted(&*self.provider, name, &self.settings));
                Ok(None)
            }
            (None, Some(_)) if work == Work::Look => Err(self.unusable(name, "it is gone".into())),
            (None, Some(store)) => {
                make::make(store, name, self.algorithm(name), now)?;
                Ok(Some(store.get(secret)?))
            }
            (Some(text), None) => Ok(Some(text)),
            (Some(text), Some(_)) if work == Work::Look => Ok(Some(text)),
            (Some(text), Some(store)) => {
                let ring = self.read(name, &text)?;
                let due = |ring: Option<&Ring>| ring.and_then(|ring| self.due(name, ring, now));
                // Whoever comes second changes nothing, and reads what the first has written.
                let rotated = due(Some(&ring)).is_some();
                if rotated {
                    make::change(store, name, now, self.algorithm(name), &due)?;
                }
                let pruned = self.prune(store, name, ring, now)?;
                Ok(Some(if rotated || pruned { store.get(secret)? } else { text }))
            }
        }
    }

    /// The rotation that the policy wants now: for another algorithm, or of age.
    fn due(&self, name: Name, ring: &Ring, now: Timestamp) -> Option<Rotation> {
        let youngest = ring.versions().last()?;
        // A full ring waits until its oldest version has done its work; one that an operator brought is theirs.
        if youngest.made.0 == 0 || !self.settings.uses(name) || ring.versions().len() >= MAX_VERSIONS {
            return None;
        }
        let rotation = Rotation { algorithm: Some(self.algorithm(name)), lead: self.settings.lead, revoke: false };
        let other = name == Name::Signing && youngest.algorithm != self.settings.algorithm.name();
        let old = self.settings.rotates(name).is_some_and(|age| youngest.made.plus(age) <= now);
        (other || old).then_some(rotation)
    }

    /// A private key that signs nothing any more is only good for being stolen. Says whether the store's text may be
    /// another now.
    fn prune(&self, store: &dyn Store, name: Name, mut ring: Ring, now: Timestamp) -> Result<bool, Error> {
        let life = self.settings.life(name).saturating_add(PRUNE_AFTER);
        if !ring.prune(now, life) {
            return Ok(false);
        }
        store.update(name.secret(), &mut |text| {
            let Some(Ok(mut ring)) = text.map(|text| self.read(name, text)) else { return Ok(Change::Keep) };
            Ok(if ring.prune(now, life) { Change::Set(ring.write()) } else { Change::Keep })
        })?;
        Ok(true)
    }

    fn algorithm(&self, name: Name) -> Algorithm {
        self.settings.algorithm_of(name)
    }

    fn read(&self, name: Name, text: &Secret<String>) -> Result<Ring, Error> {
        provided::read(name, text, self.algorithm(name)).map_err(|reason| self.unusable(name, reason))
    }

    fn unusable(&self, name: Name, reason: String) -> Error {
        unusable(&*self.provider, name, reason)
    }

    fn build(&self, texts: Vec<Option<Secret<String>>>, now: Timestamp) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        for (name, text) in Name::ALL.into_iter().zip(&texts) {
            let Some(text) = text else { continue };
            let ring = self.read(name, text)?;
            let life = self.settings.life(name);
            let times = ring.ends(life).flat_map(|(version, end)| [Some(version.from), end]).flatten();
            loaded.next = times.filter(|time| *time > now).chain(loaded.next).min();
            let alive = ring.ends(life).filter(|(_, end)| end.is_none_or(|end| end > now));
            match name {
                Name::Signing => loaded.signing = self.keyring(name, alive)?,
                Name::Assertion => loaded.assertion = self.keyring(name, alive)?,
                Name::Mac => loaded.macs = Macs::new(alive.map(|(version, _)| version)),
                Name::Pepper => loaded.peppers = self.peppers(&ring, now)?,
            }
        }
        let keys = |name: Name, ring: &Keyring| {
            ring.verifying(now).map(Arc::new).map_err(|error| self.unusable(name, error.to_string()))
        };
        loaded.access_keys = keys(Name::Signing, &loaded.signing)?;
        loaded.assertion_keys = keys(Name::Assertion, &loaded.assertion)?;
        let published = [&loaded.signing, &loaded.assertion].map(|ring| ring.jwk_set(now));
        let published: Vec<_> = published.iter().filter_map(|set| set["keys"].as_array()).flatten().collect();
        loaded.jwk_set = json!({ "keys": published }).to_string().into();
        loaded.texts = texts;
        Ok(loaded)
    }

    fn keyring<'a>(
        &self,
        name: Name,
        versions: impl Iterator<Item = (&'a Version, Option<Timestamp>)>,
    ) -> Result<Keyring, Error> {
        let mut keys = Vec::new();
        for (version, end) in versions {
            let algorithm = Algorithm::named(&version.algorithm)
                .ok_or_else(|| self.unusable(name, format!("`{}` is no algorithm", version.algorithm)))?;
            let key = SigningKey::from_private(algorithm, version.key.clone())
                .map_err(|error| self.unusable(name, error.to_string()))?;
            keys.push((key.with_id(&version.id), version.from, end));
        }
        let youngest = keys.last().map(|(key, ..)| key.verifying_key().algorithm());
        if name == Name::Signing && self.provider.store().is_none() && youngest != Some(self.settings.algorithm) {
            let is = youngest.map_or_else(|| "no key".to_owned(), |is| format!("a key for {is}"));
            return Err(self.unusable(name, format!("it is {is}, and the policy wants {}", self.settings.algorithm)));
        }
        Ok(Keyring::of(keys))
    }

    fn peppers(&self, ring: &Ring, now: Timestamp) -> Result<Peppers, Error> {
        let due = ring.versions().iter().rposition(|version| version.from <= now).unwrap_or(0);
        // The current one first; those that wait for their turn are known already, as another instance's clock may be
        // ahead.
        let current = self.settings.pepper.then(|| ring.versions().get(due)).flatten();
        let others = ring.versions().iter().enumerate().filter(|(place, _)| current.is_none() || *place != due);
        let versions = current.into_iter().chain(others.map(|(_, version)| version));
        let peppers = versions.map(|version| (version.id.clone(), version.key.clone()));
        let built = if self.settings.pepper { Peppers::new(peppers) } else { Peppers::retired(peppers) };
        built.map_err(|error| self.unusable(Name::Pepper, error.to_string()))
    }
}
