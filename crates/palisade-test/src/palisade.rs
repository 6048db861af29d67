//! The binary under test: started as a user starts it, in a directory of its own, on ports that the system chose.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::frames::Frames;
use crate::output::{Line, Output};
use crate::process::{Process, kill_other};
use crate::tls::Trust;
use crate::wire::Wire;
use crate::{Need, eventually, memory, need, paths, provision, shell};

/// Start-up takes a tenth of a second; on a loaded machine, with a debug build, seconds.
const START: Duration = Duration::from_secs(30);
/// The variable that names the file with the key of the secret store.
const SECRETS_KEY: &str = "PALISADE_SECRETS_KEY_FILE";
/// Draining (25 s), stopping a supervised app (10 s), and some air.
const STOP: Duration = Duration::from_secs(45);

/// A running `palisade serve` or `palisade demo`. Dropping it kills it and the app it supervises.
#[derive(Debug)]
pub struct Palisade {
    process: Process,
    listeners: HashMap<String, SocketAddr>,
    directory: Arc<TempDir>,
    /// What [`Setup::secrets_key`] named: its operator has it too.
    secrets_key: Option<String>,
}

/// How it is to be started.
#[derive(Debug)]
pub struct Setup {
    command: &'static str,
    arguments: Vec<String>,
    app: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    directory: Option<Arc<TempDir>>,
    binary: Option<PathBuf>,
    /// Commands that run before it starts, each with what it reads from its standard input.
    first: Vec<(Vec<String>, String)>,
}

/// How a command that ends by itself has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// The policy of a gateway in development before this application, and what follows.
pub fn written_policy(url: &str, more: &str) -> String {
    format!("[server]\nmode = \"development\"\n\n[upstream]\nurl = \"{url}\"\n\n{more}")
}

impl Setup {
    fn new(command: &'static str) -> Setup {
        Setup {
            command,
            arguments: Vec::new(),
            app: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            directory: None,
            binary: None,
            first: Vec::new(),
        }
    }

    /// Writes this policy as `palisade.toml`, where the binary looks for it.
    #[must_use]
    pub fn policy(self, toml: &str) -> Setup {
        self.file("palisade.toml", toml)
    }

    /// Writes a file into its directory first.
    #[must_use]
    pub fn file(mut self, relative: &str, contents: impl Into<Vec<u8>>) -> Setup {
        self.files.push((relative.to_owned(), contents.into()));
        self
    }

