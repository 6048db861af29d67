//! The supervised application: `palisade serve -- COMMAND`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use palisade_test::palisade::Setup;
use palisade_test::websocket::Message;
use palisade_test::{Body, Client, Palisade, WebSocket, eventually};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{piece, ways};

const SOON: Duration = Duration::from_secs(30);

/// An application of the standard library alone: says what it was given, and does what it is told.
const PROBE: &str = r#"
import http.server, json, os, signal, socketserver, stat, subprocess, sys, time

where = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments): pass
    def address_string(self): return "-"
    def do_GET(self):
        said = {}
        if self.path == "/given":
            descriptors = {}
            for number in os.listdir("/proc/self/fd"):
                try: descriptors[number] = os.readlink("/proc/self/fd/" + number)
                except OSError: pass
            said = dict(env=dict(os.environ), fds=descriptors, uid=os.getuid(), gid=os.getgid(),
                        groups=os.getgroups(), group=os.getpgid(0), pid=os.getpid(), parent=os.getpgid(os.getppid()))
            if not where.isdigit():
                said["socket"] = where
        if self.path == "/die":
            sys.stderr.write("about to fail\npassword=hunter2-of-the-app\n"); sys.stderr.flush()
            os._exit(7)
        if self.path == "/family":
            inside = subprocess.Popen(["sleep", "1000"])
            outside = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            said = [inside.pid, outside.pid]
        if self.path == "/slow":
            sys.stderr.write("slow request\n"); sys.stderr.flush()
            time.sleep(1.5)
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET

