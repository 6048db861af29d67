//! Values that are written as text in the policy: sizes, durations, rates, networks.

use std::fmt::Display;
use std::str::FromStr;

/// A value that the policy file holds as a string of its own grammar, such as `"10MiB"`.
///
/// The JSON Schema of such a value is a string with `format: FORMAT`. The reader of the policy finds the check of a
/// format in [`FORMATS`], so that every bad value of a file is reported at once, each with its place.
pub trait TextValue: Sized + FromStr<Err = BadValue> + Display {
    /// The name of the grammar, as it stands in the JSON Schema.
    const FORMAT: &'static str;
    /// What such a value is called in a message: `a size`.
    const NOUN: &'static str;
    /// Values as people write them; the first is the one that a message shows.
    const EXAMPLES: &'static [&'static str];
}

/// Why a text is not such a value: lower case, no full stop, never the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue(pub String);

impl BadValue {
    /// A reason in words.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadValue {}

/// A named grammar and its check.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The `format` of the JSON Schema.
    pub name: &'static str,
    /// Says why a text does not fit.
    pub check: fn(&str) -> Result<(), String>,
}

impl Format {
    /// The grammar of a type.
    pub const fn of<T: TextValue>() -> Self {
        Self { name: T::FORMAT, check: |text| text.parse::<T>().map(drop).map_err(|why| why.0) }
    }
}

/// The grammars of this crate.
pub static FORMATS: &[Format] = &[
    Format::of::<crate::ByteSize>(),
    Format::of::<crate::Interval>(),
    Format::of::<crate::Rate>(),
    Format::of::<crate::Cidr>(),
];

/// Gives a [`TextValue`] its serde and schema implementations, which are the same for all of them.
#[macro_export]
macro_rules! text_value {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "format": <$type as $crate::TextValue>::FORMAT,
                    "x-expected": <$type as $crate::TextValue>::NOUN,
                    "examples": <$type as $crate::TextValue>::EXAMPLES,
                })
            }
        }
    };
}
