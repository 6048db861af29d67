//! Problems of a policy: what is wrong, where, and how to mend it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::path::{self, Step};
use crate::source::{Kind, Place, Texts, printable};
use crate::tree::Node;
use crate::{mask, render};

/// Problems beyond this many are only counted.
const MAX_KEPT: usize = 10_000;

/// Whether a problem keeps the process from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The policy is not used.
    Error,
    /// The policy is used, and somebody should look.
    Warning,
}

/// Where a problem is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Place(Place),
    /// The key is not set; `near` is the header of the table it belongs into, if that is written somewhere.
    Unset {
        key: String,
        table: String,
        near: Option<Place>,
    },
    /// All of a file, or of something else with a name.
    Whole(Option<String>),
}

/// One problem. Texts have no URL passwords and no control characters in them.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(crate) severity: Severity,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) fix: Option<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) guide: Option<(u8, String)>,
    pub(crate) at: At,
    pub(crate) guess_secrets: bool,
}

impl Problem {
    /// Whether this is an error or a warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The key it is about, such as `route[3].limits.body`; empty for the whole policy and for broken syntax.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to mend it.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// Names the guide's section and the page of the docs, instead of those that [`Problems::set_guides`] finds.
    pub fn with_guide(&mut self, section: u8, page: impl Into<String>) -> &mut Self {
        self.guide = Some((section, page.into()));
        self
    }

    /// Adds a line below.
    pub fn with_note(&mut self, note: impl AsRef<str>) -> &mut Self {
        self.notes.push(clean(note.as_ref()));
        self
    }
}

/// A problem whose place is known already.
pub(crate) struct Placed {
    pub(crate) at: Option<Place>,
    pub(crate) file: Option<String>,
    pub(crate) message: String,
    pub(crate) fix: Option<String>,
    pub(crate) guess_secrets: bool,
}

/// The guide's section and the page of the docs for a section of the policy.
#[derive(Clone, Debug)]
pub(crate) struct Guide {
    key: String,
    section: u8,
    page: String,
    /// Keys of other sections may stand in it.
    holds_others: bool,
}

/// A list of problems that knows the texts of its snapshot and can therefore point into them.
#[derive(Clone)]
pub struct Problems {
    pub(crate) texts: Arc<Texts>,
    pub(crate) tree: Arc<Node>,
    prefix: Vec<Step>,
    list: Vec<Problem>,
    /// Takes what is beyond [`MAX_KEPT`], so that every call has something to return.
    spill: Option<Box<Problem>>,
    spilled: [usize; 2],
    guides: Vec<Guide>,
}

impl Problems {
    pub(crate) fn new(texts: Arc<Texts>, tree: Arc<Node>) -> Self {
        Problems { texts, tree, prefix: Vec::new(), list: Vec::new(), spill: None, spilled: [0; 2], guides: Vec::new() }
    }

    /// Looks places up in this tree from now on.
    pub(crate) fn follow(&mut self, tree: &Arc<Node>) {
        self.tree = Arc::clone(tree);
    }

    /// Reports an error about the value at a path (relative to the [scope](Self::scope)), and how to mend it.
    ///
    /// Where the path is not set, the message points at the table it belongs into.
    pub fn error(&mut self, path: &str, message: impl AsRef<str>, fix: impl AsRef<str>) -> &mut Problem {
        self.add(Severity::Error, path, false, message.as_ref(), fix.as_ref())
    }

    /// Like [`error`](Self::error), but the caret points at the key instead of its value.
    pub fn error_at_key(&mut self, path: &str, message: impl AsRef<str>, fix: impl AsRef<str>) -> &mut Problem {
        self.add(Severity::Error, path, true, message.as_ref(), fix.as_ref())
    }

    /// Reports something that does not keep the policy from being used.
    pub fn warn(&mut self, path: &str, message: impl AsRef<str>, fix: impl AsRef<str>) -> &mut Problem {
        self.add(Severity::Warning, path, false, message.as_ref(), fix.as_ref())
    }

    /// Like [`warn`](Self::warn), but the caret points at the key instead of its value.
    pub fn warn_at_key(&mut self, path: &str, message: impl AsRef<str>, fix: impl AsRef<str>) -> &mut Problem {
        self.add(Severity::Warning, path, true, message.as_ref(), fix.as_ref())
    }

    /// Like [`error`](Self::error), but the caret points at a piece of the text that the value is, in bytes of that text.
    pub fn error_within(
        &mut self,
        path: &str,
        piece: std::ops::Range<usize>,
        message: impl AsRef<str>,
        fix: impl AsRef<str>,
    ) -> &mut Problem {
        self.add_within(Severity::Error, path, &piece, message.as_ref(), fix.as_ref())
    }

