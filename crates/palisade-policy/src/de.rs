//! From the tree to typed values. Errors know the path of the value they are about.

use std::fmt::Display;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::path::Step;
use crate::problem::{Problems, Severity};
use crate::tree::{Node, Value};

/// What serde said, and where. The path is collected on the way out, so it is in reverse.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    path: Vec<Step>,
    at_key: bool,
    fix: String,
}

impl Error {
    fn new(message: String) -> Self {
        Error { message, path: Vec::new(), at_key: false, fix: String::new() }
    }

    fn under(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// Becomes a problem, unless the check against the schema has said something about this place already.
    pub(crate) fn report(self, below: &[Step], problems: &mut Problems) {
        let mut steps = below.to_vec();
        steps.extend(self.path.into_iter().rev());
        if !problems.has_error_near(&steps) {
            problems.add_steps(Severity::Error, &steps, self.at_key, &self.message, &self.fix);
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Error::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        // Kinds only: the value itself could be what must not be shown.
        let kind = match unexpected {
            Unexpected::Bool(_) => "`true` or `false`",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a number",
            Unexpected::Char(_) | Unexpected::Str(_) => "text",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "this",
        };
        Error::new(format!("expected {expected}, not {kind}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Error::new(format!("expected {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Error::new(format!("`{field}` is missing"));
        error.path.push(Step::Key(field.to_owned()));
        error
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Error::new(format!("unknown key `{field}`"));
        error.fix = list("it can be", expected);
        error.at_key = true;
        error.path.push(Step::Key(field.to_owned()));
        error
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut error = Error::new(format!("`{variant}` is not one of the values this key takes"));
        error.fix = list("write one of", expected);
        error
    }
}

fn list(lead: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{lead} {}", names.join(", "))
}

/// Reads a typed value from a node.
pub(crate) struct Reader<'a>(pub(crate) &'a Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::String(text) | Value::Datetime(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List { items, .. } => {
                let mut access = Items { items: items.iter().enumerate() };
                visitor.visit_seq(&mut access)
            }
            Value::Table(table) => visitor.visit_map(Entries { entries: table.iter(), next: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            #[expect(clippy::cast_precision_loss, reason = "who asks for a float takes its precision")]
            Value::Integer(number) => visitor.visit_f64(*number as f64),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::String(text) => visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(text.as_str())),
            Value::Table(table) if table.len() == 1 => match table.iter().next() {
                Some((key, node)) => visitor.visit_enum(Variant { key, node }),
                None => Err(Error::new(list("expected one of", variants))),
            },
            _ => Err(Error::new(list("expected one of", variants))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader(node)).map(Some).map_err(|error| error.under(Step::Item(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    entries: std::collections::btree_map::Iter<'de, String, Node>,
    next: Option<(&'de str, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        self.next = Some((key, node));
        let key_reader: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key_reader).map(Some).map_err(|mut error| {
            if error.path.is_empty() {
                error.at_key = true;
                error.path.push(Step::Key(key.clone()));
            }
            error
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, node) = self.next.take().ok_or_else(|| Error::new("a value without its key".to_owned()))?;
        seed.deserialize(Reader(node)).map_err(|error| error.under(Step::Key(key.to_owned())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct Variant<'de> {
    key: &'de str,
    node: &'de Node,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let key: StrDeserializer<'_, Error> = self.key.into_deserializer();
        Ok((seed.deserialize(key)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(Error::new(format!("`{}` takes no value", self.key)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Reader(self.node)).map_err(|error| error.under(Step::Key(self.key.to_owned())))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        Reader(self.node).deserialize_any(visitor).map_err(|error| error.under(Step::Key(self.key.to_owned())))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        Reader(self.node).deserialize_any(visitor).map_err(|error| error.under(Step::Key(self.key.to_owned())))
    }
}
