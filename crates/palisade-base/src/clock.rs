//! Time that a test can turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// As a date and time of the `time` crate.
    pub fn date(self) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    }

    /// This instant moved by a length of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Where time comes from. The real clock costs nothing extra; a test holds one that it can advance.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    shift_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The clock of the machine.
    pub const fn real() -> Self {
        Self { shift_ms: None }
    }

    /// A clock that runs with the machine's and can be advanced.
    pub fn adjustable() -> Self {
        Self { shift_ms: Some(Arc::default()) }
    }

    /// Moves an adjustable clock forward; the real one stays as it is.
    pub fn advance(&self, duration: Duration) {
        if let Some(shift) = &self.shift_ms {
            shift.fetch_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    fn shift(&self) -> i64 {
        self.shift_ms.as_ref().map_or(0, |shift| shift.load(Ordering::Relaxed))
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(self.shift()))
    }

    /// A point on the monotonic clock, for measuring lengths.
    pub fn instant(&self) -> Instant {
        Instant::now() + Duration::from_millis(u64::try_from(self.shift()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjustable_clock_advances() {
        let clock = Clock::adjustable();
        let (before, instant) = (clock.now(), clock.instant());
        clock.advance(Duration::from_secs(3600));
        assert!(clock.now() >= before.plus(Duration::from_secs(3600)));
        assert!(clock.instant() - instant >= Duration::from_secs(3600));
    }
}
