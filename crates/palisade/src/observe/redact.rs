//! What must not stand in a log: tokens, passwords and cards, wherever a client put them.
//!
//! CWE-532. Names decide first (`password=…`), then the shape of the value (a JWT, a card number).

use std::borrow::Cow;

const REDACTED: &str = "[redacted]";

/// Words that make a name a secret's, compared in lower case without `-` and `_`.
const SECRET_NAMES: [&str; 25] = [
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

/// Whether a value is a secret or, as an address to go on to, has one in a query of its own.
fn holds_secret(value: &str) -> bool {
    let nested = |part: &str| {
        let Some((name, value)) = part.split_once('=') else { return false };
        !value.is_empty() && (is_secret_name(name) || is_secret_value(&decode(value)))
    };
    is_secret_value(value) || (value.contains('=') && value.split(['?', '&', '#', ';']).any(nested))
}

/// A path with segments that look like secrets replaced.
pub(crate) fn path(path: &str) -> Cow<'_, str> {
    if path.len() < SHORTEST || !path.split('/').any(|segment| is_secret_value(&decode(segment))) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> =
        path.split('/').map(|segment| if is_secret_value(&decode(segment)) { REDACTED } else { segment }).collect();
    Cow::Owned(segments.join("/"))
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
        .any(|at| card(&bytes[at..], usize::MAX, |byte| matches!(byte, b' ' | b'-' | b'+')).is_some())
}

/// The length of the longest card at the start of a text, where it ends within `widest` bytes: 13 to 19 digits in whole
/// groups that pass Luhn's check, with nothing but what is `between` digits between them.
fn card(text: &[u8], widest: usize, between: impl Fn(u8) -> bool) -> Option<usize> {
    let mut digits = 0_u32;
    // Luhn's sum of the digits so far, and what it is with one more digit behind them: which are doubled alternates.
    let (mut sum, mut next) = (0_u32, 0_u32);
    let mut longest = None;
    for (place, byte) in text.iter().copied().enumerate().take(widest) {
        if !byte.is_ascii_digit() {
            if between(byte) {
                continue;
            }
            break;
        }
        digits += 1;
        if digits > 19 {
            break;
        }
        let digit = u32::from(byte - b'0');
        let doubled = digit * 2;
        (sum, next) = (next + digit, sum + doubled / 10 + doubled % 10);
        let is_end = !text.get(place + 1).is_some_and(u8::is_ascii_digit);
        if is_end && digits >= 13 && sum.is_multiple_of(10) {
            longest = Some(place + 1);
        }
    }
    longest
}

/// Free text, such as an error page: the values behind names of secrets (`password=…`, `"token": "…"`,
/// `Authorization: Bearer …`), passwords in URLs, and words that look like a secret are replaced.
pub(crate) fn text(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let gap = rest.find(is_word).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
        if let Some(length) = spaced_card(rest) {
            out.push_str(REDACTED);
            rest = &rest[length..];
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        if word.is_empty() {
            continue;
        }
        if is_secret_value(word) {
            out.push_str(REDACTED);
            continue;
        }
        out.push_str(word);
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
        let last = word.rsplit('.').next().unwrap_or(word);
        if is_secret_name(last)
            && let Some((between, value)) = assigned(rest)
            && !is_status(last, &rest[between..between + value])
        {
            out.push_str(&rest[..between]);
            out.push_str(REDACTED);
            rest = &rest[between + value..];
        }
    }
    out
}

/// `code: 500` and `exit code: 137` are what somebody looks for in a log; a code that lets somebody in is longer.
fn is_status(name: &str, value: &str) -> bool {
    name.to_ascii_lowercase().ends_with("code") && value.len() <= 3 && value.bytes().all(|b| b.is_ascii_digit())
}

/// Behind a name: the length of what joins it to a value (`=`, `": "`, `%3D`), and of the value, where there is one.
fn assigned(text: &str) -> Option<(usize, usize)> {
    let quote = |c: char| matches!(c, '"' | '\'' | '\\' | ']');
    let behind_name = text.trim_start_matches(quote).trim_start_matches([' ', '\t']);
    let joint = ["=>", "&#34;:", "&quot;:", "&#x27;:", "==", "=", ":", "%3D", "%3d"]
        .into_iter()
        .find(|j| behind_name.starts_with(j))?;
    let mut value = behind_name[joint.len()..].trim_start_matches([' ', '\t']);
    let mut closing = None;
    for opening in ["\\\"", "\\'", "\"", "'", "&#34;", "&quot;", "&#x27;"] {
        if let Some(inner) = value.strip_prefix(opening) {
            closing = Some(opening);
            value = inner;
            break;
        }
    }
    let mut length = match closing {
        // To its end, wherever that is; a text cut off in a secret is a secret to its end.
        Some(closing) => value.find(closing).unwrap_or(value.len()),
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
    card(text.as_bytes(), WIDEST, |byte| matches!(byte, b' ' | b'-'))
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (byte, digit(place + 1), digit(place + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                place += 3;
            }
            _ => {
                out.push(byte);
                place += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
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
            ("password=", "password="),
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(query(raw), shown, "{raw}");
        }
        assert_eq!(path("/pay/4111111111111111/x"), "/pay/[redacted]/x");
        assert_eq!(path("/users/7"), "/users/7");
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
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(text(raw), shown, "{raw}");
        }
        for odd in ["é=é", "password=é", "token:", "a://", "password='", "4é", "-", ".", "://@", "x://a:b@"] {
            let _ = text(odd);
        }
    }
}
