//! Reading a JSON Schema (2020-12, as schemars writes it): references, alternatives, types.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use crate::tree::{Node, Value};

/// References within references; a schema that needs more is circular.
const MAX_REFS: usize = 32;
const MAX_ALTERNATIVES: usize = 64;

pub(crate) struct Schema<'a> {
    root: &'a Json,
    cache: RefCell<HashMap<usize, Rc<Vec<View<'a>>>>>,
}

/// One way a value may look: schemas that hold at once, the outermost (where descriptions and defaults are) first.
#[derive(Clone, Default)]
pub(crate) struct View<'a> {
    maps: Vec<&'a Map<String, Json>>,
    /// One entry of a `type` that is a list.
    only: Option<&'a str>,
}

/// What an object says about keys that it does not name.
pub(crate) enum Others<'a> {
    Refused,
    Any,
    Like(&'a Json),
}

impl<'a> Schema<'a> {
    pub(crate) fn new(root: &'a Json) -> Self {
        Schema { root, cache: RefCell::default() }
    }

    pub(crate) fn root(&self) -> &'a Json {
        self.root
    }

    /// All ways the value of a schema may look; `null` is none of them, since TOML has none.
    pub(crate) fn alternatives(&self, schema: &'a Json) -> Rc<Vec<View<'a>>> {
        let address = std::ptr::from_ref(schema) as usize;
        if let Some(known) = self.cache.borrow().get(&address) {
            return Rc::clone(known);
        }
        let mut views = self.expand(schema, 0);
        views.retain(|view| !view.is_null());
        let views = Rc::new(views);
        self.cache.borrow_mut().insert(address, Rc::clone(&views));
        views
    }

    /// Whether the value may be left out where a type has no default: schemars writes `null` for an `Option`.
    pub(crate) fn nullable(&self, schema: &'a Json) -> bool {
        self.expand(schema, 0).iter().any(View::is_null)
    }

    fn expand(&self, schema: &'a Json, depth: usize) -> Vec<View<'a>> {
        let map = match schema {
            Json::Bool(false) => return Vec::new(),
            Json::Object(map) => map,
            _ => return vec![View::default()],
        };
        if depth > MAX_REFS {
            return vec![View::default()];
        }
        let mut views = vec![View { maps: vec![map], only: None }];
        if let Some(target) = map.get("$ref").and_then(Json::as_str).and_then(|reference| self.follow(reference)) {
            views = product(views, &self.expand(target, depth + 1));
        }
        if let Some(all) = map.get("allOf").and_then(Json::as_array) {
            for part in all {
                views = product(views, &self.expand(part, depth + 1));
            }
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(any) = map.get(keyword).and_then(Json::as_array) {
                let branches: Vec<View<'a>> = any.iter().flat_map(|branch| self.expand(branch, depth + 1)).collect();
                views = product(views, &branches);
            }
        }
        if let Some(types) = map.get("type").and_then(Json::as_array) {
            let types: Vec<&str> = types.iter().filter_map(Json::as_str).collect();
            views = views
                .iter()
                .flat_map(|view| types.iter().map(|only| View { only: Some(only), ..view.clone() }))
                .collect();
        }
        views
    }

    fn follow(&self, reference: &str) -> Option<&'a Json> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    /// The name of the definition a schema refers to, possibly through `anyOf` with null.
    pub(crate) fn definition(&self, schema: &'a Json) -> Option<&'a str> {
        let direct = |schema: &'a Json| {
            schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.rsplit('/').next())
        };
        direct(schema).or_else(|| {
            let branches = schema.get("anyOf").and_then(Json::as_array)?;
            let mut named = branches.iter().filter_map(direct);
            let first = named.next()?;
            (branches.len() == 2 && named.next().is_none()).then_some(first)
        })
    }
}

