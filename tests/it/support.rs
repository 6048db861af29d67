//! What the tests behind the gateway share.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use palisade_store::Options;
use palisade_test::kept::Kept;
pub(crate) use palisade_test::palisade::written_policy;
use palisade_test::{Answer, Client, Palisade, Wire, eventually, not_run, paths};
use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The deadline of a condition that holds within milliseconds on a machine with nothing else to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

static MACHINE: RwLock<()> = RwLock::const_new(());

/// For a test that pushes gigabytes: it has the machine for itself among those that measure time.
pub(crate) async fn heavy() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// For a test that measures time: nothing heavy runs beside it.
pub(crate) async fn timed() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Whether a test cannot run for want of root, which namespaces of this sort need; it says so.
pub(crate) fn lacks_root(namespaces: &str) -> bool {
    let lacks = !nix::unistd::geteuid().is_root();
    if lacks {
        not_run(&format!("{namespaces} namespaces need root"));
    }
    lacks
}

/// The gateway under the starter policy, as `palisade serve --upstream URL` starts it.
pub(crate) async fn starter(url: &str) -> Result<Palisade> {
    Palisade::serve().upstream(url).start().await
}

/// The gateway under a policy that somebody wrote: development, this upstream, and what follows.
pub(crate) async fn written(url: &str, more: &str) -> Result<Palisade> {
    Palisade::serve().policy(&written_policy(url, more)).start().await
}

/// The binary under test, run by a shell that limits it first: `ulimit -n 300`. It is gone with the folder.
pub(crate) fn limited(ulimit: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let wrapper = folder.path().join("palisade");
    std::fs::write(&wrapper, format!("#!/bin/sh\n{ulimit}\nexec \"{}\" \"$@\"\n", paths::binary()?.display()))?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    Ok((folder, wrapper))
}

/// Lets this process have so many files open, where the machine allows it. Gives how many.
pub(crate) fn open_files(wanted: u64) -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = wanted.min(hard).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// What `explain` knows once the answer has ended for the gateway too.
pub(crate) async fn explained(gateway: &Palisade, id: &str) -> Result<Value> {
    let known = async || gateway.run(&["explain", id, "--json"]).await.ok()?.json().ok();
    eventually(SOON, "the request is known", known).await
}

/// The next piece of a body, as text. The end of a body over HTTP/2 may be a frame of its own.
pub(crate) async fn piece(answer: &mut Answer) -> Result<Option<String>> {
    while let Some(chunk) = tokio::time::timeout(SOON, answer.chunk()).await.context("a piece is held back")?? {
        if !chunk.data.is_empty() {
            return Ok(Some(String::from_utf8_lossy(&chunk.data).into_owned()));
        }
    }
    Ok(None)
}

/// The database, for who looks into it beside the gateway.
pub(crate) fn database(kept: &Kept, gateway: &Palisade) -> Result<Options> {
    Ok(match kept.url() {
        None => Options::sqlite(gateway.state().join("palisade.db")),
        Some(url) => Options::parse(&palisade_base::Secret::new(url), gateway.directory())?,
    })
}

/// A client by each way in: HTTP/1.1 without TLS, with TLS, HTTP/2.
pub(crate) fn ways(gateway: &Palisade) -> Result<[(&'static str, Client); 3]> {
    Ok([("http", gateway.http()?), ("https", gateway.https()?), ("h2", gateway.https()?.http2())])
}

/// A connection for raw bytes by each way in that has raw bytes.
pub(crate) async fn wires(gateway: &Palisade) -> Result<[(&'static str, Wire); 2]> {
    Ok([("http", gateway.wire_http().await?), ("https", gateway.wire().await?)])
}

/// Numbers that look random and are the same in each run (splitmix64).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
