//! What a message must not show: passwords in URLs, and values beside names that sound secret.

use std::ops::Range;

/// What stands where a secret stood.
pub(crate) const REDACTED: &str = "[redacted]";

/// The password parts of `scheme://user:password@host` in a text.
pub(crate) fn url_passwords(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        let rest = &text[start..];
        // The authority ends at the first of these; a password with a raw `/` or `?` is no valid URL, but may still be
        // one that somebody typed, so the last `@` before white space or a quote counts.
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')).unwrap_or(rest.len());
        let Some(user_end) = rest[..end].rfind('@') else { continue };
        // `https://host/path?mail=a@b`: an `@` after the first `/` belongs to the authority only if a `:` stands before.
        let Some(colon) = rest[..user_end].find(':') else { continue };
        if rest[..colon].contains(['/', '?', '#']) {
            continue;
        }
        if found.last().is_some_and(|last: &Range<usize>| last.end > start) {
            continue;
        }
        if colon + 1 < user_end {
            found.push(start + colon + 1..start + user_end);
        }
    }
    found
}

/// A text without the passwords of its URLs.
pub(crate) fn without_url_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for range in url_passwords(text) {
        out.push_str(&text[from..range.start]);
        out.push_str(REDACTED);
        from = range.end;
    }
    out.push_str(&text[from..]);
    out
}

/// Whether a key's name says that its value is secret.
pub(crate) fn sounds_secret(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    const WORDS: [&str; 15] = [
        "password",
        "passwd",
        "passphrase",
        "pasword",
        "passwort",
        "secret",
        "token",
        "credential",
        "apikey",
        "privatekey",
        "pepper",
        "salt",
        "bearer",
        "authorization",
        "cookie",
    ];
    WORDS.iter().any(|word| key.contains(word))
        || ["key", "pass", "pw", "pwd", "pin", "auth"].contains(&key.as_str())
        || key.ends_with("key")
}

/// In a text that could not be parsed: what follows the `=` of names that sound secret, as far as it reaches into a line.
/// Without a parser a value ends where the line does; a value of several lines is recognised by the name above it.
pub(crate) fn guessed_secrets(text: &str, line: Range<usize>) -> Vec<Range<usize>> {
    let Some(content) = text.get(line.clone()) else { return Vec::new() };
    let mut found = Vec::new();
    for (at, _) in content.match_indices(['=', ':']) {
        let name = content[..at].trim_end().trim_end_matches(['"', '\'']);
        let name_start = name
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
        if sounds_secret_path(&name[name_start..]) {
            let value = at + 1;
            let rest = &content[value..];
            let start = value + (rest.len() - rest.trim_start().len());
            // Switches are no secrets, and seeing them helps.
            let plain = ["true", "false", "yes", "no", "on", "off", "null", "True", "False"];
            if start < content.len() && !plain.contains(&content[start..].trim_end()) {
                found.push(line.start + start..line.end);
            }
            return found;
        }
    }
    // A line of a text that began above: look for the name it belongs to.
    let continues = content.find('=').is_none_or(|at| !looks_like_key(&content[..at]));
    if continues && !content.trim_start().starts_with('[') && !content.trim().is_empty() {
        for above in text.get(..line.start).unwrap_or("").lines().rev().take(200) {
            let Some((name, _)) = above.split_once('=') else { continue };
            if !looks_like_key(name) {
                continue;
            }
            if sounds_secret_path(name.trim().trim_matches(['"', '\''])) {
                found.push(line);
            }
            break;
        }
    }
    found
}

fn sounds_secret_path(name: &str) -> bool {
    sounds_secret(name.rsplit('.').next().unwrap_or(name))
}

fn looks_like_key(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_hidden() {
        for (text, shown) in [
            ("postgres://app:hunter2@db/x", "postgres://app:[redacted]@db/x"),
            ("url = \"redis://:p@ss@h\" # x://y:z@w", "url = \"redis://:[redacted]@h\" # x://y:[redacted]@w"),
            ("https://app.example.com:8443/a@b", "https://app.example.com:[redacted]@b"),
            ("https://host/path?mail=a@b", "https://host/path?mail=a@b"),
            ("https://user@host", "https://user@host"),
            ("http://u:p/w?x@h", "http://u:[redacted]@h"),
            ("no url", "no url"),
            ("a://b:c@d://e:f@g", "a://b:[redacted]@g"),
        ] {
            assert_eq!(without_url_passwords(text), shown, "{text}");
        }
    }

    #[test]
    fn names_that_sound_secret() {
        for name in ["password", "admin_token", "client-secret", "apiKey", "redis.password", "signing_key", "pass"] {
            assert!(sounds_secret(name), "{name}");
        }
        for name in ["origins", "path", "max_age", "passthrough", "keys_path", "author"] {
            assert!(!sounds_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_in_broken_text() {
        for (text, offset, hidden) in [
            ("password = \"hunter2", 0, Some("\"hunter2")),
            ("a.token=hunter2 # c", 0, Some("hunter2 # c")),
            ("x = { secret = \"name\" ", 0, Some("\"name\" ")),
            ("key = \"\"\"\nhunter2\n\"\"\"", 10, Some("hunter2")),
            ("origins = [1\nhunter", 14, None),
            ("mode = blok", 0, None),
            ("password", 0, None),
            ("password =", 0, None),
        ] {
            let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
            let end = text[offset..].find('\n').map_or(text.len(), |at| at + offset);
            let found = guessed_secrets(text, start..end);
            assert_eq!(found.first().map(|range| &text[range.clone()]), hidden, "{text}");
        }
    }
}
