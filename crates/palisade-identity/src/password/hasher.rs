//! Makes hashes, checks them, and says when a better one should be stored.

use argon2::{Algorithm, Version};
use aws_lc_rs::rand;
use data_encoding::BASE64_NOPAD;
use palisade_base::Secret;

use super::Password;
use super::argon::{Cost, Job};
use super::foreign::equal;
use super::stored::{Argon, Scheme, Stored};

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// The longest id of a pepper: what the PHC string format allows for `keyid`.
const MAX_ID_BYTES: usize = 8;
const MIN_PEPPER_BYTES: usize = 16;

/// Why a pepper is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPepper {
    /// It is stored with each hash, so it is short and plain.
    #[error("the id of a pepper has 1 to 8 letters, digits, `-` or `_`")]
    Id,
    /// Two peppers have one id.
    #[error("two peppers have the same id")]
    Duplicate,
    /// Too short to be a secret.
    #[error("a pepper has at least 16 bytes")]
    Short,
}

/// Secrets outside the database without which its hashes cannot be tried. The first is for new hashes; the others are
/// kept until no hash needs them.
#[derive(Debug, Clone, Default)]
pub struct Peppers {
    known: Vec<(String, Secret<Vec<u8>>)>,
    /// Whether none is for new hashes.
    retired: bool,
}

impl Peppers {
    /// These peppers under their ids, the current one first.
    ///
    /// # Errors
    /// [`BadPepper`].
    pub fn new(peppers: impl IntoIterator<Item = (String, Secret<Vec<u8>>)>) -> Result<Self, BadPepper> {
        let peppers: Vec<_> = peppers.into_iter().collect();
        for (index, (id, secret)) in peppers.iter().enumerate() {
            let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if id.is_empty() || id.len() > MAX_ID_BYTES || !plain {
                return Err(BadPepper::Id);
            }
            if peppers[..index].iter().any(|(other, _)| other == id) {
                return Err(BadPepper::Duplicate);
            }
            if secret.expose().len() < MIN_PEPPER_BYTES {
                return Err(BadPepper::Short);
            }
        }
        Ok(Self { known: peppers, retired: false })
    }

    /// Peppers of which none is for new hashes any more.
    ///
    /// # Errors
    /// [`BadPepper`].
    pub fn retired(peppers: impl IntoIterator<Item = (String, Secret<Vec<u8>>)>) -> Result<Self, BadPepper> {
        Ok(Self { retired: true, ..Self::new(peppers)? })
    }

    fn current(&self) -> Option<&(String, Secret<Vec<u8>>)> {
        self.known.first().filter(|_| !self.retired)
    }

    fn find(&self, id: &str) -> Option<&[u8]> {
        self.known.iter().find(|(known, _)| known == id).map(|(_, secret)| secret.expose().as_slice())
    }
}

/// Why no hash or no verdict came out. The operator's fault, or the machine's; never that of who typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotHash {
    /// A hash needs a pepper that is not there.
    #[error("the pepper `{0}` of a stored hash is missing from the secret store")]
    PepperMissing(String),
    /// No memory, or no entropy.
    #[error("argon2 could not be computed: no memory or no entropy")]
    Machine,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Not this password, or nobody.
    Wrong,
    /// This password.
    Right {
        /// Whether the hash is not like a new one: of another scheme, cost or pepper. Store [`Hasher::hash`] of the same
        /// password in its place.
        upgrade: bool,
    },
}

/// Makes and checks hashes at one cost.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    cost: Cost,
    peppers: Peppers,
}

impl Hasher {
    /// A hasher for new hashes of this cost and with the first of these peppers.
    pub const fn new(cost: Cost, peppers: Peppers) -> Self {
        Self { cost, peppers }
    }

    /// Bytes that a check or a new hash holds, for the [pool](super::pool).
    pub fn memory_bytes(&self, stored: Option<&Stored>) -> u64 {
        self.cost.memory_bytes().max(stored.map_or(0, Stored::memory_bytes))
    }

