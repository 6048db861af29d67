//! What a process has printed: kept in bounded memory, searchable.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::eventually::{INTERVAL, eventually};

/// What is kept of one process. Older lines are dropped and counted.
const KEPT_BYTES: usize = 128 << 20;
/// A longer line is kept in pieces.
const LINE_BYTES: u64 = 1 << 20;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line without its end. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it was printed.
    pub stream: Stream,
    /// What it says.
    pub text: Arc<str>,
}

/// All lines of a process, of both streams in the order they were read.
#[derive(Debug, Clone, Default)]
pub struct Output {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    /// How many lines were dropped; the number of the first kept one.
    dropped: usize,
    open_streams: usize,
}

impl Output {
    pub(crate) fn read(&self, from: impl Read + Send + 'static, stream: Stream) {
        self.kept().open_streams += 1;
        let output = self.clone();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while let Ok(1..) = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
                output.push(stream, String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
                line.clear();
            }
            output.kept().open_streams -= 1;
        });
    }

    fn push(&self, stream: Stream, text: &str) {
        let mut kept = self.kept();
        kept.bytes += text.len();
        kept.lines.push_back(Line { stream, text: text.into() });
        while kept.bytes > KEPT_BYTES {
            let Some(first) = kept.lines.pop_front() else { break };
            kept.bytes -= first.text.len();
            kept.dropped += 1;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines there have been so far: where to go on reading with [`Output::since`].
    pub fn position(&self) -> usize {
        let kept = self.kept();
        kept.dropped + kept.lines.len()
    }

    /// The lines from a position on, as far as they are kept.
    pub fn since(&self, position: usize) -> Vec<Line> {
        let kept = self.kept();
        kept.lines.iter().skip(position.saturating_sub(kept.dropped)).cloned().collect()
    }

    /// Everything that was printed, line by line.
    ///
    /// # Errors
    /// When something of it was dropped: a search for what must not be there would prove nothing.
    pub fn everything(&self) -> Result<String> {
        let kept = self.kept();
        if kept.dropped > 0 {
            bail!("the first {} lines were dropped, {KEPT_BYTES} bytes are kept", kept.dropped);
        }
        let mut all = String::with_capacity(kept.bytes + kept.lines.len());
        for line in &kept.lines {
            all.push_str(&line.text);
            all.push('\n');
        }
        Ok(all)
    }

    /// Whether a text is in any kept line.
    pub fn contains(&self, text: &str) -> bool {
        self.kept().lines.iter().any(|line| line.text.contains(text))
    }

    /// The first value that `find` makes of a line, of those before and those to come.
    ///
    /// # Errors
    /// When there is none within the deadline, or the process has closed its output; the error ends with the last lines.
    pub async fn find<T>(&self, deadline: Duration, what: &str, find: impl FnMut(&Line) -> Option<T>) -> Result<T> {
        self.find_since(0, deadline, what, find).await
    }

    /// As [`Output::find`], of the lines from a position on.
    ///
    /// # Errors
    /// As [`Output::find`].
    pub async fn find_since<T>(
        &self,
        mut position: usize,
        deadline: Duration,
        what: &str,
        mut find: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            // Read before the lines: what was printed before the end is then among them.
            let closed = self.kept().open_streams == 0;
            let lines = self.since(position);
            position += lines.len();
            if let Some(value) = lines.iter().find_map(&mut find) {
                return Ok(value);
            }
            if closed {
                bail!("the output ended without: {what}\n{}", self.tail());
            }
            if start.elapsed() >= deadline {
                bail!("not printed within {deadline:?}: {what}\n{}", self.tail());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until nothing more can come: the process and all that holds its output have ended.
    ///
    /// # Errors
    /// When something holds it open past the deadline.
    pub async fn closed(&self, deadline: Duration) -> Result<()> {
        eventually(deadline, "the output ends", async || self.kept().open_streams == 0).await
    }

    /// The last lines, for messages.
    pub fn tail(&self) -> String {
        let kept = self.kept();
        let mut text = String::from("last lines:");
        for line in kept.lines.iter().skip(kept.lines.len().saturating_sub(30)) {
            text.push_str("\n  ");
            text.extend(line.text.chars().take(1000));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_found_before_and_after_and_missed_at_the_end() {
        let output = Output::default();
        output.read(std::io::Cursor::new("one\r\ntwo\nthree"), Stream::Out);
        let second = Duration::from_secs(5);
        let find = |text: &'static str| move |line: &Line| (&*line.text == text).then_some(());
        output.find(second, "one", find("one")).await.unwrap();
        output.find(second, "three", find("three")).await.unwrap();
        let error = output.find(second, "four", find("four")).await.unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("two"), "{error}");
        assert_eq!(output.position(), 3);
        assert_eq!(output.since(2).len(), 1);
        assert_eq!(output.everything().unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn memory_is_bounded_and_a_loss_is_not_hidden() {
        let output = Output::default();
        let long = "x".repeat(1 << 20);
        for _ in 0..130 {
            output.push(Stream::Out, &long);
        }
        assert!(output.kept().bytes <= KEPT_BYTES);
        assert_eq!(output.position(), 130);
        assert!(output.everything().is_err());
    }
}
