//! The mail of a gateway: one queue, whatever policy is in force. Guide section 1.
//!
//! The queue and what waits in it outlive policies; a new policy changes how and where it goes on. Each end of a mail is a
//! line of the log and a count, and a server that does not answer is a dependency that is away, like any other: what
//! happens without it is that mail waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use palisade_mail::{Counts, Dropped, Mailer, Outcome, Transport};
use parking_lot::Mutex;

use crate::observe::{Log, event, metrics::Metrics};
use crate::policy::mail::Setup;
use crate::policy::{Env, Policy};
use crate::redis::{Away, Health};

/// What happens without the server, as `palisade check` and `/status` say it.
pub const WHEN_AWAY: &str = "wait: mail is tried again for two hours, a thousand at most";

/// Mail of one gateway. It outlives policies.
#[derive(Debug, Default)]
pub(crate) struct Post {
    inner: Mutex<Inner>,
    /// What is done beside answers and may end in a mail.
    beside: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the policy in force says.
    setup: Option<Arc<Setup>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    mailer: Mailer,
    /// Of the server or directory that mail goes to now.
    health: Arc<Mutex<Arc<Health>>>,
}

/// Work beside an answer that may end in a mail: the process waits for it when it ends.
#[derive(Debug)]
pub(crate) struct Beside(Arc<Post>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.beside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The mail of the gateway that an environment belongs to.
pub(crate) fn post(env: &Env) -> Arc<Post> {
    env.state.get("mail", Post::default)
}

impl Post {
    /// What the policy in force says of mail.
    pub(crate) fn setup(&self) -> Option<Arc<Setup>> {
        self.inner.lock().setup.clone()
    }

    /// A policy has come into force. What waits goes out as it says; without any mail in it, as was said before.
    pub(crate) fn put_in_force(&self, policy: &Policy) {
        let mut inner = self.inner.lock();
        let same = match (&inner.setup, policy.mail()) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if same {
            return;
        }
        inner.setup = policy.mail().cloned();
        if let (Some(setup), Some(running)) = (&inner.setup, &inner.running) {
            let env = policy.env();
            match setup.adopt(&running.mailer) {
                Ok(()) => {
                    *running.health.lock() = health(setup.transport(), &env.log);
                    said(setup.transport(), &env.log);
                }
                Err(error) => drop(event::MAIL_UNUSABLE.line(&env.log).show("reason", error)),
            }
        }
    }

    /// The queue; started the first time. `None`: no mail is sent, or none can be.
    pub(crate) fn mailer(&self, env: &Env) -> Option<Mailer> {
        let mut inner = self.inner.lock();
        let setup = inner.setup.clone()?;
        if inner.running.is_none() {
            let transport = setup.transport();
            let health = Arc::new(Mutex::new(health(transport, &env.log)));
            let of_queue = Arc::clone(&health);
            let (log, metrics) = (Arc::clone(&env.log), Arc::clone(&env.metrics));
            match setup.start(move |outcome| tell(&log, &metrics, &of_queue.lock().clone(), outcome)) {
                Ok(mailer) => {
                    said(transport, &env.log);
                    inner.running = Some(Running { mailer, health });
                }
                Err(error) => drop(event::MAIL_UNUSABLE.line(&env.log).show("reason", error)),
            }
        }
        inner.running.as_ref().map(|running| running.mailer.clone())
    }

    /// To be held while something beside an answer may end in a mail.
    pub(crate) fn beside(self: &Arc<Self>) -> Beside {
        self.beside.fetch_add(1, Ordering::Relaxed);
        Beside(Arc::clone(self))
    }

    /// Whether something beside an answer may still end in a mail.
    pub(crate) fn is_busy(&self) -> bool {
        self.beside.load(Ordering::Relaxed) > 0
    }

    /// How the server or directory is, and what became of all mail; `None` where none was to be sent yet.
    pub(crate) fn health(&self) -> Option<(Arc<Health>, Counts)> {
        let inner = self.inner.lock();
        inner.setup.as_ref()?;
        inner.running.as_ref().map(|running| (running.health.lock().clone(), running.mailer.counts()))
    }

    /// Ends the queue: each mail that waits is tried once more. Takes this long at most, and a second; a second call can
    /// shorten that.
    pub(crate) async fn close(&self, within: Duration) {
        let mailer = self.inner.lock().running.as_ref().map(|running| running.mailer.clone());
        if let Some(mailer) = mailer {
            // Waits for a thread: not on one that answers.
            let _ = tokio::task::spawn_blocking(move || mailer.close(within)).await;
        }
    }
}

fn health(transport: &Transport, log: &Arc<Log>) -> Arc<Health> {
    Arc::new(Health::new("mail", transport.to_string(), Arc::clone(log)))
}

/// Says where mail goes. In development that is where its reader finds it.
fn said(transport: &Transport, log: &Log) {
    let kind = match transport {
        Transport::Smtp(_) => "smtp",
        Transport::Directory(_) => "directory",
    };
    event::MAIL_READY.line(log).str("transport", kind).show("target", transport);
}

fn tell(log: &Log, metrics: &Metrics, health: &Health, outcome: Outcome) {
    match outcome {
        Outcome::Sent { kind, about, attempts } => {
            health.good();
            metrics.mail(kind.name(), "sent");
            let line = event::MAIL_SENT.line(log).str("kind", kind.name()).str("about", &about);
            line.u64("attempts", attempts.into());
        }
        Outcome::Delayed { kind, about, reason, next } => {
            metrics.mail(kind.name(), "delayed");
            let line = event::MAIL_DELAYED.line(log).str("kind", kind.name()).str("about", &about);
            drop(line.str("reason", &reason).u64("next_s", next.as_secs()));
            health.bad(&Away::new(reason));
        }
        Outcome::Dropped { kind, about, why } => {
            metrics.mail(kind.name(), "dropped");
            let line = event::MAIL_DROPPED.line(log).str("kind", kind.name()).str("about", &about);
            line.str("why", word(&why)).show("reason", why);
        }
        _ => {}
    }
}

const fn word(why: &Dropped) -> &'static str {
    match why {
        Dropped::Full => "full",
        Dropped::Refused(_) => "refused",
        Dropped::Late(_) => "late",
        _ => "closing",
    }
}
