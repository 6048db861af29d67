//! What must not stand in a log: tokens, passwords and cards, wherever a client put them.
//!
//! CWE-532. Names decide first (`password=…`), then the shape of the value (a JWT, a card number).

use std::borrow::Cow;

/// What stands where a secret was.
pub(crate) const REDACTED: &str = "[redacted]";

/// Words that make a name a secret's, compared in lower case without `-` and `_`.
const SECRET_NAMES: [&str; 26] = [
    "password",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "passcode",
    "otp",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "auth",
    "code",
    "session",
    "sessid",
    "sid",
    "jwt",
    "signature",
    "sig",
    "card",
    "cvv",
    "cvc",
    "pin",
    "credential",
];

/// Whether a query key, header or field of this name holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    // `card[cvv]`: what a word stands behind is counted from its own end.
    let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let mut folded = String::with_capacity(name.len());
    folded.extend(name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()));
    SECRET_NAMES.iter().any(|word| match word.len() {
        // Short words only as the whole name or its end: `pin` is one, `shipping` is not.
        ..=4 => {
            folded == *word
                || (folded.ends_with(word)
                    && name.len() > word.len()
                    && name.as_bytes().get(name.len() - word.len() - 1).is_some_and(|b| !b.is_ascii_alphanumeric()))
        }
        _ => folded.contains(word),
    })
}

/// Names under which credentials stand in queries, compared as [`SECRET_NAMES`] are. Not what only looks like one: the
/// `code` of a login is meant for the URL, `page_token` is a place in a list.
const CREDENTIALS: [&str; 20] = [
    "accesstoken",
    "apikey",
    "apitoken",
    "auth",
    "authorization",
    "authtoken",
    "bearer",
    "bearertoken",
    "clientsecret",
    "idtoken",
    "jwt",
    "passwd",
    "password",
    "pwd",
    "refreshtoken",
    "secret",
    "sessionid",
    "sessiontoken",
    "sid",
    "token",
];

/// The kind of credential that a query holds, if any.
pub(crate) fn credential(query: &str) -> Option<&'static str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        if value.is_empty() {
            return None;
        }
        let name = decode(name);
        let folded = name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
        let known = CREDENTIALS.iter().find(|known| folded.clone().eq(known.bytes()));
        let value = decode(value);
        known.copied().or_else(|| (has_jwt(&value) || has_key(&value)).then_some("a token"))
    })
}

/// A query with the values of secrets replaced.
pub(crate) fn query(query: &str) -> Cow<'_, str> {
    if query.is_empty() || !query.split('&').any(is_secret_pair) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len());
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            out.push('&');
        }
        if is_secret_pair(pair) {
            out.push_str(pair.split_once('=').map_or("", |(name, _)| name));
            out.push('=');
            out.push_str(REDACTED);
        } else {
            out.push_str(pair);
        }
    }
    Cow::Owned(out)
}

fn is_secret_pair(pair: &str) -> bool {
    match pair.split_once('=') {
        Some((name, value)) => !value.is_empty() && (is_secret_name(&decode(name)) || holds_secret(&decode(value))),
        None => is_secret_value(&decode(pair)),
    }
}

/// Whether a value is a secret or has one in it: as an address to go on to in a query of its own, as JSON by a name.
fn holds_secret(value: &str) -> bool {
    let nested = |part: &str| {
        let Some((name, value)) = part.split_once('=') else { return false };
        !value.is_empty() && (is_secret_name(name) || is_secret_value(&decode(value)))
    };
    // A filter that is JSON, such as `{"token": "…"}`.
    let structured = || value.contains(':') && value.contains(['"', '\'']) && text(value) != value;
    is_secret_value(value) || (value.contains('=') && value.split(['?', '&', '#', ';']).any(nested)) || structured()
}

