//! Where log lines go: buffers that request threads append to, and one writer thread a target.
//!
//! A line costs an append under a lock that only this thread and, ten times a second, the writer take. Nothing waits
//! for a disk: a full buffer drops the line and counts it, and the count is logged.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::event;
use crate::shard;

const SHARDS: usize = 16;
/// A shard drops lines beyond this.
const MAX_BUFFERED: usize = 1 << 20;
/// A shard this full is written at once.
const EAGER: usize = 60_000;
const INTERVAL: Duration = Duration::from_millis(100);
/// How often it is said that a target cannot be written to.
const REPEATED: Duration = Duration::from_secs(60);

/// A target of log lines. Clones share it.
#[derive(Debug, Clone)]
pub struct Sink(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    buffers: [Mutex<Vec<u8>>; SHARDS],
    wake: Mutex<Wake>,
    woken: Condvar,
    flushed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Wake {
    dirty: bool,
    urgent: bool,
    asked: u64,
    done: u64,
    reopen: bool,
}

impl Sink {
    /// The file that a target names, where it names one.
    pub(crate) fn file(target: &str) -> Option<&Path> {
        (!["off", "stdout", "stderr"].contains(&target)).then(|| Path::new(target))
    }

    /// `stdout`, `stderr`, `off`, or a file that is appended to (mode 0600).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(target: &str) -> io::Result<Self> {
        match target {
            "off" => Ok(Self::off()),
            "stdout" => Self::start(Box::new(io::stdout())),
            "stderr" => Self::start(Box::new(io::stderr())),
            path => Self::run(Box::new(open_file(path.as_ref())?), Some(path.into())),
        }
    }

    /// Goes nowhere, and costs nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Writes to anything, from a thread of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(writer: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::run(writer, None)
    }

    fn run(writer: Box<dyn Write + Send>, path: Option<PathBuf>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffers: Default::default(),
            wake: Mutex::default(),
            woken: Condvar::new(),
            flushed: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("palisade-log".into()).spawn(move || for_thread.run(writer, path))?;
        Ok(Self(Some(shared)))
    }

    /// Whether lines go anywhere: where not, nobody needs to format one.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Appends what `write` appends; it ends with a line end. An urgent line is written at once.
    pub fn line(&self, urgent: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(shared) = &self.0 else { return };
        let mut buffer = shared.buffers[shard::of(SHARDS)].lock();
        if buffer.len() >= MAX_BUFFERED {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = buffer.is_empty();
        write(&mut buffer);
        let eager = urgent || buffer.len() >= EAGER;
        drop(buffer);
        if was_empty || eager {
            let mut wake = shared.wake.lock();
            let news = !wake.dirty || (eager && !wake.urgent);
            wake.dirty = true;
            wake.urgent |= eager;
            drop(wake);
            if news {
                shared.woken.notify_one();
            }
        }
    }

    /// Opens a file again under its name. What was buffered goes to the old one.
    pub fn reopen(&self) {
        let Some(shared) = &self.0 else { return };
        let mut wake = shared.wake.lock();
        wake.reopen = true;
        wake.dirty = true;
        wake.urgent = true;
        shared.woken.notify_one();
    }

    /// Waits until all lines so far are written, at most five seconds.
    pub fn flush(&self) {
        let Some(shared) = &self.0 else { return };
        let mut wake = shared.wake.lock();
        wake.asked += 1;
        let mine = wake.asked;
        wake.dirty = true;
        wake.urgent = true;
        shared.woken.notify_one();
        shared.flushed.wait_while_for(&mut wake, |wake| wake.done < mine, Duration::from_secs(5));
    }
}

impl Shared {
    fn run(&self, writer: Box<dyn Write + Send>, path: Option<PathBuf>) {
        let mut out = Out { writer, name: path.clone(), broken: false, said: None };
        let mut batch = Vec::with_capacity(EAGER);
        loop {
            let (asked, reopen) = {
                let mut wake = self.wake.lock();
                self.woken.wait_while(&mut wake, |wake| !wake.dirty);
                if !wake.urgent {
                    self.woken.wait_while_for(&mut wake, |wake| !wake.urgent, INTERVAL);
                }
                wake.dirty = false;
                wake.urgent = false;
                (wake.asked, std::mem::take(&mut wake.reopen))
            };
            for buffer in &self.buffers {
                let mut buffer = buffer.lock();
                if !buffer.is_empty() {
                    std::mem::swap(&mut *buffer, &mut batch);
                    drop(buffer);
                    out.write(&batch, &self.dropped);
                    batch.clear();
                    batch.shrink_to(MAX_BUFFERED / 4);
                }
            }
            out.say_dropped(&mut batch, &self.dropped);
            // A file that cannot be opened again is no reason to lose the lines: the old one stays.
            if reopen && let Some(file) = path.as_deref().and_then(|path| open_file(path).ok()) {
                out.writer = Box::new(file);
            }
            let mut wake = self.wake.lock();
            wake.done = asked;
            drop(wake);
            self.flushed.notify_all();
        }
    }
}

