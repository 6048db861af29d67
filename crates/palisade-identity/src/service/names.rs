//! Names and e-mail addresses in the one form in which they are compared.
//!
//! Sources: RFC 8265 section 3.3 (PRECIS UsernameCaseMapped), RFC 8264, UTS 39 (which characters identifiers hold, mixed
//! scripts). The form is made here, not in the database: SQLite and PostgreSQL fold case differently.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::{GeneralSecurityProfile as _, MixedScript as _};

/// The longest name, in bytes of its canonical form. It becomes a header and a log field.
const MAX_NAME_BYTES: usize = 128;
/// The longest address (RFC 5321 section 4.5.3.1.3, less the angle brackets).
const MAX_EMAIL_BYTES: usize = 254;
/// The longest part before the `@` (RFC 5321 section 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadName {
    /// Empty, or nothing is left of it.
    #[error("a name has at least one character")]
    Empty,
    /// Too long.
    #[error("a name has at most {MAX_NAME_BYTES} bytes")]
    Long,
    /// A space, a control, a symbol, an invisible character.
    #[error("a name holds letters, digits and the visible signs of ASCII, without spaces")]
    Character,
    /// Letters of several scripts, which look alike.
    #[error("a name holds letters of one script")]
    MixedScripts,
    /// An `@`: only an account's own e-mail address may be its name.
    #[error("a name with `@` has to be the e-mail address of the account")]
    At,
}

/// Why a text is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no e-mail address")]
pub struct BadEmail;

/// The name of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    shown: String,
    key: String,
}

impl Name {
    /// Reads a name. `shown` keeps the case in which it was typed, `key` is what is compared.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if text.len() > MAX_NAME_BYTES * 4 {
            return Err(BadName::Long);
        }
        // RFC 8265 section 3.3.1, in its order: width, (additional: none), case, normalisation, directionality.
        let wide: String = text.chars().flat_map(narrow).collect();
        let key: String = wide.to_lowercase().nfc().collect();
        if key.is_empty() {
            return Err(BadName::Empty);
        }
        if key.len() > MAX_NAME_BYTES {
            return Err(BadName::Long);
        }
        if !key.chars().all(is_allowed) || !has_one_direction(&key) {
            return Err(BadName::Character);
        }
        if !letters(&key).as_str().is_single_script() {
            return Err(BadName::MixedScripts);
        }
        Ok(Self { shown: wide.nfc().collect(), key })
    }

    /// As it was typed.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// As it is compared.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether only an e-mail address may be written so.
    pub fn has_at(&self) -> bool {
        self.key.contains('@')
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// An e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    shown: String,
    key: String,
}

impl Email {
    /// Reads an address: `local@domain`, without a display name, comments, quotes or an address literal. The domain is
    /// compared in ASCII, the local part without regard to case: two accounts of addresses that differ in case only are
    /// two people who get each other's mail.
    ///
    /// # Errors
    /// [`BadEmail`].
    pub fn parse(text: &str) -> Result<Self, BadEmail> {
        if text.len() > MAX_EMAIL_BYTES {
            return Err(BadEmail);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(BadEmail)?;
        let key_local: String = local.chars().flat_map(narrow).collect::<String>().to_lowercase().nfc().collect();
        let dots = key_local.starts_with('.') || key_local.ends_with('.') || key_local.contains("..");
        let fits = |c: char| {
            c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && is_allowed(c))
        };
        if key_local.is_empty() || key_local.len() > MAX_LOCAL_BYTES || dots || !key_local.chars().all(fits) {
            return Err(BadEmail);
        }
        if !has_one_direction(&key_local) || !letters(&key_local).as_str().is_single_script() {
            return Err(BadEmail);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| BadEmail)?;
        // A name of one label is an address inside a house; `localhost` and the like occur in development.
        if domain.is_empty() || domain.ends_with('.') || domain.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(BadEmail);
        }
        let key = format!("{key_local}@{domain}");
        if key.len() > MAX_EMAIL_BYTES {
            return Err(BadEmail);
        }
        Ok(Self { shown: format!("{}@{domain}", local.nfc().collect::<String>()), key })
    }

    /// As it was typed, the domain in ASCII: where mail goes.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// As it is compared.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What somebody typed to say who they are: a name or an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identifier {
    Name(String),
    Email(String),
    /// Neither: nobody's. The text under which attempts are counted.
    Nobody(String),
}

