//! `palisade demo`: the whole gateway round a sample API, on loopback, with nothing to install or configure.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use palisade::Palisade;
use palisade::live::Target;
use palisade_identity::service::{NewUser, Origin};
use palisade_policy::Sources;

use super::policy;
use super::ready_file::ReadyFile;
use crate::args::{Demo, Global};
use crate::exit::{Done, Usage};

/// Runs until Ctrl-C.
pub(crate) fn run(global: &Global, demo: &Demo) -> anyhow::Result<Done> {
    if !global.policy.is_empty() {
        let said = "`demo` has a policy of its own; `palisade serve --policy FILE` runs yours";
        return Err(Usage(said.into()).into());
    }
    // Everything it writes goes with it, the certificate authority too: nothing of a demo is worth trusting for good.
    let private = std::fs::Permissions::from_mode(0o700);
    let folder = |prefix| tempfile::Builder::new().prefix(prefix).permissions(private.clone()).tempdir();
    let (state, files) = (folder("palisade-demo-")?, folder("palisade-demo-files-")?);
    // The state of a demo is a directory of its own, whatever the environment says of a server.
    let mut sources = Sources::new().builtin("demo policy", crate::demo::policy(files.path())?).flag(
        "demo",
        "server.state",
        serde_json::to_string(&state.path().to_string_lossy())?,
    );
    if std::io::stdout().is_terminal() {
        sources = sources.flag("demo", "log.format", "\"pretty\"");
    }
    let sources = policy::with_ports(sources, &demo.listening)?;
    let ready_file = demo.listening.ready_file.as_deref().map(ReadyFile::new).transpose()?;
    let target = Target::Router(crate::demo::router());
    let (running, _) = Palisade::from_sources(sources).detect(demo.listening.detect).target(target).start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let workers = running.start_workers()?;
    let port = |name: &str| running.bound.iter().find(|bound| bound.name() == name).map(|bound| bound.address().port());
    let (https, http) = (port("https").unwrap_or_default(), port("http").unwrap_or_default());
    runtime.block_on(async {
        running.ready();
        let password = administrator(&running.handle).await?;
        let text = introduction(https, http, state.path(), &password);
        // In one piece and at once; nobody there to read it is no reason not to serve.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        ready_file.iter().try_for_each(|file| file.write(&running))?;
        running.until_signal().await;
        anyhow::Ok(())
    })?;
    for worker in workers {
        let _ = worker.join();
    }
    files.close()?;
    state.close()?;
    Ok(Done::Ok)
}

/// Makes the one account that may do everything, and gives its password: it is said once, and nobody can have guessed it.
async fn administrator(handle: &palisade::live::Handle) -> anyhow::Result<String> {
    let identity = palisade::controls::auth::identity(handle).await?;
    let identity = identity.ok_or_else(|| anyhow::anyhow!("the policy of the demo has no `[auth]`"))?;
    let password = palisade_identity::opaque::SetupLink::generate()?.reveal();
    let password: String = password.expose().trim_start_matches("pals_").chars().take(24).collect();
    let new = NewUser { name: "admin", email: None, password: &password };
    let here = Origin::new(std::net::Ipv4Addr::LOCALHOST.into());
    identity.add_user(new, &["admin".to_owned()], false, &here).await?;
    Ok(password)
}

