//! The control socket: how commands reach a running server.
//!
//! A Unix socket of mode 0600 in the state directory, which only the server's own user can enter; the peer's user is
//! asked for besides. One line of JSON in, one line out: `{"command": "status"}` → `{"ok": …}` or
//! `{"error": {"message": …}}`. Lines and answers are at most 1 MiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::live::Handle;
use crate::observe::event;
use crate::operate::{self, Switch};

/// The socket's name in the state directory.
pub const SOCKET: &str = "palisade.sock";
/// Held by the server that uses the state directory; the system lets go of it however the server ends.
const LOCK: &str = "palisade.lock";
const MAX_LINE: u64 = 1 << 20;
const MAX_CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
/// What a socket's address can hold, with some air.
const MAX_ADDRESS: usize = 100;

/// What a command asks of a running server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How the server is doing: [`crate::server::status::status`].
    Status,
    /// [`operate::report`].
    Report {
        /// Of one control.
        #[serde(default)]
        control: Option<String>,
    },
    /// [`operate::explain`].
    Explain {
        /// The request's id.
        id: String,
    },
    /// [`operate::switch`].
    Set(Switch),
    /// [`operate::clear`].
    Clear {
        /// The control.
        control: String,
        /// The switch of this route only.
        #[serde(default)]
        route: Option<String>,
    },
    /// [`operate::list`].
    Overrides,
    /// [`operate::seen`].
    Seen,
    /// What the applications' documents say of who may do what.
    OpenapiAccess,
    /// Accepts what a document opens.
    OpenapiAccept {
        /// Of which application; `upstream` where none is named.
        #[serde(default)]
        upstream: Option<String>,
        /// Which operations; all that wait where empty.
        #[serde(default)]
        operations: Vec<String>,
    },
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No server runs on this state directory.
    #[error("no gateway is running here: nothing answers at `{0}`")]
    Away(PathBuf),
    /// The socket is another user's.
    #[error("`{0}` may be used by the user that runs the gateway, and by root")]
    Forbidden(PathBuf),
    /// The server refused what was asked; the text is for people.
    #[error("{0}")]
    Refused(String),
    /// The connection failed.
    #[error("the gateway at `{path}` did not answer: {error}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Asks a running server. Blocks, ten seconds at most.
///
/// # Errors
/// When no server runs on this state directory, or it refused what was asked.
pub fn call(state: &Path, request: &Request) -> std::result::Result<Value, CallError> {
    let path = state.join(SOCKET);
    let failed = |error: io::Error| CallError::Failed { path: path.clone(), error };
    let (address, _directory) = address(state, SOCKET).map_err(|_| CallError::Away(path.clone()))?;
    let mut stream = std::os::unix::net::UnixStream::connect(address).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::Away(path.clone()),
        io::ErrorKind::PermissionDenied => CallError::Forbidden(path.clone()),
        _ => failed(error),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(MAX_LINE + 2).read_until(b'\n', &mut answer).map_err(failed)?;
    let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(error.into()))?;
    match answer.get_mut("ok") {
        Some(ok) => Ok(ok.take()),
        None => {
            let message = answer["error"]["message"].as_str().unwrap_or("it gave no reason");
            Err(CallError::Refused(message.to_owned()))
        }
    }
}

/// The state directory of a running server, held by it alone, with the socket bound and not yet served.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    listener: parking_lot::Mutex<Option<std::os::unix::net::UnixListener>>,
    /// The socket's inode: after a takeover the path is the newer server's.
    inode: u64,
    lock: Arc<File>,
    locked: bool,
}

/// Takes the state directory of the policy, making it where it is not there. `None` where it cannot be written, which
/// is logged: the gateway protects without it. With `server.takeover` the directory may still be another server's, which
/// is about to leave.
///
/// # Errors
/// When another server uses the directory.
pub(crate) fn open(handle: &Handle) -> Result<Option<Opened>> {
    let live = handle.live();
    let state = live.policy.state_dir();
    match try_open(&state, live.policy.config().server.takeover) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let other = fs::read_to_string(state.join(LOCK)).unwrap_or_default();
            let other = if other.trim().is_empty() { String::new() } else { format!(" (process {})", other.trim()) };
            Err(Error::State(format!(
                "another gateway{other} uses the state directory `{}`: stop it, or give this one a directory of its \
                 own with `state = \"…\"` in `[server]`",
                state.display()
            )))
        }
        Err(error) => {
            event::STATE.line(handle.log()).show("path", state.display()).show("reason", error);
            Ok(None)
        }
    }
}

