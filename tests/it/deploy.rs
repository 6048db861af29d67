//! As it is deployed: no rights, a root that cannot be written to.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use palisade_test::upstream::Reply;
use palisade_test::{Palisade, Upstream, not_run};

/// Runs the binary as `nobody` below a read-only view of `/`, in which only its working directory can be written to.
const WRAPPER: &str = r#"#!/bin/sh
set -eu
here=$(pwd)
mkdir -p "$here/root"
chown -R 65534:65534 "$here"
exec unshare --mount sh -c '
    set -eu
    here=$0
    mount --bind / "$here/root"
    mount -o remount,bind,ro "$here/root"
    mount --bind "$here" "$here/root$here"
    exec chroot --userspec=65534:65534 "$here/root" sh -c "cd \"\$0\" && exec \"\$@\"" "$here" "$@"
' "$here" "@BINARY@" "$@"
"#;

#[tokio::test]
async fn serves_without_rights_and_with_a_read_only_root() -> Result<()> {
    if !is_root()? {
        not_run("mount namespaces need root");
        return Ok(());
    }
    let upstream = Upstream::answering(|_| Reply::text("from behind")).await?;
    // `exec` keeps the wrapper's process, so what the kit watches is the gateway itself.
    let folder = tempfile::tempdir()?;
    let wrapper = folder.path().join("palisade");
    let binary = std::env::var("PALISADE_BIN").context("PALISADE_BIN, which `cargo xtask test` sets")?;
    std::fs::write(&wrapper, WRAPPER.replace("@BINARY@", &binary))?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;

    let gateway = Palisade::serve().binary(&wrapper).upstream(&upstream.url()).start().await?;
    let mut answer = gateway.https()?.get("/").send().await?;
    assert_eq!((answer.status(), answer.text().await?.as_str()), (200, "from behind"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process().id()))?;
    assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains("65534")), "{status}");
    assert!(gateway.terminate().await?.success());
    Ok(())
}

fn is_root() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status.lines().any(|line| line.starts_with("Uid:\t0\t0")))
}