    /// Like [`warn`](Self::warn), but the caret points at a piece of the text that the value is.
    pub fn warn_within(
        &mut self,
        path: &str,
        piece: std::ops::Range<usize>,
        message: impl AsRef<str>,
        fix: impl AsRef<str>,
    ) -> &mut Problem {
        self.add_within(Severity::Warning, path, &piece, message.as_ref(), fix.as_ref())
    }

    /// Until the returned guard is dropped, paths are relative to `path`. The guard is a `Problems` itself:
    ///
    /// ```
    /// use palisade_policy::{Problems, Snapshot};
    ///
    /// fn compile_limits(problems: &mut Problems) {
    ///     problems.error("body", "`body` is larger than `[upload] max_size`", "raise the one or lower the other");
    /// }
    ///
    /// let snapshot = Snapshot::from_text("example", "[[route]]\nlimits = { body = \"1GiB\" }").unwrap();
    /// let mut problems = snapshot.problems();
    /// compile_limits(&mut problems.scope("route[0].limits"));
    /// assert!(problems.render(false).contains("<example>:2:19"));
    /// ```
    #[must_use]
    pub fn scope(&mut self, path: &str) -> Scope<'_> {
        let before = self.prefix.len();
        self.prefix.extend(path::parse(path));
        Scope { problems: self, before }
    }

    /// Of the sections that [`Problems::set_guides`] has named: those that hold keys which belong to others: `route`, in which `cors` is that of the section `[cors]`.
    pub fn set_holders<'a>(&mut self, holders: impl IntoIterator<Item = &'a str>) {
        for holder in holders {
            self.guides.iter_mut().filter(|guide| guide.key == holder).for_each(|guide| guide.holds_others = true);
        }
    }

    /// Names, for sections of the policy, the guide's section and the page of the docs; every problem below such a key
    /// (also below a `[[route]]`'s key of that name) ends with them.
    pub fn set_guides<'a>(&mut self, guides: impl IntoIterator<Item = (&'a str, u8, &'a str)>) {
        let guides = guides.into_iter();
        self.guides = guides
            .map(|(key, section, page)| Guide { key: key.into(), section, page: page.into(), holds_others: false })
            .collect();
    }

    /// Whether there is an error: the policy must not be used.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.spilled[0] > 0 || self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of problems of a kind, each counted once.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let beyond = self.spilled[usize::from(severity == Severity::Warning)];
        self.sorted().iter().filter(|problem| problem.severity == severity).count() + beyond
    }

    /// The problems by file and position, without repetitions.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.sorted().into_iter()
    }

    /// All problems for people, at most 100 of them, errors before warnings if there are more.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render::text(self, color)
    }

    /// All problems for programs: `{"errors": 1, "warnings": 0, "problems": [{…}]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        render::json(self)
    }

    /// Takes over what another list found about the same snapshot.
    pub fn append(&mut self, other: Problems) {
        for problem in other.list {
            self.keep(problem);
        }
        for (mine, theirs) in self.spilled.iter_mut().zip(other.spilled) {
            *mine += theirs;
        }
    }

    /// Whether there is an error at a path, below it or around it.
    pub(crate) fn has_error_near(&self, steps: &[Step]) -> bool {
        let path = path::show(steps);
        let inside = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.list.iter().any(|problem| {
            problem.severity == Severity::Error
                && !problem.path.is_empty()
                && (inside(&problem.path, &path) || inside(&path, &problem.path))
        })
    }

    pub(crate) fn placed(&mut self, placed: Placed) -> &mut Problem {
        let Placed { at, file, message, fix, guess_secrets } = placed;
        let at = at.map_or(At::Whole(file), At::Place);
        let fix = fix.map(|fix| clean(&fix)).filter(|fix| !fix.is_empty());
        self.keep(Problem {
            severity: Severity::Error,
            path: String::new(),
            message: clean(&message),
            fix,
            notes: Vec::new(),
            guide: None,
            at,
            guess_secrets,
        })
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        path: &str,
        at_key: bool,
        message: &str,
        fix: &str,
    ) -> &mut Problem {
        let mut steps = self.prefix.clone();
        steps.extend(path::parse(path));
        self.add_steps(severity, &steps, at_key, message, fix)
    }

    fn add_within(
        &mut self,
        severity: Severity,
        path: &str,
        piece: &std::ops::Range<usize>,
        message: &str,
        fix: &str,
    ) -> &mut Problem {
        let mut steps = self.prefix.clone();
        steps.extend(path::parse(path));
        let mut at = self.locate(&steps, false);
        if let At::Place(place) = &mut at {
            let raw = self.texts.get(place).and_then(|source| source.text.get(place.start..place.end));
            if let Some(found) = raw.and_then(|raw| crate::within::find(raw, piece)) {
                *place = Place::new(place.source, place.start + found.start..place.start + found.end);
            }
        }
        self.placed_at(severity, &steps, at, message, fix)
    }

    pub(crate) fn add_steps(
        &mut self,
        severity: Severity,
        steps: &[Step],
        at_key: bool,
        message: &str,
        fix: &str,
    ) -> &mut Problem {
        let at = self.locate(steps, at_key);
        self.placed_at(severity, steps, at, message, fix)
    }

    fn placed_at(&mut self, severity: Severity, steps: &[Step], at: At, message: &str, fix: &str) -> &mut Problem {
        self.keep(Problem {
            severity,
            path: path::show(steps),
            message: clean(message),
            fix: Some(clean(fix)).filter(|fix| !fix.is_empty()),
            notes: Vec::new(),
            guide: None,
            at,
            guess_secrets: false,
        })
    }

    fn keep(&mut self, problem: Problem) -> &mut Problem {
        if self.list.len() >= MAX_KEPT {
            self.spilled[usize::from(problem.severity == Severity::Warning)] += 1;
            return self.spill.insert(Box::new(problem));
        }
        // What several routes have from one place is wrong once.
        let same = |known: &Problem| {
            matches!(problem.at, At::Place(_))
                && (&known.at, known.severity, &known.message) == (&problem.at, problem.severity, &problem.message)
        };
        if let Some(place) = self.list.iter().position(same) {
            return &mut self.list[place];
        }
        self.list.push(problem);
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    fn locate(&self, steps: &[Step], at_key: bool) -> At {
        if steps.is_empty() {
            return At::Whole(self.main_file());
        }
        if let Some(node) = self.tree.find(steps) {
            return At::Place(if at_key {
                node.key.clone().unwrap_or_else(|| node.at.clone())
            } else {
                node.at.clone()
            });
        }
        let (parent, last) = steps.split_at(steps.len() - 1);
        let key = last.first().map_or_else(String::new, |last| path::show(std::slice::from_ref(last)));
        let near = self.tree.find(parent).filter(|_| !parent.is_empty()).map(|node| node.at.clone());
        let near = near.filter(|at| {
            self.texts.get(at).is_some_and(|text| matches!(text.kind, Kind::File { .. } | Kind::Builtin(_)))
        });
        At::Unset { key, table: path::table_name(parent), near }
    }

    /// The last main file: what is not set anywhere would be written there.
    pub(crate) fn main_file(&self) -> Option<String> {
        let main = |kind: &Kind| matches!(kind, Kind::File { path, base } if crate::source::folder(path) == *base);
        let texts = &self.texts.list;
        texts.iter().rfind(|text| main(&text.kind)).or_else(|| texts.first()).map(crate::source::Source::name)
    }

    pub(crate) fn guide_of(&self, problem: &Problem) -> Option<(u8, String)> {
        problem.guide.clone().or_else(|| {
            let steps = path::parse(&problem.path);
            let mut found = None;
            for step in &steps {
                let Step::Key(key) = step else { continue };
                let Some(guide) = self.guides.iter().find(|guide| guide.key == *key) else { continue };
                found = Some((guide.section, guide.page.clone()));
                // What is deeper is a key of this section, though it may be named like another: `cors.headers`.
                if !guide.holds_others {
                    break;
                }
            }
            found
        })
    }

    pub(crate) fn beyond_kept(&self) -> usize {
        self.spilled.iter().sum()
    }

    pub(crate) fn sorted(&self) -> Vec<&Problem> {
        let key = |problem: &Problem| {
            let (source, start) = match &problem.at {
                At::Place(at) | At::Unset { near: Some(at), .. } => (at.source, at.start),
                At::Unset { near: None, .. } => (usize::MAX - 1, 0),
                At::Whole(_) => (usize::MAX, 0),
            };
            (source, start, problem.severity)
        };
        let mut sorted: Vec<&Problem> = self.list.iter().collect();
        // Stable: problems of one place stay in the order they were found in.
        sorted.sort_by_key(|problem| key(problem));
        let mut seen = std::collections::HashSet::new();
        sorted.retain(|problem| seen.insert((key(problem), &problem.message, &problem.path)));
        sorted
    }
}

impl std::fmt::Debug for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// [`Problems`] whose paths start deeper; made by [`Problems::scope`].
#[derive(Debug)]
pub struct Scope<'a> {
    problems: &'a mut Problems,
    before: usize,
}

impl Deref for Scope<'_> {
    type Target = Problems;

    fn deref(&self) -> &Problems {
        self.problems
    }
}

impl DerefMut for Scope<'_> {
    fn deref_mut(&mut self) -> &mut Problems {
        self.problems
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.problems.prefix.truncate(self.before);
    }
}

/// Messages quote what was typed: neither a password nor a terminal's control codes may come along.
fn clean(text: &str) -> String {
    mask::without_url_passwords(&printable(text))
}
