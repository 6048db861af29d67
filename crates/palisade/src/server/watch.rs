//! Noticing that a file of the policy, a certificate or a key has changed.
//!
//! By looking, not by `inotify`: a watch belongs to an inode, and what replaces policies in practice replaces inodes (an
//! editor's rename, Kubernetes' swapped `..data` link two folders up, a bind mount, a network file system that sends no
//! events at all). A dozen `stat` calls twice a second see all of these alike and cost some microseconds.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a path leads to, past all links, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Moves with every change of the file, also where a writer sets `modified` back.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Files as they were at one moment. A file that is not there is remembered as such.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Watched(Vec<(PathBuf, Option<Stamp>)>);

impl Watched {
    /// Looks at files and at the folders they are named in: a new file there may match an `include`.
    pub(super) fn with_folders<'p>(files: impl Iterator<Item = &'p Path>) -> Self {
        let mut paths: Vec<PathBuf> = Vec::new();
        for file in files {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            paths.extend([file.to_owned(), folder.to_owned()]);
        }
        Self::look(paths)
    }

    /// Looks at files.
    pub(super) fn look(mut paths: Vec<PathBuf>) -> Self {
        paths.sort_unstable();
        paths.dedup();
        Self(paths.into_iter().map(|path| (Stamp::of(&path), path)).map(|(stamp, path)| (path, stamp)).collect())
    }

    /// Whether the same files are looked at.
    pub(super) fn is_same_set(&self, other: &Self) -> bool {
        self.0.iter().map(|(path, _)| path).eq(other.0.iter().map(|(path, _)| path))
    }

    /// The same files, looked at again.
    pub(super) fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| (path.clone(), Stamp::of(path))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_way_to_replace_a_file_is_seen() {
        let folder = std::env::temp_dir().join(format!("palisade-watch-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for version in ["1", "2"] {
            fs::create_dir_all(folder.join(format!("..{version}"))).unwrap();
            fs::write(folder.join(format!("..{version}/palisade.toml")), "same text").unwrap();
        }
        // As Kubernetes mounts a ConfigMap: the file links into `..data`, which links to a folder of a version.
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/palisade.toml", folder.join("palisade.toml")).unwrap();
        fs::write(folder.join("plain"), "1").unwrap();
        let files = [folder.join("palisade.toml"), folder.join("plain"), folder.join("absent")];
        let mut before = Watched::look(files.to_vec());
        assert_eq!(before, before.again());
        let mut changed = |what: &str| {
            let now = before.again();
            assert_ne!(before, now, "{what}");
            assert_eq!(now, now.again(), "{what}");
            before = now;
        };
        symlink("..2", folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        changed("the link to the version is swapped");
        fs::write(folder.join("beside"), "2").unwrap();
        fs::rename(folder.join("beside"), folder.join("plain")).unwrap();
        changed("another file is renamed over it");
        fs::write(folder.join("plain"), "33").unwrap();
        changed("it is written in place");
        fs::write(folder.join("absent"), "").unwrap();
        changed("a file appears");
        fs::remove_file(folder.join("plain")).unwrap();
        changed("a file goes");
        let folders = Watched::with_folders([folder.join("palisade.toml")].iter().map(|path| &**path));
        fs::write(folder.join("conf"), "").unwrap();
        assert_ne!(folders, folders.again(), "a file beside it appears");
        fs::remove_dir_all(&folder).unwrap();
    }
}
