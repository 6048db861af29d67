//! The answer to a violation, and the end of its connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Guard;
use crate::Violation;

/// What a client may still send while it should be reading its answer.
const MAX_DRAIN: usize = 256 * 1024;
/// Of it in one go, so that a fast sender does not keep a core.
const DRAIN_AT_ONCE: usize = 64 * 1024;

/// How far the end of a connection has come.
#[derive(Debug)]
pub(super) struct Refusal {
    violation: Violation,
    /// It happened in a body: the service waits for the rest of it, and must get an error.
    in_body: bool,
    stage: Stage,
    /// All of the following has to be over by then.
    until: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// The answers before it come first.
    Waiting,
    Writing(Bytes),
    Flushing,
    Closing,
    /// Our side is closed; what the client sends is thrown away. Closing with unread bytes would make the kernel send
    /// a reset, and that takes the answer out of the client's hands. Bytes thrown away so far.
    Draining(usize),
    /// The reader sees the end of the stream, or an error.
    Over,
}

impl Refusal {
    pub(super) fn new(violation: Violation, in_body: bool) -> Self {
        Refusal { violation, in_body, stage: Stage::Waiting, until: None }
    }

    /// From here on nobody else writes.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Waiting)
    }
}

impl<IO, F> Guard<IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Violation) -> Bytes,
{
    /// What the server writes: answers that began before a refusal pass, the one that the refusal replaces does not.
    pub(super) fn before_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.refusal.as_ref().is_some_and(Refusal::has_begun) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.unflushed = true;
        // `100 Continue` is no answer, and the server writes it on its own, between two others.
        if !bytes.starts_with(b"HTTP/1.1 100 ") {
            self.shared.note_write();
        }
        Ok(())
    }

    /// Drives the refusal to its end. Ready: what the reader gets to see.
    pub(super) fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(())) };
            match &mut refusal.stage {
                Stage::Waiting => {
                    let (violation, in_body) = (refusal.violation, refusal.in_body);
                    // Before the turn is looked at, or an answer that ends in between would wake nobody.
                    self.shared.wait(cx.waker());
                    let may_answer = ready!(self.poll_turn(in_body));
                    // The answer is rendered in any case: that is also where the violation is logged.
                    let answer = self.answer.take().map(|answer| answer(&violation)).unwrap_or_default();
                    self.set_stage(if may_answer { Stage::Writing(answer) } else { Stage::Over });
                    if let Some(refusal) = &mut self.refusal {
                        refusal.until = Instant::now().checked_add(self.config.linger);
                    }
                    continue;
                }
                Stage::Over if refusal.in_body => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.violation)));
                }
                Stage::Over => return Poll::Ready(Ok(())),
                _ => {}
            }
            if self.poll_stage(cx).is_pending() {
                if let Some(until) = self.refusal.as_ref().and_then(|refusal| refusal.until) {
                    ready!(self.poll_timer(until, cx));
                } else {
                    return Poll::Pending;
                }
                self.set_stage(Stage::Over);
            }
        }
    }

    /// Whether all that must be written before is written; and then, whether the violation gets an answer of ours.
    fn poll_turn(&self, in_body: bool) -> Poll<bool> {
        let passed = self.follow.passed;
        let may_answer = match (in_body, self.shared.is_busy(passed)) {
            (false, busy) if busy || self.unflushed => return Poll::Pending,
            (false, _) => true,
            // Its answer was complete before its body was: another one would be the answer to nothing.
            (true, false) => false,
            (true, true) if !self.shared.is_last_in_service(passed) => return Poll::Pending,
            // Half of an answer is on its way: it cannot be taken back, only left without its end.
            (true, true) if self.shared.has_answer_begun() => false,
            (true, true) if self.unflushed => return Poll::Pending,
            (true, true) => true,
        };
        Poll::Ready(may_answer)
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(refusal) = &mut self.refusal {
            refusal.stage = stage;
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(()) };
        let next = match &mut refusal.stage {
            Stage::Writing(bytes) => match bytes.is_empty() {
                true => Stage::Flushing,
                false => match ready!(Pin::new(&mut self.io).poll_write(cx, bytes)) {
                    Ok(0) | Err(_) => Stage::Over,
                    Ok(count) => {
                        bytes.advance(count);
                        return Poll::Ready(());
                    }
                },
            },
            Stage::Flushing => match ready!(Pin::new(&mut self.io).poll_flush(cx)) {
                Ok(()) => Stage::Closing,
                Err(_) => Stage::Over,
            },
            Stage::Closing => match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
                Ok(()) => Stage::Draining(0),
                Err(_) => Stage::Over,
            },
            Stage::Draining(drained) => {
                let mut block = [0u8; 2048];
                let mut buf = ReadBuf::new(&mut block);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                    Ok(()) if !buf.filled().is_empty() && *drained < MAX_DRAIN => {
                        let before = *drained / DRAIN_AT_ONCE;
                        *drained += buf.filled().len();
                        if *drained / DRAIN_AT_ONCE > before {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        return Poll::Ready(());
                    }
                    _ => Stage::Over,
                }
            }
            Stage::Waiting | Stage::Over => return Poll::Ready(()),
        };
        refusal.stage = next;
        Poll::Ready(())
    }
}
