//! How a server is doing: what `palisade status` and `/status` on the admin port show. No secret is in it.
//!
//! Guide section 16.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use palisade_base::Timestamp;
use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use crate::controls::INFOS;
use crate::live::Handle;
use crate::operate::{self, rfc3339};
use crate::policy::values::UpstreamUrl;
use crate::policy::{Env, Policy};
use crate::server::Phase;
use crate::stack::Inner;

/// How long asking an upstream may take.
const ASK: Duration = Duration::from_millis(300);

/// What a server says of itself that no policy knows.
#[derive(Debug)]
struct Facts {
    started: Timestamp,
    listeners: Mutex<Vec<(&'static str, String)>>,
    certificates: Mutex<Vec<Certificate>>,
}

#[derive(Debug, Clone)]
struct Certificate {
    names: Vec<String>,
    issuer: String,
    not_before: i64,
    not_after: i64,
}

fn facts(env: &Env) -> Arc<Facts> {
    env.state.get("status", || Facts {
        started: env.clock.now(),
        listeners: Mutex::default(),
        certificates: Mutex::default(),
    })
}

/// When the server started.
pub(crate) fn started(handle: &Handle) -> Timestamp {
    facts(handle.live().policy.env()).started
}

/// A listener accepts connections; the last address of a name counts.
pub(crate) fn listening(env: &Env, name: &'static str, address: String) {
    let facts = facts(env);
    let mut listeners = facts.listeners.lock();
    listeners.retain(|(known, _)| *known != name);
    listeners.push((name, address));
}

/// These certificates are served from now on.
pub(crate) fn certificates(env: &Env, keys: &[Arc<CertifiedKey>]) {
    let read = keys.iter().filter_map(|key| certificate(key.cert.first()?)).collect();
    *facts(env).certificates.lock() = read;
}

fn certificate(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                x509_parser::extensions::GeneralName::IPAddress(octets) => match octets.len() {
                    4 => <[u8; 4]>::try_from(*octets).ok().map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
                    16 => <[u8; 16]>::try_from(*octets).ok().map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
                    _ => None,
                },
                _ => None,
            })
            .take(100)
            .collect()
    });
    let validity = certificate.validity();
    Some(Certificate {
        names,
        issuer: certificate.issuer().to_string(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// Everything that is known. Asks each upstream for a connection and so blocks for up to 300 ms: call it where that is
/// allowed (`spawn_blocking`).
pub fn status(handle: &Handle) -> Value {
    let live = handle.live();
    let policy = &live.policy;
    let env = policy.env();
    let facts = facts(env);
    let now = env.clock.now();
    let server = crate::server::state(env);
    let (requests, refused, would_refuse) = policy.decisions().counts();
    let listeners: Vec<Value> =
        facts.listeners.lock().iter().map(|(name, address)| json!({ "listener": name, "address": address })).collect();
    let in_force = policy.decisions().latest();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started": rfc3339(facts.started),
        "uptime_s": now.0.saturating_sub(facts.started.0) / 1000,
        "phase": match server.phase() {
            Phase::Serving => "serving",
            Phase::LameDuck => "lame_duck",
            Phase::Draining => "draining",
            Phase::Ended => "ended",
        },
        "ready": server.is_ready(),
        "mode": if env.is_development() { "development" } else { "production" },
        "policy": {
            "files": handle.files(),
            "hash": policy.hash(),
            "since": in_force.map(|facts| rfc3339(facts.since)),
        },
        "state": policy.state_dir(),
        "listeners": listeners,
        "connections": { "open": server.connections(), "limit": policy.config().limits.config.connections },
        "requests": { "seen": requests, "refused": refused, "would_refuse": would_refuse },
        "controls": controls(policy),
        "overrides": operate::list(handle),
        "upstreams": upstreams(handle, live.inner()),
        "certificates": certificate_values(&facts, now),
    })
}

/// The mode of each control; of routes, where it differs.
fn controls(policy: &Policy) -> Vec<Value> {
    INFOS
        .iter()
        .enumerate()
        .map(|(place, info)| {
            let id = crate::control::ControlId(u8::try_from(place).unwrap_or(u8::MAX));
            let mode = policy.written_mode(id, 0);
            let routes: Vec<Value> = policy
                .rules()
                .iter()
                .filter(|rule| policy.written_mode(id, rule.id) != mode)
                .map(|rule| {
                    let mode = policy.written_mode(id, rule.id).as_str();
                    json!({ "route": &*rule.label, "policy": &*rule.line, "mode": mode })
                })
                .collect();
            json!({
                "control": info.name, "section": info.section, "mode": mode.as_str(),
                "always_enforces": !info.judges, "routes": routes,
            })
        })
        .collect()
}

fn upstreams(handle: &Handle, inner: &Inner) -> Vec<Value> {
    let live = handle.live();
    let url = match inner {
        Inner::Proxy(_) => handle.upstream_url(&live.policy),
        Inner::Router(_) => return vec![json!({ "upstream": "router", "url": null, "reachable": true })],
        Inner::Nothing => return Vec::new(),
    };
    let Some(url) = url else { return Vec::new() };
    vec![json!({ "upstream": "upstream", "url": url.to_string(), "reachable": reachable(&url) })]
}

fn reachable(url: &UpstreamUrl) -> bool {
    match url {
        UpstreamUrl::Unix(path) => UnixStream::connect(path).is_ok(),
        UpstreamUrl::Http { host, port } => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let addresses = (host, *port).to_socket_addrs();
            addresses.is_ok_and(|mut all| all.any(|address| TcpStream::connect_timeout(&address, ASK).is_ok()))
        }
    }
}

fn certificate_values(facts: &Facts, now: Timestamp) -> Vec<Value> {
    let second = |second: i64| rfc3339(Timestamp(second.saturating_mul(1000)));
    let certificates = facts.certificates.lock().clone();
    certificates
        .iter()
        .map(|certificate| {
            json!({
                "names": certificate.names, "issuer": certificate.issuer,
                "not_before": second(certificate.not_before), "not_after": second(certificate.not_after),
                "days_left": (certificate.not_after - now.0 / 1000).div_euclid(86_400),
            })
        })
        .collect()
}
