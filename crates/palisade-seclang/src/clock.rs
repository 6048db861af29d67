//! Time, handed in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the engine takes time from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Time since some fixed moment; never goes back. Read for the budget of a transaction.
    fn monotonic(&self) -> Duration;

    /// Seconds since 1970, for the `TIME` variables and for collections that expire.
    fn epoch(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// Counts from now.
    pub fn new() -> SystemClock {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn epoch(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}
