//! What the kernel knows about ports: which are free, and who is connected to one.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use anyhow::{Context, Result};

/// A port of loopback that was free a moment ago.
///
/// The system hands such ports out in turn, so that another test gets another one; still, prefer a program that binds
/// port 0 and says what it got.
///
/// # Errors
/// When none is left.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is left")?;
    Ok(listener.local_addr()?.port())
}

/// How many connections to `server` their clients may still take for open: their kernel has not told them of an end.
///
/// A server that has closed is no proof of that: what it sent waits for its turn on a machine that is busy, and may be
/// overtaken by what another connection sends afterwards.
///
/// # Errors
/// When the kernel's table of connections cannot be read.
pub fn connected(server: SocketAddrV4) -> Result<usize> {
    /// `TCP_ESTABLISHED`
    const OPEN: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").context("the kernel's connections")?;
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(server.ip().octets()), server.port());
    let is_open = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&*address) && columns.next() == Some(OPEN)
    };
    Ok(table.lines().filter(is_open).count())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    #[test]
    fn a_client_counts_until_its_kernel_knows_of_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        assert_eq!(connected(address).unwrap(), 0);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(connected(address).unwrap(), 3);
        drop(listener.accept().unwrap());
        // What tells the client tells the kernel first.
        assert_eq!(std::io::Read::read(&mut &clients[0], &mut [0]).unwrap(), 0);
        assert_eq!(connected(address).unwrap(), 2);
    }
}
