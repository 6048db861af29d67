//! What the application prints goes to our standard error, line by line and without secrets; the last lines are kept for
//! the log.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::Child;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::observe::redact;
use crate::policy::config::AppOutput;

/// Lines of standard error that are kept.
const KEPT_LINES: usize = 20;
/// Bytes of a line that are kept.
const KEPT_BYTES: usize = 500;
/// A line is passed on in pieces of this size.
const PIECE: u64 = 64 << 10;
/// How long after its end the last output is waited for: a process that left the group may hold the pipe for ever.
const LAST: Duration = Duration::from_millis(500);

/// The output of one run.
#[derive(Debug)]
pub(super) struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    /// Passes on what a child prints from now on.
    pub(super) fn pass(child: &mut Child, how: AppOutput) -> Self {
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.extend(reader(out, None, how));
        }
        if let Some(err) = child.stderr.take() {
            readers.extend(reader(err, Some(Arc::clone(&lines)), how));
        }
        Self { lines, readers }
    }

    /// The last lines of its standard error, without secrets.
    pub(super) fn last_lines(&self) -> String {
        let end = Instant::now() + LAST;
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let lines = self.lines.lock();
        let lines: Vec<_> = lines.iter().map(|line| redact::text(line)).collect();
        lines.join("\n")
    }
}

fn reader(
    from: impl Read + Send + 'static,
    keep: Option<Arc<Mutex<VecDeque<String>>>>,
    how: AppOutput,
) -> Option<JoinHandle<()>> {
    let read = move || {
        let mut from = BufReader::new(from);
        let mut piece = Vec::new();
        loop {
            piece.clear();
            match from.by_ref().take(PIECE).read_until(b'\n', &mut piece) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            // One write a line, so that lines of different processes do not mix. Nobody there to read is no fault.
            let _ = std::io::stderr().lock().write_all(&shown(&piece, how));
            if let Some(lines) = &keep {
                remember(&mut lines.lock(), &piece);
            }
        }
    };
    std::thread::Builder::new().name("palisade-app-out".into()).spawn(read).ok()
}

/// A line as it is passed on. What is not text is left as it is: nothing is found in it.
fn shown(piece: &[u8], how: AppOutput) -> Cow<'_, [u8]> {
    match (how, std::str::from_utf8(piece)) {
        (AppOutput::Redacted, Ok(line)) => Cow::Owned(redact::text(line).into_bytes()),
        _ => Cow::Borrowed(piece),
    }
}

fn remember(lines: &mut VecDeque<String>, piece: &[u8]) {
    let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
    if lines.len() == KEPT_LINES {
        lines.pop_front();
    }
    lines.push_back(String::from_utf8_lossy(&piece[..piece.len().min(KEPT_BYTES)]).into_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_and_the_rest_is_as_it_was() {
        for (line, shown_as) in [
            (
                "INFO:     127.0.0.1:0 - \"GET /a?access_token=abc&x=1 HTTP/1.1\" 401 Unauthorized\n",
                "INFO:     127.0.0.1:0 - \"GET /a?access_token=[redacted]&x=1 HTTP/1.1\" 401 Unauthorized\n",
            ),
            (
                "'input': {'username': 'x', 'password': 'hunter2'}}\n",
                "'input': {'username': 'x', 'password': '[redacted]'}}\n",
            ),
            (
                "\u{1b}[32mINFO\u{1b}[0m:     Waiting for application startup.\n",
                "\u{1b}[32mINFO\u{1b}[0m:     Waiting for application startup.\n",
            ),
            (
                "exited, code: 137, status code=200, token: abc\n",
                "exited, code: 137, status code=200, token: [redacted]\n",
            ),
            ("  File \"/app/main.py\", line 7, in login\n", "  File \"/app/main.py\", line 7, in login\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&shown(line.as_bytes(), AppOutput::Redacted)), shown_as);
            assert_eq!(*shown(line.as_bytes(), AppOutput::Raw), *line.as_bytes());
        }
        assert_eq!(*shown(b"\xff password=x", AppOutput::Redacted), *b"\xff password=x");
    }

    #[test]
    fn only_the_last_lines_are_kept_and_none_is_long() {
        let mut lines = VecDeque::new();
        for number in 0..50 {
            remember(&mut lines, format!("line {number}\n").as_bytes());
        }
        assert_eq!((lines.len(), &*lines[0], &*lines[19]), (20, "line 30", "line 49"));
        remember(&mut lines, &[b'x'; 70_000]);
        assert_eq!(lines[19].len(), KEPT_BYTES);
        remember(&mut lines, b"\xff\xfe\n");
        assert_eq!(lines[19], "\u{fffd}\u{fffd}");
    }
}