/// A path with segments that look like secrets replaced, and the values of secrets in its parameters
/// (`/login;password=…`, RFC 3986 section 3.3).
pub(crate) fn path(path: &str) -> Cow<'_, str> {
    // Nearly every path has no `=`, and so names nothing.
    let names = path.contains('=') || path.contains('%') && sign(path, b'=').is_some();
    if path.len() < SHORTEST && !names {
        return Cow::Borrowed(path);
    }
    let looks = |segment: &str| segment.len() >= SHORTEST && is_secret_value(&decode(segment));
    let named = |segment: &str| names && parameters(segment).any(is_secret_parameter);
    if !path.split('/').any(|segment| looks(segment) || named(segment)) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for (place, segment) in path.split('/').enumerate() {
        if place > 0 {
            out.push('/');
        }
        if looks(segment) {
            out.push_str(REDACTED);
            continue;
        }
        for (name, value) in parameters(segment) {
            out.push_str(name);
            out.push_str(if is_secret_parameter((name, value)) { REDACTED } else { value });
        }
    }
    Cow::Owned(out)
}

/// A segment of a path in its parameters: each from its `;` to its `=`, and its value. As sent: either sign may be
/// percent-encoded, and applications decode before or after they split.
fn parameters(mut rest: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let opened = sign(rest, b';').filter(|(at, _)| *at == 0).map_or(0, |(_, length)| length);
        let end = sign(&rest[opened..], b';').map_or(rest.len(), |(at, _)| opened + at);
        let (parameter, behind) = rest.split_at(end);
        rest = behind;
        let name = sign(parameter, b'=').map_or(parameter.len(), |(at, length)| at + length);
        Some(parameter.split_at(name))
    })
}

fn is_secret_parameter((name, value): (&str, &str)) -> bool {
    !value.is_empty() && (is_secret_name(&decode(name)) || holds_secret(&decode(value)))
}

/// Where a sign stands first, and in how many bytes: as itself, or percent-encoded.
fn sign(text: &str, sign: u8) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().find_map(|(at, byte)| match *byte {
        byte if byte == sign => Some((at, 1)),
        b'%' if escaped(bytes, at) == Some(sign) => Some((at, 3)),
        _ => None,
    })
}

/// Nothing shorter looks like a secret.
const SHORTEST: usize = 12;

/// Whether a value looks like a secret by itself, or has one in it: a JWT, one of our API keys, a payment card.
pub(crate) fn is_secret_value(value: &str) -> bool {
    value.len() >= SHORTEST && (has_jwt(value) || has_key(value) || has_card(value))
}

fn has_jwt(value: &str) -> bool {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '='));
    // The first of a token has the most dots behind it: no other needs a look, however often a client repeats it.
    value.split(is_end).any(|token| {
        token.find("eyJ").is_some_and(|at| token.bytes().skip(at).filter(|byte| *byte == b'.').count() >= 2)
    })
}

fn has_key(value: &str) -> bool {
    value.match_indices("pal_").any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| value.as_bytes().get(at));
        !before.is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// Whether a card begins at one of the groups of digits: other numbers may stand on both sides of it.
fn has_card(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let begins = |at: &usize| is_digit(*at) && (*at == 0 || !is_digit(*at - 1));
    (0..bytes.len())
        .filter(begins)
        .any(|at| card(&bytes[at..], usize::MAX, |text| usize::from(matches!(text[0], b' ' | b'-' | b'+'))).is_some())
}

/// The length of the longest card at the start of a text, where it ends within `widest` bytes: 13 to 19 digits in whole
/// groups that pass Luhn's check, with nothing between them but what `between` knows: it gets a text that is not empty, and
/// says how many bytes of it may stand there.
fn card(text: &[u8], widest: usize, between: impl Fn(&[u8]) -> usize) -> Option<usize> {
    let mut digits = 0_u32;
    // Luhn's sum of the digits so far, and what it is with one more digit behind them: which are doubled alternates.
    let (mut sum, mut next) = (0_u32, 0_u32);
    let mut longest = None;
    let mut place = 0;
    while let Some(byte) = text.get(place).filter(|_| place < widest) {
        if !byte.is_ascii_digit() {
            match between(&text[place..]) {
                0 => break,
                length => place += length,
            }
            continue;
        }
        digits += 1;
        if digits > 19 {
            break;
        }
        let digit = u32::from(byte - b'0');
        let doubled = digit * 2;
        (sum, next) = (next + digit, sum + doubled / 10 + doubled % 10);
        place += 1;
        let is_end = !text.get(place).is_some_and(u8::is_ascii_digit);
        if is_end && digits >= 13 && sum.is_multiple_of(10) {
            longest = Some(place);
        }
    }
    longest
}

