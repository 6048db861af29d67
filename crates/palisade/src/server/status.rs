//! How a server is: `/status`, and the gauges that are read when somebody scrapes them. Guide section 16.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_identity::service::FeedState;
use serde_json::{Value, json};

use super::admission::{connection_limit, handshake_limit};
use super::tls::certificates;
use super::{ServerState, state};
use crate::control::{ControlId, Mode};
use crate::controls::INFOS;
use crate::controls::rate_limit::Store;
use crate::gateway::Gateway;
use crate::live::Handle;
use crate::operate::{self, rfc3339};
use crate::redis::{Health, State};
use crate::stack::{Inner, Live};

/// Everything about a server that an operator asks for, as JSON.
pub async fn status(handle: &Arc<Handle>) -> Value {
    let live = handle.live();
    let policy = &live.policy;
    let (env, now) = (policy.env(), policy.clock().now());
    let server = state(env);
    let not_ready = server.not_ready();
    let listeners: Vec<Value> = server
        .listeners
        .get()
        .into_iter()
        .flatten()
        .map(|(name, address)| json!({ "listener": name, "address": address.to_string() }))
        .collect();
    let certificates: Vec<Value> = certificates(env)
        .facts()
        .iter()
        .map(|fact| {
            json!({
                "source": &*fact.source,
                "names": fact.names,
                "not_after": rfc3339(fact.not_after),
                "expires_in_seconds": (fact.not_after.0 - now.0) / 1000,
                "valid": fact.is_valid(now),
            })
        })
        .collect();
    let upstream = match live.inner() {
        Inner::Proxy(gateway) => {
            json!({ "target": gateway.target().to_string(), "reachable": gateway.is_reachable().await })
        }
        Inner::Router(_) => json!({ "target": "router", "reachable": true }),
        Inner::Nothing => Value::Null,
    };
    let upstreams = upstreams(live.upstreams()).await;
    let (requests, refused, would_refuse) = policy.decisions().counts();
    let since = policy.decisions().latest().map(|facts| rfc3339(facts.since));
    let limit = connection_limit(&server, policy);
    let (in_progress, requests_limit) = in_progress(&server, policy);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "policy_hash": policy.hash(),
        "policy_files": handle.files(),
        "policy_since": since,
        "state": policy.state_dir(),
        "started": rfc3339(started(handle)),
        "uptime_seconds": server.uptime().as_secs(),
        "phase": server.phase().as_str(),
        "ready": not_ready.is_none(),
        "not_ready": not_ready,
        "mode": if env.is_development() { "development" } else { "production" },
        "listeners": listeners,
        "upstream": upstream,
        "upstreams": upstreams,
        "connections": { "open": server.connections(), "limit": limit },
        "in_progress": { "requests": in_progress, "limit": requests_limit, "descriptors": server.room.open() },
        "saturation": {
            "connections": share(server.connections(), limit),
            "handshakes": share(server.admission.handshakes(), handshake_limit(&server, policy)),
            "requests": share(in_progress, requests_limit),
        },
        "dependencies": dependencies(policy),
        "certificates": certificates,
        "modes": modes(&live),
        "overrides": operate::list(handle),
        "requests": { "seen": requests, "refused": refused, "would_refuse": would_refuse },
    })
}

/// What controls depend on besides applications, how it is, and what happens without it.
fn dependencies(policy: &crate::policy::Policy) -> Vec<Value> {
    let env = policy.env();
    let limits = &policy.config().rate_limit.config;
    let limits = (limits.store == Store::Redis)
        .then(|| json!({ "control": "rate_limit", "when_away": limits.when_away.as_str() }));
    let redis = env.redis.as_ref().map(|redis| dependency(redis.health(), limits.into_iter().collect()));
    let mail = crate::mail::post(env).health().map(|(health, counts)| {
        let used = json!({ "control": "auth", "when_away": crate::mail::WHEN_AWAY });
        let mut mail = dependency(&health, vec![used]);
        mail["mails"] = json!({
            "waiting": counts.waiting, "sent": counts.sent, "delayed": counts.delayed, "dropped": counts.dropped,
        });
        mail
    });
    redis.into_iter().chain(database(policy)).chain(mail).collect()
}

