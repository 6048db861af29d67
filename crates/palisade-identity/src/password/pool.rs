//! How much hashing is done at a time, and for whom first.
//!
//! A login storm must neither slow down other routes nor fill the memory, and must not keep out who is known. So: a fixed
//! number of threads, a limit on the memory of all hashes that run, a queue with an end; the queue goes round the
//! addresses, so that one that sends many waits behind its own; and accounts on devices they logged in from before have
//! seats of their own, which strangers cannot take.
//!
//! The pool is synchronous. An async caller submits work that answers through a channel; when it is dropped unrun
//! (too old, shutdown), so is the channel.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use palisade_base::Clock;
use parking_lot::{Condvar, Mutex};

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads, and so hashes at a time.
    pub threads: usize,
    /// Bytes that all hashes at a time may hold.
    pub memory: u64,
    /// Jobs that wait, of strangers.
    pub queue: usize,
    /// Jobs that wait, of accounts on known devices.
    pub known_queue: usize,
    /// Jobs of one address that wait.
    pub per_address: usize,
    /// Jobs of one account that wait or run, strangers and known devices each.
    pub per_account: usize,
    /// A job that waited longer is dropped: who sent it has given up.
    pub max_wait: Duration,
}

impl Default for Limits {
    /// Half of the processors, 64 MiB a thread but room for the costliest foreign hash, and a queue that two threads
    /// work off in about five seconds.
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        Self {
            threads,
            memory: (threads as u64 * (64 << 20)).max(257 << 20),
            queue: 128,
            known_queue: 64,
            per_address: 16,
            per_account: 2,
            max_wait: Duration::from_secs(10),
        }
    }
}

/// Who a job is for. The numbers are hashes of whatever names an address (its /64 or /48) and an account.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The address.
    pub address: u64,
    /// The account, also one that does not exist.
    pub account: u64,
    /// Whether this account was used on this device before.
    pub known: bool,
}

/// Why a job was not taken. 503 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shed {
    /// The queue, the address or the account has no seat left.
    #[error("too many logins wait already")]
    Full {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The job alone would need more memory than there is for all.
    #[error("the hash needs more memory than the pool has")]
    TooLarge,
    /// It waited too long and was dropped, it panicked, or the pool is shutting down.
    #[error("the hash was given up")]
    Dropped,
}

/// What a pool is doing, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Bytes of the jobs that run.
    pub memory: u64,
    /// Jobs refused or dropped since the start.
    pub shed: u64,
}

/// Threads that hash.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    strangers: Queue,
    known: Queue,
    /// Whose turn it is when both wait.
    known_next: bool,
    /// Jobs of an account that wait or run.
    accounts: HashMap<(u64, bool), usize>,
    running: usize,
    memory: u64,
    shed: u64,
    /// Jobs that were taken, and the bytes that they asked for.
    taken: (u64, u64),
    /// How long a job takes, smoothed, in microseconds.
    usual_us: u64,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("running", &self.running).finish_non_exhaustive()
    }
}

struct Job {
    asker: Asker,
    memory: u64,
    since: Instant,
    work: Box<dyn FnOnce() -> Answer + Send>,
}

/// Tells who waits. Once the seat is free: whoever has an answer can ask again at once.
type Answer = Box<dyn FnOnce() + Send>;

/// A queue that goes round the addresses.
#[derive(Default)]
struct Queue {
    ring: VecDeque<u64>,
    by_address: HashMap<u64, VecDeque<Job>>,
    waiting: usize,
}

impl Queue {
    fn of(&self, address: u64) -> usize {
        self.by_address.get(&address).map_or(0, VecDeque::len)
    }

    fn push(&mut self, job: Job) {
        let jobs = self.by_address.entry(job.asker.address).or_default();
        if jobs.is_empty() {
            self.ring.push_back(job.asker.address);
        }
        jobs.push_back(job);
        self.waiting += 1;
    }

    fn peek(&self) -> Option<&Job> {
        self.by_address.get(self.ring.front()?)?.front()
    }

