//! The text of a policy: every section and key with its description and default, made from the schema, so that what a
//! control adds to the schema stands in the file too.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A key that is written, over its default.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
}

impl Setting {
    pub(super) fn new(key: &str, value: Value) -> Self {
        Self { key: key.to_owned(), value }
    }
}

/// A route with exceptions.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) path: String,
    pub(super) keys: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What the head of the file says.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) app: Option<&'a str>,
    pub(super) production: bool,
}

const WIDTH: usize = 116;

/// The whole policy.
pub(super) fn policy(schema: &Value, head: &Head<'_>, settings: &[Setting], routes: &[Allowed]) -> String {
    let mut out = preamble(head);
    let Some(properties) = schema["properties"].as_object() else { return out };
    for (name, property) in properties {
        match name.as_str() {
            // Lists of tables, and what stands above the sections.
            "include" | "version" | "route" => {}
            _ => section(&mut out, schema, name, property, settings),
        }
    }
    write_routes(&mut out, routes);
    out
}

fn preamble(head: &Head<'_>) -> String {
    let mut out = String::from("# Palisade's policy");
    if let Some(app) = head.app {
        let _ = write!(out, " for `{app}`");
    }
    out.push_str(", written by `palisade init`.\n#\n");
    out.push_str(
        "# What stands behind a `#` is the default and in force as it is: remove the `#` to change it. `palisade check`\n\
         # says what is wrong with the file, `palisade check --effective` what is in force and where it comes from.\n\
         # Every control blocks. `palisade report` shows what was refused and the lines that would allow it,\n\
         # `palisade explain ID` the same for one request; `mode = \"detect\"` in a control's section only watches.\n",
    );
    if head.production {
        out.push_str(
            "#\n# Before the first client: name `cert` and `key` in `[tls]` instead of `self_signed`, and let \
             `palisade check` pass.\n",
        );
    } else {
        out.push_str(
            "#\n# For production: in `[server]` write `mode = \"production\"` and `hosts = [\"api.example.com\"]`, in \
             `[tls]` `cert` and\n# `key`. Then it listens on ports 443 and 80 of every address, and what is unsafe does \
             not start.\n",
        );
    }
    out
}

/// One section: its header stands without `#` only where a key of it is written, since the presence of some sections
/// means something.
fn section(out: &mut String, schema: &Value, name: &str, property: &Value, settings: &[Setting]) {
    let table = resolve(schema, property);
    let keys = table["properties"].as_object();
    let list = property["type"] == "array" || table["type"] == "array";
    let written = settings.iter().any(|setting| setting.key.starts_with(&format!("{name}.")));
    out.push('\n');
    let mut about = text(property, table);
    if let Some(section) = property.get("x-guide-section").and_then(Value::as_u64) {
        let _ = write!(about, " Guide section {section}.");
    }
    comment(out, "# ", &about);
    let header = if list { format!("[[{name}]]") } else { format!("[{name}]") };
    let _ = writeln!(out, "{}{header}", if written { "" } else { "# " });
    let Some(keys) = keys.or_else(|| resolve(schema, &table["items"])["properties"].as_object()) else {
        return;
    };
    let defaults = property.get("default").and_then(Value::as_object);
    for (key, property) in ordered(keys) {
        let setting = settings.iter().find(|setting| setting.key == format!("{name}.{key}"));
        one_key(out, schema, key, property, defaults.and_then(|defaults| defaults.get(key)), setting);
    }
}

/// `mode` first: it says whether the rest means anything.
fn ordered(keys: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let first = keys.iter().filter(|(key, _)| *key == "mode");
    first.chain(keys.iter().filter(|(key, _)| *key != "mode"))
}

fn one_key(
    out: &mut String,
    schema: &Value,
    key: &str,
    property: &Value,
    default: Option<&Value>,
    setting: Option<&Setting>,
) {
    comment(out, "#   ", &text(property, resolve(schema, property)));
    if let Some(setting) = setting {
        let _ = writeln!(out, "{key} = {}", toml(&setting.value));
        return;
    }
    let default = property.get("default").or(default).filter(|default| !default.is_null());
    match default {
        Some(default) => drop(writeln!(out, "# {key} = {}", toml(default))),
        None => drop(writeln!(out, "# {key} =")),
    }
}

