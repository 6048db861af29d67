//! Sockets that a service manager opened (`sd_listen_fds(3)`): `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`.
//!
//! With `listenfd`, because turning the number of a descriptor into a socket is `unsafe`, and it checks first that the
//! number is one of a socket that listens.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use crate::error::Result;
use crate::observe::{Log, event};

/// Given sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub(super) struct Given(Vec<(String, TcpListener, SocketAddr)>);

/// Takes what was given to this process. All of it, so that no application started later inherits one.
///
/// # Errors
/// When something else than a TCP socket was given.
pub(super) fn take() -> Result<Given> {
    // Without it the variables are those of a parent that passed on its environment.
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|id| id.parse() == Ok(std::process::id()));
    if !for_us {
        return Ok(Given::default());
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut given = Vec::new();
    for place in 0..sockets.len() {
        let name = names.next().unwrap_or_default().to_owned();
        if let Some(listener) = sockets.take_tcp_listener(place)? {
            let address = listener.local_addr()?;
            given.push((name, listener, address));
        }
    }
    Ok(Given(given))
}

impl Given {
    /// The socket for a listener: by its name (`FileDescriptorName=https`), else by its address.
    pub(super) fn find(&mut self, name: &str, address: SocketAddr) -> Option<(TcpListener, SocketAddr)> {
        let by_name = self.0.iter().position(|(given, _, _)| given == name);
        let by_address = || self.0.iter().position(|(_, _, given)| *given == address);
        let (_, listener, address) = self.0.swap_remove(by_name.or_else(by_address)?);
        Some((listener, address))
    }

    /// Closes what nobody wanted, and says so: somebody configured it.
    pub(super) fn close(self, log: &Log) {
        for (name, _, address) in self.0 {
            event::CONNECTION
                .line(log)
                .str("reason", "a socket was given that no listener of the policy is for")
                .str("name", &name)
                .show("address", address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_then_by_address() {
        let open = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (named, other) = (open(), open());
        let (at_named, at_other) = (named.local_addr().unwrap(), other.local_addr().unwrap());
        let mut given = Given(vec![("unknown".into(), other, at_other), ("https".into(), named, at_named)]);
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(given.find("http", elsewhere).is_none());
        assert_eq!(given.find("https", elsewhere).unwrap().1, at_named);
        assert_eq!(given.find("http", at_other).unwrap().1, at_other);
        assert!(given.find("http", at_other).is_none());
    }
}
