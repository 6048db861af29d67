//! Connections to the application's socket: to exactly the file that was looked at.
//!
//! The application may be another, less trusted user who owns the directory. It could put a link there, to a socket of
//! which Palisade has the rights and it has not. So the file is opened without following links, judged, and reached
//! through its descriptor. uvicorn makes its socket 0666; here it becomes 0600, whoever changed it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// A socket file that was looked at.
#[derive(Debug)]
struct Looked(File);

impl Looked {
    fn at(path: &Path, owner: u32) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the application's socket is no socket"));
        }
        if found.uid() != owner {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the application's socket is another user's"));
        }
        let looked = Self(file);
        if found.permissions().mode() & 0o777 != 0o600 {
            std::fs::set_permissions(looked.path(), std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(looked)
    }

    /// A path that leads to this file and no other.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Connects to the socket of a user at a path.
pub(crate) async fn connect(path: &Path, owner: u32) -> io::Result<tokio::net::UnixStream> {
    let looked = Looked::at(path, owner)?;
    tokio::net::UnixStream::connect(looked.path()).await
}

/// Whether somebody accepts connections there.
pub(super) fn is_listening(path: &Path, owner: u32) -> bool {
    Looked::at(path, owner).is_ok_and(|looked| std::os::unix::net::UnixStream::connect(looked.path()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn a_link_is_not_followed_and_the_socket_becomes_private() {
        let folder = tempfile::tempdir().unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let (real, link, file) = (folder.path().join("real"), folder.path().join("link"), folder.path().join("file"));
        let _listener = UnixListener::bind(&real).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(connect(&link, own).await.is_err());
        assert!(!is_listening(&link, own));
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&real), 0o666, "nothing was done through the link");
        assert!(connect(&file, own).await.is_err());
        assert!(connect(&folder.path().join("none"), own).await.is_err());
        assert!(connect(&real, own + 1).await.is_err(), "another user's");
        assert!(connect(&real, own).await.is_ok());
        assert!(is_listening(&real, own));
        assert_eq!(mode(&real), 0o600);
    }
}
