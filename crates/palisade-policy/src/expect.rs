//! What a schema expects, in words and as an example.

use serde_json::Value as Json;

use crate::path::show_key;
use crate::schema::{Schema, View};

/// All that may stand there: "a duration or `"off"`".
pub(crate) fn expected(views: &[View<'_>]) -> String {
    let mut parts: Vec<String> = Vec::new();
    // Fixed words last: they are exceptions.
    let (words, others): (Vec<_>, Vec<_>) = views.iter().partition(|view| view.constants().is_some());
    for view in others.into_iter().chain(words) {
        let part = one(view);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    match parts.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn one(view: &View<'_>) -> String {
    if let Some(text) = view.text("x-expected") {
        return text.to_owned();
    }
    if view.is_secret_reference() {
        return "a reference to the secret store".to_owned();
    }
    if let Some(constants) = view.constants() {
        return constants.iter().map(|value| format!("`{}`", toml(value))).collect::<Vec<_>>().join(", ");
    }
    match view.kind() {
        Some("string") => view.format().map_or_else(|| "text".to_owned(), article),
        Some("integer") => "a whole number".to_owned(),
        Some("number") => "a number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => "a list".to_owned(),
        Some("object") => "a table".to_owned(),
        _ => "a value".to_owned(),
    }
}

/// `byte-size` → "a byte size".
fn article(format: &str) -> String {
    let words = match format {
        "url" | "uri" => "URL".to_owned(),
        "cidr" => "address or network".to_owned(),
        "cel" => "CEL expression".to_owned(),
        _ => format.replace(['-', '_'], " "),
    };
    let vowel = words.starts_with(['a', 'e', 'i', 'o']) || words.starts_with("hour");
    format!("{} {words}", if vowel { "an" } else { "a" })
}

/// A value that would be right, as TOML.
pub(crate) fn example<'a>(schema: &Schema<'a>, view: &View<'a>, depth: usize) -> String {
    if let Some(example) = view.get("examples").and_then(|list| list.get(0)) {
        return toml(example);
    }
    if view.is_secret_reference() {
        return "{ secret = \"name\" }".to_owned();
    }
    if let Some(first) = view.constants().and_then(|constants| constants.first().copied()) {
        return toml(first);
    }
    let default = view.get("default").filter(|default| match default {
        Json::Null => false,
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(_) => false,
        _ => true,
    });
    if let Some(default) = default {
        // A default may belong to another alternative: `"off"` where a list is shown.
        let kind = View::kind_of(default);
        if view.kind().is_none_or(|expected| expected == kind || (expected, kind) == ("number", "integer")) {
            return toml(default);
        }
    }
    match view.kind() {
        Some("integer") => {
            view.number("minimum").filter(|least| *least > 0.0).map_or("10".to_owned(), |least| least.to_string())
        }
        Some("number") => "1.5".to_owned(),
        Some("boolean") => "true".to_owned(),
        Some("array") if depth < 3 => {
            let item = view.get("items").and_then(|items| schema.alternatives(items).first().cloned());
            item.map_or_else(|| "[…]".to_owned(), |item| format!("[{}]", example(schema, &item, depth + 1)))
        }
        Some("array") => "[…]".to_owned(),
        Some("object") if depth < 3 => {
            let required = view.required();
            let entries: Vec<String> = required
                .iter()
                .take(3)
                .filter_map(|key| {
                    let value = schema
                        .alternatives(view.property(key)?)
                        .first()
                        .map(|view| example(schema, view, depth + 1))?;
                    Some(format!("{} = {value}", show_key(key)))
                })
                .collect();
            if entries.is_empty() { "{ … }".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        Some("object") => "{ … }".to_owned(),
        _ => "\"…\"".to_owned(),
    }
}

/// JSON as TOML on one line; what TOML has no word for becomes empty.
pub(crate) fn toml(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => toml::Value::String(text.clone()).to_string(),
        Json::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let entries = map.iter().filter(|(_, value)| !value.is_null());
            let entries: Vec<String> =
                entries.map(|(key, value)| format!("{} = {}", show_key(key), toml(value))).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        other => other.to_string(),
    }
}
