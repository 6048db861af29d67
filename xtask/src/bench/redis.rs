//! What a limit that instances share costs the gateway: counted on Redis, beside the same limit counted in process.
//!
//! The same gateway, started anew with one line of its policy changed, in turn. A fixed number of requests is sent and each
//! is answered, so that no work is counted for answers that nobody got.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::gateway::{Gateway, Kind};
use super::process::Server;
use super::site::{self, Site};
use super::summary::Spread;
use super::{generator, install, machine, process, report};

/// What has to be installed beside the programs of every run.
pub(super) const NEEDS: &[(&str, &str)] = &[("redis-server", "redis-server")];

/// Connections at once, a request at a time on each: few, so that each request is a round trip of its own, and as many as
/// under load, where requests share reads and writes.
const CONNECTIONS: [u64; 2] = [4, 64];

/// A limit counted in one place, and what each request cost there.
struct Store {
    title: &'static str,
    /// CPU time per request in µs, by number of connections, of each round: of the gateway, and of Redis.
    spent: [Vec<(f64, f64)>; CONNECTIONS.len()],
}

/// Measures both, in turn.
pub(super) fn measure(
    site: &mut Site,
    root: &Path,
    binary: Option<&PathBuf>,
    rounds: u64,
    seconds: u64,
    write: bool,
) -> Result<()> {
    let port = site::free_port()?;
    let mut redis = Server::start("redis", server(site, port)?, &site.folder)?;
    redis.until(site::READY, || site::listening(port))?;
    let mut stores = [("in process", None), ("on Redis", Some(port))]
        .map(|(title, port)| (port, Store { title, spent: [const { Vec::new() }; CONNECTIONS.len()] }));
    for _ in 0..rounds {
        for (port, store) in &mut stores {
            site.redis = *port;
            store.measure(site, &mut redis, binary, seconds)?;
        }
    }
    site.redis = None;
    let [(_, here), (_, there)] = &stores;
    let table = table(here, there)?;
    println!("{table}");
    if write {
        let facts = machine::facts(binary);
        let mut text = report::heading("A limit that instances share", &facts, &["date", "commit", "cpu", "palisade"]);
        let version = machine::said("redis-server", &["--version"]).unwrap_or_default();
        text.push_str(&format!(
            "- redis: {version}\n\nThe policy of the first table, `GET` of 200 B over HTTP/1.1 with TLS, {rounds} rounds of about {seconds} s each in turn, a fixed number of requests a round; the limit counted in process and, with `store = \"redis\"`, by one script on a Redis server on the core of the load generator. CPU is user + system time of the gateway's process tree, and of the server.\n\n{table}\n"
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "redis", &text)?;
    }
    Ok(())
}

/// A server that keeps nothing, on the core of the upstream.
fn server(site: &Site, port: u16) -> Result<Command> {
    let mut command = process::pinned(site.cores.load, &install::program("redis-server")?)?;
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(&site.folder);
    Ok(command)
}

impl Store {
    fn measure(&mut self, site: &mut Site, redis: &mut Server, binary: Option<&PathBuf>, seconds: u64) -> Result<()> {
        let gateway = Gateway::start(Kind::Palisade, site, binary, &[])?;
        for (connections, spent) in CONNECTIONS.iter().zip(&mut self.spent) {
            // Warms up, and tells how many requests a second there will be.
            let (begin, warm) = (Instant::now(), 50 * connections);
            send(site, &gateway, *connections, warm)?;
            let rate = warm as f64 / begin.elapsed().as_secs_f64();
            let count = ((rate * seconds as f64) as u64).max(warm).next_multiple_of(*connections);
            let (ours, theirs, begin) = (gateway.server.cpu(), redis.cpu(), Instant::now());
            send(site, &gateway, *connections, count)?;
            let each = |micros: u64| micros as f64 / count as f64;
            let cost = (each(gateway.server.cpu().since(ours)), each(redis.cpu().since(theirs)));
            eprintln!(
                "bench: {}, {connections} connections: {count} in {:.1} s, {:.1} µs each, Redis {:.1} µs",
                self.title,
                begin.elapsed().as_secs_f64(),
                cost.0,
                cost.1
            );
            spent.push(cost);
            gateway.empty_log();
        }
        redis.alive()?;
        site.alive()
    }
}

/// Sends so many requests; all of them are answered with 200.
fn send(site: &Site, gateway: &Gateway, connections: u64, count: u64) -> Result<()> {
    let mut h2load = process::pinned(site.cores.load, &install::program("h2load")?)?;
    h2load.args(["-t1", "--h1", &format!("-c{connections}"), &format!("-n{count}")]);
    h2load.arg(format!("--connect-to=127.0.0.1:{}", gateway.port)).arg(gateway.url("/"));
    let log = site.folder.join("generator.out");
    let printed = process::output(h2load, &log, Duration::from_secs(60 + count / 100), || ())?;
    let seen = generator::parse_h2load(&printed)?;
    ensure!(
        seen.errors == 0 && seen.requests == count,
        "{} of {count} answers, {} errors:\n{}",
        seen.requests,
        seen.errors,
        fs::read_to_string(&log).unwrap_or_default()
    );
    Ok(())
}

fn table(here: &Store, there: &Store) -> Result<String> {
    let mut lines = vec![
        ["CPU per request, µs (least / median)", "in process", "on Redis", "more", "Redis itself"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (place, connections) in CONNECTIONS.iter().enumerate() {
        let of = |values: Vec<f64>| Spread::of(values).context("nothing was measured");
        let ours = of(here.spent[place].iter().map(|(ours, _)| *ours).collect())?;
        let theirs = of(there.spent[place].iter().map(|(ours, _)| *ours).collect())?;
        let redis = of(there.spent[place].iter().map(|(_, redis)| *redis).collect())?;
        let cell = |spread: &Spread| format!("{:.1} / {:.1}", spread.least, spread.median);
        lines.push(vec![
            format!("{connections} connections"),
            cell(&ours),
            cell(&theirs),
            format!("{:.1} / {:.1}", theirs.least - ours.least, theirs.median - ours.median),
            cell(&redis),
        ]);
    }
    Ok(report::table(&lines))
}
