//! Passwords and questions, from a person or from standard input; never from an argument.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use palisade_base::Secret;

use super::super::output::say;
use crate::exit::Usage;

/// More than any password: what is longer is refused where it is judged.
const MOST: u64 = 64 * 1024;

/// A new password: twice from a terminal, or one line of standard input.
pub(super) fn new_password(from_stdin: bool) -> anyhow::Result<Secret<String>> {
    if from_stdin {
        return line();
    }
    if !io::stdin().is_terminal() {
        bail!(Usage("there is no terminal to ask for a password: pipe it in, with `--password-stdin`".into()));
    }
    let first = hidden("password: ")?;
    let second = hidden("once more: ")?;
    if !first.matches(second.expose().as_bytes()) {
        bail!("the two passwords differ");
    }
    Ok(first)
}

/// Whether somebody says yes. Without a terminal nobody does.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(Usage("there is no terminal to ask: say `--yes`".into()));
    }
    say(&format!("{question} [y/N] "));
    let answer = line()?;
    Ok(matches!(answer.expose().trim(), "y" | "Y" | "yes"))
}

fn line() -> anyhow::Result<Secret<String>> {
    let mut text = String::new();
    io::stdin().lock().take(MOST).read_line(&mut text).context("standard input cannot be read")?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(Secret::new(text))
}

/// Asks without showing what is typed.
fn hidden(question: &str) -> anyhow::Result<Secret<String>> {
    /// Shows it again, whatever comes.
    struct Shown(nix::sys::termios::Termios);

    impl Drop for Shown {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
            say("\n");
        }
    }

    say(question);
    let terminal = tcgetattr(io::stdin().as_fd())?;
    let mut silent = terminal.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    let _shown = Shown(terminal);
    tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &silent)?;
    line()
}