impl Identifier {
    pub(super) fn parse(text: &str) -> Self {
        if text.contains(['@', '\u{ff20}']) {
            let narrowed: String = text.chars().take(MAX_EMAIL_BYTES * 2).flat_map(narrow).collect();
            if let Ok(email) = Email::parse(&narrowed) {
                return Self::Email(email.key);
            }
        } else if let Ok(name) = Name::parse(text) {
            return Self::Name(name.key);
        }
        Self::Nobody(text.chars().take(MAX_EMAIL_BYTES).flat_map(char::to_lowercase).collect())
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Email(text) | Self::Nobody(text) => text,
        }
    }
}

/// RFC 8264 section 5.2.1: full-width and half-width characters are what they decompose to. All of them are here.
fn narrow(c: char) -> impl Iterator<Item = char> {
    let wide = matches!(c, '\u{ff01}'..='\u{ffee}' | '\u{3000}');
    let (mapped, kept) = if wide { (Some(std::iter::once(c).nfkc()), None) } else { (None, Some(c)) };
    mapped.into_iter().flatten().chain(kept)
}

/// The identifier class of RFC 8264 section 4.2: visible ASCII, and beyond it what UTS 39 allows in identifiers, which is
/// narrower (no compatibility characters, no obsolete scripts, nothing invisible).
fn is_allowed(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_graphic() } else { c.identifier_allowed() && c.is_alphanumeric() || is_mark(c) }
}

/// Marks that stay behind a letter after composition, as in Hindi or Thai.
fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.identifier_allowed() && unicode_normalization::char::is_combining_mark(c)
}

/// What has a script: signs and digits of ASCII go with any.
fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii() || c.is_ascii_alphabetic()).collect()
}

