//! A set of keys, and the check of one token's signature against it.

use std::collections::HashSet;

use serde_json::Value;

use super::algorithm::Algorithm;
use super::claims::Claims;
use super::jwk::{BadKey, VerifyingKey};
use super::{MAX_BYTES, Refused, json};

/// The largest document of a key set that is read, in bytes.
pub const MAX_SET_BYTES: usize = 256 * 1024;
/// The most keys of one set.
pub const MAX_SET_KEYS: usize = 100;

/// Why a set of keys is not used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadKeys {
    /// Not a JWK set, or too large.
    #[error("not a set of keys, or one of more than {MAX_SET_KEYS} keys or 256 KiB")]
    Malformed,
    /// Two keys of one `kid`: which of them checks a token would be chance.
    #[error("two keys have the same `kid`")]
    Duplicate,
    /// Public keys and shared secrets side by side: a public key could then be taken for a secret, and a published set
    /// that holds a secret has given it away.
    #[error("public keys and shared secrets in one set")]
    Mixed,
    /// A private key in a set that is published.
    #[error("a private key in a published set")]
    Private,
}

/// Keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<VerifyingKey>,
}

impl Keys {
    /// A set of these keys. An empty one accepts nothing.
    ///
    /// # Errors
    /// When two keys have one `kid`, or secrets are among public keys.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Result<Self, BadKeys> {
        let keys: Vec<_> = keys.into_iter().collect();
        let mut seen = HashSet::new();
        if keys.len() > MAX_SET_KEYS {
            return Err(BadKeys::Malformed);
        }
        if !keys.iter().filter_map(VerifyingKey::id).all(|id| seen.insert(id)) {
            return Err(BadKeys::Duplicate);
        }
        let shared = keys.iter().filter(|key| key.algorithm().is_symmetric()).count();
        if shared != 0 && shared != keys.len() {
            return Err(BadKeys::Mixed);
        }
        Ok(Self { keys })
    }

    /// Reads a JWK set (RFC 7517 section 5) and says which of its keys are left out and why: keys for encryption, of
    /// unknown types, too short. `otherwise` is for keys without `alg`, see [`VerifyingKey::from_jwk`].
    ///
    /// # Errors
    /// [`BadKeys`]: what makes the whole set doubtful.
    pub fn from_jwk_set(bytes: &[u8], otherwise: Option<Algorithm>) -> Result<(Self, Vec<LeftOut>), BadKeys> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(BadKeys::Malformed);
        }
        let document = json::object(bytes).ok_or(BadKeys::Malformed)?;
        let members = document.get("keys").and_then(Value::as_array).ok_or(BadKeys::Malformed)?;
        if members.len() > MAX_SET_KEYS {
            return Err(BadKeys::Malformed);
        }
        let secrets = members.iter().filter(|key| key["kty"] == "oct").count();
        if secrets != 0 && secrets != members.len() {
            return Err(BadKeys::Mixed);
        }
        let (mut keys, mut left_out, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
        for member in members {
            let members = member.as_object().ok_or(BadKeys::Malformed)?;
            let id = members.get("kid").and_then(Value::as_str);
            let read = VerifyingKey::from_members(members, otherwise);
            // A damaged key counts: which of the two was meant is unknown. One for encryption does not; some issuers
            // publish one certificate for both uses.
            if !matches!(read, Err(BadKey::Use)) && id.is_some_and(|id| !ids.insert(id)) {
                return Err(BadKeys::Duplicate);
            }
            match read {
                Ok(key) => keys.push(key),
                Err(BadKey::Private) => return Err(BadKeys::Private),
                Err(why) => left_out.push((id.map(|id| id.chars().take(64).collect()), why)),
            }
        }
        Ok((Self::new(keys)?, left_out))
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.keys.iter()
    }

    /// Proves a token's signature, and nothing else: not its kind, not its audience, not its time.
    ///
    /// # Errors
    /// [`Refused`]; of these, only [`Refused::UnknownKey`] is a reason to fetch the set again.
    pub fn verify(&self, token: &str) -> Result<Signed, Refused> {
        if token.len() > MAX_BYTES {
            return Err(Refused::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Form);
        };
        let header = Header::read(header)?;
        let key = self.find(&header)?;
        let signature = json::base64url(signature).ok_or(Refused::Form)?;
        // What is signed is the text as it came, never a re-encoding of what we understood.
        let message = token.rsplit_once('.').map_or(token, |(message, _)| message);
        if !key.verifies(message.as_bytes(), &signature) {
            return Err(Refused::Signature);
        }
        let payload = json::base64url(payload).ok_or(Refused::Form)?;
        Ok(Signed { kind: header.kind, key: key.id().map(Into::into), claims: Claims::read(&payload) })
    }

    /// `kid` chooses among our keys and does nothing else; the algorithm of the chosen key then has to be the token's.
    fn find(&self, header: &Header) -> Result<&VerifyingKey, Refused> {
        let named = header.key.as_deref().and_then(|id| self.keys.iter().find(|key| key.id() == Some(id)));
        if let Some(key) = named {
            return if key.algorithm() == header.algorithm { Ok(key) } else { Err(Refused::Algorithm) };
        }
        // No key of that name. A key without a name may still be meant; a token without one may mean any. With more than
        // one candidate, trying them in turn would let a stranger choose how many signatures we check.
        let mut candidates = self.keys.iter().filter(|key| header.key.is_none() || key.id().is_none()).peekable();
        let any = candidates.peek().is_some();
        let mut fitting = candidates.filter(|key| key.algorithm() == header.algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if any => Err(Refused::Algorithm),
            _ => Err(Refused::UnknownKey),
        }
    }
}

