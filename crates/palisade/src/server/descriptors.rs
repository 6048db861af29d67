//! File descriptors: as many as the connections need that the policy allows, or as many connections as there are
//! descriptors for. A server that runs out of them accepts nobody and can tell nobody.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::state;
use crate::live::Handle;
use crate::observe::event;

/// A connection of a client, and one to the application.
const A_CONNECTION: u64 = 2;
/// Listeners, logs, files, watches, pipes of an application.
const OTHERS: u64 = 128;

/// How many connections there are descriptors for.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl Room {
    /// The connections that may be open: what the policy says, at most.
    pub(super) fn at_most(&self, said: u32) -> usize {
        self.0.load(Ordering::Relaxed).min(said as usize)
    }

    fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed) != usize::MAX
    }
}

/// Raises the limit of this process as far as the policy needs and the system allows, and says so where that is less.
pub(super) fn provide(handle: &Handle) {
    let live = handle.live();
    let said = live.policy.config().limits.config.connections;
    let needed = u64::from(said) * A_CONNECTION + OTHERS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = needed.min(hard).max(soft);
    let limit = if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let room = room(limit);
    state(live.policy.env()).room.0.store(room, Ordering::Relaxed);
    // A few less than the policy says are nothing to be told at every start.
    if room < said as usize / 10 * 9 {
        event::DESCRIPTORS.line(handle.log()).u64("limit", limit).u64("connections", room as u64).str(
            "add",
            &format!("a limit of {needed} open files (`ulimit -n`, `LimitNOFILE=`), or `limits.connections = {room}`"),
        );
    }
}

/// The same for a policy that has come into force since; where the process is somebody else's, nothing is touched.
pub(super) fn provide_again(handle: &Handle) {
    if state(handle.live().policy.env()).room.is_ours() {
        provide(handle);
    }
}

/// How many connections so many descriptors are for.
fn room(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(OTHERS) / A_CONNECTION).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_needs_two() {
        for (limit, connections) in [(0, 1), (128, 1), (300, 86), (1024, 448), (20_128, 10_000)] {
            assert_eq!(room(limit), connections, "{limit}");
        }
        let room = Room::default();
        assert_eq!(room.at_most(10_000), 10_000);
        room.0.store(86, Ordering::Relaxed);
        assert_eq!((room.at_most(10_000), room.at_most(10)), (86, 10));
    }
}
