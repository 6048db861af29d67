//! A nudge: "there is something new", said to every instance at once. It carries nothing else and may be lost.
//!
//! Who listens pulls for itself every so often; a nudge only makes the next pull come sooner. After a connection was lost
//! and made again one is given in any case, since some may have been missed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::PubSub;
use futures_util::StreamExt as _;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Away;
use super::client::{Redis, Shared};

/// Between attempts to connect; doubled up to the second.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So long after the last message it is asked whether the connection still lives.
const SILENCE: Duration = Duration::from_secs(2);

/// Listens on a channel until it is dropped.
#[derive(Debug)]
pub struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Redis {
    /// Nudges everybody who listens on a channel, this process too.
    ///
    /// # Errors
    /// Without an answer within `redis.timeout`. Nothing is lost by it but time.
    pub async fn nudge(&self, channel: &str) -> Result<(), Away> {
        self.publish(&format!("{}{channel}", self.prefix())).await
    }

    /// Calls `wake` at each nudge on a channel, for as long as the listener is kept. To be called within a runtime.
    pub fn listen(&self, channel: &str, wake: impl Fn() + Send + Sync + 'static) -> Listener {
        let channel = format!("{}{channel}", self.prefix());
        Listener(tokio::spawn(listen(Arc::downgrade(self.shared()), channel, wake)).abort_handle())
    }
}

async fn listen(of: Weak<Shared>, channel: String, wake: impl Fn() + Send + Sync) {
    let mut pause = PAUSE;
    loop {
        let Some(shared) = of.upgrade() else { return };
        if let Some(connection) = subscribed(&shared, &channel).await {
            pause = PAUSE;
            wake();
            let patience = shared.timeout().max(shared.connect_timeout());
            // Not held while nothing happens: the client may have been replaced.
            drop(shared);
            heard(connection, patience, &of, &wake).await;
        } else {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn subscribed(shared: &Shared, channel: &str) -> Option<PubSub> {
    let subscribed = timeout(shared.connect_timeout(), async {
        let mut connection = PubSub::new(&shared.login, shared.dial().await.ok()?).await.ok()?;
        connection.subscribe(channel).await.ok()?;
        Some(connection)
    });
    subscribed.await.ok().flatten()
}

/// Returns when the connection is lost, or nobody needs it.
async fn heard(connection: PubSub, patience: Duration, of: &Weak<Shared>, wake: &(impl Fn() + Send + Sync)) {
    let (mut asks, mut messages) = connection.split();
    loop {
        match timeout(SILENCE, messages.next()).await {
            Ok(Some(_)) => wake(),
            Ok(None) => return,
            Err(_) => {
                let answer = timeout(patience, asks.ping::<::redis::Value>()).await;
                if of.strong_count() == 0 || !matches!(answer, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}
