//! What the streams of an HTTP/2 connection share, and the tasks that answer them.
//!
//! Guide section 21. A client that opens no window, or does not read, would otherwise hold a stream, its task and its
//! connection to the application for as long as it likes, and each of them an answer in memory.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::turns::Share;
use crate::body::{BodyError, ResponseBody};

/// What all answers of a connection may have handed to the library without it being written, in bytes.
const UNWRITTEN: usize = 1024 * 1024;

/// The largest piece of an answer, in bytes: a client that takes a byte of each of its streams makes us keep one for each.
const FRAME: usize = 64 * 1024;
/// The same where few answers run beside it: what is moved in large pieces costs a tenth less.
const LARGE_FRAME: usize = 256 * 1024;
/// So many answers of a connection may come in large pieces.
const FEW: u32 = 8;

/// Shared by the streams of a connection and the guard round its bytes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Requests whose answer is not over.
    running: AtomicU32,
    /// A request was answered.
    answered: AtomicBool,
    /// A stream was given up, by either side.
    given_up: AtomicBool,
    unwritten: AtomicUsize,
    /// Pieces of answers since somebody asked.
    pieces: AtomicU32,
    /// Trailers that were handed to the library and are not written. Those of a stream that was given up stay counted.
    trailers: AtomicUsize,
    waiting: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Streams {
    /// A request has come. Its token is to be kept until its answer is over.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// A stream was given up.
    pub(super) fn gave_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether a request of this connection was ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }

    /// How many pieces of answers there were since this was asked. They are as the application made them, however a client
    /// has them cut by its windows.
    pub(super) fn take_pieces(&self) -> u32 {
        self.pieces.swap(0, Ordering::Relaxed)
    }

    /// How many heads may be trailers of what is to be written.
    pub(super) fn trailers(&self) -> usize {
        self.trailers.load(Ordering::Relaxed)
    }

    /// One of them was written.
    pub(super) fn trailers_written(&self) {
        // Taken away by the connection's task alone.
        if self.trailers() > 0 {
            self.trailers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// So much was written.
    pub(super) fn wrote(&self, bytes: usize) {
        let old = self.unwritten.load(Ordering::Relaxed);
        self.set_unwritten(old.saturating_sub(bytes));
    }

    /// All is written that may be. What is left waits for the client's window, or belongs to streams that are gone.
    pub(super) fn flushed(&self) {
        if self.unwritten.load(Ordering::Relaxed) != 0 {
            self.set_unwritten(0);
        }
    }

    fn set_unwritten(&self, bytes: usize) {
        // Written by the connection's task and added to by those of its streams: where they run on several threads a
        // piece may be missed, and is mended at the next flush.
        self.unwritten.store(bytes, Ordering::Relaxed);
        if bytes < UNWRITTEN / 2 && self.waiting.swap(false, Ordering::AcqRel) {
            self.wakers.lock().drain(..).for_each(Waker::wake);
        }
    }

    /// Whether an answer may hand over more.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.unwritten.load(Ordering::Relaxed) < UNWRITTEN {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.lock();
        // As many as there are streams, of which there are few.
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        drop(wakers);
        self.waiting.store(true, Ordering::Release);
        // It may have been written in between.
        if self.unwritten.load(Ordering::Acquire) < UNWRITTEN { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A request whose answer is not over.
#[derive(Debug)]
pub(super) struct Running(Arc<Streams>);

impl Running {
    /// There is an answer.
    pub(super) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Lets a request wait for its turn once, where its connection gave up others or has nothing to show yet. By then the
    /// library knows which ones were given up in the breath in which they were begun, and ends them: neither a connection
    /// to the application nor a line of the log is spent on them (CVE-2023-44487).
    pub(super) async fn turn(&self) {
        if self.0.given_up.load(Ordering::Relaxed) || !self.0.answered.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose turn it is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Ours, or the application's.
    Ours,
    /// The client's: it has so many pieces of the answer to take, and nobody asked for another.
    Client(u32),
}

thread_local! {
    /// Of the stream whose task is being polled on this thread: the library has no way to hand something from the body of
    /// an answer to the task that sends it.
    static TURN: Cell<Turn> = const { Cell::new(Turn::Ours) };
}

/// The body of an answer over HTTP/2.
#[derive(Debug)]
pub(super) struct Taking {
    body: ResponseBody,
    pieces: u32,
    running: Running,
    share: Share,
}

impl Taking {
    pub(super) fn new(mut body: ResponseBody, running: Running) -> Self {
        // Itself among them: whoever begins while fewer run is one of the few, whatever is begun later.
        let few = running.0.running.load(Ordering::Relaxed) <= FEW;
        body.set_largest_frame(if few { LARGE_FRAME } else { FRAME });
        Self { body, pieces: 0, running, share: Share::default() }
    }
}

impl Body for Taking {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        TURN.set(Turn::Client(self.pieces));
        ready!(self.running.0.poll_room(cx));
        TURN.set(Turn::Ours);
        ready!(self.share.poll(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.pieces = self.pieces.wrapping_add(1);
            self.running.0.pieces.fetch_add(1, Ordering::Relaxed);
            TURN.set(Turn::Client(self.pieces));
            self.share.moved(frame.data_ref().map_or(0, Bytes::len));
            let (counted, by) = match frame.data_ref() {
                Some(data) => (&self.running.0.unwritten, data.len()),
                None => (&self.running.0.trailers, 1),
            };
            counted.fetch_add(by, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the tasks of streams, and ends those whose client takes nothing for so long. Dropped, a stream is reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tasks(pub(super) Option<Duration>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Task { future, limit: self.0, turn: Turn::Ours, stall: None });
    }
}

pin_project! {
    /// A stream's task. Written out: a future that awaits another one holds it twice.
    struct Task<F> {
        #[pin]
        future: F,
        limit: Option<Duration>,
        turn: Turn,
        stall: Option<(Turn, Pin<Box<Sleep>>)>,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        TURN.set(*this.turn);
        let polled = this.future.poll(cx);
        let turn = TURN.get();
        *this.turn = turn;
        if polled.is_ready() || turn == Turn::Ours {
            return polled;
        }
        let Some(deadline) = this.limit.and_then(|limit| Instant::now().checked_add(limit)) else { return polled };
        let (of, timer) = this.stall.get_or_insert_with(|| (turn, Box::pin(tokio::time::sleep_until(deadline))));
        if *of != turn {
            *of = turn;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}
