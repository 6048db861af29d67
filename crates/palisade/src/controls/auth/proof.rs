//! Whether a request comes from a page of our own: what a cookie alone never proves.
//!
//! Guide section 5. Browsers say in `Sec-Fetch-Site` and `Origin` where a request comes from; where neither is there, a
//! token that is bound to the session has to be. A token is 16 random bytes and a MAC over them and the session: another
//! one in each answer, so that nothing can be guessed from the length of compressed pages, and nothing to store.

use aws_lc_rs::{constant_time, hmac, rand};
use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use http::header::ORIGIN;
use palisade_base::Secret;

use crate::context::Context;

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "x-csrf-token";
/// The field of a form that carries it.
pub const TOKEN_FIELD: &str = "csrf_token";

const RANDOM: usize = 16;
const MAC: usize = 32;

/// Where a request comes from, as the browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A page of ours, or the address bar.
    Own,
    /// A page of another site, or of another origin of this one.
    Foreign,
    /// Nothing is said: an old browser, or no browser.
    Unknown,
}

/// Reads where a request comes from. Origins that `[cors]` names for this route, with credentials, count as own.
pub fn from(ctx: &Context, headers: &HeaderMap) -> From {
    let listed =
        |origin: &str| ctx.policy.controls().cors.control.as_ref().is_some_and(|cors| cors.is_own(ctx, origin));
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    if let Some(origin) = origin
        && listed(origin)
    {
        return From::Own;
    }
    match headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes) {
        Some(b"same-origin" | b"none") => return From::Own,
        Some(_) => return From::Foreign,
        None => {}
    }
    match origin {
        None => From::Unknown,
        Some(origin) => {
            let own = origin.split_once("://").is_some_and(|(scheme, authority)| {
                (scheme == "https") == ctx.is_secure() && authority.eq_ignore_ascii_case(ctx.authority())
            });
            if own { From::Own } else { From::Foreign }
        }
    }
}

/// Makes a token for a session.
pub fn token(secret: &Secret<Vec<u8>>, session: &str) -> Option<String> {
    let mut random = [0_u8; RANDOM];
    rand::fill(&mut random).ok()?;
    let mut whole = random.to_vec();
    whole.extend_from_slice(mac(secret, session, &random).as_ref());
    Some(BASE64URL_NOPAD.encode(&whole))
}

/// Whether a token was made for a session. Constant time.
pub fn verify(secret: &Secret<Vec<u8>>, session: &str, token: &str) -> bool {
    if token.len() != (RANDOM + MAC).div_ceil(3) * 4 {
        return false;
    }
    let Ok(whole) = BASE64URL_NOPAD.decode(token.as_bytes()) else { return false };
    let Some((random, given)) = whole.split_at_checked(RANDOM) else { return false };
    constant_time::verify_slices_are_equal(mac(secret, session, random).as_ref(), given).is_ok()
}

fn mac(secret: &Secret<Vec<u8>>, session: &str, random: &[u8]) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(b"palisade csrf v1\0");
    context.update(random);
    context.update(session.as_bytes());
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_session_only() {
        let secret = Secret::new(vec![7; 32]);
        let made = token(&secret, "one").unwrap();
        assert!(verify(&secret, "one", &made));
        assert_ne!(made, token(&secret, "one").unwrap(), "another one each time");
        assert!(!verify(&secret, "two", &made));
        assert!(!verify(&Secret::new(vec![8; 32]), "one", &made));
        for bad in ["", "a", &made[1..], &format!("{made}A"), &made.replace(|c: char| c.is_ascii_digit(), "_")] {
            assert!(!verify(&secret, "one", bad) || bad == made, "{bad}");
        }
    }
}
