//! Where the application listens: a socket in a directory that nobody else may enter, or a free port of loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use palisade_policy::Problems;
use tempfile::TempDir;

use super::command::User;
use super::socket;
use crate::error::{Error, Result};
use crate::policy::config::Upstream;
use crate::policy::values::UpstreamUrl;

const SOCKET: &str = "{socket}";
const PORT: &str = "{port}";
const NAME: &str = "app.sock";
/// `sun_path` of Linux holds 108 bytes with the final NUL.
const MAX_PATH: usize = 107;

/// Where the application listens.
#[derive(Debug)]
pub(super) enum Place {
    /// A socket, in a directory that goes when this goes.
    Socket { path: PathBuf, directory: TempDir },
    /// A port of 127.0.0.1.
    Port(u16),
}

/// Checks that a command says where its application listens.
pub(crate) fn check(upstream: &Upstream, problems: &mut Problems) {
    let Some(program) = upstream.command.first() else { return };
    let names = |placeholder: &str| upstream.command.iter().any(|word| word.contains(placeholder));
    match (names(SOCKET), names(PORT)) {
        (false, false) => {
            let line = if program.ends_with("fastapi") {
                "fastapi dev main.py --port {port}"
            } else {
                "uvicorn main:app --uds {socket}"
            };
            problems.error(
                "upstream.command",
                "the command does not say where the application listens",
                format!("Palisade chooses the place: write `{line}`"),
            );
        }
        (true, true) => {
            problems.error("upstream.command", "`{socket}` and `{port}` exclude each other", "keep `{socket}`");
        }
        _ => {}
    }
    if upstream.env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        problems.error("upstream.env", "a name of a variable is empty or holds `=`", "write `NAME = \"value\"`");
    }
}

impl Place {
    /// A fresh place of the kind that the command asks for.
    pub(super) fn choose(command: &[String], user: Option<&User>) -> Result<Self> {
        if command.iter().any(|word| word.contains(PORT)) {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            return Ok(Self::Port(free));
        }
        let directory = directory(user)?;
        let path = directory.path().join(NAME);
        Ok(Self::Socket { path, directory })
    }

    pub(super) fn url(&self) -> UpstreamUrl {
        match self {
            Self::Socket { path, .. } => UpstreamUrl::Unix(path.clone()),
            Self::Port(port) => UpstreamUrl::Http { host: "127.0.0.1".into(), port: *port },
        }
    }

    /// The command with the place in it.
    pub(super) fn fill(&self, command: &[String]) -> Vec<String> {
        let (placeholder, value) = match self {
            Self::Socket { path, .. } => (SOCKET, path.to_string_lossy().into_owned()),
            Self::Port(port) => (PORT, port.to_string()),
        };
        command.iter().map(|word| word.replace(placeholder, &value)).collect()
    }

    /// Removes the socket of a run before: an application that died has left it, and some cannot bind over it.
    pub(super) fn clear(&self) {
        if let Self::Socket { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Whether somebody accepts connections there; makes the socket private.
    pub(super) fn is_listening(&self, owner: u32) -> bool {
        match self {
            Self::Socket { path, .. } => socket::is_listening(path, owner),
            Self::Port(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
            }
        }
    }

    /// The socket and its directory; empty with a port.
    pub(super) fn paths(&self) -> (&Path, &Path) {
        match self {
            Self::Socket { path, directory } => (path, directory.path()),
            Self::Port(_) => (Path::new(""), Path::new("")),
        }
    }
}

/// A fresh directory of mode 0700 that belongs to the application's user.
fn directory(user: Option<&User>) -> Result<TempDir> {
    let mut bases: Vec<PathBuf> = Vec::new();
    // `$XDG_RUNTIME_DIR` is ours alone: another user cannot pass through it.
    match user {
        None => bases.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)),
        Some(_) => bases.push("/run".into()),
    }
    bases.extend([std::env::temp_dir(), "/tmp".into()]);
    let mut reason = String::new();
    for base in &bases {
        // `palisade-XXXXXX/app.sock`
        if !base.is_absolute() || base.as_os_str().len() + 32 > MAX_PATH {
            reason = format!("{}: not an absolute path, or too long for a socket", base.display());
            continue;
        }
        if let Some(private) = user.and_then(|_| closed(base)) {
            reason = format!("{}: another user cannot pass through it", private.display());
            continue;
        }
        let made = tempfile::Builder::new()
            .prefix("palisade-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(base);
        match made {
            Ok(directory) => {
                if let Some(user) = user {
                    std::os::unix::fs::chown(directory.path(), Some(user.uid), Some(user.gid))
                        .map_err(|error| Error::File { path: directory.path().into(), error })?;
                }
                return Ok(directory);
            }
            Err(error) => reason = format!("{}: {error}", base.display()),
        }
    }
    Err(Error::App(format!("no directory for the application's socket ({reason}): set `TMPDIR`, or use `{{port}}`")))
}

/// The first directory on the way that others may not pass through.
fn closed(base: &Path) -> Option<PathBuf> {
    let open = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    base.ancestors().find(|path| !open(path)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_place_stands_in_the_command() {
        let place = Place::Port(4711);
        assert_eq!(
            place.fill(&words("app --bind=127.0.0.1:{port} {socket}")),
            words("app --bind=127.0.0.1:4711 {socket}")
        );
        let command = words("uvicorn main:app --uds {socket}");
        let place = Place::choose(&command, None).unwrap();
        let (path, directory) = place.paths();
        assert!(path.as_os_str().len() <= MAX_PATH && path.starts_with(directory));
        assert_eq!(place.fill(&command)[3], path.to_str().unwrap());
        assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o7777, 0o700);
        let directory = directory.to_owned();
        drop(place);
        assert!(!directory.exists());
    }

    #[test]
    fn a_command_has_one_place() {
        for (command, fix) in [
            ("uvicorn main:app --uds {socket}", None),
            ("fastapi dev --port {port}", None),
            ("app --listen=unix:{socket}", None),
            ("uvicorn main:app", Some("uvicorn main:app --uds {socket}")),
            ("/venv/bin/fastapi dev", Some("fastapi dev main.py --port {port}")),
            ("app {socket} {port}", Some("keep `{socket}`")),
        ] {
            let mut problems = palisade_policy::Snapshot::from_text("test", "").unwrap().problems();
            check(&Upstream { command: words(command), ..Upstream::default() }, &mut problems);
            let found = problems.iter().next().and_then(palisade_policy::Problem::fix).map(str::to_owned);
            assert_eq!(found.is_some(), fix.is_some(), "{command}");
            assert!(found.unwrap_or_default().contains(fix.unwrap_or_default()), "{command}");
        }
    }
}
