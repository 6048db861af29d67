//! How many connections there may be: in all, from one network, and in the middle of a TLS handshake.
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

/// How much more than one /64 a /48 may hold, as in `rate_limit`: 65,536 of them are one customer's.
const WIDE: u32 = 16;

/// Who holds connections and requests. The maps are as large as twice the number of these at most, which is bounded.
#[derive(Debug)]
pub(super) struct Admission {
    shards: [Mutex<HashMap<Network, Held>>; SHARDS],
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
    /// Shared with its connections, so that a request needs no look-up.
    requests: Arc<AtomicUsize>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.connections == 0 && self.requests.load(Ordering::Relaxed) == 0
    }
}

/// Clients by their network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    /// An IPv4 address.
    V4(u32),
    /// The /64 that one IPv6 customer has at least.
    V6(u64),
    /// The /48 that one has at most.
    Wide(u64),
}

impl Network {
    /// Those of an address, the widest last.
    fn all(address: IpAddr) -> [Option<Self>; 2] {
        match canonical_ip(address) {
            IpAddr::V4(v4) => [Some(Self::V4(v4.to_bits())), None],
            IpAddr::V6(v6) => {
                let prefix = (v6.to_bits() >> 64) as u64;
                [Some(Self::V6(prefix)), Some(Self::Wide(prefix >> 16))]
            }
        }
    }

    /// The one that requests in progress are counted by.
    pub(super) fn widest(address: IpAddr) -> Self {
        match canonical_ip(address) {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::Wide((v6.to_bits() >> 80) as u64),
        }
    }

    /// How much it may hold where one address may hold so much.
    fn most(self, of_address: u32) -> u32 {
        match self {
            Self::V4(_) | Self::V6(_) => of_address,
            Self::Wide(_) => of_address.saturating_mul(WIDE),
        }
    }
}

/// A counted connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    state: Arc<ServerState>,
    /// A trusted proxy holds it, for others.
    is_proxy: bool,
    networks: [Option<Network>; 2],
    /// The requests in progress of the widest of these.
    requests: Option<Arc<AtomicUsize>>,
}

impl Admitted {
    /// Counts it for the networks of an address too: the peer's, or that of the client whom a proxy named.
    pub(super) fn count(&mut self, policy: &Policy, address: IpAddr) -> Result<(), &'static Code> {
        let limit = policy.config().limits.config.connections_per_address;
        for (place, network) in self.networks.iter_mut().zip(Network::all(address)) {
            let Some(network) = network else { break };
            self.requests = Some(self.state.admission.join(network, limit).ok_or(&PER_ADDRESS)?);
            *place = Some(network);
        }
        Ok(())
    }

    /// Whether a trusted proxy holds it.
    pub(super) fn is_proxy(&self) -> bool {
        self.is_proxy
    }

    /// The requests in progress of its network; none where a proxy holds it, for the networks of others.
    pub(super) fn requests(&self) -> Option<&AtomicUsize> {
        self.requests.as_deref()
    }

    /// The server that counts it.
    pub(super) fn server(&self) -> &Arc<ServerState> {
        &self.state
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.state.connections.fetch_sub(1, Ordering::Relaxed);
        for network in self.networks.into_iter().flatten() {
            self.state.admission.leave(network);
        }
    }
}

/// A TLS handshake in progress.
#[derive(Debug)]
pub(super) struct Handshake {
    state: Arc<ServerState>,
    networks: [Option<Network>; 2],
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let admission = &self.state.admission;
        admission.handshakes.fetch_sub(1, Ordering::Relaxed);
        for network in self.networks.into_iter().flatten() {
            admission.end(network);
        }
    }
}

impl Admission {
    fn shard(&self, network: Network) -> &Mutex<HashMap<Network, Held>> {
        &self.shards[self.hasher.hash_one(network) as usize % SHARDS]
    }

    /// Counts a connection of a network, where one address may have so many. Gives its requests in progress.
    fn join(&self, network: Network, limit: u32) -> Option<Arc<AtomicUsize>> {
        let mut shard = self.shard(network).lock();
        let held = shard.entry(network).or_default();
        if held.connections < network.most(limit) {
            held.connections += 1;
            return Some(Arc::clone(&held.requests));
        }
        None
    }

    /// Counts a handshake of a network that holds a connection.
    fn begin(&self, network: Network, limit: u32) -> bool {
        let mut shard = self.shard(network).lock();
        let Some(held) = shard.get_mut(&network) else { return true };
        let fits = held.handshakes < network.most(limit);
        held.handshakes += u32::from(fits);
        fits
    }

