//! The running gateway that a command speaks with: the one whose state directory the policy names.

use std::path::PathBuf;

use palisade::control_socket::{self, CallError, Request};
use palisade_policy::Snapshot;
use serde_json::Value;

use super::policy;
use crate::args::Global;
use crate::exit::Usage;

/// Asks the running gateway.
pub(super) fn ask(global: &Global, request: &Request) -> anyhow::Result<Value> {
    control_socket::call(&state(global), request).map_err(|error| match error {
        CallError::Refused(message) => Usage(message).into(),
        other => anyhow::Error::new(other),
    })
}

/// The state directory. The policy may be broken by now, while the gateway runs on with the one it read: what counts
/// here is `server.state` and `server.mode`.
pub(super) fn state(global: &Global) -> PathBuf {
    let sources = policy::sources(global);
    if let Ok(checked) = palisade::live::read(&sources) {
        return palisade::policy::state_dir(&checked.config.server);
    }
    let written = Snapshot::read(&sources).ok().and_then(|snapshot| snapshot.text("server.state").map(PathBuf::from));
    let places = written.into_iter().chain([PathBuf::from(".palisade")]);
    places
        .chain(std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
        .find(|place| place.join(control_socket::SOCKET).exists())
        .unwrap_or_else(|| "/var/lib/palisade".into())
}
