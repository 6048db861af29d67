//! What a caller who is known costs the gateway, over one who is nobody: by access token, session and API key.
//!
//! The same gateway, the same answer of the same upstream; the kinds of requests in turn within each round. What a credential
//! occupies in memory is counted on a gateway of its own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use palisade_test::provision::python_program;
use palisade_test::{Need, need, paths};
use serde_json::Value;

use super::gateway::{Gateway, Kind};
use super::process::{self, Server};
use super::site::Site;
use super::summary::Spread;
use super::{check, generator, install, machine, report};

/// Credentials of each kind of which none is used twice: more than are asked for in one measurement.
const COUNT: u64 = 20_000;
/// How long it may take to use all of them.
const ALL: u64 = 12;
const CONNECTIONS: u64 = 16;
/// Logins that are counted for `cargo xtask dist`.
const LOGINS: usize = 60;
/// Length of one measurement where the command says nothing.
pub(super) const SECONDS: u64 = 2;

pub(super) const NAME: &str = "bench";
pub(super) const PASSWORD: &str = "vier alte Kutschen im Nebel";

/// A kind of caller.
struct Caller {
    title: &'static str,
    path: &'static str,
    /// The headers, a line each, `{round}` being the number of the round.
    file: &'static str,
    /// What it may cost over nobody, in µs.
    at_most: Option<f64>,
}

const CALLERS: [Caller; 5] = [
    Caller { title: "nobody", path: "/", file: "nobody.txt", at_most: None },
    Caller { title: "access token, seen before", path: "/in", file: "token.txt", at_most: Some(10.0) },
    Caller {
        title: "access token, never seen (Ed25519)",
        path: "/in",
        file: "tokens-{round}.txt",
        at_most: Some(80.0),
    },
    Caller { title: "session", path: "/in", file: "session.txt", at_most: Some(15.0) },
    Caller { title: "API key", path: "/key", file: "key.txt", at_most: Some(15.0) },
];

/// Measures all kinds, in turn.
pub(super) fn measure(
    site: &mut Site,
    root: &Path,
    binary: Option<&PathBuf>,
    rounds: u64,
    seconds: u64,
    write: bool,
) -> Result<()> {
    need(Need::Python)?;
    let binary = binary.context("there is no palisade binary")?;
    site.auth = Some("closed");
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[])?;
    credentials(site, &gateway, binary, rounds + 1)?;
    let mut spent: [Vec<f64>; CALLERS.len()] = Default::default();
    for caller in CALLERS.iter().filter(|caller| !caller.file.contains("{round}")) {
        send(site, &gateway, caller, 0, 1)?;
    }
    for round in 0..rounds {
        for (caller, spent) in CALLERS.iter().zip(&mut spent) {
            let before = gateway.server.cpu();
            let answers = send(site, &gateway, caller, round, seconds)?;
            let cost = gateway.server.cpu().since(before) as f64 / answers as f64;
            eprintln!("bench: {}: {cost:.1} µs, {answers} answers", caller.title);
            spent.push(cost);
            gateway.empty_log();
        }
    }
    drop(gateway);
    let (token, session) = memory(site, binary, rounds)?;
    site.auth = None;

    let table = table(&spent)?;
    let text = format!(
        "{table}\nIn memory, an access token that was seen takes {token:.1} KiB and a session {session:.1} KiB (resident memory over up to {COUNT} of them, looked up once each). At most 50,000 tokens and 100,000 sessions are kept: beyond that, what is asked for least is looked up, and its signature checked, again.\n"
    );
    println!("{text}");
    if write {
        let facts = machine::facts(Some(binary));
        let mut head = report::heading("Callers who are known", &facts, &["date", "commit", "cpu", "palisade"]);
        head.push_str(&format!(
            "\nThe policy of the first table with `[auth]`, `GET` of 200 B over HTTP/1.1 with TLS on {CONNECTIONS} connections, {rounds} rounds of {seconds} s of each kind in turn. CPU is user + system time of the gateway's process; what is over nobody holds the look-up, the route's needs, and the headers and the signed assertion for the application.\n\n"
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "identity", &(head + &text))?;
    }
    Ok(())
}

/// Callers of every kind for some seconds each, and logins, on a gateway that goes on running.
pub(super) fn train(site: &Site, binary: &PathBuf) -> Result<Gateway> {
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[])?;
    account(site, binary)?;
    let form = format!("grant_type=password&username={NAME}&password={}", PASSWORD.replace(' ', "+"));
    let login = || -> Result<String> {
        let answer = check::curl(site, &gateway, "/auth/token", &["--data", &form])?;
        let answer: Value = serde_json::from_slice(&answer.body)?;
        let token = answer["access_token"].as_str().with_context(|| format!("no token: {answer}"))?;
        Ok(format!("Authorization: Bearer {token}\n"))
    };
    let tokens = (0..LOGINS).map(|_| login()).collect::<Result<Vec<String>>>()?;
    fs::write(site.folder.join("token.txt"), &tokens[0])?;
    fs::write(site.folder.join("tokens-0.txt"), tokens.concat())?;
    let json = serde_json::json!({ "username": NAME, "password": PASSWORD }).to_string();
    let answer =
        check::curl(site, &gateway, "/auth/login", &["-H", "Content-Type: application/json", "--data", &json])?;
    let session = answer.headers.iter().find_map(|line| line.strip_prefix("set-cookie:")?.split(';').next());
    let session = session.with_context(|| format!("no cookie: {:?}", answer.headers))?;
    fs::write(site.folder.join("session.txt"), format!("Cookie: {session}\n"))?;
    for caller in &CALLERS {
        send(site, &gateway, caller, 0, super::train::SECONDS)?;
    }
    Ok(gateway)
}

