//! Palisade itself: built as it is published, started with a policy of the same functions.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use palisade_test::ways::Ways;
use serde_json::Value;

use super::gateway::{Launch, Port};
use super::site::{HOST, ORIGIN, Site};
use super::{Profile, install, process};
use crate::dist;

/// Controls the peers' configurations have no counterpart for. They are switched off where the policy knows them,
/// so that the same work is compared.
const BEYOND_THE_PEERS: &[&str] = &["waf", "validation", "csrf", "bans", "challenge"];

/// Builds the binary and returns where it lies.
pub(super) fn build(root: &Path, profile: Profile) -> Result<PathBuf> {
    let built = match profile {
        Profile::Dist => dist::build(root, false),
        Profile::Release => dist::plainly(root),
    };
    built.context(
        "palisade is not measured (`--subject none` compares the peers alone, `--binary FILE` takes a built one)",
    )
}

pub(super) fn launch(site: &Site, binary: Option<&PathBuf>, under: &[String]) -> Result<Launch> {
    let binary = binary.context("there is no palisade binary")?;
    let path = site.folder.join("bench.toml");
    let access_log = site.folder.join("palisade-access.log");
    let mut command = match site.both_cores {
        true => process::on(&site.cores.both(), binary)?,
        false => process::pinned(site.cores.gateway, binary)?,
    };
    command.args(["serve", "--policy"]).arg(&path);
    if !under.is_empty() {
        command = process::under(under, &command);
    }
    let text = policy(site, &access_log, &known_sections(binary));
    if site.auth.is_some() {
        secrets(site)?;
    }
    let announced = site.folder.join("palisade.stdout");
    Ok(Launch { command, config: ("bench.toml".to_owned(), text), access_log, port: Port::Announced(announced) })
}

/// The keys that logins need in production, as an operator makes them.
fn secrets(site: &Site) -> Result<()> {
    let folder = site.secrets();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    for (name, make) in [
        ("signing-key", &["genpkey", "-algorithm", "ed25519"][..]),
        ("assertion-key", &["genpkey", "-algorithm", "ed25519"]),
        ("mac-key", &["rand", "-hex", "32"]),
        ("pepper", &["rand", "-hex", "32"]),
    ] {
        let path = folder.join(name);
        if path.is_file() {
            continue;
        }
        let output = Command::new(install::program("openssl")?).args(make).output()?;
        if !output.status.success() {
            bail!("openssl could not make `{name}`:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
        std::io::Write::write_all(&mut file, &output.stdout)?;
    }
    Ok(())
}

fn policy(site: &Site, access_log: &Path, known: &[String]) -> String {
    let mut text = format!(
        r#"[server]
mode = "production"
https = "{listen}:0"
http = "off"
admin = "127.0.0.1:0"
hosts = ["{HOST}", "127.0.0.1", "{attacker}"]
workers = {workers}
state = "{state}"
lame_duck = "0s"

[upstream]
url = "http://127.0.0.1:{upstream}"
openapi = "off"

[tls]
cert = "{cert}"
key = "{key}"

[cors]
origins = ["{ORIGIN}"]
methods = ["GET", "POST"]

[rate_limit]
default = "1000000000/minute"

[limits]
connections_per_address = {per_address}

[log]
access = "{log}"
"#,
        state = site.state().display(),
        workers = if site.both_cores { 2 } else { 1 },
        upstream = site.upstream,
        cert = site.cert().display(),
        key = site.key().display(),
        log = access_log.display(),
        per_address = site.per_address,
        listen = site.listen,
        attacker = Ways::ATTACKER,
    );
    if let Some(port) = site.redis {
        let count = "[rate_limit]\n";
        let shared = format!(
            "[redis]\nurl = \"redis://127.0.0.1:{port}\"\n\n{count}store = \"redis\"\nwhen_away = \"closed\"\n"
        );
        text = text.replace(count, &shared);
    }
    if let Some(port) = site.mail {
        text.push_str(&format!("\n[mail]\nserver = \"smtp://localhost:{port}\"\nfrom = \"bench@example.com\"\n"));
    }
    if let Some(registration) = site.auth {
        text.push_str(&format!(
            "\n[secrets]\nprovider = \"dir:{secrets}\"\n\n[auth]\nissuer = \"https://{HOST}\"\nregistration = \"{registration}\"\n\n[[route]]\npath = \"/\"\npublic = true\n\n\
             [[route]]\npath = \"/key\"\nkey = true\nscopes = [\"bench\"]\n",
            secrets = site.secrets().display(),
        ));
    }
    if let Some(file) = &site.rules {
        text.push_str(&format!("\n[waf]\nrules = \"{}\"\n", file.display()));
    }
    let beyond = |section: &&&str| **section != "waf" || site.rules.is_none();
    for section in BEYOND_THE_PEERS.iter().filter(beyond).filter(|section| known.iter().any(|known| known == *section))
    {
        text.push_str(&format!("\n[{section}]\nmode = \"off\"\n"));
    }
    text
}

/// The sections this build's policy has. A build whose `schema` command fails gets the plain policy.
fn known_sections(binary: &Path) -> Vec<String> {
    let output = Command::new(binary).arg("schema").output();
    let schema: Option<Value> = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let properties = schema.as_ref().and_then(|schema| schema["properties"].as_object());
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// The HTTPS port, from the events a gateway printed: `{"event":"server.listening","listener":"https","address":"127.0.0.1:PORT"}`.
pub(super) fn announced(printed: &str) -> Option<u16> {
    printed
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "server.listening" && event["listener"] == "https")
        .and_then(|event| event["address"].as_str()?.rsplit_once(':')?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::announced;

    #[test]
    fn the_port_comes_from_the_https_listeners_event() {
        let printed = "palisade starts\n{\"event\":\"server.listening\",\"listener\":\"admin\",\"address\":\"127.0.0.1:1\"}\n\
            {\"event\":\"server.listening\",\"listener\":\"https\",\"address\":\"[::1]:40123\"}\n{\"event\":";
        assert_eq!(announced(printed), Some(40123));
        assert_eq!(
            announced("{\"event\":\"server.listening\",\"listener\":\"http\",\"address\":\"127.0.0.1:1\"}"),
            None
        );
    }
}
