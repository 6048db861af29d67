//! A login storm: what another route suffers while 64 clients log in without pause, behind Palisade and in FastAPI with
//! bcrypt, in an async and in a sync handler.
//!
//! Server and clients share both cores, as on a small machine. Each client has an address and an account of its own and the
//! right password, so that every login that is let in is worth a hash.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use palisade_test::provision::python_program;
use palisade_test::{Need, need, paths};
use serde_json::Value;

use super::gateway::{Gateway, Kind};
use super::process::{self, Server};
use super::site::{self, Site};
use super::{generator, identity, machine, report};

/// Length of each storm where the command says nothing.
pub(super) const SECONDS: u64 = 15;
const CLIENTS: usize = 64;

/// What one server did.
struct Weather {
    title: &'static str,
    /// Median and 99th percentile of the other route in µs: before, and in the storm.
    calm: (u64, u64),
    storm: (u64, u64),
    /// Answers of the other route that were no 200.
    failed: u64,
    /// What the clients saw.
    seen: Value,
    /// Most memory, MiB.
    memory: f64,
}

/// Measures all three.
pub(super) fn measure(site: &mut Site, root: &Path, binary: Option<&PathBuf>, seconds: u64, write: bool) -> Result<()> {
    need(Need::PythonGuide)?;
    let binary = binary.context("there is no palisade binary")?;
    let [ours, one_address] = palisade(site, binary, seconds)?;
    let all = [
        ours,
        one_address,
        fastapi(site, "FastAPI, bcrypt in a sync handler", "sync", seconds)?,
        fastapi(site, "FastAPI, bcrypt in an async handler", "async", seconds)?,
    ];
    let text = table(&all, seconds)?;
    println!("{text}");
    if write {
        let facts = machine::facts(Some(binary));
        let mut head = report::heading("A login storm", &facts, &["date", "commit", "cpu", "palisade"]);
        head.push_str(&format!(
            "\n{CLIENTS} clients log in for {seconds} s, each with an account of its own, an address of its own where nothing else is said, and the right password; one that is turned away comes again after 200 ms. Beside them another route is asked 100 times a second on 10 connections, whatever it does; an answer that came late also counts for the requests it held back. Server and clients share both cores. Palisade hashes with argon2id (19 MiB, 2 rounds, 1 lane), passlib with bcrypt (cost 12). Palisade's other route is a GET of 200 B over TLS that nginx answers behind it, FastAPI's is one of its own without TLS.\n\n"
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "storm", &(head + &text))?;
    }
    for ours in &all[..2] {
        ensure!(ours.failed == 0, "{} answers of the other route were no 200", ours.failed);
        ensure!(ours.seen["without_retry_after"] == 0, "refusals without `Retry-After`: {}", ours.seen);
    }
    Ok(())
}

/// With an address for each client, and with one for all.
fn palisade(site: &mut Site, binary: &PathBuf, seconds: u64) -> Result<[Weather; 2]> {
    (site.auth, site.both_cores) = (Some("closed"), true);
    let gateway = Gateway::start(Kind::Palisade, site, Some(binary), &[]);
    (site.auth, site.both_cores) = (None, false);
    let gateway = gateway?;
    for name in (0..CLIENTS).map(|number| format!("storm{number}")).chain(["storm-patient".to_owned()]) {
        identity::add_user(site, binary, &name, &[])?;
    }
    let login = format!("https://127.0.0.1:{}/auth/token", gateway.port);
    let storm = |title, addresses| {
        let other = Other { url: &gateway.url("/"), port: gateway.port };
        weather(site, title, &gateway.server, other, &login, addresses, seconds)
    };
    Ok([storm("Palisade", "own")?, storm("Palisade, all from one address", "one")?])
}

fn fastapi(site: &Site, title: &'static str, handler: &str, seconds: u64) -> Result<Weather> {
    let port = site::free_port()?;
    let mut command = process::on(&site.cores.both(), &python_program("uvicorn"))?;
    command.args(["logins:app", "--no-access-log", "--port", &port.to_string(), "--app-dir"]);
    command.arg(paths::tests("apps/cost")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut app = Server::start(&format!("app-{handler}"), command, &site.folder)?;
    app.until(site::READY, || site::listening(port))?;
    let base = format!("http://127.0.0.1:{port}");
    let other = Other { url: &format!("{base}/"), port };
    weather(site, title, &app, other, &format!("{base}/{handler}/token"), "own", seconds)
}

/// The route that is asked beside the storm.
#[derive(Clone, Copy)]
struct Other<'a> {
    url: &'a str,
    port: u16,
}

fn weather(
    site: &Site,
    title: &'static str,
    server: &Server,
    Other { url: other, port }: Other<'_>,
    login: &str,
    addresses: &str,
    seconds: u64,
) -> Result<Weather> {
    generator::steady(site, other, port, 1)?;
    let (median, p99, failed) = generator::steady(site, other, port, seconds)?;
    ensure!(failed == 0, "{title}: {failed} answers before the storm were no 200");
    let calm = (median, p99);
    // A second for the clients to come, and one for those that are still waiting.
    let storm = seconds + 2;
    let mut python = process::on(&site.cores.both(), &python_program("python"))?;
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(paths::tests("apps/cost/storm.py"));
    python.args([login, &CLIENTS.to_string(), &storm.to_string(), "storm", addresses]);
    let log = site.folder.join("storm.out");
    let (printed, steady, memory) = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut most = 0;
            let look = || most = most.max(server.memory_kib());
            let printed = process::output(python, &log, Duration::from_secs(storm + 240), look)?;
            anyhow::Ok((printed, most))
        });
        thread::sleep(Duration::from_secs(1));
        let steady = generator::steady(site, other, port, seconds);
        let (printed, most) = clients.join().map_err(|_| anyhow::anyhow!("the storm's thread ended"))??;
        anyhow::Ok((printed, steady?, most as f64 / 1024.0))
    })?;
    let line = printed.lines().rfind(|line| line.starts_with('{')).context("storm.py printed nothing")?;
    let seen: Value = serde_json::from_str(line)?;
    let (median, p99, failed) = steady;
    eprintln!("bench: {title}: {calm:?} µs before, {median} and {p99} in the storm, {seen}");
    Ok(Weather { title, calm, storm: (median, p99), failed, seen, memory })
}

fn table(all: &[Weather], seconds: u64) -> Result<String> {
    let head = [
        "p50 / p99 of another route, ms",
        "before",
        "in the storm",
        "p99, times",
        "logins/s",
        "turned away",
        "a right password, slowest, s",
        "memory, most, MiB",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for one in all {
        let ms = |(median, p99): (u64, u64)| format!("{:.2} / {:.2}", median as f64 / 1e3, p99 as f64 / 1e3);
        let answers = one.seen["answers"].as_object().context("no answers")?;
        let of = |status: &str| answers.get(status).and_then(Value::as_u64).unwrap_or(0);
        let waited = one.seen["waited_s"].as_array().context("no waits")?.iter().filter_map(Value::as_f64);
        let slowest = waited.fold(0.0, f64::max);
        lines.push(vec![
            one.title.to_owned(),
            ms(one.calm),
            ms(one.storm),
            format!("{:.1}", one.storm.1 as f64 / one.calm.1.max(1) as f64),
            format!("{:.1}", of("200") as f64 / (seconds + 2) as f64),
            format!("{}", of("429") + of("503")),
            if slowest > 0.0 { format!("{slowest:.1}") } else { "never".to_owned() },
            format!("{:.0}", one.memory),
        ]);
    }
    Ok(report::table(&lines))
}
