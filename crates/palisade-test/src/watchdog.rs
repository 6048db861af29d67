//! Ends what the tests started when the tests themselves are ended: by Ctrl-C, by a time limit, by a crash.
//!
//! Each process has a group of its own, so no signal to the tests reaches it, and a killed process runs no `Drop`. So a
//! small shell holds the other end of a pipe. When the pipe closes, whoever is still on its list is killed. (A "parent
//! death signal" would need `unsafe`, and fires when the *thread* that started the process ends.) It also removes the
//! folders of servers that all tests of a process share, which no `Drop` ever reaches.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
kill_tree() {
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do kill_tree "$child"; done
    kill -KILL -- "-$1" 2>/dev/null || kill -KILL "$1" 2>/dev/null
}
alive=" "
while read -r change pid; do
    case $change in
        +) alive="$alive$pid " ;;
        -) case $alive in
            *" $pid "*) alive="${alive%% $pid *} ${alive#* $pid }" ;;
        esac ;;
    '~') set -- "$@" "$pid" ;;
    esac
done
for pid in $alive; do kill_tree "$pid"; done
[ $# = 0 ] || rm -rf -- "$@" 2>/dev/null || { sleep 1; rm -rf -- "$@"; }
"#;

static PIPE: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();

/// Puts a process on the list.
pub(crate) fn watch(pid: u32) {
    tell(&format!("+ {pid}\n"));
}

/// Takes an ended one off it, before its number may be given to another.
pub(crate) fn forget(pid: u32) {
    tell(&format!("- {pid}\n"));
}

/// Removes a folder in the end, after all processes.
pub(crate) fn remove(folder: &Path) {
    tell(&format!("~ {}\n", folder.display()));
}

fn tell(line: &str) {
    if let Some(pipe) = PIPE.get_or_init(start) {
        let _ = pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

fn start() -> Option<Mutex<ChildStdin>> {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    shell.stdin.take().map(Mutex::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_still_on_the_list_is_killed() {
        let sleeper = || Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut sleepers = [sleeper(), sleeper(), sleeper()];
        let [first, second, third] = sleepers.each_ref().map(std::process::Child::id);
        let mut shell = Command::new("sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = shell.stdin.take().unwrap();
        write!(pipe, "+ {first}\n- {third}\n+ {second}\n- {first}\n+ {third}\n- {third}\n- {first}\n").unwrap();
        let folder = tempfile::tempdir().unwrap().keep();
        writeln!(pipe, "~ {}", folder.display()).unwrap();
        drop(pipe);
        shell.wait().unwrap();
        assert!(!folder.exists());
        assert!(!sleepers[1].wait().unwrap().success());
        for forgotten in [0, 2] {
            assert!(sleepers[forgotten].try_wait().unwrap().is_none(), "{forgotten}");
            sleepers[forgotten].kill().unwrap();
            sleepers[forgotten].wait().unwrap();
        }
    }
}
