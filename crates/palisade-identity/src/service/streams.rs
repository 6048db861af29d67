//! For whoever holds a connection open longer than a request: what changes.
//!
//! Threats 38: a stream that was opened before a revocation must not outlive it. Whether a caller is still one says
//! [`still`](Identity::still).

use palisade_store::changes::Change;
use tokio::sync::broadcast;

use super::Identity;

/// Changes that wait for a slow listener.
pub(super) const WAITING: usize = 1024;

/// A change that this process has applied to what it remembers.
#[derive(Debug, Clone)]
pub struct Told {
    /// What changed.
    pub change: Change,
    /// Whether this process made it: then others are to be nudged. What it reads from the feed, its own changes among
    /// them, comes with `false`.
    pub own: bool,
}

impl Identity {
    /// Hears of every change from now on, once it is applied. Who lags behind by more than a thousand has to assume that
    /// anything changed.
    pub fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.shared.told.subscribe()
    }
}
