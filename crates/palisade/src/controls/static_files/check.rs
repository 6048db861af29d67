//! What is wrong with directories of files before any of them is served: those that do not exist, that hold what nobody
//! may read, and those that stand in somebody's way.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use http::Method;
use palisade_policy::{Problems, Snapshot};
use palisade_vault::KeyFile;

use super::Config;
use super::root::overlaps;
use crate::controls::Config as Policy;
use crate::policy::state_dir;
use crate::policy::values::SecretProvider;

/// Names that stand in the root of an application, never in a directory of public files.
const OF_AN_APPLICATION: [&str; 7] =
    [".git", ".env", "pyproject.toml", "requirements.txt", "Cargo.toml", "package.json", "docker-compose.yml"];

/// Judges every `[[static]]` together with what else the policy names.
pub(crate) fn check(snapshot: &Snapshot, policy: &Policy, problems: &mut Problems) {
    let private = private(snapshot, policy);
    for (place, files) in policy.r#static.config.iter().enumerate() {
        root(&format!("static[{place}].root"), &files.root, &private, policy.server.is_development(), problems);
        paths(place, files, policy, problems);
    }
}

/// What no root may hold, and what no root may lie in.
struct Private {
    what: String,
    path: PathBuf,
    /// Whether it is a directory nothing of which is for the public.
    folder: bool,
}

fn private(snapshot: &Snapshot, policy: &Policy) -> Vec<Private> {
    let file = |what: &str, path: &Path| Private { what: what.to_owned(), path: path.to_owned(), folder: false };
    let folder = |what: &str, path: PathBuf| Private { what: what.to_owned(), path, folder: true };
    let mut private = vec![folder("`server.state`", state_dir(&policy.server))];
    private.extend(snapshot.files().map(|path| file("the policy file", path)));
    private.extend(policy.tls.pairs().map(|(_, key)| file("a private key of `[tls]`", key)));
    for (what, target) in [("`log.access`", &policy.log.access), ("`log.security`", &policy.log.security)] {
        if !matches!(target.as_str(), "stdout" | "stderr" | "off") {
            private.push(file(what, Path::new(target)));
        }
    }
    match &policy.secrets.provider {
        SecretProvider::Dir(path) => private.push(folder("the directory of `secrets.provider`", path.clone())),
        SecretProvider::File(Some(path)) | SecretProvider::DotEnv(path) => {
            private.push(file("the file of `secrets.provider`", path))
        }
        SecretProvider::File(None) | SecretProvider::Env => {}
    }
    // One that development makes lies under `server.state`.
    if let KeyFile::At(path) = crate::policy::secrets::key_file(policy) {
        private.push(file("the key of the secrets", &path));
    }
    if let Some(path) = &policy.mail.directory {
        private.push(folder("the mail of `mail.directory`", path.clone()));
    }
    private
}

fn root(key: &str, root: &Path, private: &[Private], development: bool, problems: &mut Problems) {
    let shown = root.display();
    let meta = match std::fs::metadata(root) {
        Ok(meta) => meta,
        Err(error) => {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be used: {error}"),
            };
            let fix =
                "make the directory, or name the one that holds the files; a relative path starts at the policy file";
            problems.error(key, format!("`{shown}` {why}"), fix);
            return;
        }
    };
    if !meta.is_dir() {
        problems.error(key, format!("`{shown}` is not a directory"), "name the directory that holds the file");
        return;
    }
    let mut held = false;
    for secret in private {
        let message = match overlaps(root, &secret.path) {
            Some(true) => format!("`{shown}` holds {} (`{}`)", secret.what, secret.path.display()),
            Some(false) if secret.folder => {
                format!("`{shown}` lies in {} (`{}`)", secret.what, secret.path.display())
            }
            _ => continue,
        };
        held = true;
        problems.error(key, message, "name a directory that holds public files and nothing else");
    }
    if held {
        return;
    }
    if let Some(name) = OF_AN_APPLICATION.iter().find(|name| root.join(name).symlink_metadata().is_ok()) {
        problems.warn(
            key,
            format!(
                "`{shown}` holds `{name}`: it looks like the directory of an application, whose source would be public"
            ),
            "move the public files into a directory of their own, and name that",
        );
    }
    if !development && meta.permissions().mode() & 0o002 != 0 {
        problems.warn(
            key,
            format!(
                "anybody on this machine may put files into `{shown}` (mode {:04o})",
                meta.permissions().mode() & 0o7777
            ),
            format!("run `chmod o-w {shown}`"),
        );
    }
}

fn paths(place: usize, files: &Config, policy: &Policy, problems: &mut Problems) {
    let section = &policy.r#static.config;
    let same = |other: &&Config| other.path == files.path && other.host == files.host;
    if section[..place].iter().any(|other| same(&other)) {
        problems.error(
            &format!("static[{place}].path"),
            format!("`{}` is the path of another `[[static]]` too", files.path),
            "give each directory a path of its own, or put the files into one",
        );
    }
    let upstream = policy.upstream.url.is_some() || !policy.upstream.command.is_empty();
    if files.path.prefix().is_empty() && files.host.is_none() && upstream {
        problems.error(
            &format!("static[{place}].path"),
            "`/` is every path: the application behind would never be asked",
            "name a path below, such as `/static`, or a `host` that is for files only",
        );
    }
    let pattern = files.pattern();
    for (number, route) in policy.route.iter().enumerate() {
        let route = &route.route;
        let reads = route.methods.is_empty()
            || route.methods.iter().any(|method| matches!(method.0, Method::GET | Method::HEAD));
        let hosts = files.host.is_none() || files.host == route.host;
        if !reads && hosts && pattern.covers(&route.path) {
            problems.error(
                &format!("route[{number}].path"),
                format!("this path lies under `[[static]]` `{}`, whose files are only read", files.path),
                "move the route out of that path, or let it name `GET`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &Path, development: bool) -> String {
        let mut problems = Snapshot::from_text("test", "").unwrap().problems();
        root("static[0].root", path, &[], development, &mut problems);
        problems.render(false)
    }

    #[test]
    fn a_root_that_anybody_may_write_to_is_reported_in_production() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(said(folder.path(), false), "");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(said(folder.path(), false).contains("(mode 0777)"));
        assert_eq!(said(folder.path(), true), "");
    }
}
