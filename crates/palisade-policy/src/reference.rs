//! The schema for editors and the reference page for people, from one source.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::expect;
use crate::path::show_key;
use crate::schema::{Others, Schema, View};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const INCLUDE: &str = "Files that lie over this one, relative to it; `*` and `?` stand in the last part. A pattern that matches nothing is an error.";
/// Tables within tables that get a heading.
const MAX_DEPTH: usize = 8;

/// The JSON Schema of the policy file as text for editors: with `$schema` and `include`, and tables closed as
/// [`check`](crate::Snapshot::check) closes them.
#[must_use]
pub fn json_schema(schema: &Json) -> String {
    let mut out = Map::new();
    let root = schema.as_object();
    out.insert("$schema".into(), root.and_then(|root| root.get("$schema")).cloned().unwrap_or_else(|| json!(DIALECT)));
    for (key, value) in root.into_iter().flatten().filter(|(key, _)| *key != "$schema") {
        out.insert(key.clone(), value.clone());
    }
    let mut out = Json::Object(out);
    if let Some(properties) = out.get_mut("properties").and_then(Json::as_object_mut) {
        properties.entry("include").or_insert_with(include_schema);
    }
    close(&mut out, false, 0);
    let mut text = serde_json::to_string_pretty(&out).unwrap_or_default();
    text.push('\n');
    text
}

fn include_schema() -> Json {
    json!({ "description": INCLUDE, "type": "array", "items": { "type": "string" }, "examples": [["conf.d/*.toml"]] })
}

/// `part`: this schema holds together with another one, which may know more keys.
fn close(schema: &mut Json, part: bool, depth: usize) {
    if depth > 128 {
        return;
    }
    match schema {
        Json::Object(map) => {
            let combined = ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|keyword| map.contains_key(*keyword));
            let named = map.get("properties").is_some_and(Json::is_object);
            let said = map.contains_key("additionalProperties") || map.contains_key("unevaluatedProperties");
            if named && !combined && !part && !said {
                map.insert("additionalProperties".into(), json!(false));
            }
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "default" | "examples" | "const" | "enum" => {}
                    "properties" | "$defs" | "definitions" | "patternProperties" => {
                        for schema in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
                            close(schema, false, depth + 1);
                        }
                    }
                    "allOf" => close(value, true, depth + 1),
                    "anyOf" | "oneOf" => close(value, part || named, depth + 1),
                    _ => close(value, false, depth + 1),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| close(item, part, depth + 1)),
        _ => {}
    }
}

/// A Markdown page of all sections and keys with type, default and description, in the order of the schema.
#[must_use]
pub fn reference_page(schema: &Json) -> String {
    let view = Schema::new(schema);
    let mut page = Page { schema: &view, out: String::new(), known: HashMap::new() };
    page.out
        .push_str("# Policy reference\n\n<!-- Generated from the policy's types: edit the doc comments there. -->\n");
    if let Some(text) = schema.get("description").and_then(Json::as_str) {
        let _ = write!(page.out, "\n{}\n", text.trim());
    }
    page.root(schema);
    page.out
}

struct Page<'a, 's> {
    schema: &'s Schema<'a>,
    out: String,
    /// Where a definition was written first: the name of its heading.
    known: HashMap<&'a str, String>,
}

struct Row<'a> {
    key: String,
    schema: &'a Json,
    required: bool,
}

/// A table to be written below: its heading's name and what it holds.
struct Below<'a> {
    title: String,
    prefix: String,
    schema: &'a Json,
    views: Vec<View<'a>>,
}

