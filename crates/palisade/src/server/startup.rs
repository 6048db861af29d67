//! What is looked at beyond the policy's text before a server starts or a new policy is put in force: files and who may
//! read or change them, certificates, and what a reload may not change.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use palisade_base::Timestamp;
use palisade_policy::{Problems, Snapshot};
use rustls::sign::CertifiedKey;

use super::tls;
use crate::controls::Config;
use crate::observe::sink::Sink;
use crate::policy::Env;
use crate::policy::secrets::weakness;
use crate::policy::values::{HostPattern, Listen, SecretProvider};

/// A certificate that ends sooner than this is reported.
const SOON_MS: i64 = 14 * 24 * 3_600_000;

/// Why a policy is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// To start with it, or to say whether that would work.
    Start,
    /// To put it in force in a running server.
    Reload,
    /// To put a switch in force: the files have been judged before, and this must work at three in the morning.
    Switch,
}

/// Files, certificates and the admin listener.
pub(crate) fn check(snapshot: &Snapshot, config: &Config, env: &Env, occasion: Occasion, problems: &mut Problems) {
    if occasion == Occasion::Switch {
        return;
    }
    let production = !config.server.is_development();
    if production {
        snapshot.check_ownership_here(problems);
    }
    logs(config, problems);
    certificates(config, env, occasion, problems);
    crate::controls::static_files::check(snapshot, config, problems);
    admin(config, env, production, problems);
    secrets(config, env, production, problems);
}

/// Files that log lines cannot be written to. Nothing is made: whoever only asks leaves no trace.
pub(crate) fn logs(config: &Config, problems: &mut Problems) {
    for (key, target) in [("log.access", &config.log.access), ("log.security", &config.log.security)] {
        let Some(file) = Sink::file(target) else { continue };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong = if !folder.is_dir() {
            Some(format!("the directory `{}` does not exist", folder.display()))
        } else if let Err(error) = std::fs::OpenOptions::new().append(true).open(file)
            && (error.kind() != std::io::ErrorKind::NotFound
                || nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_err())
        {
            Some(format!("`{}` cannot be written to: {error}", file.display()))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            problems.error(
                key,
                wrong,
                "name a file in a directory that Palisade's user may write to, or `stdout`, `stderr` or `off`; a relative path starts at the policy file",
            );
        }
    }
}

fn certificates(config: &Config, env: &Env, occasion: Occasion, problems: &mut Problems) {
    let (tls, now) = (&config.tls, env.clock.now());
    let single = tls.cert.as_deref().zip(tls.key.as_deref());
    let single = single.map(|(cert, key)| ("tls".to_owned(), cert, key)).into_iter();
    let listed = tls.certificate.iter().enumerate();
    let listed = listed.map(|(place, pair)| (format!("tls.certificate[{place}]"), &*pair.cert, &*pair.key));
    let mut keys = Vec::new();
    let mut broken = false;
    for (path, cert, key) in single.chain(listed) {
        if !config.server.is_development() {
            private(&format!("{path}.key"), key, problems);
        }
        match tls::certified(cert, key) {
            Ok((certified, fact)) => {
                valid(&format!("{path}.cert"), &fact, now, config, occasion, problems);
                keys.push(certified);
            }
            Err((file, why)) => {
                broken = true;
                let blamed = if file == cert { "cert" } else { "key" };
                problems.error(
                    &format!("{path}.{blamed}"),
                    format!("`{}`: {why}", file.display()),
                    "name a PEM file that Palisade's user can read: the chain with the leaf first, and the key that belongs to it",
                );
            }
        }
    }
    if !broken && !keys.is_empty() && config.server.https() != Listen::Off {
        covered(&keys, &config.server.hosts, problems);
    }
}

fn valid(path: &str, fact: &tls::Fact, now: Timestamp, config: &Config, occasion: Occasion, problems: &mut Problems) {
    let day = |time: Timestamp| time.date().date();
    if fact.is_valid(now) {
        if fact.not_after.0 < now.0.saturating_add(SOON_MS) {
            problems.warn(path, format!("this certificate ends on {}", day(fact.not_after)), "renew it");
        }
        return;
    }
    let (message, fix) = if now < fact.not_before {
        (format!("this certificate is valid from {} on", day(fact.not_before)), "check the clock, or use another one")
    } else {
        (format!("this certificate ended on {}", day(fact.not_after)), "renew it")
    };
    // Who reloads to mend something else while it is in force anyway must be able to.
    if occasion == Occasion::Start && !config.server.is_development() {
        problems.error(path, message, fix);
    } else {
        problems.warn(path, message, fix);
    }
}

fn covered(keys: &[Arc<CertifiedKey>], hosts: &[HostPattern], problems: &mut Problems) {
    for (place, host) in hosts.iter().enumerate() {
        if !keys.iter().any(|key| tls::covers(key, host)) {
            problems.warn(
                &format!("server.hosts[{place}]"),
                format!("no certificate is for `{host}`"),
                "add one with this name to `[[tls.certificate]]`",
            );
        }
    }
}

/// A private key is for nobody else; what a container platform mounted cannot be changed by who runs in the container.
pub(crate) fn private(path: &str, file: &Path, problems: &mut Problems) {
    let Ok(meta) = std::fs::metadata(file) else { return };
    let Some(exposed) = palisade_vault::exposed(file, &meta) else { return };
    let message = format!("others may read the private key `{}` (mode {:04o})", file.display(), exposed.mode);
    if exposed.mounted {
        problems.warn(
            path,
            message,
            "set `defaultMode: 0400` (Kubernetes) or `mode: 0400` (compose) for the mounted secret",
        );
    } else {
        problems.error(
            path,
            message,
            format!("run `chmod 600 {}`, and replace the key if others were there", file.display()),
        );
    }
}

