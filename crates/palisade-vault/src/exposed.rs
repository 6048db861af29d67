//! Whether others can read a file that is for nobody else.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A private file that others may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposed {
    /// Its permissions.
    pub mode: u32,
    /// Whether a container platform put it there: who runs in the container cannot change that, so it is a notice and
    /// no error.
    pub mounted: bool,
}

/// Says whether others may read a file. A group may, where that is the only way for this process's user, as Debian's
/// `ssl-cert` has it.
pub fn exposed(file: &Path, meta: &Metadata) -> Option<Exposed> {
    let mode = meta.mode() & 0o777;
    let own = meta.uid() == nix::unistd::geteuid().as_raw();
    let by_group = !own && mode & 0o037 == 0;
    (mode & 0o077 != 0 && !by_group).then(|| Exposed { mode, mounted: is_mounted(file) })
}

/// Whether a container platform put the file there: under `/run/secrets`, or through Kubernetes' `..data` link.
fn is_mounted(file: &Path) -> bool {
    file.starts_with("/run/secrets")
        || file.starts_with("/var/run/secrets")
        || file.parent().is_some_and(|folder| folder.join("..data").is_symlink())
}
