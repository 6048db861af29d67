//! Runs the commands that prepare a machine: quiet when quick, visibly working when not, and with all they said when
//! they fail.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A step that has not ended after this shows that it is working.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is kept of a command's output to show when it fails.
const KEPT_BYTES: usize = 16 << 10;

/// Writes one line for the person who watches.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the error holds the end of its output.
pub fn run(command: &mut Command) -> Result<()> {
    fed(command, "")
}

/// The same with something to read on its standard input. Short: it is written before anything that it says is read.
///
/// # Errors
/// As [`run`].
pub fn fed(command: &mut Command, input: &str) -> Result<()> {
    let shown = shown(command);
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;

    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read it ends without it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (ended, end) = mpsc::channel::<()>();
    let readers =
        [child.stdout.take().map(|out| reader(out, ended.clone())), child.stderr.take().map(|err| reader(err, ended))];
    show_progress(&end);

    let status = child.wait().with_context(|| format!("`{shown}`"))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    for reader in readers.into_iter().flatten() {
        if let Ok(bytes) = reader.join() {
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    bail!("`{shown}` ended with {status}:\n{}", said.trim_end())
}

/// The first line of a command's standard output, or `None` when it fails or does not exist.
pub fn first_line(command: &mut Command) -> Option<String> {
    let out = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().trim().to_owned();
    out.status.success().then_some(text)
}

/// Whether a program of this name is on the path.
pub fn has(program: &str) -> bool {
    which(program).is_some()
}

/// Where a program is found on the path.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Reads to the end in a thread and keeps the last of it. The channel closes when the last reader is done.
fn reader(mut from: impl Read + Send + 'static, ended: mpsc::Sender<()>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = VecDeque::new();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            kept.extend(chunk.iter().take(read));
            let excess = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..excess);
        }
        drop(ended);
        kept.into()
    })
}

/// Waits until all readers are done. On a terminal the line is rewritten each second, elsewhere a line comes each ten.
fn show_progress(end: &mpsc::Receiver<()>) {
    let start = Instant::now();
    let terminal = io::stderr().is_terminal();
    let mut wait = PATIENCE;
    while end.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        let seconds = start.elapsed().as_secs();
        if terminal {
            let _ = write!(io::stderr().lock(), "\r  still working, {seconds} s ");
            wait = Duration::from_secs(1);
        } else {
            say(&format!("  still working, {seconds} s"));
            wait = Duration::from_secs(10);
        }
    }
    if terminal && start.elapsed() > PATIENCE {
        let _ = write!(io::stderr().lock(), "\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_was_said() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err().to_string();
        for part in ["out", "err", "3", "sh -c"] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        assert!(run(&mut Command::new("no-such-program")).unwrap_err().to_string().contains("no-such-program"));
        assert!(!has("no-such-program") && has("sh"));
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let error = run(Command::new("sh").args(["-c", "seq 1 100000; exit 1"])).unwrap_err().to_string();
        assert!(error.ends_with("100000") && error.len() < KEPT_BYTES + 200, "{}", error.len());
    }
}
