//! Listeners: opened once, then once more for each worker under the same port.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::admin::{self, Door};
use super::connection::Entrance;
use super::tls::{Certificates, certificates};
use super::{Phase, activation, listeners, state};
use crate::context::Listener;
use crate::error::{Error, Result};
use crate::live::Handle;
use crate::observe::event;

const BACKLOG: i32 = 4096;
/// So many connections are accepted before everybody else is looked at: who is turned away in a flood comes again at once.
const AT_ONCE: u32 = 4;
/// How often it is said that no connection can be accepted.
const REPEATED: Duration = Duration::from_secs(10);
/// How long connections that were on their way are still taken when a listener closes.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(100);

/// What a listener is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// The API: on every worker.
    Public(Listener),
    /// Operators and probes: on the control runtime.
    Control(Door),
}

/// What keeps the port.
#[derive(Debug)]
enum Hold {
    /// A socket of ours that does not listen: it holds the port while the workers' own come and go.
    Port(#[expect(dead_code, reason = "held, not used")] Socket),
    /// A listening socket that the service manager opened and keeps: its queue outlives this process, so that a restart
    /// refuses nobody.
    Given(std::net::TcpListener),
}

/// An open listener.
#[derive(Debug)]
pub struct Bound {
    key: &'static str,
    role: Role,
    address: SocketAddr,
    hold: Hold,
    certificates: Arc<Certificates>,
}

/// Opens every listener of the policy.
pub(super) fn bind(handle: &Arc<Handle>) -> Result<Vec<Bound>> {
    let live = handle.live();
    let certificates = certificates(live.policy.env());
    let server = &live.policy.config().server;
    if server.https().address().is_some() || server.admin.address().is_some() {
        certificates.store(certificates.read(&live.policy)?);
    }
    let mut bound = Vec::new();
    let mut given = activation::take()?;
    for (key, role, listen) in listeners(handle) {
        let Some(address) = listen.address() else { continue };
        let (hold, address) = match given.find(name(key), address) {
            Some((listener, address)) => (Hold::Given(listener), address),
            None => {
                let socket = hold(key, address, server.takeover)?;
                let address = socket.local_addr()?.as_socket().unwrap_or(address);
                (Hold::Port(socket), address)
            }
        };
        bound.push(Bound { key, role, address, hold, certificates: Arc::clone(&certificates) });
    }
    given.close(handle.log());
    Ok(bound)
}

/// Reserves an address. A port that somebody else listens on is an error here, although `SO_REUSEPORT` would share it,
/// unless taking over from an older process is meant.
fn hold(key: &'static str, address: SocketAddr, takeover: bool) -> Result<Socket> {
    let error = |reason: String| Error::Listen { key, address, reason };
    if address.port() != 0 && !takeover {
        let probe = socket(address, false).map_err(|e| error(e.to_string()))?;
        probe.bind(&address.into()).map_err(|e| error(taken(&e, address, key)))?;
    }
    let hold = socket(address, true).map_err(|e| error(e.to_string()))?;
    hold.bind(&address.into()).map_err(|e| error(taken(&e, address, key)))?;
    Ok(hold)
}

fn socket(address: SocketAddr, share: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

fn taken(error: &std::io::Error, address: SocketAddr, key: &str) -> String {
    let flag = match key {
        "server.https" => "--https-port",
        "server.http" => "--http-port",
        "server.admin" => "--admin-port",
        key => key,
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let (owner, is_ours) = owner(address.port());
            let takeover = if is_ours { "; `palisade serve --takeover` takes over from it" } else { "" };
            format!("the port is taken{owner}; choose another with `{flag}`{takeover}")
        }
        std::io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a right that this user lacks; choose another with `{flag}`, or give the binary `CAP_NET_BIND_SERVICE`"
        ),
        _ => error.to_string(),
    }
}

/// Who listens on a port, as far as this user may see, and whether that is a Palisade. `/proc/net/tcp*` has the user and the
/// socket's inode, and `/proc/PID/fd` who holds it; another user's descriptors are hidden from all but root.
fn owner(port: u16) -> (String, bool) {
    let wanted = format!(":{port:04X}");
    let listening = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is_it = columns.get(1)?.ends_with(&wanted) && *columns.get(3)? == "0A";
            is_it.then(|| Some((columns.get(7)?.parse::<u32>().ok()?, (*columns.get(9)?).to_owned())))?
        })
    });
    let Some((user, inode)) = listening else { return (String::new(), false) };
    let link = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()))
        {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim();
            return (format!(" by `{name}` (process {})", process.file_name().to_string_lossy()), name == "palisade");
        }
    }
    let name = nix::unistd::User::from_uid(user.into()).ok().flatten().map(|user| user.name);
    (format!(" by a process of user `{}`", name.unwrap_or_else(|| user.to_string())), false)
}

impl Bound {
    /// The address, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https` or `http`.
    pub fn name(&self) -> &'static str {
        name(self.key)
    }

    /// Accepts connections to the API on the current runtime, from a listener of its own under the shared port.
    pub(super) fn serve_here(&self, handle: &Arc<Handle>) -> Result<()> {
        let Role::Public(kind) = self.role else { return Ok(()) };
        let tls = (kind == Listener::Https).then(|| Arc::clone(&self.certificates));
        let state = state(handle.live().policy.env());
        let entrance = Entrance { kind, handle: Arc::clone(handle), state, tls };
        tokio::spawn(accept(self.listener()?, Arc::new(entrance)));
        Ok(())
    }

    /// The same for operators and probes.
    pub(super) fn serve_control(&self, handle: &Arc<Handle>) -> Result<()> {
        let Role::Control(door) = self.role else { return Ok(()) };
        tokio::spawn(admin::serve(self.listener()?, door, Arc::clone(handle)));
        Ok(())
    }

    fn listener(&self) -> Result<TcpListener> {
        let socket = match &self.hold {
            Hold::Given(listener) => Socket::from(listener.try_clone()?),
            Hold::Port(_) => {
                let socket = socket(self.address, true)?;
                socket.bind(&self.address.into())?;
                socket.listen(BACKLOG)?;
                socket
            }
        };
        // Inherited by accepted sockets on Linux: no system call a connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from_std(socket.into())?)
    }
}

fn name(key: &'static str) -> &'static str {
    key.strip_prefix("server.").unwrap_or(key)
}

async fn accept(listener: TcpListener, entrance: Arc<Entrance>) {
    let draining = entrance.state.reached(Phase::Draining);
    tokio::pin!(draining);
    let mut said: Option<tokio::time::Instant> = None;
    for number in (0..AT_ONCE).cycle() {
        if number == 0 {
            tokio::task::yield_now().await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => break,
        };
        match accepted {
            Ok((stream, peer)) => entrance.take(stream, peer),
            // Out of descriptors, or a connection that was gone at once: the listener itself is fine.
            Err(error) => {
                let gone = matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset);
                if !gone && said.is_none_or(|said| said.elapsed() > REPEATED) {
                    said = Some(tokio::time::Instant::now());
                    event::CONNECTION.line(entrance.handle.log()).show("reason", format!("cannot accept: {error}"));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // Closing a listener resets what waits in its queue, so the queue is emptied first; a client whose handshake is
    // under way joins it a round trip later.
    let end = tokio::time::Instant::now() + LAST_LOOK;
    while let Ok(Ok((stream, peer))) = tokio::time::timeout_at(end, listener.accept()).await {
        entrance.take(stream, peer);
    }
}
