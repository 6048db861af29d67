//! How the supervised application is doing, as requests on their way to it want to know.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a request waits for an application that starts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A restart that is due within this time is waited for.
const SOON: Duration = Duration::from_secs(3);
/// Requests that may wait at once.
const MAX_WAITING: usize = 1_000;

/// How the application is doing. Lives as long as the server, whatever policies come.
#[derive(Debug)]
pub(crate) struct AppStatus {
    phase: Mutex<Phase>,
    waiting: AtomicUsize,
    owner: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    Down { restart: Instant },
    Stopped,
}

/// What a request does that found nobody listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Look again in a moment.
    Wait,
    /// It should answer: try to connect.
    Try,
    /// Not worth waiting: come back after so many seconds.
    GiveUp(u64),
}

/// A request's place among those that wait.
#[derive(Debug)]
pub(crate) struct Waiting<'s>(&'s AppStatus);

impl Default for AppStatus {
    fn default() -> Self {
        Self {
            phase: Mutex::new(Phase::Starting),
            waiting: AtomicUsize::new(0),
            owner: AtomicU32::new(nix::unistd::geteuid().as_raw()),
        }
    }
}

impl AppStatus {
    /// The user that owns the application's socket.
    pub(crate) fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    pub(crate) fn set_owner(&self, uid: u32) {
        self.owner.store(uid, Ordering::Relaxed);
    }

    pub(super) fn starting(&self) {
        *self.phase.lock() = Phase::Starting;
    }

    pub(super) fn up(&self) {
        *self.phase.lock() = Phase::Up;
    }

    pub(super) fn down(&self, restart: Instant) {
        *self.phase.lock() = Phase::Down { restart };
    }

    pub(super) fn stopped(&self) {
        *self.phase.lock() = Phase::Stopped;
    }

    /// Takes a place among the requests that wait, unless there are too many.
    pub(crate) fn queue(&self) -> Option<Waiting<'_>> {
        let place = Waiting(self);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(place)
    }

    /// What a request does that has waited so long already.
    pub(crate) fn patience(&self, waited: Duration) -> Patience {
        let phase = *self.phase.lock();
        match phase {
            Phase::Up => Patience::Try,
            Phase::Starting if waited < LONGEST_WAIT => Patience::Wait,
            Phase::Starting => Patience::GiveUp(5),
            Phase::Down { restart } => match restart.saturating_duration_since(Instant::now()) {
                left if left <= SOON && waited < LONGEST_WAIT => Patience::Wait,
                left => Patience::GiveUp(left.as_secs() + 1),
            },
            Phase::Stopped => Patience::GiveUp(1),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_a_start_and_for_a_restart_that_is_near() {
        let status = AppStatus::default();
        assert_eq!(status.patience(Duration::ZERO), Patience::Wait);
        assert_eq!(status.patience(LONGEST_WAIT), Patience::GiveUp(5));
        status.up();
        assert_eq!(status.patience(LONGEST_WAIT), Patience::Try);
        status.down(Instant::now() + Duration::from_millis(200));
        assert_eq!(status.patience(Duration::ZERO), Patience::Wait);
        status.down(Instant::now() + Duration::from_millis(12_500));
        assert_eq!(status.patience(Duration::ZERO), Patience::GiveUp(13));
        status.stopped();
        assert_eq!(status.patience(Duration::ZERO), Patience::GiveUp(1));
    }

    #[test]
    fn only_so_many_wait() {
        let status = AppStatus::default();
        let places: Vec<_> = (0..MAX_WAITING).map(|_| status.queue().unwrap()).collect();
        assert!(status.queue().is_none());
        assert!(status.queue().is_none(), "one that was turned away has given its place back");
        drop(places);
        assert!(status.queue().is_some());
    }
}
