//! The queue: bounded, in a thread of its own, with an end for every mail.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::smtp::Server;
use crate::template::Rendered;
use crate::{Address, BadTransport, Kind, Mail, Templates, Transport, files};

/// The most mails that wait or are on their way.
const MAX_WAITING: usize = 1000;
/// The most that are on their way at once.
const AT_ONCE: usize = 4;
/// How long a mail rests before its first attempt. TLS and the server take time of the same processor that writes the
/// answer which the mail goes with: begun at once, they would be heard in the time of that answer.
const REST: Duration = Duration::from_millis(100);

/// How long the queue tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one attempt, from the connection to the server's last word.
    pub attempt: Duration,
    /// Before the second attempt; each further one waits twice as long, up to ten minutes.
    pub pause: Duration,
    /// For all of them.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(30), pause: Duration::from_secs(5), total: Duration::from_secs(2 * 3600) }
    }
}

/// Why a mail was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// As many are waiting as may.
    Full,
    /// The server said no for good.
    Refused(String),
    /// Its time was over; this is what the last attempt failed with.
    Late(String),
    /// The process ended.
    Closing,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "{MAX_WAITING} mails are waiting already"),
            Self::Refused(reason) => write!(f, "the server refused it: {reason}"),
            Self::Late(reason) => write!(f, "it could not be sent in time: {reason}"),
            Self::Closing => f.write_str("the process ended before it was sent"),
        }
    }
}

/// What became of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The server has it, or the directory.
    Sent {
        /// What it was.
        kind: Kind,
        /// What it was about, as its maker said.
        about: String,
        /// At which attempt.
        attempts: u32,
    },
    /// An attempt failed, and there will be another.
    Delayed {
        /// What it is.
        kind: Kind,
        /// What it is about.
        about: String,
        /// Why.
        reason: String,
        /// When it will be tried again.
        next: Duration,
    },
    /// It will not be sent.
    Dropped {
        /// What it was.
        kind: Kind,
        /// What it was about.
        about: String,
        /// Why.
        why: Dropped,
    },
}

/// How many mails met which end since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the server or the directory.
    pub sent: u64,
    /// Attempts that failed and were followed by another.
    pub delayed: u64,
    /// Not sent.
    pub dropped: u64,
    /// Waiting or on their way.
    pub waiting: u64,
    /// As many may wait or be on their way.
    pub room: u64,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another one may succeed.
    Again(String),
    /// None will.
    Final(String),
}

/// Sends mail. A clone is the same queue.
#[derive(Debug, Clone)]
pub struct Mailer(Arc<Entrance>);

/// Holds the way into the queue: when the last one goes, the queue comes to its end.
#[derive(Debug)]
struct Entrance {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Until when mail that waits may be tried, once the queue ends.
    until: watch::Sender<Option<Instant>>,
    end: Arc<End>,
}

/// Whether the queue's thread is done.
#[derive(Debug, Default)]
struct End {
    over: Mutex<bool>,
    came: Condvar,
}

struct Shared {
    /// None once the process ends.
    setup: Mutex<Option<Arc<Setup>>>,
    /// The queue's thread: connections live and end there, whoever sets them up or drops them.
    runtime: tokio::runtime::Handle,
    room: Arc<Semaphore>,
    tell: Box<dyn Fn(Outcome) + Send + Sync>,
    sent: AtomicU64,
    delayed: AtomicU64,
    dropped: AtomicU64,
    number: AtomicU64,
}

#[derive(Debug)]
struct Setup {
    from: Mailbox,
    domain: String,
    templates: Templates,
    way: Way,
    patience: Patience,
}

#[derive(Debug)]
enum Way {
    Smtp(Server),
    Directory(PathBuf),
}

/// A mail, and how the attempt to send it went.
type Attempted = (Job, Result<(), Failure>);

/// One mail in the queue. It is given a text when it is sent: what waits for an hour gets the templates of then.
#[derive(Debug)]
struct Job {
    mail: Mail,
    attempts: u32,
    until: Instant,
    _room: OwnedSemaphorePermit,
}

