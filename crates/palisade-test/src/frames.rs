//! HTTP/2 frames by hand: for requests that no HTTP library would send. Sources: RFC 9113 §4 and §6, RFC 7541 §6.2.2.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::tls::Connection;

const READ: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a peer may send in one frame, as it is told.
const MAX_FRAME: usize = 1 << 20;

/// Types of frames (RFC 9113 §6).
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// The head of a message, or its trailers.
    pub const HEADERS: u8 = 1;
    /// What a stream is worth to whom; obsolete.
    pub const PRIORITY: u8 = 2;
    /// The end of a stream, by force.
    pub const RST_STREAM: u8 = 3;
    /// Settings of a connection.
    pub const SETTINGS: u8 = 4;
    /// A promise.
    pub const PUSH_PROMISE: u8 = 5;
    /// A ping.
    pub const PING: u8 = 6;
    /// The end of a connection.
    pub const GOAWAY: u8 = 7;
    /// More room for bodies.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM` of DATA and HEADERS; `ACK` of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// The same bit.
pub const ACK: u8 = END_STREAM;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 4;

/// Codes of errors (RFC 9113 §7).
pub mod error {
    /// Nothing was wrong.
    pub const NO_ERROR: u32 = 0;
    /// Somebody does not want the stream any more.
    pub const CANCEL: u32 = 8;
    /// Too much of something.
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type, of [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error of a GOAWAY or RST_STREAM.
    pub fn error(&self) -> Option<u32> {
        match self.kind {
            kind::GOAWAY => Some(word(self.payload.get(4..8))),
            kind::RST_STREAM => Some(word(self.payload.get(..4))),
            _ => None,
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a whole answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// The stream was reset, with this error code.
    Reset(u32),
    /// The connection was ended, with this error code.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

/// A connection on which frames are written and read.
#[derive(Debug)]
pub struct Frames {
    connection: Connection,
    buffer: Vec<u8>,
}

impl Frames {
    /// Says the preface on a connection that chose `h2`.
    ///
    /// # Errors
    /// When it did not, or the other side has closed.
    pub async fn over(connection: Connection) -> Result<Frames> {
        Frames::over_with(connection, &[]).await
    }

    /// The same with these settings (RFC 9113 §6.5.2).
    ///
    /// # Errors
    /// As [`Frames::over`].
    pub async fn over_with(connection: Connection, settings: &[(u16, u32)]) -> Result<Frames> {
        let mut frames = Frames::silent(connection)?;
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send([PREFACE, &frame(kind::SETTINGS, 0, 0, &settings)].concat()).await?;
        Ok(frames)
    }

    /// Says nothing yet, not even the preface.
    ///
    /// # Errors
    /// When the connection did not choose `h2`.
    pub fn silent(connection: Connection) -> Result<Frames> {
        ensure!(connection.alpn() == Some(b"h2"), "not a connection of HTTP/2");
        Ok(Frames { connection, buffer: Vec::new() })
    }

    /// Writes bytes, all of them.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.connection.write_all(bytes.as_ref()).await.context("writing")?;
        self.connection.flush().await.context("writing")
    }

    /// Reads until this stream ends, or the connection.
    ///
    /// # Errors
    /// When neither does within 30 seconds, or what comes are no frames.
    pub async fn end_of(&mut self, stream: u32) -> Result<Ended> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let Some(frame) = self.next().await? else { return Ok(Ended::Closed) };
            let Frame { kind, flags, stream: id, payload } = frame;
            match kind {
                kind::GOAWAY => {
                    let code = word(payload.get(4..8));
                    // A graceful end lets running streams finish.
                    if code != 0 || word(payload.get(..4)) < stream {
                        return Ok(Ended::GoAway(code));
                    }
                }
                kind::RST_STREAM if id == stream => {
                    // An answer may end before the request: then the rest of that is not wanted (RFC 9113 §8.1).
                    return Ok(Ended::Reset(word(payload.get(..4))));
                }
                kind::HEADERS if id == stream => {
                    ensure!(flags & END_HEADERS != 0, "an answer's head in several frames");
                    if status < 200 {
                        status = status_of(&payload)?;
                    }
                }
                kind::DATA if id == stream => body.extend_from_slice(&payload),
                kind::SETTINGS if flags & END_STREAM == 0 => {
                    let acknowledged = self::frame(kind::SETTINGS, ACK, 0, &[]);
                    // A connection that is being ended takes nothing more, and may still say why.
                    let _closing = self.send(acknowledged).await;
                }
                _ => {}
            }
            if matches!(kind, kind::HEADERS | kind::DATA) && id == stream && flags & END_STREAM != 0 {
                return Ok(Ended::Answer { status, body });
            }
        }
    }

    /// The next frame; none once the other side has closed.
    ///
    /// # Errors
    /// When neither happens within 30 seconds, or what comes is no frame.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        let Some(head) = self.exactly(9).await? else { return Ok(None) };
        let length = (word(head.get(..4)) >> 8) as usize;
        ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
        let Some(payload) = self.exactly(length).await? else { return Ok(None) };
        let (kind, flags) = (head.get(3).copied().unwrap_or(0), head.get(4).copied().unwrap_or(0));
        Ok(Some(Frame { kind, flags, stream: word(head.get(5..9)) & 0x7fff_ffff, payload }))
    }

