//! What is looked after while the server runs: files that change, certificates that end, what `/ready` waits for, the
//! service manager's watchdog, and orphans that a process number 1 inherits.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_policy::Snapshot;
use tokio::time::Instant;

use super::tls::certificates;
use super::watch::Watched;
use super::{Phase, descriptors, notify, state};
use crate::live::Handle;
use crate::observe::event;
use crate::policy::config::ReadyNeed;
use crate::stack::Inner;

const INTERVAL: Duration = Duration::from_millis(500);
/// Several files that change together are one change: certificate and key, or files that an editor writes in turn.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_LOOKS: usize = 10;

/// Looks after a server until it has ended.
pub(super) async fn keep(handle: Arc<Handle>) {
    let server = state(handle.live().policy.env());
    let mut watch = Watch::new(&handle);
    let (mut orphans, watchdog) = (HashSet::new(), notify::watchdog());
    let mut fed = Instant::now();
    let is_init = std::process::id() == 1;
    let ended = server.reached(Phase::Ended);
    tokio::pin!(ended);
    loop {
        ready(&handle).await;
        if is_init {
            reap(&mut orphans);
        }
        if let Some(every) = watchdog.filter(|every| fed.elapsed() + INTERVAL >= *every) {
            let _ = every;
            notify::send(notify::WATCHDOG);
            fed = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(watchdog.map_or(INTERVAL, |every| every.min(INTERVAL))) => {}
            () = &mut ended => return,
        }
        // A server that leaves ends under the policy it has.
        if server.phase() == Phase::Serving {
            watch.look(&handle).await;
        }
    }
}

/// Asks what controls depend on how it is, so that this is known also where no request needs it.
pub(super) async fn look(handle: Arc<Handle>) {
    let server = state(handle.live().policy.env());
    let ended = server.reached(Phase::Ended);
    tokio::pin!(ended);
    loop {
        let redis = handle.live().policy.env().redis.clone();
        if let Some(redis) = redis {
            // Within its own deadline.
            redis.look().await;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut ended => return,
        }
    }
}

/// Reads everything again, and tells the service manager. False: the policy was refused, and nothing has changed.
pub(super) async fn reload(handle: &Arc<Handle>) -> bool {
    notify::reloading();
    let for_reload = Arc::clone(handle);
    // Reads files and compiles patterns: not on a thread that answers.
    let reloaded = tokio::task::spawn_blocking(move || for_reload.reload().is_ok()).await.unwrap_or(false);
    if reloaded {
        descriptors::provide_again(handle);
    }
    notify::send(notify::READY);
    reloaded
}

struct Watch {
    policy: Watched,
    tls: Watched,
    /// Authorities and certificates of `https:` upstreams, and rules of the WAF: part of the policy, though not of its text.
    named: Watched,
}

impl Watch {
    fn new(handle: &Handle) -> Self {
        let live = handle.live();
        let pairs = live.policy.config().tls.pairs();
        let tls: Vec<PathBuf> = pairs.flat_map(|(cert, key)| [cert.to_owned(), key.to_owned()]).collect();
        let redis = &live.policy.config().redis;
        let redis = [&redis.ca, &redis.client_cert, &redis.client_key];
        let named = crate::policy::upstreams(live.policy.config())
            .flat_map(|(_, upstream)| [&upstream.ca, &upstream.client_cert, &upstream.client_key])
            .chain(redis)
            .filter_map(Clone::clone)
            .chain(crate::controls::waf::files(live.policy.env()))
            .chain(crate::policy::mail::files(&live.policy.config().mail))
            .collect();
        Self {
            policy: Watched::with_folders(handle.snapshot().files()),
            tls: Watched::look(tls),
            named: Watched::look(named),
        }
    }

    fn again(&self) -> Self {
        Self { policy: self.policy.again(), tls: self.tls.again(), named: self.named.again() }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.policy == other.policy && self.tls == other.tls && self.named == other.named
    }

    async fn look(&mut self, handle: &Arc<Handle>) {
        let mut now = self.again();
        let renew = certificates(handle.live().policy.env()).wants_renewal(handle.live().policy.clock().now());
        if self.is_like(&now) && !renew {
            return;
        }
        for _ in 0..SETTLE_LOOKS {
            tokio::time::sleep(SETTLE).await;
            let later = self.again();
            if std::mem::replace(&mut now, later).is_like(&now) {
                break;
            }
        }
        let (policy, mut tls) = (self.policy != now.policy, self.tls != now.tls || renew);
        let named = self.named != now.named;
        // What was seen is settled whatever comes of it: a broken file is reported once.
        *self = now;
        if named || (policy && has_new_text(handle).await) {
            // A policy that is refused takes no certificates with it: the one in force goes on with today's.
            tls &= !reload(handle).await;
            // Other files may belong to the policy now. What changed meanwhile is seen at the next look, since this one
            // came from before.
            let fresh = Self::new(handle);
            let same = fresh.policy.is_same_set(&self.policy) && fresh.tls.is_same_set(&self.tls);
            if !same || !fresh.named.is_same_set(&self.named) {
                *self = fresh;
            }
        }
        if tls {
            let for_reload = Arc::clone(handle);
            let outcome = tokio::task::spawn_blocking(move || for_reload.reload_certificates()).await;
            if let Ok(Err(error)) = outcome {
                event::CERTIFICATE_REJECTED.line(handle.log()).show("reason", error);
            }
        }
    }
}

/// Whether the texts differ from those in force: a file that was only touched, or another one in its folder, changes
/// nothing.
async fn has_new_text(handle: &Arc<Handle>) -> bool {
    let handle = Arc::clone(handle);
    let read = move || Snapshot::read(handle.sources()).map_or(true, |new| new.hash() != handle.snapshot().hash());
    tokio::task::spawn_blocking(read).await.unwrap_or(true)
}

/// What `/ready` cannot find out by itself when it is asked.
async fn ready(handle: &Handle) {
    let live = handle.live();
    let env = live.policy.env();
    let server = state(env);
    let valid = certificates(env).are_valid(env.clock.now());
    let mut needs = true;
    for need in &env.server.ready_needs {
        match (need, live.inner()) {
            (ReadyNeed::Upstream, Inner::Proxy(gateway)) => {
                needs &= tokio::time::timeout(INTERVAL, gateway.is_reachable()).await.unwrap_or(false);
            }
            // Other applications are other services: one of them that is away takes this instance out for none.
            (ReadyNeed::Upstream, Inner::Nothing) => needs &= !live.upstreams().is_empty(),
            (ReadyNeed::Upstream, Inner::Router(_)) => {}
        }
    }
    server.certificates.store(valid, Ordering::Relaxed);
    server.needs.store(needs, Ordering::Relaxed);
}

/// Ends orphans that became ours because this is process number 1. Only those that were dead at the look before too:
/// children of our own are waited for by whoever started them, and taking their exit status away would hide it.
fn reap(seen: &mut HashSet<i32>) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let mut dead = HashSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything, a parenthesis too.
        let mut after = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        if after.next() == Some("Z") && after.next() == Some("1") {
            if seen.contains(&id) {
                let _ = waitpid(nix::unistd::Pid::from_raw(id), Some(WaitPidFlag::WNOHANG));
            } else {
                dead.insert(id);
            }
        }
    }
    *seen = dead;
}
