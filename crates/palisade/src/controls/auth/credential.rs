//! Which credential of Palisade's a request offers: none or one. Nothing is verified here.
//!
//! Threats 18 and 32. A value is sorted by its prefix before anything parses it, and what was sorted as one kind is never
//! tried as another. Cookies are read as the strictest and as the laxest reader would, and where the two differ the
//! request is refused.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderValue};

use super::codes;
use crate::context::Context;
use crate::refusal::Refusal;

/// The session cookie over TLS. Browsers take a `__Host-` cookie from its own host over TLS only.
pub const COOKIE_SECURE: &str = "__Host-palisade";
/// The session cookie over plain HTTP, in development.
pub const COOKIE_PLAIN: &str = "palisade";
/// The cookie that marks a browser in which an account was used before.
pub const DEVICE_SECURE: &str = "__Host-palisade-device";
/// The same over plain HTTP, in development.
pub const DEVICE_PLAIN: &str = "palisade-device";
/// The header of API keys.
pub const API_KEY: &str = "x-api-key";

/// What an API key begins with.
const KEY_PREFIX: &str = "pal_";

/// The names of our cookies without what servers fold: of these, each other spelling is refused.
const FOLDED: [&str; 6] =
    ["hostpalisade", "palisade", "hostpalisadedevice", "palisadedevice", "hostpalisadecsrf", "palisadecsrf"];
/// Their exact spellings. The token of `csrf` is a cookie of the control of that name.
const EXACT: [&str; 6] =
    [COOKIE_SECURE, COOKIE_PLAIN, DEVICE_SECURE, DEVICE_PLAIN, "__Host-palisade-csrf", "palisade-csrf"];

/// The one credential of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered<'r> {
    /// None.
    Nothing,
    /// A session cookie's value.
    Session(&'r str),
    /// The value behind `Bearer`: a signed token.
    Token(&'r str),
    /// An API key, in `X-API-Key` or behind `Bearer`. What stands in `X-API-Key` is one, whatever it looks like.
    Key(&'r str),
}

/// Whether the cookies of this request are those over TLS: in production they always are.
pub fn is_secure(ctx: &Context) -> bool {
    ctx.is_secure() || !ctx.policy.env().is_development()
}

/// Reads the credential of a request.
///
/// # Errors
/// [`codes::AMBIGUOUS`] and [`codes::COOKIE`].
pub fn offered<'r>(headers: &'r HeaderMap, secure: bool) -> Result<Offered<'r>, Refusal> {
    let mut found = Offered::Nothing;
    let mut offer = |next: Offered<'r>| match found {
        Offered::Nothing => {
            found = next;
            Ok(())
        }
        _ => Err(codes::AMBIGUOUS.refuse("two credentials in one request")),
    };
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = authorizations.next() {
        if authorizations.next().is_some() {
            return Err(codes::AMBIGUOUS.refuse("`Authorization` twice"));
        }
        if let Some(value) = bearer(value) {
            offer(if value.starts_with(KEY_PREFIX) { Offered::Key(value) } else { Offered::Token(value) })?;
        }
    }
    let mut keys = headers.get_all(API_KEY).iter();
    if let Some(value) = keys.next() {
        if keys.next().is_some() {
            return Err(codes::AMBIGUOUS.refuse("`X-API-Key` twice"));
        }
        // Bytes that are no text are no key either, and are refused as one.
        offer(Offered::Key(value.to_str().unwrap_or_default().trim()))?;
    }
    let wanted = if secure { COOKIE_SECURE } else { COOKIE_PLAIN };
    if let Some(value) = cookie(headers, wanted)? {
        offer(Offered::Session(value))?;
    }
    Ok(found)
}

/// What stands behind `Bearer` (RFC 6750 section 2.1; the scheme in any case). Other schemes are none of ours.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|byte| !matches!(byte, b' ' | b'\t')) {
        return None;
    }
    Some(std::str::from_utf8(rest).map(str::trim).unwrap_or_default())
}

