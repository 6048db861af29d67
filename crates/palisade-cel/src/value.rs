//! Values while an expression is evaluated, and where they come from.

use std::borrow::Cow;

use palisade_base::Timestamp;

/// A value of a request, borrowed from wherever it lies.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A string.
    Text(Cow<'v, str>),
    /// A list of strings, or of numbers where it is a literal.
    List(List<'v>),
    /// A point in time.
    Time(Timestamp),
    /// A length of time in milliseconds.
    Span(i64),
    /// Values by name.
    Members(&'v dyn Members),
    /// Something that is none of these, such as a number or `null` in a claim. Whatever asks about it refuses.
    Other,
}

impl<'v> Value<'v> {
    /// A string.
    pub fn text(text: impl Into<Cow<'v, str>>) -> Self {
        Self::Text(text.into())
    }

    /// A list of strings.
    pub fn texts(texts: &'v dyn Texts) -> Self {
        Self::List(List::Texts(texts))
    }
}

/// A list.
#[derive(Debug, Clone)]
pub enum List<'v> {
    /// Of strings that lie somewhere.
    Texts(&'v dyn Texts),
    /// As an expression wrote it.
    Written(Vec<Value<'v>>),
}

impl<'v> List<'v> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.count(),
            Self::Written(values) => values.len(),
        }
    }

    pub(crate) fn get(&self, place: usize) -> Option<Value<'v>> {
        match self {
            Self::Texts(texts) => texts.at(place).map(Value::text),
            Self::Written(values) => values.get(place).cloned(),
        }
    }
}

/// Strings in a row, whatever holds them.
pub trait Texts: std::fmt::Debug {
    /// How many.
    fn count(&self) -> usize;
    /// One of them; none from the end on.
    fn at(&self, place: usize) -> Option<&str>;
}

impl<T: AsRef<str> + std::fmt::Debug> Texts for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Option<&str> {
        self.get(place).map(AsRef::as_ref)
    }
}

impl<T: AsRef<str> + std::fmt::Debug> Texts for &[T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Option<&str> {
        self.get(place).map(AsRef::as_ref)
    }
}

impl<T: AsRef<str> + std::fmt::Debug> Texts for Box<[T]> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Option<&str> {
        self.get(place).map(AsRef::as_ref)
    }
}

/// What was found under a key or name.
#[derive(Debug, Clone)]
pub enum Found<'v> {
    /// This.
    Value(Value<'v>),
    /// Nothing: whatever asks about it refuses.
    Missing,
    /// More than one: which of them another program believes nobody knows, so whatever asks about it refuses.
    Repeated,
}

impl<'v> From<Option<Value<'v>>> for Found<'v> {
    fn from(value: Option<Value<'v>>) -> Self {
        value.map_or(Self::Missing, Self::Value)
    }
}

/// Values by names that are not known when the policy is read.
pub trait Members: std::fmt::Debug {
    /// What is there under a name.
    fn member(&self, name: &str) -> Found<'_>;
}

/// One request, as an expression sees it.
pub trait Activation {
    /// What is there under a key of the [`Environment`](crate::Environment).
    fn value(&self, key: u16) -> Found<'_>;
}
