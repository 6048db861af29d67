//! How fast the body of a request must come.
//!
//! Guide section 21. A body that drips holds a connection, and one of the application's, for as long as its client likes.
//! Only the time counts in which the application waits for more of it: a slow application makes no client late.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Refused;
use crate::context::Context;
use crate::control::{ControlId, Mode};
use crate::controls::limits::BODY_TIME;

/// So many bytes buy another second.
const BYTES_A_SECOND: u64 = 500;

/// The time that a client has for a body.
#[derive(Debug)]
pub(crate) struct Pace {
    ctx: Arc<Context>,
    control: ControlId,
    mode: Mode,
    limit: Duration,
    /// Nothing was there when the application first asked.
    asked: bool,
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// In all, before this time.
    waited: Duration,
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Pace {
    pub(crate) fn new(ctx: &Arc<Context>, control: ControlId, mode: Mode, limit: Duration) -> Self {
        Self { ctx: Arc::clone(ctx), control, mode, limit, asked: false, waiting: None }
    }

    /// Something came, or the end.
    pub(super) fn came(&mut self) {
        if let Some(waiting) = &mut self.waiting
            && let Some(since) = waiting.since.take()
        {
            waiting.waited += since.elapsed();
        }
    }

    /// Nothing came yet. Ready once the time is over, with the refusal if there is one.
    pub(super) fn poll_late(&mut self, seen: u64, cx: &mut Task<'_>) -> Poll<Option<Refused>> {
        if self.ctx.is_answered() {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.asked, true) {
            // The HTTP library hands a body over only once somebody has asked for it, also one that is there: another look
            // costs less than a timer.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let allowed = self.limit.saturating_add(Duration::from_secs(seen / BYTES_A_SECOND));
        let now = Instant::now();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::new(Waiting { waited: Duration::ZERO, since: None, timer: Box::pin(tokio::time::sleep_until(now)) })
        });
        if waiting.since.is_none() {
            waiting.since = Some(now);
            // A time beyond what the clock can express is none.
            let Some(deadline) = now.checked_add(allowed.saturating_sub(waiting.waited)) else { return Poll::Pending };
            waiting.timer.as_mut().reset(deadline);
        }
        ready!(waiting.timer.as_mut().poll(cx));
        let refusal = BODY_TIME.refuse("slower than `limits.body_time` allows").with("bytes", seen.to_string()).close();
        Poll::Ready(if self.mode == Mode::Block {
            self.ctx.refuse_body(refusal);
            Some(Refused { code: &BODY_TIME })
        } else {
            self.ctx.would_refuse(self.control, self.mode, refusal);
            None
        })
    }
}
