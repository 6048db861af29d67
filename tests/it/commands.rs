//! Commands as they are typed: what they print goes into pipes, and whoever reads there may leave.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use palisade_test::paths;

/// `palisade schema | head -1` shows one line, and not how the program ends.
#[test]
fn a_reader_that_leaves_is_no_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("palisade.toml"), "[server]\nmode = \"development\"\n[limits]\nbodi = 1\n")?;
    let mut ran = 0;
    for (arguments, expected) in [
        (&["schema"][..], 0),
        (&["completions", "bash"], 0),
        (&["init", "--starter"], 0),
        (&["version"], 0),
        (&["waf", "--help"], 0),
        (&["--help"], 0),
        (&["check"], 2),
        (&["check", "--json"], 2),
        (&["check", "--effective"], 2),
        (&["status"], 1),
        (&["serve"], 2),
        (&["nonsense"], 2),
    ] {
        let mut child = Command::new(paths::binary()?)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{arguments:?}"))?;
        // Nobody reads what it prints, nor what it complains about.
        drop((child.stdout.take(), child.stderr.take()));
        let status = child.wait()?;
        ensure!(status.code() == Some(expected), "{arguments:?}: {status}");
        ran += 1;
    }
    ensure!(ran == 12);
    Ok(())
}
