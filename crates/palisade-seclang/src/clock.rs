//! Time, handed in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the engine takes time from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Time since some fixed moment; never goes back. Read for the budget of a transaction.
    fn monotonic(&self) -> Duration;

    /// CPU time that the calling thread has used, where that can be told: a budget is of this time then, and a machine that
    /// has other things to do does not use it up. Read where the budget is long over by the other clock, so it may be slow.
    fn cpu(&self) -> Option<Duration> {
        None
    }

    /// Seconds since 1970, for the `TIME` variables and for collections that expire.
    fn epoch(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// Counts from now.
    pub fn new() -> SystemClock {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn cpu(&self) -> Option<Duration> {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
    }

    fn epoch(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}

/// Until when rules may be evaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    monotonic: Duration,
    cpu: Cpu,
    budget: Duration,
}

/// A shorter budget is kept to exactly, whatever there is to do.
const SHORT: Duration = Duration::from_millis(1);

/// Until when by the clock of CPU time.
#[derive(Debug, Clone, Copy)]
enum Cpu {
    /// Not asked yet: a system call, which costs as much as some rules.
    Unasked,
    Until(Duration),
    /// Nobody can tell.
    Unknown,
}

impl Deadline {
    /// Begins now. Where there is `little` to do, the clock of CPU time is asked only once more than the budget has passed,
    /// and counts from there: it takes a machine that has other things to do for so little to take so long.
    pub(crate) fn new(clock: &dyn Clock, budget: Duration, little: bool) -> Deadline {
        let later = |now: Duration| now.saturating_add(budget);
        let cpu = if little && budget >= SHORT {
            Cpu::Unasked
        } else {
            clock.cpu().map_or(Cpu::Unknown, |now| Cpu::Until(later(now)))
        };
        Deadline { monotonic: later(clock.monotonic()), cpu, budget }
    }

    /// Whether the budget is used up. Costs the cheap clock only as long as not even that much time has passed.
    pub(crate) fn is_over(&mut self, clock: &dyn Clock) -> bool {
        if clock.monotonic() <= self.monotonic {
            return false;
        }
        match (self.cpu, clock.cpu()) {
            (Cpu::Until(end), Some(now)) => now > end,
            (Cpu::Unasked, Some(now)) => {
                self.cpu = Cpu::Until(now.saturating_add(self.budget));
                false
            }
            _ => true,
        }
    }

    /// What of the budget was used.
    pub(crate) fn used(&self, clock: &dyn Clock) -> Duration {
        let since = |end: Duration, now: Duration| (now + self.budget).saturating_sub(end);
        match (self.cpu, clock.cpu()) {
            (Cpu::Until(end), Some(now)) => since(end, now),
            _ => since(self.monotonic, clock.monotonic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Set(u64, Option<u64>);

    impl Clock for Set {
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0)
        }

        fn cpu(&self) -> Option<Duration> {
            self.1.map(Duration::from_millis)
        }

        fn epoch(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_budget_is_of_cpu_time_where_that_is_known() {
        let mut deadline = Deadline::new(&Set(100, Some(5)), Duration::from_millis(50), false);
        for (now, cpu, over, used) in [(150, 5, false, 0), (900, 55, false, 50), (151, 56, true, 51)] {
            let clock = Set(now, Some(cpu));
            assert_eq!((deadline.is_over(&clock), deadline.used(&clock)), (over, Duration::from_millis(used)));
        }
        let mut late = Deadline::new(&Set(100, Some(5)), Duration::from_millis(50), true);
        for (now, cpu, over) in [(150, 55, false), (900, 60, false), (901, 110, false), (902, 111, true)] {
            assert_eq!(late.is_over(&Set(now, Some(cpu))), over, "{now}");
        }
        let mut deadline = Deadline::new(&Set(100, None), Duration::from_millis(50), false);
        assert!(!deadline.is_over(&Set(150, None)) && deadline.is_over(&Set(151, None)));
        assert_eq!(deadline.used(&Set(130, None)), Duration::from_millis(30));
        let spent = SystemClock::new().cpu().unwrap();
        assert!(spent > Duration::ZERO);
    }
}
