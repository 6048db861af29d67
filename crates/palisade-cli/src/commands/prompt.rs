//! Secrets and questions, from a person at a terminal or from standard input. Never from an argument: those stand in the
//! shell's history and in `ps` (threats 42).

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use palisade_base::Secret;
use zeroize::Zeroizing;

use super::output::say;
use crate::exit::Usage;

/// The longest value that is read, in bytes. Longer passwords are refused where they are judged.
const MAX_BYTES: usize = palisade_vault::MAX_BYTES;

/// A secret: what somebody types twice at a terminal, or all of standard input, without its final line end.
pub(super) fn secret(what: &str) -> anyhow::Result<Secret<String>> {
    let value = if io::stdin().is_terminal() { typed_twice(what)? } else { all(what)? };
    if value.expose().is_empty() {
        bail!(Usage(format!("the {what} is empty; nothing was changed")));
    }
    Ok(value)
}

/// A new password: twice from a terminal, or one line of standard input.
pub(super) fn new_password(from_stdin: bool) -> anyhow::Result<Secret<String>> {
    if from_stdin {
        return line();
    }
    if !io::stdin().is_terminal() {
        bail!(Usage("there is no terminal to ask for a password: pipe it in, with `--password-stdin`".into()));
    }
    typed_twice("password")
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

fn typed_twice(what: &str) -> anyhow::Result<Secret<String>> {
    let _silence = Silence::begin()?;
    let first = hidden(&format!("{what}: "))?;
    let second = hidden("once more: ")?;
    if !first.matches(second.expose().as_bytes()) {
        bail!(Usage("the two differ; nothing was changed".into()));
    }
    Ok(first)
}

/// The questions go to standard error: standard output is for data.
fn hidden(question: &str) -> anyhow::Result<Secret<String>> {
    say(question);
    let typed = line();
    // The line end that was typed is not shown either.
    say("\n");
    typed
}

fn all(what: &str) -> anyhow::Result<Secret<String>> {
    // Room for all of it, so that no copy is left behind by a buffer that grew.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut text).context("standard input cannot be read")?;
    if text.len() > MAX_BYTES {
        bail!(Usage(format!("the {what} is longer than 64 KiB")));
    }
    let text = std::str::from_utf8(&text).map_err(|_| Usage(format!("the {what} is not UTF-8")))?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn line() -> anyhow::Result<Secret<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES + 2));
    io::stdin().lock().take(MAX_BYTES as u64).read_line(&mut text).context("standard input cannot be read")?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// While it lives, the terminal does not show what is typed; afterwards it does again, whatever came.
struct Silence(Termios);

impl Silence {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd()).context("the terminal cannot be asked")?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &silent).context("the terminal cannot be silenced")?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}
