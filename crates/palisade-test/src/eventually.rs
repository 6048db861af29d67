//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
pub(crate) const INTERVAL: Duration = Duration::from_millis(5);

/// The last look gets this much time, however little is left.
const LOOK: Duration = Duration::from_secs(1);

/// What a condition answers: not yet, or the value that was awaited.
pub trait Met {
    /// What there is once it is met.
    type Value;
    /// The value, if it is met.
    fn met(self) -> Option<Self::Value>;
}

impl Met for bool {
    type Value = ();
    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Met for Option<T> {
    type Value = T;
    fn met(self) -> Option<T> {
        self
    }
}

/// An error is `not yet`: a server that refuses connections may be about to accept them.
impl<T, E> Met for Result<T, E> {
    type Value = T;
    fn met(self) -> Option<T> {
        self.ok()
    }
}

/// Looks at a condition until it is met or the deadline has passed, at least once.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// let file = std::env::temp_dir();
/// palisade_test::eventually(Duration::from_secs(1), "the folder is there", async || file.exists()).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the deadline has passed; the error says `what` was awaited.
pub async fn eventually<M: Met>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> M,
) -> Result<M::Value> {
    let start = Instant::now();
    loop {
        // A look may hang (a server that accepts and does not answer), and is then given up at the deadline too.
        let left = deadline.saturating_sub(start.elapsed()).max(LOOK);
        if let Ok(Some(value)) = tokio::time::timeout(left, async { condition().await.met() }).await {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            bail!("not within {deadline:?}: {what}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_with_the_value_or_says_what_was_missing() {
        let mut asked = 0;
        let third = eventually(Duration::from_secs(10), "the third time", async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(third.await.unwrap(), 3);

        let never = eventually(Duration::from_millis(10), "pigs fly", async || false).await;
        assert!(never.unwrap_err().to_string().contains("pigs fly"));
    }
}