    /// `--upstream URL`.
    #[must_use]
    pub fn upstream(self, url: &str) -> Setup {
        self.arg("--upstream").arg(url)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Setup {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The app to start and supervise: what follows `--`.
    #[must_use]
    pub fn app(mut self, command: &[&str]) -> Setup {
        self.app = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// `-- uvicorn main:app --uds {socket}` for an app of `tests/apps`, with further options of uvicorn.
    #[must_use]
    pub fn uvicorn(self, app: &str, options: &[&str]) -> Setup {
        let folder = paths::tests("apps").join(app);
        let folder = folder.to_string_lossy();
        let mut command = vec!["uvicorn", "main:app", "--uds", "{socket}", "--app-dir", &*folder];
        command.extend(options);
        self.app(&command)
    }

    /// Sets a variable of its environment, which otherwise holds little more than `PATH`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `-- fastapi dev APP/main.py --port {port}` for an app of `tests/apps`.
    #[must_use]
    pub fn fastapi_dev(self, app: &str) -> Setup {
        let main = paths::tests("apps").join(app).join("main.py");
        self.app(&["fastapi", "dev", &main.to_string_lossy(), "--port", "{port}"])
    }

    /// Starts another binary than the one under test, such as the release before it.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Setup {
        self.binary = Some(path.to_owned());
        self
    }

    /// Runs another command of the binary to its end before, in the same directory and environment, such as `db migrate`.
    #[must_use]
    pub fn first(mut self, arguments: &[&str], input: &str) -> Setup {
        self.first.push((arguments.iter().map(|&word| word.to_owned()).collect(), input.to_owned()));
        self
    }

    /// Stores a secret before it starts, as an operator does.
    #[must_use]
    pub fn secret(self, name: &str, value: &str) -> Setup {
        self.first(&["secret", "set", name], value)
    }

    /// The file with the key of the secret store. In production it must be named; where there is none yet, it is made.
    #[must_use]
    pub fn secrets_key(self, file: &Path) -> Setup {
        let setup = self.env(SECRETS_KEY, &file.to_string_lossy());
        if file.exists() { setup } else { setup.first(&["secret", "init"], "") }
    }

    /// Starts in the directory of one that ran before, with its state.
    #[must_use]
    pub fn after(mut self, before: &Palisade) -> Setup {
        self.directory = Some(before.directory.clone());
        self
    }

    /// Starts it and waits until it says `server.ready`.
    ///
    /// # Errors
    /// When it ends, or is not ready within 30 seconds; the error ends with what it printed.
    pub async fn start(self) -> Result<Palisade> {
        let secrets_key = self.environment.iter().find(|(name, _)| name == SECRETS_KEY).map(|(_, file)| file.clone());
        let (process, directory) = self.spawn()?;
        let mut listeners = HashMap::new();
        let ready = process.output().find(START, "the event `server.ready`", |line| {
            let line = json(line)?;
            match event(&line) {
                "server.listening" => {
                    let listener = line.get("listener")?.as_str()?.to_owned();
                    listeners.insert(listener, line.get("address")?.as_str()?.parse().ok()?);
                    None
                }
                "server.ready" => Some(()),
                _ => None,
            }
        });
        ready.await?;
        Ok(Palisade { process, listeners, directory, secrets_key })
    }

    /// Starts what is not to become ready, and waits until it has ended.
    ///
    /// # Errors
    /// When it is still running after 30 seconds.
    pub async fn refused(self) -> Result<Ran> {
        let (process, _directory) = self.spawn()?;
        Ran::of(process, START).await
    }

    fn spawn(self) -> Result<(Process, Arc<TempDir>)> {
        if matches!(self.app.first().map(String::as_str), Some("uvicorn" | "fastapi" | "python")) {
            need(Need::Python)?;
        }
        let directory = match self.directory {
            Some(directory) => directory,
            None => Arc::new(tempfile::Builder::new().prefix("palisade-test-").tempdir()?),
        };
        for (name, contents) in self.files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().context("a file name")?)?;
            fs::write(&path, contents).with_context(|| path.display().to_string())?;
        }
        let binary = self.binary.map_or_else(paths::binary, Ok)?;
        for (arguments, input) in self.first {
            let mut command = command(&binary, directory.path())?;
            command.args(&arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
            shell::fed(&mut command, &input).with_context(|| format!("palisade {arguments:?}"))?;
        }
        let mut command = command(&binary, directory.path())?;
        command.arg(self.command);
        command.args(["--https-port", "0", "--http-port", "0", "--admin-port", "0"]).args(self.arguments);
        if !self.app.is_empty() {
            command.arg("--").args(self.app);
        }
        command.envs(self.environment);
        Ok((Process::spawn(command)?, directory))
    }
}

impl Palisade {
    /// `palisade serve`.
    pub fn serve() -> Setup {
        Setup::new("serve")
    }

    /// `palisade demo`.
    pub fn demo() -> Setup {
        Setup::new("demo")
    }

    /// Runs another command of the binary in this one's directory, such as `status --json`, to its end.
    ///
    /// # Errors
    /// When it can't be started or does not end within 30 seconds. A failure of the command is a [`Ran`].
    pub async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = command(&paths::binary()?, self.directory())?;
        command.args(arguments).envs(self.secrets_key.iter().map(|file| (SECRETS_KEY, file)));
        Ran::of(Process::spawn(command)?, START).await
    }

    /// The address of a listener: `https`, `http`, `admin`, `probes`.
    ///
    /// # Errors
    /// When it announced none of this name.
    pub fn address(&self, listener: &str) -> Result<SocketAddr> {
        self.listeners.get(listener).copied().with_context(|| {
            let names: Vec<_> = self.listeners.keys().collect();
            format!("no listener `{listener}` was announced, only {names:?}")
        })
    }

