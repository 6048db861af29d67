//! A directory that cannot be left: files beneath it are opened in one step, or not at all.
//!
//! `openat2` (Linux 5.6) resolves a whole path beneath a descriptor and refuses every link on the way; nothing is checked
//! first and opened later. Where the kernel or a container's filter does not have it, each directory on the way is opened
//! beneath the one before it, without following links: the same files, some more calls. Source: threats of time of check
//! and time of use (CWE-367), openat2(2).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// A directory whose files are served.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// What Palisade writes lies here: no directory that holds it is ever opened.
    state: PathBuf,
    held: ArcSwapOption<Held>,
    since: Instant,
    /// When it was looked for last, in milliseconds since then, plus one; 0: never.
    looked: AtomicU64,
}

/// The directory as it was opened.
#[derive(Debug)]
struct Held {
    directory: OwnedFd,
    identity: (u64, u64),
    way: Way,
}

/// How files beneath it are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In one step.
    #[cfg(target_os = "linux")]
    OneStep,
    /// Directory by directory.
    Walk,
}

/// How long an opened directory is believed to be the one that the policy names. One that was moved away, or a link that
/// a deployment has turned to the next release, is noticed after that.
const BELIEVED_MS: u64 = 1000;

impl Root {
    /// Opens nothing yet: that is done by the first request, where waiting for a disk holds nobody up.
    pub(super) fn new(path: PathBuf, state: PathBuf) -> Self {
        Self { path, state, held: ArcSwapOption::empty(), since: Instant::now(), looked: AtomicU64::new(0) }
    }

    /// Opens what lies beneath the root under a relative name; the root itself under an empty one. Blocks.
    ///
    /// # Errors
    /// As open(2); `ELOOP` for a link anywhere on the way.
    pub(super) fn open(&self, name: &[u8]) -> nix::Result<File> {
        let held = self.held().ok_or(Errno::ENOENT)?;
        held.open(if name.is_empty() { b"." } else { name }).map(File::from)
    }

    /// The directory, looked for again now and then.
    fn held(&self) -> Option<Arc<Held>> {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let looked = self.looked.load(Ordering::Relaxed);
        let held = self.held.load_full();
        if looked != 0 && now - looked.min(now) < BELIEVED_MS && held.is_some() {
            return held;
        }
        self.looked.store(now, Ordering::Relaxed);
        let Ok(meta) = std::fs::metadata(&self.path) else {
            // Between two steps of a deployment there may be none; what was opened is still there.
            return held;
        };
        if let Some(held) = &held
            && held.identity == (meta.dev(), meta.ino())
        {
            return Some(Arc::clone(held));
        }
        let fresh = self.find().map(Arc::new);
        self.held.store(fresh.clone());
        fresh
    }

    fn find(&self) -> Option<Held> {
        let path = std::fs::canonicalize(&self.path).ok()?;
        if overlaps(&path, &self.state).is_some() {
            return None;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | path_only();
        let directory = File::from(open(&path, flags, Mode::empty()).ok()?);
        let meta = directory.metadata().ok()?;
        let directory = OwnedFd::from(directory);
        let way = way(&directory);
        Some(Held { directory, identity: (meta.dev(), meta.ino()), way })
    }
}

/// A descriptor that only stands for a place needs no right to list it.
fn path_only() -> OFlag {
    #[cfg(target_os = "linux")]
    return OFlag::O_PATH;
    #[cfg(not(target_os = "linux"))]
    return OFlag::empty();
}

/// Never waits (a FIFO without a writer, a device), never becomes a terminal's owner, never follows a link at the end.
fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(target_os = "linux")]
fn one_step(directory: &OwnedFd, name: &[u8]) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(directory, name, OpenHow::new().flags(flags()).resolve(resolve)) {
            // Somebody renames just now; the kernel could not be sure.
            Err(Errno::EAGAIN | Errno::EINTR) if tries < 8 => tries += 1,
            outcome => return outcome,
        }
    }
}

