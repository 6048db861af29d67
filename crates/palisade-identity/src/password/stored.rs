//! A stored hash, read from its text: ours, or that of another library.

use argon2::{Algorithm, Version};
use data_encoding::{BASE64, BASE64_NOPAD, Encoding, HEXLOWER};

use super::foreign::{self, Bcrypt, Digest, Foreign, Pbkdf2, Prepare, Scrypt};

/// The longest text of a hash, in bytes.
const MAX_TEXT: usize = 512;

/// Why a stored hash is not used. An import reports these line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHash {
    /// No format that is known.
    #[error("the hash has no known format")]
    Unknown,
    /// A known format with something wrong inside.
    #[error("the hash is malformed")]
    Malformed,
    /// It would take more memory or time than a login may; see [`Stored::parse`].
    #[error("the hash's parameters cost too much")]
    TooCostly,
    /// It checks too little: cut to a few bytes, or without a salt.
    #[error("the hash is cut or has no salt")]
    TooShort,
}

/// A stored hash whose parameters are within bounds.
#[derive(Clone)]
pub struct Stored(pub(super) Scheme);

#[derive(Clone)]
pub(super) enum Scheme {
    Argon(Argon),
    Foreign(Foreign),
}

/// An argon2 hash: of ours, or of anybody.
#[derive(Clone)]
pub(super) struct Argon {
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
    /// The pepper that it was made with.
    pub(super) pepper: Option<String>,
    pub(super) salt: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stored").field(&self.scheme()).finish()
    }
}

impl Stored {
    /// Reads a hash. Known are our own and those of passlib (bcrypt, bcrypt_sha256, argon2, pbkdf2 with SHA-1, SHA-256
    /// and SHA-512), Django (pbkdf2, argon2, bcrypt, bcrypt_sha256, scrypt), Werkzeug (scrypt, pbkdf2), and so of
    /// pwdlib and fastapi-users.
    ///
    /// Ceilings, far over every library's default: argon2 256 MiB, 16 passes, 1 GiB touched in all, 16 lanes; bcrypt
    /// cost 15; pbkdf2 3 million rounds; scrypt 256 MiB, 512 MiB touched.
    ///
    /// # Errors
    /// [`BadHash`].
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        if text.len() > MAX_TEXT {
            return Err(BadHash::Malformed);
        }
        // Django writes the name of its own scheme in front of the usual text.
        let (django, text) = match text.split_once('$') {
            Some((name @ ("argon2" | "bcrypt" | "bcrypt_sha256"), rest)) => (Some(name), rest),
            _ => (None, text),
        };
        match django {
            Some("argon2") => return argon(&format!("${text}")),
            Some(name) => {
                let prepare = if name == "bcrypt" { Prepare::Nothing } else { Prepare::Sha256Hex };
                return bcrypt(text, prepare);
            }
            None => {}
        }
        if text.starts_with("$argon2") {
            return argon(text);
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start)) {
            return bcrypt(text, Prepare::Nothing);
        }
        if let Some(rest) = text.strip_prefix("$bcrypt-sha256$") {
            return passlib_bcrypt(rest);
        }
        for (start, digest) in
            [("$pbkdf2-sha256$", Digest::Sha256), ("$pbkdf2-sha512$", Digest::Sha512), ("$pbkdf2$", Digest::Sha1)]
        {
            if let Some(rest) = text.strip_prefix(start) {
                let [rounds, salt, hash] = parts(rest)?;
                let adapted = |text: &str| decode(&BASE64_NOPAD, &text.replace('.', "+"));
                return pbkdf2(digest, rounds, adapted(salt)?, adapted(hash)?);
            }
        }
        for (start, digest) in [("pbkdf2_sha256$", Digest::Sha256), ("pbkdf2_sha1$", Digest::Sha1)] {
            if let Some(rest) = text.strip_prefix(start) {
                let [rounds, salt, hash] = parts(rest)?;
                return pbkdf2(digest, rounds, salt.into(), decode(&BASE64, hash)?);
            }
        }
        if let Some(rest) = text.strip_prefix("scrypt$") {
            let [n, salt, r, p, hash] = parts(rest)?;
            return scrypt([n, r, p], salt, decode(&BASE64, hash)?);
        }
        if let Some((method, rest)) = text.split_once('$') {
            let method: Vec<&str> = method.split(':').collect();
            let [salt, hash] = parts(rest).map_err(|_| BadHash::Unknown)?;
            match method.as_slice() {
                ["scrypt", n, r, p] => return scrypt([n, r, p], salt, decode(&HEXLOWER, hash)?),
                ["pbkdf2", digest, rounds] => {
                    let digest = match *digest {
                        "sha1" => Digest::Sha1,
                        "sha256" => Digest::Sha256,
                        "sha512" => Digest::Sha512,
                        _ => return Err(BadHash::Unknown),
                    };
                    return pbkdf2(digest, rounds, salt.into(), decode(&HEXLOWER, hash)?);
                }
                _ => {}
            }
        }
        Err(BadHash::Unknown)
    }

    /// What it was made with, for reports: `argon2id`, `bcrypt`, `pbkdf2`, `scrypt`.
    pub const fn scheme(&self) -> &'static str {
        match &self.0 {
            Scheme::Argon(argon) => match argon.algorithm {
                Algorithm::Argon2id => "argon2id",
                Algorithm::Argon2i => "argon2i",
                Algorithm::Argon2d => "argon2d",
            },
            Scheme::Foreign(Foreign::Bcrypt(_)) => "bcrypt",
            Scheme::Foreign(Foreign::Pbkdf2(_)) => "pbkdf2",
            Scheme::Foreign(Foreign::Scrypt(_)) => "scrypt",
        }
    }

    /// Bytes that a check holds, for the [pool](super::pool).
    pub fn memory_bytes(&self) -> u64 {
        match &self.0 {
            Scheme::Argon(argon) => u64::from(argon.memory_kib) * 1024,
            Scheme::Foreign(Foreign::Scrypt(scrypt)) => scrypt.memory_bytes(),
            Scheme::Foreign(_) => 16 * 1024,
        }
    }
}