class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
class Tcp(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
sys.stdout.write("a line of standard output\n"); sys.stdout.flush()
def deaf(*_): sys.stderr.write("asked to end\n"); sys.stderr.flush()
if sys.argv[2:] == ["deaf"]: signal.signal(signal.SIGTERM, deaf)
elif len(sys.argv) > 2: time.sleep(float(sys.argv[2]))
if where.isdigit(): Tcp(("127.0.0.1", int(where)), Handler).serve_forever()
os.umask(0)
Unix(where, Handler).serve_forever()
"#;

fn probe(arguments: &[&str]) -> Setup {
    let mut command = vec!["/usr/bin/python3", "probe.py"];
    command.extend(arguments);
    Palisade::serve().file("probe.py", PROBE).app(&command)
}

fn alive(pid: u64) -> bool {
    // A zombie has no `exe`.
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

async fn all_gone(pids: &[u64]) -> Result<()> {
    eventually(SOON, "nothing of it runs", async || !pids.iter().any(|&pid| alive(pid))).await?;
    Ok(())
}

async fn given(palisade: &Palisade) -> Result<Value> {
    palisade.http()?.get("/given").send().await?.json().await
}

fn pid(given: &Value) -> Result<u64> {
    given["pid"].as_u64().context("a process id")
}

#[tokio::test]
async fn real_applications_as_people_start_them() -> Result<()> {
    let plausible = Palisade::serve;
    let folder = palisade_test::paths::tests("apps/plausible");
    let folder = folder.to_string_lossy();
    for (what, setup) in [
        ("uds", plausible().uvicorn("plausible", &[])),
        ("reload", plausible().uvicorn("plausible", &["--reload"])),
        ("workers", plausible().uvicorn("plausible", &["--workers", "4"])),
        ("port", plausible().app(&["uvicorn", "main:app", "--port", "{port}", "--app-dir", &*folder])),
        ("fastapi dev", plausible().fastapi_dev("plausible")),
    ] {
        let palisade = setup.start().await.context(what)?;
        // At once: what comes before the application is up waits for it.
        let mut answer = palisade.https()?.get("/echo").send().await?;
        assert_eq!(answer.status(), 200, "{what}: {}", answer.text().await?);
        let seen = answer.json().await?;
        assert_eq!((&seen["client"], &seen["scheme"]), (&"127.0.0.1".into(), &"https".into()), "{what}");
        ensure!(seen["url"] == palisade.url("https")? + "/echo", "{what}: {seen}");
        let streams = if what == "workers" { events_of_several(&palisade).await } else { events(&palisade).await };
        streams.with_context(|| format!("{what}: events"))?;
        bodies_and_sockets(&palisade).await.context(what)?;
        let family: Vec<u64> = palisade.process().descendants().into_iter().map(u64::from).collect();
        ensure!(family.len() >= 2, "{what}: the application and its guard: {family:?}");
        assert_eq!(palisade.interrupt().await?.code(), Some(0), "{what}: {}", palisade.output().tail());
        all_gone(&family).await.context(what)?;
        let stopped = palisade.event("app.stopped", |_| true).await?;
        assert_eq!(stopped["how"], "ended when asked to", "{what}");
        let left: Vec<_> =
            std::fs::read_dir(palisade.directory().join("tmp"))?.flatten().map(|entry| entry.path()).collect();
        ensure!(!left.iter().any(|path| path.to_string_lossy().contains("palisade-")), "{what}: {left:?}");
    }
    Ok(())
}

/// Each event arrives while the one behind it is not sent yet.
async fn events(palisade: &Palisade) -> Result<()> {
    let client = palisade.https()?;
    let mut events = client.get("/events?count=3&gate=events").header("accept", "text/event-stream").send().await?;
    for number in 0..3 {
        let event = piece(&mut events).await?.context("it ended")?;
        ensure!(event.starts_with(&format!("id: {number}\nevent: tick\n")), "{event}");
        assert_eq!(client.post("/gate/events").send().await?.status(), 202);
    }
    assert_eq!(piece(&mut events).await?, None);
    Ok(())
}

/// The same of several processes, where nobody knows whose gate a POST opens: they say when they sent an event.
async fn events_of_several(palisade: &Palisade) -> Result<()> {
    let sent = |event: &str| -> Result<f64> {
        let line = event.lines().find_map(|line| line.strip_prefix("data: ")).context("no data")?;
        line.parse().with_context(|| event.to_owned())
    };
    let mut events = palisade.https()?.get("/events?count=2&interval=1").send().await?;
    let first = piece(&mut events).await?.context("no event")?;
    let arrived = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let second = piece(&mut events).await?.context("one event")?;
    ensure!(sent(&first)? <= arrived && arrived < sent(&second)?, "{first:?} at {arrived}, {second:?}");
    assert_eq!(piece(&mut events).await?, None);
    Ok(())
}

/// A WebSocket that the application closes, a body of some length that nobody announced, and a part of a file.
async fn bodies_and_sockets(palisade: &Palisade) -> Result<()> {
    const LENGTH: u64 = 4 << 20;
    /// SHA-256 of as many zeros.
    const ZEROS: &str = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";
    let url = format!("{}/ws", palisade.websocket_url("https")?);
    let mut socket = WebSocket::open(&url, Some(&palisade.trust()?), &[]).await?;
    socket.text("tëxt ☂").await?;
    assert_eq!(socket.next().await?, Some(Message::text("tëxt ☂")));
    socket.text("close 4001 enough of this").await?;
    assert_eq!(socket.closed().await?, Some((4001, "enough of this".to_owned())));

    let client = palisade.https()?;
    let body = Body::chunked(vec![0; 256 << 10], LENGTH);
    let upload = client.post("/upload").header("content-type", "application/octet-stream").body(body);
    let seen = upload.send().await?.json().await?;
    assert_eq!((&seen["bytes"], &seen["sha256"]), (&LENGTH.into(), &ZEROS.into()), "{seen}");

    let mut part = client.get("/file").header("range", "bytes=250-252").send().await?;
    assert_eq!((part.status(), part.header("content-range")), (206, Some("bytes 250-252/1000000")));
    assert_eq!(part.bytes().await?[..], [250, 0, 1]);
    Ok(())
}

/// uvicorn starts the application anew when a source changes: connections close, and for a moment nobody accepts. A read
/// is sent again or waits. (What changes something is not sent twice, so that one that meets a closing connection fails.)
#[tokio::test]
async fn a_changed_source_fails_no_request() -> Result<()> {
    const OLD: &str = "version=\"1.0.0\"";
    let source = std::fs::read_to_string(palisade_test::paths::tests("apps/plausible/main.py"))?;
    ensure!(source.contains(OLD), "the version is written otherwise");
    let command = ["uvicorn", "main:app", "--uds", "{socket}", "--reload"];
    let palisade = Palisade::serve().file("main.py", source.as_str()).app(&command).start().await?;
    palisade.app_answers("/openapi.json").await?;

    let asked = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for (way, client) in ways(&palisade)? {
        // Of some a request runs whenever the application is asked to end.
        for first in ["/echo", "/slow?seconds=0.3"] {
            let (client, asked) = (client.clone(), asked.clone());
            clients.spawn(async move {
                let changed = tokio::time::timeout(2 * SOON, until_changed(&client, first, &asked));
                changed.await.context("the change is never in force")?.with_context(|| format!("{way} {first}"))
            });
        }
    }
    eventually(SOON, "requests are under way", async || asked.load(Ordering::SeqCst) > 60).await?;
    std::fs::write(palisade.directory().join("main.py"), source.replace(OLD, "version=\"2.0.0\""))?;
    while let Some(changed) = clients.join_next().await {
        changed??;
    }
    ensure!(!palisade.log().iter().any(|line| line["event"] == "app.exited"), "only uvicorn has started it anew");
    Ok(())
}

/// Asks one thing after the other on one connection until the application is the changed one.
async fn until_changed(client: &Client, first: &str, asked: &AtomicUsize) -> Result<()> {
    let mut connection = client.connect().await?;
    loop {
        for target in [first, "/openapi.json"] {
            let mut answer = connection.get(target).send().await?;
            let said = answer.text().await?;
            ensure!(answer.status() == 200, "{target}: {} {said}", answer.status());
            asked.fetch_add(1, Ordering::SeqCst);
            if said.contains("\"version\":\"2.0.0\"") {
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn it_gets_nothing_of_ours() -> Result<()> {
    let policy = "[server]\nmode = \"development\"\n[upstream]\ncommand = [\"/usr/bin/python3\", \"probe.py\", \
                  \"{socket}\"]\nenv = { APP_MODE = \"test\" }\n";
    let setup = Palisade::serve().policy(policy).file("probe.py", PROBE);
    let setup = setup.env("PALISADE_SECRET_KEY", "k").env("PALISADE__LOG__FORMAT", "\"json\"").env("AWS_SECRET", "a");
    let setup = setup.env("VAULT_TOKEN", "t").env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", "/run/none").env("TZ", "UTC");
    let palisade = setup.start().await?;
    let given = given(&palisade).await?;
    let names: Vec<&str> = given["env"].as_object().context("env")?.keys().map(String::as_str).collect();
    for name in &names {
        let known = ["PATH", "HOME", "LANG", "TZ", "VIRTUAL_ENV", "APP_MODE", "FORWARDED_ALLOW_IPS"].contains(name)
            || name.starts_with("PYTHON")
            || ["UVICORN_TIMEOUT_KEEP_ALIVE", "LC_CTYPE"].contains(name);
        ensure!(known, "{name} is in its environment");
    }
    assert_eq!(
        (&given["env"]["APP_MODE"], &given["env"]["FORWARDED_ALLOW_IPS"], &given["env"]["UVICORN_TIMEOUT_KEEP_ALIVE"]),
        (&"test".into(), &"*".into(), &"75".into())
    );
    // Its own are its listener, the connection, and the directory it reads just now.
    let mut sockets = 0;
    for (number, target) in given["fds"].as_object().context("fds")? {
        let target = target.as_str().unwrap_or_default();
        match number.as_str() {
            "0" => assert_eq!(target, "/dev/null"),
            "1" | "2" => ensure!(target.starts_with("pipe:"), "{number}: {target}"),
            _ if target.starts_with("socket:") => sockets += 1,
            _ => ensure!(target.ends_with("/fd"), "descriptor {number} is {target}"),
        }
    }
    // Connections of the gateway: this request's, and those that were tried before.
    ensure!((2..=4).contains(&sockets), "{given}");
    ensure!(given["group"] == given["pid"] && given["group"] != given["parent"], "a process group of its own: {given}");

    use std::os::unix::fs::PermissionsExt as _;
    let socket = PathBuf::from(given["socket"].as_str().context("socket")?);
    let mode = |path: &std::path::Path| anyhow::Ok(std::fs::symlink_metadata(path)?.permissions().mode() & 0o7777);
    assert_eq!(mode(&socket)?, 0o600);
    assert_eq!(mode(socket.parent().context("parent")?)?, 0o700);
    ensure!(!palisade.log().iter().any(|line| line["line"] == "a line of standard output"));
    let passed = palisade.output().since(0);
    let passed = passed.iter().find(|line| &*line.text == "a line of standard output").context("its output")?;
    assert_eq!(passed.stream, palisade_test::Stream::Err);
    Ok(())
}

#[tokio::test]
async fn requests_wait_while_it_starts() -> Result<()> {
    let palisade = probe(&["{socket}", "1.5"]).start().await?;
    let client = palisade.http()?;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let client = client.clone();
        answers.push(tokio::spawn(async move { client.get("/").send().await }));
    }
    for answer in answers {
        assert_eq!(answer.await??.status(), 200);
    }
    palisade.event("app.ready", |line| line["after_ms"].as_u64().is_some_and(|after| after >= 1_400)).await?;
    Ok(())
}

#[tokio::test]
async fn one_that_dies_is_started_again_and_its_end_is_shown() -> Result<()> {
    for place in ["{socket}", "{port}"] {
        let palisade = probe(&[place]).start().await?;
        let before = pid(&given(&palisade).await?)?;
        let died = palisade.http()?.post("/die").send().await?;
        assert_eq!(died.status(), 502, "it died while it answered");
        palisade.event("app.exited", |_| true).await?;
        // What comes while it is away waits for it.
        let after = pid(&given(&palisade).await?)?;
        ensure!(before != after);
        let exited = palisade.event("app.exited", |_| true).await?;
        assert_eq!((&exited["status"], &exited["restart_in_ms"]), (&"exit code 7".into(), &200.into()));
        let lines = exited["last_lines"].as_str().unwrap_or_default();
        ensure!(lines.contains("about to fail") && !lines.contains("hunter2"), "{lines}");
        let told = |line: &palisade_test::Line| line.text.contains("exit code 7").then_some(line.stream);
        palisade
            .output()
            .find(SOON, "its end, for people", |line| told(line).filter(|stream| *stream == palisade_test::Stream::Err))
            .await?;
        let started = palisade.log().into_iter().filter(|line| line["event"] == "app.started");
        assert_eq!(started.map(|line| line["pid"].clone()).collect::<Vec<_>>(), [before.into(), Value::from(after)]);
    }
    Ok(())
}

#[tokio::test]
async fn one_that_never_comes_up_is_tried_less_and_less() -> Result<()> {
    let palisade = Palisade::serve().app(&["sh", "-c", "echo no {port} >&2; exit 3"]).start().await?;
    palisade.event("app.exited", |line| line["restart_in_ms"].as_u64() >= Some(6_400)).await.ok();
    let wait = palisade.output().find(SOON, "a long pause", |line| line.text.contains("again in 6.4 s").then_some(()));
    wait.await?;
    let answer = palisade.http()?.get("/").send().await?;
    assert_eq!(answer.status(), 503);
    let seconds: u64 = answer.header("retry-after").context("Retry-After")?.parse()?;
    ensure!((3..=7).contains(&seconds), "{seconds}");
    assert_eq!(palisade.terminate().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn its_whole_family_goes_with_it() -> Result<()> {
    for deaf in [false, true] {
        let policy = "[server]\nmode = \"development\"\n[upstream]\nstop_timeout = \"300ms\"\n";
        let arguments = if deaf { &["{socket}", "deaf"][..] } else { &["{socket}"] };
        let palisade = probe(arguments).policy(policy).start().await?;
        let client = palisade.http()?;
        let family = client.get("/family").send().await?.json().await?;
        let mut pids: Vec<u64> = family.as_array().context("two")?.iter().filter_map(Value::as_u64).collect();
        pids.push(pid(&given(&palisade).await?)?);
        assert_eq!(pids.len(), 3);
        // A request that runs is finished first.
        let slow = tokio::spawn(async move { client.get("/slow").send().await });
        let runs = |line: &palisade_test::Line| line.text.contains("slow request").then_some(());
        palisade.output().find(SOON, "it runs", runs).await?;
        assert_eq!(palisade.interrupt().await?.code(), Some(0));
        assert_eq!(slow.await??.status(), 200);
        let stopped = palisade.event("app.stopped", |_| true).await?;
        let how = if deaf { "killed after `upstream.stop_timeout`" } else { "ended when asked to" };
        assert_eq!(stopped["how"], how);
        all_gone(&pids).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_asks_twice_does_not_wait_for_it() -> Result<()> {
    let policy = "[server]\nmode = \"development\"\n[upstream]\nstop_timeout = \"10m\"\n";
    let palisade = probe(&["{socket}", "deaf"]).policy(policy).start().await?;
    let pid = pid(&given(&palisade).await?)?;
    palisade.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    let asked = |line: &palisade_test::Line| line.text.contains("asked to end").then_some(());
    palisade.output().find(SOON, "it was asked", asked).await?;
    assert_eq!(palisade.terminate().await?.code(), Some(0));
    assert_eq!(palisade.event("app.stopped", |_| true).await?["how"], "killed: the server was asked to end at once");
    all_gone(&[pid]).await
}

#[tokio::test]
async fn it_does_not_outlive_a_gateway_that_is_killed() -> Result<()> {
    let palisade = probe(&["{socket}"]).start().await?;
    let given = given(&palisade).await?;
    let family = palisade.process().descendants();
    palisade.process().signal(nix::sys::signal::Signal::SIGKILL)?;
    let mut pids: Vec<u64> = family.into_iter().map(u64::from).collect();
    pids.push(pid(&given)?);
    all_gone(&pids).await?;
    let socket = PathBuf::from(given["socket"].as_str().context("socket")?);
    ensure!(!socket.exists() && !socket.parent().is_some_and(std::path::Path::exists), "{}", socket.display());
    Ok(())
}

#[tokio::test]
async fn another_user_for_the_application() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        palisade_test::not_run("only root can start an application as another user");
        return Ok(());
    }
    let policy = "[server]\nmode = \"development\"\n[upstream]\nuser = \"nobody\"\n";
    let folder = tempfile::Builder::new().prefix("palisade-app-").tempdir_in("/tmp")?;
    let script = folder.path().join("probe.py");
    std::fs::write(&script, PROBE)?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let command = ["/usr/bin/python3", &*script.to_string_lossy(), "{socket}"];
    let palisade = Palisade::serve().policy(policy).app(&command).start().await?;
    let given = given(&palisade).await?;
    let nobody = nix::unistd::User::from_name("nobody")?.context("nobody")?;
    assert_eq!(
        (&given["uid"], &given["gid"], &given["groups"]),
        (&nobody.uid.as_raw().into(), &nobody.gid.as_raw().into(), &Value::Array(Vec::new()))
    );
    let socket = PathBuf::from(given["socket"].as_str().context("socket")?);
    assert_eq!(std::fs::symlink_metadata(&socket)?.permissions().mode() & 0o777, 0o600);

    // The application owns the directory: a link that it puts there leads nowhere.
    let victim = folder.path().join("victim.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&victim)?;
    std::fs::remove_file(&socket)?;
    std::os::unix::fs::symlink(&victim, &socket)?;
    eventually(SOON, "connections of before are idle no more", async || {
        palisade.http().is_ok()
            && match palisade.http() {
                Ok(client) => client.get("/").send().await.is_ok_and(|answer| answer.status() >= 500),
                Err(_) => false,
            }
    })
    .await?;
    assert_ne!(std::fs::metadata(&victim)?.permissions().mode() & 0o777, 0o600, "its mode is as it was");
    Ok(())
}

#[tokio::test]
async fn what_cannot_start_says_how_to_mend_it() -> Result<()> {
    for (command, policy, code, says) in [
        (&["no-such-program", "{port}"][..], "", 1, "there is no such program in `PATH`"),
        (&["uvicorn", "main:app"], "", 2, "uvicorn main:app --uds {socket}"),
        (&["app", "{socket}", "{port}"], "", 2, "exclude each other"),
        (&["sh", "{port}"], "[upstream]\nuser = \"no-such-user\"\n", 1, "useradd --system no-such-user"),
    ] {
        let policy = format!("[server]\nmode = \"development\"\n{policy}");
        let ran = Palisade::serve().policy(&policy).app(command).refused().await?;
        ensure!(ran.code == Some(code) && ran.err.contains(says), "{command:?}: {:?} {}", ran.code, ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn a_flag_beats_the_file() -> Result<()> {
    // `--` over `url`.
    let policy = "[server]\nmode = \"development\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n";
    let palisade = probe(&["{port}"]).policy(policy).start().await?;
    assert_eq!(palisade.http()?.get("/").send().await?.status(), 200);
    Ok(())
}
