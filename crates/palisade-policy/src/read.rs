//! From files, environment and flags to one snapshot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use toml::de::{DeTable, DeValue};

use crate::files::{self, Owner};
use crate::path::{self, Step};
use crate::problem::{Placed, Problems};
use crate::snapshot::Snapshot;
use crate::source::{self, Kind, Place, Source, Texts};
use crate::syntax;
use crate::tree::{self, Build, Node, Value};

/// What environment overrides begin with.
const PREFIX: &str = "PALISADE__";
const MAX_FILES: usize = 256;
const MAX_INCLUDE_DEPTH: usize = 8;
const MAX_TOTAL_BYTES: usize = 16 * 1024 * 1024;
const MAX_OVERRIDES: usize = 1024;
const MAX_OVERRIDE_BYTES: usize = 64 * 1024;
/// Errors of the parser that are kept of one text; after the first few the rest are echoes.
const MAX_SYNTAX_ERRORS: usize = 20;

/// What a policy is read from, lowest first: built-in text, files in order, environment, flags.
///
/// ```
/// use palisade_policy::{Snapshot, Sources};
///
/// let sources = Sources::new()
///     .builtin("starter policy", "[upstream]\nurl = \"http://127.0.0.1:8000\"")
///     .environment([("PALISADE__UPSTREAM__CONNECT_TIMEOUT", "\"2s\"")])
///     .flag("--upstream", "upstream.url", "\"http://127.0.0.1:9000\"");
/// let snapshot = Snapshot::read(&sources).unwrap();
/// assert_eq!(snapshot.text("upstream.url"), Some("http://127.0.0.1:9000"));
/// assert_eq!(snapshot.env_overrides(), ["PALISADE__UPSTREAM__CONNECT_TIMEOUT"]);
/// ```
#[derive(Clone, Default)]
pub struct Sources {
    builtin: Option<(&'static str, String)>,
    files: Vec<PathBuf>,
    env: Vec<(OsString, OsString)>,
    flags: Vec<(String, String, String)>,
}

impl Sources {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Sources::default()
    }

    /// A text inside the binary below all files; `name` stands in messages and origins.
    #[must_use]
    pub fn builtin(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.builtin = Some((name, text.into()));
        self
    }

    /// A policy file; a later one lies over an earlier one.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Environment variables; those named `PALISADE__SECTION__KEY` override keys, all others are ignored.
    #[must_use]
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.env.extend(variables.filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())));
        self
    }

    /// A command-line flag as it was typed, the key it sets, and its value as TOML.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((name.into(), path.into(), value.into()));
        self
    }
}

/// Problems found before there are texts to point into.
struct Found {
    at: Option<Place>,
    file: Option<String>,
    message: String,
    fix: Option<String>,
}

/// A file as it was read, for the question who may change it.
#[derive(Clone)]
pub(crate) struct FileRead {
    pub(crate) owner: Owner,
    pub(crate) real: PathBuf,
    /// A text to point at, if it was parsed.
    pub(crate) source: usize,
}

#[derive(Default)]
struct Reader {
    texts: Vec<Source>,
    layers: Vec<Node>,
    files: Vec<FileRead>,
    found: Vec<Found>,
    broken: Vec<(usize, Vec<syntax::Error>)>,
    bytes: usize,
}

/// Reads everything once.
pub(crate) fn read(sources: &Sources) -> Result<Snapshot, Problems> {
    let mut reader = Reader::default();
    if let Some((name, text)) = &sources.builtin {
        reader.text(Kind::Builtin(name), text.clone(), 0);
    }
    for path in &sources.files {
        let base = source::folder(path);
        reader.file(path, &base, None, &mut Vec::new());
    }
    reader.environment(&sources.env);
    for (name, path, value) in &sources.flags {
        reader.flag(name, path, value);
    }
    reader.finish()
}

/// A snapshot of one text, which has no folder and no includes.
pub(crate) fn from_text(name: &'static str, text: &str) -> Result<Snapshot, Problems> {
    read(&Sources::new().builtin(name, text))
}

impl Reader {
    fn problem(&mut self, at: Option<Place>, file: Option<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push(Found { at, file, message: message.into(), fix: Some(fix.into()) });
    }

