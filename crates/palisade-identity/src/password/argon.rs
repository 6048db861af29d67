//! argon2 itself, and what it may cost.

use argon2::{Algorithm, Argon2, Params, Version};

/// What one hash of ours costs. At least what OWASP recommends; the default is its first choice that fits a small
/// machine: 19 MiB, two passes, one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// Memory and passes under those of OWASP's table, or over what the pool is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "argon2id needs at least 46 MiB and 1 pass, 19 MiB and 2, 12 MiB and 3, 9 MiB and 4 or 7 MiB and 5, and at most 1 GiB \
     and 64 passes"
)]
pub struct BadCost;

/// OWASP's choices, of equal strength: (KiB, passes).
const OWASP: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

impl Cost {
    /// OWASP's recommendation.
    pub const DEFAULT: Self = Self { memory_kib: 19_456, passes: 2 };

    /// Another cost, of at least the same strength.
    ///
    /// # Errors
    /// When it is weaker than every row of OWASP's table, or far too large.
    pub fn new(memory_kib: u32, passes: u32) -> Result<Self, BadCost> {
        let strong = OWASP.iter().any(|&(memory, least)| memory_kib >= memory && passes >= least);
        (strong && memory_kib <= 1 << 20 && passes <= 64).then_some(Self { memory_kib, passes }).ok_or(BadCost)
    }

    /// Bytes that one hash holds while it is computed.
    pub const fn memory_bytes(self) -> u64 {
        self.memory_kib as u64 * 1024
    }

    pub(super) const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    pub(super) const fn passes(self) -> u32 {
        self.passes
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One computation. `None` when the parameters are none that argon2 knows.
pub(super) struct Job<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
    pub(super) pepper: Option<&'a [u8]>,
    pub(super) salt: &'a [u8],
    pub(super) length: usize,
}

impl Job<'_> {
    pub(super) fn hash(&self, password: &[u8]) -> Option<Vec<u8>> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(self.length)).ok()?;
        let argon = match self.pepper {
            Some(pepper) => Argon2::new_with_secret(pepper, self.algorithm, self.version, params).ok()?,
            None => Argon2::new(self.algorithm, self.version, params),
        };
        #[cfg(test)]
        WORK.with(|work| work.set(work.get() + u64::from(self.memory_kib) * u64::from(self.passes)));
        let mut out = vec![0; self.length];
        argon.hash_password_into(password, self.salt, &mut out).ok()?;
        Some(out)
    }
}

#[cfg(test)]
thread_local! {
    /// KiB touched by this thread: what a test of equal work compares, where time would depend on the machine.
    pub(super) static WORK: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs() {
        for (memory, passes, fits) in [
            (19_456, 2, true),
            (47_104, 1, true),
            (7_168, 5, true),
            (65_536, 3, true),
            (19_455, 2, false),
            (19_456, 1, false),
            (7_167, 64, false),
            (1 << 21, 3, false),
            (19_456, 65, false),
            (0, 0, false),
        ] {
            assert_eq!(Cost::new(memory, passes).is_ok(), fits, "{memory} KiB, {passes} passes");
        }
    }
}
