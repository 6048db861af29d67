//! Tokens: signed double submit, bound to the session.
//!
//! The one maker of tokens: for the application's pages and for Palisade's own. A token is
//! `nonce ‖ HMAC-SHA256(key, session ‖ nonce)`, so that it is another text on every page (BREACH reads what
//! stays the same in a compressed answer) and one of another session is worth nothing. Without a session that we know,
//! it is bound to a signed random cookie, which only this host can have set: `__Host-` cookies cannot be planted by a
//! neighbouring subdomain or over plain HTTP. Source: OWASP's cheat sheet on CSRF, "Signed Double-Submit Cookie".

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64URL_NOPAD;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use palisade_identity::rings::TAG_BYTES;

use crate::context::Context;
use crate::controls::auth::keys::Keys;

/// The cookie over TLS.
pub(super) const SECURE_NAME: &str = "__Host-palisade-csrf";
/// The cookie over plain HTTP, where browsers take no `__Host-` cookie: development.
pub(super) const PLAIN_NAME: &str = "palisade-csrf";

const NONCE: usize = 16;
const RAW: usize = NONCE + TAG_BYTES;
/// The length of a token in base64url.
pub(super) const LENGTH: usize = 64;

/// What a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    /// A session of ours, or the application's by its cookie.
    Known(Box<[u8]>),
    /// The random cookie, as it was sent.
    Cookie(Box<str>),
}

/// What tokens are signed with.
#[derive(Debug)]
pub(super) enum Key {
    /// One key. Boxed: it holds the states of the hash, a kilobyte of them.
    Own(Box<hmac::Key>),
    /// The ring of keys that all instances share: a token outlives the key's replacement.
    Ring(Keys),
}

impl Key {
    pub(super) fn own(key: &[u8]) -> Self {
        Self::Own(Box::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// None where the secret store cannot be used: then there are no tokens.
    fn tag(&self, message: &[u8]) -> Option<[u8; TAG_BYTES]> {
        match self {
            Self::Own(key) => hmac::sign(key, message).as_ref().try_into().ok(),
            Self::Ring(keys) => keys.open().ok().map(|rings| rings.mac(message)),
        }
    }

    fn checks(&self, message: &[u8], tag: &[u8]) -> bool {
        match self {
            Self::Own(key) => hmac::verify(key, message, tag).is_ok(),
            Self::Ring(keys) => keys.open().is_ok_and(|rings| rings.checks(message, tag)),
        }
    }
}

/// Makes and checks tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    key: Key,
    /// The application's own session cookie.
    session_cookie: Option<Box<str>>,
}

impl Tokens {
    pub(super) fn new(key: Key, session_cookie: Option<&str>) -> Self {
        Self { key, session_cookie: session_cookie.map(Into::into) }
    }

    /// What the tokens of this request are bound to; none where there is nothing yet.
    pub(super) fn session(&self, ctx: &Context, headers: &HeaderMap) -> Option<Session> {
        if let Some(session) = ctx.session_secret() {
            return Some(Session::Known(session.into()));
        }
        if let Some(name) = &self.session_cookie
            && let Some(value) = cookie(headers, name)
        {
            return Some(Session::Known(value.as_bytes().into()));
        }
        let value = cookie(headers, cookie_name(ctx))?;
        self.is_ours(value).then(|| Session::Cookie(value.into()))
    }

    /// A random cookie of ours, for who has none.
    pub(super) fn new_cookie(&self) -> Option<Session> {
        let mut raw = [0; RAW];
        rand::fill(&mut raw[..NONCE]).ok()?;
        let (id, mac) = raw.split_at_mut(NONCE);
        mac.copy_from_slice(&self.key.tag(&message(b"cookie", b"", id))?);
        Some(Session::Cookie(BASE64URL_NOPAD.encode(&raw).into()))
    }

    /// Whether a cookie was made here.
    fn is_ours(&self, value: &str) -> bool {
        let Some(raw) = decode(value) else { return false };
        let (id, mac) = raw.split_at(NONCE);
        self.key.checks(&message(b"cookie", b"", id), mac)
    }

    /// A fresh token.
    pub(super) fn token(&self, session: &Session) -> Option<String> {
        let mut raw = [0; RAW];
        rand::fill(&mut raw[..NONCE]).ok()?;
        let (nonce, mac) = raw.split_at_mut(NONCE);
        mac.copy_from_slice(&self.key.tag(&bound(session, nonce))?);
        Some(BASE64URL_NOPAD.encode(&raw))
    }