    /// The base URL of a listener.
    ///
    /// # Errors
    /// As [`Palisade::address`].
    pub fn url(&self, listener: &str) -> Result<String> {
        let scheme = if matches!(listener, "https" | "admin") { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.address(listener)?))
    }

    /// The base URL of a listener for WebSockets.
    ///
    /// # Errors
    /// As [`Palisade::address`].
    pub fn websocket_url(&self, listener: &str) -> Result<String> {
        Ok(self.url(listener)?.replacen("http", "ws", 1))
    }

    /// A client of the API over TLS, trusting the local authority.
    ///
    /// # Errors
    /// Without such a listener or authority.
    pub fn https(&self) -> Result<Client> {
        Client::https(&self.url("https")?, &self.trust()?)
    }

    /// A client of the plain listener.
    ///
    /// # Errors
    /// Without such a listener.
    pub fn http(&self) -> Result<Client> {
        Client::http(&self.url("http")?)
    }

    /// A client of the admin listener.
    ///
    /// # Errors
    /// Without such a listener.
    pub fn admin(&self) -> Result<Client> {
        Client::https(&self.url("admin")?, &self.trust()?)
    }

    /// A connection to the API over TLS on which any bytes can be written.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn wire(&self) -> Result<Wire> {
        let address = self.address("https")?;
        Wire::tls(address, &address.ip().to_string(), &self.trust()?).await
    }

    /// A connection to the API on which frames of HTTP/2 are written by hand.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn frames(&self) -> Result<Frames> {
        let address = self.address("https")?;
        let connection = self.trust()?.connect(address, &address.ip().to_string(), &[b"h2"]).await?;
        Frames::over(connection).await
    }

    /// The same on the plain listener.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn wire_http(&self) -> Result<Wire> {
        Wire::plain(self.address("http")?).await
    }

    /// Waits until the app behind it answers: until a GET over TLS gives less than 500.
    ///
    /// # Errors
    /// When it does not within a minute (Python starts slowly on a loaded machine); the error ends with what was printed.
    pub async fn app_answers(&self, target: &str) -> Result<()> {
        let client = self.https()?;
        let answers = async || client.get(target).send().await.is_ok_and(|answer| answer.status() < 500);
        eventually(Duration::from_secs(60), &format!("the app answers `{target}`"), answers)
            .await
            .with_context(|| self.output().tail())
    }

    /// The certificate of the local authority: `ca/root.pem` in its state.
    ///
    /// # Errors
    /// When there is none.
    pub fn ca(&self) -> Result<PathBuf> {
        let state = self.state();
        let of_state = state.join("ca/root.pem");
        if of_state.is_file() {
            return Ok(of_state);
        }
        // The demo's state is in a temporary directory, and `TMPDIR` is ours.
        find(self.directory(), "ca/root.pem", 4).with_context(|| format!("no `{}`", of_state.display()))
    }

    /// Trust in the local authority.
    ///
    /// # Errors
    /// When there is none.
    pub fn trust(&self) -> Result<Trust> {
        Trust::file(&self.ca()?)
    }

    /// The directory it was started in, where its policy is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its state, `server.state`, unless the policy moved it.
    pub fn state(&self) -> PathBuf {
        self.directory().join(".palisade")
    }

    /// Writes a policy over the one it was started with; what it makes of that, by itself or after
    /// [`Palisade::reload`], is for the test to see.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_policy(&self, toml: &str) -> Result<()> {
        // In one step, as an editor does: half a policy is not what is tested here.
        let new = self.directory().join(".palisade.toml.new");
        fs::write(&new, toml)?;
        fs::rename(new, self.directory().join("palisade.toml")).context("palisade.toml")
    }

    /// Its process: id, memory, signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it has printed.
    pub fn output(&self) -> &Output {
        self.process.output()
    }

    /// The log lines so far.
    pub fn log(&self) -> Vec<Value> {
        self.log_since(0)
    }

    /// The log lines from a position of the output on.
    pub fn log_since(&self, position: usize) -> Vec<Value> {
        self.output().since(position).iter().filter_map(json).collect()
    }

    /// The first log line with this `event` of which `which` is true, of those before and those to come.
    ///
    /// # Errors
    /// When there is none within 10 seconds.
    pub async fn event(&self, name: &str, which: impl FnMut(&Value) -> bool) -> Result<Value> {
        self.event_since(0, name, which).await
    }

    /// As [`Palisade::event`], from a position of the output on.
    ///
    /// # Errors
    /// As [`Palisade::event`].
    pub async fn event_since(
        &self,
        position: usize,
        name: &str,
        mut which: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("the event `{name}`");
        let find = |line: &Line| json(line).filter(|line| event(line) == name && which(line));
        self.output().find_since(position, Duration::from_secs(10), &what, find).await
    }

    /// The first access line of which `which` is true. Access lines are written in batches: they come within a second.
    ///
    /// # Errors
    /// As [`Palisade::event`].
    pub async fn access(&self, which: impl FnMut(&Value) -> bool) -> Result<Value> {
        self.event("access", which).await
    }

    /// The access line of an answer, found by its `X-Request-Id`.
    ///
    /// # Errors
    /// When the answer has none, or no line comes.
    pub async fn access_of(&self, answer: &crate::client::Answer) -> Result<Value> {
        let id = answer.header("x-request-id").context("the answer has no `X-Request-Id`")?;
        self.access(|line| line.get("request_id").and_then(Value::as_str) == Some(id)).await
    }

    /// SIGHUP: reads the policy anew.
    ///
    /// # Errors
    /// When it has ended.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// When it has not ended within 45 seconds.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM).await
    }

    /// SIGINT to its group, as Ctrl-C in a terminal, and waits until it has drained.
    ///
    /// # Errors
    /// When it has not ended within 45 seconds.
    pub async fn interrupt(&self) -> Result<ExitStatus> {
        self.end(Signal::SIGINT).await
    }

    async fn end(&self, signal: Signal) -> Result<ExitStatus> {
        match signal {
            Signal::SIGINT => self.process.signal_group(signal)?,
            _ => self.process.signal(signal)?,
        }
        let status = self.process.wait(STOP).await?;
        self.output().closed(STOP).await?;
        Ok(status)
    }
}

