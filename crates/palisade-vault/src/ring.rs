//! Rings: one key over time, as versions that come and go.
//!
//! A ring is one secret. A store that Palisade writes keeps it as JSON; what an operator provides (environment, mounted
//! files) may be one value a line, the current one first: `VALUE`, or `ID:VALUE` where there are several.

use std::time::Duration;

use data_encoding::BASE64;
use palisade_base::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// The most versions of one ring. Who rotates more often than keys expire has made a mistake.
pub const MAX_VERSIONS: usize = 16;

/// Why a secret is no ring, or does not become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRing {
    /// Neither the form that is written nor one value a line.
    #[error("it is no ring of keys: one value a line, the current one first, each as `ID:VALUE`")]
    Malformed,
    /// Two versions have one id.
    #[error("two versions of the ring have the same id")]
    Duplicate,
    /// More than [`MAX_VERSIONS`].
    #[error("the ring has {MAX_VERSIONS} versions already: wait until old ones expire, or revoke them")]
    Full,
}

/// One version of a key.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its id, unique in the ring.
    pub id: String,
    /// The algorithm it is for; empty where the use leaves no choice.
    pub algorithm: String,
    /// When it was made. [`Timestamp`] 0 for one that an operator provided.
    pub made: Timestamp,
    /// From when on it is the one for new things; before that it is only accepted.
    pub from: Timestamp,
    /// The key itself.
    pub key: Secret<Vec<u8>>,
}

/// One key over time. The versions are in the order in which they are used.
#[derive(Debug, Clone, Default)]
pub struct Ring(Vec<Version>);

/// As it is stored. `palisade_ring` is what tells a ring from a secret that happens to be JSON.
#[derive(Serialize, Deserialize)]
struct Stored {
    palisade_ring: u32,
    versions: Vec<StoredVersion>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    algorithm: String,
    made: i64,
    from: i64,
    key: String,
}

impl Drop for StoredVersion {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

const BEGINNING: &str = "{\"palisade_ring\":";

impl Ring {
    /// A ring of these versions.
    ///
    /// # Errors
    /// When two have one id, or there are too many.
    pub fn new(versions: impl IntoIterator<Item = Version>) -> Result<Self, BadRing> {
        let mut versions: Vec<Version> = versions.into_iter().collect();
        versions.sort_by_key(|version| version.from);
        if versions.len() > MAX_VERSIONS {
            return Err(BadRing::Full);
        }
        let repeated = |(place, version): (usize, &Version)| versions[..place].iter().any(|old| old.id == version.id);
        if versions.iter().enumerate().any(repeated) {
            return Err(BadRing::Duplicate);
        }
        Ok(Self(versions))
    }

    /// Reads a secret: what [`write`](Self::write) made, or values of an operator, one a line.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(secret: &Secret<String>) -> Result<Self, BadRing> {
        let text = secret.expose();
        if text.starts_with('{') {
            let stored: Stored = serde_json::from_str(text).map_err(|_| BadRing::Malformed)?;
            let versions = stored.versions.iter().map(|stored| {
                let key = BASE64.decode(stored.key.as_bytes()).map_err(|_| BadRing::Malformed)?;
                Ok(Version {
                    id: stored.id.clone(),
                    algorithm: stored.algorithm.clone(),
                    made: Timestamp(stored.made),
                    from: Timestamp(stored.from),
                    key: Secret::new(key),
                })
            });
            return Self::new(versions.collect::<Result<Vec<_>, _>>()?);
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let versions = lines.iter().enumerate().map(|(place, line)| {
            let (id, value) = match line.split_once(':') {
                Some((id, value)) => (id, value),
                // Which of two is which would be the order of lines, and that is what changes in a rotation.
                None if lines.len() > 1 => return Err(BadRing::Malformed),
                None => ("1", *line),
            };
            let plain = !id.is_empty()
                && id.len() <= 8
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !plain || value.is_empty() {
                return Err(BadRing::Malformed);
            }
            Ok(Version {
                id: id.to_owned(),
                algorithm: String::new(),
                made: Timestamp(0),
                // The first line is the youngest; the order is all there is.
                from: Timestamp(-i64::try_from(place).unwrap_or(i64::MAX)),
                key: Secret::new(value.as_bytes().to_vec()),
            })
        });
        Self::new(versions.collect::<Result<Vec<_>, _>>()?)
    }

    /// The ring as one secret.
    pub fn write(&self) -> Secret<String> {
        let stored = |version: &Version| StoredVersion {
            id: version.id.clone(),
            algorithm: version.algorithm.clone(),
            made: version.made.0,
            from: version.from.0,
            key: BASE64.encode(version.key.expose()),
        };
        let stored = Stored { palisade_ring: 1, versions: self.0.iter().map(stored).collect() };
        Secret::new(serde_json::to_string(&stored).unwrap_or_default())
    }

