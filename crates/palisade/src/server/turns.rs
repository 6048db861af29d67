//! Turns: what strangers make a thread compute is done a piece at a time, and whatever else is ready goes before the next.
//!
//! Guide section 21; threat 29. Many clients may come, or send, in the same moment, as after a restart or in a flood. Those
//! who are there already would wait for the work that all of them make; with turns they wait for one piece of it. What
//! connections have still on their way when they are ended is read in turns as well.
//!
//! So it is with large answers, whoever asked for them: each time that all that is ready is looked at, a thread moves
//! [`ENOUGH`] of them, from the application and to the client. The others have their [`Share`] of the next time. Whoever
//! moves little waits for nobody.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;

use tokio::sync::{mpsc, oneshot};

type Grant = oneshot::Sender<()>;

/// So many bytes of answers are moved before everybody else is looked at, counted where they come from and where they go:
/// some 0.1 ms of a core with encryption, and more where the system has to make room.
const ENOUGH: usize = 256 * 1024;
/// So many bytes may be moved each time before anybody asks whether that was enough.
const SMALL: usize = 64 * 1024;

/// The two queues of a thread: those who were given no turn yet, and those who ask for another. They go alternately, so that
/// whoever is new waits for others who are new, and not for all that a flood has still to say.
#[derive(Debug)]
struct Queues<T> {
    first: T,
    again: T,
}

thread_local! {
    /// The way to whoever gives out the turns of this thread. In order of arrival; a connection asks once at a time, so that
    /// as many wait as there may be connections.
    static ASK: RefCell<Option<Queues<mpsc::UnboundedSender<Grant>>>> = const { RefCell::new(None) };
    /// The way to whoever gives out the shares of this thread.
    static ASK_FOR_SHARE: RefCell<Option<mpsc::UnboundedSender<Grant>>> = const { RefCell::new(None) };
    /// Bytes of answers since everybody was looked at, or since long before where nobody had to wait.
    static MOVED: Cell<usize> = const { Cell::new(0) };
}

/// Turns that are asked for one after the other.
#[derive(Debug, Default)]
pub(super) struct Turn {
    asked: Option<oneshot::Receiver<()>>,
    again: bool,
}

impl Turn {
    /// Turns of somebody who is not new, and goes with those who ask for another.
    pub(super) fn later() -> Self {
        Self { asked: None, again: true }
    }

    /// Asks for a turn, and is ready when it has come. What is computed then, without waiting, is one piece.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.asked.get_or_insert_with(|| ask(self.again));
        // An error is that the runtime ends, and with it whoever gave out turns: there is no order left to keep.
        let _ = ready!(Pin::new(turn).poll(cx));
        *self = Self::later();
        Poll::Ready(())
    }
}

/// What one answer, or one connection, may move.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Bytes since it was asked last whether there is room.
    moved: usize,
    asked: Option<oneshot::Receiver<()>>,
}

impl Share {
    /// Is ready when a piece may be moved, which is then to be told to [`Share::moved`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked.is_none() {
            if self.moved < SMALL {
                return Poll::Ready(());
            }
            if MOVED.get() < ENOUGH {
                self.moved = 0;
                return Poll::Ready(());
            }
        }
        let asked = self.asked.get_or_insert_with(ask_for_share);
        // An error is as it is with a turn.
        let _ = ready!(Pin::new(asked).poll(cx));
        *self = Self::default();
        Poll::Ready(())
    }

    /// So many bytes are on their way.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes);
        MOVED.set(MOVED.get().saturating_add(bytes));
    }
}

/// Waits for a turn.
pub(super) async fn mine() {
    let mut turn = Turn::default();
    poll_fn(|cx| turn.poll(cx)).await;
}

