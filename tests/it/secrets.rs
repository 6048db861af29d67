//! `palisade secret`, and servers that find there what the command has put.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::palisade::run;
use palisade_test::{Palisade, Process, Upstream, eventually, paths, upstream::Reply};

use crate::support::SOON;

const TOKEN: &str = "a-token-that-nobody-guesses-0123456789";
const DEVELOPMENT: &str = "[server]\nmode = \"development\"\nadmin_token = { secret = \"admin-token\" }\n[upstream]\nurl = \"http://127.0.0.1:9\"\n";

/// A shell line in a folder, in which `palisade` is the binary under test. Its exit code, and what it printed.
async fn shell(folder: &Path, line: &str, variables: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let mut path = vec![paths::binary()?.parent().context("a folder")?.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env_clear().envs(variables.iter().copied());
    command.env("PATH", std::env::join_paths(path)?).env("HOME", folder);
    let process = Process::spawn(command)?;
    let status = process.wait(Duration::from_secs(30)).await?;
    process.output().closed(SOON).await?;
    Ok((status.code(), process.output().everything()?))
}

fn folder(policy: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
    std::fs::write(folder.path().join("palisade.toml"), policy)?;
    Ok(folder)
}

#[tokio::test]
async fn a_secret_is_stored_listed_read_and_removed() -> Result<()> {
    let folder = folder(DEVELOPMENT)?;
    let at = folder.path();
    let (code, said) = shell(at, &format!("printf '{TOKEN}\\n' | palisade secret set admin-token"), &[]).await?;
    ensure!(code == Some(0) && !said.contains(TOKEN), "{said}");
    for name in [".palisade/secrets.age", ".palisade/secrets.key"] {
        let mode = std::fs::metadata(at.join(name))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{name}: {mode:o}");
    }
    let got = run(at, &["secret", "get", "admin-token"]).await?;
    ensure!(got.code == Some(0) && got.out == format!("{TOKEN}\n") && got.err.is_empty(), "{} {}", got.out, got.err);
    let listed = run(at, &["secret", "list", "--json"]).await?.json()?;
    ensure!(listed[0]["name"] == "admin-token" && listed[0]["changed"].is_string(), "{listed}");
    ensure!(!listed.to_string().contains(TOKEN));
    let removed = run(at, &["secret", "remove", "admin-token"]).await?;
    ensure!(removed.code == Some(0), "{}", removed.err);
    let got = run(at, &["secret", "get", "admin-token"]).await?;
    ensure!(got.code == Some(1) && got.err.contains("palisade secret set admin-token"), "{}", got.err);
    // Values are no arguments, names are names, and nothing is something else than an empty secret.
    for (line, code, text) in [
        (format!("palisade secret set admin-token {TOKEN}"), 2, "unexpected argument"),
        ("printf x | palisade secret set ../x".into(), 2, "not a name"),
        ("printf '' | palisade secret set x".into(), 2, "empty"),
        ("head -c 70000 /dev/zero | tr '\\0' x | palisade secret set x".into(), 2, "64 KiB"),
        ("printf '\\377' | palisade secret set x".into(), 2, "UTF-8"),
        ("palisade secret remove x".into(), 1, "there is no secret `x`"),
        ("palisade secret rotate x".into(), 2, "`signing-key`, `assertion-key`, `mac-key`, `pepper`"),
    ] {
        let (is, said) = shell(at, &line, &[]).await?;
        ensure!(is == Some(code) && said.contains(text), "{line}: {is:?} {said}");
    }
    Ok(())
}

/// Types a value twice at a terminal, and fails when the screen shows it.
const TYPIST: &str = r#"
import os, pty, sys
answers = [sys.argv[2], sys.argv[3]]
pid, screen = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["palisade", "secret", "set", "typed"])
seen = ""
while True:
    try: piece = os.read(screen, 4096).decode()
    except OSError: break
    if not piece: break
    seen += piece
    if seen.rstrip(" ").endswith(":") and answers:
        with open(f"/proc/{pid}/cmdline") as line:
            if sys.argv[2] in line.read(): sys.exit(96)
        os.write(screen, (answers.pop(0) + "\n").encode())
print(seen)
if sys.argv[2] in seen: sys.exit(95)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[tokio::test]
async fn a_typed_value_is_not_shown() -> Result<()> {
    let folder = folder(DEVELOPMENT)?;
    let typed = async |first: &str, second: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", TYPIST]).arg(paths::binary()?).args([first, second]).current_dir(folder.path());
        let process = Process::spawn(command)?;
        let status = process.wait(Duration::from_secs(30)).await?;
        process.output().closed(SOON).await?;
        anyhow::Ok((status.code(), process.output().everything()?))
    };
    let (code, screen) = typed("correct horse", "correct house").await?;
    ensure!(code == Some(2) && screen.contains("the two differ"), "{code:?} {screen}");
    let (code, screen) = typed("correct horse", "correct horse").await?;
    ensure!(code == Some(0), "{code:?} {screen}");
    let got = run(folder.path(), &["secret", "get", "typed"]).await?;
    ensure!(got.out == "correct horse\n", "{}", got.out);
    Ok(())
}