/// RFC 5893 as far as it matters: letters that run right to left never stand beside letters that run left to right, so
/// that a name is read in the order in which it is compared. ASCII letters are the only ones that scripts share a name
/// with; all others are kept apart by the rule of one script.
fn has_one_direction(text: &str) -> bool {
    let right_to_left = |c: char| matches!(u32::from(c), 0x0590..=0x08ff | 0xfb1d..=0xfdff | 0xfe70..=0xfeff | 0x1_0800..=0x1_0fff | 0x1_e800..=0x1_efff);
    if !text.chars().any(right_to_left) {
        return true;
    }
    let first = text.chars().next().is_some_and(right_to_left);
    first && !text.chars().any(|c| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<String, BadName> {
        Name::parse(text).map(|name| name.key)
    }

    #[test]
    fn names_that_meet() {
        for (a, b) in [
            ("Alice", "alice"),
            ("ADMIN", "admin"),
            ("\u{ff21}\u{ff24}\u{ff2d}\u{ff29}\u{ff2e}", "admin"),
            ("cafe\u{301}", "caf\u{e9}"),
            ("STRASSE", "strasse"),
            ("ÄÖÜ", "äöü"),
            ("\u{212b}ngstr\u{f6}m", "ångström"),
            ("ПЁТР", "пётр"),
            ("ｱｲｳ", "アイウ"),
        ] {
            assert_eq!(key(a), key(b), "{a} {b}");
            assert!(key(a).is_ok(), "{a}");
        }
        for (a, b) in [("admin", "admln"), ("strasse", "straße"), ("a.b", "ab"), ("a", "á"), ("anna", "anna1")] {
            assert_ne!(key(a), key(b), "{a} {b}");
        }
        assert_eq!(Name::parse("Alice").unwrap().shown(), "Alice");
    }

    #[test]
    fn names_that_are_none() {
        for (text, why) in [
            ("", BadName::Empty),
            ("admin ", BadName::Character),
            (" admin", BadName::Character),
            ("ad min", BadName::Character),
            ("admin\0", BadName::Character),
            ("admin\n", BadName::Character),
            ("\u{3000}", BadName::Character),
            ("ad\u{ad}min", BadName::Character),
            ("ad\u{200b}min", BadName::Character),
            ("ad\u{200d}min", BadName::Character),
            ("admin\u{202e}", BadName::Character),
            ("\u{feff}admin", BadName::Character),
            ("ad\u{2028}min", BadName::Character),
            ("①", BadName::Character),
            ("ﬁne", BadName::Character),
            ("😀", BadName::Character),
            ("\u{e000}", BadName::Character),
            ("\u{430}dmin", BadName::MixedScripts),
            ("admi\u{578}", BadName::MixedScripts),
            ("p\u{443}tin", BadName::MixedScripts),
            ("ραul", BadName::MixedScripts),
            ("abc\u{5d0}", BadName::Character),
            ("\u{5d0}abc", BadName::Character),
        ] {
            assert_eq!(key(text).err(), Some(why), "{text:?}");
        }
        assert_eq!(key(&"a".repeat(129)).err(), Some(BadName::Long));
        assert_eq!(key(&"a".repeat(100_000)).err(), Some(BadName::Long));
        assert!(key(&"a".repeat(128)).is_ok());
        for text in ["דוד", "محمد", "山田太郎", "やまだ", "김철수", "สมชาย", "अमित", "o'neil", "a_b-c.d+e", "x1"]
        {
            assert!(key(text).is_ok(), "{text}: {:?}", key(text));
        }
    }

    #[test]
    fn addresses() {
        let key = |text: &str| Email::parse(text).map(|email| email.key);
        for (text, expected) in [
            ("Alice@Example.COM", "alice@example.com"),
            ("a+b@example.com", "a+b@example.com"),
            ("o'neil@example.com", "o'neil@example.com"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("a@localhost", "a@localhost"),
        ] {
            assert_eq!(key(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c.d",
            "a@b c",
            "a@b@c.d",
            "\"a\"@b.c",
            "A <a@b.c>",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.d",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b..c",
            "a@-b.c",
            "a@b.c\n",
            "a\n@b.c",
            "a\0@b.c",
            "a@b.c.",
            "а\u{430}b@c.d",
            "a@b_c.d",
        ] {
            assert!(key(text).is_err(), "{text:?}");
        }
        assert!(key(&format!("{}@b.c", "a".repeat(65))).is_err());
        assert!(key(&format!("a@{}", "b.".repeat(200))).is_err());
    }

    proptest::proptest! {
        /// The canonical form of a canonical form is itself, and what is shown means the same account.
        #[test]
        fn names_are_stable(text in "\\PC{0,20}") {
            if let Ok(name) = Name::parse(&text) {
                assert_eq!(key(&name.key), Ok(name.key.clone()), "{text:?}");
                assert_eq!(key(&name.shown), Ok(name.key.clone()), "{text:?}");
                assert!(name.has_at() || Identifier::parse(&text) == Identifier::Name(name.key.clone()), "{text:?}");
            }
        }

        #[test]
        fn addresses_are_stable(local in "\\PC{1,12}", domain in "\\PC{1,12}") {
            let text = format!("{local}@{domain}.example");
            if let Ok(email) = Email::parse(&text) {
                assert_eq!(Email::parse(&email.key).map(|again| again.key), Ok(email.key.clone()), "{text:?}");
                assert_eq!(Email::parse(&email.shown).map(|again| again.key), Ok(email.key.clone()), "{text:?}");
                assert_eq!(Identifier::parse(&email.shown), Identifier::Email(email.key.clone()), "{text:?}");
            }
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(proptest::char::any(), 0..40)) {
            let text: String = text.into_iter().collect();
            let _ = (Name::parse(&text), Email::parse(&text), Identifier::parse(&text));
        }
    }

    #[test]
    fn what_somebody_typed() {
        assert_eq!(Identifier::parse("ALICE"), Identifier::Name("alice".into()));
        assert_eq!(Identifier::parse("Alice@example.com"), Identifier::Email("alice@example.com".into()));
        assert_eq!(Identifier::parse("alice\u{ff20}example.com"), Identifier::Email("alice@example.com".into()));
        assert_eq!(Identifier::parse("A B"), Identifier::Nobody("a b".into()));
        assert!(matches!(Identifier::parse(&"x".repeat(1 << 20)), Identifier::Nobody(text) if text.len() < 1000));
    }
}
