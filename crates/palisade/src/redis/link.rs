//! One connection to Redis, shared by the requests of one I/O thread, and made anew in the background when it is lost.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Away;
use super::client::Shared;

/// Between attempts to connect; doubled up to the second.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived shorter than this is not made anew at once: something else than the connection is wrong.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// One connection, or what is known instead.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: Mutex<State>,
    changed: Notify,
    /// Connections so far.
    numbers: AtomicU64,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked for it yet.
    #[default]
    New,
    /// It is made, and nothing says that it cannot be: whoever comes waits for that.
    First(AbortHandle),
    /// It is there.
    Up(Line),
    /// It is not, and is made anew by this task.
    Away(Away, AbortHandle),
}

/// A connection that is there.
#[derive(Debug)]
struct Line {
    connection: MultiplexedConnection,
    /// Which one of this link's it is: an error of an earlier one says nothing about it.
    number: u64,
    since: Instant,
    driver: Driver,
}

/// What reads and writes. Ended with the connection: a server that never answers would keep it for ever.
#[derive(Debug)]
pub(super) struct Driver(pub(super) AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// The connection, with its number. Waits while it is made, and not where that failed; the caller holds the deadline.
    pub(super) async fn connection(
        &self,
        of: &Weak<Shared>,
        place: usize,
    ) -> Result<(MultiplexedConnection, u64), Away> {
        loop {
            if let Some(known) = self.known(of, place) {
                return known;
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the second look, or a change between the two would be missed.
            changed.as_mut().enable();
            if let Some(known) = self.known(of, place) {
                return known;
            }
            changed.await;
        }
    }

    /// `None`: it is being made.
    fn known(&self, of: &Weak<Shared>, place: usize) -> Option<Result<(MultiplexedConnection, u64), Away>> {
        let mut state = self.state.lock();
        match &*state {
            // Closed by the server while nobody used it, as servers and networks do with idle ones: made anew before
            // anything is said on it.
            State::Up(line) if line.driver.0.is_finished() => {
                *state = State::First(self.spawn(of, place, Duration::ZERO));
                None
            }
            State::Up(line) => Some(Ok((line.connection.clone(), line.number))),
            State::Away(why, task) => {
                let why = why.clone();
                // The runtime that was trying has ended (a library's caller may have several).
                if task.is_finished() {
                    *state = State::Away(why.clone(), self.spawn(of, place, Duration::ZERO));
                }
                Some(Err(why))
            }
            State::First(task) if !task.is_finished() => None,
            State::First(_) | State::New => {
                *state = State::First(self.spawn(of, place, Duration::ZERO));
                None
            }
        }
    }

    /// A connection did not answer: it is given up and made anew, unless that has happened already.
    pub(super) fn lost(&self, of: &Weak<Shared>, place: usize, number: u64, why: &Away) {
        let mut state = self.state.lock();
        if let State::Up(line) = &*state
            && line.number == number
        {
            let pause = if line.since.elapsed() < SHORT_LIVED { PAUSE } else { Duration::ZERO };
            *state = State::Away(why.clone(), self.spawn(of, place, pause));
        }
    }

    fn made(&self, connection: MultiplexedConnection, driver: Driver, number: u64) {
        *self.state.lock() = State::Up(Line { connection, number, since: Instant::now(), driver });
        self.changed.notify_waiters();
    }

    fn failed(&self, why: Away) {
        let mut state = self.state.lock();
        let task = match std::mem::take(&mut *state) {
            State::First(task) | State::Away(_, task) => task,
            other @ (State::New | State::Up(_)) => {
                *state = other;
                return;
            }
        };
        *state = State::Away(why, task);
        drop(state);
        self.changed.notify_waiters();
    }

    fn spawn(&self, of: &Weak<Shared>, place: usize, pause: Duration) -> AbortHandle {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connect(of.clone(), place, number, pause)).abort_handle()
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.lock(), State::Up(line) if !line.driver.0.is_finished())
    }
}

/// Connects until it succeeds or nobody needs it any more.
async fn connect(of: Weak<Shared>, place: usize, number: u64, mut pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        let Some(shared) = of.upgrade() else { return };
        let Some(link) = shared.links.get(place) else { return };
        match shared.connect().await {
            Ok((connection, driver)) => {
                shared.health.good();
                return link.made(connection, driver, number);
            }
            Err(why) => {
                shared.health.bad(&why);
                link.failed(why);
            }
        }
    }
}
