//! Which passwords may be set. Asked when one is set, never at login.

use std::fmt;

use palisade_base::Secret;

use super::breached::Breached;
use super::{Password, common};

/// The shortest length that may be demanded, in characters (NIST 800-63B-4 section 3.1.1.2).
const LEAST_LENGTH: usize = 8;

/// What is wrong with a password that somebody wants to set. Its code is public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weakness {
    /// Too few characters.
    Short,
    /// In the list of common passwords.
    Common,
    /// In the operator's list of breached passwords.
    Breached,
    /// Little more than the user's or the service's name.
    Context,
    /// Guessable: few words, a keyboard walk, a repetition, a date.
    Weak,
    /// Control characters, NUL among them: forms and terminals change or drop them.
    Control,
}

impl Weakness {
    /// Its code, which clients may rely on.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Short => "password.short",
            Self::Common => "password.common",
            Self::Breached => "password.breached",
            Self::Context => "password.context",
            Self::Weak => "password.weak",
            Self::Control => "password.control",
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the password is too short",
            Self::Common => "this password is one of the most common ones",
            Self::Breached => "this password is known from a breach",
            Self::Context => "without the names in it, the password is too short",
            Self::Weak => "the password is easy to guess",
            Self::Control => "the password holds control characters",
        })
    }
}

/// The rules for new passwords: length, lists, names, strength. No composition rules, no expiry (NIST 800-63B-4).
#[derive(Debug)]
pub struct Policy {
    min_length: usize,
    min_score: u8,
    breached: Option<Breached>,
    service: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { min_length: 12, min_score: 3, breached: None, service: Vec::new() }
    }
}

impl Policy {
    /// At least so many characters; never under 8.
    #[must_use]
    pub fn min_length(mut self, characters: usize) -> Self {
        self.min_length = characters.max(LEAST_LENGTH);
        self
    }

    /// The least score of zxcvbn, 0 to 4; 3, the default, is 10⁸ guesses.
    #[must_use]
    pub fn min_score(mut self, score: u8) -> Self {
        self.min_score = score.min(4);
        self
    }

    /// A larger list beside the one inside.
    #[must_use]
    pub fn breached(mut self, list: Breached) -> Self {
        self.breached = Some(list);
        self
    }

    /// Names of the service: its hosts, its brand.
    #[must_use]
    pub fn service(mut self, names: impl IntoIterator<Item: AsRef<str>>) -> Self {
        self.service = words(names);
        self
    }

    /// Judges a password for a user of these names (username, e-mail address, given names). Takes milliseconds for a
    /// long one; belongs into the [pool](super::pool), before the hash.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn check(&self, password: &Password, names: &[&str]) -> Result<(), Vec<Weakness>> {
        let text = password.normal();
        let lower = Secret::new(text.to_lowercase());
        let lower = lower.expose();
        let mut found = Vec::new();
        if text.chars().count() < self.min_length {
            found.push(Weakness::Short);
        }
        if text.chars().any(char::is_control) {
            found.push(Weakness::Control);
        }
        if common::contains(lower) {
            found.push(Weakness::Common);
        }
        // A list that cannot be read must not keep everybody from setting a password: the other rules hold.
        let in_list = |list: &Breached| {
            [text, password.typed(), lower].into_iter().any(|spelling| list.contains(spelling).unwrap_or(false))
        };
        if self.breached.as_ref().is_some_and(in_list) {
            found.push(Weakness::Breached);
        }
        let mut context = words(names);
        context.extend(self.service.iter().cloned());
        // The longest first, so that a name inside another does not leave its rest.
        context.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let mut rest = Secret::new(lower.clone());
        for word in &context {
            if rest.expose().contains(word.as_str()) {
                rest = Secret::new(rest.expose().replace(word.as_str(), ""));
            }
        }
        let without = rest.expose().chars().count();
        if without < self.min_length && rest.expose() != lower && !found.contains(&Weakness::Short) {
            found.push(Weakness::Context);
        }
        let known: Vec<&str> = context.iter().map(String::as_str).collect();
        if u8::from(zxcvbn::zxcvbn(text, &known).score()) < self.min_score {
            found.push(Weakness::Weak);
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

/// Names as the words they are made of: whole, and the parts of addresses and hosts; from four characters on.
fn words(names: impl IntoIterator<Item: AsRef<str>>) -> Vec<String> {
    let mut words = Vec::new();
    for name in names {
        // A name is a stranger's text too.
        let name: String = name.as_ref().chars().take(256).collect::<String>().to_lowercase();
        let parts = name.split(|c: char| !c.is_alphanumeric()).map(Into::into);
        words.extend(parts.chain([name.clone()]).filter(|word: &String| word.chars().count() >= 4));
    }
    words.sort();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Weakness::{Common, Context, Control, Short, Weak};
        let policy = Policy::default().service(["api.example-shop.com"]);
        let cases: [(&str, &[Weakness]); 19] = [
            ("correct horse battery staple", &[]),
            ("ich mag grüne Äpfel im Mai", &[]),
            ("zj3$Kx!9vQ2m", &[]),
            ("密码应该很长才安全可靠哦", &[]),
            ("", &[Short, Weak]),
            ("zj3$Kx!9vQ2", &[Short]),
            ("1234567890-=", &[Common, Weak]),
            ("PASSWORD1234", &[Common, Weak]),
            ("\u{ff30}assword1234", &[Common, Weak]),
            ("aaaaaaaaaaaaaaaaaaaa", &[Weak]),
            ("qwertyuiopasdf", &[Weak]),
            ("P@ssw0rd2024!", &[Weak]),
            ("abcabcabcabcabc", &[Weak]),
            ("marymary1987x", &[Context, Weak]),
            ("Mary.Contrary!7Kq", &[Context]),
            ("example-shop zK9!vQ", &[Context]),
            ("mary likes long walks on tuesdays", &[]),
            ("zj3$Kx!9vQ2m\0", &[Control]),
            ("zj3$Kx!9\tvQ2mm", &[Control]),
        ];
        for (text, expected) in cases {
            let password = Password::new(text).expect("short enough");
            let verdict = policy.check(&password, &["mary", "mary.contrary@mail.example"]);
            let mut found = verdict.err().unwrap_or_default();
            // zxcvbn's opinion of what is refused anyway is not the point here.
            if expected.first().is_some_and(|first| matches!(first, Context | Control)) && !expected.contains(&Weak) {
                found.retain(|weakness| *weakness != Weak);
            }
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn long_ones_pass() {
        let words = "many different words that nobody says in this order ";
        let long: String = words.chars().cycle().take(5_000).collect();
        assert_eq!(Policy::default().check(&Password::new(&long).expect("short enough"), &["u"]), Ok(()));
    }

    #[test]
    fn a_larger_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        std::fs::write(&path, "correct horse battery staple\n").expect("written");
        let policy = Policy::default().breached(Breached::open(&path).expect("a list"));
        let check = |text: &str| policy.check(&Password::new(text).expect("short enough"), &[]);
        assert_eq!(check("correct horse battery staple"), Err(vec![Weakness::Breached]));
        assert_eq!(check("Correct Horse Battery Staple"), Err(vec![Weakness::Breached]));
        assert_eq!(check("correct horse battery stapler"), Ok(()));
    }

    #[test]
    fn length_has_a_floor() {
        let policy = Policy::default().min_length(1).min_score(0);
        assert_eq!(policy.check(&Password::new("zj3$Kx!").expect("short enough"), &[]), Err(vec![Weakness::Short]));
    }
}