/// The value of one of our cookies.
///
/// # Errors
/// [`codes::COOKIE`]: it is there twice, or any of our names is there in another spelling.
pub fn cookie<'r>(headers: &'r HeaderMap, wanted: &str) -> Result<Option<&'r str>, Refusal> {
    let mut found = None;
    let mut seen = [false; EXACT.len()];
    for (name, value) in pairs(headers) {
        let Some(value) = value else {
            if is_ours(name) {
                return Err(codes::COOKIE.refuse("a cookie without a name that looks like one of Palisade's"));
            }
            continue;
        };
        if let Some(place) = EXACT.iter().position(|exact| exact.as_bytes() == name) {
            if std::mem::replace(&mut seen[place], true) {
                return Err(codes::COOKIE.refuse("a cookie of Palisade's twice"));
            }
            if EXACT[place] == wanted {
                let value = std::str::from_utf8(value).ok().filter(|value| value.bytes().all(is_plain));
                found = Some(value.ok_or_else(|| codes::COOKIE.refuse("a quoted or malformed value"))?);
            }
        } else if is_ours(name) {
            return Err(codes::COOKIE.refuse("a cookie of Palisade's in another spelling"));
        } else if hides_ours(value) {
            // A reader that splits at commas, or honours quotes, finds our cookie in the value of another one.
            return Err(codes::COOKIE.refuse("a cookie of Palisade's within the value of another"));
        }
    }
    Ok(found)
}

/// The alphabet of every value that we set.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Names and values as sent: one space behind a semicolon is the separator's (RFC 6265 section 4.2.1), everything else is
/// the name's or the value's. A browser sends a cookie without a name as its value alone, which some readers take for a
/// name.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';')).map(|piece| {
        let piece = piece.strip_prefix(b" ").unwrap_or(piece);
        match piece.iter().position(|byte| *byte == b'=') {
            Some(place) => (&piece[..place], Some(&piece[place + 1..])),
            None => (piece, None),
        }
    })
}

/// Whether a name is one of ours to any reader: without regard to case, blanks, quotes, escapes and what servers fold.
pub fn is_ours(name: &[u8]) -> bool {
    // Longer than any escape of the longest of our names could be.
    if name.len() > 160 || !name.iter().any(|byte| matches!(byte, b'p' | b'P' | b'%')) {
        return false;
    }
    let decoded = unescape(name);
    let folded: Vec<u8> =
        decoded.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    FOLDED.iter().any(|ours| ours.as_bytes() == folded)
}

/// Whether our name and an equals sign stand within a value.
fn hides_ours(value: &[u8]) -> bool {
    if !value.contains(&b'=') {
        return false;
    }
    value.split(|byte| *byte == b'=').rev().skip(1).any(|before| {
        let start = before.iter().rposition(|byte| matches!(byte, b',' | b';' | b'"' | b' ' | b'\t' | b'&'));
        is_ours(start.map_or(before, |start| &before[start + 1..]))
    })
}

/// Percent escapes decoded once.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        let digit = |place: usize| tail.get(place).and_then(|d| char::from(*d).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &tail[2..];
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

