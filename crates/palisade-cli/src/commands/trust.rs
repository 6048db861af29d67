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
const STORE: &str = "usr/local/share/ca-certificates";

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
    let system = trust.root.as_deref().unwrap_or(Path::new("/"));
    let store = system.join(STORE);
    if !store.is_dir() {
        bail!(
            "there is no `{}`: `palisade trust --print` prints the certificate for this system's own tool",
            store.display()
        );
    }
    let target = store.join("palisade-local.crt");
    print(&format!("writing `{}`\n", target.display()));
    fs::write(&target, pem).with_context(|| format!("`{}`: run this with sudo", target.display()))?;
    let mut update = Command::new("update-ca-certificates");
    if trust.root.is_some() {
        for (option, place) in [
            ("--localcertsdir", STORE),
            ("--certsconf", "etc/ca-certificates.conf"),
            ("--certsdir", "usr/share/ca-certificates"),
            ("--etccertsdir", "etc/ssl/certs"),
            ("--hooksdir", "etc/ca-certificates/update.d"),
        ] {
            update.arg(option).arg(system.join(place));
        }
    }
    print("running `update-ca-certificates`\n");
    let status = update.status().context("`update-ca-certificates`")?;
    if !status.success() {
        bail!("`update-ca-certificates` failed: {status}");
    }
    print(&format!(
        "curl and other programs trust the local authority now; Firefox and Chromium have stores of their own: import \
         the file there\nto take it back: remove `{}` and run `update-ca-certificates --fresh`\n",
        target.display()
    ));
    Ok(Done::Ok)
}