    /// Reads until a frame that is looked for.
    ///
    /// # Errors
    /// As [`Frames::next`], and when the other side closes before.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        while let Some(frame) = self.next().await? {
            if wanted(&frame) {
                return Ok(frame);
            }
        }
        bail!("closed before {what} came")
    }

    /// Reads until the connection is closed, and gives the error that it ended with.
    ///
    /// # Errors
    /// As [`Frames::next`].
    pub async fn ended_with(&mut self) -> Result<Option<u32>> {
        let mut error = None;
        while let Some(frame) = self.next().await? {
            if frame.kind == kind::GOAWAY {
                error = frame.error();
            }
        }
        Ok(error)
    }

    async fn exactly(&mut self, length: usize) -> Result<Option<Vec<u8>>> {
        while self.buffer.len() < length {
            let read = tokio::time::timeout(READ, self.connection.read_buf(&mut self.buffer)).await;
            // A reset, and TLS without its closing message, are ways to close too.
            if read.with_context(|| format!("nothing came within {READ:?}"))?.unwrap_or(0) == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.drain(..length).collect()))
    }
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A block of fields, each as a literal that is not indexed, neither name nor value compressed: any bytes can stand in it.
pub fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// RFC 7541 §5.1 with a prefix of 7 bits, the eighth (compressed) not set.
fn integer(number: usize, out: &mut Vec<u8>) {
    if number < 127 {
        out.push(number as u8);
        return;
    }
    out.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The status of a block of fields. It is the first of them, and on a fresh connection either in the static table or a
/// literal (RFC 7541, appendix A).
fn status_of(block: &[u8]) -> Result<u16> {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => Ok(KNOWN[usize::from(index - 0x88)]),
        [0x48 | 0x08 | 0x18, length, text @ ..] => {
            let text = text.get(..usize::from(length & 0x7f)).context("a cut status")?;
            let digits = if length & 0x80 == 0 { text.to_vec() } else { compressed_digits(text)? };
            String::from_utf8(digits)?.parse().context("a status")
        }
        _ => bail!("an answer's head that does not begin with its status: {block:02x?}"),
    }
}

/// Digits in the Huffman code of RFC 7541, appendix B: 0 to 2 have 5 bits, 3 to 9 have 6.
fn compressed_digits(text: &[u8]) -> Result<Vec<u8>> {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |from: usize, length: usize| {
        Some(bits.get(from..from + length)?.iter().fold(0u8, |number, bit| number << 1 | bit))
    };
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        match (number(at, 5), number(at, 6)) {
            (Some(digit @ 0..=2), _) => {
                digits.push(b'0' + digit);
                at += 5;
            }
            (_, Some(digit @ 0b01_1001..=0b01_1111)) => {
                digits.push(b'3' + digit - 0b01_1001);
                at += 6;
            }
            _ => bail!("not digits"),
        }
    }
    Ok(digits)
}

fn word(bytes: Option<&[u8]>) -> u32 {
    bytes.unwrap_or_default().iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_as_the_rfc_draws_them() {
        assert_eq!(frame(kind::DATA, END_STREAM, 3, b"ab"), [0, 0, 2, 0, 1, 0, 0, 0, 3, b'a', b'b']);
        assert_eq!(fields(&[("a", "bc")]), [0, 1, b'a', 2, b'b', b'c']);
        let mut long = Vec::new();
        integer(1337, &mut long);
        assert_eq!(long, [127, 0xba, 9]);
    }

    #[test]
    fn a_status_is_read_in_each_of_its_forms() {
        for (block, status) in [
            (&[0x88][..], 200),
            (&[0x8c, 0x00], 400),
            (&[0x48, 0x03, b'4', b'2', b'1'], 421),
            // 302: the example of RFC 7541, appendix C.6.1.
            (&[0x48, 0x82, 0x64, 0x02], 302),
            // 307, C.6.2.
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
        ] {
            assert_eq!(status_of(block).unwrap(), status);
        }
        assert!(status_of(&[0x40]).is_err());
        assert!(status_of(&[0x48, 0x82, 0xff, 0xff]).is_err());
    }
}
