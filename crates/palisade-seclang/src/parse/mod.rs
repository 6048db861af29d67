//! Reading rule files.
//!
//! A [`Builder`] takes files and texts in the order in which they apply, reads all of them however many mistakes it
//! meets, and compiles what it read into a [`RuleSet`].

mod actions;
mod build;
mod directives;
mod lines;
mod targets;

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::expand::Macro;
use crate::names::TxNames;
use crate::problem::{Place, Problem, Problems};
use crate::rule::{Disruption, Exclusion, Rule, Target, Which};
use crate::ruleset::RuleSet;
use crate::settings::{Settings, Steps};
use crate::transform::{Transform, UnicodeMap};

pub(crate) use targets::exclusion;

/// What is wrong with naming a file where only texts are read, and what to do.
const NO_FILES: (&str, &str) = ("files are not read here", "write the rules and the phrases out");

/// How deep `Include` may nest.
const INCLUDE_DEPTH: usize = 16;

/// Reads rules and compiles them.
///
/// ```
/// use palisade_seclang::Builder;
///
/// let mut builder = Builder::new();
/// builder.text("local.conf", r#"SecRule ARGS "@rx (<script|javascript:)" "id:2,deny,status:403""#);
/// let rules = builder.compile().expect("the rule is right");
/// assert_eq!(rules.rule_count(), 1);
///
/// let mut builder = Builder::new();
/// builder.text("local.conf", r#"SecRule ARGZ "@rx x" "id:1,deny""#);
/// let problems = builder.compile().unwrap_err();
/// assert!(problems[0].to_string().contains("did you mean `ARGS`?"));
/// ```
#[derive(Debug)]
pub struct Builder {
    problems: Problems,
    settings: Settings,
    names: TxNames,
    rules: Vec<Rule>,
    /// Marker name and the number of rules before it.
    markers: Vec<(String, u32)>,
    defaults: [Default5; 5],
    ids: HashMap<u64, Place>,
    /// The rule whose chain is being read.
    chain: Option<PendingChain>,
    removals: Vec<Which>,
    target_updates: Vec<(Place, Which, Vec<Target>, Vec<Exclusion>)>,
    action_updates: Vec<(Place, u64, String)>,
    unicode_map: Option<Arc<UnicodeMap>>,
    including: HashSet<PathBuf>,
    files: Vec<PathBuf>,
    /// Absent: the plain evaluator.
    steps: Option<Steps>,
    /// Variables of `TX` that are asked for; absent: any may be.
    reads: Option<Vec<String>>,
    /// Nothing is read from the disk.
    texts_only: bool,
}

/// What `SecDefaultAction` gives to the rules of one phase.
#[derive(Debug, Clone)]
struct Default5 {
    disruption: Disruption,
    status: Option<u16>,
    log: bool,
    audit: bool,
    transforms: Vec<Transform>,
    /// Added to those of each rule.
    tags: Vec<Macro>,
    /// For rules that have none.
    severity: Option<u8>,
    data: Option<Macro>,
}

#[derive(Debug)]
enum PendingChain {
    /// More links are added to the last rule.
    Good,
    /// The head was wrong: its links are read and thrown away.
    Broken,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A builder without rules, and with default settings.
    pub fn new() -> Builder {
        let default = Default5 {
            disruption: Disruption::Pass,
            status: None,
            log: true,
            audit: true,
            transforms: Vec::new(),
            tags: Vec::new(),
            severity: None,
            data: None,
        };
        Builder {
            problems: Problems::default(),
            settings: Settings::default(),
            names: TxNames::new(),
            rules: Vec::new(),
            markers: Vec::new(),
            defaults: std::array::from_fn(|_| default.clone()),
            ids: HashMap::new(),
            chain: None,
            removals: Vec::new(),
            target_updates: Vec::new(),
            action_updates: Vec::new(),
            unicode_map: None,
            including: HashSet::new(),
            files: Vec::new(),
            steps: Some(Steps::ALL),
            reads: None,
            texts_only: false,
        }
    }

    /// Compiles without prefilters: every rule is evaluated on every value. For comparing the two.
    pub fn reference(&mut self) -> &mut Self {
        self.steps = None;
        self
    }

    /// Compiles with these short cuts only. For measuring them.
    pub fn steps(&mut self, steps: Steps) -> &mut Self {
        self.steps = Some(steps);
        self
    }

    /// Says which variables of `TX` the caller will ask transactions for ([`Transaction::tx`](crate::Transaction::tx)):
    /// others that no rule reads need not be kept. Without this, all are.
    pub fn reads(&mut self, names: &[&str]) -> &mut Self {
        self.reads = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Reads no file: includes, data files and maps are mistakes. For rules of somebody who may not read this machine's files.
    pub fn texts_only(&mut self) -> &mut Self {
        self.texts_only = true;
        self
    }

    /// Changes settings before or between rules; directives that follow still win.
    pub fn settings(&mut self, change: impl FnOnce(&mut Settings)) -> &mut Self {
        change(&mut self.settings);
        self
    }

    /// Reads a file, or all files that match a pattern with `*` in its last part, in the order of their names.
    pub fn file(&mut self, path: impl AsRef<Path>) -> &mut Self {
        let path = path.as_ref();
        let at = Place { file: path.to_string_lossy().into(), line: 0 };
        self.include(path, &at, 0, false);
        self
    }

    /// Reads rules from memory. Data files and includes are looked for in the working directory.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.read_text(name, text, None, 0);
        self
    }