fn ask(again: bool) -> oneshot::Receiver<()> {
    let send = |ask: &Queues<mpsc::UnboundedSender<Grant>>, grant| {
        if again { ask.again.send(grant) } else { ask.first.send(grant) }
    };
    ask_of(&ASK, send, || {
        let ((first, new), (again, old)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        tokio::spawn(give(Queues { first: new, again: old }));
        Queues { first, again }
    })
}

fn ask_for_share() -> oneshot::Receiver<()> {
    ask_of(&ASK_FOR_SHARE, mpsc::UnboundedSender::send, || {
        let (ask, asked) = mpsc::unbounded_channel();
        tokio::spawn(give_shares(asked));
        ask
    })
}

/// Asks whoever gives something out on this thread, and begins that one where this is the first to ask, or the first since
/// another runtime ran here.
fn ask_of<T>(
    whom: &'static LocalKey<RefCell<Option<T>>>,
    send: impl Fn(&T, Grant) -> Result<(), mpsc::error::SendError<Grant>>,
    begin: impl FnOnce() -> T,
) -> oneshot::Receiver<()> {
    let (grant, given) = oneshot::channel();
    whom.with_borrow_mut(|there| {
        let refused = match there {
            Some(there) => send(there, grant),
            None => Err(mpsc::error::SendError(grant)),
        };
        if let Err(mpsc::error::SendError(grant)) = refused {
            let new = begin();
            let _ = send(&new, grant);
            *there = Some(new);
        }
    });
    given
}

/// Gives out turns, one each time that all that is ready was looked at.
async fn give(mut asked: Queues<mpsc::UnboundedReceiver<Grant>>) {
    loop {
        let Queues { first, again } = &mut asked;
        let grant = tokio::select! {
            biased;
            Some(grant) = first.recv() => grant,
            Some(grant) = again.recv() => grant,
            else => return,
        };
        // The other queue is next.
        std::mem::swap(first, again);
        // Whoever has gone meanwhile costs the others nothing.
        if grant.send(()).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// Gives out shares in the order in which they were asked for, until enough is moved; and on, when all that is ready was
/// looked at.
async fn give_shares(mut asked: mpsc::UnboundedReceiver<Grant>) {
    while let Some(grant) = asked.recv().await {
        if MOVED.get() >= ENOUGH {
            tokio::task::yield_now().await;
            MOVED.set(0);
        }
        if grant.send(()).is_ok() {
            behind_whoever_is_awake().await;
        }
    }
}

/// Waits until those have run who are ready to, on this thread.
async fn behind_whoever_is_awake() {
    let mut waited = false;
    let wait = poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    wait.await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Forty come at once; somebody who is there already looks up.
    #[tokio::test]
    async fn others_are_served_between_two_turns() {
        const ALL: usize = 40;
        let computed = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        let mut goes = Vec::new();
        for number in 0..2 * ALL {
            let computed = Arc::clone(&computed);
            let task = tasks.spawn(async move {
                mine().await;
                computed.fetch_add(1, Ordering::Relaxed);
            });
            if number % 2 == 1 {
                goes.push(task);
            }
        }
        // All of them have asked; every second one goes before its turn.
        tokio::task::yield_now().await;
        goes.iter().for_each(tokio::task::AbortHandle::abort);
        let (mut looks, mut before) = (1, computed.load(Ordering::Relaxed));
        assert!(before <= 1, "{before} before anybody looked");
        while !tasks.is_empty() {
            tokio::task::yield_now().await;
            let now = computed.load(Ordering::Relaxed);
            assert!(now - before <= 1, "{} between two looks", now - before);
            (looks, before) = (looks + 1, now);
            while let Some(ended) = tasks.try_join_next() {
                assert!(ended.as_ref().map_or_else(tokio::task::JoinError::is_cancelled, |()| true), "{ended:?}");
            }
        }
        assert!(before == ALL && looks >= ALL, "{before} in {looks} looks");
    }

    /// However many want another turn, whoever is new has the next one or the one after it.
    #[tokio::test]
    async fn who_is_new_does_not_wait_for_all() {
        let done = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let done = Arc::clone(&done);
            tasks.spawn(async move {
                let mut turn = Turn::later();
                poll_fn(|cx| turn.poll(cx)).await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        tokio::task::yield_now().await;
        let before = done.load(Ordering::Relaxed);
        mine().await;
        let meanwhile = done.load(Ordering::Relaxed) - before;
        assert!(meanwhile <= 4, "{meanwhile} went before");
        while tasks.join_next().await.is_some() {}
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }

    /// A thread may see several runtimes, as tests and programs around the library do.
    #[test]
    fn a_second_runtime_has_turns_too() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(mine());
        }
    }

    /// Twenty large answers, and somebody who looks up; and one who moves little, and never waits.
    #[tokio::test]
    async fn large_answers_are_moved_a_share_at_a_time() {
        const ALL: usize = 20;
        const PIECES: usize = 40;
        const PIECE: usize = SMALL;
        MOVED.set(0);
        let total = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..ALL {
            let total = Arc::clone(&total);
            tasks.spawn(async move {
                let mut share = Share::default();
                for _ in 0..PIECES {
                    poll_fn(|cx| share.poll(cx)).await;
                    share.moved(PIECE);
                    total.fetch_add(PIECE, Ordering::Relaxed);
                }
            });
        }
        // The first piece of each waits for nobody.
        tokio::task::yield_now().await;
        let mut before = total.load(Ordering::Relaxed);
        assert!(before <= ALL * PIECE + ENOUGH, "{before} at first");
        let mut little = Share::default();
        let mut looks = 0;
        while !tasks.is_empty() {
            let waits = poll_fn(|cx| Poll::Ready(little.poll(cx).is_pending())).await;
            assert!(!waits, "after {looks} looks");
            little.moved(100);
            tokio::task::yield_now().await;
            let now = total.load(Ordering::Relaxed);
            assert!(now - before <= ENOUGH + PIECE, "{} between two looks", now - before);
            (before, looks) = (now, looks + 1);
            while let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
        }
        assert_eq!(before, ALL * PIECES * PIECE);
        // None of them waits for nothing either.
        assert!(looks <= 2 * ALL * PIECES * PIECE / ENOUGH, "{looks} looks");
    }

    /// Whoever goes while it waits costs the others nothing.
    #[tokio::test]
    async fn an_answer_that_nobody_wants_any_more_is_passed_over() {
        let (mut gone, mut here) = (Share::default(), Share::default());
        for share in [&mut gone, &mut here] {
            share.moved(ENOUGH);
            assert!(poll_fn(|cx| Poll::Ready(share.poll(cx))).await.is_pending());
        }
        drop(gone);
        poll_fn(|cx| here.poll(cx)).await;
        assert_eq!(MOVED.get(), 0);
    }
}
