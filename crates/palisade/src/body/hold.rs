//! Bodies that are held back until they have been judged.
//!
//! Nothing of the body is released before the last inspector has seen its end, as long as it is no longer than they want
//! to hold. Of a longer one the rest streams, but for its end: no application sees that of a body that was not judged, and
//! one that is refused ends before it. What the end is, inspectors say ([`Inspect::keeps`]): a parser may stop reading
//! before the last byte.
//!
//! [`Inspect::keeps`]: crate::control::Inspect::keeps

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::{BodyError, Refused, RequestBody, Watch};

/// What is held back of a body.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// How many bytes before anything is released.
    pub(super) limit: usize,
    bytes: usize,
    /// Bytes of the frames that were not released.
    held: usize,
    frames: VecDeque<Frame<Bytes>>,
    /// Whether its beginning was judged, where it is longer than the limit.
    begun: bool,
    judging: Option<Judging>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Reading,
    /// All who held it back have seen enough: what was read goes, and the rest streams.
    Streaming,
    /// Judged: all may go.
    Judged,
    /// It broke off, or was refused.
    Failed(Option<BodyError>),
}

struct Judging(Pin<Box<dyn Future<Output = Judged> + Send>>);

/// What is judged.
enum Seen {
    /// All that came of a body that is too long to be held back.
    Beginning(Vec<Bytes>),
    /// As much as somebody wants.
    Enough,
    /// All of it.
    Whole,
}

/// The inspectors after a judgement, and what it was.
struct Judged {
    watch: Box<Watch>,
    seen: Seen,
    result: Result<(), Refused>,
}

impl Judged {
    fn of(mut watch: Box<Watch>, seen: Seen) -> Self {
        let result = match &seen {
            Seen::Beginning(pieces) => watch.begin(pieces),
            Seen::Enough => watch.finish(false),
            Seen::Whole => watch.finish(true),
        };
        Self { watch, seen, result }
    }
}

impl fmt::Debug for Judging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judging")
    }
}

impl Hold {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Judged) && self.frames.is_empty()
    }

    /// Bytes that were read and not released.
    pub(super) fn held(&self) -> u64 {
        self.held as u64
    }

    fn fail(&mut self, error: BodyError) {
        self.frames.clear();
        self.held = 0;
        self.state = State::Failed(Some(error));
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        self.bytes = self.bytes.saturating_add(length(&frame));
        self.held = self.held.saturating_add(length(&frame));
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        self.held = self.held.saturating_sub(length(&frame));
        Some(frame)
    }

    /// Whether nothing may go yet. What is being judged waits for it, however much there is.
    fn waits(&self) -> bool {
        self.bytes <= self.limit || !self.begun || self.judging.is_some()
    }

    /// The next frame that may go though the whole was not judged: with so many bytes behind it. Frames without any, the
    /// empty ones that end a stream and trailers, are no end of a body.
    fn pop_before(&mut self, keeps: usize) -> Option<Frame<Bytes>> {
        let behind = self.held.saturating_sub(length(self.frames.front()?));
        if self.waits() || behind < keeps.max(1) { None } else { self.pop() }
    }
}

/// Bytes of a frame.
fn length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}

impl RequestBody {
    /// Whether some of it is to be held back.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Reads ahead until the whole body was judged, or as far as it is held back. A refusal waits in the request's
    /// context; any other error comes where it was.
    pub(crate) async fn hold(&mut self) {
        poll_fn(|cx| {
            loop {
                match &self.hold {
                    Some(hold) if matches!(hold.state, State::Reading) && hold.waits() => {}
                    _ => return Poll::Ready(()),
                }
                ready!(self.poll_ahead(cx));
            }
        })
        .await;
    }

    /// One step ahead: the next frame, or a judgement, at the end or where the body turns out to be long.
    fn poll_ahead(&mut self, cx: &mut Task<'_>) -> Poll<()> {
        let Some(hold) = &mut self.hold else { return Poll::Ready(()) };
        if let Some(judging) = &mut hold.judging {
            let judged = ready!(judging.0.as_mut().poll(cx));
            hold.judging = None;
            self.judged(judged);
            return Poll::Ready(());
        }
        if hold.bytes > hold.limit && !hold.begun {
            hold.begun = true;
            if let Some(watch) = self.watch.take_if(|watch| watch.begins()) {
                let pieces = hold.frames.iter().filter_map(Frame::data_ref).cloned().collect();
                self.judge(watch, Seen::Beginning(pieces));
            }
            return Poll::Ready(());
        }
        match ready!(self.poll_streamed(cx)) {
            Some(Ok(frame)) => {
                if let Some(hold) = &mut self.hold {
                    hold.push(frame);
                }
                if let Some(watch) = self.watch.take_if(|watch| watch.lets_go()) {
                    self.judge(watch, Seen::Enough);
                }
            }
            Some(Err(error)) => {
                if let Some(hold) = &mut self.hold {
                    hold.fail(error);
                }
            }
            None => match (self.watch.take(), &mut self.hold) {
                (Some(watch), _) => self.judge(watch, Seen::Whole),
                (None, Some(hold)) => hold.state = State::Judged,
                (None, None) => {}
            },
        }
        Poll::Ready(())
    }

    /// Judges, aside where that may take long.
    fn judge(&mut self, watch: Box<Watch>, seen: Seen) {
        match &mut self.hold {
            Some(hold) if watch.is_slow() => {
                let judging = crate::aside::run(move || Judged::of(watch, seen));
                hold.judging = Some(Judging(Box::pin(judging)));
            }
            _ => self.judged(Judged::of(watch, seen)),
        }
    }

    fn judged(&mut self, judged: Judged) {
        if judged.result.is_err() {
            self.abandon();
        }
        let Some(hold) = &mut self.hold else { return };
        match (judged.result, judged.seen) {
            (Ok(()), Seen::Whole) => hold.state = State::Judged,
            (Ok(()), Seen::Enough) => {
                if !judged.watch.holds() {
                    hold.state = State::Streaming;
                }
                self.watch = Some(judged.watch);
            }
            (Ok(()), Seen::Beginning(_)) => {
                hold.limit = judged.watch.limit();
                self.watch = Some(judged.watch);
            }
            (Err(refused), _) => hold.fail(Box::new(refused)),
        }
    }

    /// The next frame that may go.
    pub(super) fn poll_released(&mut self, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let keeps = self.watch.as_ref().map_or(1, |watch| watch.keeps());
            let Some(hold) = &mut self.hold else { return self.poll_streamed(cx) };
            match &mut hold.state {
                State::Judged => return Poll::Ready(hold.pop().map(Ok)),
                State::Streaming => match hold.pop() {
                    Some(frame) => return Poll::Ready(Some(Ok(frame))),
                    None => return self.poll_streamed(cx),
                },
                State::Failed(error) => return Poll::Ready(error.take().map(Err)),
                State::Reading => match hold.pop_before(keeps) {
                    Some(frame) => return Poll::Ready(Some(Ok(frame))),
                    None => ready!(self.poll_ahead(cx)),
                },
            }
        }
    }

    /// Whether everything was released, where some was held back.
    pub(super) fn is_released(&self) -> bool {
        match &self.hold {
            Some(hold) if matches!(hold.state, State::Streaming) => {
                hold.frames.is_empty() && self.inner.is_end_stream()
            }
            Some(hold) => hold.is_over(),
            None => self.inner.is_end_stream(),
        }
    }
}
