//! `palisade user|role|key|client|session|db`: beside a running gateway, which honours what they change within a second.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palisade_test::kept::Kept;
use palisade_test::postgres::Postgres;
use palisade_test::upstream::Reply;
use palisade_test::{Client, Palisade, Upstream, eventually, on_both, paths};
use serde_json::{Value, json};

const PASSWORD: &str = "vier alte Kutschen im Nebel";
/// The password `correct-horse-battery`, as Django stores it.
const DJANGO: &str = "pbkdf2_sha256$1000$c2FsdHNhbHQ$fSGhPP21GxfBdOLdlor4EX1ty4bHaIlwMVNn8f24Ksc=";

const POLICY: &str = r#"
[auth]

[[route]]
path = "/admin/*"
roles = ["admin"]

[[route]]
path = "/notes/*"
scopes = ["notes:read"]
"#;

/// What a change has until every request knows of it.
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn run(folder: &Path, arguments: &[&str], input: &str, more: &[(&str, &str)]) -> Result<Output> {
    let mut child = Command::new(paths::binary()?)
        .args(arguments)
        .current_dir(folder)
        .envs(more.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A command that does not read it ends without it.
    let _ = child.stdin.take().context("a pipe")?.write_all(input.as_bytes());
    Ok(child.wait_with_output()?)
}

/// A command that ends well, and its JSON.
fn done(gateway: &Palisade, arguments: &[&str], input: &str) -> Result<Value> {
    let output = run(gateway.directory(), &[arguments, &["--json"]].concat(), input, &[])?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn token(client: &Client, name: &str, password: &str) -> Result<Option<String>> {
    let body = format!("grant_type=password&username={name}&password={}", password.replace(' ', "+"));
    let request = client.post("/auth/token").header("content-type", "application/x-www-form-urlencoded").body(body);
    let mut answer = request.send().await?;
    if answer.status() != 200 {
        return Ok(None);
    }
    let tokens = answer.json().await?;
    Ok(Some(format!("Bearer {}", tokens["access_token"].as_str().context("no access token")?)))
}

async fn gateway(kept: &Kept) -> Result<(Upstream, Palisade)> {
    let upstream = Upstream::answering(|_| Reply::text("fine")).await?;
    let gateway = kept.setup(&upstream.url(), POLICY).start().await?;
    Ok((upstream, gateway))
}

on_both!(
    users_and_roles,
    keys_and_clients,
    accounts_move_in,
    an_import_that_is_killed_goes_on_where_it_was,
    an_import_shows_how_far_it_is,
    what_commands_refuse,
);

/// Waits until a request is answered so, and says how long after `since` that was.
async fn becomes(client: &Client, target: &str, credential: (&str, &str), status: u16, since: Instant) -> Result<()> {
    eventually(Duration::from_secs(10), &format!("{target} answers {status}"), async || {
        let answer = client.get(target).header(credential.0, credential.1).send().await.ok()?;
        (answer.status() == status).then_some(())
    })
    .await?;
    // What the command itself takes to write and end is not the gateway's.
    ensure!(since.elapsed() < SECOND, "{target} answers {status} after {:?}", since.elapsed());
    Ok(())
}

async fn users_and_roles(kept: Kept) -> Result<()> {
    let (_upstream, gateway) = gateway(&kept).await?;
    let client = gateway.https()?;
    let line = format!("{PASSWORD}\n");
    let add = ["user", "add", "Root", "--email", "root@example.com", "--role", "admin", "--password-stdin"];
    let root = done(&gateway, &add, &line)?;
    assert_eq!((&root["username"], &root["roles"]), (&json!("Root"), &json!(["admin"])));
    let bearer = token(&client, "root", PASSWORD).await?.context("root logs in")?;
    assert_eq!(client.get("/admin/x").header("authorization", &bearer).send().await?.status(), 200);

    done(&gateway, &["user", "set", "root", "--no-roles"], "")?;
    becomes(&client, "/admin/x", ("authorization", &bearer), 403, Instant::now()).await?;
    done(&gateway, &["role", "add", "writer", "--permission", "notes:write"], "")?;
    let set = done(&gateway, &["user", "set", "root", "--role", "writer", "--role", "admin"], "")?;
    assert_eq!((&set["roles"], &set["permissions"]), (&json!(["admin", "writer"]), &json!(["notes:write"])));
    becomes(&client, "/admin/x", ("authorization", &bearer), 200, Instant::now()).await?;

    let sessions = done(&gateway, &["session", "list", "--user", "root"], "")?;
    let id = sessions[0]["id"].as_str().context("a login that goes on")?;
    done(&gateway, &["session", "end", id], "")?;
    becomes(&client, "/x", ("authorization", &bearer), 401, Instant::now()).await?;
    let bearer = token(&client, "root", PASSWORD).await?.context("and in again")?;
    done(&gateway, &["user", "disable", "ROOT@example.com"], "")?;
    becomes(&client, "/x", ("authorization", &bearer), 401, Instant::now()).await?;
    ensure!(token(&client, "root", PASSWORD).await?.is_none(), "disabled");
    done(&gateway, &["user", "enable", "root"], "")?;
    ensure!(token(&client, "root", PASSWORD).await?.is_some());
    let exported = done(&gateway, &["user", "export", "root"], "")?;
    assert_eq!(exported["email"], "root@example.com");
    ensure!(!exported.to_string().contains("argon2"), "{exported}");
    done(&gateway, &["user", "delete", "root", "--yes"], "")?;
    ensure!(token(&client, "root", PASSWORD).await?.is_none(), "deleted");
    assert_eq!(done(&gateway, &["user", "list"], "")?, json!([]));
    Ok(())
}

async fn keys_and_clients(kept: Kept) -> Result<()> {
    let (_upstream, gateway) = gateway(&kept).await?;
    let client = gateway.https()?;
    done(&gateway, &["user", "add", "ann", "--password-stdin"], PASSWORD)?;
    let create = ["key", "create", "--user", "ann", "--scope", "notes:read", "--expires", "90d", "--name", "ci"];
    let key = done(&gateway, &create, "")?;
    let text = key["key"].as_str().context("a key")?;
    let with = |text: &str| client.get("/notes/1").header("x-api-key", text);
    assert_eq!(with(text).send().await?.status(), 200);
    let id = key["id"].as_str().context("an id")?;
    let next = done(&gateway, &["key", "rotate", id], "")?;
    assert_eq!(with(next["key"].as_str().context("a key")?).send().await?.status(), 200);
    assert_eq!(with(text).send().await?.status(), 200, "for the time of overlap");
    let listed = done(&gateway, &["key", "list", "--user", "ann"], "")?;
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    ensure!(!listed.to_string().contains(text), "a list holds no key");
    done(&gateway, &["key", "revoke", id], "")?;
    becomes(&client, "/notes/1", ("x-api-key", text), 401, Instant::now()).await?;

    let add =
        ["client", "add", "Notes app", "--method", "client_secret_basic", "--redirect", "https://app.example.com/cb"];
    let app = done(&gateway, &[&add[..], &["--scope", "notes:read", "--grant", "authorization_code"]].concat(), "")?;
    ensure!(app["client_secret"].as_str().is_some_and(|secret| secret.starts_with("plcs_")), "{app}");
    let listed = done(&gateway, &["client", "list"], "")?;
    assert_eq!((&listed[0]["client_id"], &listed[0]["name"]), (&app["client_id"], &json!("Notes app")));
    ensure!(listed[0]["client_secret"].is_null());
    let id = app["client_id"].as_str().context("an id")?;
    done(&gateway, &["client", "revoke", id], "")?;
    assert_eq!(done(&gateway, &["client", "list"], "")?, json!([]));
    Ok(())
}

async fn accounts_move_in(kept: Kept) -> Result<()> {
    let (_upstream, gateway) = gateway(&kept).await?;
    let client = gateway.https()?;
    let csv = format!(
        "id,username,email,password,is_active\n1,ann,ann@example.com,{DJANGO},1\n2,b ob,bob@example.com,{DJANGO},1\n\
         3,cy,cy@example.com,plaintext,1\n4,dan,dan@example.com,{DJANGO},0\n"
    );
    std::fs::write(gateway.directory().join("users.csv"), csv)?;
    let import = ["user", "import", "users.csv", "--report", "failed.jsonl", "--json"];
    let output = run(gateway.directory(), &import, "", &[])?;
    ensure!(output.status.code() == Some(1), "two failed: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&report["imported"], &report["failed"]), (&json!(2), &json!(2)));
    let failed = std::fs::read_to_string(gateway.directory().join("failed.jsonl"))?;
    let lines: Vec<Value> = failed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.iter().map(|line| line["line"].as_u64()).collect::<Vec<_>>(), [Some(3), Some(4)]);
    ensure!(token(&client, "ann", "correct-horse-battery").await?.is_some(), "with the old password");
    ensure!(token(&client, "dan", "correct-horse-battery").await?.is_none(), "not active");
    assert_eq!(done(&gateway, &["user", "show", "ann"], "")?["app_id"], "1");
    // Without `--report`, a person reads the failures; again, nothing is imported twice.
    let again = run(gateway.directory(), &["user", "import", "users.csv"], "", &[])?;
    let (out, err) = (String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    ensure!(out.contains("4 accounts read: 0 imported") && out.contains("2 there already"), "{out}");
    ensure!(err.contains("line 4 (cy): the password's hash: the hash has no known format"), "{err}");
    Ok(())
}

/// Whatever ends an import in the middle: what was stored is stored, the next one does the rest, and nothing is lost.
async fn an_import_that_is_killed_goes_on_where_it_was(kept: Kept) -> Result<()> {
    const ALL: usize = 2_000;
    let (_upstream, gateway) = gateway(&kept).await?;
    let line = |n: usize| format!("{n},user{n},user{n}@example.com,{DJANGO}\n");
    let header = "id,username,email,password\n";
    let whole: String = std::iter::once(header.to_owned()).chain((0..ALL).map(line)).collect();
    std::fs::write(gateway.directory().join("users.csv"), &whole)?;
    // One that gets half of the file and waits for the rest.
    let mut child = Command::new(paths::binary()?)
        .args(["user", "import", "-", "--format", "csv"])
        .current_dir(gateway.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    input.write_all(header.as_bytes())?;
    for n in 0..ALL / 2 {
        input.write_all(line(n).as_bytes())?;
    }
    input.flush()?;
    let stored = || -> Result<usize> { Ok(done(&gateway, &["user", "list"], "")?.as_array().map_or(0, Vec::len)) };
    eventually(Duration::from_secs(30), "a part of it is stored", async || stored().is_ok_and(|count| count >= 200))
        .await?;
    child.kill()?;
    child.wait()?;
    drop(input);
    let before = stored()?;
    ensure!((200..=ALL / 2).contains(&before), "{before}");
    let report = done(&gateway, &["user", "import", "users.csv"], "")?;
    assert_eq!((&report["read"], &report["failed"]), (&json!(ALL), &json!(0)));
    assert_eq!((&report["known"], &report["imported"]), (&json!(before), &json!(ALL - before)));
    assert_eq!(stored()?, ALL);
    ensure!(token(&gateway.https()?, &format!("user{}", ALL - 1), "correct-horse-battery").await?.is_some());
    Ok(())
}

/// At a terminal a person sees how far it is; a script sees nothing of that.
async fn an_import_shows_how_far_it_is(kept: Kept) -> Result<()> {
    let (_upstream, gateway) = gateway(&kept).await?;
    let lines = (0..1_000).map(|n| format!("user{n},{DJANGO}\n"));
    let csv: String = std::iter::once("username,password\n".to_owned()).chain(lines).collect();
    std::fs::write(gateway.directory().join("users.csv"), csv)?;
    let pty = "import os, pty, sys\ncode = pty.spawn(sys.argv[1:])\nsys.exit(os.waitstatus_to_exitcode(code))";
    let output = Command::new("python3")
        .args(["-c", pty])
        .arg(paths::binary()?)
        .args(["user", "import", "users.csv"])
        .current_dir(gateway.directory())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()?;
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && screen.contains("1000 accounts read: 1000 imported"), "{screen}");
    ensure!(screen.contains('%') && screen.contains("imported, 0 known, 0 failed"), "{screen}");
    let script = run(gateway.directory(), &["user", "import", "users.csv"], "", &[])?;
    ensure!(script.stderr.is_empty(), "{}", String::from_utf8_lossy(&script.stderr));
    Ok(())
}

/// What is typed wrongly is said with its remedy, and no password is ever an argument.
async fn what_commands_refuse(kept: Kept) -> Result<()> {
    let (_upstream, gateway) = gateway(&kept).await?;
    for (arguments, input, code, part) in [
        (&["user", "add", "ann", "--password-stdin"][..], "ann", 1, "the password is too short"),
        (&["user", "add", "a b", "--password-stdin"], PASSWORD, 1, "without spaces"),
        (&["user", "add", "ann", "--role", "wizard", "--password-stdin"], PASSWORD, 1, "there is no role `wizard`"),
        (&["user", "add", "ann", "--password", PASSWORD], "", 2, "unexpected argument '--password'"),
        (&["user", "add", "ann"], "", 2, "--password-stdin"),
        (&["user", "show", "nobody"], "", 1, "there is no user `nobody`"),
        (&["user", "delete", "nobody"], "", 1, "there is no user `nobody`"),
        (&["key", "create", "--user", "nobody", "--scope", "a"], "", 1, "there is no user `nobody`"),
        (&["key", "revoke", "nothing"], "", 1, "there is no key `nothing`"),
        (&["role", "delete", "admin"], "", 1, "the roles `user` and `admin` stay"),
        (&["session", "end", "nonsense"], "", 2, "`nonsense` is no id"),
        (&["client", "add", "x", "--redirect", "http://app.example.com"], "", 1, "cannot be a redirect URI"),
        (&["user", "import", "missing.csv"], "", 1, "missing.csv"),
        (&["user", "import", "missing"], "", 2, "--format"),
    ] {
        let output = run(gateway.directory(), arguments, input, &[])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && said.contains(part), "{arguments:?}: {:?} {said}", output.status);
    }
    let folder = tempfile::tempdir()?;
    let elsewhere = run(folder.path(), &["user", "list"], "", &[])?;
    let said = String::from_utf8_lossy(&elsewhere.stderr);
    ensure!(elsewhere.status.code() == Some(1) && said.contains("no `[auth]`"), "{said}");
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "and nothing is made there");
    Ok(())
}

/// PostgreSQL is migrated by hand, with the owner's URL, which is a secret.
#[tokio::test]
async fn postgres_is_migrated_by_hand() -> Result<()> {
    let server = Postgres::shared().await?;
    let database = server.database().await?;
    let folder = tempfile::tempdir()?;
    let policy = "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n[auth]\n\
                  [secrets]\nprovider = \"env\"\n[database]\nurl = { secret = \"database-url\" }\n";
    std::fs::write(folder.path().join("palisade.toml"), policy)?;
    let url = database.url();
    let environment = [("PALISADE_SECRET_DATABASE_URL", url.as_str())];
    let run = |arguments: &[&str], input: &str| run(folder.path(), arguments, input, &environment);
    let before = run(&["user", "list"], "")?;
    let said = String::from_utf8_lossy(&before.stderr);
    ensure!(before.status.code() == Some(1) && said.contains("run `palisade db migrate`"), "{said}");
    let migrated: Value = serde_json::from_slice(&run(&["db", "migrate", "--json"], "")?.stdout)?;
    ensure!(migrated["migrated"].as_array().is_some_and(|names| !names.is_empty()), "{migrated}");
    let again: Value = serde_json::from_slice(&run(&["db", "migrate", "--json"], "")?.stdout)?;
    assert_eq!(again, json!({ "migrated": [] }));
    ensure!(run(&["user", "add", "ann", "--password-stdin"], PASSWORD)?.status.success());
    let listed: Value = serde_json::from_slice(&run(&["user", "list", "--json"], "")?.stdout)?;
    assert_eq!(listed[0]["username"], "ann");
    Ok(())
}
