//! File descriptors: as many as the policy's connections and requests need, or as many of these as there are descriptors
//! for. A server that runs out of them accepts nobody and can tell nobody.
//!
//! Guide section 21. A connection of a client needs one. A request may need one more, for its connection to the application
//! or for a file; over HTTP/2 a hundred of them come on one connection, so they are counted for themselves ([`super::seats`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{ServerState, of, state};
use crate::gateway;
use crate::live::Handle;
use crate::observe::event;
use crate::policy::State;

/// Listeners, logs, watches, databases, pipes of an application, clients that are being told that they are too many.
const OTHERS: u64 = 128;
/// Of the same what each worker has.
const OF_A_WORKER: u64 = 8;

/// How much there are descriptors for, and what is in use of them.
#[derive(Debug)]
pub(super) struct Room {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Requests that have a seat.
    pub(super) seated: AtomicUsize,
    /// Connections to applications, idle ones among them, and files.
    open: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            connections: AtomicUsize::new(usize::MAX),
            requests: AtomicUsize::new(usize::MAX),
            seated: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }
}

impl Room {
    /// The connections that may be open: what the policy says, at most.
    pub(super) fn connections(&self, said: u32) -> usize {
        self.connections.load(Ordering::Relaxed).min(said as usize)
    }

    /// The requests that may be in progress, likewise.
    pub(super) fn requests(&self, said: u32) -> usize {
        self.requests.load(Ordering::Relaxed).min(said as usize)
    }

    /// Descriptors that requests hold, and connections to applications that nobody uses just now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn is_ours(&self) -> bool {
        self.connections.load(Ordering::Relaxed) != usize::MAX
    }

    fn take(&self) -> bool {
        let taken = self.open.fetch_add(1, Ordering::Relaxed) < self.requests.load(Ordering::Relaxed);
        if !taken {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }
}

/// A descriptor that is counted; given back when it is dropped, with what it is for.
#[derive(Debug)]
pub(crate) struct Descriptor(Arc<ServerState>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.room.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a descriptor, where one is left. Connections to applications that nobody uses just now give way.
pub(crate) fn take(state: &State) -> Option<Descriptor> {
    let server = of(state);
    let taken = server.room.take() || {
        gateway::close_idle(state);
        server.room.take()
    };
    taken.then(|| Descriptor(server))
}

/// Raises the limit of this process as far as the policy needs and the system allows, and says so where that is less. Not
/// as far as the system allows: an application that is started inherits it, and there are programs that close every number
/// below it one by one.
pub(super) fn provide(handle: &Handle) {
    let live = handle.live();
    let config = live.policy.config();
    let limits = &config.limits.config;
    let (said_connections, said_requests) = (u64::from(limits.connections), u64::from(limits.requests()));
    let others = others(config.server.workers());
    let needed = said_connections + said_requests + others;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = needed.min(hard).max(soft);
    let limit = if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    let (connections, requests) = shared(limit.saturating_sub(others), said_connections, said_requests);
    let server = state(live.policy.env());
    for (kept, number) in [(&server.room.connections, connections), (&server.room.requests, requests)] {
        kept.store(usize::try_from(number).unwrap_or(usize::MAX - 1), Ordering::Relaxed);
    }
    // A few less than the policy says are nothing to be told at every start.
    if connections < said_connections / 10 * 9 || requests < said_requests / 10 * 9 {
        event::DESCRIPTORS
            .line(handle.log())
            .u64("limit", limit)
            .u64("connections", connections)
            .u64("requests", requests)
            .str(
                "add",
                &format!(
                    "a limit of {needed} open files (`ulimit -n`, `LimitNOFILE=`), or `limits.connections = {connections}` and `limits.requests = {requests}`"
                ),
            );
    }
}

/// The same for a policy that has come into force since; where the process is somebody else's, nothing is touched.
pub(super) fn provide_again(handle: &Handle) {
    if state(handle.live().policy.env()).room.is_ours() {
        provide(handle);
    }
}

/// What is not counted one by one.
fn others(workers: usize) -> u64 {
    (OTHERS / 2 + OF_A_WORKER * workers as u64).max(OTHERS)
}

/// How many of so many descriptors are for connections and how many for requests: half each, and what the other leaves.
fn shared(there: u64, connections: u64, requests: u64) -> (u64, u64) {
    let connections = connections.min(there - requests.min(there / 2)).max(1);
    (connections, requests.min(there.saturating_sub(connections)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_requests_share_what_there_is() {
        for (limit, said, expected) in [
            (0, (10_000, 20_000), (1, 1)),
            (128, (10_000, 20_000), (1, 1)),
            (300, (10_000, 20_000), (86, 86)),
            (300, (10_000, 20), (152, 20)),
            (300, (50, 20_000), (50, 122)),
            (1024, (10_000, 20_000), (448, 448)),
            (20_128, (10_000, 20_000), (10_000, 10_000)),
            (30_128, (10_000, 20_000), (10_000, 20_000)),
            (1 << 20, (10_000, 20_000), (10_000, 20_000)),
        ] {
            assert_eq!(shared(u64::saturating_sub(limit, OTHERS), said.0, said.1), expected, "{limit} {said:?}");
        }
        assert_eq!([others(1), others(8), others(64)], [128, 128, 576]);
        let room = Room::default();
        assert_eq!((room.connections(10_000), room.requests(20_000)), (10_000, 20_000));
        assert!(!room.is_ours());
        room.connections.store(86, Ordering::Relaxed);
        assert_eq!((room.connections(10_000), room.connections(10)), (86, 10));
    }

    #[test]
    fn a_descriptor_is_given_back() {
        let state = State::default();
        let server = of(&state);
        let room = &server.room;
        room.requests.store(2, Ordering::Relaxed);
        let (one, other) = (take(&state), take(&state));
        assert!(one.is_some() && other.is_some() && take(&state).is_none());
        drop(one);
        assert_eq!(room.open(), 1);
        let again = take(&state);
        assert!(again.is_some() && take(&state).is_none());
        drop((other, again));
        assert_eq!(room.open(), 0);
    }
}