fn parts<const N: usize>(text: &str) -> Result<[&str; N], BadHash> {
    let mut parts = text.split('$');
    let mut out = [""; N];
    for slot in &mut out {
        *slot = parts.next().ok_or(BadHash::Malformed)?;
    }
    if parts.next().is_some() { Err(BadHash::Malformed) } else { Ok(out) }
}

fn decode(encoding: &Encoding, text: &str) -> Result<Vec<u8>, BadHash> {
    encoding.decode(text.as_bytes()).map_err(|_| BadHash::Malformed)
}

/// A number without sign, leading zeros or spaces.
fn number(text: &str) -> Result<u32, BadHash> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
        return Err(BadHash::Malformed);
    }
    // What does not fit is too costly in any case.
    text.parse().map_err(|_| BadHash::TooCostly)
}

/// `$argon2id$v=19$m=19456,t=2,p=1,keyid=…$salt$hash`; without `v`, version 16. `data` is nobody's.
fn argon(text: &str) -> Result<Stored, BadHash> {
    let mut parts = text.split('$').skip(1);
    let mut next = || parts.next().ok_or(BadHash::Malformed);
    let algorithm = match next()? {
        "argon2id" => Algorithm::Argon2id,
        "argon2i" => Algorithm::Argon2i,
        "argon2d" => Algorithm::Argon2d,
        _ => return Err(BadHash::Unknown),
    };
    let mut parameters = next()?;
    let mut version = Version::V0x10;
    if let Some(number) = parameters.strip_prefix("v=") {
        version = match number {
            "16" => Version::V0x10,
            "19" => Version::V0x13,
            _ => return Err(BadHash::Malformed),
        };
        parameters = next()?;
    }
    let (salt, hash) = (decode(&BASE64_NOPAD, next()?)?, decode(&BASE64_NOPAD, next()?)?);
    if parts.next().is_some() {
        return Err(BadHash::Malformed);
    }
    let mut fields = parameters.split(',');
    let mut field = |name: &str| {
        let field = fields.next().and_then(|field| field.strip_prefix(name));
        field.ok_or(BadHash::Malformed).and_then(number)
    };
    let (memory_kib, passes, lanes) = (field("m=")?, field("t=")?, field("p=")?);
    let pepper = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(field), None) => {
            let id = field.strip_prefix("keyid=").ok_or(BadHash::Malformed)?;
            Some(String::from_utf8(decode(&BASE64_NOPAD, id)?).map_err(|_| BadHash::Malformed)?)
        }
        _ => return Err(BadHash::Malformed),
    };
    if memory_kib > 1 << 18 || passes > 16 || lanes > 16 || u64::from(memory_kib) * u64::from(passes) > 1 << 20 {
        return Err(BadHash::TooCostly);
    }
    if passes == 0 || lanes == 0 || memory_kib < 8 * lanes {
        return Err(BadHash::Malformed);
    }
    if salt.len() < 8 || hash.len() < 16 {
        return Err(BadHash::TooShort);
    }
    if salt.len() > 64 || hash.len() > 64 {
        return Err(BadHash::Malformed);
    }
    Ok(Stored(Scheme::Argon(Argon { algorithm, version, memory_kib, passes, lanes, pepper, salt, hash })))
}

