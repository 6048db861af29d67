//! The chunked transfer coding (RFC 9112 §7.1), read strictly: no extensions, no white space, bounded sizes.

use crate::Violation;

/// Where in a chunked body the next byte is. Small and `Copy`: a guard keeps one for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    state: State,
    /// Of the size being read, then what is left of the chunk's data.
    left: u64,
    digits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// What the bytes at hand are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// All bytes were framing; more are needed.
    More,
    /// Data of a chunk, from `start`, `len` bytes of what is at hand.
    Data { start: usize, len: usize },
    /// The last chunk's line is over; the trailer section starts at `start`.
    Trailers { start: usize },
}

/// Digits of a chunk size: 15 is 2^60, and no sum of two sizes overflows.
const MAX_DIGITS: u8 = 15;

impl Chunks {
    pub(crate) const fn new() -> Self {
        Chunks { state: State::Size, left: 0, digits: 0 }
    }

    /// Reads framing up to the next data or the end of what is there. The caller consumes up to the end of the step:
    /// everything for `More`, `start + len` for `Data`, `start` for `Trailers`.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        let mut at = 0;
        loop {
            if self.state == State::Trailers {
                return Ok(Step::Trailers { start: at });
            }
            let Some(&byte) = bytes.get(at) else { return Ok(Step::More) };
            match self.state {
                State::Size => {
                    let digit = match byte {
                        b'0'..=b'9' => byte - b'0',
                        b'a'..=b'f' => byte - b'a' + 10,
                        b'A'..=b'F' => byte - b'A' + 10,
                        b'\r' if self.digits > 0 => {
                            self.state = State::SizeLf;
                            at += 1;
                            continue;
                        }
                        other => return Err(self.bad_size(other)),
                    };
                    if self.digits == MAX_DIGITS {
                        return Err(Violation::BadChunkSize);
                    }
                    self.digits += 1;
                    self.left = self.left << 4 | u64::from(digit);
                    at += 1;
                }
                State::SizeLf => {
                    if byte != b'\n' {
                        return Err(Violation::BareCr);
                    }
                    at += 1;
                    self.digits = 0;
                    self.state = if self.left == 0 { State::Trailers } else { State::Data };
                }
                State::Data => {
                    let here = bytes.len() - at;
                    let len = usize::try_from(self.left).map_or(here, |left| left.min(here));
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data { start: at, len });
                }
                State::DataCr => {
                    if byte != b'\r' {
                        return Err(Violation::BadChunkEnd);
                    }
                    self.state = State::DataLf;
                    at += 1;
                }
                State::DataLf => {
                    if byte != b'\n' {
                        return Err(Violation::BadChunkEnd);
                    }
                    self.state = State::Size;
                    at += 1;
                }
                State::Trailers => {}
            }
        }
    }

    #[cold]
    fn bad_size(&self, byte: u8) -> Violation {
        match byte {
            b';' if self.digits > 0 => Violation::ChunkExtension,
            b'\n' if self.digits > 0 => Violation::BareLf,
            _ => Violation::BadChunkSize,
        }
    }
}
