//! The operations of one application, each with what holds for it; and what of a changed document has to wait.
//!
//! Threats 13: who can change the document must not open anything by it. What an operation asked for is remembered, and
//! what asks for less waits, in production, until somebody accepts it; what asks for more holds at once.

use std::collections::BTreeMap;

use palisade_openapi::{Document, Method, Operation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::needs::Needs;
use super::requirement::Requirement;

/// Operations that are remembered, those of earlier documents too.
const MOST: usize = 2 * palisade_openapi::MAX_OPERATIONS;

/// What each operation asked for when it was last in force, by [`name`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Remembered(BTreeMap<String, Requirement>);

/// The operations of one document.
#[derive(Debug)]
pub(crate) struct Table {
    document: Document,
    /// In the order of the document.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    in_force: Requirement,
    /// What the document asks for, where that is less and nobody has accepted it.
    waiting: Option<Requirement>,
    /// `in_force` as routes ask it; none where everybody may.
    any_of: Option<Vec<Needs>>,
}

/// What a request is to the document.
#[derive(Debug)]
pub(crate) enum Found<'t> {
    /// It is not in it.
    Undeclared,
    /// Everybody may.
    Open,
    /// All of these ask for one of theirs.
    Asks(Vec<&'t [Needs]>),
}

/// What an operation is called: parameters have no names here, for another name is no other operation.
fn name(operation: &Operation) -> String {
    let mut out = format!("{} ", operation.method.as_str());
    let mut within = false;
    for character in operation.path.as_str().chars() {
        match character {
            '{' => {
                within = true;
                out.push_str("{}");
            }
            '}' => within = false,
            other if !within => out.push(other),
            _ => {}
        }
    }
    out
}

impl Table {
    /// Of a document. `waits`: what opens waits until it is accepted.
    pub(crate) fn new(document: Document, remembered: &mut Remembered, waits: bool) -> Self {
        let entries = document.operations().iter().map(|operation| {
            let wanted = Requirement::of(&operation.security);
            let name = name(operation);
            let before = remembered.0.get(&name).cloned().unwrap_or_else(Requirement::login);
            if waits && wanted.is_laxer_than(&before) {
                return Entry { any_of: before.needs(), in_force: before, waiting: Some(wanted) };
            }
            // Full of operations that are gone: this one is then judged as one that is new, which is stricter.
            if remembered.0.len() < MOST || remembered.0.contains_key(&name) {
                remembered.0.insert(name, wanted.clone());
            }
            Entry { any_of: wanted.needs(), in_force: wanted, waiting: None }
        });
        let entries = entries.collect();
        Self { document, entries }
    }

    /// Remembers of some operations what the document asks for, and of no others than it has. `names`: as
    /// `palisade openapi access` shows them; all that wait where empty.
    ///
    /// # Errors
    /// A name of nothing that waits.
    pub(crate) fn accept(&self, names: &[String], remembered: &mut Remembered) -> Result<Vec<String>, String> {
        let waiting: Vec<(String, &Operation, &Requirement)> = self
            .pairs()
            .filter_map(|(operation, entry)| Some((shown(operation), operation, entry.waiting.as_ref()?)))
            .collect();
        if let Some(other) = names.iter().find(|name| !waiting.iter().any(|(shown, _, _)| shown == *name)) {
            return Err(format!("`{other}` does not wait: `palisade openapi access` lists what does"));
        }
        let mut accepted = Vec::new();
        for (shown, operation, wanted) in waiting {
            if names.is_empty() || names.contains(&shown) {
                remembered.0.insert(name(operation), wanted.clone());
                accepted.push(shown);
            }
        }
        let there: std::collections::HashSet<String> = self.document.operations().iter().map(name).collect();
        remembered.0.retain(|name, _| there.contains(name));
        Ok(accepted)
    }

    /// What a request is to the document. `path`: as the application gets it, normalised.
    pub(crate) fn find(&self, path: &str, method: &str) -> Found<'_> {
        let Some(method) = Method::of(method) else { return Found::Undeclared };
        let found = self.document.find(path, method);
        if found.is_empty() {
            return Found::Undeclared;
        }
        let asks: Vec<&[Needs]> =
            found.iter().filter_map(|number| self.entries.get(*number)?.any_of.as_deref()).collect();
        if asks.is_empty() { Found::Open } else { Found::Asks(asks) }
    }

    fn pairs(&self) -> impl Iterator<Item = (&Operation, &Entry)> {
        self.document.operations().iter().zip(&self.entries)
    }

    /// The operations that wait.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.pairs().filter(|(_, entry)| entry.waiting.is_some()).map(|(operation, _)| shown(operation)).collect()
    }

    /// For `palisade openapi access`.
    pub(crate) fn shown(&self) -> Vec<Value> {
        let row = |(operation, entry): (&Operation, &Entry)| {
            json!({
                "method": operation.method.as_str(),
                "path": operation.path.as_str(),
                "operation_id": operation.id,
                "for": entry.in_force.shown(),
                "waiting": entry.waiting.as_ref().map(Requirement::shown),
            })
        };
        self.pairs().map(row).collect()
    }
}