    fn end(&self, network: Network) {
        if let Some(held) = self.shard(network).lock().get_mut(&network) {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
    }

    fn leave(&self, network: Network) {
        if let Entry::Occupied(mut entry) = self.shard(network).lock().entry(network) {
            let held = entry.get_mut();
            held.connections = held.connections.saturating_sub(1);
            if held.is_empty() {
                entry.remove();
            }
        }
    }

    /// Changes how many requests of a network are in progress that did not come by a connection of its own.
    pub(super) fn with_requests<T>(&self, network: Network, change: impl FnOnce(&AtomicUsize) -> T) -> T {
        let mut shard = self.shard(network).lock();
        let held = shard.entry(network).or_default();
        let changed = change(&held.requests);
        if held.is_empty() {
            shard.remove(&network);
        }
        changed
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
    state.room.connections(policy.config().limits.config.connections)
}

/// Counts a connection, where it may be.
pub(super) fn admit(state: &Arc<ServerState>, policy: &Policy, peer: IpAddr) -> Result<Admitted, &'static Code> {
    let open = state.connections.fetch_add(1, Ordering::Relaxed);
    let is_proxy = is_proxy(policy, peer);
    let mut admitted = Admitted { state: Arc::clone(state), is_proxy, networks: [None; 2], requests: None };
    if open >= connection_limit(state, policy) {
        return Err(&CONNECTIONS);
    }
    // A proxy in front holds the connections of everybody.
    if !is_proxy {
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
    let mut handshake = Handshake { state: Arc::clone(state), networks: [None; 2] };
    if running >= handshake_limit(state, policy) {
        return Err(&HANDSHAKES);
    }
    let limit = (policy.config().limits.config.connections_per_address / 2).max(1);
    for (place, network) in handshake.networks.iter_mut().zip(admitted.networks) {
        let Some(network) = network else { break };
        if !state.admission.begin(network, limit) {
            return Err(&HANDSHAKES);
        }
        *place = Some(network);
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
    mut stream: TcpStream,
) {
    note(handle, state, code, peer, None);
    let admission = &state.admission;
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

    fn networks(address: &str) -> [Option<Network>; 2] {
        Network::all(address.parse().unwrap())
    }

    #[test]
    fn a_network_is_counted_as_one_and_forgotten_when_it_has_left() {
        let admission = Admission::default();
        assert_eq!(networks("2001:db8::1"), networks("2001:db8::ffff:1"), "one /64");
        assert_ne!(networks("2001:db8::1")[0], networks("2001:db8:0:1::1")[0]);
        assert_eq!(networks("2001:db8::1")[1], networks("2001:db8:0:1::1")[1], "one /48");
        assert_ne!(networks("2001:db8::1")[1], networks("2001:db8:1::1")[1]);
        assert_eq!(networks("::ffff:10.0.0.1"), networks("10.0.0.1"), "one address, two spellings");
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8:1:2::3"] {
            let widest = networks(address).into_iter().flatten().last().unwrap();
            assert_eq!(Network::widest(address.parse().unwrap()), widest, "{address}");
        }
        let [mine, other] = ["10.0.0.1", "10.0.0.2"].map(|address| networks(address)[0].unwrap());
        let join = |network, limit| admission.join(network, limit).is_some();
        assert!(join(mine, 2) && join(mine, 2) && !join(mine, 2));
        assert!(join(other, 2), "others are not affected");
        admission.leave(mine);
        assert!(join(mine, 2));
        assert!(admission.begin(mine, 1) && !admission.begin(mine, 1), "one handshake");
        assert!(admission.begin(other, 1));
        admission.leave(mine);
        admission.leave(mine);
        admission.leave(other);
        assert!(admission.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    /// One customer's /48 has 65,536 /64s, each of which could fill its limit.
    #[test]
    fn a_wide_network_has_sixteen_times_as_much() {
        let live = crate::testing_local::App::start("[limits]\nconnections_per_address = 4\n").handle.live();
        let state = super::super::of(&live.policy.env().state);
        let admit = |address: String| admit(&state, &live.policy, address.parse().unwrap());
        let mut held = Vec::new();
        for subnet in 0..16 {
            for host in 1..=4 {
                held.push(admit(format!("2001:db8:0:{subnet}::{host}")).unwrap());
            }
        }
        assert_eq!(admit("2001:db8:0:ff::1".to_owned()).unwrap_err(), &PER_ADDRESS);
        assert!(admit("2001:db8:1::1".to_owned()).is_ok() && admit("10.0.0.1".to_owned()).is_ok());
        assert_eq!(state.connections(), 64, "what was refused is not counted");
        // Half of them may be in a handshake.
        let handshakes: Vec<_> =
            held.iter().step_by(2).map(|admitted| handshake(&state, &live.policy, admitted).unwrap()).collect();
        held.pop();
        let late = admit("2001:db8:0:ff::1".to_owned()).unwrap();
        assert_eq!(handshake(&state, &live.policy, &late).unwrap_err(), &HANDSHAKES);
        drop(handshakes);
        assert!(handshake(&state, &live.policy, &late).is_ok());
        drop((held, late));
        assert!(state.admission.shards.iter().all(|shard| shard.lock().is_empty()));
        assert_eq!((state.connections(), state.admission.handshakes()), (0, 0));
    }
}