    /// Parses one document and puts it over what is there. Gives the list of its includes with their places.
    fn text(&mut self, kind: Kind, text: String, depth: usize) -> Vec<(String, Place)> {
        let is_file = matches!(kind, Kind::File { .. });
        let index = self.texts.len();
        let source = Source::new(kind, text);
        let (table, mut errors) = DeTable::parse_recoverable(&source.text);
        let mut root = if errors.is_empty() {
            let mut unfit = Vec::new();
            let table = Build { source: index, shift: 0, unfit: &mut unfit }.table(table.get_ref(), 0);
            for unfit in unfit {
                self.problem(Some(unfit.at), None, unfit.message, unfit.fix);
            }
            table
        } else {
            tree::Table::new()
        };
        if !errors.is_empty() {
            errors.truncate(MAX_SYNTAX_ERRORS);
            let end = source.text.len();
            let errors = errors.into_iter().map(|error| {
                let span = error.span().unwrap_or(end..end);
                syntax::Error { start: span.start, end: span.end, said: error.message().to_owned() }
            });
            self.broken.push((index, errors.collect()));
        }
        self.texts.push(source);
        let mut includes = Vec::new();
        if let Some(node) = root.remove("include") {
            let right = "write `include = [\"conf.d/*.toml\"]`";
            match node.value {
                _ if !is_file => self.problem(Some(node.at), None, "`include` belongs in a file", "take it out"),
                _ if depth >= MAX_INCLUDE_DEPTH => {
                    let fix = "includes may be 8 deep: name the files in the main one";
                    self.problem(Some(node.at), None, "this file is included too deeply to include others", fix);
                }
                Value::List { items, .. } => {
                    for item in items {
                        match item.value {
                            Value::String(pattern) if !pattern.is_empty() => includes.push((pattern, item.at)),
                            _ => self.problem(Some(item.at), None, "`include` takes names of files", right),
                        }
                    }
                }
                _ => self.problem(Some(node.at), None, "`include` takes a list of files", right),
            }
        }
        let at = Place::new(index, 0..0);
        self.layers.push(Node { key: None, at, value: Value::Table(root) });
        includes
    }

