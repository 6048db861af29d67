//! What is in force, line by line with its origin.

use serde_json::Value as Json;

use crate::expect;
use crate::mask::{self, REDACTED};
use crate::path::{self, Step};
use crate::schema::{Others, Schema, View};
use crate::snapshot::{Origin, Snapshot};
use crate::tree::{Node, Value};

/// Lines of one policy; a longer one is cut.
const MAX_LINES: usize = 100_000;

/// A key that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its path, such as `route[3].limits.body`.
    pub key: String,
    /// Its value as TOML, without secrets; `None` where it is not set and there is no default.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}  # {}", self.key, self.origin),
            None => write!(f, "# {} is not set", self.key),
        }
    }
}

impl Snapshot {
    /// Every key of the schema with the value in force and its origin, in the order of the schema. Defaults are those that
    /// the schema names.
    #[must_use]
    pub fn effective(&self, schema: &Json) -> Vec<Line> {
        let schema = Schema::new(schema);
        let mut lines = Lines { snapshot: self, schema: &schema, steps: Vec::new(), out: Vec::new() };
        lines.value(schema.root(), Some(&self.root), None);
        lines.out
    }
}

struct Lines<'a, 's> {
    snapshot: &'s Snapshot,
    schema: &'s Schema<'a>,
    steps: Vec<Step>,
    out: Vec<Line>,
}

impl<'a> Lines<'a, '_> {
    fn push(&mut self, value: Option<String>, origin: Origin) {
        if self.out.len() < MAX_LINES {
            self.out.push(Line { key: path::show(&self.steps), value, origin });
        }
    }

    fn value(&mut self, schema: &'a Json, node: Option<&Node>, default: Option<&'a Json>) {
        if self.out.len() >= MAX_LINES || self.steps.len() > crate::tree::MAX_DEPTH {
            return;
        }
        let views = self.schema.alternatives(schema);
        match node {
            Some(node) => self.written(&views, node, default),
            None => {
                let own = views.iter().find_map(|view| view.get("default"));
                self.absent(schema, &views, own.or(default));
            }
        }
    }

    fn written(&mut self, views: &[View<'a>], node: &Node, default: Option<&'a Json>) {
        let unknown = |view: &&View<'a>| match &node.value {
            Value::Table(table) => table.keys().filter(|key| view.property(key).is_none()).count(),
            _ => 0,
        };
        let view = views.iter().filter(|view| view.takes(node)).min_by_key(unknown);
        match (&node.value, view) {
            (Value::Table(table), Some(view)) if !view.is_secret_reference() => {
                let properties = view.properties();
                for (key, schema) in &properties {
                    self.below(key, schema, table.get(*key), default.and_then(|default| default.get(*key)));
                }
                for (key, node) in table.iter().filter(|(key, _)| view.property(key).is_none()) {
                    match view.others() {
                        Others::Like(schema) if is_table(node) => self.below(key, schema, Some(node), None),
                        _ => {
                            self.steps.push(Step::Key(key.clone()));
                            self.leaf(node, mask::sounds_secret(key));
                            self.steps.pop();
                        }
                    }
                }
            }
            (Value::List { items, .. }, Some(view)) if items.iter().any(is_table) => {
                let schema = view.get("items");
                for (index, item) in items.iter().enumerate() {
                    self.steps.push(Step::Item(index));
                    match schema {
                        Some(schema) => self.value(schema, Some(item), None),
                        None => self.leaf(item, false),
                    }
                    self.steps.pop();
                }
            }
            _ => {
                let secret = views.iter().any(View::is_secret_reference) && !is_table(node) && view.is_none();
                self.leaf(node, secret);
            }
        }
    }

    fn leaf(&mut self, node: &Node, secret: bool) {
        let value = if secret { format!("\"{REDACTED}\"") } else { mask::without_url_passwords(&node.to_toml()) };
        self.push(Some(value), self.snapshot.origin_of(node.key.as_ref().unwrap_or(&node.at)));
    }

    fn absent(&mut self, schema: &'a Json, views: &[View<'a>], default: Option<&'a Json>) {
        let default = default.filter(|default| !default.is_null());
        let table = views.iter().find(|view| view.kind() == Some("object") && !view.properties().is_empty());
        match (default, table) {
            (Some(Json::Object(_)), Some(view)) => self.defaults(view, default),
            (Some(value), _) => self.push(Some(mask::without_url_passwords(&expect::toml(value))), Origin::Default),
            // A section whose keys have defaults of their own is in force without being written.
            (None, Some(view)) if views.len() == 1 && !self.schema.nullable(schema) => self.defaults(view, None),
            (None, _) => self.push(None, Origin::Default),
        }
    }

    fn defaults(&mut self, view: &View<'a>, default: Option<&'a Json>) {
        for (key, schema) in view.properties() {
            self.below(key, schema, None, default.and_then(|default| default.get(key)));
        }
    }

    fn below(&mut self, key: &str, schema: &'a Json, node: Option<&Node>, default: Option<&'a Json>) {
        if self.steps.is_empty() && key == "include" {
            return; // done with when the files were read
        }
        self.steps.push(Step::Key(key.to_owned()));
        self.value(schema, node, default);
        self.steps.pop();
    }
}

fn is_table(node: &Node) -> bool {
    matches!(node.value, Value::Table(_))
}
