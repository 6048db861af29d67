//! The document as it is written: what is needed of it, in its order; the rest is skipped.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::document::{MAX_OPERATIONS, Method};
use crate::security::Written;

/// Members in the order of the text, each once.
#[derive(Debug)]
pub(crate) struct Ordered<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.len() >= MAX_OPERATIONS {
                        return Err(A::Error::custom("more members than are read"));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom("a member twice"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Root {
    pub(crate) openapi: String,
    #[serde(default)]
    pub(crate) paths: Ordered<Item>,
    #[serde(default)]
    pub(crate) security: Option<Vec<Ordered<Vec<String>>>>,
    #[serde(default)]
    pub(crate) components: Components,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Components {
    #[serde(rename = "securitySchemes", default)]
    pub(crate) schemes: Ordered<SchemeOrRef>,
}

/// A scheme, or a reference, which is not followed: it is a scheme that the document does not explain.
#[derive(Debug, Deserialize)]
pub(crate) struct SchemeOrRef {
    #[serde(rename = "$ref", default)]
    pub(crate) reference: Option<IgnoredAny>,
    #[serde(flatten)]
    pub(crate) written: Option<Written>,
}

/// The operations of a path.
#[derive(Debug, Default)]
pub(crate) struct Item {
    pub(crate) operations: Vec<(Method, OperationWritten)>,
    pub(crate) is_reference: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OperationWritten {
    #[serde(default)]
    pub(crate) security: Option<Vec<Ordered<Vec<String>>>>,
    #[serde(rename = "operationId", default)]
    pub(crate) id: Option<String>,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the operations of a path")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut item = Item::default();
                while let Some(name) = map.next_key::<String>()? {
                    match Method::named(&name) {
                        Some(method) if item.operations.iter().any(|(known, _)| *known == method) => {
                            return Err(A::Error::custom("a method twice"));
                        }
                        Some(method) => item.operations.push((method, map.next_value()?)),
                        None => {
                            item.is_reference |= name == "$ref";
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(item)
            }
        }
        deserializer.deserialize_map(Members)
    }
}
