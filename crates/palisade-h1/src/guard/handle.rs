//! What the service of a connection and its guard tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use crate::Violation;

/// The service's side of a guard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

// Sequentially consistent throughout: two of these are looked at together, a request touches them a handful of times, and
// a connection is nearly always on one thread.
const ORDER: Ordering = Ordering::SeqCst;

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Heads that the guard let pass.
    passed: AtomicU64,
    /// Requests that reached the service, and those whose answer is over.
    begun: AtomicU64,
    ended: AtomicU64,
    /// A head has begun to arrive.
    partial: AtomicBool,
    /// Bytes were written since the last request began.
    answering: AtomicBool,
    tunnel: AtomicBool,
    /// Nothing has happened for a while, and the server holds nothing.
    parkable: AtomicBool,
    violation: OnceLock<Violation>,
    /// The guard waits for an answer to be over. Only ever set in rare cases.
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Handle {
    /// To be called for every request that the service gets, at once. The token goes into the answer's body, or wherever
    /// it is dropped only when the answer is over.
    ///
    /// Without it the guard believes that the request is still being answered: no idle time-out, and no answer of its own.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.shared.answering.store(false, ORDER);
        self.shared.begun.fetch_add(1, ORDER);
        InFlight { shared: Arc::clone(&self.shared) }
    }

    /// From here on the bytes of the client are not HTTP. To be called before the answer that opens the tunnel (101, or a
    /// 2xx to CONNECT) is returned.
    pub fn open_tunnel(&self) {
        self.shared.tunnel.store(true, ORDER);
        self.shared.wake();
    }

    /// Whether the connection is between requests: none is being answered, none has begun to arrive. A drain may close it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.shared.partial.load(ORDER)
            && !self.shared.is_busy(self.shared.passed.load(ORDER))
            && !self.shared.is_tunnel()
    }

    /// Whether the connection has been between requests for [`park_after`](super::Config::park_after), with nothing left to
    /// write: its server may be taken down. To be asked after the server was polled.
    #[must_use]
    pub fn may_park(&self) -> bool {
        self.shared.is_parkable()
    }

    /// What the connection was refused for.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.shared.violation.get().copied()
    }
}

/// A request is being answered.
#[derive(Debug)]
pub struct InFlight {
    shared: Arc<Shared>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.ended.fetch_add(1, ORDER);
        if self.shared.waiting.load(ORDER) {
            self.shared.wake();
        }
    }
}

impl Shared {
    pub(super) fn set_passed(&self, passed: u64) {
        self.passed.store(passed, ORDER);
    }

    pub(super) fn is_parkable(&self) -> bool {
        self.parkable.load(ORDER)
    }

    pub(super) fn set_parkable(&self, parkable: bool) {
        self.parkable.store(parkable, ORDER);
    }

    pub(super) fn set_partial(&self, partial: bool) {
        self.partial.store(partial, ORDER);
    }

    pub(super) fn set_violation(&self, violation: Violation) {
        let _ = self.violation.set(violation);
    }

    /// Whether one of the first `passed` requests is not answered.
    pub(super) fn is_busy(&self, passed: u64) -> bool {
        self.ended.load(ORDER) < passed
    }

    /// Whether the last of the first `passed` requests has reached the service, and the ones before it are answered.
    pub(super) fn is_last_in_service(&self, passed: u64) -> bool {
        self.begun.load(ORDER) == passed && self.ended.load(ORDER) + 1 == passed
    }

    pub(super) fn note_write(&self) {
        if !self.answering.load(ORDER) {
            self.answering.store(true, ORDER);
        }
    }

    pub(super) fn has_answer_begun(&self) -> bool {
        self.answering.load(ORDER)
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(ORDER)
    }

    /// Asks for a wake-up when an answer is over. What it waits for must be looked at again afterwards.
    pub(super) fn wait(&self, waker: &Waker) {
        let mut waiting = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.as_ref().is_some_and(|it| it.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
        drop(waiting);
        self.waiting.store(true, ORDER);
    }

    pub(super) fn wake(&self) {
        // In this order: who waits in between is woken once for nothing, never not at all.
        self.waiting.store(false, ORDER);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