impl Job {
    /// Gives up its room, before anybody is told what became of it.
    fn leave(self) -> Mail {
        self.mail
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("room", &self.room.available_permits()).finish_non_exhaustive()
    }
}

impl Mailer {
    /// Starts the queue. `name` is shown as the sender beside the address. `tell` hears what becomes of each mail; it is
    /// called by the queue's thread, and by [`send`](Self::send) when there is no room.
    ///
    /// # Errors
    /// When the transport cannot be set up. That the server does not answer is no error: mail waits for it.
    pub fn start(
        name: &str,
        from: &Address,
        transport: &Transport,
        templates: Templates,
        patience: Patience,
        tell: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Result<Self, BadTransport> {
        let failed = |error: std::io::Error| BadTransport::Start(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let inside = runtime.enter();
        let setup = Setup::new(name, from, transport, templates, patience);
        drop(inside);
        let setup = match setup {
            Ok(setup) => setup,
            Err(bad) => {
                // Whoever starts it may be within a runtime, where another one must not wait for its end.
                runtime.shutdown_background();
                return Err(bad);
            }
        };
        let shared = Arc::new(Shared {
            setup: Mutex::new(Some(Arc::new(setup))),
            runtime: runtime.handle().clone(),
            room: Arc::new(Semaphore::new(MAX_WAITING)),
            tell: Box::new(tell),
            sent: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            number: AtomicU64::new(0),
        });
        let (jobs, incoming) = mpsc::unbounded_channel();
        let (until, closing) = watch::channel(None);
        let end = Arc::new(End::default());
        let (of_thread, ended) = (Arc::clone(&shared), Arc::clone(&end));
        let work = move || {
            runtime.block_on(Worker::new(of_thread, incoming).run(closing));
            *ended.over.lock() = true;
            ended.came.notify_all();
        };
        std::thread::Builder::new().name("palisade-mail".into()).spawn(work).map_err(failed)?;
        Ok(Self(Arc::new(Entrance { shared, jobs, until, end })))
    }

    /// Goes on with another transport and other texts. What waits stays.
    ///
    /// # Errors
    /// As [`start`](Self::start); everything is as it was then.
    pub fn adopt(
        &self,
        name: &str,
        from: &Address,
        transport: &Transport,
        templates: Templates,
        patience: Patience,
    ) -> Result<(), BadTransport> {
        let _inside = self.0.shared.runtime.enter();
        let next = Arc::new(Setup::new(name, from, transport, templates, patience)?);
        // The one before ends outside the lock.
        let _before = self.0.shared.setup.lock().as_mut().map(|setup| std::mem::replace(setup, next));
        Ok(())
    }

    /// Puts a mail into the queue. Takes microseconds whatever the server does, so that the time of an answer says nothing
    /// of whether there was a mail. Where there is no room it is dropped, told and counted.
    pub fn send(&self, mail: Mail) {
        let shared = &self.0.shared;
        let Ok(room) = Arc::clone(&shared.room).try_acquire_owned() else {
            return shared.dropped(mail, Dropped::Full);
        };
        let Some(total) = shared.setup.lock().as_ref().map(|setup| setup.patience.total) else {
            return shared.dropped(mail, Dropped::Closing);
        };
        let until = Instant::now() + total;
        let job = Job { mail, attempts: 0, until, _room: room };
        if let Err(mpsc::error::SendError(job)) = self.0.jobs.send(job) {
            shared.dropped(job.mail, Dropped::Closing);
        }
    }

    /// What became of all mail so far.
    pub fn counts(&self) -> Counts {
        let shared = &self.0.shared;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = MAX_WAITING.saturating_sub(shared.room.available_permits());
        Counts {
            sent: get(&shared.sent),
            delayed: get(&shared.delayed),
            dropped: get(&shared.dropped),
            waiting: waiting as u64,
            room: MAX_WAITING as u64,
        }
    }

    /// Ends the queue: what waits is tried once more, all at the same time as far as the limit lets it, and what is left
    /// after `within` is dropped, told and counted. Waits for that. Mail that comes later is dropped. Whoever calls it
    /// again can only shorten the wait, also of who called before.
    pub fn close(&self, within: Duration) {
        let asked = Instant::now() + within;
        self.0.until.send_modify(|until| *until = Some(until.map_or(asked, |until| until.min(asked))));
        let mut over = self.0.end.over.lock();
        if !*over {
            self.0.end.came.wait_for(&mut over, within.saturating_add(Duration::from_secs(1)));
        }
    }
}

impl Setup {
    fn new(
        name: &str,
        from: &Address,
        transport: &Transport,
        templates: Templates,
        patience: Patience,
    ) -> Result<Self, BadTransport> {
        let way = match transport {
            Transport::Smtp(smtp) => {
                Way::Smtp(Server::new(smtp, u32::try_from(AT_ONCE).unwrap_or(u32::MAX), patience.attempt)?)
            }
            Transport::Directory(folder) => {
                files::prepare(folder)
                    .map_err(|error| BadTransport::Directory { path: folder.clone(), reason: error.to_string() })?;
                Way::Directory(folder.clone())
            }
        };
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let from_box = Mailbox::new(Some(name).filter(|name| !name.is_empty()), from.mailbox().email);
        Ok(Self { from: from_box, domain: from.domain().to_owned(), templates, way, patience })
    }

    /// One attempt.
    async fn attempt(&self, mail: &Mail, number: u64) -> Result<(), Failure> {
        let rendered = self.templates.render(mail).ok_or_else(|| Failure::Final("no text for it".into()))?;
        let message = self.message(mail, rendered).map_err(|error| Failure::Final(error.to_string()))?;
        match &self.way {
            Way::Smtp(server) => match timeout(self.patience.attempt, server.send(message)).await {
                Ok(done) => done,
                Err(_) => Err(Failure::Again(format!("no answer within {:?}", self.patience.attempt))),
            },
            Way::Directory(folder) => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let name = format!("{:013}-{number:06}-{}", since.as_millis(), mail.kind.name());
                files::write(folder, &name, &message.formatted()).map_err(|error| Failure::Again(error.to_string()))
            }
        }
    }

    fn message(&self, mail: &Mail, text: Rendered) -> Result<Message, lettre::error::Error> {
        let random = RandomState::new().build_hasher().finish().to_be_bytes();
        let builder = Message::builder()
            .from(self.from.clone())
            .to(mail.to.mailbox())
            .subject(text.subject)
            .message_id(Some(crate::links::message_id(&random, &self.domain)))
            .date_now()
            // RFC 3834: no holiday notice answers, and no answer to an answer.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        match text.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text.plain, html)),
            None => builder.singlepart(SinglePart::plain(text.plain)),
        }
    }
}

