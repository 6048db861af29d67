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

const WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "secret",
    "token",
    "credential",
    "apikey",
    "privatekey",
    "pepper",
    "bearer",
    "authorization",
    "cookie",
];

/// Whether a key's name says that its value is secret.
pub(crate) fn sounds_secret(key: &str) -> bool {
    let key: String = letters(key).map(|(_, c)| c).collect();
    WORDS.iter().any(|word| key.contains(word))
        || ["pass", "pw", "pwd", "pin", "auth", "salt"].contains(&key.as_str())
        || key.ends_with("key")
}

/// Like [`sounds_secret`], with room for a mistake in the name.
pub(crate) fn resembles_secret(key: &str) -> bool {
    sounds_secret(key) || after_secret_word(key).is_some()
}

/// What to hide in a line of a text that could not be parsed. Nobody knows what is a name and what a value there, so this
/// hides too much rather than too little: all that follows a word that could be meant to name a secret, and what could be
/// a URL with a password.
pub(crate) fn guessed_secret(text: &str, line: Range<usize>) -> Option<Range<usize>> {
    let content = text.get(line.clone())?;
    let above = text.get(..line.start)?;
    let starts = [value_of_secret(content), password_of_broken_url(content), value_of_cut_name(above, content)];
    if let Some(start) = starts.into_iter().flatten().min() {
        // Switches are no secrets, and seeing them helps; without letters there is nothing to hide.
        let value = content[start..].trim_matches(|c: char| !c.is_alphanumeric());
        let plain = ["", "true", "false", "yes", "no", "on", "off", "null", "True", "False"];
        return (!plain.contains(&value)).then_some(line.start + start..line.end);
    }
    if content.contains('@') && !content.contains('=') {
        return Some(line); // the rest of a URL that a line end cut
    }
    // A line of a text that began above: look for the name it belongs to.
    let continues = content.find('=').is_none_or(|at| !looks_like_key(&content[..at]));
    if continues && !content.trim().is_empty() && !content.trim_start().starts_with('[') {
        for above in above.lines().rev().take(200) {
            if value_of_secret(above).is_some() {
                return Some(line);
            }
            let begins = above.split_once('=').is_some_and(|(name, _)| looks_like_key(name));
            if begins || above.trim_start().starts_with('[') {
                break;
            }
        }
    }
    None
}

/// A name that a line end cut in two: `admin_to`, `ken = "…"`.
fn value_of_cut_name(above: &str, line: &str) -> Option<usize> {
    let name = above.trim_end().rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next()?;
    value_of_secret(&format!("{name}{line}")).map(|start| start.saturating_sub(name.len()))
}

/// In a comment behind a value, which may be a line that somebody took out: from the name that sounds secret to the end.
pub(crate) fn secret_in_comment(line: &str) -> Option<Range<usize>> {
    let hash = line.find('#')?;
    value_of_secret(&line[hash..]).map(|start| hash + start..line.len())
}

/// Where what follows the first word that could name a secret begins.
fn value_of_secret(line: &str) -> Option<usize> {
    let named = line.match_indices(['=', ':']).find_map(|(at, _)| {
        let name = line[..at].trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        let start =
            name.rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\''))).map_or(0, |at| at + 1);
        name.get(start..).is_some_and(sounds_secret).then_some(at + 1)
    });
    let end = [named, after_secret_word(line)].into_iter().flatten().min()?;
    // What stands between the name and its value may be seen, but for the quote that opens the value.
    let rest = &line[end..];
    let unquoted = rest.strip_prefix(['"', '\'']).filter(|rest| rest.trim_start().starts_with(['=', ':']));
    let rest = unquoted.unwrap_or(rest).trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '=' | ':'));
    Some(line.len() - rest.len())
}

/// The end of the first thing in a text that is one of the words, but for one letter or for signs between the letters.
fn after_secret_word(text: &str) -> Option<usize> {
    let letters: Vec<(usize, char)> = letters(text).take(5000).collect();
    let plain: String = letters.iter().map(|(_, c)| *c).collect();
    // One mistake leaves one half of the word as it is, which most texts have neither of.
    let halves = |word: &str| {
        let (first, second) = word.split_at(word.len() / 2);
        plain.contains(first) || plain.contains(second)
    };
    let words: Vec<&str> = WORDS.into_iter().filter(|word| halves(word)).collect();
    if words.is_empty() {
        return None;
    }
    for start in 0..letters.len() {
        let mut best: Option<(usize, usize)> = None;
        for word in &words {
            for length in word.len() - 1..=word.len() + 1 {
                let Some(window) = letters.get(start..start + length) else { continue };
                let window_text: String = window.iter().map(|(_, c)| *c).collect();
                let distance = strsim::osa_distance(&window_text, word);
                if distance <= 1 {
                    let end = window.last().map_or(0, |(at, c)| at + c.len_utf8());
                    best = Some(best.map_or((distance, end), |best| best.min((distance, end))));
                }
            }
        }
        if let Some((_, end)) = best {
            // A name goes on to its last letter: `passwords`, `token_file`.
            let rest = text[end..].trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
            return Some(text.len() - rest.len());
        }
    }
    None
}

/// Letters and digits with their places, in lower case.
fn letters(text: &str) -> impl Iterator<Item = (usize, char)> {
    text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, c)| (at, c.to_ascii_lowercase()))
}

/// In a broken text: a `:` with an `@` behind it, or with something that is no port.
fn password_of_broken_url(line: &str) -> Option<usize> {
    let value = line.find('=').map_or(0, |at| at + 1);
    let colon = line[value..].find(':').map(|at| value + at)?;
    if line[colon..].contains('@') {
        return Some(colon + 1);
    }
    let host = line.find("://")? + 3;
    let port = host + line[host..].find(':')? + 1;
    let digits = line[port..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
    (!digits.is_empty() && !digits.bytes().all(|b| b.is_ascii_digit())).then_some(port)
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
            ("passwrd = \"hunter2", 0, Some("\"hunter2")),
            ("hunter2@db\"", 0, Some("hunter2@db\"")),
            ("password = \"hunter2", 0, Some("\"hunter2")),
            ("a.token=hunter2 # c", 0, Some("hunter2 # c")),
            ("adminto\"ken=hunter2", 0, Some("hunter2")),
            ("admin_oken=hunter2", 0, Some("hunter2")),
            ("url = \"redis:/:hunter2@h", 0, Some("/:hunter2@h")),
            ("url = \"redis://u:hunter2\"h", 0, Some("hunter2\"h")),
            ("url = \"redis://u:6379/\"h", 0, None),
            ("x = { secret = \"name\" ", 0, Some("\"name\" ")),
            ("key = \"\"\"\nhunter2\n\"\"\"", 10, Some("hunter2")),
            ("origins = [1\nhunter", 14, None),
            ("mode = blok", 0, None),
            ("password", 0, None),
            ("password hunter2", 0, Some("hunter2")),
            ("{ a = 1, \"token\" : 'hunter2", 0, Some("'hunter2")),
            ("credentials: true", 0, None),
            ("[auth.token", 0, None),
            ("password =", 0, None),
        ] {
            let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
            let end = text[offset..].find('\n').map_or(text.len(), |at| at + offset);
            let found = guessed_secret(text, start..end);
            assert_eq!(found.map(|range| &text[range]), hidden, "{text}");
        }
    }
}
