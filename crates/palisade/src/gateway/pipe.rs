//! One direction of a tunnel, which can be stopped between two frames.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::frame_ends::{FrameEnds, close};

/// What is on its way in one direction, in bytes.
const BUFFER: usize = 8 * 1024;

/// One direction: what was read and not written yet, and where its frames end.
#[derive(Debug)]
pub(super) struct Pipe {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    frames: FrameEnds,
}

impl Pipe {
    /// A direction in which these bytes were read already.
    pub(super) fn new(read: &[u8]) -> Self {
        let mut buffer = read.to_vec();
        buffer.resize(read.len().max(BUFFER), 0);
        Self { buffer, from: 0, to: read.len(), frames: FrameEnds::default() }
    }

    /// Passes on what comes until it ends, and then says so.
    ///
    /// Cancel safety: what is known of the frames is what the other side has got.
    pub(super) async fn run(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            while self.from < self.to {
                let written = target.write(&self.buffer[self.from..self.to]).await?;
                self.wrote(written)?;
            }
            target.flush().await?;
            if !self.read(source).await? {
                return target.shutdown().await;
            }
        }
    }

    /// Says in the place of the source that it is over: after the frame that is under way, unless the source has said so.
    pub(super) async fn close(
        &mut self,
        source: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
        (code, reason): (u16, &str),
        mask: Option<[u8; 4]>,
    ) -> io::Result<()> {
        while !self.frames.at_end() {
            if self.from == self.to && !self.read(source).await? {
                return target.shutdown().await;
            }
            let rest = self.frames.clone().step(&self.buffer[self.from..self.to]);
            let written = target.write(&self.buffer[self.from..self.from + rest]).await?;
            self.wrote(written)?;
        }
        if !self.frames.is_closed() {
            target.write_all(&close(code, reason, mask)).await?;
        }
        target.flush().await?;
        target.shutdown().await
    }

    async fn read(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        let read = source.read(&mut self.buffer).await?;
        (self.from, self.to) = (0, read);
        Ok(read > 0)
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.frames.passed(&self.buffer[self.from..self.from + written]);
        self.from += written;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// A frame of six bytes of text.
    const FRAME: &[u8] = b"\x81\x06abcdef";

    #[tokio::test]
    async fn it_closes_behind_the_frame_that_is_under_way() {
        for cut in 0..=FRAME.len() {
            let (mut app, mut source) = duplex(64);
            let (mut target, mut client) = duplex(64);
            let mut pipe = Pipe::new(&FRAME[..cut]);
            // So much has been passed on when it is stopped.
            let stopped = tokio::select! {
                done = pipe.run(&mut source, &mut target) => Some(done),
                () = async { for _ in 0..50 { tokio::task::yield_now().await } } => None,
            };
            assert!(stopped.is_none());
            app.write_all(&FRAME[cut..]).await.unwrap();
            app.write_all(FRAME).await.unwrap();
            pipe.close(&mut source, &mut target, (1008, "over"), None).await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            let mut expected = if cut == 0 { Vec::new() } else { FRAME.to_vec() };
            expected.extend(close(1008, "over", None));
            assert_eq!(got, expected, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn whoever_has_closed_closes_once() {
        let (_app, mut source) = duplex(64);
        let (mut target, mut client) = duplex(64);
        let mut pipe = Pipe::new(&close(1000, "", None));
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), pipe.run(&mut source, &mut target)).await;
        pipe.close(&mut source, &mut target, (1008, "over"), None).await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, close(1000, "", None));
    }
}
