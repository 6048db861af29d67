//! A free port for a program that can't announce its own.

use std::net::{Ipv4Addr, TcpListener};

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
