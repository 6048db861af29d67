//! One public key (or one shared secret) as a JWK, checked strictly, with the one algorithm it is for.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use aws_lc_rs::{digest, hmac};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use super::algorithm::{Algorithm, Family};
use super::{json, roca};

/// The longest `kid`, in bytes. It is compared and logged, never used as a path, a query or a file name.
const MAX_KID_BYTES: usize = 256;
/// The longest shared secret, in bytes.
const MAX_SECRET_BYTES: usize = 1024;

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadKey {
    /// No strict JSON object, or a member of the wrong type.
    #[error("the key is malformed")]
    Malformed,
    /// `use` or `key_ops` say that it is not for checking signatures.
    #[error("the key is not for signatures")]
    Use,
    /// An algorithm or a curve that is not known, or none where one must be named.
    #[error("the key's algorithm is not supported")]
    Algorithm,
    /// `alg` does not go with `kty` or `crv`.
    #[error("the key's type does not go with its algorithm")]
    Mismatch,
    /// It holds a private key where only a public one belongs: it was published by mistake, so others have it too.
    #[error("the key is private, and was published")]
    Private,
    /// Too short: RSA under 2048 bits, a secret shorter than its hash.
    #[error("the key is too short")]
    Short,
    /// Not what its type allows: a point off its curve, an exponent of 1, a modulus of a broken generator.
    #[error("the key is weak or invalid")]
    Weak,
}

impl From<json::NotText> for BadKey {
    fn from(_: json::NotText) -> Self {
        Self::Malformed
    }
}

