//! A client that writes any bytes and reads what comes back: for requests that no HTTP library would send, and answers
//! that one would repair.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::tls::{self, Connection, Trust};

/// How long a read waits. The deadline of a test, not a pace.
const READ: Duration = Duration::from_secs(30);
/// A head longer than this is not read on.
const HEAD_BYTES: usize = 1 << 20;

/// A connection on which bytes are written and read.
#[derive(Debug)]
pub struct Wire {
    connection: Connection,
    reader: Reader,
}

/// One HTTP/1 message as it stood on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Names and values in their order and spelling, bytes as Latin-1.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// The sizes of its chunks, if it was chunked.
    pub chunks: Vec<usize>,
    /// What followed the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// The status, of an answer.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The method, of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target, of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

impl Wire {
    /// Connects without TLS.
    ///
    /// # Errors
    /// When that fails.
    pub async fn plain(address: SocketAddr) -> Result<Wire> {
        Ok(Wire::over(tls::plain(address).await?))
    }

    /// Connects with TLS, offering HTTP/1.1.
    ///
    /// # Errors
    /// When that fails.
    pub async fn tls(address: SocketAddr, name: &str, trust: &Trust) -> Result<Wire> {
        Ok(Wire::over(trust.connect(address, name, &[b"http/1.1"]).await?))
    }

    /// On a connection made by hand, such as one that offers `h2`.
    pub fn over(connection: Connection) -> Wire {
        Wire { connection, reader: Reader::default() }
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Writes bytes, all of them.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.connection.write_all(bytes.as_ref()).await.context("writing")?;
        self.connection.flush().await.context("writing")
    }

    /// Says that nothing more will be written, and goes on reading.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn finish(&mut self) -> Result<()> {
        self.connection.shutdown().await.context("closing the writing half")
    }

    /// Reads one answer by its framing. An interim answer (1xx) is an answer of its own.
    ///
    /// # Errors
    /// When it ends early, is malformed, or does not come within 30 seconds.
    pub async fn answer(&mut self) -> Result<Message> {
        self.reader.answer(&mut self.connection, false).await
    }

    /// Reads an answer to HEAD: no body, whatever its head says.
    ///
    /// # Errors
    /// As [`Wire::answer`].
    pub async fn answer_to_head(&mut self) -> Result<Message> {
        self.reader.answer(&mut self.connection, true).await
    }

    /// Writes a request and reads its answer.
    ///
    /// # Errors
    /// As [`Wire::answer`].
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Result<Message> {
        self.send(request).await?;
        self.answer().await
    }

    /// Everything until the other side closes.
    ///
    /// # Errors
    /// When it does not within 30 seconds. A reset counts as closed.
    pub async fn until_closed(&mut self) -> Result<Vec<u8>> {
        while self.reader.more(&mut self.connection).await? {}
        Ok(std::mem::take(&mut self.reader.buffer))
    }

    /// What is there, at least one byte; nothing once the other side has closed.
    ///
    /// # Errors
    /// When nothing comes within 30 seconds.
    pub async fn some(&mut self) -> Result<Vec<u8>> {
        if self.reader.buffer.is_empty() {
            self.reader.more(&mut self.connection).await?;
        }
        Ok(std::mem::take(&mut self.reader.buffer))
    }

    /// Fails unless the other side closes within the deadline without sending anything more.
    ///
    /// # Errors
    /// When it sends, or stays open.
    pub async fn closed(&mut self, deadline: Duration) -> Result<()> {
        let rest = tokio::time::timeout(deadline, self.until_closed()).await;
        let rest = rest.with_context(|| format!("still open after {deadline:?}"))??;
        ensure!(rest.is_empty(), "before it closed, there came: {:?}", String::from_utf8_lossy(&rest));
        Ok(())
    }
}

