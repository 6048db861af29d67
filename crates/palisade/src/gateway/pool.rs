//! Idle connections to one application, kept apart for each thread, so that a request finds one of its own core.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use palisade_h1::client::{Connection, Recycle};
use parking_lot::Mutex;

use super::connect::Io;
use crate::server::seats::Seat;
use crate::shard;

const SHARDS: usize = 64;
/// Idle connections that a shard keeps; more are closed.
const MAX_IDLE: usize = 256;

/// Idle connections. The newest is taken first, so that the others can end.
#[derive(Debug)]
pub(super) struct Pool {
    shards: [Mutex<Shard>; SHARDS],
    idle_millis: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    idle: Vec<Idle>,
    /// A task looks after it: it ends what is due, also when no request comes any more.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection<Io>,
    since: Instant,
}

impl Default for Pool {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), idle_millis: AtomicU64::new(3_000) }
    }
}

impl Pool {
    pub(super) fn set_idle_timeout(&self, timeout: Duration) {
        self.idle_millis.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn place() -> usize {
        shard::of(SHARDS)
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.idle_millis.load(Ordering::Relaxed))
    }

    /// An idle connection that is still good.
    pub(super) fn take(&self) -> Option<Connection<Io>> {
        let longest = self.longest();
        let shard = &self.shards[Self::place()];
        loop {
            // In a `let` of its own: the guard must not live on while the connection is used.
            let idle = shard.lock().idle.pop();
            let mut idle = idle?;
            // The newest is on top: when it is too old, all below are.
            if idle.since.elapsed() >= longest {
                shard.lock().idle.clear();
                return None;
            }
            if idle.connection.is_reusable() {
                return Some(idle.connection);
            }
        }
    }

    fn put(self: &Arc<Self>, connection: Connection<Io>) {
        let longest = self.longest();
        let place = Self::place();
        let mut shard = self.shards[place].lock();
        // The oldest are at the front: they go when they are due, a few at a time.
        let due = shard.idle.iter().take(4).take_while(|idle| idle.since.elapsed() >= longest).count();
        shard.idle.drain(..due);
        if shard.idle.len() < MAX_IDLE {
            shard.idle.push(Idle { connection, since: Instant::now() });
        }
        if !std::mem::replace(&mut shard.swept, true) {
            drop(shard);
            tokio::spawn(sweep(Arc::downgrade(self), place));
        }
    }

    /// Closes all that nobody uses just now.
    pub(super) fn close_idle(&self) {
        for shard in &self.shards {
            let idle = std::mem::take(&mut shard.lock().idle);
            drop(idle);
        }
    }

    /// Ends what is due or was closed by the application; false once nothing is left to look after.
    fn sweep(&self, place: usize) -> bool {
        let longest = self.longest();
        let mut shard = self.shards[place].lock();
        shard.idle.retain_mut(|idle| idle.since.elapsed() < longest && idle.connection.is_reusable());
        shard.swept = !shard.idle.is_empty();
        shard.swept
    }
}

/// Looks after a shard until it is empty. Often enough that no connection lives a second longer than it should.
async fn sweep(pool: Weak<Pool>, place: usize) {
    loop {
        let Some(longest) = pool.upgrade().map(|pool| pool.longest()) else { return };
        tokio::time::sleep((longest / 4).clamp(Duration::from_millis(50), Duration::from_secs(1))).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep(place)) {
            return;
        }
    }
}

/// Brings a connection back to its pool, and the seat of its request with it.
#[derive(Debug)]
pub(crate) struct Return {
    pool: Arc<Pool>,
    _seat: Option<Seat>,
}

impl Return {
    pub(super) fn new(pool: Arc<Pool>, seat: Option<Seat>) -> Self {
        Self { pool, _seat: seat }
    }
}

impl Recycle<Io> for Return {
    fn recycle(self, connection: Connection<Io>) {
        self.pool.put(connection);
    }
}