fn shown(operation: &Operation) -> String {
    format!("{} {}", operation.method.as_str(), operation.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(paths: &str) -> Document {
        let text = format!(
            r#"{{"openapi":"3.1.0","paths":{{{paths}}},"components":{{"securitySchemes":{{"o":{{"type":"oauth2"}}}}}}}}"#
        );
        Document::parse(text.as_bytes()).unwrap()
    }

    fn of(table: &Table, path: &str, method: &str) -> &'static str {
        match table.find(path, method) {
            Found::Undeclared => "undeclared",
            Found::Open => "open",
            Found::Asks(asks) if asks.iter().all(|any_of| any_of.iter().all(|needs| needs.scopes.is_empty())) => {
                "login"
            }
            Found::Asks(_) => "scopes",
        }
    }

    const LOGIN: &str = r#"[{"o":[]}]"#;
    const SCOPE: &str = r#"[{"o":["a"]}]"#;

    #[test]
    fn what_opens_waits_and_what_closes_does_not() {
        let mut remembered = Remembered::default();
        let op = |security: &str| format!(r#""/a/{{id}}":{{"get":{{"security":{security}}}}}"#);
        let mut put = |paths: &str| Table::new(document(paths), &mut remembered, true);
        // A first document opens nothing either.
        let first = put(&op("[]"));
        assert_eq!((of(&first, "/a/1", "GET"), first.waiting()), ("login", vec!["GET /a/{id}".to_owned()]));
        let scoped = put(&op(SCOPE));
        assert_eq!((of(&scoped, "/a/1", "GET"), scoped.waiting()), ("scopes", vec![]));
        for looser in [op(LOGIN), op("[]"), op("[{}]"), op(r#"[{"o":["a"]},{"o":[]}]"#)] {
            let table = put(&looser);
            assert_eq!((of(&table, "/a/1", "GET"), table.waiting().len()), ("scopes", 1), "{looser}");
        }
        // Gone and back, and under another name of its parameter: it is the same operation.
        let gone = put(r#""/b":{"get":{}}"#);
        assert_eq!(of(&gone, "/a/1", "GET"), "undeclared");
        let back = put(&op("[]").replace("{id}", "{other}"));
        assert_eq!(of(&back, "/a/1", "GET"), "scopes");
        let unknown = back.accept(&["GET /a/{id}".into()], &mut remembered).unwrap_err();
        assert!(unknown.contains("does not wait"), "{unknown}");
        assert_eq!(back.accept(&[], &mut remembered), Ok(vec!["GET /a/{other}".to_owned()]));
        let open = Table::new(document(&op("[]")), &mut remembered, true);
        assert_eq!(
            (of(&open, "/a/1", "GET"), of(&open, "/a/1", "HEAD"), of(&open, "/a/1", "POST")),
            ("open", "open", "undeclared")
        );
        assert_eq!(of(&open, "/b", "GET"), "undeclared");
        // What was accepted is not what comes next.
        let next = Table::new(document(&format!(r#"{},"/b":{{"get":{{}}}}"#, op(SCOPE))), &mut remembered, true);
        assert_eq!((of(&next, "/a/1", "GET"), of(&next, "/b", "GET")), ("scopes", "login"));
        let text = serde_json::to_string(&remembered).unwrap();
        assert_eq!(serde_json::from_str::<Remembered>(&text).unwrap(), remembered);
    }

    #[test]
    fn in_development_nothing_waits() {
        let mut remembered = Remembered::default();
        let table = Table::new(document(r#""/a":{"get":{}}"#), &mut remembered, false);
        assert_eq!((of(&table, "/a", "GET"), table.waiting()), ("open", vec![]));
    }
}
