//! What an expression may ask about: names, their types, and the key under which each is asked for.

use std::fmt;

use crate::problem::closest;

/// The types of this subset. A request is text, so there are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number: of `size`, `int` and literals; no value of a request is one.
    Int,
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A list of whole numbers, as a literal.
    Ints,
    /// A point in time.
    Time,
    /// A length of time.
    Span,
    /// Strings by names that are not known when the policy is read, such as a query's.
    Members,
    /// The same where each may be a string or a list of strings, such as the claims of a token.
    Claims,
    /// What stands behind a name of [`Type::Claims`]: known when it is asked for. It has to be what the place asks for.
    Dynamic,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Int => "a number",
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::Ints => "a list of numbers",
            Self::Time => "a point in time",
            Self::Span => "a length of time",
            Self::Members => "a set of strings by name",
            Self::Claims => "a set of claims by name",
            Self::Dynamic => "a claim (a string or a list of strings)",
        })
    }
}

/// The names an expression may use. Names have dots: `user.id` is the member `id` of `user`, which is no value itself.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    names: Vec<Declared>,
}

#[derive(Debug, Clone)]
struct Declared {
    name: String,
    kind: Type,
    key: u16,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// A value, asked for under this key.
    Value(Type, u16),
    /// The beginning of other names.
    Group,
    Unknown,
}

impl Environment {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a name. `key` is what [`crate::Activation::value`] is asked with.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, kind: Type, key: u16) -> Self {
        self.names.push(Declared { name: name.into(), kind, key });
        self
    }

    /// Every name, in the order of declaration.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|declared| declared.name.as_str())
    }

    pub(crate) fn find(&self, name: &str) -> Name {
        if let Some(declared) = self.names.iter().find(|declared| declared.name == name) {
            return Name::Value(declared.kind, declared.key);
        }
        let below = |declared: &Declared| declared.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        if self.names.iter().any(below) { Name::Group } else { Name::Unknown }
    }

    /// The names that may follow behind `group` and a dot; the first parts of all names for an empty one.
    pub(crate) fn members<'e>(&'e self, group: &str) -> Vec<&'e str> {
        let mut all: Vec<&str> = Vec::new();
        for name in self.names() {
            let rest = if group.is_empty() {
                Some(name)
            } else {
                name.strip_prefix(group).and_then(|rest| rest.strip_prefix('.'))
            };
            let Some(first) = rest.and_then(|rest| rest.split('.').next()) else { continue };
            if !all.contains(&first) {
                all.push(first);
            }
        }
        all
    }

    /// What to write instead of a name that is not there.
    pub(crate) fn instead_of(&self, group: &str, name: &str) -> String {
        let members = self.members(group);
        let dotted = |member: &str| if group.is_empty() { member.to_owned() } else { format!("{group}.{member}") };
        if let Some(likely) = closest(name, members.iter().copied()) {
            return format!("did you mean `{}`?", dotted(likely));
        }
        // `id` for `user.id`, `user_id` for `path.user_id`.
        let elsewhere = self.names().find(|full| full.rsplit('.').next() == Some(name));
        if let Some(full) = elsewhere {
            return format!("did you mean `{full}`?");
        }
        if members.is_empty() {
            return "there is none here".to_owned();
        }
        let known: Vec<String> = members.iter().map(|member| format!("`{}`", dotted(member))).collect();
        format!("known are {}", known.join(", "))
    }
}