    fn file(&mut self, path: &Path, base: &Path, named_at: Option<&Place>, chain: &mut Vec<PathBuf>) {
        let shown = source::printable(&path.display().to_string());
        let refuse = |reader: &mut Self, message: &str, fix: &str| match named_at {
            Some(at) => reader.problem(Some(at.clone()), None, format!("`{shown}`: {message}"), fix),
            None => reader.problem(None, Some(shown.clone()), message, fix),
        };
        if self.files.len() >= MAX_FILES {
            return refuse(self, "a policy has at most 256 files", "put some of them together");
        }
        let read = match files::read(path) {
            Ok(read) => read,
            Err(why) => return refuse(self, &why.message, &why.fix),
        };
        if chain.contains(&read.real) {
            return refuse(self, "this file includes itself", "take the line out");
        }
        if self.files.iter().any(|file| file.real == read.real) {
            return refuse(self, "this file is read twice", "name it once: its lists would count twice");
        }
        self.bytes += read.text.len();
        if self.bytes > MAX_TOTAL_BYTES {
            return refuse(self, "the files of this policy have more than 16 MiB", "check that they are policies");
        }
        let source = self.texts.len();
        self.files.push(FileRead { owner: read.owner, real: read.real.clone(), source });
        let kind = Kind::File { path: path.to_path_buf(), base: base.to_path_buf() };
        let includes = self.text(kind, read.text, chain.len());
        chain.push(read.real);
        let folder = source::folder(path);
        for (pattern, at) in includes {
            match files::expand(&folder, &pattern, MAX_FILES) {
                Ok(paths) => {
                    for path in paths {
                        self.file(&path, base, Some(&at), chain);
                    }
                }
                Err(why) => self.problem(Some(at), None, why.message, why.fix),
            }
        }
        chain.pop();
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        // Sorted, so that the same environment gives the same snapshot.
        let mut variables: Vec<_> = variables.iter().collect();
        variables.sort_unstable();
        if variables.len() > MAX_OVERRIDES {
            self.problem(
                None,
                Some("environment".into()),
                "there are more than 1024 overrides",
                "write them into a file",
            );
            return;
        }
        for (name, value) in variables {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                let name = source::printable(&name.to_string_lossy());
                self.problem(
                    None,
                    Some("environment".into()),
                    format!("`{name}` is not UTF-8"),
                    "set it to UTF-8 text",
                );
                continue;
            };
            // `PALISADE__SERVER__HTTPS`: each part knows where it stands in the name, so that a caret can point at it.
            let mut parts = Vec::new();
            let mut from = PREFIX.len();
            for part in name.get(PREFIX.len()..).unwrap_or("").split("__") {
                parts.push((part.to_ascii_lowercase(), from..from + part.len()));
                from += part.len() + 2;
            }
            let text = format!("{name}={value}");
            let kind = Kind::Env(name.to_owned());
            if parts.iter().any(|(part, _)| part.is_empty()) {
                let index = self.texts.len();
                self.texts.push(Source::new(kind, text));
                let fix = "write `PALISADE__SECTION__KEY`, two underscores before each part";
                self.problem(Some(Place::new(index, 0..name.len())), None, "this override names no key", fix);
                continue;
            }
            let fix = format!("values are TOML, so text needs quotes of its own: `{name}='\"…\"'`");
            let keys: Vec<&str> = parts.iter().map(|(part, _)| part.as_str()).collect();
            let forbidden = match keys.as_slice() {
                ["server", "mode"] => Some(("the mode cannot be set by the environment", "write `mode` in `[server]`")),
                ["server"] => Some(("a whole `[server]` cannot be set by the environment", "set its keys one by one")),
                ["route", ..] => Some(("routes cannot be set by the environment", "write them into the policy file")),
                ["include", ..] => {
                    Some(("`include` cannot be set by the environment", "write it into the policy file"))
                }
                _ => None,
            };
            let at = self.texts.len();
            self.over(kind, text, name.len() + 1, parts, fix);
            if let Some((message, fix)) = forbidden {
                self.problem(Some(Place::new(at, 0..name.len())), None, message, fix);
            }
        }
    }

    fn flag(&mut self, name: &str, path: &str, value: &str) {
        let text = format!("{name}={value}");
        let span = 0..name.len();
        let parts = path::parse(path).into_iter().filter_map(|step| match step {
            Step::Key(key) => Some((key, span.clone())),
            Step::Item(_) => None,
        });
        let parts: Vec<_> = parts.collect();
        if !parts.is_empty() {
            self.over(Kind::Flag(name.to_owned()), text, name.len() + 1, parts, format!("check the value of `{name}`"));
        }
    }

    /// Puts one value over what is there: `text` from `shift` on is TOML, `parts` are the keys with their spans.
    fn over(
        &mut self,
        kind: Kind,
        text: String,
        shift: usize,
        parts: Vec<(String, std::ops::Range<usize>)>,
        fix: String,
    ) {
        let index = self.texts.len();
        let source = Source::new(kind, text);
        let whole = Place::new(index, 0..source.text.len());
        let value = source.text.get(shift..).unwrap_or("");
        let mut unfit = Vec::new();
        let node = if value.len() > MAX_OVERRIDE_BYTES {
            Err("this value has more than 64 KiB".to_owned())
        } else if parts.len() > tree::MAX_DEPTH / 2 {
            Err("this name has too many parts".to_owned())
        } else {
            match DeValue::parse(value) {
                Ok(value) => Ok(Build { source: index, shift, unfit: &mut unfit }.node(&value, tree::MAX_DEPTH / 2)),
                Err(_) if value.trim().is_empty() => Err("this override has no value".to_owned()),
                Err(_) => Err("this value is not TOML".to_owned()),
            }
        };
        let end = source.text.len();
        self.texts.push(source);
        for unfit in unfit {
            self.problem(Some(unfit.at), None, unfit.message, unfit.fix);
        }
        match node {
            Ok(mut node) => {
                for (key, span) in parts.into_iter().rev() {
                    node.key = Some(Place::new(index, span.clone()));
                    let table = tree::Table::from([(key, node)]);
                    node = Node { key: None, at: Place::new(index, span), value: Value::Table(table) };
                }
                self.layers.push(Node { key: None, at: whole, value: node.value });
            }
            Err(message) => self.problem(Some(Place::new(index, shift..end)), None, message, fix),
        }
    }

    fn finish(self) -> Result<Snapshot, Problems> {
        let Reader { texts, layers, files, found, broken, .. } = self;
        let hash = hash(&texts);
        let texts = Arc::new(Texts::new(texts));
        // A place in the built-in text or an override does not help to find a table; one in a file does.
        let keep_place = |place: &Place| texts.get(place).is_some_and(|text| matches!(text.kind, Kind::File { .. }));
        let mut root = Node { key: None, at: Place::new(usize::MAX, 0..0), value: Value::Table(tree::Table::new()) };
        for layer in layers {
            tree::lay_over(&mut root, layer, &keep_place);
        }
        let snapshot = Snapshot::new(Arc::clone(&texts), root, files, hash);
        let mut problems = snapshot.problems();
        for Found { at, file, message, fix } in found {
            problems.placed(Placed { at, file, message, fix, guess_secrets: true });
        }
        for (index, errors) in broken {
            let Some(source) = texts.list.get(index) else { continue };
            for error in syntax::worth_showing(source, errors) {
                let explained = syntax::explain(source, error.start, error.end, &error.said);
                problems.placed(Placed {
                    at: Some(Place::new(index, error.start..error.end)),
                    file: None,
                    message: explained.message,
                    fix: explained.fix,
                    guess_secrets: true,
                });
            }
        }
        if problems.is_fatal() {
            return Err(problems);
        }
        Ok(snapshot)
    }
}

/// SHA-256 over what every text says and which kind it is. File names are left out, so that instances that keep the same
/// policy in different folders agree on the hash; names of overrides are part of what they say.
fn hash(texts: &[Source]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for source in texts {
        let kind: &[u8] = match source.kind {
            Kind::File { .. } => b"file",
            Kind::Env(_) => b"env.",
            Kind::Flag(_) => b"flag",
            Kind::Builtin(_) => b"text",
        };
        context.update(kind);
        context.update(&(source.text.len() as u64).to_be_bytes());
        context.update(source.text.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Names only: values may hold what somebody mistook for a place to keep a secret.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
