//! `palisade trust`: the local authority of development becomes one of this machine's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::output::print;
use super::running;
use crate::args::{Global, Trust};
use crate::exit::Done;

/// Where Debian, and what is made of it, looks for further authorities.
const STORE: &str = "/usr/local/share/ca-certificates";

/// Prints the certificate, or adds it to the system's store and says what it does.
pub(crate) fn run(global: &Global, trust: &Trust) -> anyhow::Result<Done> {
    let root = running::state(global).join("ca/root.pem");
    let pem = fs::read_to_string(&root).with_context(|| {
        format!("`{}`: there is no local authority yet; `palisade serve` in development makes one", root.display())
    })?;
    if trust.print {
        print(&pem);
        return Ok(Done::Ok);
    }
    if cfg!(target_os = "macos") {
        print(&format!(
            "run: sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {}\n",
            root.display()
        ));
        return Ok(Done::Findings);
    }
    if !Path::new(STORE).is_dir() {
        bail!("this system has no `{STORE}`: `palisade trust --print` prints the certificate for its own tool");
    }
    let target = Path::new(STORE).join("palisade-local.crt");
    print(&format!("writing `{}`\n", target.display()));
    fs::write(&target, pem).with_context(|| format!("`{}`: run this with sudo", target.display()))?;
    print("running `update-ca-certificates`\n");
    let status = Command::new("update-ca-certificates").status().context("`update-ca-certificates`")?;
    if !status.success() {
        bail!("`update-ca-certificates` failed: {status}");
    }
    print(
        "curl and other programs trust the local authority now; Firefox and Chromium have stores of their own: import \
         the file there\n",
    );
    Ok(Done::Ok)
}