    /// A new hash, as text to store. Takes tens of milliseconds; belongs into the [pool](super::pool).
    ///
    /// # Errors
    /// When there is no memory or no entropy.
    pub fn hash(&self, password: &Password) -> Result<String, CannotHash> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| CannotHash::Machine)?;
        let hash = self.compute(password.normal().as_bytes(), &salt)?;
        let (memory, passes) = (self.cost.memory_kib(), self.cost.passes());
        let pepper = self.peppers.current().map(|(id, _)| format!(",keyid={}", BASE64_NOPAD.encode(id.as_bytes())));
        Ok(format!(
            "$argon2id$v=19$m={memory},t={passes},p=1{}${}${}",
            pepper.unwrap_or_default(),
            BASE64_NOPAD.encode(&salt),
            BASE64_NOPAD.encode(&hash)
        ))
    }

    fn compute(&self, password: &[u8], salt: &[u8]) -> Result<Vec<u8>, CannotHash> {
        let job = Job {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            memory_kib: self.cost.memory_kib(),
            passes: self.cost.passes(),
            lanes: 1,
            pepper: self.peppers.current().map(|(_, secret)| secret.expose().as_slice()),
            salt,
            length: HASH_BYTES,
        };
        job.hash(password).ok_or(CannotHash::Machine)
    }

    /// Checks a password against a stored hash. Without one (nobody of that name, a locked or disabled account, a
    /// password too long to look at) the same work is done, and the verdict is [`Verdict::Wrong`]: who asks learns
    /// nothing from the time.
    ///
    /// # Errors
    /// When the hash needs a pepper that is missing, or there is no memory.
    pub fn verify(&self, stored: Option<&Stored>, password: Option<&Password>) -> Result<Verdict, CannotHash> {
        let (Some(stored), Some(password)) = (stored, password) else {
            let work = password.map_or("", Password::normal);
            self.compute(work.as_bytes(), &[0; SALT_BYTES])?;
            return Ok(Verdict::Wrong);
        };
        let right = match &stored.0 {
            Scheme::Argon(argon) => self.verify_argon(argon, password)?,
            Scheme::Foreign(foreign) => foreign.verify(password.typed().as_bytes()),
        };
        Ok(if right { Verdict::Right { upgrade: self.wants_upgrade(stored) } } else { Verdict::Wrong })
    }

    fn verify_argon(&self, argon: &Argon, password: &Password) -> Result<bool, CannotHash> {
        let pepper = match &argon.pepper {
            Some(id) => Some(self.peppers.find(id).ok_or_else(|| CannotHash::PepperMissing(id.clone()))?),
            None => None,
        };
        let job = Job {
            algorithm: argon.algorithm,
            version: argon.version,
            memory_kib: argon.memory_kib,
            passes: argon.passes,
            lanes: argon.lanes,
            pepper,
            salt: &argon.salt,
            length: argon.hash.len(),
        };
        let matches = |text: &str| -> Result<bool, CannotHash> {
            Ok(equal(&job.hash(text.as_bytes()).ok_or(CannotHash::Machine)?, &argon.hash))
        };
        // A hash in argon2's own format may be ours or an imported one, whose maker did not normalise. The second try
        // costs time only where normalisation changes what was typed, which says nothing of the account.
        Ok(matches(password.normal())? || (password.typed() != password.normal() && matches(password.typed())?))
    }

    /// Whatever differs from a new hash, also where it cost more: only when all accounts cost the same does the time of
    /// an answer say nothing of the account.
    pub(crate) fn wants_upgrade(&self, stored: &Stored) -> bool {
        let Scheme::Argon(argon) = &stored.0 else { return true };
        let current = self.peppers.current().map(|(id, _)| id);
        argon.algorithm != Algorithm::Argon2id
            || argon.version != Version::V0x13
            || (argon.memory_kib, argon.passes, argon.lanes) != (self.cost.memory_kib(), self.cost.passes(), 1)
            || (argon.salt.len(), argon.hash.len()) != (SALT_BYTES, HASH_BYTES)
            || argon.pepper.as_ref() != current
    }
}

#[cfg(test)]
mod tests {
    use super::super::argon::WORK;
    use super::*;

    const UPGRADE: Verdict = Verdict::Right { upgrade: true };
    const FINE: Verdict = Verdict::Right { upgrade: false };

    fn password(text: &str) -> Password {
        Password::new(text).expect("short enough")
    }

