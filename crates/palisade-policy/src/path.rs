//! Paths of keys, such as `route[3].limits.body`.

use std::fmt::Write as _;

/// One step from a table to a key, or from a list to an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// Reads `a.b[3]."c.d"`; an empty text is the whole policy. Foreign text never fails: what is no path names no node.
pub(crate) fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (number, after) = after.split_once(']').unwrap_or((after, ""));
            match number.parse() {
                Ok(index) => steps.push(Step::Item(index)),
                Err(_) => steps.push(Step::Key(number.to_owned())),
            }
            rest = after.strip_prefix('.').unwrap_or(after);
        } else if let Some(after) = rest.strip_prefix('"') {
            let (key, after) = after.split_once('"').unwrap_or((after, ""));
            steps.push(Step::Key(key.to_owned()));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            steps.push(Step::Key(key.to_owned()));
            rest = after.strip_prefix('.').unwrap_or(after);
        }
    }
    steps
}

/// The inverse of [`parse`].
pub(crate) fn show(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&show_key(key));
            }
            Step::Item(index) => {
                let _ = write!(out, "[{index}]");
            }
        }
    }
    out
}

/// A key as it is written in TOML.
pub(crate) fn show_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("\"{}\"", crate::source::printable(key)) }
}

/// What a message calls the table at a path: `[cors]`, `[[route]]`, `limits` of `[[route]]`, the top level.
pub(crate) fn table_name(steps: &[Step]) -> String {
    let Some(last_item) = steps.iter().rposition(|step| matches!(step, Step::Item(_))) else {
        return if steps.is_empty() { "the top level".to_owned() } else { format!("`[{}]`", show(steps)) };
    };
    let keys = |steps: &[Step]| {
        let keys: Vec<Step> = steps.iter().filter(|step| matches!(step, Step::Key(_))).cloned().collect();
        show(&keys)
    };
    let (list, below) = steps.split_at(last_item + 1);
    match below {
        [] => format!("`[[{}]]`", keys(list)),
        below => format!("`{}` of `[[{}]]`", show(below), keys(list)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written_alike() {
        for path in ["", "cors", "cors.origins", "route[3].limits.body", "upstreams.\"a.b\".url", "a[0][1].b"] {
            assert_eq!(show(&parse(path)), path);
        }
        for odd in ["[", "]", "a..b", "\"", "a[x].b", "a[99999999999999999999]", ".", "a]["] {
            let _ = show(&parse(odd));
        }
    }

    #[test]
    fn tables_have_names() {
        for (path, name) in [
            ("", "the top level"),
            ("cors", "`[cors]`"),
            ("upstream.tls", "`[upstream.tls]`"),
            ("route[3]", "`[[route]]`"),
            ("route[3].limits", "`limits` of `[[route]]`"),
            ("a[0].b[1]", "`[[a.b]]`"),
        ] {
            assert_eq!(table_name(&parse(path)), name);
        }
    }
}
