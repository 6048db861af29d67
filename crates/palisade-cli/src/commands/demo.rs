//! `palisade demo`: the whole gateway round a sample API, on loopback, with nothing to install or configure.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use palisade::Palisade;
use palisade::live::Target;
use palisade_policy::Sources;

use super::policy;
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
    let target = Target::Router(crate::demo::router());
    let (running, _) = Palisade::from_sources(sources).detect(demo.listening.detect).target(target).start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let workers = running.start_workers()?;
    let port = |name: &str| running.bound.iter().find(|bound| bound.name() == name).map(|bound| bound.address().port());
    let (https, http) = (port("https").unwrap_or_default(), port("http").unwrap_or_default());
    let text = introduction(https, http, &state.path().join("ca/root.pem"));
    runtime.block_on(async {
        running.ready();
        // In one piece and at once; nobody there to read it is no reason not to serve.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        running.until_signal().await;
    });
    for worker in workers {
        let _ = worker.join();
    }
    files.close()?;
    state.close()?;
    Ok(Done::Ok)
}

/// What to do with it: a command a line, each with what it shows.
fn introduction(https: u16, http: u16, ca: &Path) -> String {
    let ca = shell(&ca.to_string_lossy());
    let base = format!("https://localhost:{https}");
    let curl = format!("curl --cacert {ca}");
    let lines = [
        (
            "a note is made",
            format!("{curl} -H 'Content-Type: application/json' -d '{{\"title\":\"mine\"}}' {base}/notes"),
        ),
        ("the first one is read", format!("{curl} {base}/notes/1")),
        ("a file streams through, and is counted", format!("{curl} -T {ca} {base}/uploads/authority.txt")),
        ("what the gateway adds to every answer", format!("{curl} -I {base}/")),
        ("refused: a file that is never served", format!("{curl} {base}/.env")),
        (
            "refused: two parsers could read this path differently",
            format!("{curl} --path-as-is {base}/static/..%2fadmin/users/7"),
        ),
        ("refused: a method that no route names", format!("{curl} -X PUT {base}/notes")),
        (
            "refused: more than the policy's 64 KiB",
            format!("{curl} -H 'Expect: 100-continue' -H 'Content-Length: 99999999' -d x --http1.1 {base}/notes"),
        ),
        ("closed until somebody can log in", format!("{curl} -X DELETE {base}/admin/users/7")),
    ];
    let mut out = format!(
        "\nThe sample API is behind Palisade, on this machine only:\n\n  {base}/docs\n  http://localhost:{http}/docs\n"
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
