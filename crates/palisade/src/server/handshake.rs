//! TLS handshakes, one at a time on each worker.
//!
//! Guide section 21; threat 29. A handshake is a tenth to a quarter of a millisecond of computing at once, more than ten
//! small requests. When many clients come in the same moment, as after a restart or in a flood, those who are there already
//! would wait for all of them. So the part that computes takes its turn, and whatever else is ready goes before the next.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

thread_local! {
    /// Whose turn it is on this thread. In order of arrival; as many wait as may be in a handshake, which is bounded.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Does the handshake of a client.
///
/// # Errors
/// When the client speaks no TLS, or none that we do, or goes away.
pub(super) async fn secure<S>(config: Arc<ServerConfig>, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Nothing is computed until the client's first word is there in full.
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let mut handshake = pin!(begun.into_stream(config));
    match in_turn(handshake.as_mut()).await {
        Poll::Ready(done) => done,
        Poll::Pending => handshake.await,
    }
}

/// Polls what computes once, and then lets all that is ready be looked at before the next one's turn.
async fn in_turn<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    let turn = TURN.with(Arc::clone).acquire_owned().await;
    let computed = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    tokio::task::yield_now().await;
    drop(turn);
    computed
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Forty come at once; somebody who is there already looks up.
    #[tokio::test]
    async fn others_are_served_between_two_turns() {
        const ALL: usize = 40;
        let computed = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..ALL {
            let computed = Arc::clone(&computed);
            tasks.spawn(async move {
                let mut work = pin!(async { computed.fetch_add(1, Ordering::Relaxed) });
                assert!(in_turn(work.as_mut()).await.is_ready());
            });
        }
        let (mut looks, mut before) = (0, 0);
        while !tasks.is_empty() {
            tokio::task::yield_now().await;
            let now = computed.load(Ordering::Relaxed);
            assert!(now - before <= 1, "{} between two looks", now - before);
            (looks, before) = (looks + 1, now);
            while let Some(ended) = tasks.try_join_next() {
                ended.expect("a turn");
            }
        }
        assert!(before == ALL && looks >= ALL, "{before} in {looks} looks");
    }
}
