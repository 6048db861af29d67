//! Carries news between instances: what one announces, the others look at now instead of a little later.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Listener, Redis};
use crate::policy::State;

/// How soon a `[redis]` that a reload changed is used.
const LOOK: Duration = Duration::from_secs(1);

/// The client in force, where there is one.
fn current(state: &State) -> Option<Redis> {
    state.get("redis", Mutex::<Option<Redis>>::default).lock().clone()
}

/// Nudges the channel whenever `announced` returns, and calls `nudged` whenever anybody nudged it. Does nothing while there
/// is no `[redis]`, and nothing bad while it is away. Runs until it is dropped.
pub async fn carry<F: Future<Output = ()> + Send>(
    state: Arc<State>,
    channel: &'static str,
    announced: impl Fn() -> F + Send,
    nudged: impl Fn() + Clone + Send + Sync + 'static,
) {
    let mut listening: Option<(Redis, Listener)> = None;
    loop {
        let redis = current(&state);
        let same = match (&listening, &redis) {
            (Some((heard, _)), Some(redis)) => heard.is(redis),
            (None, None) => true,
            _ => false,
        };
        if !same {
            listening = redis.clone().map(|redis| {
                let listener = redis.listen(channel, nudged.clone());
                (redis, listener)
            });
        }
        if tokio::time::timeout(LOOK, announced()).await.is_ok()
            && let Some(redis) = redis
        {
            // Away: then the others find it when they look by themselves.
            let _ = redis.nudge(channel).await;
        }
    }
}