/// What to do with it: a command a line, each with what it shows.
fn introduction(https: u16, http: u16, state: &Path, password: &str) -> String {
    let file = |name: &str| shell(&state.join(name).to_string_lossy());
    let (ca, tokens, jar, key) = (file("ca/root.pem"), file("tokens.json"), file("cookies.txt"), file("key.json"));
    let base = format!("https://localhost:{https}");
    let curl = format!("curl --cacert {ca}");
    let json = "-H 'Content-Type: application/json'";
    let member = |name: &str, file: &str| format!("$(sed 's/.*\"{name}\":\"\\([^\"]*\\).*/\\1/' {file})");
    let (access, refresh) = (member("access_token", &tokens), member("refresh_token", &tokens));
    let ann = "vier alte Kutschen im Nebel";
    let lines = [
        (
            "an account is made",
            format!(
                "{curl} {json} -d '{{\"username\":\"ann\",\"email\":\"ann@example.com\",\"password\":\"{ann}\"}}' {base}/auth/register"
            ),
        ),
        (
            "it logs in: an access token for a quarter of an hour, and one to get the next",
            format!(
                "{curl} -o {tokens} -d grant_type=password -d username=ann --data-urlencode 'password={ann}' {base}/auth/token"
            ),
        ),
        (
            "a note is made",
            format!("{curl} -H \"Authorization: Bearer {access}\" {json} -d '{{\"title\":\"mine\"}}' {base}/notes"),
        ),
        (
            "the next tokens; the old ones to get them are spent",
            format!("{curl} -o {tokens} -d grant_type=refresh_token -d \"refresh_token={refresh}\" {base}/auth/token"),
        ),
        ("the first note is read", format!("{curl} -H \"Authorization: Bearer {access}\" {base}/notes/1")),
        ("refused: nobody is logged in", format!("{curl} {base}/notes/1")),
        (
            "refused: not an administrator",
            format!("{curl} -H \"Authorization: Bearer {access}\" -X DELETE {base}/admin/users/7"),
        ),
        (
            "it logs in as a browser does, with a cookie",
            format!("{curl} -c {jar} {json} -d '{{\"username\":\"ann\",\"password\":\"{ann}\"}}' {base}/auth/login"),
        ),
        (
            "a key for a machine, good for reading notes and for nothing else",
            format!(
                "{curl} -o {key} -b {jar} -H 'Origin: {base}' {json} -d '{{\"name\":\"reader\",\"scopes\":[\"notes:read\"]}}' {base}/auth/keys"
            ),
        ),
        ("the machine reads", format!("{curl} -H \"X-API-Key: {}\" {base}/notes/1", member("key", &key))),
        (
            "refused: the key may not write",
            format!("{curl} -H \"X-API-Key: {}\" {json} -d '{{\"title\":\"no\"}}' {base}/notes", member("key", &key)),
        ),
        (
            "a file streams through, and is counted",
            format!("{curl} -H \"Authorization: Bearer {access}\" -T {ca} {base}/uploads/authority.txt"),
        ),
        ("what the gateway adds to every answer", format!("{curl} -I {base}/")),
        ("refused: a file that is never served", format!("{curl} {base}/.env")),
        (
            "refused: two parsers could read this path differently",
            format!("{curl} --path-as-is {base}/static/..%2fadmin/users/7"),
        ),
        ("refused: a method that no route names", format!("{curl} -X PUT {base}/notes")),
        (
            "refused: more than the policy's 64 KiB",
            format!(
                "{curl} -H \"Authorization: Bearer {access}\" -H 'Expect: 100-continue' -H 'Content-Length: 99999999' -d x --http1.1 {base}/notes"
            ),
        ),
    ];
    let mut out = format!(
        "\nThe sample API is behind Palisade, on this machine only:\n\n  {base}/docs\n  http://localhost:{http}/docs\n  {base}/auth/docs\n\n\
         One account may do everything: admin, password {password}\n\
         Mails, with links that prove an address or set a password, are files in {}\n",
        file("mail")
    );
    for (what, line) in lines {
        let _ = write!(out, "\n# {what}\n{line}\n");
    }
    out.push_str("\nCtrl-C ends it and leaves nothing behind.\n\n");
    out
}

/// A word for a shell.
fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte);
    if word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (word, quoted) in
            [("/tmp/a-b.pem", "/tmp/a-b.pem"), ("/a b", "'/a b'"), ("it's", r"'it'\''s'"), ("$HOME", "'$HOME'")]
        {
            assert_eq!(shell(word), quoted);
        }
    }
}
