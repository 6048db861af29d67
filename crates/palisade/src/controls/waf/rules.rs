//! Rule files: found, compiled, and kept for as long as they stay as they are.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_policy::Problems;
use palisade_seclang::{Builder, Collections, EngineMode, LimitAction, Problem, RuleSet};
use parking_lot::Mutex;

use super::collections::{self, Memory};
use super::config::{BUILTIN, Config, Rules};
use super::judge::SCORES;
use crate::policy::Env;

/// What differs between the rule sets of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) paranoia: Option<u8>,
    pub(super) threshold: Option<u32>,
}

/// A file as it was when it was read.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A rule set, and what it keeps from one transaction to the next.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) rules: Arc<RuleSet>,
    pub(super) kept: Arc<collections::Keeper>,
}

/// Rule sets as they were compiled last; outlives policies, so that a switch or a reload that changes no rule compiles
/// none, and so that rules which are broken on disk do not keep a switch from being put in force.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Vec<Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    paths: Vec<String>,
    variant: Variant,
    stamps: Vec<(PathBuf, Stamp)>,
    set: Set,
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec().wrapping_add(meta.ctime_nsec())))
}

/// Compiles the rules in each variant. `None`: there is something wrong, and it was reported.
pub(super) fn compile(config: &Config, variants: &[Variant], env: &Env, problems: &mut Problems) -> Option<Vec<Set>> {
    let paths = config.rules.paths();
    if let Some(place) = paths.iter().position(|path| path == BUILTIN) {
        let key = key(&config.rules, place);
        problems.error(
            &key,
            "this version has no rules of its own yet",
            "name rule files, such as the folder of Debian's `modsecurity-crs`: `\"/usr/share/modsecurity-crs\"`",
        );
        return None;
    }
    let kept = env.state.get("waf", Kept::default);
    let before = kept.0.lock().clone();
    let mut now = Vec::new();
    let mut compiled = Vec::new();
    for variant in variants {
        let same = |entry: &&Entry| {
            entry.paths == paths
                && entry.variant == *variant
                && (!env.rereads || entry.stamps.iter().all(|(path, was)| stamp(path) == *was))
        };
        let entry = match before.iter().find(same) {
            Some(entry) => entry.clone(),
            None => {
                let (rules, stamps) = build(paths, *variant, &config.rules, problems)?;
                let kept = Arc::new(collections::Keeper::new(env.state.get("waf", Memory::default)));
                let rules = Arc::new(rules.with_collections(Arc::clone(&kept) as Arc<dyn Collections>));
                Entry { paths: paths.to_vec(), variant: *variant, stamps, set: Set { rules, kept } }
            }
        };
        compiled.push(entry.set.clone());
        now.push(entry);
    }
    *kept.0.lock() = now;
    Some(compiled)
}

fn key(rules: &Rules, place: usize) -> String {
    match rules {
        Rules::One(_) => "waf.rules".to_owned(),
        Rules::Several(_) => format!("waf.rules[{place}]"),
    }
}

