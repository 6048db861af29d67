//! The policy as a tree of values that know their place, and how one text lies over another.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::path::Step;
use crate::source::Place;

/// Deeper tables and lists are refused: every later walk is recursive.
pub(crate) const MAX_DEPTH: usize = 48;

pub(crate) type Table = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where the key is written; none for items of a list and the root.
    pub(crate) key: Option<Place>,
    /// Where the value is written; for a `[table]` its header.
    pub(crate) at: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Kept as text (RFC 3339, or its date or time part alone).
    Datetime(String),
    /// `headers`: written as `[[name]]`, so that the next file's items are appended.
    List {
        items: Vec<Node>,
        headers: bool,
    },
    Table(Table),
}

impl Value {
    /// What people call this kind of value, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(true) => "`true`",
            Value::Boolean(false) => "`false`",
            Value::Datetime(_) => "a date",
            Value::List { .. } => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(crate) fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get(key),
            (Value::List { items, .. }, Step::Item(index)) => items.get(*index),
            _ => None,
        }
    }

    pub(crate) fn find(&self, steps: &[Step]) -> Option<&Node> {
        steps.iter().try_fold(self, |node, step| node.child(step))
    }

    pub(crate) fn find_mut(&mut self, steps: &[Step]) -> Option<&mut Node> {
        steps.iter().try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get_mut(key),
            (Value::List { items, .. }, Step::Item(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// The value as TOML on one line.
    pub(crate) fn to_toml(&self) -> String {
        match &self.value {
            Value::String(text) => toml::Value::String(text.clone()).to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => toml::Value::Float(*number).to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::Datetime(text) => text.clone(),
            Value::List { items, .. } => {
                format!("[{}]", items.iter().map(Node::to_toml).collect::<Vec<_>>().join(", "))
            }
            Value::Table(table) if table.is_empty() => "{}".to_owned(),
            Value::Table(table) => {
                let entries =
                    table.iter().map(|(key, node)| format!("{} = {}", crate::path::show_key(key), node.to_toml()));
                format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// What TOML allows and a policy cannot hold.
pub(crate) struct Unfit {
    pub(crate) at: Place,
    pub(crate) message: &'static str,
    pub(crate) fix: &'static str,
}

/// Turns what the parser made of one text into a tree; `shift` moves its spans (an environment variable's value is parsed
/// alone, and shown behind its name).
pub(crate) struct Build<'a> {
    pub(crate) source: usize,
    pub(crate) shift: usize,
    pub(crate) unfit: &'a mut Vec<Unfit>,
}

impl Build<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place::new(self.source, span.start + self.shift..span.end + self.shift)
    }

    pub(crate) fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Table {
        let mut out = Table::new();
        for (key, value) in table.iter() {
            let key_place = self.place(key.span());
            if depth >= MAX_DEPTH {
                self.too_deep(key_place);
                return out;
            }
            let mut node = self.node(value, depth + 1);
            node.key = Some(key_place);
            out.insert(key.get_ref().to_string(), node);
        }
        out
    }

    pub(crate) fn node(&mut self, value: &toml::Spanned<DeValue<'_>>, depth: usize) -> Node {
        let at = self.place(value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    let fix = "whole numbers have 64 bits, from -9223372036854775808 to 9223372036854775807";
                    self.unfit.push(Unfit { at: at.clone(), message: "this number is too large", fix });
                    Value::Integer(0)
                }
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => {
                    let fix = "write a finite number";
                    self.unfit.push(Unfit { at: at.clone(), message: "this is not a number a policy can use", fix });
                    Value::Float(0.0)
                }
            },
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Array(array) => {
                if depth >= MAX_DEPTH {
                    self.too_deep(at.clone());
                    return Node { key: None, at, value: Value::List { items: Vec::new(), headers: false } };
                }
                let items: Vec<Node> = array.iter().map(|item| self.node(item, depth + 1)).collect();
                // A list of `[[name]]` begins with the span of its first header, which is the span of its first item too.
                let headers = items.first().is_some_and(|item| item.at == at);
                Value::List { items, headers }
            }
            DeValue::Table(table) => Value::Table(self.table(table, depth)),
        };
        Node { key: None, at, value }
    }

    fn too_deep(&mut self, at: Place) {
        let fix = "a policy is at most 48 tables and lists deep";
        if self.unfit.last().is_none_or(|last| last.fix != fix) {
            self.unfit.push(Unfit { at, message: "this is nested too deeply", fix });
        }
    }
}

/// Lays one tree over another: tables merge key by key, `[[lists]]` append, anything else is replaced.
/// `keep_place` says whether a place of the lower tree may stand for a table that both have.
pub(crate) fn lay_over(lower: &mut Node, upper: Node, keep_place: &dyn Fn(&Place) -> bool) {
    match (&mut lower.value, upper.value) {
        (Value::Table(below), Value::Table(above)) => {
            for (key, node) in above {
                match below.get_mut(&key) {
                    Some(existing) => lay_over(existing, node, keep_place),
                    None => {
                        below.insert(key, node);
                    }
                }
            }
            if !keep_place(&lower.at) {
                lower.at = upper.at;
                lower.key = upper.key;
            }
        }
        (Value::List { items: below, headers }, Value::List { items: above, headers: true })
            if below.iter().all(|item| matches!(item.value, Value::Table(_))) =>
        {
            below.extend(above);
            *headers = true;
        }
        (_, value) => *lower = Node { key: upper.key, at: upper.at, value },
    }
}
