//! Keys that an operator put into a place that Palisade cannot write.

use data_encoding::BASE64;
use palisade_base::{Secret, Timestamp};
use palisade_vault::{Ring, Version};

use super::Name;
use crate::token::{Algorithm, BadKey, CannotSign, SigningKey};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The shortest text that is taken for a secret: 128 bits in hexadecimal, and less than what is advised.
const MIN_TEXT_BYTES: usize = 32;

/// How to make what is missing.
pub(super) fn advice(name: Name, algorithm: Algorithm) -> &'static str {
    match name {
        Name::Signing if algorithm.is_symmetric() => "`openssl rand -hex 64` makes it",
        Name::Signing if algorithm == Algorithm::Es256 => {
            "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes it"
        }
        Name::Signing if algorithm == Algorithm::Rs256 => {
            "`openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072` makes it"
        }
        Name::Signing | Name::Assertion => "`openssl genpkey -algorithm ed25519` makes it",
        Name::Mac | Name::Pepper => "`openssl rand -hex 32` makes it",
    }
}

/// Reads a ring: of Palisade's own making, keys in PEM (the current one first), or values one a line. `algorithm` is
/// for what does not say for itself which one it is for.
pub(super) fn read(name: Name, secret: &Secret<String>, algorithm: Algorithm) -> Result<Ring, String> {
    let text = secret.expose();
    if text.contains("-----BEGIN ") {
        return match name {
            Name::Signing => pem(text, algorithm),
            Name::Assertion => pem(text, Algorithm::EdDsa),
            Name::Mac | Name::Pepper => Err("it is a key in PEM, where a random text belongs".into()),
        };
    }
    let mut ring = Ring::read(secret).map_err(|error| error.to_string())?;
    // Of an operator's making, who has one value a line; a ring of our own says all of this itself.
    if !text.starts_with('{') {
        let named = match name {
            Name::Signing if algorithm.is_symmetric() => algorithm.name(),
            Name::Signing | Name::Assertion => {
                return Err("it is no private key in PEM (PKCS#8, `-----BEGIN PRIVATE KEY-----`)".into());
            }
            Name::Mac | Name::Pepper => "",
        };
        if ring.versions().iter().any(|version| version.key.expose().len() < MIN_TEXT_BYTES) {
            return Err(format!("it is shorter than {MIN_TEXT_BYTES} characters; {}", advice(name, algorithm)));
        }
        let versions = ring.versions().iter().cloned().map(|version| Version { algorithm: named.into(), ..version });
        ring = Ring::new(versions).map_err(|error| error.to_string())?;
    }
    Ok(ring)
}

fn pem(text: &str, preferred: Algorithm) -> Result<Ring, String> {
    let mut versions = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        rest = &rest[start..];
        let Some(body) = rest.strip_prefix(BEGIN) else {
            return Err("only private keys of PKCS#8 (`-----BEGIN PRIVATE KEY-----`) are read; \
                        `openssl pkcs8 -topk8 -nocrypt` converts others"
                .into());
        };
        let end = body.find(END).ok_or("a key in PEM does not end")?;
        let encoded: String = body[..end].split_ascii_whitespace().collect();
        rest = &body[end + END.len()..];
        let der = BASE64.decode(Secret::new(encoded).expose().as_bytes()).map_err(|_| "a key in PEM is malformed")?;
        let key = key(preferred, &Secret::new(der)).map_err(|error| error.to_string())?;
        let place = i64::try_from(versions.len()).unwrap_or(i64::MAX);
        versions.push(Version {
            id: key.verifying_key().id().unwrap_or_default().to_owned(),
            algorithm: key.verifying_key().algorithm().name().to_owned(),
            made: Timestamp(0),
            // The first one signs; the others are for tokens of before, or published for later.
            from: Timestamp(-place),
            key: key.private().clone(),
        });
    }
    Ring::new(versions).map_err(|error| error.to_string())
}

/// The key with the algorithm that it is for: the preferred one where it fits, since RSA keys do not say.
fn key(preferred: Algorithm, der: &Secret<Vec<u8>>) -> Result<SigningKey, CannotSign> {
    let mut reason = CannotSign::Key(BadKey::Malformed);
    for algorithm in [preferred, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256] {
        if algorithm.is_symmetric() {
            continue;
        }
        match SigningKey::from_private(algorithm, der.clone()) {
            Ok(key) => return Ok(key),
            // Of the right type, and too short or weak: that is worth more than "not one of the others".
            Err(error @ CannotSign::Key(BadKey::Short | BadKey::Weak)) => reason = error,
            Err(_) => {}
        }
    }
    Err(reason)
}
