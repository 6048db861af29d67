//! "Did you mean": likely intended keys and values.

use crate::path::{self, Step};
use crate::schema::{Others, Schema};

/// The candidate that a word was most likely meant to be, for "did you mean".
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    // A word of foreign length may be a megabyte; the distance is quadratic.
    if folded.is_empty() || folded.len() > 64 {
        return None;
    }
    let length = folded.chars().count();
    let most = if length <= 3 { 1 } else { 2.max(length / 3) };
    let scored = candidates.into_iter().filter_map(|candidate| {
        let other = fold(candidate);
        let distance = strsim::damerau_levenshtein(&folded, &other);
        let short = length.min(other.chars().count());
        // `allow_origins` for `origins`.
        let contains = short >= 5 && (folded.contains(&other) || other.contains(&folded));
        // A word of three letters has many neighbours: at least half must agree.
        let close = distance <= most && distance * 2 <= short.max(2);
        (close || contains).then_some((if close { distance } else { most + 1 }, candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Whether two names are the same but for case, hyphens and underscores.
pub(crate) fn same(a: &str, b: &str) -> bool {
    fold(a) == fold(b)
}

fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.')).flat_map(char::to_lowercase).collect()
}

/// A key somewhere in the policy, for keys written in the wrong section.
pub(crate) struct Known {
    pub(crate) key: String,
    /// The table it belongs into, as [`path::table_name`] writes it.
    pub(crate) table: String,
    /// How it is written from the top, such as `cors.origins`.
    pub(crate) path: String,
    pub(crate) top: bool,
}

/// All keys that the schema names, three tables deep.
pub(crate) fn index(schema: &Schema<'_>) -> Vec<Known> {
    let mut out = Vec::new();
    collect(schema, schema.root(), &mut Vec::new(), &mut out);
    out
}

fn collect<'a>(schema: &Schema<'a>, json: &'a serde_json::Value, steps: &mut Vec<Step>, out: &mut Vec<Known>) {
    if steps.len() > 4 || out.len() > 5000 {
        return;
    }
    for view in schema.alternatives(json).iter() {
        for (key, property) in view.properties() {
            let table = path::table_name(steps);
            let top = steps.is_empty();
            steps.push(Step::Key(key.to_owned()));
            let path = path::show(steps).replace("[0]", "");
            if !out.iter().any(|known| known.path == path && known.table == table) {
                out.push(Known { key: key.to_owned(), table, path, top });
                collect(schema, property, steps, out);
            }
            steps.pop();
        }
        if let (Others::Like(_), true) = (view.others(), steps.is_empty()) {
            continue;
        }
        if let Some(items) = view.get("items").filter(|_| view.kind() == Some("array")) {
            steps.push(Step::Item(0));
            collect(schema, items, steps, out);
            steps.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_words() {
        let keys = ["origins", "methods", "headers", "max_age", "credentials", "min"];
        for (word, expected) in [
            ("orgins", Some("origins")),
            ("allow_origins", Some("origins")),
            ("maxAge", Some("max_age")),
            ("max-age", Some("max_age")),
            ("credential", Some("credentials")),
            ("mix", Some("min")),
            ("x", None),
            ("timeout", None),
            ("", None),
        ] {
            assert_eq!(closest(word, keys), expected, "{word}");
        }
        assert_eq!(closest(&"x".repeat(100_000), keys), None);
    }
}