    /// Reads the files that a path names; with `optional` there may be none.
    fn include(&mut self, path: &Path, at: &Place, depth: usize, optional: bool) {
        if self.texts_only {
            self.problems.error(at, &path.to_string_lossy(), NO_FILES.0, NO_FILES.1);
            return;
        }
        if depth > INCLUDE_DEPTH {
            self.problems.error(
                at,
                &path.to_string_lossy(),
                "includes are nested too deeply",
                "does a file include itself?",
            );
            return;
        }
        let optional = optional && !is_beyond(path);
        let files = match expand(path) {
            Ok(files) => files,
            Err(Unmatched { absent: true, .. }) if optional => {
                // Where a file may appear that is to be read then.
                self.files.extend(path.parent().filter(|at| !at.as_os_str().is_empty()).map(Path::to_owned));
                return;
            }
            Err(Unmatched { message, .. }) => {
                let help = match depth {
                    0 => "name a file that exists, or a pattern that matches one",
                    _ => "name what exists, or write `IncludeOptional` where there may be none",
                };
                self.problems.error(at, &path.to_string_lossy(), message, help);
                return;
            }
        };
        for file in files {
            if !self.including.insert(file.clone()) {
                self.problems.error(
                    at,
                    &file.to_string_lossy(),
                    "this file is included inside itself",
                    "remove one of the includes",
                );
                continue;
            }
            self.files.push(file.clone());
            match std::fs::read(&file) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => self.read_text(&file.to_string_lossy(), &text, Some(&file), depth),
                    Err(_) => self.problems.error(
                        at,
                        &file.to_string_lossy(),
                        "the file is not UTF-8",
                        "convert it, for example with iconv",
                    ),
                },
                Err(e) if optional && e.kind() == ErrorKind::NotFound => {}
                Err(e) => self.problems.error(
                    at,
                    &file.to_string_lossy(),
                    format!("cannot read the file: {e}"),
                    "check its name and its permissions",
                ),
            }
            self.including.remove(&file);
        }
    }

    fn read_text(&mut self, name: &str, text: &str, path: Option<&Path>, depth: usize) {
        let file: Arc<str> = name.into();
        for logical in lines::logical_lines(text) {
            let at = Place { file: file.clone(), line: logical.line };
            match lines::words(&logical.text) {
                Ok(words) => self.directive(&at, &logical.text, &words, path, depth),
                Err(lines::Unclosed) => {
                    self.problems.error(
                        &at,
                        &logical.text,
                        "a quote that does not end",
                        "close it on the same line, or end the line with `\\`",
                    );
                }
            }
        }
        if self.chain.take().is_some() {
            let at = Place { file, line: 0 };
            self.problems.error(
                &at,
                "",
                "the last rule of the file says `chain`, but no rule follows",
                "remove `chain`, or add the rule",
            );
        }
    }

    /// Compiles everything read so far.
    ///
    /// # Errors
    /// Every problem found, in the order of the files.
    pub fn compile(mut self) -> Result<RuleSet, Vec<Problem>> {
        self.finish();
        if !self.problems.0.is_empty() {
            return Err(self.problems.0);
        }
        let mut rules =
            RuleSet::new(self.rules, self.names, self.settings, self.unicode_map, (self.steps, self.reads.as_deref()))
                .map_err(|p| p.0)?;
        rules.files = self.files;
        Ok(rules)
    }
}

/// The files that a path with an optional `*` or `?` in its last part names, in the order of their names.
///
/// # Errors
/// A folder that cannot be read, or a pattern that matches nothing.
pub fn matching(path: &Path) -> Result<Vec<PathBuf>, String> {
    expand(path).map_err(|unmatched| unmatched.message)
}

/// Why a path names no file.
struct Unmatched {
    message: String,
    /// There is none, rather than that nobody can tell.
    absent: bool,
}

/// Whether a path has a pattern of a kind that is not read here: it names no file, whatever there is.
fn is_beyond(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy();
    folder.contains(['*', '?']) || path.to_string_lossy().contains('[')
}

/// The files that a path with an optional `*` in its last part names.
fn expand(path: &Path) -> Result<Vec<PathBuf>, Unmatched> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|e| Unmatched {
        message: format!("cannot read the folder: {e}"),
        absent: e.kind() == ErrorKind::NotFound,
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.file_name().is_some_and(|n| glob(name.as_bytes(), n.to_string_lossy().as_bytes())))
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(Unmatched { message: "no file matches".to_owned(), absent: true }),
        false => Ok(files),
    }
}

/// `*` and `?` over one name, without recursion.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((sp, sn)) => {
                    p = sp + 1;
                    n = sn + 1;
                    star = Some((sp, sn + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
