//! How many connections there may be: in all, from one address, and in the middle of a TLS handshake.
//!
//! Guide section 21. Decided before anything is read. Plain connections over a limit are told so by a short 503; under TLS
//! an answer would cost the handshake that the limit is there to save, so they are closed.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use palisade_base::canonical_ip;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ServerState;
use super::request_id::RequestId;
use crate::control::Mode;
use crate::live::Handle;
use crate::observe::event;
use crate::policy::Policy;
use crate::refusal::{Code, problem_document};

/// All connections of the server are taken.
pub(crate) static CONNECTIONS: Code = Code::client(
    "limits.connections",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "too many connections are open; try again shortly",
)
.owasp("excess_rate_limit_exceeded");
/// All connections of one address are taken.
pub(crate) static PER_ADDRESS: Code = Code::client(
    "limits.connections_per_address",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "too many connections are open from this network; close some, or try again shortly",
)
.owasp("excess_rate_limit_exceeded");
/// Too many clients are in the middle of a TLS handshake.
pub(crate) static HANDSHAKES: Code = Code::client(
    "limits.handshakes",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "too many connections are being opened; try again shortly",
)
.owasp("excess_rate_limit_exceeded");

const SHARDS: usize = 64;
/// Refused plain connections that are being told why, at once.
const TOLD: usize = 64;
/// How long a refused client may take to ask; then it is told unasked.
const ASKED: Duration = Duration::from_millis(250);
/// How long it may take to read why, with that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 * 1024;

/// Who holds connections. The maps are as large as the number of open connections at most, which is bounded.
#[derive(Debug)]
pub(super) struct Admission {
    shards: [Mutex<HashMap<u64, Held>>; SHARDS],
    hasher: RandomState,
    handshakes: AtomicUsize,
    told: AtomicUsize,
    /// The second of the last log line, and what was refused since without one.
    logged: AtomicU64,
    unlogged: AtomicU64,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            handshakes: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            logged: AtomicU64::new(u64::MAX),
            unlogged: AtomicU64::new(0),
        }
    }
}

/// What a network holds.
#[derive(Debug, Default)]
struct Held {
    connections: u32,
    handshakes: u32,
}

/// A client by its network: an IPv4 address, or the /64 that one IPv6 customer has at least.
fn network(address: IpAddr) -> u64 {
    match canonical_ip(address) {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // No global unicast /64 is as small a number as an IPv4 address; a collision with one would share a limit.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// A counted connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    state: Arc<ServerState>,
    network: Option<u64>,
}

impl Admitted {
    /// Counts it for the network of an address too: the peer's, or that of the client whom a proxy named.
    pub(super) fn count(&mut self, policy: &Policy, address: IpAddr) -> Result<(), &'static Code> {
        let network = network(address);
        if !self.state.admission.join(network, policy.config().limits.config.connections_per_address) {
            return Err(&PER_ADDRESS);
        }
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.state.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = self.network {
            self.state.admission.leave(network);
        }
    }
}

/// A TLS handshake in progress.
#[derive(Debug)]
pub(super) struct Handshake {
    state: Arc<ServerState>,
    network: Option<u64>,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let admission = &self.state.admission;
        admission.handshakes.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = self.network
            && let Some(held) = admission.shard(network).lock().get_mut(&network)
        {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
    }
}

impl Admission {
    fn shard(&self, network: u64) -> &Mutex<HashMap<u64, Held>> {
        &self.shards[self.hasher.hash_one(network) as usize % SHARDS]
    }

    fn join(&self, network: u64, limit: u32) -> bool {
        let mut shard = self.shard(network).lock();
        let count = &mut shard.entry(network).or_default().connections;
        let fits = *count < limit;
        if fits {
            *count += 1;
        }
        fits
    }

    /// Counts a handshake of a network that holds a connection.
    fn begin(&self, network: u64, limit: u32) -> bool {
        let mut shard = self.shard(network).lock();
        let Some(held) = shard.get_mut(&network) else { return true };
        let fits = held.handshakes < limit;
        held.handshakes += u32::from(fits);
        fits
    }

    fn leave(&self, network: u64) {
        if let Entry::Occupied(mut entry) = self.shard(network).lock().entry(network) {
            let held = entry.get_mut();
            held.connections = held.connections.saturating_sub(1);
            if held.connections == 0 {
                entry.remove();
            }
        }
    }