/// A key of a set that is not used: its `kid`, and why.
pub type LeftOut = (Option<String>, BadKey);

/// What a token says about itself before anything is proved.
struct Header {
    algorithm: Algorithm,
    key: Option<String>,
    kind: Option<Box<str>>,
}

impl Header {
    fn read(part: &str) -> Result<Self, Refused> {
        let bytes = json::base64url(part).ok_or(Refused::Form)?;
        let (mut brings_key, mut demands, mut others) = (false, false, HashSet::new());
        let mut known: [Option<Value>; 3] = Default::default();
        json::members(&bytes, |name, value| {
            let place = ["alg", "kid", "typ"].iter().position(|known| *known == name);
            brings_key |= ["jku", "jwk", "x5u", "x5c"].contains(&&*name);
            demands |= ["crit", "b64", "enc", "zip"].contains(&&*name);
            let is_new = match place {
                Some(place) => known[place].replace(value).is_none(),
                None => others.insert(name.into_owned()),
            };
            is_new.then_some(())
        })
        .ok_or(Refused::Header)?;
        // `x5t` and the like only point at a certificate we would have to have already; these carry the key itself, or
        // an address to fetch it from (RFC 8725 section 3.10).
        if brings_key {
            return Err(Refused::BringsKey);
        }
        // No extension is understood, so each that is critical is refused (RFC 7515 section 4.1.11). `b64` changes what
        // is signed (RFC 7797); the others belong to encrypted tokens.
        if demands {
            return Err(Refused::Extension);
        }
        let text = |value| match value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused::Header),
        };
        let [algorithm, key, kind] = known;
        let algorithm = text(algorithm)?.ok_or(Refused::Header)?;
        Ok(Self {
            algorithm: Algorithm::named(&algorithm).ok_or(Refused::Algorithm)?,
            key: text(key)?,
            kind: text(kind)?.map(Into::into),
        })
    }
}

/// A token whose signature was checked. What a cache may keep.
#[derive(Debug, Clone)]
pub struct Signed {
    pub(super) kind: Option<Box<str>>,
    key: Option<Box<str>>,
    pub(super) claims: Result<Claims, Refused>,
}

impl Signed {
    /// The `kid` of the key that signed it.
    pub fn key_id(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What it says, for whoever judged it or does not accept it by that.
    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OKP: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const OCT: &str = r#"{"kty":"oct","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#;

    fn read(keys: &str) -> Result<(usize, Vec<LeftOut>), BadKeys> {
        let (keys, left_out) = Keys::from_jwk_set(format!(r#"{{"keys":[{keys}],"x":1}}"#).as_bytes(), None)?;
        Ok((keys.iter().count(), left_out))
    }

    #[test]
    fn what_a_set_may_hold() {
        let id = |key: &str, id: &str| format!("{key},\"kid\":\"{id}\"}}");
        assert_eq!(read(""), Ok((0, vec![])));
        assert_eq!(read(&format!("{},{}", id(OKP, "a"), id(OKP, "b"))), Ok((2, vec![])));
        assert_eq!(read(&format!("{},{}", id(OKP, "a"), id(OKP, "a"))), Err(BadKeys::Duplicate));
        assert_eq!(read(&format!("{},{}", id(OKP, "a"), id(OCT, "b"))), Err(BadKeys::Mixed));
        let damaged = id(&OKP.replace("11q", ""), "a");
        assert_eq!(read(&format!("{},{damaged}", id(OKP, "a"))), Err(BadKeys::Duplicate));
        let encryption = id(&format!("{OKP},\"use\":\"enc\""), "a");
        assert_eq!(read(&format!("{},{encryption}", id(OKP, "a"))), Ok((1, vec![(Some("a".into()), BadKey::Use)])));
        assert_eq!(read(&format!("{OKP},\"d\":\"AAAA\"}}")), Err(BadKeys::Private));
        assert_eq!(read("7"), Err(BadKeys::Malformed));
        let many: Vec<_> = (0..=MAX_SET_KEYS).map(|n| id(OKP, &n.to_string())).collect();
        assert_eq!(read(&many.join(",")), Err(BadKeys::Malformed));
        for text in ["", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(matches!(Keys::from_jwk_set(text.as_bytes(), None), Err(BadKeys::Malformed)), "{text}");
        }
    }
}