/// Free text, such as an error page: the values behind names of secrets (`password=…`, `"token": "…"`,
/// `Authorization: Bearer …`, `(b'authorization', b'Bearer …')`), passwords in URLs, and words that look like a secret are
/// replaced. Names and words may be percent-encoded, as they are in an address that somebody prints.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (gap, behind) = rest.split_at(gap(rest));
        out.push_str(gap);
        rest = behind;
        if let Some(length) = spaced_card(rest) {
            out.push_str(REDACTED);
            rest = &rest[length..];
            continue;
        }
        let (written, behind) = rest.split_at(word(rest));
        rest = behind;
        let word = decode(written);
        if is_secret_value(&word) {
            out.push_str(REDACTED);
            continue;
        }
        out.push_str(written);
        if let Some(userinfo) = rest.strip_prefix("://").filter(|_| !word.contains('.')) {
            // `postgres://user:password@host`
            let authority = userinfo.split(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '"' | '\'')).next();
            if let Some((user, host)) = authority.unwrap_or_default().rsplit_once('@')
                && let Some((user, _password)) = user.split_once(':')
            {
                for part in ["://", user, ":", REDACTED, "@"] {
                    out.push_str(part);
                }
                rest = &userinfo[authority.map_or(0, str::len) - host.len()..];
            }
            continue;
        }
        let last = word.rsplit('.').next().unwrap_or(&word);
        if (is_secret_name(last) || is_cookie(last))
            && let Some((between, value)) = assigned(rest, is_cookie(last))
            && !is_status(last, &rest[between..between + value])
        {
            out.push_str(&rest[..between]);
            out.push_str(REDACTED);
            rest = &rest[between + value..];
        }
    }
    out
}

/// How many bytes at the start of a text are one character of a word, also percent-encoded.
fn letter(text: &[u8]) -> usize {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
    match text.first() {
        Some(byte) if is_letter(*byte) => 1,
        Some(_) if escaped(text, 0).is_some_and(is_letter) => 3,
        _ => 0,
    }
}

/// The length of the word that a text begins with.
fn word(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    loop {
        match letter(&bytes[length..]) {
            0 => return length,
            more => length += more,
        }
    }
}

/// The length of what stands before the first word. An escape is skipped whole: its digits are no word.
fn gap(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    while length < bytes.len() && letter(&bytes[length..]) == 0 {
        length += if escaped(bytes, length).is_some() { 3 } else { 1 };
    }
    length
}

/// The header that carries sessions under names which only the application knows.
fn is_cookie(name: &str) -> bool {
    let start = name.len().saturating_sub("cookie".len());
    name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case("cookie"))
}

/// `code: 500` and `exit code: 137` are what somebody looks for in a log; a code that lets somebody in is longer.
fn is_status(name: &str, value: &str) -> bool {
    name.to_ascii_lowercase().ends_with("code") && value.len() <= 3 && value.bytes().all(|b| b.is_ascii_digit())
}