impl Drop for Palisade {
    fn drop(&mut self) {
        self.process.kill();
        // A supervised app outlives a supervisor that crashed. It is known by its home, which is this one's directory.
        if Arc::strong_count(&self.directory) == 1 {
            for orphan in memory::with_variable("HOME", &self.directory().to_string_lossy()) {
                kill_other(orphan);
            }
        }
    }
}

/// Runs a command of the binary in a directory, to its end.
///
/// # Errors
/// When it can't be started or does not end within 30 seconds. A failure of the command is a [`Ran`].
pub async fn run(directory: &Path, arguments: &[&str]) -> Result<Ran> {
    run_within(START, directory, arguments).await
}

/// The same with another time to end within.
///
/// # Errors
/// When it can't be started or does not end within the time.
pub async fn run_within(time: Duration, directory: &Path, arguments: &[&str]) -> Result<Ran> {
    let mut command = command(&paths::binary()?, directory)?;
    command.args(arguments);
    Ran::of(Process::spawn(command)?, time).await
}

impl Ran {
    async fn of(process: Process, time: Duration) -> Result<Ran> {
        let status = process.wait(time).await?;
        process.output().closed(START).await?;
        let mut ran = Ran { code: status.code(), out: String::new(), err: String::new() };
        for line in process.output().since(0) {
            let text = match line.stream {
                crate::Stream::Out => &mut ran.out,
                crate::Stream::Err => &mut ran.err,
            };
            text.push_str(&line.text);
            text.push('\n');
        }
        Ok(ran)
    }

    /// Its standard output as JSON.
    ///
    /// # Errors
    /// When it failed or printed something else.
    pub fn json(&self) -> Result<Value> {
        if self.code != Some(0) {
            bail!("exit code {:?}: {}", self.code, self.err);
        }
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {}", self.out))
    }
}