/// `$2b$12$` and 22 characters of salt, 31 of hash.
fn bcrypt(text: &str, prepare: Prepare) -> Result<Stored, BadHash> {
    let ["", "2a" | "2b" | "2y", cost, rest] = parts(text)? else { return Err(BadHash::Malformed) };
    if cost.len() != 2 {
        return Err(BadHash::Malformed);
    }
    let (salt, hash) = rest.split_at_checked(22).ok_or(BadHash::Malformed)?;
    bcrypt_parts(number(cost.trim_start_matches('0'))?, salt, hash, prepare)
}

fn bcrypt_parts(cost: u32, salt: &str, hash: &str, prepare: Prepare) -> Result<Stored, BadHash> {
    if cost > 15 {
        return Err(BadHash::TooCostly);
    }
    let salt = foreign::bcrypt_base64(salt).and_then(|salt| salt.try_into().ok()).ok_or(BadHash::Malformed)?;
    let hash = foreign::bcrypt_base64(hash).filter(|hash| hash.len() == 23 && cost >= 4).ok_or(BadHash::Malformed)?;
    Ok(Stored(Scheme::Foreign(Foreign::Bcrypt(Bcrypt { cost, salt, hash, prepare }))))
}

/// passlib's bcrypt_sha256: `v=2,t=2b,r=12$salt$hash`, and before version 2 `2b,12$salt$hash`.
fn passlib_bcrypt(text: &str) -> Result<Stored, BadHash> {
    let [parameters, salt, hash] = parts(text)?;
    let fields: Vec<&str> = parameters.split(',').collect();
    match fields.as_slice() {
        ["v=2", "t=2b", rounds] => {
            let cost = number(rounds.strip_prefix("r=").ok_or(BadHash::Malformed)?)?;
            bcrypt_parts(cost, salt, hash, Prepare::HmacBase64(salt.into()))
        }
        ["2a" | "2b", rounds] => bcrypt_parts(number(rounds)?, salt, hash, Prepare::Sha256Base64),
        _ => Err(BadHash::Malformed),
    }
}

fn pbkdf2(digest: Digest, rounds: &str, salt: Vec<u8>, hash: Vec<u8>) -> Result<Stored, BadHash> {
    let rounds = number(rounds)?;
    if rounds > 3_000_000 {
        return Err(BadHash::TooCostly);
    }
    let rounds = rounds.try_into().map_err(|_| BadHash::Malformed)?;
    if salt.is_empty() || hash.len() < digest.length() {
        return Err(BadHash::TooShort);
    }
    if hash.len() != digest.length() {
        return Err(BadHash::Malformed);
    }
    Ok(Stored(Scheme::Foreign(Foreign::Pbkdf2(Pbkdf2 { digest, rounds, salt, hash }))))
}

