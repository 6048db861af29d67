//! Ends the application when Palisade itself is killed, which no code of Palisade's can see.
//!
//! A shell that reads from a pipe only Palisade holds. The kernel closes the pipe whatever way Palisade ends; a line in it
//! says that all is in order. Where there is no shell there is no guard.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::unistd::Pid;

use super::place::Place;

/// `$1`: the group; `$2`, `$3`: its socket and the socket's directory, empty with a port. Two seconds to end by itself.
const SCRIPT: &str = r#"read -r _ && exit 0
kill -s TERM -- "-$1" 2>/dev/null
n=0
while [ "$n" -lt 20 ] && kill -s 0 -- "-$1" 2>/dev/null; do sleep 0.1; n=$((n + 1)); done
kill -s KILL -- "-$1" 2>/dev/null
[ -n "$2" ] && rm -f -- "$2" && rmdir -- "$3"
exit 0"#;

/// A guard of one run.
#[derive(Debug)]
pub(super) struct Guard(Option<Child>);

impl Guard {
    pub(super) fn start(group: Pid, place: &Place) -> Self {
        let (socket, directory) = place.paths();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "palisade-guard"])
            .arg(group.to_string())
            .arg(socket)
            .arg(directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal is for Palisade.
            .process_group(0);
        Self(command.spawn().ok())
    }

    /// Its process id, 0 where there is none.
    pub(super) fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Sends it home: the application has ended in order.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut guard) = self.0.take() {
            if let Some(mut pipe) = guard.stdin.take() {
                let _ = pipe.write_all(b"\n");
            }
            let _ = guard.wait();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.dismiss();
    }
}