/// An account with a key, and everything that `credentials.py` makes.
fn credentials(site: &Site, gateway: &Gateway, binary: &Path, rounds: u64) -> Result<()> {
    account(site, binary)?;
    let mut python = Command::new(python_program("python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/cost/credentials.py"));
    python
        .arg(site.state())
        .arg(site.secrets().join("signing-key"))
        .arg(format!("https://127.0.0.1:{}", gateway.port))
        .args([NAME, PASSWORD]);
    python.args([COUNT.to_string(), rounds.to_string()]).arg(&site.folder);
    process::output(python, &site.folder.join("credentials.out"), Duration::from_secs(120), || ())?;
    Ok(())
}

/// An account, and the headers of its key and of nobody.
fn account(site: &Site, binary: &Path) -> Result<()> {
    add_user(site, binary, NAME, &[])?;
    let made = command(site, binary, &["key", "create", "--user", NAME, "--scope", "bench", "--json"], "")?;
    let key = made["key"].as_str().context("no key")?;
    fs::write(site.folder.join("key.txt"), format!("X-API-Key: {key}\n"))?;
    fs::write(site.folder.join("nobody.txt"), "Accept: */*\n")?;
    Ok(())
}

/// `palisade user add`.
pub(super) fn add_user(site: &Site, binary: &Path, name: &str, more: &[&str]) -> Result<()> {
    let add = [&["user", "add", name, "--password-stdin", "--json"], more].concat();
    command(site, binary, &add, &format!("{PASSWORD}\n")).map(drop)
}

/// A command of the binary on the gateway's database, and its JSON.
pub(super) fn command(site: &Site, binary: &Path, arguments: &[&str], input: &str) -> Result<Value> {
    let mut child = Command::new(binary)
        .args(arguments)
        .arg("--policy")
        .arg(site.folder.join("bench.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`palisade {}` ended with {}", arguments.join(" "), output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Sends requests for so many seconds, or until each credential of a file that is for one round was used; how many answers
/// there were, all of them 200.
fn send(site: &Site, gateway: &Gateway, caller: &Caller, round: u64, seconds: u64) -> Result<u64> {
    let script = site.folder.join("headers.lua");
    fs::write(&script, SCRIPT)?;
    let mut wrk = process::pinned(site.cores.load, &install::program("wrk")?)?;
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "--timeout", "10s", "-s"]).arg(script);
    wrk.arg(gateway.url(caller.path))
        .arg("--")
        .arg(site.folder.join(caller.file.replace("{round}", &round.to_string())));
    let log = site.folder.join("generator.out");
    let printed = process::output(wrk, &log, Duration::from_secs(seconds + 30), || ())?;
    let seen = generator::parse_wrk(&printed)?;
    ensure!(
        seen.errors == 0 && seen.requests > 0,
        "{}: {} answers, {} errors",
        caller.title,
        seen.requests,
        seen.errors
    );
    Ok(seen.requests)
}

/// KiB that a seen token and a session occupy each.
fn memory(site: &mut Site, binary: &PathBuf, last: u64) -> Result<(f64, f64)> {
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[])?;
    let settled = |server: &Server| {
        std::thread::sleep(Duration::from_millis(300));
        server.memory_kib() as f64
    };
    // Until connections, pools and buffers have their size.
    for _ in 0..3 {
        send(site, &gateway, &CALLERS[0], 0, 2)?;
    }
    let sessions = Caller { title: "sessions", path: "/in", file: "sessions.txt", at_most: None };
    let mut before = settled(&gateway.server);
    let mut each = |caller: &Caller, round: u64| {
        let used = send(site, &gateway, caller, round, ALL)?.min(COUNT);
        ensure!(used >= COUNT / 8, "{}: only {used} in {ALL} s", caller.title);
        let after = settled(&gateway.server);
        let more = after - std::mem::replace(&mut before, after);
        Ok(more.max(0.0) / used as f64)
    };
    Ok((each(&CALLERS[2], last)?, each(&sessions, 0)?))
}

fn table(spent: &[Vec<f64>]) -> Result<String> {
    let head = ["CPU per request, µs (least / median)", "in all", "over nobody", "at most"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let nobody = spent.first().context("nothing was measured")?;
    for (caller, spent) in CALLERS.iter().zip(spent) {
        let all = Spread::of(spent.clone()).context("nothing was measured")?;
        // Of the same round, so that what disturbs a round is in both.
        let over = Spread::of(spent.iter().zip(nobody).map(|(one, nobody)| one - nobody).collect());
        let over = over.context("nothing was measured")?;
        let (over, limit) = match caller.at_most {
            None => (String::new(), String::new()),
            Some(limit) => (format!("{:.1} / {:.1}", over.least, over.median), format!("{limit:.0}")),
        };
        lines.push(vec![caller.title.to_owned(), format!("{:.1} / {:.1}", all.least, all.median), over, limit]);
    }
    Ok(report::table(&lines))
}

/// Each request has the next line of a file as its header. Of many lines none is used twice: behind the last one nothing is
/// sent any more.
const SCRIPT: &str = r#"function wrk.resolve(_, service)
  wrk.addrs = wrk.lookup("127.0.0.1", service)
end
local requests, at = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    local name, value = line:match("^([^:]+): (.*)$")
    requests[#requests + 1] = wrk.format("GET", nil, { ["Host"] = wrk.headers["Host"], [name] = value })
  end
end
function request()
  at = at + 1
  if at > #requests then
    if #requests > 1 then wrk.thread:stop() end
    at = 1
  end
  return requests[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"us":%d,"bytes":%d,"p50":%d,"p99":%d,"errors":%d}\n', summary.requests, summary.duration,
    summary.bytes, latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;