/// A key that checks signatures of exactly one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    id: Option<Arc<str>>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    /// The key, and the members of its JWK beside `kty`, `alg`, `use` and `kid`.
    Public(Arc<ParsedPublicKey>, Arc<[(&'static str, String)]>),
    Shared(Box<hmac::Key>),
}

impl VerifyingKey {
    /// Reads a JWK: a public key or a shared secret.
    ///
    /// The algorithm is the key's `alg`. Without one it follows from the curve, is `RS256` for RSA, and is an error for
    /// a shared secret; `otherwise` names another one for keys without `alg` whose type it fits.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn from_jwk(bytes: &[u8], otherwise: Option<Algorithm>) -> Result<Self, BadKey> {
        let members = json::object(bytes).ok_or(BadKey::Malformed)?;
        Self::from_members(&members, otherwise)
    }

    pub(super) fn from_members(members: &Map<String, Value>, otherwise: Option<Algorithm>) -> Result<Self, BadKey> {
        let kind = json::text(members, "kty")?.ok_or(BadKey::Malformed)?;
        check_use(members)?;
        let id = json::text(members, "kid")?;
        if id.is_some_and(|id| id.is_empty() || id.len() > MAX_KID_BYTES) {
            return Err(BadKey::Malformed);
        }
        let curve = json::text(members, "crv")?;
        let algorithm = match json::text(members, "alg")? {
            Some(name) => Algorithm::named(name).ok_or(BadKey::Algorithm)?,
            None => default_algorithm(kind, curve, otherwise)?,
        };
        if kind != "oct" && ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| members.contains_key(*name))
        {
            return Err(BadKey::Private);
        }
        let part = |name: &str| -> Result<Vec<u8>, BadKey> {
            let text = json::text(members, name)?.ok_or(BadKey::Malformed)?;
            json::base64url(text).ok_or(BadKey::Malformed)
        };
        let mut key = match (kind, algorithm.family()) {
            ("OKP", Family::Ed25519) if curve == Some("Ed25519") => Self::ed25519(&part("x")?)?,
            ("EC", Family::Ec(expected)) if curve == Some(expected.name) => {
                let (x, y) = (part("x")?, part("y")?);
                if x.len() != expected.coordinate || y.len() != expected.coordinate {
                    return Err(BadKey::Malformed);
                }
                Self::ec(algorithm, &[&[4], x.as_slice(), y.as_slice()].concat())?
            }
            ("RSA", Family::Rsa(_)) => Self::rsa(algorithm, &part("n")?, &part("e")?)?,
            ("oct", Family::Hmac(_)) => Self::shared(algorithm, &part("k")?)?,
            _ => return Err(BadKey::Mismatch),
        };
        key.id = id.map(Arc::from);
        Ok(key)
    }

    /// A shared secret, for HS256, HS384 or HS512. It has no `kid`; see [`with_id`](Self::with_id).
    ///
    /// # Errors
    /// When the algorithm takes no shared secret, or the secret is shorter than its hash (RFC 7518 section 3.2).
    pub fn shared(algorithm: Algorithm, secret: &[u8]) -> Result<Self, BadKey> {
        let Family::Hmac(hash) = algorithm.family() else { return Err(BadKey::Mismatch) };
        if secret.len() < hash.digest_algorithm().output_len() {
            return Err(BadKey::Short);
        }
        if secret.len() > MAX_SECRET_BYTES {
            return Err(BadKey::Malformed);
        }
        Ok(Self { algorithm, id: None, material: Material::Shared(Box::new(hmac::Key::new(hash, secret))) })
    }

    pub(super) fn ed25519(x: &[u8]) -> Result<Self, BadKey> {
        if x.len() != 32 {
            return Err(BadKey::Malformed);
        }
        let key = ParsedPublicKey::new(&ED25519, x).map_err(|_| BadKey::Weak)?;
        Ok(Self::public(Algorithm::EdDsa, key, &[("crv", None, b"Ed25519"), ("x", Some(()), x)]))
    }

    /// `point` is uncompressed: 4, x, y.
    pub(super) fn ec(algorithm: Algorithm, point: &[u8]) -> Result<Self, BadKey> {
        let Family::Ec(curve) = algorithm.family() else { return Err(BadKey::Mismatch) };
        let key = ParsedPublicKey::new(curve.verify, point).map_err(|_| BadKey::Weak)?;
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(curve.coordinate).ok_or(BadKey::Malformed)?;
        Ok(Self::public(
            algorithm,
            key,
            &[("crv", None, curve.name.as_bytes()), ("x", Some(()), x), ("y", Some(()), y)],
        ))
    }

    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, BadKey> {
        let Family::Rsa(parameters) = algorithm.family() else { return Err(BadKey::Mismatch) };
        // RFC 7518 section 6.3.1: as few octets as it takes, so that a key has one spelling and one thumbprint.
        let (Some(&first), Some(&last)) = (n.first(), n.last()) else { return Err(BadKey::Malformed) };
        if first == 0 || e.first().is_none_or(|&byte| byte == 0) {
            return Err(BadKey::Malformed);
        }
        let bits = n.len() * 8 - first.leading_zeros() as usize;
        if bits < 2048 {
            return Err(BadKey::Short);
        }
        // The upper ends bound the work of one check; under 65537, padding mistakes of old software become forgeries.
        let exponent = e.iter().fold(0u64, |value, &byte| value.saturating_mul(256) + u64::from(byte));
        let sound = bits <= 8192 && last & 1 == 1 && e.len() <= 4 && exponent & 1 == 1 && exponent >= 65_537;
        if !sound || roca::is_suspicious(n) {
            return Err(BadKey::Weak);
        }
        let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).map_err(|_| BadKey::Weak)?;
        Ok(Self::public(algorithm, key, &[("n", Some(()), n), ("e", Some(()), e)]))
    }

    fn public(algorithm: Algorithm, key: ParsedPublicKey, members: &[(&'static str, Option<()>, &[u8])]) -> Self {
        let members = members.iter().map(|&(name, encoded, bytes)| match encoded {
            Some(()) => (name, BASE64URL_NOPAD.encode(bytes)),
            None => (name, String::from_utf8_lossy(bytes).into_owned()),
        });
        Self { algorithm, id: None, material: Material::Public(Arc::new(key), members.collect()) }
    }

    /// The same key under another `kid`.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The algorithm of every signature that it accepts.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its `kid`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether `signature` is one of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key, _) => key.verify_sig(message, signature).is_ok(),
            Material::Shared(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    fn kty(&self) -> &'static str {
        match self.algorithm.family() {
            Family::Ed25519 => "OKP",
            Family::Ec(_) => "EC",
            Family::Rsa(_) => "RSA",
            Family::Hmac(_) => "oct",
        }
    }

    /// The JWK to publish; `None` for a shared secret, which is never published.
    pub fn to_jwk(&self) -> Option<Value> {
        let Material::Public(_, members) = &self.material else { return None };
        let mut jwk = json!({ "kty": self.kty(), "use": "sig", "alg": self.algorithm.name() });
        if let Some(id) = &self.id {
            jwk["kid"] = id.as_ref().into();
        }
        for (name, value) in members.iter() {
            jwk[*name] = value.as_str().into();
        }
        Some(jwk)
    }

    /// The thumbprint of RFC 7638, which serves as `kid` of our own keys; `None` for a shared secret, of which even a
    /// hash says too much when the secret is a weak one.
    pub fn thumbprint(&self) -> Option<String> {
        let Material::Public(_, members) = &self.material else { return None };
        let mut required: Vec<(&str, &str)> = members.iter().map(|(name, value)| (*name, value.as_str())).collect();
        required.push(("kty", self.kty()));
        required.sort_unstable();
        // None of these values needs escaping: base64url and names of curves.
        let text: Vec<String> = required.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let hash = digest::digest(&digest::SHA256, format!("{{{}}}", text.join(",")).as_bytes());
        Some(BASE64URL_NOPAD.encode(hash.as_ref()))
    }
}

/// Never the secret.
impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

/// RFC 7517 sections 4.2 and 4.3: what a key says it is not for, it is not used for.
fn check_use(members: &Map<String, Value>) -> Result<(), BadKey> {
    if json::text(members, "use")?.is_some_and(|usage| usage != "sig") {
        return Err(BadKey::Use);
    }
    let Some(operations) = members.get("key_ops") else { return Ok(()) };
    let operations = operations.as_array().ok_or(BadKey::Malformed)?;
    for (index, operation) in operations.iter().enumerate() {
        if !operation.is_string() || operations[..index].contains(operation) {
            return Err(BadKey::Malformed);
        }
    }
    operations.iter().any(|operation| operation == "verify").then_some(()).ok_or(BadKey::Use)
}

fn default_algorithm(kind: &str, curve: Option<&str>, otherwise: Option<Algorithm>) -> Result<Algorithm, BadKey> {
    let fits = |algorithm: Algorithm| match (kind, algorithm.family()) {
        ("OKP", Family::Ed25519) => curve == Some("Ed25519"),
        ("EC", Family::Ec(expected)) => curve == Some(expected.name),
        ("RSA", Family::Rsa(_)) | ("oct", Family::Hmac(_)) => true,
        _ => false,
    };
    if let Some(algorithm) = otherwise.filter(|&algorithm| fits(algorithm)) {
        return Ok(algorithm);
    }
    match kind {
        // A secret without a stated use is a guess at what it is for.
        "oct" => Err(BadKey::Algorithm),
        _ => Algorithm::ALL.into_iter().find(|&algorithm| fits(algorithm)).ok_or(BadKey::Algorithm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.2 and A.3.
    const ED25519_JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 7638 section 3.1.
    const RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn read(jwk: &str) -> Result<VerifyingKey, BadKey> {
        VerifyingKey::from_jwk(jwk.as_bytes(), None)
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let key = read(ED25519_JWK).expect("a key");
        assert_eq!(key.thumbprint().as_deref(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
        let key = read(&format!(r#"{{"kty":"RSA","alg":"RS256","kid":"2011-04-29","n":"{RSA_N}","e":"AQAB"}}"#));
        let key = key.expect("a key");
        assert_eq!(key.thumbprint().as_deref(), Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
    }

    #[test]
    fn what_is_published_is_read_again() {
        let key = read(ED25519_JWK).expect("a key").with_id("one");
        let jwk = key.to_jwk().expect("public").to_string();
        assert_eq!(read(&jwk).expect("its own JWK").id(), Some("one"));
        let secret = VerifyingKey::shared(Algorithm::Hs256, &[7; 32]).expect("long enough");
        assert!(secret.to_jwk().is_none() && secret.thumbprint().is_none());
    }

    #[test]
    fn refuses() {
        let rsa = |more: &str| format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB"{more}}}"#);
        let okp = |more: &str| ED25519_JWK.replace('}', &format!("{more}}}"));
        let cases: [(String, BadKey); 25] = [
            (okp(r#","use":"enc""#), BadKey::Use),
            (okp(r#","use":["sig"]"#), BadKey::Malformed),
            (okp(r#","key_ops":["sign"]"#), BadKey::Use),
            (okp(r#","key_ops":[]"#), BadKey::Use),
            (okp(r#","key_ops":["verify","verify"]"#), BadKey::Malformed),
            (okp(r#","key_ops":"verify""#), BadKey::Malformed),
            (okp(r#","alg":"none""#), BadKey::Algorithm),
            (okp(r#","alg":"ES256""#), BadKey::Mismatch),
            (okp(r#","alg":"eddsa""#), BadKey::Algorithm),
            (okp(r#","alg":5"#), BadKey::Malformed),
            (okp(r#","kid":"""#), BadKey::Malformed),
            (okp(r#","kid":7"#), BadKey::Malformed),
            (okp(r#","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#), BadKey::Private),
            (okp(r#","k":"AAAA""#), BadKey::Private),
            (okp(r#","crv":"Ed25519""#), BadKey::Malformed),
            (ED25519_JWK.replace("Ed25519", "Ed448"), BadKey::Algorithm),
            (ED25519_JWK.replace("Ed25519", "X25519"), BadKey::Algorithm),
            (ED25519_JWK.replace("11qY", ""), BadKey::Malformed),
            (rsa(r#","alg":"HS256""#), BadKey::Mismatch),
            (rsa("").replace("AQAB", "AAEAAQ"), BadKey::Malformed),
            (rsa("").replace("AQAB", "Aw"), BadKey::Weak),
            (rsa("").replace("AQAB", "AQAA"), BadKey::Weak),
            (rsa("").replace("AQAB", "AQAAAAE"), BadKey::Weak),
            (r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#.into(), BadKey::Algorithm),
            (r#"{"kty":"oct","alg":"HS256","k":"AAAA"}"#.into(), BadKey::Short),
        ];
        for (jwk, why) in cases {
            assert_eq!(read(&jwk).err(), Some(why), "{jwk}");
        }
        assert_eq!(read(&rsa("")).expect("RSA without alg").algorithm(), Algorithm::Rs256);
        let pss = VerifyingKey::from_jwk(rsa("").as_bytes(), Some(Algorithm::Ps256)).expect("as the caller says");
        assert_eq!(pss.algorithm(), Algorithm::Ps256);
    }
}