    /// TLS handshakes in progress.
    pub(super) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// How many handshakes may be in progress: half of all connections, so that clients who never finish theirs leave room.
pub(super) fn handshake_limit(state: &ServerState, policy: &Policy) -> usize {
    (connection_limit(state, policy) / 2).max(1)
}

/// How many connections may be open: what the policy says, where there are descriptors for so many.
pub(super) fn connection_limit(state: &ServerState, policy: &Policy) -> usize {
    state.room.at_most(policy.config().limits.config.connections)
}

/// Counts a connection, where it may be.
pub(super) fn admit(state: &Arc<ServerState>, policy: &Policy, peer: IpAddr) -> Result<Admitted, &'static Code> {
    let open = state.connections.fetch_add(1, Ordering::Relaxed);
    let mut admitted = Admitted { state: Arc::clone(state), network: None };
    if open >= connection_limit(state, policy) {
        return Err(&CONNECTIONS);
    }
    // A proxy in front holds the connections of everybody.
    if !is_proxy(policy, peer) {
        admitted.count(policy, peer)?;
    }
    Ok(admitted)
}

/// Whether an address is that of a trusted proxy.
pub(super) fn is_proxy(policy: &Policy, address: IpAddr) -> bool {
    policy.env().server.trusted_proxies.iter().any(|proxies| proxies.contains(address))
}

/// Counts a TLS handshake, where it may begin: of one network as of all, half of its connections may be in one.
pub(super) fn handshake(
    state: &Arc<ServerState>,
    policy: &Policy,
    admitted: &Admitted,
) -> Result<Handshake, &'static Code> {
    let running = state.admission.handshakes.fetch_add(1, Ordering::Relaxed);
    let mut handshake = Handshake { state: Arc::clone(state), network: None };
    if running >= handshake_limit(state, policy) {
        return Err(&HANDSHAKES);
    }
    if let Some(network) = admitted.network {
        let limit = (policy.config().limits.config.connections_per_address / 2).max(1);
        if !state.admission.begin(network, limit) {
            return Err(&HANDSHAKES);
        }
        handshake.network = Some(network);
    }
    Ok(handshake)
}

/// Counts a refused connection, and logs at most one a second.
pub(super) fn note(handle: &Handle, state: &ServerState, code: &'static Code, peer: IpAddr, why: Option<&str>) {
    handle.metrics().refused(code.control(), code.name, Mode::Block);
    let admission = &state.admission;
    let second = state.uptime().as_secs();
    if admission.logged.swap(second, Ordering::Relaxed) == second {
        admission.unlogged.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let line = event::CONNECTION.line(handle.log()).show("peer", canonical_ip(peer)).str("reason", code.name);
    let line = match why {
        Some(why) => line.str("why", why),
        None => line,
    };
    drop(line.u64("others", admission.unlogged.swap(0, Ordering::Relaxed)));
}

/// Counts a refused connection, logs at most one a second, and tells a client that speaks plain HTTP once it asks.
pub(super) async fn refuse(
    handle: &Handle,
    state: &ServerState,
    code: &'static Code,
    peer: IpAddr,
    plain: Option<TcpStream>,
) {
    note(handle, state, code, peer, None);
    let admission = &state.admission;
    let Some(mut stream) = plain else { return };
    let told = admission.told.fetch_add(1, Ordering::Relaxed);
    if told < TOLD {
        let live = handle.live();
        let id = RequestId::new(live.policy.clock().now());
        let document = problem_document(code, code.status, id.as_str());
        let mut answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n{}Retry-After: 1\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n",
            document.len(),
            super::framing::security_headers(&live.policy, false),
        )
        .into_bytes();
        answer.extend_from_slice(&document);
        let tell = async {
            // Clients that keep connections (hyper's for one) fail on bytes that come before they have asked. Others wait.
            let _asked = tokio::time::timeout(ASKED, stream.peek(&mut [0])).await;
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            // Closing over unread bytes would reset the connection and take the answer out of the client's hands.
            tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES as u64), &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER, tell).await;
    }
    admission.told.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_counted_as_one_and_forgotten_when_it_has_left() {
        let admission = Admission::default();
        let key = |text: &str| network(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"), "one /64");
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"), "one address, two spellings");
        let mine = key("10.0.0.1");
        assert!(admission.join(mine, 2) && admission.join(mine, 2) && !admission.join(mine, 2));
        assert!(admission.join(key("10.0.0.2"), 2), "others are not affected");
        admission.leave(mine);
        assert!(admission.join(mine, 2));
        assert!(admission.begin(mine, 1) && !admission.begin(mine, 1), "one handshake");
        assert!(admission.begin(key("10.0.0.2"), 1));
        admission.leave(mine);
        admission.leave(mine);
        admission.leave(key("10.0.0.2"));
        assert!(admission.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
