//! Telling the service manager how things are: `sd_notify(3)`, a datagram of lines to the socket in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Everything is up.
pub(super) const READY: &str = "READY=1\n";
/// The server leaves.
pub(super) const STOPPING: &str = "STOPPING=1\n";
/// It is alive.
pub(super) const WATCHDOG: &str = "WATCHDOG=1\n";

/// A reload begins; [`READY`] ends it. systemd wants the time of the beginning, on the monotonic clock.
pub(super) fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.as_micros()));
}

/// Sends, where there is a service manager. It not listening is no reason to fail.
pub(super) fn send(state: &str) {
    if let Some(address) = std::env::var_os("NOTIFY_SOCKET") {
        let _ = send_to(address.as_encoded_bytes(), state);
    }
}

fn send_to(address: &[u8], state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let address = match address {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often the service manager wants to hear [`WATCHDOG`]: half of `WATCHDOG_USEC`, where it is meant for this process.
pub(super) fn watchdog() -> Option<Duration> {
    let var = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let for_us = std::env::var_os("WATCHDOG_PID").is_none() || var("WATCHDOG_PID") == Some(std::process::id().into());
    var("WATCHDOG_USEC").filter(|micros| for_us && *micros > 0).map(|micros| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_by_path_and_by_abstract_name() {
        let name = format!("palisade-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(path.as_os_str().as_encoded_bytes(), READY).unwrap();
        send_to(format!("@{name}").as_bytes(), STOPPING).unwrap();
        let mut buffer = [0; 64];
        let count = by_path.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1\n");
        let count = by_name.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"STOPPING=1\n");
        std::fs::remove_file(&path).unwrap();
        assert!(send_to(path.as_os_str().as_encoded_bytes(), READY).is_err(), "nobody listens");
    }
}