    fn pop(&mut self) -> Option<Job> {
        let address = self.ring.pop_front()?;
        let jobs = self.by_address.get_mut(&address)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.by_address.remove(&address);
        } else {
            self.ring.push_back(address);
        }
        self.waiting -= 1;
        Some(job)
    }
}

impl State {
    /// Which queue is next: in turn, when both wait.
    fn next_is_known(&self) -> Option<bool> {
        match (self.known.waiting > 0, self.strangers.waiting > 0) {
            (false, false) => None,
            (true, true) => Some(self.known_next),
            (known, _) => Some(known),
        }
    }

    fn queue(&mut self, known: bool) -> &mut Queue {
        if known { &mut self.known } else { &mut self.strangers }
    }

    fn leave(&mut self, asker: Asker) {
        if let Some(count) = self.accounts.get_mut(&(asker.account, asker.known)) {
            *count -= 1;
            if *count == 0 {
                self.accounts.remove(&(asker.account, asker.known));
            }
        }
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(limits: Limits, clock: Clock) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { limits, clock, state: Mutex::default(), changed: Condvar::new() });
        let mut pool = Self { shared, threads: Vec::new() };
        for _ in 0..limits.threads.max(1) {
            let shared = pool.shared.clone();
            // On an error the threads so far are stopped by `Drop`.
            pool.threads.push(thread::Builder::new().name("palisade-hash".into()).spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Takes a job that holds `memory` bytes while it runs. Returns at once; `answer` is called when it is done.
    ///
    /// # Errors
    /// [`Shed`]: nothing was queued.
    pub fn submit<T: Send + 'static>(
        &self,
        asker: Asker,
        memory: u64,
        work: impl FnOnce() -> T + Send + 'static,
        answer: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), Shed> {
        let limits = &self.shared.limits;
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(Shed::Dropped);
        }
        let verdict = if memory > limits.memory {
            Err(Shed::TooLarge)
        } else {
            let seats = if asker.known { limits.known_queue } else { limits.queue };
            let queue = if asker.known { &state.known } else { &state.strangers };
            let of_account = state.accounts.get(&(asker.account, asker.known)).copied().unwrap_or(0);
            let full = queue.waiting >= seats
                || queue.of(asker.address) >= limits.per_address
                || of_account >= limits.per_account;
            if full { Err(Shed::Full { retry_after: self.retry_after(&state) }) } else { Ok(()) }
        };
        if verdict.is_err() {
            state.shed += 1;
            return verdict;
        }
        *state.accounts.entry((asker.account, asker.known)).or_default() += 1;
        state.taken = (state.taken.0 + 1, state.taken.1.saturating_add(memory));
        let work = Box::new(move || {
            let done = work();
            Box::new(move || answer(done)) as Answer
        });
        let job = Job { asker, memory, since: self.shared.clock.instant(), work };
        state.queue(asker.known).push(job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Runs a job and waits for its result: for commands and threads that may block, not for async tasks.
    ///
    /// # Errors
    /// [`Shed`].
    pub fn run<T: Send + 'static>(
        &self,
        asker: Asker,
        memory: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Shed> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The receiver waits until the sender is gone, so this cannot fail while anyone listens.
        self.submit(asker, memory, work, move |done| drop(sender.send(done)))?;
        receiver.recv().map_err(|_| Shed::Dropped)
    }

    /// What it is doing.
    pub fn load(&self) -> Load {
        let state = self.shared.state.lock();
        let waiting = state.strangers.waiting + state.known.waiting;
        Load { running: state.running, waiting, memory: state.memory, shed: state.shed }
    }

    /// How many jobs were taken since the start, and how many bytes they asked for in all.
    pub fn taken(&self) -> (u64, u64) {
        self.shared.state.lock().taken
    }

    /// The time in which half of what waits will be done, in whole seconds from 1 to 30.
    fn retry_after(&self, state: &State) -> Duration {
        let waiting = (state.strangers.waiting + state.known.waiting) as u64;
        let us = waiting * state.usual_us / 2 / self.shared.limits.threads.max(1) as u64;
        Duration::from_secs(us.div_ceil(1_000_000).clamp(1, 30))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let dropped = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.known), std::mem::take(&mut state.strangers))
        };
        self.shared.changed.notify_all();
        // What was dropped may wake who waited for it; not under the lock.
        drop(dropped);
        for thread in self.threads.drain(..) {
            // A job that ends its own pool cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            let begin = self.clock.instant();
            let Job { asker, memory, work, .. } = job;
            // A panic is the end of its job only; whoever waits sees its channel closed.
            let done = catch_unwind(AssertUnwindSafe(work));
            let us = u64::try_from(self.clock.instant().duration_since(begin).as_micros()).unwrap_or(u64::MAX);
            let mut state = self.state.lock();
            state.usual_us = if state.usual_us == 0 { us } else { state.usual_us / 8 * 7 + us / 8 };
            state.running -= 1;
            state.memory -= memory;
            state.leave(asker);
            drop(state);
            // Memory came free, which may be what all others wait for.
            self.changed.notify_all();
            if let Ok(answer) = done {
                let _ = catch_unwind(AssertUnwindSafe(answer));
            }
        }
    }

    /// Waits for a job for which there is memory. `None`: the pool is closed.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let Some(known) = state.next_is_known() else {
                self.changed.wait(&mut state);
                continue;
            };
            let oldest = state.queue(known).peek().map(|job| (job.memory, job.since));
            let too_old = |since| self.clock.instant().saturating_duration_since(since) > self.limits.max_wait;
            match oldest {
                Some((_, since)) if too_old(since) => {
                    let job = state.queue(known).pop();
                    if let Some(job) = &job {
                        state.leave(job.asker);
                        state.shed += 1;
                    }
                    parking_lot::MutexGuard::unlocked(&mut state, || drop(job));
                }
                Some((memory, _)) if state.memory + memory <= self.limits.memory => {
                    let job = state.queue(known).pop()?;
                    state.known_next = !known;
                    state.running += 1;
                    state.memory += memory;
                    return Some(job);
                }
                // It is next, and stays so: a large job is not starved by small ones.
                _ => self.changed.wait(&mut state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const LIMITS: Limits = Limits {
        threads: 1,
        memory: 100,
        queue: 8,
        known_queue: 2,
        per_address: 4,
        per_account: 2,
        max_wait: Duration::from_secs(3600),
    };

    fn asker(address: u64, account: u64, known: bool) -> Asker {
        Asker { address, account, known }
    }

    /// Until nothing waits or runs.
    fn settle(pool: &Pool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while pool.load().waiting + pool.load().running > 0 {
            assert!(pool.load().memory <= pool.shared.limits.memory);
            assert!(Instant::now() < deadline, "the pool does not settle: {:?}", pool.load());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A pool whose one thread is held until `open` is called, and the order in which jobs then ran.
    struct Held {
        pool: Pool,
        gate: Arc<Barrier>,
        order: Arc<Mutex<Vec<u64>>>,
    }

    impl Held {
        fn new(limits: Limits, clock: &Clock) -> Self {
            let pool = Pool::new(limits, clock.clone()).expect("threads");
            let gate = Arc::new(Barrier::new(2));
            let held = gate.clone();
            let job = move || {
                held.wait();
                held.wait();
            };
            pool.submit(asker(999, 999, false), 0, job, |()| ()).expect("a free pool");
            gate.wait();
            Self { pool, gate, order: Arc::default() }
        }

        fn submit(&self, name: u64, asker: Asker) -> Result<(), Shed> {
            let order = self.order.clone();
            self.pool.submit(asker, 10, move || order.lock().push(name), |()| ())
        }

        fn open(self) -> Vec<u64> {
            self.gate.wait();
            settle(&self.pool);
            drop(self.pool);
            Arc::try_unwrap(self.order).expect("all jobs are done").into_inner()
        }
    }

    #[test]
    fn goes_round_the_addresses() {
        let held = Held::new(LIMITS, &Clock::real());
        for (name, address) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3), (7, 2)] {
            held.submit(name, asker(address, name, false)).expect("a seat");
        }
        assert_eq!(held.open(), [1, 5, 6, 2, 7, 3, 4]);
    }

    #[test]
    fn a_storm_leaves_seats_for_the_known() {
        let held = Held::new(LIMITS, &Clock::real());
        let mut refused = 0;
        for name in 0..100 {
            // Of the same account as the owner below, from many addresses.
            refused += u32::from(held.submit(name, asker(name, name % 50, false)).is_err());
        }
        assert_eq!((refused, held.pool.load().shed), (92, 92));
        held.submit(1000, asker(7, 1, true)).expect("a seat of its own");
        let order = held.open();
        assert!(order.iter().position(|name| *name == 1000).expect("ran") <= 1, "{order:?}");
    }

    #[test]
    fn one_address_and_one_account_have_limits() {
        let held = Held::new(LIMITS, &Clock::real());
        for name in 0..4 {
            held.submit(name, asker(1, name, false)).expect("a seat");
        }
        assert!(matches!(held.submit(4, asker(1, 4, false)), Err(Shed::Full { .. })), "the address");
        held.submit(5, asker(2, 77, false)).expect("a seat");
        held.submit(6, asker(3, 77, false)).expect("a seat");
        assert!(matches!(held.submit(7, asker(4, 77, false)), Err(Shed::Full { .. })), "the account");
        held.submit(8, asker(4, 77, true)).expect("the known device has its own count");
        assert_eq!(held.open().len(), 7);
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let clock = Clock::adjustable();
        let held = Held::new(LIMITS, &clock);
        held.submit(1, asker(1, 1, false)).expect("a seat");
        clock.advance(Duration::from_secs(3601));
        held.submit(2, asker(2, 2, false)).expect("a seat");
        assert_eq!(held.open(), [2]);
    }

    #[test]
    fn memory_is_a_limit_of_its_own() {
        let pool = Pool::new(Limits { threads: 8, ..LIMITS }, Clock::real()).expect("threads");
        assert_eq!(pool.submit(asker(1, 1, false), 101, || (), |()| ()), Err(Shed::TooLarge));
        // Two fit. They hold until both run, so that a third would meet them.
        let (running, most, pair) = (Arc::new(Mutex::new(0_u32)), Arc::new(Mutex::new(0)), Arc::new(Barrier::new(2)));
        for name in 0..8 {
            let (running, most, pair) = (running.clone(), most.clone(), pair.clone());
            let job = move || {
                let now = {
                    let mut running = running.lock();
                    *running += 1;
                    *running
                };
                let mut most = most.lock();
                *most = now.max(*most);
                drop(most);
                pair.wait();
                *running.lock() -= 1;
            };
            pool.submit(asker(name, name, false), 40, job, |()| ()).expect("a seat");
        }
        settle(&pool);
        assert_eq!(*most.lock(), 2);
        assert_eq!(pool.load(), Load::default().with_shed(1));
    }

    impl Load {
        fn with_shed(self, shed: u64) -> Self {
            Self { shed, ..self }
        }
    }

    #[test]
    fn a_panic_costs_one_job_and_results_come_back() {
        let pool = Pool::new(LIMITS, Clock::real()).expect("threads");
        let who = asker(1, 1, false);
        assert_eq!(pool.run(who, 1, || panic!("a test")), Err::<(), _>(Shed::Dropped));
        assert_eq!(pool.run(who, 1, || 7), Ok(7));
        assert_eq!(pool.run(who, 1, || 8), Ok(8));
        settle(&pool);
        assert_eq!(pool.load(), Load::default());
    }

    #[test]
    fn who_has_an_answer_has_left_the_seat() {
        let pool = Pool::new(Limits { per_account: 1, ..LIMITS }, Clock::real()).expect("threads");
        for round in 0..2000 {
            assert_eq!(pool.run(asker(1, 1, false), 1, move || round), Ok(round), "nobody else asks");
        }
    }

    #[test]
    fn shutdown_drops_what_waits() {
        let held = Held::new(LIMITS, &Clock::real());
        let (sender, receiver) = mpsc::channel::<()>();
        held.pool.submit(asker(1, 1, false), 1, move || drop(sender), |()| ()).expect("a seat");
        let gate = held.gate.clone();
        let opener = thread::spawn(move || gate.wait());
        drop(held.pool);
        opener.join().expect("opened");
        assert!(receiver.recv().is_err());
    }
}