impl<'a> Page<'a, '_> {
    fn root(&mut self, schema: &'a Json) {
        let views = self.schema.alternatives(schema);
        let (mut keys, mut sections) = (Vec::new(), Vec::new());
        for row in rows(&views) {
            match self.below(&row.key, row.schema) {
                Some(below) => sections.push(below),
                None => keys.push(row),
            }
        }
        self.out.push_str("\n## Top level\n\nThese keys stand above the first section.\n");
        let include = !keys.iter().any(|row| row.key == "include");
        self.table("", &keys);
        if include {
            let _ = writeln!(self.out, "| `include` | list of text |  | {} |", cell(INCLUDE));
        }
        for section in sections {
            self.section(section, 2);
        }
    }

    /// What a heading is made for: a table, a list of tables, or tables with names of their own.
    fn below(&self, path: &str, schema: &'a Json) -> Option<Below<'a>> {
        let views = self.schema.alternatives(schema);
        let tables = |views: &[View<'a>]| -> Vec<View<'a>> {
            let tables = views.iter().filter(|view| view.kind() == Some("object") && !view.is_secret_reference());
            tables.filter(|view| !view.properties().is_empty()).cloned().collect()
        };
        let own = tables(&views);
        if !own.is_empty() {
            return Some(Below { title: format!("[{path}]"), prefix: path.to_owned(), schema, views: own });
        }
        for view in views.iter() {
            if let Some(items) = view.get("items").filter(|_| view.kind() == Some("array")) {
                let own = tables(&self.schema.alternatives(items));
                if !own.is_empty() {
                    return Some(Below {
                        title: format!("[[{path}]]"),
                        prefix: path.to_owned(),
                        schema: items,
                        views: own,
                    });
                }
            }
            if let Others::Like(values) = view.others() {
                let own = tables(&self.schema.alternatives(values));
                if !own.is_empty() {
                    let path = format!("{path}.NAME");
                    return Some(Below { title: format!("[{path}]"), prefix: path, schema: values, views: own });
                }
            }
        }
        None
    }

    fn section(&mut self, below: Below<'a>, level: usize) {
        let Below { title, prefix, schema, views } = below;
        let _ = write!(self.out, "\n{} `{title}`\n", "#".repeat(level.min(4)));
        let own = schema.get("description").and_then(Json::as_str);
        if let Some(text) = own.or_else(|| views.iter().find_map(|view| view.text("description"))) {
            let _ = write!(self.out, "\n{}\n", text.trim());
        }
        if let Some(name) = self.schema.definition(schema) {
            self.known.entry(name).or_insert_with(|| title.clone());
        }
        let rows = rows(&views);
        self.table(&prefix, &rows);
        for row in rows {
            let path = format!("{prefix}.{}", row.key);
            let Some(below) = self.below(&path, row.schema) else { continue };
            let seen = self.schema.definition(below.schema).is_some_and(|name| self.known.contains_key(name));
            if !seen && level < MAX_DEPTH {
                self.section(below, level + 1);
            }
        }
    }

    fn table(&mut self, prefix: &str, rows: &[Row<'a>]) {
        self.out.push_str("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for row in rows {
            let views = self.schema.alternatives(row.schema);
            let path = if prefix.is_empty() { row.key.clone() } else { format!("{prefix}.{}", row.key) };
            let mut kind = self.types(&views, 0);
            if let Some(below) = self.below(&path, row.schema) {
                let known = self.schema.definition(below.schema).and_then(|name| self.known.get(name));
                let (title, word) = known.map_or((&below.title, "below"), |title| (title, "as"));
                let _ = write!(kind, ", {word} [`{title}`](#{})", anchor(title));
            }
            let default = match default_of(row.schema, &views) {
                Some(Json::Object(_)) => String::new(),
                Some(default) if !default.is_null() => format!("`{}`", expect::toml(default)),
                _ if row.required => "required".to_owned(),
                _ => String::new(),
            };
            let mut parts: Vec<String> = Vec::new();
            parts.extend(common_description(&views).map(|text| text.trim().to_owned()));
            if views.iter().any(View::deprecated) {
                parts.insert(0, "**Deprecated.**".to_owned());
            }
            // Each value of an enumeration has a description of its own.
            let meanings = views.iter().filter_map(View::meaning);
            parts.extend(meanings.map(|(value, meaning)| format!("`{}`: {}", expect::toml(value), meaning.trim())));
            let examples = row.schema.get("examples").and_then(Json::as_array).into_iter().flatten().take(3);
            let examples: Vec<String> = examples.map(|example| format!("`{}`", expect::toml(example))).collect();
            if !examples.is_empty() && examples != [default.as_str()] {
                parts.push(format!("For example {}.", examples.join(", ")));
            }
            let text = parts.join("\n\n");
            let key = show_key(&row.key);
            let _ = writeln!(self.out, "| `{key}` | {} | {} | {} |", cell(&kind), cell(&default), cell(&text));
        }
    }

    fn types(&self, views: &[View<'a>], depth: usize) -> String {
        let mut parts: Vec<String> = Vec::new();
        for view in views {
            let part = self.kind(view, depth);
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        parts.join(" or ")
    }

    fn kind(&self, view: &View<'a>, depth: usize) -> String {
        if view.is_secret_reference() {
            return "`{ secret = \"…\" }`".to_owned();
        }
        if let Some(constants) = view.constants() {
            return constants.iter().map(|value| format!("`{}`", expect::toml(value))).collect::<Vec<_>>().join(" or ");
        }
        let range = |word: &str| match (view.number("minimum"), view.number("maximum")) {
            (Some(least), Some(most)) => format!("{word}, {least} to {most}"),
            (Some(least), None) if least > 0.0 => format!("{word}, {least} or more"),
            (None, Some(most)) => format!("{word}, {most} or less"),
            _ => word.to_owned(),
        };
        match view.kind() {
            Some("string") => view.format().map_or_else(|| "text".to_owned(), |format| format.replace(['-', '_'], " ")),
            Some("integer") => range("whole number"),
            Some("number") => range("number"),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("array") if depth < 3 => match view.get("items").map(|items| self.schema.alternatives(items)) {
                Some(items) if !items.is_empty() => format!("list of {}", self.types(&items, depth + 1)),
                _ => "list".to_owned(),
            },
            Some("array") => "list".to_owned(),
            Some("object") => match view.others() {
                Others::Like(values) if view.properties().is_empty() && depth < 3 => {
                    format!("table of {}", self.types(&self.schema.alternatives(values), depth + 1))
                }
                _ => "table".to_owned(),
            },
            _ => "any".to_owned(),
        }
    }
}

/// The default a property names, for itself or through what it refers to.
fn default_of<'a>(schema: &'a Json, views: &[View<'a>]) -> Option<&'a Json> {
    schema.get("default").or_else(|| views.iter().find_map(|view| view.get("default")))
}

/// The description of the whole, not the one of an alternative.
fn common_description<'a>(views: &[View<'a>]) -> Option<&'a str> {
    let first = views.first()?.text("description");
    first.filter(|_| views.iter().all(|view| view.text("description") == first))
}

/// The keys of all alternatives together, each once.
fn rows<'a>(views: &[View<'a>]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for view in views {
        let required = view.required();
        for (key, schema) in view.properties() {
            if !rows.iter().any(|row| row.key == key) {
                rows.push(Row { key: key.to_owned(), schema, required: required.contains(&key) });
            }
        }
    }
    rows
}

/// The id that mdBook and GitHub give a heading.
fn anchor(title: &str) -> String {
    title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Text that stays inside one cell of a table, and in which `<` is no tag.
fn cell(text: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    let text = text
        .split("\n\n")
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("<br>");
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("<br>") {
            out.push_str("<br>");
            rest = after;
            continue;
        }
        match c {
            '`' => code = !code,
            '|' => out.push('\\'),
            '<' if !code => {
                out.push_str("&lt;");
                rest = &rest[1..];
                continue;
            }
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}
