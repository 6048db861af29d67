//! What must not stand in a log: tokens, passwords and cards, wherever a client put them.
//!
//! CWE-532. Names decide first (`password=…`), then the shape of the value (a JWT, a card number).

use std::borrow::Cow;

const REDACTED: &str = "[redacted]";

/// Words that make a name a secret's, compared in lower case without `-` and `_`.
const SECRET_NAMES: [&str; 20] = [
    "password",
    "passwd",
    "pwd",
    "pass",
    "secret",
    "token",
    "apikey",
    "accesskey",
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
    "pin",
    "credential",
];

/// Whether a query key, header or field of this name holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
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

/// A query with the values of secrets replaced.
pub(crate) fn query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret_pair) {
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

/// A line that an application printed, with what looks like a secret replaced: the value after a secret's name, passwords
/// in URLs, tokens and cards.
pub(crate) fn text(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut secret_next = false;
    for (place, word) in line.split(' ').enumerate() {
        if place > 0 {
            out.push(' ');
        }
        if word.is_empty() {
            continue;
        }
        if std::mem::take(&mut secret_next) {
            // `Authorization: Bearer …`: the scheme is none.
            if ["bearer", "basic", "token", "digest"].contains(&word.to_ascii_lowercase().as_str()) {
                secret_next = true;
                out.push_str(word);
            } else {
                out.push_str(REDACTED);
            }
            continue;
        }
        secret_next = self::word(word, &mut out);
    }
    out
}

/// Appends a word without its secrets; true when the next word is the secret of this one's name.
fn word(word: &str, out: &mut String) -> bool {
    if let Some((before, rest)) = word.split_once("://")
        && let Some((_, after)) = rest.rsplit_once('@')
    {
        out.extend([before, "://", REDACTED, "@", after]);
        return false;
    }
    let bare = |text: &str| text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    if let Some(end) = word.find(['=', ':'])
        && is_secret_name(&bare(word[..end].rsplit(['?', '&', '{', '(', ',', ';']).next().unwrap_or_default()))
    {
        let (name, value) = word.split_at(end + 1);
        out.push_str(name);
        // `"password": "…"` has its value in the next word.
        if bare(value).is_empty() {
            out.push_str(value);
            return true;
        }
        out.push_str(REDACTED);
        return false;
    }
    out.push_str(if is_secret_value(&bare(word)) { REDACTED } else { word });
    false
}

fn is_secret_pair(pair: &str) -> bool {
    match pair.split_once('=') {
        Some((name, value)) => !value.is_empty() && (is_secret_name(&decode(name)) || is_secret_value(&decode(value))),
        None => is_secret_value(&decode(pair)),
    }
}

/// A path with segments that look like secrets replaced.
pub(crate) fn path(path: &str) -> Cow<'_, str> {
    if !path.split('/').any(|segment| is_secret_value(&decode(segment))) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> =
        path.split('/').map(|segment| if is_secret_value(&decode(segment)) { REDACTED } else { segment }).collect();
    Cow::Owned(segments.join("/"))
}

/// Whether a value looks like a secret by itself: a JWT, one of our API keys, a payment card.
pub(crate) fn is_secret_value(value: &str) -> bool {
    value.len() >= 12 && (is_jwt(value) || value.starts_with("pal_") || is_card(value))
}

fn is_jwt(value: &str) -> bool {
    let value = value.strip_prefix("Bearer ").unwrap_or(value);
    value.starts_with("eyJ") && value.split('.').count() >= 3
}

/// 13 to 19 digits, blanks and hyphens between them allowed, that pass Luhn's check.
fn is_card(value: &str) -> bool {
    let mut digits = 0_u32;
    let mut sum = 0;
    for byte in value.bytes().rev() {
        match byte {
            b'0'..=b'9' => {
                let digit = u32::from(byte - b'0');
                let doubled = if digits % 2 == 1 { digit * 2 } else { digit };
                sum += doubled / 10 + doubled % 10;
                digits += 1;
            }
            b' ' | b'-' | b'+' => {}
            _ => return false,
        }
    }
    (13..=19).contains(&digits) && sum % 10 == 0
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
    fn secrets_in_queries_and_paths_are_replaced() {
        let cases = [
            ("a=1&b=2", "a=1&b=2"),
            ("password=hunter2&a=1", "password=[redacted]&a=1"),
            ("access_token=abc", "access_token=[redacted]"),
            ("pass%77ord=x", "pass%77ord=[redacted]"),
            ("q=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "q=[redacted]"),
            ("n=4111+1111-1111%201111", "n=[redacted]"),
            ("n=4111111111111112", "n=4111111111111112"),
            ("shipping=fast&pin=1234&api-key=x", "shipping=fast&pin=[redacted]&api-key=[redacted]"),
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
    fn secrets_in_printed_lines_are_replaced() {
        let cases = [
            ("ValueError: no such note", "ValueError: no such note"),
            ("  File \"/srv/main.py\", line 7, in note", "  File \"/srv/main.py\", line 7, in note"),
            ("password=hunter2 for alice", "password=[redacted] for alice"),
            ("{'password': 'hunter2', 'a': 1}", "{'password': [redacted] 'a': 1}"),
            ("connect postgres://u:hunter2@db/x failed", "connect postgres://[redacted]@db/x failed"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("GET /x?token=abc HTTP/1.1", "GET /x?token=[redacted] HTTP/1.1"),
            ("got (eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig)", "got [redacted]"),
            ("", ""),
        ];
        for (raw, shown) in cases {
            assert_eq!(text(raw), shown, "{raw}");
        }
    }
}