/// The database of accounts, as whoever follows its changes sees it.
fn database(policy: &crate::policy::Policy) -> Option<Value> {
    let auth = policy.controls().auth.control.as_ref()?;
    let identity = auth.identity();
    let (state, since, reason) = match identity.map(|identity| (identity.feed_state(), identity.feed_read_at())) {
        Some((FeedState::Fresh, _)) => ("up", None, None),
        Some((FeedState::Stale, read)) => ("away", Some(rfc3339(read)), Some("its changes could not be read")),
        _ => ("unknown", None, None),
    };
    Some(json!({
        "dependency": "database",
        "target": if policy.config().database.is_shared() { "postgresql" } else { "sqlite" },
        "state": state,
        "since": since,
        "reason": reason,
        "used_by": [{ "control": "auth", "when_away": auth.config().when_away.as_str() }],
    }))
}

fn dependency(health: &Health, used_by: Vec<Value>) -> Value {
    let (state, since) = health.state();
    let (state, reason) = match state {
        State::Unknown => ("unknown", None),
        State::Up => ("up", None),
        State::Away(away) => ("away", Some(away.why().to_owned())),
    };
    json!({
        "dependency": health.name(),
        "target": health.target(),
        "state": state,
        "since": rfc3339(since),
        "reason": reason,
        "used_by": used_by,
        "decided_without": health.decided_without(),
    })
}

/// The applications of `[upstreams.NAME]`, asked side by side: one that does not answer delays no other.
async fn upstreams(named: &[Arc<Gateway>]) -> Value {
    let asked = named.iter().map(|gateway| async move {
        let state = gateway.state().await;
        let reachable = state.is_ok();
        let one = json!({ "target": gateway.target().to_string(), "reachable": reachable, "reason": state.err() });
        (gateway.name().to_owned(), one)
    });
    Value::Object(futures_util::future::join_all(asked).await.into_iter().collect())
}

/// The mode of every control that judges: by default, and on routes that say otherwise. One that has nothing to judge by
/// (a WAF without rules) is off, whatever was written.
fn modes(live: &Live) -> Value {
    let policy = &live.policy;
    let judging = (0_u8..).map(ControlId).zip(INFOS).filter(|(_, info)| info.judges);
    let table = judging.map(|(control, info)| {
        let default = policy.written_mode(control, 0);
        let routes = policy.rules().iter().skip(1).filter(|rule| policy.written_mode(control, rule.id) != default);
        let routes: Vec<Value> = routes
            .map(|rule| json!({ "route": &*rule.label, "policy": &*rule.line, "mode": policy.written_mode(control, rule.id).as_str() }))
            .collect();
        let mode = if live.control(info.name).is_some() { default } else { Mode::Off };
        (info.name.to_owned(), json!({ "mode": mode.as_str(), "routes": routes }))
    });
    Value::Object(table.collect())
}

/// Requests in progress that need a descriptor, and how many there may be.
fn in_progress(server: &ServerState, policy: &crate::policy::Policy) -> (usize, usize) {
    (server.room.seated.load(Ordering::Relaxed), server.room.requests(policy.config().limits.config.requests()))
}

/// When the server started.
pub(crate) fn started(handle: &Handle) -> palisade_base::Timestamp {
    let live = handle.live();
    let uptime = i64::try_from(state(live.policy.env()).uptime().as_millis()).unwrap_or(i64::MAX);
    palisade_base::Timestamp(live.policy.clock().now().0.saturating_sub(uptime))
}

#[expect(clippy::cast_precision_loss, reason = "a share, for people")]
fn share(used: usize, limit: usize) -> f64 {
    used as f64 / limit.max(1) as f64
}

/// Brings the gauges up to date that nobody keeps while nobody looks.
pub(super) fn observe(handle: &Handle) {
    let live = handle.live();
    let env = live.policy.env();
    let (server, now) = (state(env), live.policy.clock().now());
    let limit = connection_limit(&server, &live.policy);
    let metrics = handle.metrics();
    metrics.saturation("connections", share(server.connections(), limit));
    metrics.saturation("handshakes", share(server.admission.handshakes(), handshake_limit(&server, &live.policy)));
    let (in_progress, requests_limit) = in_progress(&server, &live.policy);
    metrics.saturation("requests", share(in_progress, requests_limit));
    let mail = crate::mail::post(env).health();
    if let Some((_, counts)) = &mail {
        #[expect(clippy::cast_possible_truncation, reason = "a thousand at most")]
        metrics.saturation("mail", share(counts.waiting as usize, counts.room as usize));
    }
    // Unknown until the first mail: that counts as up, for nothing waits for it.
    metrics.dependency("mail", mail.map(|(health, _)| !matches!(health.state().0, State::Away(_))));
    metrics.dependency("redis", env.redis.as_ref().map(|redis| redis.health().is_up()));
    metrics.certificates(
        certificates(env).facts().iter().map(|fact| (Arc::clone(&fact.source), (fact.not_after.0 - now.0) / 1000)),
    );
}