/// Old kernels do not know the call (`ENOSYS`), old filters of containers forbid what they do not know (`EPERM`).
#[cfg(target_os = "linux")]
fn way(directory: &OwnedFd) -> Way {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    match openat2(directory, ".", how) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::E2BIG) => Way::Walk,
        _ => Way::OneStep,
    }
}

#[cfg(not(target_os = "linux"))]
fn way(_: &OwnedFd) -> Way {
    Way::Walk
}

impl Held {
    fn open(&self, name: &[u8]) -> nix::Result<OwnedFd> {
        // No reader of names lets these through; here they would be the way out.
        if name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..") {
            return Err(Errno::EXDEV);
        }
        match self.way {
            #[cfg(target_os = "linux")]
            Way::OneStep => one_step(&self.directory, name),
            Way::Walk => walk(&self.directory, name),
        }
    }
}

fn walk(directory: &OwnedFd, name: &[u8]) -> nix::Result<OwnedFd> {
    let on_the_way = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | path_only();
    let mut parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let from = here.as_ref().unwrap_or(directory);
        if parts.peek().is_none() {
            return openat(from, part, flags(), Mode::empty());
        }
        here = Some(openat(from, part, on_the_way, Mode::empty()).map_err(|error| match error {
            // What a link is to `O_DIRECTORY`.
            Errno::ENOTDIR if is_link(from, part) => Errno::ELOOP,
            other => other,
        })?);
    }
    Err(Errno::ENOENT)
}

/// Only to say why: nothing is decided by it.
fn is_link(directory: &OwnedFd, name: &[u8]) -> bool {
    nix::fcntl::readlinkat(directory, name).is_ok()
}

/// Whether one of two directories holds the other, links resolved: `Some(true)` where the first holds the second.
pub(super) fn overlaps(root: &Path, other: &Path) -> Option<bool> {
    let (root, other) = (resolved(root), resolved(other));
    if other.starts_with(&root) {
        Some(true)
    } else if root.starts_with(&other) {
        Some(false)
    } else {
        None
    }
}

