//! How a dependency is doing, as operators see it: one state, when it began, why, and how often work went on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use palisade_base::Timestamp;
use parking_lot::Mutex;

use super::Away;
use crate::observe::{Log, event};

/// So long nothing may have failed before it counts as back: one connection of several that works again says little.
const SETTLED: Duration = Duration::from_secs(1);

/// The state of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked it yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, and why.
    Away(Away),
}

/// Kept by whoever asks it.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    target: String,
    log: Arc<Log>,
    /// Whether it is up: looked at by every call.
    up: AtomicBool,
    /// Requests that were decided without it.
    without: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    state: State,
    since: Timestamp,
    began: Instant,
    failed: Option<Instant>,
}

impl Health {
    /// Of a dependency that nobody has asked yet.
    pub(crate) fn new(name: &'static str, target: String, log: Arc<Log>) -> Self {
        let facts = Facts { state: State::Unknown, since: log.clock.now(), began: log.clock.instant(), failed: None };
        Self { name, target, log, up: AtomicBool::new(false), without: AtomicU64::new(0), facts: Mutex::new(facts) }
    }

    /// What it is called in status and metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is, without a password.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How it is, and since when.
    pub fn state(&self) -> (State, Timestamp) {
        let facts = self.facts.lock();
        (facts.state.clone(), facts.since)
    }

    /// Whether it answers, as far as is known.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// How many requests were decided without it.
    pub fn decided_without(&self) -> u64 {
        self.without.load(Ordering::Relaxed)
    }

    /// A request was decided without it.
    pub(crate) fn without(&self) {
        self.without.fetch_add(1, Ordering::Relaxed);
    }

    /// It has answered.
    pub(crate) fn good(&self) {
        if !self.is_up() {
            self.back();
        }
    }

    #[cold]
    fn back(&self) {
        let mut facts = self.facts.lock();
        let now = self.log.clock.instant();
        if facts.state == State::Up || facts.failed.is_some_and(|failed| now.duration_since(failed) < SETTLED) {
            return;
        }
        if matches!(facts.state, State::Away(_)) {
            let away = u64::try_from(now.duration_since(facts.began).as_millis()).unwrap_or(u64::MAX);
            drop(
                event::BACK
                    .line(&self.log)
                    .str("dependency", self.name)
                    .str("target", &self.target)
                    .u64("after_ms", away),
            );
        }
        self.enter(&mut facts, State::Up);
    }

    /// It has not answered a call.
    pub(crate) fn bad(&self, away: &Away) {
        let mut facts = self.facts.lock();
        facts.failed = Some(self.log.clock.instant());
        if matches!(facts.state, State::Away(_)) {
            return;
        }
        let line = event::AWAY.line(&self.log).str("dependency", self.name).str("target", &self.target);
        drop(line.str("reason", away.why()));
        self.enter(&mut facts, State::Away(away.clone()));
    }

    fn enter(&self, facts: &mut Facts, state: State) {
        self.up.store(state == State::Up, Ordering::Relaxed);
        *facts = Facts { state, since: self.log.clock.now(), began: self.log.clock.instant(), failed: facts.failed };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_base::Clock;

    #[test]
    fn it_is_away_at_once_and_back_when_it_has_settled() {
        let clock = Clock::adjustable();
        let health = Health::new("redis", "redis://a".into(), Arc::new(Log::off(clock.clone())));
        assert_eq!((health.state().0, health.is_up()), (State::Unknown, false));
        health.good();
        assert_eq!(health.state().0, State::Up);
        let gone = Away::new("gone");
        health.bad(&gone);
        health.good();
        assert_eq!((health.state().0, health.is_up()), (State::Away(gone.clone()), false));
        health.bad(&Away::new("still gone"));
        let since = health.state().1;
        clock.advance(SETTLED);
        health.good();
        assert_eq!((health.state().0, health.is_up()), (State::Up, true));
        assert!(health.state().1 > since);
    }
}
