//! What a person does at a terminal: `palisade init` asks, `palisade trust` changes a system.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::{Need, Palisade, Process, Upstream, need, paths};

/// Runs a program on a terminal of its own and types an answer whenever it asks. Prints what stood on the screen.
const TYPIST: &str = r#"
import os, pty, select, sys
answers = sys.argv[2].split("|") if sys.argv[2] else []
pid, screen = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["palisade"] + sys.argv[3:])
seen = ""
while True:
    ready, _, _ = select.select([screen], [], [], 20)
    if not ready:
        print(seen); print("it waits for something else"); os.kill(pid, 9); sys.exit(99)
    try: piece = os.read(screen, 4096).decode()
    except OSError: break
    if not piece: break
    seen += piece
    if seen.endswith("] "):
        if not answers:
            print(seen); print("one question too many"); os.kill(pid, 9); sys.exit(98)
        os.write(screen, (answers.pop(0) + "\n").encode())
print(seen)
if answers: print("nobody asked for", answers); sys.exit(97)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// `palisade init` in a folder, with these answers; what stood on the screen.
async fn typed(folder: &Path, answers: &[&str], arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new("python3");
    command.arg("-c").arg(TYPIST).arg(paths::binary()?).arg(answers.join("|")).arg("init").args(arguments);
    command.current_dir(folder).env_remove("PALISADE_POLICY");
    let process = Process::spawn(command)?;
    let status = process.wait(Duration::from_secs(60)).await?;
    process.output().closed(Duration::from_secs(10)).await?;
    Ok((status.code(), process.output().everything()?))
}

fn app(text: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir()?;
    std::fs::write(folder.path().join("main.py"), text)?;
    Ok(folder)
}

#[tokio::test]
async fn init_asks_and_does_what_was_answered() -> Result<()> {
    let guide = std::fs::read_to_string(paths::tests("apps/guide/main.py"))?;
    let folder = app(&guide)?;
    let policy = || std::fs::read_to_string(folder.path().join("palisade.toml"));
    // Where; production; hosts as its own middleware says; its limit; its CORS.
    let (code, screen) = typed(folder.path(), &["http://127.0.0.1:9000", "yes", "", "", "no"], &[]).await?;
    ensure!(code == Some(0), "{code:?} {screen}");
    for question in [
        "Where does the application listen? [http://127.0.0.1:8000]",
        "Is this for production? [no]",
        "[yourdomain.com, *.yourdomain.com]",
    ] {
        ensure!(screen.contains(question), "{question}: {screen}");
    }
    let text = policy()?;
    for line in [
        "url = \"http://127.0.0.1:9000\"",
        "mode = \"production\"",
        "hosts = [\"yourdomain.com\", \"*.yourdomain.com\"]",
        "rate_limit = \"5/minute\"",
        "# [cors]",
    ] {
        ensure!(text.lines().any(|written| written == line), "{line}:\n{text}");
    }
    let check = palisade_test::palisade::run(folder.path(), &["check"]).await?;
    ensure!(check.code == Some(0), "{}", check.err);

    // What is there stays; what is no address is refused, and nothing is written.
    let (code, screen) = typed(folder.path(), &[], &[]).await?;
    ensure!(code == Some(2) && screen.contains("--force"), "{code:?} {screen}");
    let (code, screen) = typed(folder.path(), &["the usual"], &["--force"]).await?;
    ensure!(code == Some(2) && screen.contains("`the usual` is no upstream"), "{code:?} {screen}");
    assert_eq!(policy()?, text);

    // Enter all the way: development, and all that the application says.
    let (code, screen) = typed(folder.path(), &["", "", "", ""], &["--force"]).await?;
    ensure!(code == Some(0), "{code:?} {screen}");
    let text = policy()?;
    for line in ["mode = \"development\"", "origins = [\"https://yourdomain.com\"]", "rate_limit = \"5/minute\""] {
        ensure!(text.lines().any(|written| written == line), "{line}:\n{text}");
    }
    Ok(())
}

/// Into a system that is thrown away, with its own tool.
#[tokio::test(flavor = "multi_thread")]
async fn trust_makes_a_system_believe_the_local_authority() -> Result<()> {
    need(Need::Curl)?;
    let upstream = Upstream::answering(|_| Reply::text("from behind")).await?;
    let palisade = Palisade::serve().upstream(&upstream.url()).start().await?;
    let system = tempfile::Builder::new().prefix("palisade-root-").tempdir()?;
    let below = |path: &str| system.path().join(path);
    for folder in [
        "usr/local/share/ca-certificates",
        "usr/share/ca-certificates",
        "etc/ssl/certs",
        "etc/ca-certificates/update.d",
    ] {
        std::fs::create_dir_all(below(folder))?;
    }
    std::fs::write(below("etc/ca-certificates.conf"), "# nothing\n")?;
    let url = palisade.url("https")?;
    let curl = |bundle: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(bundle).arg(&url);
        curl.output().context("curl")
    };
    let bundle = below("etc/ssl/certs/ca-certificates.crt");
    std::fs::write(&bundle, "")?;
    ensure!(!curl(&bundle)?.status.success(), "it is not believed before");

    let root = system.path().to_string_lossy().into_owned();
    let ran = palisade.run(&["trust", "--root", &root]).await?;
    ensure!(ran.code == Some(0), "{} {}", ran.out, ran.err);
    ensure!(ran.out.contains("palisade-local.crt") && ran.out.contains("to take it back"), "{}", ran.out);
    let answer = curl(&bundle)?;
    ensure!(answer.stdout == b"from behind", "{}", String::from_utf8_lossy(&answer.stderr));
    // Once more is the same; and a system without the tool's folders says what to do.
    ensure!(palisade.run(&["trust", "--root", &root]).await?.code == Some(0));
    let empty = tempfile::tempdir()?;
    let ran = palisade.run(&["trust", "--root", &empty.path().to_string_lossy()]).await?;
    ensure!(ran.code == Some(1) && ran.err.contains("palisade trust --print"), "{}", ran.err);
    Ok(())
}