/// Reads messages off a stream and keeps what belongs to the next.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// One request, or `None` when the other side closed before its first byte.
    pub(crate) async fn request_head(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>> {
        if self.buffer.is_empty() && !self.more(from).await? {
            return Ok(None);
        }
        self.head(from).await.map(Some)
    }

    /// The body that a request's head announces.
    pub(crate) async fn request_body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        message: &mut Message,
    ) -> Result<()> {
        if chunked(message) {
            self.chunked(from, message).await
        } else {
            let length = length(message)?.unwrap_or(0);
            message.body = self.exactly(from, length).await?;
            Ok(())
        }
    }

    async fn answer(&mut self, from: &mut (impl AsyncRead + Unpin), to_head: bool) -> Result<Message> {
        if self.buffer.is_empty() && !self.more(from).await? {
            bail!("closed without an answer");
        }
        let mut message = self.head(from).await?;
        let status = message.status();
        // RFC 9112 §6.3, in its order.
        if to_head || (100..200).contains(&status) || status == 204 || status == 304 {
            return Ok(message);
        }
        if chunked(&message) {
            self.chunked(from, &mut message).await?;
        } else if let Some(length) = length(&message)? {
            message.body = self.exactly(from, length).await?;
        } else {
            while self.more(from).await? {}
            message.body = std::mem::take(&mut self.buffer);
        }
        Ok(message)
    }

    async fn head(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Message> {
        let start = self.line(from).await?;
        let headers = self.fields(from).await?;
        Ok(Message { start, headers, ..Message::default() })
    }

    async fn fields(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        let mut bytes = 0;
        loop {
            let line = self.line(from).await?;
            if line.is_empty() {
                return Ok(fields);
            }
            bytes += line.len();
            ensure!(bytes <= HEAD_BYTES, "a head of over {HEAD_BYTES} bytes");
            let (name, value) = line.split_once(':').with_context(|| format!("a header without a colon: {line:?}"))?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    async fn chunked(&mut self, from: &mut (impl AsyncRead + Unpin), message: &mut Message) -> Result<()> {
        loop {
            let line = self.line(from).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                message.trailers = self.fields(from).await?;
                return Ok(());
            }
            message.chunks.push(size);
            message.body.extend(self.exactly(from, size).await?);
            ensure!(self.exactly(from, 2).await? == b"\r\n", "a chunk that does not end where it should");
        }
    }

    /// A line without its end, which is CRLF; bytes as Latin-1.
    async fn line(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<String> {
        let mut searched = 0;
        loop {
            if let Some(end) =
                self.buffer.get(searched..).and_then(|rest| rest.windows(2).position(|two| two == b"\r\n"))
            {
                let line: Vec<u8> = self.buffer.drain(..searched + end + 2).collect();
                return Ok(line.iter().take(searched + end).map(|&byte| char::from(byte)).collect());
            }
            searched = self.buffer.len().saturating_sub(1);
            ensure!(searched < HEAD_BYTES, "a line of over {HEAD_BYTES} bytes");
            ensure!(self.more(from).await?, "closed within a line: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    async fn exactly(&mut self, from: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            ensure!(self.more(from).await?, "closed after {} of {length} bytes", self.buffer.len());
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads once. False: the other side has closed, cleanly or not.
    async fn more(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<bool> {
        let mut chunk = vec![0; 64 << 10];
        let read = tokio::time::timeout(READ, from.read(&mut chunk)).await;
        // A reset, and TLS without its closing message, are ways to close too.
        let read = read.with_context(|| format!("nothing came within {READ:?}"))?.unwrap_or(0);
        self.buffer.extend(chunk.iter().take(read));
        Ok(read > 0)
    }
}

fn chunked(message: &Message) -> bool {
    message.all("transfer-encoding").any(|value| value.to_ascii_lowercase().contains("chunked"))
}

fn length(message: &Message) -> Result<Option<usize>> {
    message.header("content-length").map(|value| value.parse().with_context(|| format!("length {value:?}"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(mut bytes: &[u8], to_head: bool) -> Vec<Result<Message>> {
        let mut reader = Reader::default();
        let mut answers = Vec::new();
        while !bytes.is_empty() || !reader.buffer.is_empty() {
            let answer = reader.answer(&mut bytes, to_head).await;
            let stop = answer.is_err();
            answers.push(answer);
            if stop {
                break;
            }
        }
        answers
    }

    #[tokio::test]
    async fn framing_ends_where_the_rfc_says() {
        type Case<'a> = (&'a str, bool, &'a [(u16, &'a str)]);
        let cases: [Case; 7] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No\r\n\r\n", false, &[(200, "ok"), (204, "")]),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\ncontent-length: 1\r\n\r\nx",
                false,
                &[(100, ""), (201, "x")],
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
                false,
                &[(200, "abcd")],
            ),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", false, &[(200, "until the end")]),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, &[(304, "")]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true, &[(200, ""), (200, "")]),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, &[(200, "")]),
        ];
        for (bytes, to_head, expected) in cases {
            let answers: Vec<_> = answers(bytes.as_bytes(), to_head).await.into_iter().map(Result::unwrap).collect();
            let seen: Vec<_> = answers.iter().map(|answer| (answer.status(), answer.text())).collect();
            let expected: Vec<_> = expected.iter().map(|&(status, body)| (status, body.to_owned())).collect();
            assert_eq!(seen, expected, "{bytes}");
        }
    }

    #[tokio::test]
    async fn chunks_and_trailers_are_kept() {
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 7\r\n\r\n";
        let answer = answers(bytes, false).await.remove(0).unwrap();
        assert_eq!((answer.chunks, answer.trailers), (vec![2, 1], vec![("X-Sum".to_owned(), "7".to_owned())]));
    }

    #[tokio::test]
    async fn what_is_cut_short_is_an_error() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ] {
            assert!(answers(bytes.as_bytes(), false).await.remove(0).is_err(), "{bytes}");
        }
    }
}
