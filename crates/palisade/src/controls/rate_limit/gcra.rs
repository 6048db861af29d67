//! The arithmetic of a limit: the generic cell rate algorithm (ITU-T I.371), in nanoseconds.
//!
//! One number a key, the *theoretical arrival time*: when the bucket will be full again. From rest `burst` units pass at
//! once, then one every `interval`.

use palisade_base::Rate;

/// A rate as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// Nanoseconds until one unit is back. Rounded up, so that never more passes than the rate says.
    interval: u64,
    /// Nanoseconds until an empty bucket is full.
    tolerance: u64,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The new theoretical arrival time; none where the attempt was refused, which costs nothing.
    pub(super) store: Option<u64>,
    /// Units that are left.
    pub(super) left: u64,
    /// What was there before, as far as this quota reaches: a bucket that was kept under a slower rate counts as empty at
    /// most, and only from the first look on, or it would stay empty until that slower rate had filled it.
    pub(super) owed: u64,
    /// Nanoseconds: until the next unit is there; of a refused attempt, until it would pass.
    pub(super) wait: u64,
}

/// A hundred years, the longest time that the policy can name.
const LONGEST: u64 = 100 * 365 * 86_400 * 1_000_000_000;

impl Quota {
    /// A rate with a bucket of `burst` units. `None`: filling the bucket would take longer than a hundred years.
    pub(super) fn new(rate: Rate, burst: u32) -> Option<Self> {
        let period = u64::try_from(rate.period().as_nanos()).ok()?;
        let interval = period.div_ceil(u64::from(rate.amount())).max(1);
        let tolerance = interval.checked_mul(u64::from(burst)).filter(|full| *full <= LONGEST)?;
        Some(Self { interval, tolerance })
    }

    /// The same at a multiple of the rate: `times` as many units in the same time.
    pub(super) fn times(self, times: u64) -> Self {
        let interval = self.interval.div_ceil(times).max(1);
        // A tolerance that is a whole number of intervals, also where the division was not even.
        Self { interval, tolerance: interval * (self.tolerance / self.interval * times) }
    }

    /// Takes `cost` units at `now` from a bucket that is full at `full_at`. A bucket that was kept under a slower rate
    /// counts as empty at most: a new policy neither refills nor locks out for longer than its own period.
    pub(super) fn take(&self, full_at: u64, cost: u32, now: u64) -> Outcome {
        let full_at = full_at.clamp(now, now.saturating_add(self.tolerance));
        let after = full_at.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        let used = after - now;
        match self.tolerance.checked_sub(used) {
            Some(rest) => Outcome {
                store: Some(after),
                owed: full_at,
                left: rest / self.interval,
                wait: self.interval - rest % self.interval,
            },
            None => {
                let rest = self.tolerance - (full_at - now);
                Outcome { store: None, owed: full_at, left: rest / self.interval, wait: used - self.tolerance }
            }
        }
    }

    /// Nanoseconds until an empty bucket is full.
    pub(super) fn tolerance(&self) -> u64 {
        self.tolerance
    }

    /// The time that `cost` units stand for.
    pub(super) fn worth(&self, cost: u32) -> u64 {
        self.interval.saturating_mul(u64::from(cost))
    }
}

/// The model, naively: the times of all units taken, each of which is back one interval after the one before it (or
/// after its own taking, from rest).
#[cfg(test)]
#[derive(Default)]
pub(super) struct Model {
    back_at: Vec<u64>,
}

#[cfg(test)]
impl Model {
    /// Takes `cost` units at a time that is not before the last one, where there are so many.
    pub(super) fn take(&mut self, interval: u64, burst: usize, cost: u32, now: u64) -> bool {
        self.back_at.retain(|at| *at > now);
        if self.back_at.len() + cost as usize > burst {
            return false;
        }
        for _ in 0..cost {
            let last = self.back_at.last().copied().unwrap_or(now);
            self.back_at.push(last + interval);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_naive_model(
            amount in 1u32..50,
            burst in 1u32..60,
            seconds in 1u64..100,
            steps in prop::collection::vec((0u64..3_000_000_000, 1u32..4), 1..200),
        ) {
            let rate: Rate = format!("{amount}/{seconds} seconds").parse().unwrap();
            let quota = Quota::new(rate, burst).unwrap();
            let interval = (seconds * 1_000_000_000).div_ceil(u64::from(amount));
            let (mut model, mut full_at, mut now) = (Model::default(), 0, 1_000_000);
            for (pause, cost) in steps {
                now += pause;
                let outcome = quota.take(full_at, cost, now);
                let passes = model.take(interval, burst as usize, cost, now);
                prop_assert_eq!(outcome.store.is_some(), passes);
                prop_assert_eq!(outcome.left, u64::from(burst) - model.back_at.len() as u64);
                if let Some(stored) = outcome.store {
                    full_at = stored;
                } else if cost <= burst {
                    // Exactly as long as it says, and not a nanosecond less.
                    prop_assert!(quota.take(full_at, cost, now + outcome.wait).store.is_some());
                    prop_assert!(quota.take(full_at, cost, now + outcome.wait - 1).store.is_none());
                }
            }
        }
    }

    #[test]
    fn n_at_once_then_one_every_nth_of_the_period() {
        let quota = Quota::new("5/minute".parse().unwrap(), 5).unwrap();
        let (second, mut full_at) = (1_000_000_000, 0);
        for left in (0..5).rev() {
            let outcome = quota.take(full_at, 1, 0);
            assert_eq!((outcome.left, outcome.wait), (left, 12 * second));
            full_at = outcome.store.unwrap();
        }
        let refused = quota.take(full_at, 1, 0);
        assert_eq!(refused, Outcome { store: None, owed: full_at, left: 0, wait: 12 * second });
        assert!(quota.take(full_at, 1, 12 * second - 1).store.is_none());
        assert!(quota.take(full_at, 1, 12 * second).store.is_some());
        let wide = quota.times(16);
        assert_eq!((wide.take(0, 80, 0).left, wide.take(0, 81, 0).store), (0, None));
    }

    #[test]
    fn another_rate_neither_refills_nor_locks_out() {
        let day = Quota::new("10/day".parse().unwrap(), 10).unwrap();
        let second = Quota::new("10/second".parse().unwrap(), 10).unwrap();
        let full_at = (0..10).fold(0, |full_at, _| day.take(full_at, 1, 0).store.unwrap());
        assert_eq!(second.take(full_at, 1, 0).wait, 100_000_000);
        assert!(Quota::new("1/100 years".parse().unwrap(), 2).is_none());
    }
}
