//! What the TOML parser says, turned into what to do about it.

use crate::source::Source;

/// A cause and, where one can be given, a fix for one error of the parser.
pub(crate) struct Explained {
    pub(crate) message: String,
    pub(crate) fix: Option<String>,
}

/// The errors of one text that are worth showing: the first of each line, and none of those that only follow from a list
/// or table whose end is missing.
pub(crate) fn worth_showing(source: &Source, errors: Vec<Error>) -> Vec<Error> {
    let mut kept: Vec<Error> = Vec::new();
    let mut lines = std::collections::HashSet::new();
    let unclosed = errors.iter().any(|error| matches!(cause(&error.said), "unclosed array" | "unclosed inline table"));
    for mut error in errors {
        if !lines.insert(source.line_at(error.start).start) {
            continue;
        }
        let begins_line = || {
            let line = source.line_at(error.start);
            source.text.get(line.start..error.start).is_some_and(|before| before.trim().is_empty())
        };
        // In an open list the next line begins without a comma; all that follows is read as its items.
        let runaway = unclosed && cause(&error.said).starts_with("missing comma between") && begins_line();
        if runaway {
            let list = cause(&error.said) == "missing comma between array elements";
            error.said = if list { RUNAWAY_LIST } else { RUNAWAY_TABLE }.to_owned();
            kept.push(error);
            break;
        }
        kept.push(error);
    }
    kept
}

const RUNAWAY_LIST: &str = "the list above goes on here";
const RUNAWAY_TABLE: &str = "the table above goes on here";

/// What the parser said, and where.
pub(crate) struct Error {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) said: String,
}

fn cause(said: &str) -> &str {
    said.split_once(", expected ").map_or(said, |(what, _)| what)
}

/// Words that are values in other formats.
fn word(word: &str) -> Option<Explained> {
    let is = |message: &str, fix: &str| Some(Explained { message: message.to_owned(), fix: Some(fix.to_owned()) });
    match word {
        "True" | "TRUE" | "yes" | "on" | "Yes" | "On" => is("this value is not TOML", "write `true`"),
        "False" | "FALSE" | "no" | "No" => is("this value is not TOML", "write `false`"),
        "null" | "nil" | "none" | "None" | "NULL" => {
            is("TOML has no empty value", "take the line out: the default holds then")
        }
        _ => None,
    }
}

/// Where a key or header on this line was written before, by its line.
fn earlier(source: &Source, start: usize) -> Option<usize> {
    let line = source.line_at(start);
    let text = source.text.get(line.clone())?.trim();
    let above = source.text.get(..line.start)?;
    let header = text.starts_with('[');
    let key = if header { text.split('#').next()?.trim() } else { text.split('=').next()?.trim() };
    let mut found = None;
    for (number, above) in above.lines().enumerate() {
        let above = above.trim();
        if header {
            if above.split('#').next().is_some_and(|above| above.trim() == key) {
                return Some(number + 1);
            }
        } else if above.starts_with('[') {
            found = None;
        } else if above.split_once('=').is_some_and(|(above, _)| above.trim() == key) {
            found = found.or(Some(number + 1));
        }
    }
    found
}

/// Explains an error at `start..end` of a text. The parser's words are kept where nothing better is known.
pub(crate) fn explain(source: &Source, start: usize, end: usize, said: &str) -> Explained {
    let line = source.line_at(start);
    let text = source.text.get(line.clone()).unwrap_or("");
    let before = source.text.get(line.start..start).unwrap_or("");
    let at = source.text.get(start..end).unwrap_or("");
    let after = source.text.get(start..line.end.max(start)).unwrap_or("");
    let (what, expected) = said.split_once(", expected ").unwrap_or((said, ""));
    let is = |message: &str, fix: &str| Explained { message: message.to_owned(), fix: Some(fix.to_owned()) };

    if text.trim_start().starts_with("//") {
        return is("comments start with `#`", "write `#` instead of `//`");
    }
    if text.trim_start().starts_with(';') {
        return is("comments start with `#`", "write `#` instead of `;`");
    }
    if text.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) && !before.contains('#') {
        return is("these are typographic quotes", "write straight quotes: `\"`");
    }
    if let Some(explained) = word(after.split(['#', ',', ']', '}']).next().unwrap_or("").trim()) {
        return explained;
    }
    match what {
        "string values must be quoted" if after.trim().is_empty() || after.trim_start().starts_with('#') => {
            is("this key has no value", "give it one, or take the line out: the default holds then")
        }
        "string values must be quoted" => is("text must stand in quotes", "write `\"` before and after it"),
        "invalid unquoted key" if at == ":" || after.starts_with(':') => {
            is("a key and its value are joined by `=`", "write `=` instead of `:`")
        }
        "unexpected key or value" => {
            is("there is something after the value", "write one key and its value a line, and lists as `[a, b]`")
        }
        "duplicate key" => {
            let header = text.trim_start();
            if header.starts_with("[[") {
                is("this name is already a table", "use `[[…]]` for all of them, or `[…]` for one")
            } else if header.starts_with('[') {
                let first = earlier(source, start).map_or(String::new(), |line| format!(" on line {line}"));
                let fix = format!("put the keys into the first one{first}; lists of tables are written `[[…]]`");
                is("this table is already there", &fix)
            } else {
                let first = earlier(source, start).map_or(String::new(), |line| format!("; the first is line {line}"));
                is(&format!("`{}` is given twice", at.trim()), &format!("keep one of the two{first}"))
            }
        }
        "key with no value" | "missing assignment between key-value pairs" | "missing value for key" => {
            if text.split_once(':').is_some_and(|(key, _)| !key.trim().is_empty() && !key.contains(['"', '\'', '='])) {
                is("a key and its value are joined by `=`", "write `=` instead of `:`")
            } else {
                is("this key has no value", "write `key = value`")
            }
        }
        "missing value" | "invalid value" if after.trim_start().is_empty() || after.trim_start().starts_with('#') => {
            is("this key has no value", "give it one, or take the line out: the default holds then")
        }
        "invalid basic string" | "missing opening quote" | "unclosed string" if after.is_empty() => {
            is("this text does not end", "close it with the same quote it began with")
        }
        "missing escaped value" => {
            is("`\\` begins an escape here", "write `\\\\`, or put the text into single quotes: they have no escapes")
        }
        "unclosed array" => is("this list does not end", "close it with `]`"),
        "unclosed inline table" => is("this table does not end", "close it with `}`"),
        "unclosed table" => is("this header does not end", "close it with `]`"),
        "unclosed array table" => is("this header does not end", "close it with `]]`"),
        "missing comma between array elements" => is("a comma is missing between two items", "write `,` between them"),
        "missing comma between key-value pairs" => is("a comma is missing between two keys", "write `,` between them"),
        "extra comma in array" | "extra comma in inline table" => is("there is a comma too many", "take it out"),
        "unexpected leading zero" => {
            is("a number does not begin with 0", "take the zero out, or quote it if it is text")
        }
        "cannot recurse further; max recursion depth met" | "recursion limit" => {
            is("this is nested too deeply", "a policy is at most 48 tables and lists deep")
        }
        RUNAWAY_LIST => is("the list above does not end", "close it with `]` before this line"),
        RUNAWAY_TABLE => is("the table above does not end", "close it with `}` before this line"),
        _ if what.starts_with("cannot extend value of type") => {
            is("this name already has a value that is no table", "give it once, as a table or as a value")
        }
        _ => {
            let fix = (!expected.is_empty()).then(|| format!("expected {expected}"));
            Explained { message: format!("this is not TOML: {what}"), fix }
        }
    }
}
