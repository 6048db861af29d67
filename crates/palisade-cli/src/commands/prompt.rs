//! Secrets from a prompt or standard input. Never from an argument: those stand in the shell's history and in `ps`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use palisade_base::Secret;
use zeroize::Zeroizing;

use crate::exit::Usage;

/// The longest value that is read, in bytes.
const MAX_BYTES: u64 = palisade_vault::MAX_BYTES as u64;

/// A secret: what somebody types twice at a terminal, or all of standard input, without its final line end.
pub(super) fn secret(what: &str) -> anyhow::Result<Secret<String>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        // Room for all of it, so that no copy is left behind by a buffer that grew.
        let mut text = Zeroizing::new(Vec::with_capacity(palisade_vault::MAX_BYTES + 2));
        stdin.lock().take(MAX_BYTES + 1).read_to_end(&mut text).context("standard input cannot be read")?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Usage(format!("the {what} is longer than 64 KiB")).into());
        }
        let text = std::str::from_utf8(&text).map_err(|_| Usage(format!("the {what} is not UTF-8")))?;
        return value(what, text);
    }
    let silence = Silence::begin(&stdin)?;
    let first = line(&format!("{what}: "))?;
    let again = line("again: ")?;
    drop(silence);
    if !again.matches(first.expose().as_bytes()) {
        return Err(Usage("the two are not the same; nothing was changed".into()).into());
    }
    value(what, first.expose())
}

fn value(what: &str, text: &str) -> anyhow::Result<Secret<String>> {
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(Usage(format!("the {what} is empty; nothing was changed")).into());
    }
    Ok(Secret::new(text.to_owned()))
}

/// One line that is not shown. The question goes to standard error: standard output is for data.
#[expect(clippy::print_stderr, reason = "a question to whoever sits at the terminal")]
fn line(question: &str) -> anyhow::Result<Secret<String>> {
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut typed = Zeroizing::new(String::with_capacity(palisade_vault::MAX_BYTES + 2));
    let read = std::io::BufRead::read_line(&mut std::io::stdin().lock().take(MAX_BYTES), &mut typed);
    eprintln!();
    read.context("the terminal cannot be read")?;
    Ok(Secret::new(typed.trim_end_matches(['\n', '\r']).to_owned()))
}

/// While it lives, the terminal does not show what is typed.
struct Silence<'a> {
    terminal: &'a std::io::Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(terminal: &'a std::io::Stdin) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal).context("the terminal cannot be asked")?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent).context("the terminal cannot be silenced")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
