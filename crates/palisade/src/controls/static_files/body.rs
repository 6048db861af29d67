//! The bytes of a file, read in bounded pieces where waiting for a disk holds up no other request.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Semaphore;

use crate::body::BodyError;
use crate::context::Context;
use crate::observe::{event, redact};
use crate::refusal::Refusal;
use crate::server::descriptors::{self, Descriptor};
use crate::server::seats::{self, Seat};

/// How much of a file is in memory at once for one request.
pub(super) const PIECE: usize = 128 << 10;
/// How many requests wait for a disk at once, in the whole process. The others wait for their turn.
const READERS: usize = 32;

/// The turns of requests at the disk.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

impl Gate {
    /// Runs what may wait for a disk on a thread for that.
    ///
    /// # Errors
    /// When the server ends meanwhile.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let turn = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let job = move || {
            let outcome = job();
            drop(turn);
            outcome
        };
        tokio::task::spawn_blocking(job).await.map_err(io::Error::other)
    }
}

/// Reads a piece. A file that ends sooner than it said is an error.
pub(super) fn read(file: &File, length: u64) -> io::Result<Bytes> {
    let length = length.min(PIECE as u64);
    let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or(PIECE));
    file.take(length).read_to_end(&mut piece)?;
    if (piece.len() as u64) < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
    }
    Ok(piece.into())
}

/// What an open file takes while it is sent, given back with it.
#[derive(Debug)]
pub(super) struct Held {
    _seat: Seat,
    _descriptor: Descriptor,
}

impl Held {
    /// For a file that is about to be opened.
    ///
    /// # Errors
    /// When there is no place for another one.
    pub(super) fn take(ctx: &Context) -> Result<Self, Refusal> {
        let seat = seats::take(ctx)?;
        let Some(descriptor) = descriptors::take(&ctx.policy.env().state) else {
            return Err(seats::REQUESTS.refuse("no descriptor for a file").retry_after(1));
        };
        Ok(Self { _seat: seat, _descriptor: descriptor })
    }
}

type Reading = Pin<Box<dyn Future<Output = io::Result<(File, io::Result<Bytes>)>> + Send>>;

/// What is left to be sent of a file. Ends with an error, and so with the connection, where the file does not hold what
/// its length promised.
pub(super) struct FileBody {
    gate: Gate,
    ctx: Arc<Context>,
    first: Bytes,
    file: Option<File>,
    reading: Option<Reading>,
    left: u64,
    _held: Held,
}

impl std::fmt::Debug for FileBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBody").field("left", &self.left).finish_non_exhaustive()
    }
}

impl FileBody {
    /// `length` bytes, of which `first` were read already; the rest follows in `file`.
    pub(super) fn new(gate: Gate, ctx: Arc<Context>, first: Bytes, (file, held): (File, Held), length: u64) -> Self {
        Self { gate, ctx, first, file: Some(file), reading: None, left: length, _held: held }
    }

    fn failed(&mut self, error: io::Error) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        event::FILE_BROKEN
            .line(&self.ctx.policy.env().log)
            .str("path", &redact::path(self.ctx.path()))
            .show("reason", &error)
            .str("request_id", self.ctx.request_id().as_str());
        self.left = 0;
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let first = std::mem::take(&mut this.first);
            this.left -= first.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let reading = match (&mut this.reading, this.file.take()) {
            (Some(reading), _) => reading,
            (None, Some(file)) => {
                let (gate, left) = (this.gate.clone(), this.left);
                let job = move || {
                    let piece = read(&file, left);
                    (file, piece)
                };
                this.reading.insert(Box::pin(async move { gate.run(job).await }))
            }
            (None, None) => return Poll::Ready(None),
        };
        let outcome = ready!(reading.as_mut().poll(cx));
        this.reading = None;
        match outcome {
            Ok((file, Ok(piece))) => {
                this.file = Some(file);
                this.left -= piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok((_, Err(error))) | Err(error) => this.failed(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