    fn stored(text: &str) -> Stored {
        Stored::parse(text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    fn verify(hasher: &Hasher, stored: &Stored, text: &str) -> Verdict {
        hasher.verify(Some(stored), Some(&password(text))).expect("a verdict")
    }

    #[test]
    fn own_hashes() {
        let hasher = Hasher::default();
        let text = hasher.hash(&password("correct horse battery")).expect("a hash");
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = stored(&text);
        assert_eq!(verify(&hasher, &hash, "correct horse battery"), FINE);
        assert_eq!(verify(&hasher, &hash, "correct horse batterY"), Verdict::Wrong);
        assert_eq!(verify(&hasher, &hash, "correct horse battery "), Verdict::Wrong);
        assert_ne!(text, hasher.hash(&password("correct horse battery")).expect("a hash"), "salted");
        let costlier = Hasher::new(Cost::new(19_456, 3).expect("a cost"), Peppers::default());
        assert_eq!(verify(&costlier, &hash, "correct horse battery"), UPGRADE);
        assert!(!format!("{hash:?} {hasher:?}").contains("horse"));
    }

    #[test]
    fn nothing_is_cut_and_spellings_meet() {
        let hasher = Hasher::default();
        let long = "é".repeat(4_999);
        let hash = stored(&hasher.hash(&password(&format!("{long}a"))).expect("a hash"));
        assert_eq!(verify(&hasher, &hash, &format!("{long}a")), FINE);
        assert_eq!(verify(&hasher, &hash, &format!("{long}b")), Verdict::Wrong);
        assert_eq!(verify(&hasher, &hash, &long), Verdict::Wrong);
        let nul = stored(&hasher.hash(&password("before\0after the NUL")).expect("a hash"));
        assert_eq!(verify(&hasher, &nul, "before\0after the NUL"), FINE);
        assert_eq!(verify(&hasher, &nul, "before"), Verdict::Wrong);
        assert_eq!(verify(&hasher, &nul, "before\0"), Verdict::Wrong);
        // é as one character and as two, a ligature and its letters, full width.
        let composed = stored(&hasher.hash(&password("caf\u{e9} \u{fb01}ne \u{ff21}")).expect("a hash"));
        assert_eq!(verify(&hasher, &composed, "cafe\u{301} fine A"), FINE);
        assert_eq!(verify(&hasher, &composed, "cafe fine A"), Verdict::Wrong);
        assert!(Password::new(&"x".repeat(super::super::MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn peppers_rotate() {
        let pepper = |id: &str| (id.to_owned(), Secret::new([id.as_bytes(), &[7; 32]].concat()));
        let old = Hasher::new(Cost::DEFAULT, Peppers::new([pepper("2025")]).expect("one"));
        let text = old.hash(&password("x")).expect("a hash");
        assert!(text.contains(",keyid=MjAyNQ$"), "{text}");
        assert_eq!(verify(&old, &stored(&text), "x"), FINE);
        let both = Hasher::new(Cost::DEFAULT, Peppers::new([pepper("2026"), pepper("2025")]).expect("two"));
        assert_eq!(verify(&both, &stored(&text), "x"), UPGRADE);
        let new = stored(&both.hash(&password("x")).expect("a hash"));
        assert_eq!(verify(&both, &new, "x"), FINE);
        assert_eq!(old.verify(Some(&new), Some(&password("x"))), Err(CannotHash::PepperMissing("2026".into())));
        let without = Hasher::default();
        assert_eq!(without.verify(Some(&new), Some(&password("x"))), Err(CannotHash::PepperMissing("2026".into())));
        let plain = stored(&without.hash(&password("x")).expect("a hash"));
        assert_eq!(verify(&both, &plain, "x"), UPGRADE);
        let other = Hasher::new(Cost::DEFAULT, Peppers::new([("2026".into(), Secret::new(vec![1; 32]))]).expect("one"));
        assert_eq!(verify(&other, &new, "x"), Verdict::Wrong, "another secret under the same id");
    }

    #[test]
    fn bad_peppers() {
        let of = |ids: &[&str], bytes| Peppers::new(ids.iter().map(|id| ((*id).into(), Secret::new(vec![1; bytes]))));
        assert_eq!(of(&["a", "a"], 16).err(), Some(BadPepper::Duplicate));
        assert_eq!(of(&["a"], 15).err(), Some(BadPepper::Short));
        for id in ["", "123456789", "a,b", "a$b", "é"] {
            assert_eq!(of(&[id], 16).err(), Some(BadPepper::Id), "{id}");
        }
    }

    /// Every line was made by the library it names; see the head of the file for how.
    #[test]
    fn hashes_of_other_libraries() {
        let (hasher, mut ran) = (Hasher::default(), 0);
        for line in include_str!("foreign_hashes.tsv").lines().filter(|line| !line.starts_with('#')) {
            let [source, scheme, text, hash] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let hash = stored(hash);
            assert_eq!(verify(&hasher, &hash, text), UPGRADE, "{source} {scheme}");
            // At the libraries' own costs, the right one is enough of a wait.
            if !scheme.contains("default") {
                let wrong = text.replacen(['c', 'Z', 'x'], "y", 1);
                assert_eq!(verify(&hasher, &hash, &wrong), Verdict::Wrong, "{source} {scheme}");
            }
            ran += 1;
        }
        assert_eq!(ran, 72);
    }

    #[test]
    fn what_bcrypt_cannot_see() {
        let hasher = Hasher::default();
        let lines = include_str!("foreign_hashes.tsv").lines().filter(|line| line.contains("\tbcrypt\txxxx"));
        for line in lines {
            let hash = stored(line.rsplit('\t').next().expect("a hash"));
            // The old library read 72 bytes, so this password did log in, and does until its hash is a new one.
            assert_eq!(verify(&hasher, &hash, &"x".repeat(72)), UPGRADE);
            assert_eq!(verify(&hasher, &hash, &"x".repeat(71)), Verdict::Wrong);
            assert_eq!(verify(&hasher, &hash, &format!("{}\0", "x".repeat(80))), Verdict::Wrong);
        }
    }

    #[test]
    fn nobody_is_as_much_work() {
        let hasher = Hasher::default();
        let hash = stored(&hasher.hash(&password("x")).expect("a hash"));
        let work = |stored: Option<&Stored>, typed: Option<&Password>| {
            WORK.set(0);
            assert_eq!(hasher.verify(stored, typed), Ok(Verdict::Wrong));
            WORK.get()
        };
        let wrong = password("wrong");
        let real = work(Some(&hash), Some(&wrong));
        assert_eq!(real, 2 * 19_456);
        assert_eq!([work(None, Some(&wrong)), work(Some(&hash), None), work(None, None)], [real; 3]);
    }
}
