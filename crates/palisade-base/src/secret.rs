//! Secrets that cannot be printed by mistake, and the policy's way to name one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that must not reach a log, an error or a screen. `Debug` shows `[redacted]`, there is no `Display`, memory
/// is cleared on drop, and comparison takes the same time wherever the difference lies.
///
/// ```
/// # use palisade_base::Secret;
/// let token = Secret::new(String::from("s3cret"));
/// assert_eq!(format!("{token:?}"), "[redacted]");
/// assert!(token.matches(b"s3cret"));
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call is a place to look at in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Compares in constant time (lengths may show).
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A secret by its name in the secret store: `{ secret = "admin-token" }`. Guide section 11.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The name under which the secret store knows it.
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_and_compares() {
        let secret = Secret::new(String::from("hunter2"));
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("hunter2"));
        assert!(secret.matches(b"hunter2") && !secret.matches(b"hunter3") && !secret.matches(b"hunter"));
    }
}
