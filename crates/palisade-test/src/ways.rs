//! Addresses of this machine that are reached from another one each, for programs that cannot choose where they come from.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::apt::as_root;
use crate::shell::run;

/// What goes to 127.66.0.N comes from 127.0.0.N, for as long as this is held. It holds for the whole machine.
#[derive(Debug)]
pub struct Ways(());

impl Ways {
    /// Reached from 127.0.0.2.
    pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 2);
    /// Reached from 127.0.0.3.
    pub const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 3);

    /// Opens them.
    ///
    /// # Errors
    /// Without `ip`, and without root or a `sudo` that asks nothing.
    pub fn open() -> Result<Ways> {
        let ways = Ways(());
        for to in [Ways::ATTACKER, Ways::CLIENT] {
            let [.., last] = to.octets();
            route(&format!("replace local {to}/32 dev lo src 127.0.0.{last} table local"))?;
        }
        Ok(ways)
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        for to in [Ways::ATTACKER, Ways::CLIENT] {
            let _ = route(&format!("del local {to}/32 dev lo table local"));
        }
    }
}

fn route(what: &str) -> Result<()> {
    let words: Vec<&str> = ["ip", "route"].into_iter().chain(what.split(' ')).collect();
    run(&mut as_root(&words)?)
}
