//! `--ready-file FILE`: tells a script where the gateway listens, once it does.
//!
//! For tests and scripts that let the system choose the ports. The lines of the log say the same, but where they go, and in
//! which format, is the policy's business; and a script that reads them from a pipe has to go on reading.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use palisade::server::Running;
use serde_json::{Map, Value};

/// A file that is there while the gateway is ready. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct ReadyFile(PathBuf);

impl ReadyFile {
    /// To be called before the start: what an earlier gateway left there is removed, so that whoever waits for the file does
    /// not take that for this one's.
    ///
    /// # Errors
    /// When the file could not be written later.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => tempfile::Builder::new().tempfile_in(folder(path)).map(drop),
        }
        .with_context(|| format!("`--ready-file {}` cannot be written", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Writes it: one JSON object with the URL of each listener by its name, `pid`, and in development `ca`, the certificate
    /// to trust. Whole or not at all.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn write(&self, running: &Running) -> anyhow::Result<()> {
        let mut told = Map::new();
        told.insert("pid".into(), std::process::id().into());
        for bound in &running.bound {
            told.insert(bound.name().into(), url(bound.name(), bound.address()).into());
        }
        let ca = running.handle.live().policy.state_dir().join("ca/root.pem");
        if ca.is_file() {
            let ca = fs::canonicalize(&ca).unwrap_or(ca);
            told.insert("ca".into(), ca.to_string_lossy().into());
        }
        let write = || {
            let mut file = tempfile::Builder::new().tempfile_in(folder(&self.0))?;
            io::Write::write_all(&mut file, format!("{}\n", Value::Object(told)).as_bytes())?;
            file.persist(&self.0).map_err(|error| error.error).map(drop)
        };
        write().with_context(|| format!("`--ready-file {}` cannot be written", self.0.display()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A URL under which a listener can be reached from this machine.
fn url(listener: &str, mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        address.set_ip(loopback);
    }
    let scheme = if matches!(listener, "https" | "admin") { "https" } else { "http" };
    format!("{scheme}://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_can_be_asked_from_here() {
        for (listener, address, expected) in [
            ("http", "127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https", "0.0.0.0:443", "https://127.0.0.1:443"),
            ("admin", "[::]:9443", "https://[::1]:9443"),
            ("probes", "10.0.0.7:9080", "http://10.0.0.7:9080"),
        ] {
            assert_eq!(url(listener, address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn what_an_earlier_one_left_is_gone_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        fs::write(&path, "{}").unwrap();
        let file = ReadyFile::new(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of the attempt");
        fs::write(&path, "{}").unwrap();
        drop(file);
        assert!(!path.exists(), "nor at the end");
        let error = ReadyFile::new(&folder.path().join("no/such/folder")).unwrap_err();
        assert!(error.to_string().contains("--ready-file"), "{error}");
    }
}