/// The target, on the thread that writes to it. A full disk or a closed pipe is not a reason to stop serving; what it cost
/// is counted, and said where somebody may see it.
struct Out {
    writer: Box<dyn Write + Send>,
    name: Option<PathBuf>,
    /// The last write failed, perhaps in the middle of a line.
    broken: bool,
    said: Option<Instant>,
}

impl Out {
    /// Writes whole lines; those that are lost are added to `dropped`.
    fn write(&mut self, lines: &[u8], dropped: &AtomicU64) {
        let begun = if self.broken { self.writer.write_all(b"\n") } else { Ok(()) };
        let written = begun.and_then(|()| self.writer.write_all(lines)).and_then(|()| self.writer.flush());
        self.broken = written.is_err();
        let Err(error) = written else { return };
        let lost = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        let lost = dropped.fetch_add(lost, Ordering::Relaxed) + lost;
        if self.said.is_none_or(|said| said.elapsed() > REPEATED) {
            self.said = Some(Instant::now());
            let name = self.name.as_deref().map_or("standard output".into(), Path::to_string_lossy);
            let mut line = Vec::new();
            event::failed(&mut line, &name, &error.to_string(), lost);
            let _ = io::stderr().lock().write_all(&line);
        }
    }

    /// Says how many lines are missing here, once there is somewhere to say it.
    fn say_dropped(&mut self, line: &mut Vec<u8>, dropped: &AtomicU64) {
        let lines = dropped.load(Ordering::Relaxed);
        if lines == 0 {
            return;
        }
        event::dropped(line, lines);
        let nothing = AtomicU64::new(0);
        self.write(line, &nothing);
        line.clear();
        if !self.broken {
            dropped.fetch_sub(lines, Ordering::Relaxed);
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_every_thread_arrives_whole() {
        let shown = Shown::default();
        let sink = Sink::start(Box::new(shown.clone())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let sink = &sink;
                scope.spawn(move || {
                    for n in 0..500 {
                        sink.line(false, |out| out.extend_from_slice(format!("{thread}-{n}\n").as_bytes()));
                    }
                });
            }
        });
        sink.flush();
        let text = String::from_utf8(shown.0.lock().clone()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 4000);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let sink = Sink::open(path.to_str().unwrap()).unwrap();
        sink.line(true, |out| out.extend_from_slice(b"old\n"));
        sink.flush();
        std::fs::rename(&path, &moved).unwrap();
        sink.reopen();
        sink.flush();
        sink.line(true, |out| out.extend_from_slice(b"new\n"));
        sink.flush();
        assert_eq!(
            (std::fs::read_to_string(moved).unwrap(), std::fs::read_to_string(path).unwrap()),
            ("old\n".into(), "new\n".into())
        );
    }

    /// Takes nothing for a while, then half a line, then everything.
    struct Full(Shown, Arc<Mutex<Vec<io::Result<usize>>>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1.lock().pop() {
                Some(Ok(some)) => self.0.write(&bytes[..some.min(bytes.len())]),
                Some(Err(error)) => Err(error),
                None => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_not_their_number() {
        let shown = Shown::default();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        // Taken from the end: half a line of the first batch, then nothing of it, of the report, and of the next batch.
        let plan = Arc::new(Mutex::new(vec![full(), full(), full(), Ok(3)]));
        let sink = Sink::start(Box::new(Full(shown.clone(), Arc::clone(&plan)))).unwrap();
        for line in ["first\nsecond\n", "third\n"] {
            sink.line(true, |out| out.extend_from_slice(line.as_bytes()));
            sink.flush();
        }
        while !plan.lock().is_empty() {
            sink.flush();
        }
        sink.line(true, |out| out.extend_from_slice(b"fourth\n"));
        sink.flush();
        let text = String::from_utf8(shown.0.lock().clone()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[0], "fir", "{text}");
        assert!(lines.contains(&"fourth"), "{text}");
        let said: u64 = lines
            .iter()
            .filter_map(|line| line.split("\"lines\":").nth(1)?.strip_suffix('}')?.parse::<u64>().ok())
            .sum();
        let whole = lines.iter().filter(|line| ["first", "second", "third", "fourth"].contains(line)).count() as u64;
        assert_eq!(said + whole, 4, "{text}");
    }

    #[test]
    fn what_had_to_be_dropped_is_counted_and_said() {
        let shown = Shown::default();
        let sink = Sink::start(Box::new(shown.clone())).unwrap();
        sink.0.as_ref().unwrap().dropped.store(7, Ordering::Relaxed);
        sink.line(true, |out| out.extend_from_slice(b"line\n"));
        sink.flush();
        assert!(
            String::from_utf8(shown.0.lock().clone())
                .unwrap()
                .contains("\"event\":\"log.dropped\",\"level\":\"warn\",\"lines\":7")
        );
    }
}
