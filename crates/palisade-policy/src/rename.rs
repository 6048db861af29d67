//! Old names of keys: `x-renamed-from` on a property names what it was called before; a value under the old name is moved.

use serde_json::Value as Json;

use crate::check::Finding;
use crate::path::{self, Step};
use crate::problem::Severity;
use crate::schema::{Others, Schema};
use crate::tree::{Node, Value};

/// Moves every value under an old name to its new one, and says so.
pub(crate) fn apply(schema: &Schema<'_>, root: &mut Node, found: &mut Vec<Finding>) {
    let mut moves = Vec::new();
    moved(schema, schema.root(), &mut Vec::new(), &mut moves);
    for (old, new) in moves {
        relocate(root, &old, &new, found);
    }
    within(schema, schema.root(), root, &mut Vec::new(), found);
}

fn old_names(property: &Json) -> Vec<&str> {
    match property.get("x-renamed-from") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Old names with a dot are paths from the top: keys that went to another section.
fn moved<'a>(schema: &Schema<'a>, json: &'a Json, steps: &mut Vec<Step>, out: &mut Vec<(Vec<Step>, Vec<Step>)>) {
    if steps.len() > 3 {
        return;
    }
    for view in schema.alternatives(json).iter() {
        for (key, property) in view.properties() {
            steps.push(Step::Key(key.to_owned()));
            for old in old_names(property).into_iter().filter(|old| old.contains('.')) {
                out.push((path::parse(old), steps.clone()));
            }
            moved(schema, property, steps, out);
            steps.pop();
        }
    }
}

fn relocate(root: &mut Node, old: &[Step], new: &[Step], found: &mut Vec<Finding>) {
    let (Some((Step::Key(old_key), old_table)), Some((Step::Key(new_key), new_table))) =
        (old.split_last(), new.split_last())
    else {
        return;
    };
    if root.find(old).is_none() {
        return;
    }
    if root.find(new).is_some() {
        found.push(both(old, &path::show(new)));
        return;
    }
    let Some(Value::Table(table)) = root.find_mut(old_table).map(|node| &mut node.value) else { return };
    let Some(node) = table.remove(old_key) else { return };
    let mut target = root;
    for step in new_table {
        let Step::Key(key) = step else { return };
        let Value::Table(table) = &mut target.value else { return };
        target = table.entry(key.clone()).or_insert_with(|| Node {
            key: node.key.clone(),
            at: node.key.clone().unwrap_or_else(|| node.at.clone()),
            value: Value::Table(crate::tree::Table::new()),
        });
    }
    if let Value::Table(table) = &mut target.value {
        table.insert(new_key.clone(), node);
        found.push(renamed(new, &path::show(old), &path::show(new)));
    }
}

fn within<'a>(schema: &Schema<'a>, json: &'a Json, node: &mut Node, steps: &mut Vec<Step>, found: &mut Vec<Finding>) {
    for view in schema.alternatives(json).iter() {
        match &mut node.value {
            Value::Table(table) => {
                for (key, property) in view.properties() {
                    for old in old_names(property).into_iter().filter(|old| !old.contains('.')) {
                        if !table.contains_key(old) || view.property(old).is_some() {
                            continue;
                        }
                        if table.contains_key(key) {
                            steps.push(Step::Key(old.to_owned()));
                            found.push(both(steps, key));
                            steps.pop();
                        } else if let Some(value) = table.remove(old) {
                            table.insert(key.to_owned(), value);
                            steps.push(Step::Key(key.to_owned()));
                            found.push(renamed(steps, old, key));
                            steps.pop();
                        }
                    }
                }
                for (key, child) in table.iter_mut() {
                    let below = view.property(key).or(match view.others() {
                        Others::Like(schema) => Some(schema),
                        _ => None,
                    });
                    let Some(below) = below else { continue };
                    steps.push(Step::Key(key.clone()));
                    within(schema, below, child, steps, found);
                    steps.pop();
                }
            }
            Value::List { items, .. } => {
                let Some(below) = view.get("items") else { continue };
                for (index, item) in items.iter_mut().enumerate() {
                    steps.push(Step::Item(index));
                    within(schema, below, item, steps, found);
                    steps.pop();
                }
            }
            _ => {}
        }
    }
}

fn renamed(at: &[Step], old: &str, new: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        steps: at.to_vec(),
        at_key: true,
        message: format!("`{old}` is now called `{new}`"),
        fix: format!("write `{new}`; the old name works for a year"),
    }
}

fn both(at: &[Step], new: &str) -> Finding {
    let old = path::show(at.get(at.len().saturating_sub(1)..).unwrap_or_default());
    Finding {
        severity: Severity::Error,
        steps: at.to_vec(),
        at_key: true,
        message: format!("`{old}` is the old name of `{new}`, which is given too"),
        fix: format!("keep `{new}`"),
    }
}
