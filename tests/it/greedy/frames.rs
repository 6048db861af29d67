//! HTTP/2 written by hand, frame by frame: what no library sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use palisade_test::Palisade;
use palisade_test::tls::Connection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const READ: Duration = Duration::from_secs(30);

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals, none of which enters the table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // A length of seven bits, continued (RFC 7541 §5.1).
            match text.len().checked_sub(127) {
                None => bytes.extend(u8::try_from(text.len())),
                Some(mut rest) => {
                    bytes.push(127);
                    while rest >= 128 {
                        bytes.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    bytes.push(rest as u8);
                }
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A connection after its preface.
pub(crate) struct Raw {
    stream: Connection,
    buffer: Vec<u8>,
    authority: String,
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error of a GOAWAY or RST_STREAM.
    pub(crate) fn error(&self) -> Option<u32> {
        let at = match self.kind {
            GOAWAY => 4,
            RST_STREAM => 0,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

impl Raw {
    /// Only TLS, with `h2` chosen.
    pub(crate) async fn silent(gateway: &Palisade, source: IpAddr) -> Result<Raw> {
        let address: SocketAddr = gateway.address("https")?;
        let stream = gateway.trust()?.connect_from(Some(source), address, "127.0.0.1", &[b"h2"]).await?;
        ensure!(stream.alpn() == Some(&b"h2"[..]));
        Ok(Raw { stream, buffer: Vec::new(), authority: address.to_string() })
    }

    /// With preface and these settings.
    pub(crate) async fn open(gateway: &Palisade, source: IpAddr, settings: &[(u16, u32)]) -> Result<Raw> {
        let mut raw = Raw::silent(gateway, source).await?;
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &payload));
        hello.extend(frame(SETTINGS, ACK, 0, &[]));
        raw.send(&hello).await?;
        Ok(raw)
    }

    /// Whom requests are for.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The HEADERS of a request.
    pub(crate) fn request(&self, stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
        let fields = [(":method", method), (":scheme", "https"), (":authority", &self.authority), (":path", path)];
        frame(HEADERS, flags | END_HEADERS, stream, &block(&fields))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(READ, sent).await.context("writing for too long")?.context("writing")
    }

    /// The next frame; none once the other side has closed.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(head) = self.buffer.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
                    let payload = bytes[9..].to_vec();
                    return Ok(Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload }));
                }
            }
            let mut piece = vec![0; 64 << 10];
            let read = tokio::time::timeout(READ, self.stream.read(&mut piece)).await;
            match read.context("nothing came, and nobody closed")? {
                Ok(0) | Err(_) => return Ok(None),
                Ok(read) => self.buffer.extend(&piece[..read]),
            }
        }
    }

    /// Reads until a frame that is looked for.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        while let Some(frame) = self.next().await? {
            if wanted(&frame) {
                return Ok(frame);
            }
        }
        bail!("closed before {what} came")
    }

    /// The error that the connection ends with, once it is closed.
    pub(crate) async fn ended_with(&mut self) -> Result<Option<u32>> {
        let mut error = None;
        while let Some(frame) = self.next().await? {
            if frame.kind == GOAWAY {
                error = frame.error();
            }
        }
        Ok(error)
    }
}
