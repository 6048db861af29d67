//! Which policy a command works with.

use std::path::{Path, PathBuf};

use palisade_policy::Sources;

use crate::args::{Global, Listening};

/// Where a policy is looked for when none is named.
const PLACES: [&str; 2] = ["palisade.toml", "/etc/palisade/palisade.toml"];

/// The files of the policy: those that were named, or the first one found.
pub(crate) fn files(global: &Global) -> Vec<PathBuf> {
    if !global.policy.is_empty() {
        return global.policy.clone();
    }
    PLACES.iter().map(PathBuf::from).find(|path| Path::exists(path)).into_iter().collect()
}

/// The sources of a policy: files or the starter policy, the environment, flags.
pub(crate) fn sources(global: &Global) -> Sources {
    let files = files(global);
    let mut sources = Sources::new();
    if files.is_empty() {
        sources = sources.builtin(palisade::policy::STARTER_NAME, palisade::policy::STARTER);
    }
    for file in files {
        sources = sources.file(file);
    }
    sources.environment(std::env::vars_os())
}

/// Lays the ports of the command line over the policy; the address stays the policy's.
pub(crate) fn with_ports(mut sources: Sources, listening: &Listening) -> anyhow::Result<Sources> {
    let wanted = [
        ("--https-port", "server.https", listening.https_port),
        ("--http-port", "server.http", listening.http_port),
        ("--admin-port", "server.admin", listening.admin_port),
    ];
    if wanted.iter().all(|(_, _, port)| port.is_none()) {
        return Ok(sources);
    }
    let server = palisade::live::read(&sources).map_err(palisade::Error::Policy)?.config.server;
    let written = [server.https(), server.http(), server.admin];
    for ((flag, key, port), listen) in wanted.into_iter().zip(written) {
        if let Some(port) = port {
            let ip = listen.address().map_or(std::net::Ipv4Addr::LOCALHOST.into(), |address| address.ip());
            sources = sources.flag(flag, key, format!("\"{}\"", std::net::SocketAddr::new(ip, port)));
        }
    }
    Ok(sources)
}
