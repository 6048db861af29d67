//! The text of a refresh token: family, generation, secret, tag.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use data_encoding::BASE64URL_NOPAD;
use palisade_base::Secret;
use zeroize::Zeroize;

use super::CannotRefresh;
use crate::opaque::sealed::Opener;
use crate::opaque::{hash, random};

const PREFIX: &str = "palr_";
const TAG_BYTES: usize = 16;
/// Family, generation, secret.
const BODY_BYTES: usize = 16 + 4 + 32;
pub(super) const TOKEN_BYTES: usize = BODY_BYTES + TAG_BYTES;

/// A refresh token. Opaque to clients; for us it names its family and its place in it.
#[derive(Clone)]
pub struct RefreshToken(Secret<[u8; TOKEN_BYTES]>);

impl RefreshToken {
    /// A new token of a family whose key makes its tag.
    pub(super) fn generate(family: [u8; 16], generation: u32, key: &[u8; 32]) -> Result<Self, CannotRefresh> {
        let mut bytes = [0; TOKEN_BYTES];
        let mut secret = random::<32>()?;
        bytes[..16].copy_from_slice(&family);
        bytes[16..20].copy_from_slice(&generation.to_be_bytes());
        bytes[20..BODY_BYTES].copy_from_slice(&secret);
        secret.zeroize();
        let tag = tag(key, &bytes[..BODY_BYTES]);
        bytes[BODY_BYTES..].copy_from_slice(&tag);
        Ok(Self(Secret::new(bytes)))
    }

    /// Reads the text of one. Only its exact spelling is read; whether it is genuine, its family knows.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?.as_bytes();
        if BASE64URL_NOPAD.decode_len(encoded.len()) != Ok(TOKEN_BYTES) {
            return None;
        }
        let mut bytes = [0; TOKEN_BYTES];
        BASE64URL_NOPAD.decode_mut(encoded, &mut bytes).ok()?;
        Some(Self(Secret::new(bytes)))
    }

    /// Its text, for the one answer that carries it.
    pub fn reveal(&self) -> Secret<String> {
        Secret::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(self.0.expose())))
    }

    /// The id of its family, by which that is found. Not proof of anything.
    pub fn family(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0.expose()[..16]);
        id
    }

    pub(super) fn generation(&self) -> u32 {
        let bytes = self.0.expose();
        u32::from_be_bytes([bytes[16], bytes[17], bytes[18], bytes[19]])
    }

    /// Whether the family's key made its tag: then it was issued once.
    pub(super) fn is_genuine(&self, key: &[u8; 32]) -> bool {
        let (body, presented) = self.0.expose().split_at(BODY_BYTES);
        constant_time::verify_slices_are_equal(&tag(key, body), presented).is_ok()
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        hash("palisade refresh token v1", &[self.0.expose()])
    }

    /// Encrypts the successor so that only this token opens it.
    pub(super) fn seal(&self, successor: &Self) -> Result<Vec<u8>, CannotRefresh> {
        self.opener().seal(successor.0.expose()).ok_or(CannotRefresh::Library)
    }

    /// Opens what [`seal`](Self::seal) made.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Self> {
        self.opener().open(sealed).map(|bytes| Self(Secret::new(bytes)))
    }

    fn opener(&self) -> Opener<'_> {
        Opener { label: b"palisade refresh successor v1", secret: self.0.expose(), hash: self.hash() }
    }
}

fn tag(key: &[u8; 32], body: &[u8]) -> [u8; TAG_BYTES] {
    let full = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), body);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&full.as_ref()[..TAG_BYTES]);
    tag
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
