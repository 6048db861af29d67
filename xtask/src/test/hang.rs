//! Ends a test binary that says nothing any more: libtest itself waits for ever, and a run that is cut off from outside
//! tells nobody why.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Without a line for so long a binary hangs. The longest tests take some two minutes.
const SILENCE: Duration = Duration::from_secs(600);

/// Watches one `cargo test`, until it is dropped.
pub(crate) struct Watch {
    lines: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches what the process `cargo` runs.
    pub(crate) fn over(cargo: u32) -> Self {
        Self::with(SILENCE, move |why| {
            super::line(why);
            end_tests_of(cargo);
        })
    }

    fn with(silence: Duration, mut end: impl FnMut(&str) + Send + 'static) -> Self {
        let (lines, said) = mpsc::channel::<String>();
        let thread = thread::spawn(move || {
            let mut slow = Slow::default();
            loop {
                match said.recv_timeout(silence) {
                    Ok(line) => slow.see(&line),
                    Err(RecvTimeoutError::Timeout) => {
                        end(&slow.sentence(silence));
                        slow = Slow::default();
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { lines: Some(lines), thread: Some(thread) }
    }

    /// Takes a line that the tests printed.
    pub(crate) fn see(&self, line: &str) {
        if let Some(lines) = &self.lines {
            // The thread ends after this only.
            let _ = lines.send(line.to_owned());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The tests of which libtest has said that they are slow, and that have not ended since.
#[derive(Default)]
struct Slow(BTreeSet<String>);

impl Slow {
    fn see(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test ") else { return };
        if let Some((name, _)) = rest.split_once(" has been running for over") {
            self.0.insert(name.to_owned());
        } else if let Some((name, _)) = rest.split_once(" ... ") {
            self.0.remove(name);
        }
    }

    fn sentence(&self, silence: Duration) -> String {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let names = if names.is_empty() { "no test is known to be slow".to_owned() } else { names.join(", ") };
        format!("error: nothing was said for {} s, what runs is ended: {names}", silence.as_secs())
    }
}

/// Test binaries are what cargo runs that lies in a folder `deps` or `examples`; while it compiles there are none.
fn end_tests_of(cargo: u32) {
    for child in children(cargo) {
        let program = fs::read_link(format!("/proc/{child}/exe")).unwrap_or_default();
        let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
        if folder == "deps" || folder == "examples" {
            // What a test started is ended by the kit, once the test is gone.
            let _ = Command::new("kill").args(["-KILL", &child.to_string()]).status();
        }
    }
}

fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_what_runs_and_lines_do_not() {
        let (ended, was_ended) = mpsc::channel();
        let watch =
            Watch::with(Duration::from_millis(50), move |why| ended.send(why.to_owned()).expect("somebody waits"));
        watch.see("test a::slow has been running for over 60 seconds");
        let why = was_ended.recv_timeout(Duration::from_secs(60)).expect("ended after the silence");
        assert!(why.ends_with("a::slow"), "{why}");
        drop(watch);
        let (ended, was_ended) = mpsc::channel();
        let watch = Watch::with(Duration::from_secs(600), move |_| ended.send(()).expect("somebody waits"));
        watch.see("test b ... ok");
        drop(watch);
        assert_eq!(was_ended.try_recv(), Err(mpsc::TryRecvError::Disconnected), "nothing was ended");
    }

    #[test]
    fn the_slow_ones_are_named() {
        let mut slow = Slow::default();
        for line in [
            "test a::slow has been running for over 60 seconds",
            "test a::slower has been running for over 60 seconds",
            "test a::slow ... ok",
            "warning: test",
        ] {
            slow.see(line);
        }
        assert_eq!(slow.sentence(SILENCE), "error: nothing was said for 600 s, what runs is ended: a::slower");
    }

    #[test]
    fn a_child_is_found() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("a child");
        assert!(children(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().expect("ended");
    }
}