    /// The versions of a secret that is a ring of Palisade's own making.
    pub fn count(secret: &Secret<String>) -> Option<usize> {
        secret.expose().starts_with(BEGINNING).then(|| Self::read(secret).ok().map(|ring| ring.0.len())).flatten()
    }

    /// The versions, in the order in which they are used.
    pub fn versions(&self) -> &[Version] {
        &self.0
    }

    /// Brings in a version, to be used from `version.from` on. One that still waits for a later time is overtaken, and
    /// goes: it was never used.
    ///
    /// # Errors
    /// When the ring is full or the id is taken.
    pub fn rotate(&mut self, version: Version) -> Result<(), BadRing> {
        let from = version.from;
        let kept = self.0.iter().filter(|old| old.from <= from).cloned();
        *self = Self::new(kept.chain([version]))?;
        Ok(())
    }

    /// Takes out the versions whose last work ended before `now`: `life` after the next one took over.
    pub fn prune(&mut self, now: Timestamp, life: Duration) -> bool {
        let before = self.0.len();
        let gone = self.ends(life).filter(|(_, end)| end.is_some_and(|end| end <= now)).count();
        // Ends are in the order of the versions.
        self.0.drain(..gone);
        self.0.len() != before
    }

    /// Takes out all but the youngest version.
    pub fn revoke_old(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(1));
    }

    /// Each version with the time from which nothing that it made is valid any more. `None` for the youngest, and for one
    /// that an operator put below another: it ends when they take it out.
    pub fn ends(&self, life: Duration) -> impl Iterator<Item = (&Version, Option<Timestamp>)> {
        let end = move |next: &Version| (next.made.0 != 0).then(|| next.from.plus(life));
        self.0.iter().zip(self.0.iter().skip(1).map(end).chain([None]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, from: i64) -> Version {
        let key = Secret::new(id.as_bytes().to_vec());
        Version { id: id.into(), algorithm: "EdDSA".into(), made: Timestamp(1), from: Timestamp(from), key }
    }

    fn ids(ring: &Ring) -> Vec<&str> {
        ring.versions().iter().map(|version| version.id.as_str()).collect()
    }

    #[test]
    fn versions_come_and_go() {
        let life = Duration::from_secs(900);
        let mut ring = Ring::new([version("a", 0)]).unwrap();
        ring.rotate(version("b", 1_000_000)).unwrap();
        ring.rotate(version("c", 900_000)).unwrap();
        assert_eq!(ids(&ring), ["a", "c"], "`b` was overtaken before its time came");
        ring.rotate(version("d", 2_000_000)).unwrap();
        assert_eq!(ring.rotate(version("a", 3_000_000)), Err(BadRing::Duplicate));
        let read = Ring::read(&ring.write()).unwrap();
        assert_eq!(ids(&read), ["a", "c", "d"]);
        assert_eq!(read.versions()[1].key.expose(), b"c");
        let ends: Vec<_> = ring.ends(life).map(|(_, end)| end.map(|end| end.0)).collect();
        assert_eq!(ends, [Some(1_800_000), Some(2_900_000), None]);
        assert!(!ring.prune(Timestamp(1_799_999), life));
        assert!(ring.prune(Timestamp(1_800_000), life));
        assert_eq!(ids(&ring), ["c", "d"]);
        ring.revoke_old();
        assert_eq!(ids(&ring), ["d"]);
    }

    #[test]
    fn a_ring_is_bounded() {
        let mut ring = Ring::default();
        for from in 0..16 {
            ring.rotate(version(&from.to_string(), from)).unwrap();
        }
        assert_eq!(ring.rotate(version("x", 99)), Err(BadRing::Full));
        assert_eq!(ids(&ring).len(), MAX_VERSIONS);
    }

    #[test]
    fn what_operators_provide() {
        let read = |text: &str| {
            let ring = Ring::read(&Secret::new(text.into()))?;
            Ok(ring
                .versions()
                .iter()
                .map(|v| format!("{}={}", v.id, String::from_utf8_lossy(v.key.expose())))
                .collect())
        };
        assert_eq!(read("0123456789abcdef"), Ok(vec!["1=0123456789abcdef".into()]));
        assert_eq!(read("b:second:half\n\n a:first \n"), Ok(vec!["a=first".into(), "b=second:half".into()]));
        for bad in ["one\ntwo", "id:", ":value", "much-too-long:value", "a b:c", "{}", "{\"palisade_ring\":1}"] {
            assert_eq!(read(bad), Err::<Vec<String>, _>(BadRing::Malformed), "{bad}");
        }
        assert_eq!(read("a:x\na:y"), Err(BadRing::Duplicate));
        assert_eq!(Ring::count(&Secret::new("a:x".into())), None);
    }
}
