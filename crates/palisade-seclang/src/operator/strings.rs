//! Comparisons of whole strings: `@streq`, `@contains`, `@within` and the like. Case counts.

use crate::text::contains;

/// A test of the value against the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringTest {
    BeginsWith,
    EndsWith,
    Contains,
    ContainsWord,
    Equal,
    /// The value occurs in the argument.
    Within,
}

impl StringTest {
    pub(crate) fn holds(self, value: &[u8], argument: &[u8]) -> bool {
        match self {
            StringTest::BeginsWith => value.starts_with(argument),
            StringTest::EndsWith => value.ends_with(argument),
            StringTest::Contains => contains(value, argument),
            StringTest::ContainsWord => contains_word(value, argument),
            StringTest::Equal => value == argument,
            StringTest::Within => contains(argument, value),
        }
    }
}

/// A word is not next to a letter; digits and underscores do end it, as in ModSecurity.
fn contains_word(value: &[u8], word: &[u8]) -> bool {
    if word.is_empty() {
        return true;
    }
    let border = |b: Option<&u8>| b.is_none_or(|b| !b.is_ascii_alphabetic());
    memchr::memmem::find_iter(value, word)
        .any(|at| border(at.checked_sub(1).and_then(|i| value.get(i))) && border(value.get(at + word.len())))
}
