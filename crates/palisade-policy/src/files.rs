//! Reading single files: bounded, regular files only, and from one descriptor, so that what was checked is what was read.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest policy file.
pub(crate) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A file as it was at one moment.
pub(crate) struct Read {
    pub(crate) text: String,
    /// The file itself, past all links.
    pub(crate) real: PathBuf,
    pub(crate) owner: Owner,
}

/// Who may change a file.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) path: PathBuf,
    pub(crate) uid: u32,
    pub(crate) mode: u32,
}

/// Why a file cannot be part of a policy, and what to do.
pub(crate) struct Unreadable {
    pub(crate) message: String,
    pub(crate) fix: String,
}

fn no(message: impl Into<String>, fix: impl Into<String>) -> Unreadable {
    Unreadable { message: message.into(), fix: fix.into() }
}

/// Reads a whole file. A writer at work is noticed by size and time and waited out by reading again, three times at most.
pub(crate) fn read(path: &Path) -> Result<Read, Unreadable> {
    for _ in 0..3 {
        // A named pipe would block on opening, before it can be refused.
        let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
        let mut file = file.map_err(|error| unopened(&error))?;
        let before = file.metadata().map_err(|error| unopened(&error))?;
        if before.is_dir() {
            return Err(no(
                "this is a folder",
                "name a file; for all of a folder write `include = [\"conf.d/*.toml\"]`",
            ));
        }
        if !before.is_file() {
            return Err(no("this is not a regular file", "name a file"));
        }
        if before.len() > MAX_FILE_BYTES {
            return Err(no("this file is larger than 4 MiB", "split it, or check that it is the policy"));
        }
        let bytes = read_bounded(&mut file).map_err(|error| unopened(&error))?;
        let after = file.metadata().map_err(|error| unopened(&error))?;
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
            (a.len(), a.mtime(), a.mtime_nsec()) == (b.len(), b.mtime(), b.mtime_nsec())
        };
        if !same(&before, &after) || bytes.len() as u64 != after.len() {
            continue;
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
            no(format!("this file is not UTF-8 (line {line})"), "save it as UTF-8")
        })?;
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let owner = Owner { path: path.to_path_buf(), uid: after.uid(), mode: after.mode() };
        return Ok(Read { text, real, owner });
    }
    Err(no("this file changes while it is read", "write it beside and rename it into place"))
}

fn read_bounded(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unopened(error: &std::io::Error) -> Unreadable {
    match error.kind() {
        std::io::ErrorKind::NotFound => no("there is no such file", "check the name and the folder it starts from"),
        std::io::ErrorKind::PermissionDenied => {
            no("this file cannot be read: permission denied", "let the user that Palisade runs as read it")
        }
        _ => no(format!("this file cannot be read: {error}"), "check the file"),
    }
}

/// The files a pattern names, by name: `*` and `?` in the last part only, hidden files only where the pattern says so.
pub(crate) fn expand(folder: &Path, pattern: &str, most: usize) -> Result<Vec<PathBuf>, Unreadable> {
    if !pattern.contains(['*', '?']) {
        return Ok(vec![folder.join(pattern)]);
    }
    let (parent, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if parent.contains(['*', '?']) {
        return Err(no("`*` and `?` stand in the file's name only", "name each folder, such as \"conf.d/*.toml\""));
    }
    // A leading slash is the whole parent of `/*.toml`.
    let parent = if parent.is_empty() && pattern.starts_with('/') { "/" } else { parent };
    let parent = folder.join(parent);
    let shown = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
    let entries = std::fs::read_dir(shown).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            no("the folder of this pattern does not exist", "create it, or take the line out")
        }
        _ => no(format!("the folder of this pattern cannot be read: {error}"), "let Palisade's user read it"),
    })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| no(format!("the folder cannot be read: {error}"), "check the folder"))?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else { continue };
        if matches(name, file_name) && (name.starts_with('.') || !file_name.starts_with('.')) {
            if names.len() >= most {
                return Err(no(format!("this pattern names more than {most} files"), "put them together"));
            }
            names.push(file_name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(no(
            "no file matches this pattern",
            "add a file, or take the line out: a missing part could open the API",
        ));
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| parent.join(name)).collect())
}

/// Whether a name matches a pattern of `*` and `?`. Linear in practice: only the last `*` is ever tried again.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// What is wrong with who may change a file or the folder it lies in, for the user `uid` that Palisade runs as.
pub(crate) fn ownership(owner: &Owner, real: &Path, uid: u32) -> Vec<Unreadable> {
    let mut found = Vec::new();
    let mine = |owner: u32| owner == 0 || owner == uid;
    if !mine(owner.uid) {
        let fix = format!("run `chown root {}`", owner.path.display());
        found.push(no(format!("this file belongs to user {}, who could change it", owner.uid), fix));
    }
    if owner.mode & 0o022 != 0 {
        let fix = format!("run `chmod go-w {}`", owner.path.display());
        found.push(no(format!("others may write this file (mode {:04o})", owner.mode & 0o7777), fix));
    }
    let mut folders = vec![crate::source::folder(&owner.path), crate::source::folder(real)];
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let Ok(meta) = std::fs::metadata(&folder) else { continue };
        // Who may write a folder may swap the files in it, unless it is sticky; a read-only mount (Kubernetes mounts
        // ConfigMaps with mode 0777) holds everybody off.
        let writable = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
        if (writable || !mine(meta.uid())) && !read_only(&folder) {
            let fix = format!("run `chown root {0}` and `chmod go-w {0}`", folder.display());
            let who = if writable { "others".to_owned() } else { format!("user {}", meta.uid()) };
            let message =
                format!("{who} may replace this file, because the folder {} is writable for them", folder.display());
            found.push(no(message, fix));
            break;
        }
    }
    found
}

fn read_only(folder: &Path) -> bool {
    nix::sys::statvfs::statvfs(folder).is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml~", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("?.toml", "ü.toml", true),
            ("", "", true),
            ("*", "", true),
            ("**a", "bba", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