/// Takes our cookies out of `Cookie`, in whatever spelling: the application gets none of them.
pub fn cut_cookies(headers: &mut HeaderMap) {
    if !pairs(headers).any(|(name, _)| is_ours(name)) {
        return;
    }
    let mut kept: Vec<u8> = Vec::new();
    for value in headers.get_all(COOKIE) {
        for piece in value.as_bytes().split(|byte| *byte == b';') {
            let name = piece.split(|byte| *byte == b'=').next().unwrap_or_default();
            if is_ours(name) || piece.trim_ascii().is_empty() {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(piece.trim_ascii());
        }
    }
    headers.remove(COOKIE);
    if !kept.is_empty()
        && let Ok(kept) = HeaderValue::from_bytes(&kept)
    {
        headers.insert(COOKIE, kept);
    }
}

/// Whether a `Set-Cookie` of an application names a cookie of ours, as any browser would read it. Threats 21.
pub fn sets_ours(set_cookie: &[u8]) -> bool {
    // Browsers take a cookie without `=` as one without a name, whose value they send as if it were a name.
    let pair = set_cookie.split(|byte| *byte == b';').next().unwrap_or_default();
    pair.split(|byte| *byte == b'=').take(2).any(is_ours)
}

/// Whether a `Set-Cookie` of ours says what becomes of the session.
pub(crate) fn sets_session(set_cookie: &[u8]) -> bool {
    let name = set_cookie.split(|byte| *byte == b'=').next().unwrap_or_default();
    [COOKIE_SECURE, COOKIE_PLAIN].iter().any(|ours| ours.as_bytes() == name)
}

/// Whether a query holds an API key.
pub fn has_key(query: &str) -> bool {
    query.contains(KEY_PREFIX)
        && query.split(['&', '=', ';', ',']).any(|part| {
            let part = part.as_bytes();
            let whole = std::str::from_utf8(part).unwrap_or_default();
            whole.starts_with(KEY_PREFIX) && whole.matches('_').count() >= 3 && whole.len() >= 40
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn one_credential_sorted_by_its_prefix() {
        let session = format!("a=1; __Host-palisade={SESSION}; b=2");
        type Case<'a> = (&'a [(&'static str, &'a str)], Result<Offered<'a>, &'static str>);
        let cases: &[Case<'_>] = &[
            (&[], Ok(Offered::Nothing)),
            (&[("authorization", "Bearer abc.def.ghi")], Ok(Offered::Token("abc.def.ghi"))),
            (&[("authorization", "bearer  abc")], Ok(Offered::Token("abc"))),
            (&[("authorization", "Bearer")], Ok(Offered::Token(""))),
            (&[("authorization", "Bearer pal_live_x")], Ok(Offered::Key("pal_live_x"))),
            (&[("authorization", "Bearer PAL_live_x")], Ok(Offered::Token("PAL_live_x"))),
            (&[("authorization", "Basic dTpw")], Ok(Offered::Nothing)),
            (&[("authorization", "Bearerabc")], Ok(Offered::Nothing)),
            (&[("authorization", "Bearer é")], Ok(Offered::Token("é"))),
            (&[("x-api-key", "pal_live_x")], Ok(Offered::Key("pal_live_x"))),
            (&[("x-api-key", "eyJh.e30.x")], Ok(Offered::Key("eyJh.e30.x"))),
            (&[("cookie", &session)], Ok(Offered::Session(SESSION))),
            (&[("cookie", "__Host-palisade=")], Ok(Offered::Session(""))),
            (&[("cookie", "palisade=x")], Ok(Offered::Nothing)),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer a")], Err("auth.ambiguous")),
            (&[("x-api-key", "pal_a"), ("x-api-key", "pal_a")], Err("auth.ambiguous")),
            (&[("authorization", "Bearer a"), ("x-api-key", "pal_a")], Err("auth.ambiguous")),
            (&[("authorization", "Bearer junk"), ("cookie", &session)], Err("auth.ambiguous")),
            (&[("x-api-key", "pal_a"), ("cookie", &session)], Err("auth.ambiguous")),
            (&[("authorization", "Basic dTpw"), ("cookie", &session)], Ok(Offered::Session(SESSION))),
        ];
        for (list, expected) in cases {
            let headers = headers(list);
            let got = offered(&headers, true);
            assert_eq!(
                got.as_ref().map_err(|refusal| refusal.code().name),
                expected.as_ref().map_err(|e| *e),
                "{list:?}"
            );
        }
        let plain = headers(&[("cookie", "palisade=x")]);
        assert_eq!(offered(&plain, false).unwrap(), Offered::Session("x"));
    }

    /// Threats 32.
    #[test]
    fn no_other_spelling_of_a_cookie_is_read() {
        let spellings = [
            "__HOST-palisade=x",
            "__host-palisade=x",
            "__Host-Palisade=x",
            "  __Host-palisade=x",
            "\t__Host-palisade=x",
            "__Host-palisade =x",
            "__Host-palisade\t=x",
            "\"__Host-palisade\"=x",
            "__Host_palisade=x",
            "__Host.palisade=x",
            "__Host%2Dpalisade=x",
            "%5F%5FHost-palisade=x",
            "Host-palisade=x",
            "$__Host-palisade=x",
            "__Host-palisade=x; __Host-palisade=x",
            "__Host-palisade=x; __Host-palisade=y",
            "__Host-palisade=\"x\"",
            "__Host-palisade=x y",
            "__Host-palisade=é",
            "a=b,__Host-palisade=y",
            "a=\"b; __Host-palisade=y\"",
            "a=\"b __HOST-palisade=y\"",
            "PALISADE=x",
            "__HOST-palisade",
            "__Host-palisade",
            "__Host-palisade-Device=x",
        ];
        for spelling in spellings {
            let headers = headers(&[("cookie", spelling)]);
            let refused = offered(&headers, true).unwrap_err();
            assert_eq!(refused.code().name, "auth.cookie", "{spelling}");
        }
        // Behind a good one, and in a header of its own.
        for spelling in &spellings[..14] {
            let good = format!("__Host-palisade={SESSION}");
            for list in [
                vec![("cookie", format!("{good};{spelling}"))],
                vec![("cookie", format!("{spelling}; {good}"))],
                vec![("cookie", good.clone()), ("cookie", (*spelling).to_owned())],
            ] {
                let list: Vec<(&str, &str)> = list.iter().map(|(name, value)| (*name, value.as_str())).collect();
                assert!(offered(&headers(&list), true).is_err(), "{list:?}");
            }
        }
        for other in ["a=palisade", "mypalisade=x", "palisades=x", "a=b=c", "__Host-a=x", "p=1; P=2", "a=x=palisade"] {
            let headers = headers(&[("cookie", other)]);
            assert_eq!(offered(&headers, true).unwrap(), Offered::Nothing, "{other}");
        }
    }

    #[test]
    fn none_of_our_cookies_passes_in_either_direction() {
        let cut = |cookie: &str| {
            let mut headers = headers(&[("cookie", cookie)]);
            cut_cookies(&mut headers);
            headers.get("cookie").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        assert_eq!(cut("a=1; __Host-palisade=x; b=2").as_deref(), Some("a=1; b=2"));
        assert_eq!(cut("__Host-palisade=x"), None);
        assert_eq!(cut("palisade=x; __Host-palisade-device=y;a=1").as_deref(), Some("a=1"));
        assert_eq!(cut("a=1;b=2").as_deref(), Some("a=1;b=2"));
        for set in [
            "__Host-palisade=evil; Path=/; Secure",
            "__HOST-PALISADE=evil",
            " __Host-palisade = evil",
            "__Host-palisade",
            "=__Host-palisade=evil",
            "\"__Host-palisade\"=evil",
            "__Host-palisade=; Max-Age=0",
            "palisade=x; Domain=example.com",
            "__Host-palisade-device=x",
            "__Host%2Dpalisade=x",
        ] {
            assert!(sets_ours(set.as_bytes()), "{set}");
        }
        for set in ["session=1", "a=__Host-palisade2", "palisades=1", "", "=x"] {
            assert!(!sets_ours(set.as_bytes()), "{set}");
        }
    }

    #[test]
    fn keys_in_urls_are_seen() {
        let key = "pal_live_abcdefghijklmnop_abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        assert!(has_key(&format!("a=1&api_key={key}")));
        assert!(has_key(key));
        assert!(!has_key("a=pal_&b=pal_x_y"));
        assert!(!has_key("name=principal_of_a_school"));
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let words: Vec<&[u8]> = vec![
            b"__Host-palisade",
            b"palisade",
            b"__HOST-Palisade",
            b"palisade-device",
            b"a",
            b"=",
            b";",
            b"; ",
            b" ",
            b"\t",
            b",",
            b"\"",
            b"%2D",
            b"-",
            b"_",
            b"$Version",
            b"x",
            SESSION.as_bytes(),
            b"\xc3\xa9",
            b"\xff",
        ];
        proptest::collection::vec(proptest::sample::select(words), 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever is sent: what is read is the one exact spelling, and nothing of ours is left for the application.
        #[test]
        fn cookies_of_strangers(cookie in pieces(), secure in any::<bool>()) {
            let Ok(value) = HeaderValue::from_bytes(&cookie) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, value);
            let name = if secure { COOKIE_SECURE } else { COOKIE_PLAIN };
            if let Ok(Offered::Session(session)) = offered(&headers, secure) {
                let exact = format!("{name}={session}");
                let sent = cookie.split(|byte| *byte == b';').map(|piece| piece.strip_prefix(b" ").unwrap_or(piece));
                prop_assert_eq!(sent.filter(|piece| *piece == exact.as_bytes()).count(), 1);
                prop_assert!(session.bytes().all(is_plain));
            }
            cut_cookies(&mut headers);
            prop_assert!(!pairs(&headers).any(|(name, _)| is_ours(name)), "{:?}", headers);
        }
    }
}
