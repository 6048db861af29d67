//! Which policy is in force, for what goes on longer than the one that it began under: streams.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::{Env, Policy};

/// The policy in force. Only pointed at: it holds the state that this lies in.
#[derive(Debug)]
pub(crate) struct InForce(watch::Sender<Weak<Policy>>);

impl Default for InForce {
    fn default() -> Self {
        Self(watch::Sender::new(Weak::new()))
    }
}

impl InForce {
    /// Of a gateway, by its state.
    pub(crate) fn of(env: &Env) -> Arc<Self> {
        env.state.get("policy", Self::default)
    }

    /// Says that this one is in force from now on.
    pub(crate) fn put(&self, policy: &Arc<Policy>) {
        self.0.send_replace(Arc::downgrade(policy));
    }

    /// The one in force, and a way to wait for the next.
    pub(crate) fn follow(&self) -> watch::Receiver<Weak<Policy>> {
        self.0.subscribe()
    }
}