    /// Whether a token is one of this session. The random cookie itself is one too: scripts read it there.
    pub(super) fn is_valid(&self, session: &Session, token: &[u8]) -> bool {
        if let Session::Cookie(cookie) = session
            && verify_slices_are_equal(cookie.as_bytes(), token).is_ok()
        {
            return true;
        }
        let Some(raw) = std::str::from_utf8(token).ok().and_then(decode) else { return false };
        let (nonce, mac) = raw.split_at(NONCE);
        self.key.checks(&bound(session, nonce), mac)
    }

    /// What the cookie for scripts holds.
    pub(super) fn cookie_value(&self, session: &Session) -> Option<String> {
        match session {
            Session::Cookie(value) => Some(value.to_string()),
            Session::Known(_) => self.token(session),
        }
    }
}

fn bound(session: &Session, nonce: &[u8]) -> Vec<u8> {
    match session {
        Session::Known(session) => message(b"session", session, nonce),
        Session::Cookie(cookie) => message(b"double", cookie.as_bytes(), nonce),
    }
}

/// What is signed: every part with its length before it, so that no two inputs are one text.
fn message(purpose: &[u8], session: &[u8], nonce: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    for part in [b"palisade csrf 2".as_slice(), purpose, session, nonce] {
        message.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn decode(text: &str) -> Option<[u8; RAW]> {
    if text.len() != LENGTH {
        return None;
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// The name of the cookie for this request.
pub(super) fn cookie_name(ctx: &Context) -> &'static str {
    if ctx.is_secure() { SECURE_NAME } else { PLAIN_NAME }
}

/// The `Set-Cookie` of a value. Scripts of the own pages read it: that is what it is for.
pub(super) fn set_cookie(ctx: &Context, value: &str) -> Option<HeaderValue> {
    let secure = if ctx.is_secure() { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{}={value}; Path=/{secure}; SameSite=Lax", cookie_name(ctx))).ok()
}

/// The value of a cookie that is there once. Of two nobody knows which one another reader believes.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(own, _)| own.trim_end() == name).map(|(_, value)| value.trim());
    let value = values.next()?;
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bound_to_their_session() {
        let tokens = Tokens::new(Key::own(&[7; 32]), None);
        let sessions = [
            Session::Known(b"a"[..].into()),
            Session::Known(b"b"[..].into()),
            tokens.new_cookie().unwrap(),
            tokens.new_cookie().unwrap(),
        ];
        for session in &sessions {
            let token = tokens.token(session).unwrap();
            assert_eq!(token.len(), LENGTH);
            assert_ne!(token, tokens.token(session).unwrap(), "another text every time");
            for other in &sessions {
                assert_eq!(tokens.is_valid(other, token.as_bytes()), other == session);
            }
            assert!(!Tokens::new(Key::own(&[8; 32]), None).is_valid(session, token.as_bytes()), "another key");
            for place in 0..LENGTH {
                let mut bent = token.clone().into_bytes();
                bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
                assert!(!tokens.is_valid(session, &bent), "byte {place} of {token}");
            }
            for wrong in ["", "x", &token[1..], &format!("{token}="), &token.repeat(2)] {
                assert!(!tokens.is_valid(session, wrong.as_bytes()), "{wrong}");
            }
        }
    }

    #[test]
    fn the_random_cookie_is_a_token_of_its_own_and_of_nothing_else() {
        let tokens = Tokens::new(Key::own(&[7; 32]), None);
        let Some(Session::Cookie(value)) = tokens.new_cookie() else { panic!("a cookie") };
        assert!(tokens.is_ours(&value) && !tokens.is_ours(&"A".repeat(LENGTH)));
        assert!(tokens.is_valid(&Session::Cookie(value.clone()), value.as_bytes()));
        assert!(!tokens.is_valid(&tokens.new_cookie().unwrap(), value.as_bytes()));
        let token = tokens.token(&Session::Cookie(value)).unwrap();
        assert!(!tokens.is_ours(&token), "a token is no cookie");
    }

    #[test]
    fn one_cookie_of_a_name() {
        let headers = |lines: &[&str]| {
            lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(cookie(&headers(&["a=1; b=2", "c=3"]), "b"), Some("2"));
        for lines in [&["b=1; b=2"][..], &["b=1", "b=1"], &["b="], &["b"], &["xb=1"], &["B=1"], &[]] {
            assert_eq!(cookie(&headers(lines), "b"), None, "{lines:?}");
        }
    }
}
