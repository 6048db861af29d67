//! One writer at a time, and a file that is the old or the new one at every moment.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;

/// A change takes milliseconds; only a process that was stopped in the middle of one holds the lock for longer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// The right to replace a file. The system takes it back from a process that dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    /// What is replaced: where `path` is a link, what it leads to.
    target: PathBuf,
    folder: PathBuf,
}

impl Lock {
    /// Waits for its turn. The lock is a file of its own beside the one it protects, since that one is another file after
    /// each change.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Storage { path: path.into(), doing: "written", reason: said(&error) };
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
        let file = options.open(beside(&target, &folder, ".lock")).map_err(failed)?;
        give_to_owner(&file, &folder).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file, target, folder }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(Error::Busy(path.into())),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Replaces the file. When this returns, the new one survives a power cut; when it fails, the old one is untouched.
    pub(super) fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = beside(&self.target, &self.folder, ".new");
        // What a process left that died here; nobody else has this name while the lock is held.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = self.write(&new, bytes).and_then(|()| fs::rename(&new, &self.target));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(&self.folder)?.sync_all()
    }

    fn write(&self, new: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(bytes)?;
        let like = if self.target.exists() { &self.target } else { &self.folder };
        give_to_owner(&file, like)?;
        file.sync_all()
    }
}

/// What root writes for a server that runs as another user must be that user's, as what was there before is.
pub(super) fn give_to_owner(file: &File, like: &Path) -> io::Result<()> {
    let (meta, like) = (file.metadata()?, fs::metadata(like)?);
    if meta.uid() == like.uid() || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))
}

fn beside(target: &Path, folder: &Path, ending: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    folder.join(format!(".{name}{ending}"))
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        _ => error.to_string(),
    }
}