/// Behind a name: the length of what joins it to a value (`=`, `": "`, `%3D`, in a list `', '`), and of the value, where
/// there is one. `header`: behind a colon, the value ends with the line.
fn assigned(text: &str, header: bool) -> Option<(usize, usize)> {
    let mut behind_name = text;
    let mut is_item = false;
    loop {
        let quote = quote(behind_name);
        let Some(end) = quote.or_else(|| ["]", "\\"].into_iter().find(|end| behind_name.starts_with(end))) else {
            break;
        };
        is_item = quote.is_some();
        behind_name = &behind_name[end.len()..];
    }
    behind_name = behind_name.trim_start_matches([' ', '\t']);
    let joint = ["=>", "==", "=", ":", "%3D", "%3d", "%3A", "%3a", ","]
        .into_iter()
        .find(|joint| behind_name.starts_with(joint) && (*joint != "," || is_item))?;
    let mut value = behind_name[joint.len()..].trim_start_matches([' ', '\t']);
    // Python's bytes.
    if let Some(bytes) = value.strip_prefix('b').filter(|bytes| quote(bytes).is_some()) {
        value = bytes;
    }
    let closing = quote(value);
    value = &value[closing.map_or(0, str::len)..];
    let mut length = match closing {
        // To its end, wherever that is; a text cut off in a secret is a secret to its end. An escaped quote is none.
        Some(closing) => {
            let mut ends = value.match_indices(closing).map(|(at, _)| at);
            ends.find(|at| !value[..*at].ends_with('\\')).unwrap_or(value.len())
        }
        // Another item, and no value of this one.
        None if joint == "," => return None,
        None if joint == ":" && header => value.find(['\n', '\r', '\\', '"', '\'', '<']).unwrap_or(value.len()),
        None => bare(value),
    };
    if closing.is_none()
        && ["Bearer", "Basic", "Digest", "Token"].iter().any(|s| value[..length].eq_ignore_ascii_case(s))
    {
        let token = value[length..].trim_start_matches(' ');
        length = value.len() - token.len() + bare(token);
    }
    (length > 0).then_some((text.len() - value.len(), length))
}

/// The quote that a text begins with, as it is written there: with a backslash for each text that it is quoted in.
fn quote(text: &str) -> Option<&str> {
    let plain = text.trim_start_matches('\\');
    let quotes = ["\"", "'", "&#34;", "&quot;", "&#x27;", "&#39;", "%22", "%27"];
    let quote = quotes.into_iter().find(|quote| plain.starts_with(quote))?;
    text.get(..text.len() - plain.len() + quote.len())
}

fn bare(value: &str) -> usize {
    value
        .find(|c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '<' | '>' | ')' | '}' | ']' | '\\')
        })
        .unwrap_or(value.len())
}

/// The widest that a card is looked for in free text, where any word may begin one: 19 digits and what stands between them.
const WIDEST: usize = 40;

