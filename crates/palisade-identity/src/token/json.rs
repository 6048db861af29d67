//! JSON that two readers cannot read differently: one object, no member twice, at any depth.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// An object. `None` when the bytes are not strict JSON: not UTF-8, a member twice, something after the end, or nested
/// deeper than serde_json's limit of 128.
pub(super) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Unique(Value::Object(members))) => Some(members),
        _ => None,
    }
}

/// Base64url without padding, where unused bits are zero: one spelling for one value. RFC 7515 section 2.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// An object, its members one after the other as they stand in the text; `each` gets a name and the value. `None` as of
/// [`object`], but for a member twice, which is for `each` to see; and where `each` says so.
pub(super) fn members(bytes: &[u8], each: impl FnMut(Cow<'_, str>, Value) -> Option<()>) -> Option<()> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    reader.deserialize_map(Members(each)).ok()?;
    reader.end().ok()
}

struct Members<F>(F);

impl<'de, F: FnMut(Cow<'_, str>, Value) -> Option<()>> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some((Name(name), Unique(value))) = members.next_entry()? {
            (self.0)(name, value).ok_or_else(|| A::Error::custom("not this member"))?;
        }
        Ok(())
    }
}

/// The name of a member: most are in the text as they are.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AnyName)
    }
}

struct AnyName;

impl<'de> Visitor<'de> for AnyName {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

/// A text member: `Ok(None)` when it is absent, an error when it is no text.
pub(super) fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, NotText> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(NotText),
    }
}

/// A member that must be a text and is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotText;

/// A value without duplicate members. RFC 7515 section 4 and RFC 7519 section 4 let a reader take the last of two; then
/// the check before us may have read the first.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_reading() {
        let cases: [(&str, bool); 14] = [
            (r#"{"a":1,"b":[1,2.5,null,true,"x"]}"#, true),
            (" {\"a\" :\t1}\r\n ", true),
            ("{}", true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#"{"x":{"a":1,"a":2}}"#, false),
            (r#"{"x":[{"a":1,"a":2}]}"#, false),
            (r#"{"a":1} x"#, false),
            (r#"{"a":1}{"a":1}"#, false),
            (r#"{"a":1,}"#, false),
            (r#"{'a':1}"#, false),
            ("\u{feff}{}", false),
            ("[]", false),
            ("", false),
        ];
        for (text, fits) in cases {
            assert_eq!(object(text.as_bytes()).is_some(), fits, "{text}");
            let mut seen = std::collections::BTreeSet::new();
            let read = members(text.as_bytes(), |name, _| seen.insert(name.into_owned()).then_some(()));
            assert_eq!(read.is_some(), fits, "{text}, member by member");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none(), "not UTF-8");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(object(deep.as_bytes()).is_none(), "too deep");
    }

    #[test]
    fn base64url_has_one_spelling() {
        assert_eq!(base64url("_-8").as_deref(), Some(&[0xff, 0xef][..]));
        for wrong in ["_-8=", "_-9", "/+8", "_ -8", "_-8\n", "_", "_-8?"] {
            assert_eq!(base64url(wrong), None, "{wrong}");
        }
    }
}
