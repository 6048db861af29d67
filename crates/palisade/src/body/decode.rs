//! Bodies whose `Content-Encoding` is undone before anybody reads them, and that are forwarded undone.
//!
//! Only so do rules and the application read the same bytes (threat 25). What comes out is bounded by what went in: a bomb is
//! cut off, and no step makes more than a quarter of a MiB.

use std::io::Write as _;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use flate2::write::MultiGzDecoder;

use super::Refused;
use crate::context::Context;
use crate::controls::waf::{AMBIGUOUS, LIMIT};
use crate::refusal::Refusal;

/// Bytes that are undone at once: they become a thousand times as many at most.
const STEP: usize = 256;
/// So many times as long as it was sent may a body become. JSON of a database seldom gets to twenty.
const RATIO: u64 = 100;
/// So many bytes it may have whatever was sent.
const FREE: u64 = 64 * 1024;

/// Undoes gzip.
#[derive(Debug)]
pub(super) struct Decode {
    ctx: Arc<Context>,
    gzip: MultiGzDecoder<Vec<u8>>,
    waiting: Bytes,
    taken: u64,
    made: u64,
}

impl Decode {
    pub(super) fn new(ctx: &Arc<Context>) -> Self {
        let gzip = MultiGzDecoder::new(Vec::new());
        Self { ctx: Arc::clone(ctx), gzip, waiting: Bytes::new(), taken: 0, made: 0 }
    }

    /// Another piece came. Only once [`Decode::step`] has nothing left to do.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.waiting = piece;
    }

    /// The next piece, undone; `None`: more has to come first.
    pub(super) fn step(&mut self) -> Result<Option<Bytes>, Refused> {
        while !self.waiting.is_empty() {
            let step = self.waiting.len().min(STEP);
            let written = self.gzip.write_all(&self.waiting[..step]);
            self.waiting.advance(step);
            self.taken = self.taken.saturating_add(step as u64);
            if written.is_err() {
                return Err(self.refuse(AMBIGUOUS.refuse("the body is no gzip")));
            }
            if let Some(made) = self.made()? {
                return Ok(Some(made));
            }
        }
        Ok(None)
    }

    /// There is no more; what that gives.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Refused> {
        match self.gzip.try_finish() {
            Ok(()) => self.made(),
            Err(_) => Err(self.refuse(AMBIGUOUS.refuse("the gzip of the body is not whole"))),
        }
    }

    fn made(&mut self) -> Result<Option<Bytes>, Refused> {
        let made = std::mem::take(self.gzip.get_mut());
        self.made = self.made.saturating_add(made.len() as u64);
        if self.made > self.taken.saturating_mul(RATIO).saturating_add(FREE) {
            return Err(self.refuse(LIMIT.refuse("the body becomes too long when its gzip is undone")));
        }
        Ok((!made.is_empty()).then(|| made.into()))
    }

    /// Whatever the mode: what cannot be undone cannot be forwarded either.
    fn refuse(&self, refusal: Refusal) -> Refused {
        let code = refusal.code();
        self.ctx.refuse_body(refusal.with("reason", "Content-Encoding: gzip").close());
        Refused { code }
    }
}