fn write_routes(out: &mut String, routes: &[Allowed]) {
    out.push_str(
        "\n# Routes: the first one whose path fits decides, and keeps what it does not name from the sections above. A method\n\
         # that no route of the path names answers 405.\n",
    );
    if routes.is_empty() {
        out.push_str("#\n# [[route]]\n# path = \"/uploads/*\"\n# limits = { body = \"20MiB\" }\n");
    }
    for route in routes {
        out.push('\n');
        for note in &route.notes {
            comment(out, "# ", note);
        }
        let _ = writeln!(out, "[[route]]\npath = {}", toml(&Value::String(route.path.clone())));
        for key in &route.keys {
            let _ = writeln!(out, "{key}");
        }
    }
}

/// What a `$ref`, alone or beside `null`, stands for.
fn resolve<'s>(schema: &'s Value, property: &'s Value) -> &'s Value {
    let named = |value: &'s Value| {
        let name = value["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        schema["$defs"].get(name)
    };
    if let Some(found) = named(property) {
        return found;
    }
    let alternatives = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| property[*word].as_array());
    let table = alternatives.into_iter().flatten().find_map(|one| {
        let one = named(one).unwrap_or(one);
        one["properties"].is_object().then_some(one)
    });
    table.unwrap_or(property)
}

fn text(property: &Value, resolved: &Value) -> String {
    let said = property["description"].as_str().or(resolved["description"].as_str()).unwrap_or_default();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A comment, wrapped.
fn comment(out: &mut String, prefix: &str, text: &str) {
    let mut line = String::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !line.is_empty() && prefix.len() + line.len() + word.len() >= WIDTH {
            let _ = writeln!(out, "{prefix}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{prefix}{line}");
    }
}

/// A value as TOML, on one line. JSON's texts are TOML's basic strings, but for one character.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => Value::String(text.clone()).to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs: Vec<String> = table
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key} = {}", toml(value)))
                .collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
        Value::Null => "\"\"".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Sources;
    use serde_json::json;

    use super::*;

    fn written(settings: &[Setting], routes: &[Allowed]) -> String {
        let schema = serde_json::to_value(palisade::policy::schema()).unwrap();
        policy(&schema, &Head { app: Some("main:app"), production: false }, settings, routes)
    }

    /// The same text with every default in force by being written.
    fn uncommented(text: &str) -> String {
        let key = |line: &str| {
            let rest = line.strip_prefix("# ")?;
            let name = rest.split(" = ").next()?;
            let word = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
            (rest.starts_with('[') && !rest.starts_with("[[") || (rest.contains(" = ") && word))
                .then(|| rest.to_owned())
        };
        let text = text.split("\n# Routes:").next().unwrap_or_default();
        // A section that is a list has no table by default: its keys are for whoever writes one.
        let tables = text.split("\n\n").filter(|section| !section.contains("\n# [["));
        let text = tables.collect::<Vec<_>>().join("\n\n");
        text.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
    }

    #[test]
    fn the_file_is_a_policy_and_its_comments_are_the_defaults() {
        let settings = [
            Setting::new("server.mode", json!("development")),
            Setting::new("upstream.url", json!("http://127.0.0.1:8000")),
        ];
        let allowed = Allowed {
            path: "/up/{id:int}".into(),
            keys: vec!["limits = { body = \"3MiB\" }".into()],
            notes: vec!["seen".into()],
        };
        let text = written(&settings, &[allowed]);
        let read = |text: &str| {
            palisade::live::read(&Sources::new().builtin("test", text))
                .map_err(|p| format!("{}\n{text}", p.render(false)))
        };
        let short = read(&text).unwrap();
        assert_eq!(short.config.route.len(), 1);
        // Every key that has a default stands there with it, and means what it says.
        let long = read(&uncommented(&text)).unwrap();
        let value = |checked: &palisade::live::Checked| serde_json::to_value(&checked.config).unwrap();
        let (mut short, mut long) = (value(&short), value(&long));
        for value in [&mut short, &mut long] {
            value.as_object_mut().unwrap().remove("route");
        }
        assert_eq!(short, long);
    }

    #[test]
    fn every_section_of_the_schema_stands_in_the_file() {
        let text = written(&[], &[]);
        let schema = serde_json::to_value(palisade::policy::schema()).unwrap();
        for name in schema["properties"].as_object().unwrap().keys() {
            let listed = ["include", "version", "route"].contains(&name.as_str());
            assert!(listed || text.contains(&format!("[{name}]")), "{name}\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }
}