fn product<'a>(left: Vec<View<'a>>, right: &[View<'a>]) -> Vec<View<'a>> {
    let mut out = Vec::new();
    for one in &left {
        for other in right {
            if out.len() >= MAX_ALTERNATIVES {
                return out;
            }
            let maps = one.maps.iter().chain(&other.maps).copied().collect();
            out.push(View { maps, only: one.only.or(other.only) });
        }
    }
    out
}

impl<'a> View<'a> {
    /// The outermost value of a keyword.
    pub(crate) fn get(&self, keyword: &str) -> Option<&'a Json> {
        self.maps.iter().find_map(|map| map.get(keyword))
    }

    pub(crate) fn text(&self, keyword: &str) -> Option<&'a str> {
        self.get(keyword).and_then(Json::as_str)
    }

    /// One value of an enumeration with what is said about it.
    pub(crate) fn meaning(&self) -> Option<(&'a Json, &'a str)> {
        let map = self.maps.last().filter(|_| self.maps.len() > 1)?;
        Some((map.get("const")?, map.get("description")?.as_str()?))
    }

    fn flag(&self, keyword: &str) -> bool {
        self.maps.iter().any(|map| map.get(keyword).and_then(Json::as_bool) == Some(true))
    }

    pub(crate) fn deprecated(&self) -> bool {
        self.flag("deprecated")
    }

    /// The JSON type, also where only other keywords tell it.
    pub(crate) fn kind(&self) -> Option<&'a str> {
        self.only.or_else(|| self.text("type")).or_else(|| {
            if let Some(value) = self.get("const").or_else(|| self.get("enum")?.get(0)) {
                return Some(View::kind_of(value));
            }
            let has = |keyword| self.get(keyword).is_some();
            if has("properties") || has("additionalProperties") || has("required") {
                Some("object")
            } else if has("items") || has("prefixItems") {
                Some("array")
            } else if has("format") || has("pattern") {
                Some("string")
            } else {
                None
            }
        })
    }

    /// The JSON type of a value.
    pub(crate) fn kind_of(value: &Json) -> &'static str {
        match value {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(number) if number.is_f64() => "number",
            Json::Number(_) => "integer",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    fn is_null(&self) -> bool {
        self.kind() == Some("null")
    }

    /// The values this may have and no other.
    pub(crate) fn constants(&self) -> Option<Vec<&'a Json>> {
        if let Some(value) = self.get("const") {
            return Some(vec![value]);
        }
        let list = self.get("enum")?.as_array()?;
        Some(list.iter().filter(|value| !value.is_null()).collect())
    }

    /// Named keys in the order of declaration, each once.
    pub(crate) fn properties(&self) -> Vec<(&'a str, &'a Json)> {
        let mut out: Vec<(&str, &Json)> = Vec::new();
        for map in &self.maps {
            for (key, schema) in map.get("properties").and_then(Json::as_object).into_iter().flatten() {
                if !out.iter().any(|(known, _)| *known == key.as_str()) {
                    out.push((key, schema));
                }
            }
        }
        out
    }

    pub(crate) fn property(&self, key: &str) -> Option<&'a Json> {
        self.maps.iter().find_map(|map| map.get("properties")?.get(key))
    }

    pub(crate) fn others(&self) -> Others<'a> {
        let mut others = None;
        for map in &self.maps {
            let said = map.get("additionalProperties").or_else(|| map.get("unevaluatedProperties"));
            match said {
                Some(Json::Bool(false)) => return Others::Refused,
                Some(Json::Bool(true)) => others = others.or(Some(Others::Any)),
                Some(schema) => others = Some(Others::Like(schema)),
                None => {}
            }
        }
        // A table with named keys is closed even where the schema forgot to say so: a key nobody reads is a mistake.
        let named = self.maps.iter().any(|map| map.contains_key("properties"));
        others.unwrap_or(if named { Others::Refused } else { Others::Any })
    }

    pub(crate) fn required(&self) -> Vec<&'a str> {
        let lists = self.maps.iter().filter_map(|map| map.get("required").and_then(Json::as_array));
        lists.flatten().filter_map(Json::as_str).collect()
    }

    pub(crate) fn number(&self, keyword: &str) -> Option<f64> {
        self.get(keyword).and_then(Json::as_f64)
    }

    pub(crate) fn size(&self, keyword: &str) -> Option<usize> {
        self.get(keyword).and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok())
    }

    /// Formats of text; those that name widths of numbers are none.
    pub(crate) fn format(&self) -> Option<&'a str> {
        self.text("format")
    }

    /// Whether this is a reference to the secret store: `{ secret = "name" }`.
    pub(crate) fn is_secret_reference(&self) -> bool {
        if self.flag("x-secret") {
            return true;
        }
        let properties = self.properties();
        matches!(properties.as_slice(), [("secret", _)])
    }

    /// Whether this is for texts that are no secrets, beside a reference to the secret store for those that are.
    pub(crate) fn is_public(&self) -> bool {
        self.flag("x-public")
    }

    /// Whether a value is of the type that this asks for.
    pub(crate) fn takes(&self, node: &Node) -> bool {
        let Some(kind) = self.kind() else { return true };
        match &node.value {
            Value::String(_) => kind == "string",
            Value::Datetime(_) => {
                kind == "string" && matches!(self.format(), Some("date-time" | "date" | "time" | "timestamp"))
            }
            Value::Integer(_) => kind == "integer" || kind == "number",
            Value::Float(_) => kind == "number",
            Value::Boolean(_) => kind == "boolean",
            Value::List { .. } => kind == "array",
            Value::Table(_) => kind == "object",
        }
    }
}