/// A path without links, also where its end is not there yet.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    let mut there = path.as_path();
    loop {
        if let Ok(found) = std::fs::canonicalize(there) {
            return missing.iter().rev().fold(found, |path, name| path.join(name));
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                there = parent;
            }
            _ => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    use palisade_test::juggle::juggle;

    use super::*;

    struct Tree {
        outside: tempfile::TempDir,
        root: PathBuf,
    }

    fn tree() -> Tree {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("a/b/c.txt"), "inside").unwrap();
        std::fs::write(root.join("top.txt"), "inside").unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("top.txt", root.join("inner")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("link-to-itself", root.join("link-to-itself")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        Tree { outside, root }
    }

    fn held(root: &Path, way: Option<Way>) -> Held {
        let mut held = Root::new(root.to_owned(), "/nowhere".into()).find().unwrap();
        held.way = way.unwrap_or(held.way);
        held
    }

    #[test]
    fn both_ways_open_the_same_and_nothing_else() {
        let tree = tree();
        for way in [None, Some(Way::Walk)] {
            let held = held(&tree.root, way);
            for name in ["top.txt", "a/b/c.txt"] {
                let mut text = String::new();
                File::from(held.open(name.as_bytes()).unwrap()).read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside", "{name}");
            }
            for (name, expected) in [
                ("..", Errno::EXDEV),
                ("../secret", Errno::EXDEV),
                ("a/../../secret", Errno::EXDEV),
                ("/etc/passwd", Errno::EXDEV),
                ("link", Errno::ELOOP),
                ("inner", Errno::ELOOP),
                ("up/secret", Errno::ELOOP),
                ("up", Errno::ELOOP),
                ("slash/etc/passwd", Errno::ELOOP),
                ("magic/etc/passwd", Errno::ELOOP),
                ("link-to-itself", Errno::ELOOP),
                ("nothing", Errno::ENOENT),
                ("a/nothing/c", Errno::ENOENT),
                ("top.txt/x", Errno::ENOTDIR),
            ] {
                assert_eq!(held.open(name.as_bytes()).unwrap_err(), expected, "{name} {way:?}");
            }
        }
    }

    /// The way of other kernels, which has more moments for it. This kernel's is raced through the gateway, for as long as
    /// the contract says.
    #[test]
    fn whoever_swaps_things_on_a_walk_gets_nothing_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("files");
        for (name, text) in [("files/race/kept", "inside"), ("secret.txt", "outside"), ("outside/deep/x", "outside")] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let held = held(&root, Some(Way::Walk));
        let stop = AtomicBool::new(false);
        let until = Instant::now() + Duration::from_secs(10);
        let ask = |name: &'static str| {
            let (mut sent, mut nothing) = (0_u64, 0_u64);
            while Instant::now() < until || sent.min(nothing) == 0 {
                assert!(Instant::now() < until + Duration::from_secs(50), "{name}: {sent} sent, {nothing} not there");
                let Ok(file) = held.open(name.as_bytes()) else {
                    nothing += 1;
                    continue;
                };
                let mut file = File::from(file);
                // As `answer.rs` judges it.
                if !file.metadata().unwrap().is_file() {
                    nothing += 1;
                    continue;
                }
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside", "{name}");
                sent += 1;
            }
            (sent, nothing)
        };
        thread::scope(|scope| {
            let juggler = scope.spawn(|| juggle(folder.path(), &stop));
            let askers = ["race/x", "race/way/deep/x"].map(|name| scope.spawn(move || ask(name)));
            let seen = askers.map(thread::ScopedJoinHandle::join);
            stop.store(true, Ordering::Relaxed);
            let rounds = juggler.join().unwrap().unwrap();
            println!("{rounds} rounds, {:?}", seen.map(Result::unwrap));
            assert!(rounds > 100, "{rounds} rounds");
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_kernel_does_it_in_one_step() {
        let tree = tree();
        let way = held(&tree.root, None).way;
        if way == Way::Walk && std::env::var_os("CI").is_none() {
            println!("NOT RUN: this kernel, or a filter in front of it, does not have `openat2`");
            return;
        }
        assert_eq!(way, Way::OneStep);
    }

    #[test]
    fn a_root_that_holds_the_state_is_not_opened() {
        let tree = tree();
        let state = tree.root.join(".palisade");
        assert_eq!(Root::new(tree.root.clone(), state).open(b"top.txt").unwrap_err(), Errno::ENOENT);
        assert!(Root::new(tree.root.clone(), tree.outside.path().join("state")).open(b"top.txt").is_ok());
    }

    #[test]
    fn a_root_that_was_replaced_is_found_again() {
        let tree = tree();
        let current = tree.outside.path().join("current");
        symlink("root", &current).unwrap();
        let root = Root::new(current.clone(), "/nowhere".into());
        assert!(root.open(b"top.txt").is_ok());
        std::fs::create_dir(tree.outside.path().join("next")).unwrap();
        std::fs::write(tree.outside.path().join("next/new.txt"), "new").unwrap();
        std::fs::remove_file(&current).unwrap();
        symlink("next", &current).unwrap();
        // As if it had been looked for long ago.
        root.looked.store(0, Ordering::Relaxed);
        assert!(root.open(b"new.txt").is_ok());
        assert_eq!(root.open(b"top.txt").unwrap_err(), Errno::ENOENT);
        std::fs::remove_file(&current).unwrap();
        root.looked.store(0, Ordering::Relaxed);
        assert!(root.open(b"new.txt").is_ok(), "what was opened is still there");
    }

    #[test]
    fn overlapping_directories() {
        let tree = tree();
        let link = tree.root.join("up");
        let outside = tree.outside.path();
        for (root, other, expected) in [
            (outside, tree.root.as_path(), Some(true)),
            (tree.root.as_path(), outside, Some(false)),
            (outside, outside, Some(true)),
            (link.as_path(), &outside.join("not/there/yet"), Some(true)),
            (tree.root.as_path(), Path::new("/etc"), None),
            (&tree.root.join("a"), &tree.root.join("ab"), None),
        ] {
            assert_eq!(overlaps(root, other), expected, "{} {}", root.display(), other.display());
        }
    }
}
