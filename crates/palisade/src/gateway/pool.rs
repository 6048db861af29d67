//! Idle connections to one application, kept apart for each thread, so that a request finds one of its own core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use palisade_h1::client::{Connection, Recycle};
use parking_lot::Mutex;

use super::connect::Io;
use crate::shard;

const SHARDS: usize = 64;
/// Idle connections that a shard keeps; more are closed.
const MAX_IDLE: usize = 256;

/// Idle connections. The newest is taken first, so that the others can end.
#[derive(Debug)]
pub(super) struct Pool {
    shards: [Mutex<Vec<Idle>>; SHARDS],
    idle_millis: AtomicU64,
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

    fn shard(&self) -> &Mutex<Vec<Idle>> {
        &self.shards[shard::of(SHARDS)]
    }

    /// An idle connection that is still good.
    pub(super) fn take(&self) -> Option<Connection<Io>> {
        let longest = Duration::from_millis(self.idle_millis.load(Ordering::Relaxed));
        loop {
            // In a `let` of its own: the guard must not live on while the connection is used.
            let idle = self.shard().lock().pop();
            let mut idle = idle?;
            // The newest is on top: when it is too old, all below are.
            if idle.since.elapsed() >= longest {
                self.shard().lock().clear();
                return None;
            }
            if idle.connection.is_reusable() {
                return Some(idle.connection);
            }
        }
    }

    fn put(&self, connection: Connection<Io>) {
        let longest = Duration::from_millis(self.idle_millis.load(Ordering::Relaxed));
        let mut shard = self.shard().lock();
        // The oldest are at the front: they go when they are due, a few at a time.
        let due = shard.iter().take(4).take_while(|idle| idle.since.elapsed() >= longest).count();
        shard.drain(..due);
        if shard.len() < MAX_IDLE {
            shard.push(Idle { connection, since: Instant::now() });
        }
    }
}

/// Brings a connection back to its pool.
#[derive(Debug)]
pub(crate) struct Return(Arc<Pool>);

impl Return {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self(pool)
    }
}

impl Recycle<Io> for Return {
    fn recycle(self, connection: Connection<Io>) {
        self.0.put(connection);
    }
}
