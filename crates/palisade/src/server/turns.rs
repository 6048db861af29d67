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

thread_local! {
    /// The way to whoever gives out the turns of this thread. In order of arrival; a connection asks once at a time, so that
    /// as many wait as there may be connections.
    static ASK: RefCell<Option<mpsc::UnboundedSender<Grant>>> = const { RefCell::new(None) };
}

/// A turn that is waited for, or none.
#[derive(Debug, Default)]
pub(super) struct Turn(Option<oneshot::Receiver<()>>);

impl Turn {
    /// Asks for a turn, and is ready when it has come. What is computed then, without waiting, is one piece.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.0.get_or_insert_with(ask);
        // An error is that the runtime ends, and with it whoever gave out turns: there is no order left to keep.
        let _ = ready!(std::future::Future::poll(Pin::new(turn), cx));
        self.0 = None;
        Poll::Ready(())
    }
}

/// Waits for a turn.
pub(super) async fn mine() {
    let mut turn = Turn::default();
    poll_fn(|cx| turn.poll(cx)).await;
}

fn ask() -> oneshot::Receiver<()> {
    let (grant, turn) = oneshot::channel();
    ASK.with_borrow_mut(|ask| {
        let refused = match ask {
            Some(ask) => ask.send(grant).map_err(|mpsc::error::SendError(grant)| grant),
            None => Err(grant),
        };
        // The first on this thread, or the first since another runtime ran on it.
        if let Err(grant) = refused {
            let (new, asked) = mpsc::unbounded_channel();
            tokio::spawn(give(asked));
            let _ = new.send(grant);
            *ask = Some(new);
        }
    });
    turn
}

/// Gives out turns, one each time that all that is ready was looked at.
async fn give(mut asked: mpsc::UnboundedReceiver<Grant>) {
    while let Some(grant) = asked.recv().await {
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
        for number in 0..2 * ALL {
            let computed = Arc::clone(&computed);
            let task = tasks.spawn(async move {
                mine().await;
                computed.fetch_add(1, Ordering::Relaxed);
            });
            // Every second one goes before its turn.
            if number % 2 == 1 {
                task.abort();
            }
        }
        let (mut looks, mut before) = (0, 0);
        while !tasks.is_empty() {
            tokio::task::yield_now().await;
            let now = computed.load(Ordering::Relaxed);
            assert!(now - before <= 1, "{} between two looks", now - before);
            (looks, before) = (looks + 1, now);
            while let Some(ended) = tasks.try_join_next() {
                assert!(ended.is_ok_and(|()| true) || before <= ALL, "a turn");
            }
        }
        assert!(before == ALL && looks >= ALL, "{before} in {looks} looks");
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
