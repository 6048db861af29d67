//! Follows the messages of a connection from head to head, byte for byte, without keeping any of them.

use std::mem;

use crate::Violation;
use crate::chunked::{Chunks, Step};
use crate::head::{Fields, Framing, HeadFacts, Limits, RequestScan, is_forbidden_trailer};
use crate::scan::{self, Line};

/// Trailers of requests are dropped behind the guard; they only have to be well-formed.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Head(RequestScan),
    /// Bytes of body left.
    Length(u64),
    Chunks(Chunks),
    /// The trailer section; where its first unread line starts.
    Trailers(usize, Fields),
    /// Behind a request for a tunnel: nobody knows yet what the next bytes are.
    Undecided,
    /// Behind the last request of the connection: the server reads no further.
    Over,
    /// Behind a violation.
    Refused,
}

/// Bytes that may not pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    /// What came before them and may.
    pub(super) approved: usize,
    pub(super) violation: Violation,
    /// They are in the body of a request whose head has passed.
    pub(super) in_body: bool,
}

#[derive(Debug)]
pub(super) struct Follow {
    pub(super) place: Place,
    limits: Limits,
    /// Heads that were let pass.
    pub(super) passed: u64,
    /// What comes after the body of the message at hand.
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Next,
    Undecided,
    Over,
}

impl Follow {
    pub(super) fn new(limits: Limits) -> Self {
        Follow { place: Place::Head(RequestScan::new()), limits, passed: 0, then: Then::Next }
    }

    /// The next bytes are a request head.
    pub(super) fn expect_head(&mut self) {
        self.place = Place::Head(RequestScan::new());
    }

    /// How many of `bytes` may pass. What is left belongs to a section that is not complete, is undecided, or is refused.
    ///
    /// A section that was cut off must come again from its first byte on, with more behind it.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let mut at = 0;
        while let Some(rest @ [_, ..]) = bytes.get(at..) {
            match self.step(rest) {
                Ok(Some(count)) => at += count,
                Ok(None) => break,
                Err(violation) => {
                    let in_body = !matches!(self.place, Place::Head(_));
                    self.place = Place::Refused;
                    return Err(Refused { approved: at, violation, in_body });
                }
            }
        }
        Ok(at)
    }

    /// The length of the next piece that may pass; `None`: nothing more of this may.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, Violation> {
        match &mut self.place {
            Place::Head(scan) => {
                let Some(facts) = scan.advance(rest, &self.limits)? else { return Ok(None) };
                self.passed += 1;
                self.enter(&facts);
                Ok(Some(facts.len))
            }
            Place::Length(left) => {
                let count = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= count as u64;
                if *left == 0 {
                    self.end_message();
                }
                Ok(Some(count))
            }
            Place::Chunks(chunks) => match chunks.step(rest)? {
                Step::More => Ok(Some(rest.len())),
                Step::Data { start, len } => Ok(Some(start + len)),
                Step::Trailers { start } => {
                    self.place = Place::Trailers(0, Fields::default());
                    Ok(Some(start))
                }
            },
            Place::Trailers(at, fields) => {
                let end = trailers(rest, at, fields, &self.limits)?;
                if end.is_some() {
                    self.end_message();
                }
                Ok(end)
            }
            Place::Undecided | Place::Over | Place::Refused => Ok(None),
        }
    }

    fn enter(&mut self, facts: &HeadFacts) {
        self.then = match facts {
            _ if facts.upgrade => Then::Undecided,
            _ if facts.is_persistent() => Then::Next,
            _ => Then::Over,
        };
        match facts.framing {
            Framing::Unframed | Framing::Length(0) => self.end_message(),
            Framing::Length(length) => self.place = Place::Length(length),
            Framing::Chunked => self.place = Place::Chunks(Chunks::new()),
        }
    }

    fn end_message(&mut self) {
        self.place = match mem::replace(&mut self.then, Then::Next) {
            Then::Next => Place::Head(RequestScan::new()),
            Then::Undecided => Place::Undecided,
            Then::Over => Place::Over,
        };
    }
}

/// Goes on at `at`. The length of the section once it is complete.
fn trailers(bytes: &[u8], at: &mut usize, fields: &mut Fields, limits: &Limits) -> Result<Option<usize>, Violation> {
    loop {
        match scan::field_line(bytes, *at)? {
            Line::Field { name, value, next } => {
                let (name, value) = (&bytes[name.0..name.1], &bytes[value.0..value.1]);
                if is_forbidden_trailer(name) {
                    return Err(Violation::ForbiddenTrailer);
                }
                fields.note(name, value, limits)?;
                *at = next;
            }
            Line::End { next } => return Ok(Some(next)),
            Line::Partial if bytes.len() > MAX_TRAILER_BYTES => return Err(Violation::HeadTooLarge),
            Line::Partial => return Ok(None),
        }
        if *at > MAX_TRAILER_BYTES {
            return Err(Violation::HeadTooLarge);
        }
    }
}