#[tokio::test]
async fn a_running_server_takes_a_new_value() -> Result<()> {
    let upstream = Upstream::answering(|_| Reply::text("hello")).await?;
    let policy = DEVELOPMENT.replace("http://127.0.0.1:9", &upstream.url());
    let missing = Palisade::serve().policy(&policy).refused().await?;
    ensure!(missing.code == Some(2) && missing.err.contains("palisade secret set admin-token"), "{}", missing.err);
    // It stands where the default does not look: the message says so, and what to write.
    let elsewhere = Palisade::serve().policy(&policy).env("PALISADE_SECRET_ADMIN_TOKEN", TOKEN).refused().await?;
    ensure!(elsewhere.code == Some(2) && elsewhere.err.contains("provider = \"env\""), "{}", elsewhere.err);
    ensure!(!elsewhere.err.contains(TOKEN));

    let folder = folder(&policy)?;
    let store = folder.path().join(".palisade/secrets.age");
    shell(folder.path(), &format!("printf {TOKEN} | palisade secret set admin-token"), &[]).await?;
    let key = folder.path().join(".palisade/secrets.key");
    let shared = format!("{policy}\n[secrets]\nprovider = \"file:{}\"\n", store.display());
    let server =
        Palisade::serve().policy(&shared).env("PALISADE_SECRETS_KEY_FILE", &key.to_string_lossy()).start().await?;
    let admin = server.admin()?;
    let status = async |token: &str| {
        anyhow::Ok(admin.get("/status").header("Authorization", &format!("Bearer {token}")).send().await?.status())
    };
    ensure!(status(TOKEN).await? == 200 && status("another").await? == 401);
    let new = "another-token-that-nobody-guesses-0123456789";
    shell(folder.path(), &format!("printf {new} | palisade secret set admin-token"), &[]).await?;
    ensure!(status(new).await? == 200 && status(TOKEN).await? == 401, "with the next request");
    Ok(())
}

#[tokio::test]
async fn production_wants_a_key_that_somebody_named() -> Result<()> {
    let policy =
        DEVELOPMENT.replace("development", "production").replace("[upstream]", "state = \"state\"\n[upstream]");
    let folder = folder(&policy)?;
    let at = folder.path();
    let set = format!("printf {TOKEN} | palisade secret set admin-token");
    let (code, said) = shell(at, &set, &[]).await?;
    ensure!(code == Some(1) && said.contains("PALISADE_SECRETS_KEY_FILE") && said.contains("secret init"), "{said}");
    let (code, said) = shell(at, "palisade secret init", &[]).await?;
    ensure!(code == Some(2) && said.contains("PALISADE_SECRETS_KEY_FILE"), "{said}");
    let key = at.join("etc/secrets.key");
    let named = [("PALISADE_SECRETS_KEY_FILE", key.to_str().context("a path")?)];
    let (code, said) = shell(at, &set, &named).await?;
    ensure!(code == Some(1) && said.contains("there is no such file"), "{said}");
    let (code, said) = shell(at, "palisade secret init && palisade secret init --json", &named).await?;
    ensure!(code == Some(0) && said.contains("\"made\": false"), "{said}");
    let (code, said) = shell(at, &set, &named).await?;
    ensure!(code == Some(0), "{said}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let (code, said) = shell(at, "palisade secret get admin-token", &named).await?;
    ensure!(code == Some(1) && said.contains("chmod 600") && !said.contains(TOKEN), "{said}");
    Ok(())
}

#[tokio::test]
async fn keys_get_new_versions_where_they_can() -> Result<()> {
    let folder = folder(DEVELOPMENT)?;
    let at = folder.path();
    let first = run(at, &["secret", "rotate", "signing-key", "--json"]).await?.json()?;
    let second = run(at, &["secret", "rotate", "signing-key", "--json"]).await?.json()?;
    ensure!(first["versions"] == 1 && second["versions"] == 2 && first["id"] != second["id"], "{first} {second}");
    ensure!(second["from"].as_str() > first["from"].as_str(), "published before it is used");
    let third = run(at, &["secret", "rotate", "signing-key", "--revoke", "--json"]).await?.json()?;
    ensure!(third["versions"] == 1, "{third}");
    let listed = run(at, &["secret", "list", "--json"]).await?.json()?;
    ensure!(listed[0]["name"] == "signing-key" && listed[0]["versions"] == 1, "{listed}");
    // Not by mistake over a key that has signed.
    let (code, said) = shell(at, "printf x | palisade secret set signing-key", &[]).await?;
    ensure!(code == Some(2) && said.contains("palisade secret rotate signing-key"), "{said}");
    let (code, said) =
        shell(at, "palisade secret rotate pepper && palisade secret rotate pepper --revoke", &[]).await?;
    ensure!(code == Some(1) && said.contains("a pepper cannot be revoked"), "{said}");

    std::fs::write(at.join("palisade.toml"), format!("{DEVELOPMENT}[secrets]\nprovider = \"dir:/run/secrets\"\n"))?;
    for line in ["secret list", "secret rotate signing-key", "secret remove x"] {
        let ran = run(at, &line.split(' ').collect::<Vec<_>>()).await?;
        ensure!(ran.code == Some(2) && ran.err.contains("/run/secrets/"), "{line}: {}", ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn killed_at_any_moment_the_store_is_whole() -> Result<()> {
    let folder = folder(DEVELOPMENT)?;
    let at = folder.path();
    shell(at, "printf kept | palisade secret set kept", &[]).await?;
    for round in 0..20_u64 {
        let line = "while :; do printf 'value' | palisade secret set changing || exit 1; done";
        let mut path = vec![paths::binary()?.parent().context("a folder")?.to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(at).env("PATH", std::env::join_paths(path)?);
        let process = Process::spawn(command)?;
        let begun = async || std::fs::exists(at.join(".palisade/.secrets.age.lock")).unwrap_or(false).then_some(());
        eventually(SOON, "it has begun", begun).await?;
        tokio::time::sleep(Duration::from_millis(10 + round * 7)).await;
        process.kill();
        let got = run(at, &["secret", "get", "kept"]).await?;
        ensure!(got.out == "kept\n", "round {round}: {} {}", got.out, got.err);
    }
    Ok(())
}
