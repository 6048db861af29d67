//! The apps of `tests/apps`, run by themselves: uvicorn's apps, and the raw server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::ca::Identity;
use crate::client::Client;
use crate::paths;
use crate::process::Process;
use crate::provision::{self, Need, need};

/// Python, an event loop and FastAPI are imported within this time also on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A running app.
#[derive(Debug)]
pub struct App {
    process: Process,
    scheme: &'static str,
    address: SocketAddr,
    /// Its current directory and its home: what it writes there goes with it.
    directory: TempDir,
}

impl App {
    /// The plausible FastAPI app, `tests/apps/plausible`, in uvicorn with its defaults.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn plausible() -> Result<App> {
        App::uvicorn("plausible", &[]).await
    }

    /// The app assembled from the guide, `tests/apps/guide`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn guide() -> Result<App> {
        need(Need::PythonGuide)?;
        App::uvicorn("guide", &[]).await
    }

    /// A folder's `main:app` in uvicorn, with further options.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn uvicorn(name: &str, options: &[&str]) -> Result<App> {
        App::named(name, "main:app", options).await
    }

    /// A folder's app by its name, such as `main:app`, in uvicorn, with further options.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn named(folder: &str, app: &str, options: &[&str]) -> Result<App> {
        need(Need::Python)?;
        let mut command = Command::new(provision::python_program("uvicorn"));
        command.args([app, "--port", "0", "--app-dir"]).arg(paths::tests("apps").join(folder)).args(options);
        // With port 0 uvicorn says which one it got: `Uvicorn running on http://127.0.0.1:40123 (Press CTRL+C to quit)`.
        App::start(command, "running on http://").await
    }

    /// A folder's `main:app` in uvicorn behind TLS of its own, under this certificate.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn tls(name: &str, identity: &Identity) -> Result<App> {
        need(Need::Python)?;
        let files = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
        let (certificate, key) = (files.path().join("app.pem"), files.path().join("app.key"));
        identity.write(&certificate, &key)?;
        let mut command = Command::new(provision::python_program("uvicorn"));
        command.args(["main:app", "--port", "0", "--app-dir"]).arg(paths::tests("apps").join(name));
        command.arg("--ssl-certfile").arg(certificate).arg("--ssl-keyfile").arg(key);
        // The files have been read once it listens.
        let app = App::start(command, "running on https://").await?;
        Ok(App { scheme: "https", ..app })
    }

    /// The raw server, `tests/apps/raw`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn raw() -> Result<App> {
        need(Need::Python)?;
        let mut command = Command::new(provision::python_program("python"));
        command.arg(paths::tests("apps/raw/server.py")).args(["--port", "0"]);
        App::start(command, "listening on http://").await
    }

    /// The mail server, `tests/apps/smtp`, with its options.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn smtp(options: &[&str]) -> Result<App> {
        need(Need::PythonSmtp)?;
        let mut command = Command::new(provision::python_program("python"));
        command.arg(paths::tests("apps/smtp/server.py")).args(options);
        let app = App::start(command, "listening on smtp://").await?;
        Ok(App { scheme: "smtp", ..app })
    }

    /// The gRPC server, `tests/apps/grpc`; with an identity behind TLS of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn grpc(identity: Option<&Identity>) -> Result<App> {
        need(Need::Python)?;
        let files = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
        let mut command = Command::new(provision::python_program("python"));
        command.arg(paths::tests("apps/grpc/server.py"));
        let Some(identity) = identity else { return App::start(command, "listening on http://").await };
        let (certificate, key) = (files.path().join("app.pem"), files.path().join("app.key"));
        identity.write(&certificate, &key)?;
        command.arg("--tls").args([certificate, key]);
        let app = App::start(command, "listening on https://").await?;
        Ok(App { scheme: "https", ..app })
    }

    async fn start(mut command: Command, announced_by: &str) -> Result<App> {
        // Nothing is written beside the sources, and what is printed is seen at once.
        command.envs([("PYTHONDONTWRITEBYTECODE", "1"), ("PYTHONUNBUFFERED", "1")]);
        let directory = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
        command.current_dir(directory.path()).env("HOME", directory.path());
        let process = Process::spawn(command)?;
        let address = process.output().find(START, "the app's address", |line| {
            line.text.split_once(announced_by)?.1.split_whitespace().next()?.parse().ok()
        });
        let address = address.await?;
        Ok(App { process, scheme: "http", address, directory })
    }

    /// Its current directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// A client that asks it directly; of an app without TLS.
    ///
    /// # Errors
    /// Never, as its address is one of loopback.
    pub fn client(&self) -> Result<Client> {
        Client::http(&self.url()).context("the app's address")
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
