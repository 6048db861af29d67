//! The walk of the tree beside the schema: everything that is wrong, in one go.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::expect::{self, example, expected};
use crate::mask::{self, REDACTED};
use crate::path::{self, Step, show_key};
use crate::problem::{Problems, Severity};
use crate::rename;
use crate::schema::{Others, Schema, View};
use crate::snapshot::Snapshot;
use crate::source::{Kind, Texts};
use crate::suggest::{self, Known};
use crate::tree::{Node, Table, Value};

/// Checks of texts whose schema has a `format`: its name, and a function that says what is wrong. The functions are told
/// no key, so they write "expected …" rather than "`max_age` …".
pub type Formats<'a> = &'a [(&'a str, fn(&str) -> Result<(), String>)];

/// Findings of one walk; more are not looked for, since each costs a search for what was meant.
const MAX_FINDINGS: usize = 1000;
/// Nodes looked at, alternatives tried included, before alternatives are no longer tried.
const MAX_VISITS: usize = 2_000_000;

/// A problem without its place, so that alternatives can be tried and dropped.
#[derive(Clone)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) steps: Vec<Step>,
    pub(crate) at_key: bool,
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl Snapshot {
    /// Compares everything that is written with a JSON Schema and reports all that does not fit: unknown keys, wrong
    /// types, values, ranges, texts against `formats`, missing keys, old names (`x-renamed-from`; their values move to the
    /// new name, for which the snapshot is `mut`).
    ///
    /// Of the schema these keywords count: `$ref`, `type`, `properties`, `additionalProperties` (a table with
    /// `properties` is closed unless this says otherwise), `required`, `items`, `prefixItems`, `minItems`, `maxItems`,
    /// `uniqueItems`, `anyOf`, `oneOf`, `allOf`, `const`, `enum`, `format`, `minimum`, `maximum` and their exclusive forms,
    /// `minLength`, `maxLength`, `deprecated`, `default`, `examples`, and the extensions `x-renamed-from` (a name or a
    /// list; with a dot a path from the top), `x-expected` (what to call the expected value), `x-why` (why only these values exist), `x-secret` (a reference to the
    /// secret store; an object with the one key `secret` is one as well), `x-public` (texts beside such a reference are no
    /// secrets). `pattern` is left to `formats`.
    pub fn check(&mut self, schema: &Json, formats: Formats<'_>, problems: &mut Problems) {
        let schema = Schema::new(schema);
        let mut findings = Vec::new();
        rename::apply(&schema, Arc::make_mut(&mut self.root), &mut findings);
        problems.tree = Arc::clone(&self.root);
        self.keep_from_environment(&mut findings);
        let mut walk = Walk {
            schema: &schema,
            formats,
            texts: &self.texts,
            index: None,
            found: findings,
            steps: Vec::new(),
            visits: 0,
        };
        walk.value(&self.root, schema.root());
        for finding in walk.found {
            problems.add_steps(finding.severity, &finding.steps, finding.at_key, &finding.message, &finding.fix);
        }
    }
}

impl Snapshot {
    /// The mode and routes never come from the environment, under an old name as little as under their own.
    fn keep_from_environment(&self, found: &mut Vec<Finding>) {
        let from_environment =
            |node: &Node| self.texts.get(&node.at).is_some_and(|text| matches!(text.kind, Kind::Env(_)));
        for path in ["server.mode", "route"] {
            let steps = path::parse(path);
            let Some(node) = self.root.find(&steps) else { continue };
            let items = match &node.value {
                Value::List { items, .. } => items.as_slice(),
                _ => &[],
            };
            if from_environment(node) || items.iter().any(from_environment) {
                let message = format!("`{path}` cannot be set by the environment");
                let fix = "write it into the policy file".to_owned();
                found.push(Finding { severity: Severity::Error, steps, at_key: true, message, fix });
            }
        }
    }
}

struct Walk<'a, 's> {
    schema: &'s Schema<'a>,
    formats: Formats<'s>,
    texts: &'s Texts,
    index: Option<Vec<Known>>,
    found: Vec<Finding>,
    steps: Vec<Step>,
    visits: usize,
}

impl<'a> Walk<'a, '_> {
    fn error(&mut self, message: String, fix: String) {
        self.add(Severity::Error, false, message, fix);
    }

    fn add(&mut self, severity: Severity, at_key: bool, message: String, fix: String) {
        if self.found.len() < MAX_FINDINGS {
            self.found.push(Finding { severity, steps: self.steps.clone(), at_key, message, fix });
        }
    }

    /// What a message calls the value in hand: the last key on the way to it.
    fn name(&self) -> String {
        let key = self.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(show_key(key)),
            Step::Item(_) => None,
        });
        key.map_or_else(|| "the policy".to_owned(), |key| format!("`{key}`"))
    }

    /// A name for a secret at this place: `redis-url` for `[redis] url`.
    fn secret_name(&self) -> String {
        let mut keys = self.steps.iter().rev().filter_map(|step| match step {
            Step::Key(key) => Some(key.replace('_', "-")),
            Step::Item(_) => None,
        });
        match (keys.next(), keys.next()) {
            (Some(key), Some(section)) if key.len() <= 8 => format!("{section}-{key}"),
            (Some(key), _) => key,
            (None, _) => "name".to_owned(),
        }
    }

    /// `key = value` as it could be written; inside a list the value alone.
    fn assignment(&self, value: &str) -> String {
        match self.steps.last() {
            Some(Step::Key(key)) => format!("`{} = {value}`", show_key(key)),
            _ => format!("`{value}`"),
        }
    }

    fn value(&mut self, node: &Node, schema: &'a Json) {
        self.visits += 1;
        if self.found.len() >= MAX_FINDINGS {
            return;
        }
        let views = self.schema.alternatives(schema);
        let secret = views.iter().any(View::is_secret_reference) && !views.iter().any(View::is_public);
        let fitting: Vec<View<'a>> = views.iter().filter(|view| view.takes(node)).cloned().collect();
        let before = self.found.len();
        if fitting.is_empty() {
            if secret { self.inline_secret(&views) } else { self.wrong_type(node, &views) }
        } else {
            match &node.value {
                Value::String(text) => self.text(text, &fitting, secret),
                Value::Datetime(_) => {}
                Value::Integer(number) => self.number(*number as f64, Some(*number), &fitting),
                Value::Float(number) => self.number(*number, None, &fitting),
                Value::Boolean(value) => self.boolean(*value, &fitting),
                Value::List { items, .. } => self.best(node, &fitting, |walk, view| walk.list(items, view)),
                Value::Table(table) => self.best(node, &fitting, |walk, view| walk.table(table, view)),
            }
        }
        if secret && self.found.len() > before {
            hide_all(self.texts, node);
        }
    }

    /// Reports against the alternative that fits best.
    fn best(&mut self, node: &Node, views: &[View<'a>], mut check: impl FnMut(&mut Self, &View<'a>)) {
        let Some((first, others)) = views.split_first() else { return };
        if others.is_empty() || self.visits > MAX_VISITS {
            check(self, first);
            return;
        }
        let start = self.found.len();
        let mut best: Option<((usize, usize), Vec<Finding>)> = None;
        for view in views {
            check(self, view);
            let found = self.found.split_off(start);
            let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
            // Of tables the one that knows most of the keys was meant, however much is wrong with them.
            let strange = match &node.value {
                Value::Table(table) => table.keys().filter(|key| view.property(key).is_none()).count(),
                _ => 0,
            };
            let score = (strange, errors);
            if errors == 0 || best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, found));
            }
            if errors == 0 {
                break;
            }
        }
        self.found.extend(best.map(|(_, found)| found).unwrap_or_default());
    }

    fn wrong_type(&mut self, node: &Node, views: &[View<'a>]) {
        let name = self.name();
        let message = format!("{name} takes {}, not {}", expected(views), node.value.kind());
        let fix = self.type_fix(node, views);
        self.error(message, fix);
    }

    fn type_fix(&self, node: &Node, views: &[View<'a>]) -> String {
        let of = |kind: &str| views.iter().find(|view| view.kind() == Some(kind));
        match &node.value {
            Value::String(text) => {
                let unquoted = match text.trim() {
                    "true" | "false" => of("boolean").is_some(),
                    number => {
                        (of("integer").is_some() && number.parse::<i64>().is_ok())
                            || (of("number").is_some() && number.parse::<f64>().is_ok_and(f64::is_finite))
                    }
                };
                if unquoted {
                    return format!("take the quotes away: {}", self.assignment(text.trim()));
                }
            }
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => {
                let quoted = node.to_toml();
                let fits = views.iter().any(|view| view.kind() == Some("string") && self.text_fits(&quoted, view));
                if fits {
                    return format!("put it into quotes: {}", self.assignment(&format!("\"{quoted}\"")));
                }
            }
            Value::Table(_) => {
                let tables =
                    of("array").and_then(|view| view.get("items")).map(|items| self.schema.alternatives(items));
                if tables.is_some_and(|views| views.iter().any(|view| view.kind() == Some("object"))) {
                    let name = path::show(&self.steps);
                    return if name.contains('[') {
                        "put it into square brackets: it may be given several times".to_owned()
                    } else {
                        format!("write `[[{name}]]`, with two brackets: it may be given several times")
                    };
                }
            }
            Value::List { items, headers: true } if of("object").is_some() => {
                let name = path::show(&self.steps);
                let once = if items.len() > 1 { ", and only once" } else { "" };
                return format!("write `[{name}]`, with one bracket{once}");
            }
            Value::List { items, .. } => {
                if let [item] = items.as_slice()
                    && views.iter().any(|view| view.takes(item))
                {
                    return format!("write it without brackets: {}", self.assignment(&item.to_toml()));
                }
            }
            Value::Boolean(_) => {}
        }
        if let Some(view) = of("array") {
            let items = view.get("items").map(|items| self.schema.alternatives(items));
            if items.is_some_and(|items| items.iter().any(|item| item.takes(node))) {
                return format!("write it as a list: {}", self.assignment(&format!("[{}]", node.to_toml())));
            }
        }
        self.example_of(views)
    }

    fn example_of(&self, views: &[View<'a>]) -> String {
        views
            .first()
            .map_or_else(String::new, |view| format!("for example {}", self.assignment(&example(self.schema, view, 0))))
    }

    fn inline_secret(&mut self, views: &[View<'a>]) {
        let name = self.name();
        let stored = self.secret_name();
        let others: Vec<View<'a>> = views.iter().filter(|view| !view.is_secret_reference()).cloned().collect();
        let or = if others.is_empty() { String::new() } else { format!(", or {}", expected(&others)) };
        let reference = self.assignment(&format!("{{ secret = \"{stored}\" }}"));
        let message = format!("{name} is a secret, and secrets are never in the policy");
        self.error(message, format!("put it into the secret store and write {reference}{or}"));
    }

    fn text_fits(&self, text: &str, view: &View<'_>) -> bool {
        match view.constants() {
            Some(constants) => constants.iter().any(|constant| constant.as_str() == Some(text)),
            None => self.text_problem(text, view).is_none(),
        }
    }

    /// What is wrong with a text that is not one of fixed values.
    fn text_problem(&self, text: &str, view: &View<'_>) -> Option<String> {
        let length = || text.chars().count();
        if let Some(least) = view.size("minLength").filter(|least| length() < *least) {
            return Some(if least == 1 {
                "is empty".to_owned()
            } else {
                format!("is shorter than {least} characters")
            });
        }
        if let Some(most) = view.size("maxLength").filter(|most| length() > *most) {
            return Some(format!("is longer than {most} characters"));
        }
        let format = view.format()?;
        let (_, check) = self.formats.iter().find(|(name, _)| *name == format)?;
        check(text).err().map(|why| format!("is not {}: {why}", expected(std::slice::from_ref(view))))
    }

    fn text(&mut self, text: &str, views: &[View<'a>], secret: bool) {
        let constants: Vec<&str> =
            views.iter().filter_map(View::constants).flatten().filter_map(Json::as_str).collect();
        if constants.contains(&text) {
            return;
        }
        let free: Vec<View<'a>> = views.iter().filter(|view| view.constants().is_none()).cloned().collect();
        let mut why = None;
        for view in &free {
            match self.text_problem(text, view) {
                None => return,
                Some(problem) => why = why.or(Some(problem)),
            }
        }
        let name = self.name();
        let likely =
            suggest::closest(text, constants.iter().copied()).map(|likely| format!("did you mean `\"{likely}\"`?"));
        let all = || constants.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", ");
        let (message, fix) = match why {
            Some(why) => {
                let example = self.example_of(&free);
                let or = if constants.is_empty() { String::new() } else { format!(", or {}", all()) };
                (format!("{name} {why}"), likely.unwrap_or_else(|| format!("{example}{or}")))
            }
            None => {
                let shown: String = text.chars().take(60).collect();
                let message = format!("{name} cannot be `\"{shown}\"`");
                let reason = views.iter().find_map(|view| view.text("x-why")).map(str::to_owned);
                let listed = || match likely {
                    None => format!("write one of {}", all()),
                    Some(likely) => format!("{likely} it can be {}", all()),
                };
                (message, reason.unwrap_or_else(listed))
            }
        };
        if secret {
            // The text may be the secret itself, so it must not come back in a message.
            let message = if text.is_empty() { message } else { message.replace(text, REDACTED) };
            let stored = self.secret_name();
            let reference = self.assignment(&format!("{{ secret = \"{stored}\" }}"));
            self.error(message, format!("write what is asked for, or {reference}"));
        } else {
            self.error(message, fix);
        }
    }

    fn number(&mut self, number: f64, whole: Option<i64>, views: &[View<'a>]) {
        let mut why = None;
        for view in views {
            match number_problem(number, whole, view) {
                None => return,
                Some(problem) => why = why.or(Some(problem)),
            }
        }
        if let Some((message, fix)) = why {
            let name = self.name();
            self.error(format!("{name} {message}"), fix);
        }
    }

    fn boolean(&mut self, value: bool, views: &[View<'a>]) {
        let allows =
            |view: &View<'_>| view.constants().is_none_or(|all| all.iter().any(|one| one.as_bool() == Some(value)));
        if !views.iter().any(allows) {
            let message = format!("{} cannot be `{value}`", self.name());
            let fix = format!("write {}", expected(views));
            self.error(message, fix);
        }
    }

    fn list(&mut self, items: &[Node], view: &View<'a>) {
        let name = self.name();
        let count = |n: usize| if n == 1 { "one item".to_owned() } else { format!("{n} items") };
        if let Some(least) = view.size("minItems").filter(|least| items.len() < *least) {
            let fix = if items.is_empty() {
                self.example_of(std::slice::from_ref(view))
            } else {
                "add what is missing".to_owned()
            };
            self.error(format!("{name} needs at least {}", count(least)), fix);
        }
        if let Some(most) = view.size("maxItems").filter(|most| items.len() > *most) {
            self.error(
                format!("{name} has {}, at most {most} are allowed", count(items.len())),
                "take some out".to_owned(),
            );
        }
        let first = view.get("prefixItems").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let rest = view.get("items");
        let mut seen =
            view.get("uniqueItems").and_then(Json::as_bool).unwrap_or(false).then(std::collections::HashSet::new);
        for (index, item) in items.iter().enumerate() {
            self.steps.push(Step::Item(index));
            match first.get(index).or(rest) {
                Some(Json::Bool(false)) => self.error(format!("{name} has an item too many"), "take it out".to_owned()),
                Some(schema) => self.value(item, schema),
                None => {}
            }
            if let Some(seen) = &mut seen {
                let text = item.to_toml();
                let shown: String = text.chars().take(60).collect();
                if !seen.insert(text) {
                    self.error(format!("{name} has `{shown}` twice"), "take one out".to_owned());
                }
            }
            self.steps.pop();
        }
    }

    fn table(&mut self, table: &Table, view: &View<'a>) {
        let table_steps = self.steps.clone();
        for (key, node) in table {
            self.steps.push(Step::Key(key.clone()));
            match (view.property(key), view.others()) {
                (Some(schema), _) => {
                    self.deprecated(schema);
                    self.value(node, schema);
                }
                // Open tables hold what the schema knows nothing of, such as an app's environment.
                (None, Others::Like(schema)) => {
                    hide_by_name(self.texts, key, node);
                    self.value(node, schema);
                }
                (None, Others::Any) => hide_by_name(self.texts, key, node),
                (None, Others::Refused) => self.unknown(key, node, view, &table_steps),
            }
            self.steps.pop();
        }
        for key in view.required() {
            if !table.contains_key(key) {
                let example = view
                    .property(key)
                    .and_then(|schema| {
                        self.schema.alternatives(schema).first().map(|view| example(self.schema, view, 0))
                    })
                    .unwrap_or_else(|| "…".to_owned());
                let message = format!("`{}` is missing in {}", show_key(key), path::table_name(&table_steps));
                self.steps.push(Step::Key(key.to_owned()));
                self.error(message, format!("add {}", self.assignment(&example)));
                self.steps.pop();
            }
        }
    }

    fn deprecated(&mut self, schema: &'a Json) {
        if self.schema.alternatives(schema).first().is_some_and(View::deprecated) {
            let message = format!("{} is deprecated", self.name());
            let why =
                schema.get("description").and_then(Json::as_str).and_then(|text| text.lines().next()).unwrap_or("");
            let mut why = why.trim_end_matches('.').to_owned();
            if let Some(first) = why.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            self.add(Severity::Warning, true, message, why);
        }
    }

    fn unknown(&mut self, key: &str, node: &Node, view: &View<'a>, table: &[Step]) {
        hide_by_name(self.texts, key, node);
        if self.found.iter().any(|finding| finding.steps == self.steps) {
            return; // an old name beside its new one, which has been said
        }
        let place = path::table_name(table);
        let shown: String = show_key(key).chars().take(60).collect();
        let message = match &node.value {
            Value::Table(_) if table.is_empty() => format!("unknown section `[{shown}]`"),
            Value::List { headers: true, .. } if table.is_empty() => format!("unknown section `[[{shown}]]`"),
            _ if table.is_empty() => format!("unknown key `{shown}` at the top level"),
            _ => format!("unknown key `{shown}` in {place}"),
        };
        let here: Vec<&str> = view.properties().into_iter().map(|(key, _)| key).collect();
        let likely = suggest::closest(key, here.iter().copied());
        // `[limit]` is `[limits]`, whoever else has a key `limit`.
        let plural = |likely: &str| likely.strip_suffix('s') == Some(key) || key.strip_suffix('s') == Some(likely);
        let fix = match likely.filter(|likely| suggest::same(key, likely) || plural(likely)) {
            Some(likely) => self.did_you_mean(likely, node, view),
            None => match (self.elsewhere(key, table), likely) {
                (Some(fix), _) => fix,
                (None, Some(likely)) => self.did_you_mean(likely, node, view),
                (None, None) => self.similar_elsewhere(key, table).unwrap_or_else(|| known_keys(&here, &place)),
            },
        };
        let meant = likely.and_then(|likely| view.property(likely)).map(|schema| self.schema.alternatives(schema));
        if meant.is_some_and(|views| views.iter().any(View::is_secret_reference)) {
            hide_all(self.texts, node);
        }
        self.add(Severity::Error, true, message, fix);
    }

    /// A section is suggested with the brackets it needs.
    fn did_you_mean(&self, likely: &str, node: &Node, view: &View<'a>) -> String {
        let written_as_section = matches!(node.value, Value::Table(_) | Value::List { headers: true, .. });
        let kind =
            view.property(likely).and_then(|schema| self.schema.alternatives(schema).first().and_then(View::kind));
        match kind {
            Some("object") if self.steps.len() == 1 && written_as_section => format!("did you mean `[{likely}]`?"),
            Some("array") if self.steps.len() == 1 && written_as_section => format!("did you mean `[[{likely}]]`?"),
            _ => format!("did you mean `{likely}`?"),
        }
    }

    fn index(&mut self) -> &[Known] {
        self.index.get_or_insert_with(|| suggest::index(self.schema))
    }

    /// The key of exactly this name in another section, if there are not many.
    fn elsewhere(&mut self, key: &str, table: &[Step]) -> Option<String> {
        let here = path::table_name(table);
        let found: Vec<&Known> = self.index().iter().filter(|known| known.key == key && known.table != here).collect();
        // Keys of lists' items and inner tables are too special to be meant, if a section has the name.
        let mut sections: Vec<&Known> =
            found.iter().copied().filter(|known| known.path.matches('.').count() <= 1).collect();
        if sections.is_empty() {
            sections = found;
        }
        if let Some(top) = sections.iter().find(|known| known.top) {
            return Some(format!("`{}` belongs to the top level, above the first section", top.key));
        }
        match sections.as_slice() {
            [one] => Some(format!("did you mean `{}`? `{key}` is a key of {}", one.path, one.table)),
            [one, two] => Some(format!("did you mean `{}` or `{}`?", one.path, two.path)),
            [one, two, three] => Some(format!("did you mean `{}`, `{}` or `{}`?", one.path, two.path, three.path)),
            _ => None,
        }
    }

    /// A key of nearly this name in another section.
    fn similar_elsewhere(&mut self, key: &str, table: &[Step]) -> Option<String> {
        let here = path::table_name(table);
        let index = self.index();
        let others =
            || index.iter().filter(|known| known.table != here && !known.top && known.path.matches('.').count() <= 1);
        let likely = suggest::closest(key, others().map(|known| known.key.as_str()))?;
        let paths: Vec<&str> = others().filter(|known| known.key == likely).map(|known| known.path.as_str()).collect();
        match paths.as_slice() {
            [one] => Some(format!("did you mean `{one}`?")),
            [one, two] => Some(format!("did you mean `{one}` or `{two}`?")),
            _ => None,
        }
    }
}

fn known_keys(keys: &[&str], table: &str) -> String {
    if keys.is_empty() {
        return "take it out".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(12).map(|key| format!("`{key}`")).collect();
    let more = if keys.len() > shown.len() { ", …" } else { "" };
    format!("{table} takes {}{more}", shown.join(", "))
}

fn number_problem(number: f64, whole: Option<i64>, view: &View<'_>) -> Option<(String, String)> {
    if let Some(constants) = view.constants() {
        let is = |constant: &&Json| constant.as_f64().is_some_and(|constant| constant == number);
        let all = || constants.iter().map(|value| format!("`{}`", expect::toml(value))).collect::<Vec<_>>().join(", ");
        return (!constants.iter().any(is))
            .then(|| ("cannot have this value".to_owned(), format!("write one of {}", all())));
    }
    // A whole number's format is its width.
    let width = whole.and(view.format()).and_then(|format| match format {
        "uint8" => Some((0.0, f64::from(u8::MAX))),
        "uint16" => Some((0.0, f64::from(u16::MAX))),
        "uint32" => Some((0.0, f64::from(u32::MAX))),
        "uint" | "uint64" | "uint128" => Some((0.0, f64::INFINITY)),
        "int8" => Some((f64::from(i8::MIN), f64::from(i8::MAX))),
        "int16" => Some((f64::from(i16::MIN), f64::from(i16::MAX))),
        "int32" => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        _ => None,
    });
    let (least, most) = width.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    let least = view.number("minimum").map_or(least, |minimum| minimum.max(least));
    let most = view.number("maximum").map_or(most, |maximum| maximum.min(most));
    let above = view.number("exclusiveMinimum");
    let below = view.number("exclusiveMaximum");
    if number < least || number > most {
        let range = match (least.is_finite(), most.is_finite()) {
            (true, true) => format!("between {least} and {most}"),
            (true, false) => format!("{least} or more"),
            _ => format!("{most} or less"),
        };
        return Some((format!("is out of range: it can be {range}"), format!("write a number {range}")));
    }
    if let Some(above) = above.filter(|above| number <= *above) {
        return Some((
            format!("is out of range: it must be more than {above}"),
            format!("write a number above {above}"),
        ));
    }
    if let Some(below) = below.filter(|below| number >= *below) {
        return Some((
            format!("is out of range: it must be less than {below}"),
            format!("write a number below {below}"),
        ));
    }
    None
}

/// Every value of a subtree is hidden from messages.
fn hide_all(texts: &Texts, node: &Node) {
    match &node.value {
        Value::List { items, headers } => {
            if !headers {
                texts.hide(node.at.clone());
            }
            items.iter().for_each(|item| hide_all(texts, item));
        }
        Value::Table(table) => table.values().for_each(|node| hide_all(texts, node)),
        _ => texts.hide(node.at.clone()),
    }
}

/// Values of a subtree whose keys sound secret are hidden from messages; references to the store may be seen.
fn hide_by_name(texts: &Texts, key: &str, node: &Node) {
    match &node.value {
        Value::Table(table) if table.len() == 1 && table.contains_key("secret") => {}
        // Together, since a stray dot cuts a name in two: `pass.word`.
        Value::Table(table) => {
            table.iter().for_each(|(inner, node)| hide_by_name(texts, &format!("{key}.{inner}"), node))
        }
        _ if mask::resembles_secret(key) => hide_all(texts, node),
        Value::List { items, .. } => items.iter().for_each(|item| hide_by_name(texts, key, item)),
        _ => {}
    }
}