/// The length of a payment card at the start of the text, written with blanks or hyphens.
fn spaced_card(text: &str) -> Option<usize> {
    card(text.as_bytes(), WIDEST, |text| match text {
        [b' ' | b'-', ..] => 1,
        [b'%', b'2', b'0', ..] => 3,
        _ => 0,
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let escape = escaped(bytes, place);
        out.push(escape.unwrap_or(byte));
        place += if escape.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The byte that an escape (`%3B`) at this place stands for.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    if bytes.get(at) != Some(&b'%') {
        return None;
    }
    u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_queries() {
        for (query, kind) in [
            ("access_token=x", Some("accesstoken")),
            ("a=1&API-Key=x", Some("apikey")),
            ("p%61ssword=x", Some("password")),
            ("x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", Some("a token")),
            ("token=", None),
            ("token", None),
            ("code=abc&state=x", None),
            ("page_token=abc&tokens=1", None),
            ("q=token", None),
            ("", None),
        ] {
            assert_eq!(credential(query), kind, "{query}");
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in [
            "card[cvv]",
            "user[pass]",
            "login[pwd]",
            "user[pin]",
            "user[pin][]",
            "x-pin-",
            "pin",
            "pin]",
            "user[password]",
            "passphrase",
            "sshPassphrase",
            "passcode",
            "otp",
            "user[otp]",
            "login_otp",
            "cvc",
            "card.cvc",
            "private_key",
            "service[privateKey]",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["", "]", "shipping", "user[shipping]", "option", "user[option]", "pins[]", "laptop", "map[]", "key"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_token_is_found_at_the_first_of_its_beginnings() {
        // What every beginning by itself says.
        let every = |value: &str| {
            let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '='));
            value
                .match_indices("eyJ")
                .any(|(at, _)| value[at..].split(is_end).next().is_some_and(|token| token.matches('.').count() >= 2))
        };
        let repeated = "eyJ".repeat(300);
        let with_dots = format!("{repeated}.{repeated}.x");
        for (value, found) in [
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", true),
            ("Bearer eyJa.b.c, eyJd", true),
            ("eyJa.b eyJc.d.e", true),
            ("eyJa.b eyJc.d", false),
            ("a.b.eyJc", false),
            ("a.b.eyJc.d", false),
            ("a.b.eyJc.d.e", true),
            ("eyJa.eyJb.eyJc", true),
            ("eyJa/b.c.d", false),
            ("\u{e9}eyJa.b.\u{e9}", true),
            (&repeated, false),
            (&with_dots, true),
            ("", false),
        ] {
            assert_eq!((has_jwt(value), every(value)), (found, found), "{value}");
        }
    }

    #[test]
    fn a_card_is_found_beside_other_numbers() {
        // Every run of whole groups by itself.
        let every = |value: &str| {
            let groups: Vec<&str> = value.split([' ', '-', '+']).filter(|group| !group.is_empty()).collect();
            (0..groups.len()).any(|from| {
                (from + 1..=groups.len()).any(|to| {
                    let digits: Vec<u32> =
                        groups[from..to].concat().chars().rev().filter_map(|c| c.to_digit(10)).collect();
                    let sum: u32 = digits
                        .iter()
                        .enumerate()
                        .map(|(place, digit)| if place % 2 == 0 { *digit } else { digit * 2 / 10 + digit * 2 % 10 })
                        .sum();
                    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
                })
            })
        };
        for (value, found) in [
            ("4111111111111111", true),
            ("4111111111111112", false),
            ("4111 1111  1111-1111", true),
            ("4111111111111111+123", true),
            ("4111-1111-1111-1111-12", true),
            ("5+4111111111111111", true),
            ("12 34 4111 1111 1111 1111 56", true),
            ("378282246310005", true),
            ("4222222222222", true),
            ("6304000000000000000", true),
            // A group is no card in part, and nothing is one with more or fewer digits.
            ("94111111111111111", false),
            ("411111111111111100000", false),
            ("000000000000", false),
            ("1 1 1 1 1 1 1 1 1 1 1 1", false),
            ("", false),
        ] {
            assert_eq!((has_card(value), every(value)), (found, found), "{value}");
        }
        assert!(has_card("n:4111111111111111+123;"));
        assert_eq!(query("n=4111111111111111%2B123"), "n=[redacted]");
        assert_eq!(text("paid 5 4111-1111-1111-1111-12 so"), "paid 5 [redacted]-12 so");
        let many = "1 ".repeat(5000);
        assert!(text(&many).len() <= many.len());
    }

    #[test]
    fn secrets_in_queries_and_paths_are_replaced() {
        let cases = [
            ("a=1&b=2", "a=1&b=2"),
            ("password=hunter2&a=1", "password=[redacted]&a=1"),
            ("access_token=abc", "access_token=[redacted]"),
            ("pass%77ord=x", "pass%77ord=[redacted]"),
            ("q=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "q=[redacted]"),
            ("n=4111+1111-1111%201111", "n=[redacted]"),
            ("n=4111111111111112", "n=4111111111111112"),
            ("next=/x%3Ftoken%3Dabc&q=1", "next=[redacted]&q=1"),
            ("q=is%20eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig%20mine", "q=[redacted]"),
            ("q=card:4111111111111111!", "q=[redacted]"),
            ("q=opal_x1234567", "q=opal_x1234567"),
            ("next=/x%3Fpage%3D2", "next=/x%3Fpage%3D2"),
            ("shipping=fast&pin=1234&api-key=x", "shipping=fast&pin=[redacted]&api-key=[redacted]"),
            ("card[cvv]=123&user%5Bpass%5D=hunter2", "card[cvv]=[redacted]&user%5Bpass%5D=[redacted]"),
            ("PHPSESSID=abc", "PHPSESSID=[redacted]"),
            ("where=%7B%22token%22:%22abc%22%7D&a=1", "where=[redacted]&a=1"),
            ("where=%7B%22title%22:%22abc%22%7D", "where=%7B%22title%22:%22abc%22%7D"),
            ("password=", "password="),
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(query(raw), shown, "{raw}");
        }
        for (raw, shown) in [
            ("/pay/4111111111111111/x", "/pay/[redacted]/x"),
            ("/login;password=correct-horse", "/login;password=[redacted]"),
            ("/x;jsessionid=0123456789abcdef/notes/7", "/x;jsessionid=[redacted]/notes/7"),
            ("/x;pin=1", "/x;pin=[redacted]"),
            ("/x;a=1;pin=1;b=2/y;otp=1", "/x;a=1;pin=[redacted];b=2/y;otp=[redacted]"),
            ("/x%3Bpin=1%3bpin=2;a=1", "/x%3Bpin=[redacted]%3bpin=[redacted];a=1"),
            ("/x;pin%3D1;pin%3d2;a%3D1", "/x;pin%3D[redacted];pin%3d[redacted];a%3D1"),
            ("/x%3Bp%69n%3D1", "/x%3Bp%69n%3D[redacted]"),
            ("/reset/token=abc", "/reset/token=[redacted]"),
            ("/login%3Fpassword=abc", "/login%3Fpassword=[redacted]"),
            ("/login%3Fa=1&password=abc", "/login%3Fa=[redacted]"),
            ("/x;next=%2Fy%3Ftoken%3Dabc", "/x;next=[redacted]"),
            ("/x;pin=a=b;a=c=d", "/x;pin=[redacted];a=c=d"),
            ("/x;q=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig;a=1", "/[redacted]"),
            ("/x;password=a/%zz;pin=%", "/x;password=[redacted]/%zz;pin=[redacted]"),
            ("/é;pin=é", "/é;pin=[redacted]"),
        ] {
            assert_eq!(path(raw), shown, "{raw}");
        }
    }

    #[test]
    fn a_path_without_a_secret_is_not_copied() {
        for ordinary in [
            "",
            "/",
            "/users/7",
            "/a/path/that/is/long/enough/to/be/looked/at",
            "/x;v=2/y",
            "/x;v=2;;=;w=/y=",
            "/x;password=",
            "/x;password",
            "/caf%C3%A9/%2e%3B%3D",
            "/x;shipping=fast%3Bview%3Dall",
        ] {
            assert!(matches!(path(ordinary), Cow::Borrowed(shown) if shown == ordinary), "{ordinary}");
        }
    }

    #[test]
    fn of_many_parameters_each_is_looked_at_once() {
        for (unit, shown) in
            [(";pin=1", ";pin=[redacted]"), ("%3Bpin%3D1", "%3Bpin%3D[redacted]"), (";;;;a=b", ";;;;a=b")]
        {
            let count = 64 * 1024 / unit.len();
            assert_eq!(path(&format!("/{}", unit.repeat(count))), format!("/{}", shown.repeat(count)));
            let parts: usize = parameters(&unit.repeat(count)).map(|(name, value)| name.len() + value.len()).sum();
            assert_eq!(parts, unit.len() * count, "{unit}");
        }
    }

    #[test]
    fn secrets_in_free_text_are_replaced() {
        let cases = [
            ("nothing here, really", "nothing here, really"),
            ("password=hunter2 user=bob", "password=[redacted] user=bob"),
            (r#"{"password": "hunter two", "a": 1}"#, r#"{"password": "[redacted]", "a": 1}"#),
            (r#""{\"api_key\": \"abc\"}""#, r#""{\"api_key\": \"[redacted]\"}""#),
            ("{'token': 'abc'}", "{'token': '[redacted]'}"),
            ("Authorization: Bearer abc.def\nHost: a", "Authorization: [redacted]\nHost: a"),
            ("authorization: Basic dTpw", "authorization: [redacted]"),
            ("settings.secret_key = 'x'", "settings.secret_key = '[redacted]'"),
            ("postgres://bob:hunter2@db/app", "postgres://bob:[redacted]@db/app"),
            ("redis://:hunter2@db:6379", "redis://:[redacted]@db:6379"),
            ("http://db/app?x@y", "http://db/app?x@y"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig!", "jwt [redacted]!"),
            ("card 4111 1111 1111 1111.", "card [redacted]."),
            ("card 4111-1111-1111-1111 12", "card [redacted] 12"),
            ("n=4111111111111111", "n=[redacted]"),
            ("key &quot;password&quot;: &quot;x y&quot;", "key &quot;password&quot;: &quot;[redacted]&quot;"),
            ("environ['DB_PASSWORD'] = 'x'", "environ['DB_PASSWORD'] = '[redacted]'"),
            ("password: \"cut off", "password: \"[redacted]"),
            ("password", "password"),
            ("shipping: fast", "shipping: fast"),
            ("ValueError: no such note", "ValueError: no such note"),
            ("  File \"/srv/main.py\", line 7, in note", "  File \"/srv/main.py\", line 7, in note"),
            ("{'password': 'hunter2', 'a': 1}", "{'password': '[redacted]', 'a': 1}"),
            ("connect postgres://u:hunter2@db/x failed", "connect postgres://u:[redacted]@db/x failed"),
            ("GET /x?token=abc HTTP/1.1", "GET /x?token=[redacted] HTTP/1.1"),
            ("got (eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig)", "got ([redacted])"),
            // What an application that prints its request says of it.
            ("GET /x?pass%77ord=a&%70in=1&q=1", "GET /x?pass%77ord=[redacted]&%70in=[redacted]&q=1"),
            ("to /login?next=%2Fx%3Fpin%3D1234 HTTP", "to /login?next=%2Fx%3Fpin%3D[redacted] HTTP"),
            ("/x;jsessionid=abc;v=1/y", "/x;jsessionid=[redacted];v=1/y"),
            ("/pay/4111%201111%201111%201111/x", "/pay/[redacted]/x"),
            ("where=%7B%22pin%22%3A%221234%22%7D", "where=%7B%22pin%22%3A%22[redacted]%22%7D"),
            (r#"["authorization", "Bearer abc"], ["a", "b"]"#, r#"["authorization", "[redacted]"], ["a", "b"]"#),
            ("[(b'authorization', b'Basic dTpw'), (b'a', b'b')]", "[(b'authorization', b'[redacted]'), (b'a', b'b')]"),
            ("(&#39;x-token&#39;, &#39;abc&#39;)", "(&#39;x-token&#39;, &#39;[redacted]&#39;)"),
            ("Cookie: theme=dark; s=abc\nHost: a", "Cookie: [redacted]\nHost: a"),
            ("{'cookie': 'theme=dark; s=abc', 'a': 1}", "{'cookie': '[redacted]', 'a': 1}"),
            ("cookie=abc path=/", "cookie=[redacted] path=/"),
            (r#""{\\&quot;pin\\&quot;:\\&quot;12\\&quot;}""#, r#""{\\&quot;pin\\&quot;:\\&quot;[redacted]\\&quot;}""#),
            (r#"{"password": "a\"b", "c": 1}"#, r#"{"password": "[redacted]", "c": 1}"#),
            (r#""{\"password\": \"a\\\"b\", \"c\": 1}""#, r#""{\"password\": \"[redacted]\", \"c\": 1}""#),
            // Names in a list are no values.
            (
                r#"{"loc": ["body", "password"], "msg": "missing"}"#,
                r#"{"loc": ["body", "password"], "msg": "missing"}"#,
            ),
            ("('body', 'password'), 'msg'", "('body', 'password'), 'msg'"),
            ("password, name", "password, name"),
            ("100%25 of %C3%A9", "100%25 of %C3%A9"),
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(text(raw), shown, "{raw}");
        }
        for odd in [
            "é=é",
            "password=é",
            "token:",
            "a://",
            "password='",
            "4é",
            "-",
            ".",
            "://@",
            "x://a:b@",
            "%",
            "%2",
            "%é",
            "pin%",
            "pin%3",
            "pin', b",
            "cookie:é",
            "4%2",
        ] {
            let _ = text(odd);
        }
    }
}
