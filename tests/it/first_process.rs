//! As the first process of a container: what nobody waits for is reaped, and signals end it as elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use palisade_test::{Palisade, eventually, paths};

use crate::support::lacks_root;

/// An application that leaves orphans behind, and looks at processes by their number in its own container.
const APP: &str = r#"
import http.server, json, os, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments): pass
    def do_GET(self):
        what, _, number = self.path[1:].partition("/")
        said = {"me": os.getpid(), "parent": os.getppid()}
        if what == "orphan":
            # Its parent ends at once; its number is the only thing that is left of it here.
            out = subprocess.run(["sh", "-c", "setsid sleep " + number + " >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE)
            said = {"orphan": int(out.stdout)}
        if what == "state":
            try: fields = open("/proc/" + number + "/stat").read().rpartition(")")[2].split()
            except FileNotFoundError: fields = [None, None]
            said = {"state": fields[0], "parent": fields[1]}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[tokio::test]
async fn orphans_are_reaped_by_the_first_process() -> Result<()> {
    if lacks_root("process") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let wrapper = folder.path().join("palisade");
    let binary = paths::binary()?;
    let script =
        format!("#!/bin/sh\nexec unshare --pid --fork --mount-proc --kill-child '{}' \"$@\"\n", binary.display());
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    let setup = Palisade::serve().binary(&wrapper).file("app.py", APP);
    let palisade = setup.app(&["/usr/bin/python3", "app.py", "{port}"]).start().await?;
    let client = palisade.http()?;
    let ask = async |path: String| anyhow::Ok(client.get(&path).send().await?.json().await?);

    let me = ask("/me".into()).await?;
    assert_eq!(me["parent"], 1, "the gateway is the first process: {me}");
    let mut orphans = Vec::new();
    for seconds in ["0.3", "0.3", "600"] {
        let orphan = ask(format!("/orphan/{seconds}")).await?["orphan"].as_u64().context("a number")?;
        orphans.push(orphan);
    }
    let last = orphans.pop().context("three")?;
    assert_eq!(ask(format!("/state/{last}")).await?["parent"], "1", "it is the gateway's now");
    for orphan in orphans {
        let path = format!("/state/{orphan}");
        let gone = async || ask(path.clone()).await.is_ok_and(|said| said["state"].is_null());
        eventually(Duration::from_secs(20), "it is no zombie", gone).await.with_context(|| palisade.output().tail())?;
    }
    // The application is no orphan: it is still there, and still the same.
    assert_eq!(ask("/me".into()).await?["me"], me["me"]);

    // As a container is stopped: the signal goes to the first process.
    let family = palisade.process().descendants();
    let first = *family.iter().min().context("the gateway")?;
    kill(Pid::from_raw(i32::try_from(first)?), Signal::SIGTERM)?;
    let ended = palisade.process().wait(Duration::from_secs(45)).await?;
    ensure!(ended.success(), "{ended}: {}", palisade.output().tail());
    palisade.event("app.stopped", |line| line["how"] == "ended when asked to").await?;
    let gone = async || family.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
    eventually(Duration::from_secs(20), "nothing of the container runs", gone).await?;
    Ok(())
}