fn scrypt(numbers: [&str; 3], salt: &str, hash: Vec<u8>) -> Result<Stored, BadHash> {
    let [n, r, p] = numbers;
    let (n, r, p) = (number(n)?, number(r)?, number(p)?);
    let touched = 128 * u64::from(n) * u64::from(r);
    if r > 64 || p > 16 || touched > 1 << 28 || touched * u64::from(p) > 1 << 29 {
        return Err(BadHash::TooCostly);
    }
    if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 || hash.len() > 64 {
        return Err(BadHash::Malformed);
    }
    if salt.is_empty() || hash.len() < 16 {
        return Err(BadHash::TooShort);
    }
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| BadHash::Malformed)?;
    Ok(Stored(Scheme::Foreign(Foreign::Scrypt(Scrypt { log_n, r, p, salt: salt.into(), hash }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_and_broken_hashes() {
        let argon = |parameters: &str| format!("$argon2id$v=19${parameters}$c2FsdHNhbHQ${}", "A".repeat(43));
        let bcrypt = |cost: &str| format!("$2b${cost}${}", ".".repeat(53));
        let b64 = format!("{}=", "A".repeat(43));
        let cases: [(String, BadHash); 37] = [
            (String::new(), BadHash::Unknown),
            ("plaintext".into(), BadHash::Unknown),
            ("5f4dcc3b5aa765d61d8327deb882cf99".into(), BadHash::Unknown),
            ("md5$salt$5f4dcc3b5aa765d61d8327deb882cf99".into(), BadHash::Unknown),
            ("!unusable".into(), BadHash::Unknown),
            ("$1$salt$hash".into(), BadHash::Unknown),
            ("$2x$04$......................................................".into(), BadHash::Unknown),
            ("$".repeat(600), BadHash::Malformed),
            (argon("m=1048576,t=1,p=1"), BadHash::TooCostly),
            (argon("m=65536,t=17,p=1"), BadHash::TooCostly),
            (argon("m=262144,t=5,p=1"), BadHash::TooCostly),
            (argon("m=65536,t=1,p=255"), BadHash::TooCostly),
            (argon("m=99999999999,t=1,p=1"), BadHash::TooCostly),
            (argon("m=19456,t=0,p=1"), BadHash::Malformed),
            (argon("m=7,t=1,p=1"), BadHash::Malformed),
            (argon("m=19456,t=2,p=0"), BadHash::Malformed),
            (argon("t=2,m=19456,p=1"), BadHash::Malformed),
            (argon("m=+19456,t=2,p=1"), BadHash::Malformed),
            (argon("m=19456,t=2,p=1,data=AAAA"), BadHash::Malformed),
            (argon("m=19456,t=2,p=1").replace("v=19", "v=18"), BadHash::Malformed),
            (argon("m=19456,t=2,p=1").replace("2id", "2x"), BadHash::Unknown),
            (argon("m=19456,t=2,p=1") + "$", BadHash::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAA".into(), BadHash::TooShort),
            (argon("m=19456,t=2,p=1").replace("c2FsdHNhbHQ", "c2Fs"), BadHash::TooShort),
            (bcrypt("16"), BadHash::TooCostly),
            (bcrypt("31"), BadHash::TooCostly),
            (bcrypt("03"), BadHash::Malformed),
            (bcrypt("4"), BadHash::Malformed),
            (bcrypt("04") + ".", BadHash::Malformed),
            (bcrypt("04").replace("...", "é."), BadHash::Malformed),
            (format!("pbkdf2_sha256$1000000000$salt${b64}"), BadHash::TooCostly),
            (format!("pbkdf2_sha256$0$salt${b64}"), BadHash::Malformed),
            (format!("pbkdf2_sha256$1000$${b64}"), BadHash::TooShort),
            ("pbkdf2_sha256$1000$salt$".into(), BadHash::TooShort),
            (format!("scrypt$1073741824$salt$8$1${b64}"), BadHash::TooCostly),
            (format!("scrypt$1023$salt$8$1${b64}"), BadHash::Malformed),
            (format!("scrypt$1024$salt$0$1${b64}"), BadHash::Malformed),
        ];
        for (text, why) in cases {
            assert_eq!(Stored::parse(&text).err(), Some(why), "{text}");
        }
    }
}