fn build(
    paths: &[String],
    variant: Variant,
    written: &Rules,
    problems: &mut Problems,
) -> Option<(RuleSet, Vec<(PathBuf, Stamp)>)> {
    let mut files: Vec<PathBuf> = Vec::new();
    // Stamped before they are read: what changes meanwhile is read again next time.
    let mut stamps: Vec<(PathBuf, Stamp)> = Vec::new();
    for (place, path) in paths.iter().enumerate() {
        for folder in folders(Path::new(path)) {
            let now = stamp(&folder);
            stamps.push((folder, now));
        }
        match expand(Path::new(path)) {
            Ok(found) => {
                for file in found {
                    // A folder may bring along what is named by itself, too.
                    if !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
            Err(why) => {
                let fix = "name a file, a pattern that matches some, or the folder of a rule set";
                problems.error(&key(written, place), format!("`{path}`: {why}"), fix);
            }
        }
    }
    if files.is_empty() {
        return None;
    }
    let setting = setting(variant);
    let at = place_of_setting(&files);
    let mut builder = Builder::new();
    // The gateway limits what it feeds; a request is cut by its route's limit, not by the language's old defaults.
    builder.settings(|settings| {
        settings.request_body_limit = usize::MAX;
        settings.request_body_no_files_limit = usize::MAX;
        settings.request_body_limit_action = LimitAction::ProcessPartial;
    });
    builder.reads(&SCORES);
    for (place, file) in files.iter().enumerate() {
        if let Some(text) = setting.as_ref().filter(|_| place == at) {
            builder.text("[waf]", text);
        }
        stamps.push((file.clone(), stamp(file)));
        builder.file(file);
    }
    if let Some(text) = setting.as_ref().filter(|_| at >= files.len()) {
        builder.text("[waf]", text);
    }
    match builder.compile() {
        Ok(rules) => {
            let more: Vec<_> = rules.files().iter().filter(|file| !files.contains(file)).cloned().collect();
            stamps.extend(more.into_iter().map(|file| (file.clone(), stamp(&file))));
            warn(&rules, problems);
            Some((rules, stamps))
        }
        Err(wrong) => {
            report(&wrong, problems);
            None
        }
    }
}

/// What the rules ask for and do not get.
fn warn(rules: &RuleSet, problems: &mut Problems) {
    let settings = rules.settings();
    if settings.engine == EngineMode::Off {
        problems.warn("waf.rules", "`SecRuleEngine Off`: the rules switch themselves off", "remove the directive");
    }
    let asking = rules.asks_elsewhere();
    if !asking.is_empty() {
        let numbers: Vec<String> = asking.iter().take(10).map(u64::to_string).collect();
        problems.warn(
            "waf.rules",
            format!(
                "`@geoLookup` and `@rbl` know nothing here, so that these rules never match: {}",
                numbers.join(", ")
            ),
            "remove the rules, or block the addresses in front of the gateway",
        );
    }
    if !settings.notes.is_empty() {
        let mut notes = settings.notes.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        if settings.notes.len() > 5 {
            notes.push_str(&format!("; and {} more", settings.notes.len() - 5));
        }
        problems.warn("waf.rules", notes, "remove the directives, or leave them for other engines");
    }
}

fn report(wrong: &[Problem], problems: &mut Problems) {
    for problem in wrong {
        let mut message = format!("{}:{}: {}", problem.file, problem.line, problem.message);
        if !problem.text.is_empty() {
            message.push_str(&format!(": `{}`", problem.text));
        }
        let fix = if problem.help.is_empty() { "mend the rule" } else { &problem.help };
        problems.error("waf.rules", message, fix);
    }
}

/// What the policy sets of the Core Rule Set, in the names of versions 3 and 4.
fn setting(variant: Variant) -> Option<String> {
    let mut sets = Vec::new();
    if let Some(level) = variant.paranoia {
        let names =
            ["paranoia_level", "executing_paranoia_level", "blocking_paranoia_level", "detection_paranoia_level"];
        sets.extend(names.map(|name| format!("setvar:tx.{name}={level}")));
    }
    if let Some(threshold) = variant.threshold {
        sets.push(format!("setvar:tx.inbound_anomaly_score_threshold={threshold}"));
    }
    (!sets.is_empty()).then(|| format!("SecAction \"id:4294000001,phase:1,nolog,pass,t:none,{}\"", sets.join(",")))
}

/// Before which file the policy's own settings stand: behind the set-up, before the rules that fill in what is missing.
fn place_of_setting(files: &[PathBuf]) -> usize {
    let named =
        |file: &PathBuf, start: &str| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    let first = files.iter().position(|file| named(file, "REQUEST-901"));
    let after_setup = || files.iter().rposition(|file| named(file, "crs-setup")).map(|at| at + 1);
    first.or_else(after_setup).unwrap_or(0)
}

/// The files that one entry of `rules` means.
fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    if path.is_dir() {
        return folder(path);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return match std::fs::metadata(path) {
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
    }
    let files = palisade_seclang::matching(path)?;
    Ok(files)
}

/// The files of a Core Rule Set, in the order of its installation: its set-up, plugins that come before the rules, the
/// rules, plugins that come after them.
fn folder(path: &Path) -> Result<Vec<PathBuf>, String> {
    let rules = if path.join("rules").is_dir() { path.join("rules") } else { path.to_owned() };
    let rules = palisade_seclang::matching(&rules.join("*.conf"))?;
    let plugins = path.join("plugins");
    if plugins.is_dir() {
        drop(std::fs::read_dir(&plugins).map_err(|error| format!("its `plugins` cannot be read: {error}"))?);
    }
    // There need be none of a kind.
    let plugins = |kind: &str| palisade_seclang::matching(&plugins.join(format!("*-{kind}.conf"))).unwrap_or_default();
    let local = local(path);
    let local = |name: &str| local.as_ref().map(|folder| folder.join(name)).filter(|file| file.is_file());
    // A link among the rules to the same file counts once.
    let exclusions = |name: &str| local(name).filter(|file| !rules.iter().any(|rule| stamp(rule) == stamp(file)));
    let mut files: Vec<PathBuf> = Vec::new();
    let setups =
        [Some(path.join("crs-setup.conf")), local("crs-setup.conf"), Some(path.join("crs-setup.conf.example"))];
    files.extend(setups.into_iter().flatten().find(|setup| setup.is_file()));
    files.extend(plugins("config"));
    files.extend(plugins("before"));
    files.extend(exclusions("REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf"));
    for rule in &rules {
        if !files.contains(rule) {
            files.push(rule.clone());
        }
    }
    files.extend(exclusions("RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf"));
    files.extend(plugins("after"));
    Ok(files)
}

/// Where Debian keeps what is the administrator's of the rule set in `/usr/share/modsecurity-crs`.
fn local(path: &Path) -> Option<PathBuf> {
    let root = path.ancestors().nth(3).filter(|_| path.ends_with("usr/share/modsecurity-crs"))?;
    Some(root.join("etc/modsecurity/crs"))
}

/// The folders, there or not, in which a new file may be one that an entry of `rules` means.
fn folders(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return path.parent().map(Path::to_owned).into_iter().collect();
    }
    [path.to_owned(), path.join("rules"), path.join("plugins")].into_iter().chain(local(path)).collect()
}

/// The files that the rules in force were read from, and the folders of their patterns.
pub(crate) fn files(env: &Env) -> Vec<PathBuf> {
    let kept = env.state.get("waf", Kept::default);
    let entries = kept.0.lock();
    entries.iter().flat_map(|entry| entry.stamps.iter().map(|(path, _)| path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, names: &[&str]) {
        for name in names {
            let file = root.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("# {name}\n")).unwrap();
        }
    }

    fn below(root: &Path, files: &[PathBuf]) -> Vec<String> {
        files.iter().map(|file| file.strip_prefix(root).unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn plugins_stand_before_and_after_the_rules() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, &["rules/REQUEST-901-INITIALIZATION.conf", "rules/REQUEST-920.conf", "crs-setup.conf"]);
        let plain = ["crs-setup.conf", "rules/REQUEST-901-INITIALIZATION.conf", "rules/REQUEST-920.conf"];
        assert_eq!(below(root, &folder(root).unwrap()), plain);
        write(root, &["plugins/b-before.conf", "plugins/a-before.conf", "plugins/README.conf"]);
        write(root, &["plugins/a-after.conf", "plugins/z-config.conf", "plugins/a-rules.data"]);
        let files = folder(root).unwrap();
        let whole = [
            "crs-setup.conf",
            "plugins/z-config.conf",
            "plugins/a-before.conf",
            "plugins/b-before.conf",
            "rules/REQUEST-901-INITIALIZATION.conf",
            "rules/REQUEST-920.conf",
            "plugins/a-after.conf",
        ];
        assert_eq!(below(root, &files), whole);
        assert_eq!(place_of_setting(&files), 4, "the policy's settings stand behind those of plugins");
        assert_eq!(below(root, &folders(root)), ["", "rules", "plugins"]);
    }

    #[test]
    fn local_exclusions_of_debian_stand_around_the_rules() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let (before, after) =
            ("REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf", "RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf");
        let etc = |name: &str| format!("etc/modsecurity/crs/{name}");
        let usr = |name: &str| format!("usr/share/modsecurity-crs/{name}");
        let rule = usr("rules/REQUEST-901-INITIALIZATION.conf");
        let path = root.join("usr/share/modsecurity-crs");
        write(root, &[&rule, &etc("crs-setup.conf")]);
        assert_eq!(below(root, &folder(&path).unwrap()), [etc("crs-setup.conf"), rule.clone()]);
        write(root, &[&etc(before), &etc(after), &usr("plugins/a-before.conf"), &usr("plugins/a-after.conf")]);
        let whole = [
            etc("crs-setup.conf"),
            usr("plugins/a-before.conf"),
            etc(before),
            rule,
            etc(after),
            usr("plugins/a-after.conf"),
        ];
        let files = folder(&path).unwrap();
        assert_eq!(below(root, &files), whole);
        assert_eq!(place_of_setting(&files), 3);
        assert!(folders(&path).contains(&root.join("etc/modsecurity/crs")), "a new file there is seen");
        // Where the rules hold a link to it, it is read there.
        let link = usr(&format!("rules/{before}"));
        std::os::unix::fs::symlink(root.join(etc(before)), root.join(&link)).unwrap();
        let files = below(root, &folder(&path).unwrap());
        assert!(files.contains(&link) && !files.contains(&etc(before)), "{files:?}");
    }
}