/// A binary in a directory, with an environment that depends on nothing of the machine but `PATH`.
fn command(binary: &Path, directory: &Path) -> Result<Command> {
    let temporary = directory.join("tmp");
    fs::create_dir_all(&temporary)?;
    let mut path = vec![provision::venv().join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new(binary);
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", env::join_paths(path)?)
        .env("HOME", directory)
        .env("TMPDIR", temporary)
        .env("LANG", "C.UTF-8")
        .env("NO_COLOR", "1")
        .env("STATE_DIRECTORY", directory.join(".palisade"))
        .env("VIRTUAL_ENV", provision::venv())
        // For the apps it supervises: nothing is written beside the sources, and what they print is seen at once.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1");
    for kept in ["LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
        if let Some(value) = env::var_os(kept) {
            command.env(kept, value);
        }
    }
    Ok(command)
}

fn json(line: &Line) -> Option<Value> {
    // Parsing is not asked of lines that can't be one: an app's own output is among them.
    line.text.starts_with('{').then(|| serde_json::from_str(&line.text).ok()).flatten()
}

fn event(line: &Value) -> &str {
    line.get("event").and_then(Value::as_str).unwrap_or_default()
}

fn find(folder: &Path, suffix: &str, depth: usize) -> Option<PathBuf> {
    let candidate = folder.join(suffix);
    if candidate.is_file() {
        return Some(candidate);
    }
    let below = depth.checked_sub(1)?;
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .find_map(|entry| find(&entry.path(), suffix, below))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What stands in for the binary here, since the kit is what is tested: it announces, logs, obeys signals, and
    /// leaves an "app" behind. It waits for that and starts nothing else: a signal that comes while this shell starts a
    /// program may be lost.
    const STAND_IN: &str = r#"#!/bin/sh
trap 'echo "{\"event\":\"reloaded\"}"' HUP
trap 'echo "{\"event\":\"server.stopped\"}"; exit 0' TERM
[ "$1" = version ] && { echo "1.2.3"; exit 0; }
grep -q broken palisade.toml && { echo "error: broken" >&2; exit 2; }
setsid sh -c 'while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &
echo "not JSON"
echo "{\"event\":\"server.listening\",\"listener\":\"https\",\"address\":\"127.0.0.1:4433\"}"
echo "{\"event\":\"server.listening\",\"listener\":\"http\",\"address\":\"127.0.0.1:8081\"}"
echo "{\"event\":\"server.ready\",\"arguments\":\"$*\",\"home\":\"$HOME\"}"
echo "{\"event\":\"access\",\"status\":200}"
[ -e crash ] && exit 9
while :; do wait; done
"#;

    fn stand_in() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (text, path) = (folder.path().join("text"), folder.path().join("palisade"));
        fs::write(&text, STAND_IN).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // By a process of its own: whatever another test starts while this one writes would keep the file open for a moment,
        // and what is open for writing cannot be run.
        assert!(std::process::Command::new("cp").arg(&text).arg(&path).status().unwrap().success());
        (folder, path)
    }

    #[tokio::test]
    async fn it_learns_where_it_listens_and_reads_the_log() {
        let (_folder, binary) = stand_in();
        let setup = Palisade::serve().binary(&binary).policy("").upstream("http://127.0.0.1:1").app(&["app", "{port}"]);
        let palisade = setup.start().await.unwrap();
        assert_eq!(palisade.url("https").unwrap(), "https://127.0.0.1:4433");
        assert_eq!(palisade.websocket_url("http").unwrap(), "ws://127.0.0.1:8081");
        assert!(palisade.url("admin").unwrap_err().to_string().contains("admin"));
        let ready = palisade.event("server.ready", |_| true).await.unwrap();
        let arguments = "serve --https-port 0 --http-port 0 --admin-port 0 --upstream http://127.0.0.1:1 -- app {port}";
        assert_eq!(ready["arguments"], arguments);
        assert_eq!(palisade.access(|line| line["status"] == 200).await.unwrap()["event"], "access");
        palisade.reload().unwrap();
        palisade.event("reloaded", |_| true).await.unwrap();
        assert_eq!(palisade.terminate().await.unwrap().code(), Some(0));
        assert!(palisade.log().iter().any(|line| line["event"] == "server.stopped"));
    }

    #[tokio::test]
    async fn one_that_does_not_start_says_why() {
        let (_folder, binary) = stand_in();
        let refused = Palisade::serve().binary(&binary).policy("broken").refused().await.unwrap();
        assert_eq!((refused.code, &*refused.err), (Some(2), "error: broken\n"));
        let error = Palisade::serve().binary(&binary).policy("broken").start().await.unwrap_err();
        assert!(error.to_string().contains("error: broken"), "{error}");
    }

    #[tokio::test]
    async fn nothing_outlives_it_even_if_it_crashed() {
        let (_folder, binary) = stand_in();
        for setup in [Palisade::serve().policy(""), Palisade::serve().policy("").file("crash", "")] {
            let palisade = setup.binary(&binary).start().await.unwrap();
            let home = palisade.directory().to_string_lossy().into_owned();
            // A process that is just becoming another program has no environment for a moment.
            let there = async || !memory::with_variable("HOME", &home).is_empty();
            eventually(Duration::from_secs(10), "an app is left", there).await.unwrap();
            drop(palisade);
            let gone = async || memory::with_variable("HOME", &home).is_empty();
            eventually(Duration::from_secs(10), "the app it left is gone", gone).await.unwrap();
        }
    }
}