fn try_open(state: &Path, takeover: bool) -> io::Result<Opened> {
    make_private_dir(state)?;
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(state.join(LOCK))?;
    let locked = match lock.try_lock() {
        Ok(()) => true,
        Err(fs::TryLockError::WouldBlock) if takeover => false,
        Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    };
    lock.set_len(0)?;
    lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    // Whatever lies there is stale, or of the server that leaves: it answers who is connected already.
    let path = state.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (address, _directory) = address(state, SOCKET)?;
    let listener = std::os::unix::net::UnixListener::bind(address)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let inode = fs::metadata(&path)?.ino();
    Ok(Opened { path, listener: Some(listener).into(), inode, lock: Arc::new(lock), locked })
}

/// The address of a socket in a directory. The system's limit is 108 bytes: a longer path goes through the open
/// directory, which has to live as long as the call.
fn address(directory: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(name);
    if path.as_os_str().len() <= MAX_ADDRESS || !cfg!(target_os = "linux") {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd as _;
    let open = File::open(directory)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd())), Some(open)))
}

/// Makes a directory of mode 0700, and what is missing above it.
///
/// # Errors
/// What the system said.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file of mode 0600 in one step: a reader sees the old one or the new one.
///
/// # Errors
/// What the system said.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    make_private_dir(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
    // One that a crashed run left may have another mode, or be a link.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

impl Opened {
    /// Answers commands on the current runtime, for as long as it runs. A second call does nothing.
    pub(crate) fn serve_here(&self, handle: &Arc<Handle>) {
        let Some(listener) = self.listener.lock().take() else { return };
        if !self.locked {
            let lock = Arc::clone(&self.lock);
            tokio::spawn(async move {
                // Asked for again and again, since a thread that waits for it would keep the process from ending.
                while let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        match UnixListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(listener, Arc::clone(handle), self.path.clone()))),
            Err(error) => {
                event::STATE.line(handle.log()).show("path", self.path.display()).show("reason", error);
            }
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn accept(listener: UnixListener, handle: Arc<Handle>, path: PathBuf) {
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    let own = fs::metadata(&path).map(|meta| meta.uid()).ok();
    loop {
        let Ok(permit) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handle = Arc::clone(&handle);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE * 2, converse(stream, handle, own)).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One request a line, until the client leaves.
async fn converse(mut stream: UnixStream, handle: Arc<Handle>, own: Option<u32>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && Some(uid) != own {
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut read = tokio::io::BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let length = (&mut read).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let handle = Arc::clone(&handle);
        let complete = line.ends_with(b"\n");
        let answer = answer(handle, line, uid).await?;
        write.write_all(&answer).await?;
        if !complete {
            return Ok(());
        }
    }
}

async fn answer(handle: Arc<Handle>, line: Vec<u8>, uid: u32) -> io::Result<Vec<u8>> {
    let outcome = match serde_json::from_slice::<Request>(&line) {
        Ok(Request::Status) => Ok(crate::server::status::status(&handle).await),
        // Compiling a policy and writing files block for a moment.
        Ok(request) => tokio::task::spawn_blocking(move || respond(&handle, request, &format!("uid {uid}"))).await?,
        Err(error) => Err(format!("not a command of this version: {error}")),
    };
    let mut text = encode(&outcome);
    if text.len() as u64 > MAX_LINE {
        text = encode(&Err("the answer is larger than 1 MiB; ask for one control with `--control`".into()));
    }
    Ok(text)
}

fn encode(outcome: &std::result::Result<Value, String>) -> Vec<u8> {
    let value = match outcome {
        Ok(value) => json!({ "ok": value }),
        Err(message) => json!({ "error": { "message": message } }),
    };
    let mut text = serde_json::to_vec(&value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn respond(handle: &Handle, request: Request, by: &str) -> std::result::Result<Value, String> {
    match request {
        Request::Status => Err("the status is asked for elsewhere".into()),
        Request::Report { control } => {
            let known = |name: &str| {
                crate::controls::INFOS.iter().any(|info| info.name == name) || ["upstream", "palisade"].contains(&name)
            };
            match &control {
                Some(name) if !known(name) => Err(format!("there is no control `{name}`")),
                _ => Ok(operate::report(handle, control.as_deref())),
            }
        }
        Request::Explain { id } => Ok(operate::explain(handle, &id)),
        Request::Set(switch) => operate::switch(handle, &switch, by),
        Request::Clear { control, route } => operate::clear(handle, &control, route.as_deref(), by),
        Request::Overrides => Ok(operate::list(handle)),
        Request::Seen => Ok(operate::seen(handle)),
        Request::OpenapiAccess => crate::controls::auth::operations::shown(handle),
        Request::OpenapiAccept { upstream, operations } => {
            crate::controls::auth::operations::accept(handle, upstream.as_deref(), &operations, by)
        }
    }
}