/// Connections end by a task, which needs a runtime also where the last mailer goes with the process.
impl Drop for Shared {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        drop(self.setup.get_mut().take());
    }
}

impl Shared {
    fn sent(&self, mail: Mail, attempts: u32) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        (self.tell)(Outcome::Sent { kind: mail.kind, about: mail.about, attempts });
    }

    fn dropped(&self, mail: Mail, why: Dropped) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        (self.tell)(Outcome::Dropped { kind: mail.kind, about: mail.about, why });
    }
}

/// The queue's thread.
struct Worker {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Job>,
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    /// By the number that stands in `waiting`.
    jobs: BTreeMap<u64, Job>,
    running: JoinSet<(Job, Result<(), Failure>)>,
    /// What is on its way, for the case that its task does not come back.
    named: HashMap<Id, (Kind, String)>,
    number: u64,
    /// No further attempt after the one that is due.
    last: bool,
}

impl Worker {
    fn new(shared: Arc<Shared>, incoming: mpsc::UnboundedReceiver<Job>) -> Self {
        let (waiting, jobs, running) = (BinaryHeap::new(), BTreeMap::new(), JoinSet::new());
        Self { shared, incoming, waiting, jobs, running, named: HashMap::new(), number: 0, last: false }
    }

    async fn run(mut self, mut closing: watch::Receiver<Option<Instant>>) {
        loop {
            self.begin();
            let due = self.due();
            tokio::select! {
                // Also when the last mailer has gone without closing: mail of a process that ends gets a moment.
                _ = closing.changed() => return self.end(closing).await,
                Some(job) = self.incoming.recv() => self.wait(job, Instant::now() + REST),
                Some(done) = self.running.join_next_with_id() => self.done(done),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// When the next attempt is due; `None` while no more may run, or nothing waits.
    fn due(&self) -> Option<Instant> {
        (self.running.len() < AT_ONCE).then(|| self.waiting.peek().map(|Reverse((due, _))| *due)).flatten()
    }

    fn wait(&mut self, job: Job, due: Instant) {
        self.number += 1;
        self.waiting.push(Reverse((due, self.number)));
        self.jobs.insert(self.number, job);
    }

    /// Begins the attempts that are due.
    fn begin(&mut self) {
        let now = Instant::now();
        while self.due().is_some_and(|due| self.last || due <= now) {
            let Some(mut job) = self.waiting.pop().and_then(|Reverse((_, number))| self.jobs.remove(&number)) else {
                return;
            };
            job.attempts += 1;
            let Some(setup) = self.shared.setup.lock().clone() else {
                return self.shared.dropped(job.leave(), Dropped::Closing);
            };
            let number = self.shared.number.fetch_add(1, Ordering::Relaxed);
            let named = (job.mail.kind, job.mail.about.clone());
            let task = self.running.spawn(async move {
                let done = setup.attempt(&job.mail, number).await;
                (job, done)
            });
            self.named.insert(task.id(), named);
        }
    }

    fn done(&mut self, done: Result<(Id, Attempted), tokio::task::JoinError>) {
        let (job, outcome) = match done {
            Ok((id, done)) => {
                self.named.remove(&id);
                done
            }
            // Cut off at the end of the process (or a panic, which the tests would have shown).
            Err(error) => {
                if let Some((kind, about)) = self.named.remove(&error.id()) {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                    (self.shared.tell)(Outcome::Dropped { kind, about, why: Dropped::Closing });
                }
                return;
            }
        };
        match outcome {
            Ok(()) => {
                let attempts = job.attempts;
                self.shared.sent(job.leave(), attempts);
            }
            Err(Failure::Final(reason)) => self.shared.dropped(job.leave(), Dropped::Refused(reason)),
            Err(Failure::Again(_)) if self.last => self.shared.dropped(job.leave(), Dropped::Closing),
            Err(Failure::Again(reason)) => {
                let pause = self.shared.setup.lock().as_ref().map_or(Duration::ZERO, |setup| setup.patience.pause);
                let doubled = pause.saturating_mul(1_u32.checked_shl(job.attempts.min(16) - 1).unwrap_or(u32::MAX));
                let next = doubled.min(Duration::from_secs(600)).max(pause);
                let due = Instant::now() + next;
                if due > job.until {
                    return self.shared.dropped(job.leave(), Dropped::Late(reason));
                }
                self.shared.delayed.fetch_add(1, Ordering::Relaxed);
                let (kind, about) = (job.mail.kind, job.mail.about.clone());
                (self.shared.tell)(Outcome::Delayed { kind, about, reason, next });
                self.wait(job, due);
            }
        }
    }

    /// One more attempt for each, within the time that is left.
    async fn end(mut self, mut closing: watch::Receiver<Option<Instant>>) {
        let unasked = Instant::now() + Duration::from_secs(5);
        self.incoming.close();
        while let Ok(job) = self.incoming.try_recv() {
            self.wait(job, Instant::now());
        }
        self.last = true;
        loop {
            self.begin();
            let until = closing.borrow_and_update().unwrap_or(unasked);
            tokio::select! {
                done = self.running.join_next_with_id() => match done {
                    Some(done) => self.done(done),
                    None => break,
                },
                () = sleep_until(until) => break,
                // An error is that nobody is left who could ask.
                Ok(()) = closing.changed() => {}
            }
        }
        self.running.abort_all();
        // The server may have taken a mail whose attempt is cut off here; nobody heard so, and it counts as dropped.
        while let Some(done) = self.running.join_next_with_id().await {
            self.done(done);
        }
        for job in std::mem::take(&mut self.jobs).into_values() {
            self.shared.dropped(job.mail, Dropped::Closing);
        }
        drop(self.shared.setup.lock().take());
    }
}
