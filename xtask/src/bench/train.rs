//! The load that `cargo xtask dist` counts: what a gateway has most of, some seconds of each, and nothing is measured.
//!
//! Every cell of the table, the requests that the rules are measured with, callers of every kind and logins. What is not
//! here is not slower than without counts, only not moved together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::cell::CELLS;
use super::gateway::{Gateway, Kind};
use super::site::Site;
use super::{check, generator, identity, waf};

/// Length of each load.
pub(super) const SECONDS: u64 = 2;
/// Until a gateway has ended and written its counts.
const END: Duration = Duration::from_secs(20);

/// Sends it to a binary.
pub(super) fn train(site: &mut Site, binary: &PathBuf) -> Result<()> {
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[])?;
    check::check(site, &gateway)?;
    for cell in CELLS {
        eprintln!("dist: load: {}", cell.title);
        let seen = generator::run(site, &gateway, cell, SECONDS)?;
        ensure!(seen.requests > 0 && seen.errors == 0, "{}: {} of {} failed", cell.name, seen.errors, seen.requests);
        gateway.empty_log();
    }
    end(gateway)?;

    eprintln!("dist: load: requests that rules look at");
    end(waf::train(site, binary)?)?;

    site.auth = Some("closed");
    eprintln!("dist: load: callers and logins");
    end(identity::train(site, binary)?)?;
    site.auth = None;
    Ok(())
}

fn end(mut gateway: Gateway) -> Result<()> {
    let status = gateway.server.stop(END)?;
    ensure!(status.success(), "the gateway ended with {status}");
    Ok(())
}
