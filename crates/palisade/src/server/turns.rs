//! Turns: what strangers make a thread compute is done a piece at a time, and whatever else is ready goes before the next.
//!
//! Guide section 21; threat 29. Many clients may come, or send, in the same moment, as after a restart or in a flood. Those
//! who are there already would wait for the work that all of them make; with turns they wait for one piece of it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};

type Grant = oneshot::Sender<()>;

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
}

/// Turns that are asked for one after the other.
#[derive(Debug, Default)]
pub(super) struct Turn {
    asked: Option<oneshot::Receiver<()>>,
    again: bool,
}

impl Turn {
    /// Asks for a turn, and is ready when it has come. What is computed then, without waiting, is one piece.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.asked.get_or_insert_with(|| ask(self.again));
        // An error is that the runtime ends, and with it whoever gave out turns: there is no order left to keep.
        let _ = ready!(Pin::new(turn).poll(cx));
        *self = Self { asked: None, again: true };
        Poll::Ready(())
    }
}

/// Waits for a turn.
pub(super) async fn mine() {
    let mut turn = Turn::default();
    poll_fn(|cx| turn.poll(cx)).await;
}

fn ask(again: bool) -> oneshot::Receiver<()> {
    let (grant, turn) = oneshot::channel();
    let send = |ask: &Queues<mpsc::UnboundedSender<Grant>>, grant| {
        let queue = if again { &ask.again } else { &ask.first };
        queue.send(grant).map_err(|mpsc::error::SendError(grant)| grant)
    };
    ASK.with_borrow_mut(|ask| {
        let refused = match ask {
            Some(ask) => send(ask, grant),
            None => Err(grant),
        };
        // The first on this thread, or the first since another runtime ran on it.
        if let Err(grant) = refused {
            let ((first, new), (again, old)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
            tokio::spawn(give(Queues { first: new, again: old }));
            let queues = Queues { first, again };
            let _ = send(&queues, grant);
            *ask = Some(queues);
        }
    });
    turn
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
                let mut turn = Turn { asked: None, again: true };
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
}
