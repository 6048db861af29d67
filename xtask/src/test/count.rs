//! The counts: read from what libtest prints, summed over all test binaries.

use std::fmt;

use super::step::Outcome;

/// Passed, failed and skipped tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// Reads a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    pub(crate) fn of_line(line: &str) -> Option<Count> {
        let (_, numbers) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let mut count = Count::default();
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            match what {
                "passed" => count.passed = number.parse().ok()?,
                "failed" => count.failed = number.parse().ok()?,
                "ignored" => count.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(count)
    }

    /// A step that failed without a failed test (it did not compile, a test binary died) counts as one failure: the
    /// last line must never say `0 failed` of a run that failed.
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.plus(outcome.count);
        if !outcome.passed && outcome.count.failed == 0 {
            self.failed += 1;
        }
    }

    pub(crate) fn plus(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// A test that said it did not run: libtest called it passed.
    pub(crate) fn skip_one(&mut self) {
        self.passed = self.passed.saturating_sub(1);
        self.skipped += 1;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libtest() {
        let cases = [
            (
                "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 7 filtered out; finished in 0.01s",
                Some(Count { passed: 12, failed: 0, skipped: 3 }),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.30s",
                Some(Count { passed: 1, failed: 2, skipped: 0 }),
            ),
            ("test result_is_read ... ok", None),
            ("running 12 tests", None),
            ("test result: ok", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Count::of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn a_failed_step_without_a_failed_test_is_a_failure() {
        let mut count = Count::default();
        count.add(&Outcome::failed());
        count.add(&Outcome { passed: false, count: Count { passed: 2, failed: 1, skipped: 0 } });
        count.add(&Outcome { passed: true, count: Count { passed: 4, failed: 0, skipped: 0 } });
        count.skip_one();
        assert_eq!(count.to_string(), "5 passed, 2 failed, 1 skipped");
    }
}
