//! One account of a file, by whatever names the application's columns have.

use std::collections::BTreeMap;

/// What an account of a file says, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) app_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) superuser: bool,
    pub(super) enabled: Option<bool>,
    pub(super) verified: Option<bool>,
}

/// A field of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The id that the application gave it.
    AppId,
    /// Its name.
    Name,
    /// Its e-mail address.
    Email,
    /// The hash of its password.
    Hash,
    /// Its roles, with commas or spaces between, or a list.
    Roles,
    /// Whether it may do everything.
    Superuser,
    /// Whether it may do anything.
    Enabled,
    /// Whether it may do nothing.
    Disabled,
    /// Whether its owner proved to have the address.
    Verified,
}

/// The names that applications give them: SQLAlchemy of the guide, fastapi-users, Django, Flask-Security.
const NAMES: [(&str, Field); 30] = [
    ("id", Field::AppId),
    ("app_id", Field::AppId),
    ("user_id", Field::AppId),
    ("uuid", Field::AppId),
    ("username", Field::Name),
    ("user_name", Field::Name),
    ("name", Field::Name),
    ("login", Field::Name),
    ("email", Field::Email),
    ("e_mail", Field::Email),
    ("mail", Field::Email),
    ("email_address", Field::Email),
    ("hashed_password", Field::Hash),
    ("password_hash", Field::Hash),
    ("hash", Field::Hash),
    ("password", Field::Hash),
    ("pwhash", Field::Hash),
    ("roles", Field::Roles),
    ("role", Field::Roles),
    ("is_superuser", Field::Superuser),
    ("is_admin", Field::Superuser),
    ("superuser", Field::Superuser),
    ("is_active", Field::Enabled),
    ("active", Field::Enabled),
    ("enabled", Field::Enabled),
    ("disabled", Field::Disabled),
    ("is_disabled", Field::Disabled),
    ("is_verified", Field::Verified),
    ("email_verified", Field::Verified),
    ("verified", Field::Verified),
];

impl Field {
    /// By its name in a file, in any case, with `-`, `_` or a space.
    pub fn named(name: &str) -> Option<Self> {
        let plain = name.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        NAMES.iter().find(|(known, _)| *known == plain).map(|(_, field)| *field)
    }
}

/// Which column is which field.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns(BTreeMap<usize, Field>);

impl Columns {
    /// Of a header. `chosen` is what the operator says; the rest goes by name, the first of two that mean the same.
    pub(super) fn of(header: &[String], chosen: &[(String, Field)]) -> Self {
        let mut columns = BTreeMap::new();
        for (index, name) in header.iter().enumerate() {
            if let Some((_, field)) = chosen.iter().find(|(known, _)| known == name.trim()) {
                columns.insert(index, *field);
            }
        }
        for (index, name) in header.iter().enumerate() {
            if let Some(field) = Field::named(name)
                && !columns.contains_key(&index)
                && !columns.values().any(|known| *known == field)
            {
                columns.insert(index, field);
            }
        }
        Self(columns)
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.0.values().any(|known| *known == field)
    }

    pub(super) fn entry(&self, record: &[String]) -> Result<Entry, String> {
        let mut entry = Entry::default();
        for (index, field) in &self.0 {
            if let Some(text) = record.get(*index) {
                entry.set(*field, text)?;
            }
        }
        Ok(entry)
    }
}

impl Entry {
    pub(super) fn set(&mut self, field: Field, text: &str) -> Result<(), String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        let flag = || truth(text).ok_or_else(|| "a yes or no was expected, such as `true` or `0`".to_owned());
        match field {
            Field::AppId => self.app_id = Some(text.to_owned()),
            Field::Name => self.name = Some(text.to_owned()),
            Field::Email => self.email = Some(text.to_owned()),
            Field::Hash => self.hash = Some(text.to_owned()),
            Field::Roles => {
                let words = text.split([',', ';', ' ', '|']).map(str::trim).filter(|word| !word.is_empty());
                self.roles.extend(words.map(Into::into));
            }
            Field::Superuser => self.superuser = flag()?,
            Field::Enabled => self.enabled = Some(flag()?),
            Field::Disabled => self.enabled = Some(!flag()?),
            Field::Verified => self.verified = Some(flag()?),
        }
        Ok(())
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_by_name_and_by_choice() {
        let header: Vec<String> =
            ["ID", "Email", "login", "hashed-password", "is_active", "notes", "pw"].map(Into::into).into();
        let record: Vec<String> = ["7", "a@b.c", "alice", "$x", "f", "…", "$y"].map(Into::into).into();
        let entry = Columns::of(&header, &[]).entry(&record).unwrap();
        assert_eq!(entry.app_id.as_deref(), Some("7"));
        assert_eq!((entry.name.as_deref(), entry.email.as_deref()), (Some("alice"), Some("a@b.c")));
        assert_eq!((entry.hash.as_deref(), entry.enabled), (Some("$x"), Some(false)));
        let chosen = Columns::of(&header, &[("pw".into(), Field::Hash)]).entry(&record).unwrap();
        assert_eq!(chosen.hash.as_deref(), Some("$y"));
        assert!(Columns::of(&header, &[]).entry(&["7".into()]).unwrap().name.is_none(), "a short line");
        let bad: Vec<String> = ["7", "", "", "", "perhaps"].map(Into::into).into();
        assert!(Columns::of(&header, &[]).entry(&bad).is_err());
    }

    #[test]
    fn names_are_listed_once() {
        for (index, (name, field)) in NAMES.iter().enumerate() {
            assert_eq!(NAMES.iter().position(|(known, _)| known == name), Some(index));
            assert_eq!(Field::named(name), Some(*field));
        }
    }
}