fn admin(config: &Config, env: &Env, production: bool, problems: &mut Problems) {
    let server = &config.server;
    if let Some(address) = server.admin.address()
        && !address.ip().is_loopback()
        && server.admin_address.is_empty()
    {
        problems.error(
            "server.admin",
            "an admin listener outside loopback must say who may reach it",
            "name networks in `admin_address`, such as `admin_address = [\"10.0.0.0/8\"]`, or listen on loopback",
        );
    }
    for (place, host) in server.admin_hosts.iter().enumerate() {
        if *host == HostPattern::Any {
            problems.error(
                &format!("server.admin_hosts[{place}]"),
                "`*` would let any web page reach the admin listener by a name of its own",
                "name the hosts",
            );
        }
    }
    if let Some(token) = &server.admin_token {
        match env.secrets.get(&token.secret) {
            Ok(value) if production => {
                if let Some(why) = weakness(value.expose()) {
                    problems.error(
                        "server.admin_token",
                        format!("this token {why}"),
                        "make one of 32 random bytes, such as by `openssl rand -hex 32`",
                    );
                }
            }
            Ok(_) => {}
            Err(error) => {
                problems.error("server.admin_token", error.to_string(), "store the secret, or take the line out");
            }
        }
    }
}

/// What `[secrets]` says that goes badly together, and a key that others can read.
fn secrets(config: &Config, env: &Env, production: bool, problems: &mut Problems) {
    let secrets = &config.secrets;
    if production && matches!(secrets.provider, SecretProvider::DotEnv(_)) {
        problems.error(
            "secrets.provider",
            "a file `.env` is for development: it is plain text in a working copy",
            "use \"file\", \"env\" or \"dir:…\" in production",
        );
    }
    for (key, age) in [("secrets.rotate", secrets.rotate), ("secrets.rotate_pepper", secrets.rotate_pepper)] {
        // A ring holds 16 versions, and each one takes its time to come and to go.
        if age.duration().is_some_and(|age| age < secrets.lead.duration().saturating_mul(2)) {
            problems.error(
                key,
                "keys would be replaced before they are used",
                "make it at least twice as long as `secrets.lead`; `90d` is the default",
            );
        }
    }
    let least = std::time::Duration::from_secs(5);
    if secrets.lead.duration() < least {
        problems.error(
            "secrets.lead",
            "too short for every server to see a new key before it is used",
            "at least `5s`; whoever keeps the JWKS needs minutes",
        );
    }
    // PostgreSQL is for several machines, and each of them would make keys of its own here.
    if env.has_login && config.database.is_shared() && secrets.provider == SecretProvider::default() {
        problems.warn(
            "database.url",
            "gateways that share a database must share their keys, and `secrets.provider` is a file under `server.state`",
            "name a file that all of them see, `provider = \"file:PATH\"` under `[secrets]`; with one gateway, name its own",
        );
    }
    if env.has_login {
        if let Err(error) = crate::controls::auth::keys::check(config, &*env.secrets) {
            let key = if secrets.provider == SecretProvider::default() { "auth" } else { "secrets.provider" };
            problems.error(
                key,
                error.to_string(),
                "logins are signed with keys of the secret store; give it what it needs",
            );
        }
    } else if let (SecretProvider::File(_), Some(key)) =
        (&secrets.provider, crate::policy::secrets::key_file(config).path())
    {
        private("secrets.provider", key, problems);
    }
}

/// What a running server cannot change, and what a reload in production may not take away.
pub(crate) fn check_change(old: (&Snapshot, &Config), new: (&Snapshot, &Config), problems: &mut Problems) {
    let ((old_snapshot, old), (new_snapshot, new)) = (old, new);
    let (was, is) = (&old.server, &new.server);
    let fixed = [
        ("server.mode", was.mode != is.mode),
        ("server.https", was.https() != is.https()),
        ("server.http", was.http() != is.http()),
        ("server.admin", was.admin != is.admin),
        ("server.probes", was.probes != is.probes),
        ("server.state", was.state != is.state),
        ("server.workers", was.workers != is.workers),
        ("upstream.command", old.upstream.command != new.upstream.command),
        ("upstream.env", old.upstream.env != new.upstream.env),
        ("upstream.user", old.upstream.user != new.upstream.user),
        (
            "database",
            old_snapshot.is_set("auth") && new_snapshot.is_set("auth") && old.database.url != new.database.url,
        ),
        ("log.format", old.log.format != new.log.format),
        ("log.access", old.log.access != new.log.access),
        ("log.security", old.log.security != new.log.security),
    ];
    for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
        problems.error(
            key,
            format!("`{key}` cannot change while the server runs"),
            "restart to change it, or put the old value back",
        );
    }
    if !was.is_development() && old_snapshot.is_set("auth") && !new_snapshot.is_set("auth") {
        problems.error(
            "",
            "`[auth]` is gone: a reload in production may not take the login away",
            "put it back; to really remove it, restart",
        );
    }
}

/// Whether an admin connection from this address is taken.
pub(super) fn may_reach_admin(server: &crate::policy::config::Server, peer: IpAddr) -> bool {
    let peer = palisade_base::canonical_ip(peer);
    peer.is_loopback() || server.admin_address.iter().any(|network| network.contains(peer))
}
