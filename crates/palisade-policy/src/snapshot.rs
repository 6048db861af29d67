//! Everything a policy was read from, at one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::path::{self, Step};
use crate::problem::Problems;
use crate::read::{self, FileRead, Sources};
use crate::source::{Kind, Place, Texts};
use crate::tree::{self, Node, Value};
use crate::{de, files};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A policy file; line and column count from 1, the column in characters.
    File {
        /// The file, as it was given.
        file: PathBuf,
        /// Its line.
        line: usize,
        /// Its column.
        column: usize,
    },
    /// An environment variable, by name.
    Env(String),
    /// A command-line flag, as it was typed.
    Flag(String),
    /// Nobody set it.
    Default,
    /// A text inside the binary, such as the starter policy.
    Builtin(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { file, line, .. } => {
                write!(f, "{}:{line}", crate::source::printable(&file.display().to_string()))
            }
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(name) => write!(f, "{name}"),
            Origin::Default => f.write_str("default"),
            Origin::Builtin(name) => write!(f, "<{name}>"),
        }
    }
}

/// All texts of a policy, read once and laid over each other. Cheap to clone; what it holds never changes.
///
/// The order of use: [`read`](Self::read), [`check`](Self::check) against the schema, then [`get`](Self::get) for each
/// section, all with one list of [`Problems`].
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) texts: Arc<Texts>,
    pub(crate) root: Arc<Node>,
    files: Arc<[FileRead]>,
    hash: [u8; 32],
}

impl Snapshot {
    pub(crate) fn new(texts: Arc<Texts>, root: Node, files: Vec<FileRead>, hash: [u8; 32]) -> Self {
        Snapshot { texts, root: Arc::new(root), files: files.into(), hash }
    }

    /// Reads all sources once.
    ///
    /// # Errors
    /// Files that cannot be read, broken syntax (of all files), bad includes, overrides that are no TOML or not allowed.
    pub fn read(sources: &Sources) -> Result<Self, Problems> {
        read::read(sources)
    }

    /// Reads one text; `name` is what messages call it.
    ///
    /// # Errors
    /// Broken syntax.
    pub fn from_text(name: &'static str, text: &str) -> Result<Self, Problems> {
        read::from_text(name, text)
    }

    /// An empty list of problems that can point into this snapshot.
    #[must_use]
    pub fn problems(&self) -> Problems {
        Problems::new(Arc::clone(&self.texts), Arc::clone(&self.root))
    }

    /// SHA-256 of all that was read, overrides included and names of files left out.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The names of the environment variables that override something.
    #[must_use]
    pub fn env_overrides(&self) -> Vec<&str> {
        let names = self.texts.list.iter().filter_map(|text| match &text.kind {
            Kind::Env(name) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// The files that were read, includes too, as they were named: what a watcher watches (with their folders).
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.owner.path.as_path())
    }

    /// Whether the text of this name inside the binary is among those that were read.
    #[must_use]
    pub fn has_builtin(&self, name: &str) -> bool {
        self.texts.list.iter().any(|text| matches!(text.kind, Kind::Builtin(known) if known == name))
    }

    /// Lays a table under another: keys that the one at `over` does not name have there the value that is written in the
    /// one at `under`, and its place in messages. Both may be absent; the table that `over` is a key of must be there.
    pub fn lay_under(&mut self, over: &str, under: &str, problems: &mut Problems) {
        let Some(below) = self.root.find(&path::parse(under)).cloned() else { return };
        let mut steps = path::parse(over);
        let Some(Step::Key(key)) = steps.pop() else { return };
        let root = Arc::make_mut(&mut self.root);
        let Some(Node { value: Value::Table(table), .. }) = root.find_mut(&steps) else { return };
        match table.remove(&key) {
            Some(above) => {
                let (place, at) = (above.key.clone(), above.at.clone());
                let mut merged = below;
                tree::lay_over(&mut merged, above, &|_| true);
                table.insert(key, Node { key: place, at, ..merged });
            }
            None => drop(table.insert(key, below)),
        }
        problems.follow(&self.root);
    }

    /// The typed value at a path (empty: all of it), such as `cors` or `route`. `None` where nothing is written there, or
    /// where it does not fit; then `problems` says why, unless an error about that place is in it already.
    pub fn get<T: DeserializeOwned>(&self, path: &str, problems: &mut Problems) -> Option<T> {
        let steps = path::parse(path);
        let node = self.root.find(&steps)?;
        match T::deserialize(de::Reader(node)) {
            Ok(value) => Some(value),
            Err(error) => {
                error.report(&steps, problems);
                None
            }
        }
    }

    /// Whether something is written at a path.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        self.root.find(&path::parse(path)).is_some()
    }

    /// The text at a path, if there is one and it is text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.root.find(&path::parse(path))?.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number of items in the list at a path; 0 where there is none.
    #[must_use]
    pub fn len(&self, path: &str) -> usize {
        match self.root.find(&path::parse(path)).map(|node| &node.value) {
            Some(Value::List { items, .. }) => items.len(),
            _ => 0,
        }
    }

    /// Whether nothing at all is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.root.value, Value::Table(table) if table.is_empty())
    }

    /// Where the value at a path came from; for a table where it begins.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        let node = self.root.find(&path::parse(path));
        node.map_or(Origin::Default, |node| self.origin_of(node.key.as_ref().unwrap_or(&node.at)))
    }

    pub(crate) fn origin_of(&self, place: &Place) -> Origin {
        let Some(source) = self.texts.get(place) else { return Origin::Default };
        match &source.kind {
            Kind::File { path, .. } => {
                let (line, column) = source.position(place.start);
                Origin::File { file: path.clone(), line, column }
            }
            Kind::Env(name) => Origin::Env(name.clone()),
            Kind::Flag(name) => Origin::Flag(name.clone()),
            Kind::Builtin(name) => Origin::Builtin(name),
        }
    }

    /// The folder that a relative path in the value at `path` starts from: that of the main file it was written in or
    /// included by. Empty (the working directory) for what did not come from a file.
    #[must_use]
    pub fn base_dir(&self, path: &str) -> &Path {
        let node = self.root.find(&path::parse(path));
        match node.and_then(|node| self.texts.get(&node.at)).map(|source| &source.kind) {
            Some(Kind::File { base, .. }) => base,
            _ => Path::new(""),
        }
    }

    /// Reports each file of the policy that somebody else could change: it and the folder it lies in must belong to root
    /// or to the user `uid`, and be writable by nobody else. For production; development asks nothing of a checkout.
    pub fn check_ownership(&self, uid: u32, problems: &mut Problems) {
        for file in self.files.iter() {
            for why in files::ownership(&file.owner, &file.real, uid) {
                let name = self.texts.list.get(file.source).map(crate::source::Source::name);
                problems.placed(crate::problem::Placed {
                    at: None,
                    file: name,
                    message: format!("{}: who can change the policy can open the API", why.message),
                    fix: Some(why.fix),
                    guess_secrets: false,
                });
            }
        }
    }

    /// [`check_ownership`](Self::check_ownership) for the user this process runs as.
    pub fn check_ownership_here(&self, problems: &mut Problems) {
        self.check_ownership(nix::unistd::geteuid().as_raw(), problems);
    }
}

impl std::fmt::Debug for Snapshot {
    /// Names only: the texts may hold what somebody mistook for a place to keep a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.texts.list.iter().map(crate::source::Source::name)).finish()
    }
}
