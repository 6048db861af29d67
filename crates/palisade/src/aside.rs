//! Work that takes longer than an I/O thread may: it runs aside, a bounded number of pieces at a time.
//!
//! As many pieces as there are cores run at once, over all I/O threads; others wait for their turn, and the requests
//! that cost little go on meanwhile.

use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

static PLACES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))));

/// Runs some work on another thread and waits for it. A panic in it goes on here.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let place = Arc::clone(&PLACES).acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        // Given back when the work has ended, not when nobody waits for it any more.
        drop(place);
        done
    });
    match done.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only as the whole runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn the_outcome_comes_back_and_so_does_a_panic() {
        assert_eq!(super::run(|| 7).await, 7);
        for _ in 0..200 {
            let panicked = std::panic::AssertUnwindSafe(super::run(|| panic!("on purpose"))).catch_unwind().await;
            assert!(panicked.is_err());
        }
        assert_eq!(super::run(|| 8).await, 8, "no place is lost");
    }
}
