//! The commands in the documentation and the README: run as they stand there, or marked with the reason why not.
//!
//! A block of shell is run line by line, those behind `$ `, in a folder with a FastAPI application. A block that can't be
//! run here says so behind its language: ```` ```console not-run: builds for minutes ````. One that another test
//! runs, in a place that has what it needs, names that test's module: ```` ```console run-by: moving ````.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use palisade_test::{Need, Process, need, paths, provision};

const SHELLS: [&str; 4] = ["console", "sh", "bash", "shell"];

struct Block {
    place: String,
    not_run: Option<String>,
    run_by: Option<String>,
    lines: Vec<String>,
}

fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md"), PathBuf::from("SECURITY.md")];
    let mut folders = vec![PathBuf::from("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(paths::workspace().join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn blocks(page: &Path) -> Result<Vec<Block>> {
    let text = std::fs::read_to_string(paths::workspace().join(page))?;
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            fenced = !fenced;
            if fenced {
                let (language, rest) = info.split_once([' ', ',']).unwrap_or((info, ""));
                let said = |what: &str| rest.trim().strip_prefix(what).map(|said| said.trim().to_owned());
                let (not_run, run_by) = (said("not-run:"), said("run-by:"));
                let place = format!("{}:{}", page.display(), number + 1);
                open = SHELLS.contains(&language).then(|| Block { place, not_run, run_by, lines: Vec::new() });
            } else {
                blocks.extend(open.take());
            }
        } else if let (Some(block), Some(command)) = (&mut open, line.strip_prefix("$ ")) {
            block.lines.push(command.to_owned());
        }
    }
    ensure!(!fenced, "{}: a block is not closed", page.display());
    Ok(blocks)
}

/// Runs a line in a folder. A server is ended, as Ctrl-C does, once it is ready; everything else has to end by itself.
async fn run(line: &str, folder: &Path) -> Result<()> {
    let mut path = vec![paths::binary()?.parent().context("a folder")?.to_owned(), provision::venv().join("bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {line}")).current_dir(folder).env("PATH", std::env::join_paths(path)?);
    shell.env("STATE_DIRECTORY", folder.join(".palisade")).env("PYTHONDONTWRITEBYTECODE", "1").env("HOME", folder);
    // On ports that are free, whatever runs on this machine.
    for listener in ["HTTPS", "HTTP", "ADMIN"] {
        shell.env(format!("PALISADE__SERVER__{listener}"), "\"127.0.0.1:0\"");
    }
    let process = Process::spawn(shell)?;
    let serves = ["palisade serve", "palisade demo"].iter().any(|server| line.starts_with(server));
    if serves {
        let ready = |line: &palisade_test::Line| line.text.contains("\"event\":\"server.ready\"").then_some(());
        process.output().find(Duration::from_secs(60), "it is ready", ready).await?;
        process.signal_group(Signal::SIGINT)?;
    }
    let status = process.wait(Duration::from_secs(60)).await?;
    ensure!(status.success(), "{status}: {}", process.output().tail());
    Ok(())
}

#[tokio::test]
async fn every_command_in_the_documentation_runs_or_says_why_not() -> Result<()> {
    need(Need::Python)?;
    let folder = tempfile::Builder::new().prefix("palisade-docs-").tempdir()?;
    std::fs::write(
        folder.path().join("main.py"),
        "from fastapi import FastAPI\n\napp = FastAPI()\n\n\n@app.get(\"/\")\ndef home():\n    return {}\n",
    )?;
    let (mut ran, mut left) = (0, 0);
    for page in pages()? {
        for block in blocks(&page)? {
            ensure!(!block.lines.is_empty(), "{}: no line begins with `$ `", block.place);
            if let Some(module) = block.run_by {
                let source = std::fs::read_to_string(paths::tests("it").join(format!("{module}.rs")));
                let name = page.file_name().context("a page")?.to_string_lossy();
                let reads = source.is_ok_and(|source| source.contains(&*name));
                ensure!(reads, "{}: no module `{module}` of the tests reads this page", block.place);
                continue;
            }
            if let Some(reason) = block.not_run {
                ensure!(!reason.is_empty(), "{}: not run, without a reason", block.place);
                left += block.lines.len();
                continue;
            }
            for line in &block.lines {
                run(line, folder.path()).await.with_context(|| format!("{}: `{line}`", block.place))?;
                ran += 1;
            }
        }
    }
    println!("{ran} commands of the documentation ran, {left} are marked with the reason why not");
    ensure!(ran >= 8 && left <= 11, "{ran} ran, {left} did not");
    Ok(())
}
