//! The load generators: wrk for saturated HTTP/1.1, h2load for the rest.
//!
//! New connections come from h2load as well: wrk keeps the TLS session of a closed connection and would resume it on any
//! gateway that issues tickets.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cell::{Cell, Load, RATE, RATE_CONNECTIONS, What};
use super::gateway::Gateway;
use super::install;
use super::process;
use super::site::Site;

/// What a generator saw.
#[derive(Default, Debug, PartialEq)]
pub(super) struct Seen {
    /// Answers that arrived whole.
    pub(super) requests: u64,
    /// Failed connections, broken answers, statuses other than 2xx.
    pub(super) errors: u64,
    /// Bytes received: the bodies' (h2load) or all above TLS (wrk).
    pub(super) bytes: u64,
    /// Seconds the load lasted.
    pub(super) seconds: f64,
    /// Half of the answers came within this, in µs.
    pub(super) p50_us: Option<u64>,
    /// 99 of 100 answers came within this, in µs.
    pub(super) p99_us: Option<u64>,
}

/// Time a generator may take on top of its load.
const GRACE: Duration = Duration::from_secs(20);

/// Sends one cell's load to a gateway.
pub(super) fn run(site: &Site, gateway: &Gateway, cell: &Cell, seconds: u64) -> Result<Seen> {
    let log = site.folder.join("generator.out");
    let deadline = Duration::from_secs(seconds) + GRACE;
    match cell.load {
        Load::NewConnections(_) => {
            let begin = Instant::now();
            let mut total = Seen::default();
            while begin.elapsed() < Duration::from_secs(seconds) {
                let seen =
                    parse_h2load(&process::output(command(site, gateway, cell, seconds)?, &log, deadline, || ())?)?;
                total.requests += seen.requests;
                total.errors += seen.errors;
                total.bytes += seen.bytes;
            }
            total.seconds = begin.elapsed().as_secs_f64();
            Ok(total)
        }
        Load::Saturated { .. } if !cell.h2 => {
            let printed = process::output(command(site, gateway, cell, seconds)?, &log, deadline, || ())?;
            parse_wrk(&printed)
        }
        Load::Saturated { .. } | Load::FixedRate => {
            let times = times(site);
            let _ = fs::remove_file(&times);
            let printed = process::output(command(site, gateway, cell, seconds)?, &log, deadline, || ())?;
            let mut seen = parse_h2load(&printed)?;
            let expected = (cell.load == Load::FixedRate).then_some(1_000_000 * RATE_CONNECTIONS / RATE);
            let mut latencies = latencies(&fs::read_to_string(&times)?, expected);
            latencies.sort_unstable();
            seen.p50_us = percentile(&latencies, 50);
            seen.p99_us = percentile(&latencies, 99);
            Ok(seen)
        }
    }
}

/// The generator's command for a cell. The new-connection cell repeats it until its seconds are over.
pub(super) fn command(site: &Site, gateway: &Gateway, cell: &Cell, seconds: u64) -> Result<Command> {
    let url = gateway.url(cell.what.path());
    if let (Load::Saturated { connections, .. }, false) = (cell.load, cell.h2) {
        let script = site.folder.join("wrk.lua");
        fs::write(&script, wrk_script())?;
        let mut wrk = process::pinned(site.cores.load, &install::program("wrk")?)?;
        wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "10s", "-s"])
            .arg(script)
            .arg(url);
        if cell.what == What::Post {
            wrk.arg("--").arg(site.folder.join("body.json"));
        }
        return Ok(wrk);
    }
    let mut h2load = h2load(site, gateway, cell.h2, cell.what)?;
    match cell.load {
        Load::Saturated { connections, streams } => {
            h2load.args([format!("-c{connections}"), format!("-m{streams}"), format!("-D{seconds}")]);
            h2load.arg(format!("--log-file={}", times(site).display()));
        }
        Load::NewConnections(connections) => {
            h2load.args([format!("-c{connections}"), format!("-n{connections}")]);
        }
        Load::FixedRate => {
            // A connection starts every 3 ms, so that the requests of the 20 (one in 10 ms each) do not all fall on the same moment.
            let rps = RATE / RATE_CONNECTIONS;
            h2load.args([format!("-c{RATE_CONNECTIONS}"), format!("-n{}", RATE * seconds), format!("--rps={rps}")]);
            h2load.args(["-r1", "--rate-period=3ms"]).arg(format!("--log-file={}", times(site).display()));
        }
    }
    h2load.arg(url);
    Ok(h2load)
}

/// A small load for warming up: `requests` GETs over 8 HTTP/1.1 connections.
pub(super) fn warm(site: &Site, gateway: &Gateway, requests: u64) -> Result<Command> {
    let mut h2load = h2load(site, gateway, false, What::Get)?;
    h2load.args(["-c8", &format!("-n{requests}"), &gateway.url("/")]);
    Ok(h2load)
}

/// `requests` of a cell for counting what each costs: over 8 connections, with as many streams as the cell has. At the
/// fixed rate each request is alone: one connection, one after the other.
pub(super) fn counted(site: &Site, gateway: &Gateway, cell: &Cell, requests: u64) -> Result<Command> {
    let (connections, streams) = match cell.load {
        Load::Saturated { streams, .. } => (8, streams),
        _ => (1, 1),
    };
    let mut h2load = h2load(site, gateway, cell.h2, cell.what)?;
    h2load.args([format!("-c{connections}"), format!("-m{streams}"), format!("-n{requests}")]);
    h2load.arg(gateway.url(cell.what.path()));
    Ok(h2load)
}

fn h2load(site: &Site, gateway: &Gateway, h2: bool, what: What) -> Result<Command> {
    let program = install::program("h2load")?;
    let mut h2load = match site.crowded {
        true => process::scheduled(site.cores.load, &["--fifo", "1"], &program)?,
        false => process::pinned(site.cores.load, &program)?,
    };
    h2load.args(["-t1", &format!("--connect-to={}:{}", site.door, gateway.port)]);
    if !h2 {
        h2load.arg("--h1");
    }
    if what == What::Post {
        h2load.arg("-d").arg(site.folder.join("body.json")).args(["-H", "content-type: application/json"]);
    }
    Ok(h2load)
}

/// 1,000 connections that send a request each, `rps` times a second, and another `more` times.
fn thousand(site: &Site, gateway: &Gateway, rps: &str, more: u64) -> Result<Command> {
    let mut h2load = process::pinned(site.cores.load, &install::program("h2load")?)?;
    h2load.args(["-t1", "--h1", "-c1000", &format!("-n{}", 1000 * (1 + more)), &format!("--rps={rps}")]);
    h2load.args([format!("--connect-to=127.0.0.1:{}", gateway.port), gateway.url("/")]);
    Ok(h2load)
}

/// A hundred requests a second of ten connections to any address, whatever it does: what the median and the 99th percentile
/// are, in µs, and how many answers were no 200.
pub(super) fn steady(site: &Site, url: &str, port: u16, seconds: u64) -> Result<(u64, u64, u64)> {
    const CONNECTIONS: u64 = 10;
    let mut h2load = process::pinned(site.cores.load, &install::program("h2load")?)?;
    let times = times(site);
    let _ = fs::remove_file(&times);
    h2load.args(["-t1", "--h1", &format!("--connect-to=127.0.0.1:{port}"), &format!("-c{CONNECTIONS}"), "--rps=10"]);
    h2load.args([format!("-n{}", 100 * seconds), "-r1".into(), "--rate-period=7ms".into()]);
    h2load.arg(format!("--log-file={}", times.display())).arg(url);
    let printed =
        process::output(h2load, &site.folder.join("steady.out"), Duration::from_secs(6 * seconds + 60), || ())?;
    let seen = parse_h2load(&printed)?;
    let mut latencies = latencies(&fs::read_to_string(&times)?, Some(100_000));
    latencies.sort_unstable();
    let of = |percent| percentile(&latencies, percent).context("h2load wrote no latencies");
    Ok((of(50)?, of(99)?, seen.errors))
}

fn times(site: &Site) -> std::path::PathBuf {
    site.folder.join("times")
}

/// wrk connects to 127.0.0.1 whatever the name in the URL says; with an argument it posts that file. It ends with a line of JSON.
fn wrk_script() -> &'static str {
    r#"function wrk.resolve(_, service)
  wrk.addrs = wrk.lookup("127.0.0.1", service)
end
function init(args)
  if args[1] then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    local file = assert(io.open(args[1], "rb"))
    wrk.body = file:read("*a")
    file:close()
  end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"us":%d,"bytes":%d,"p50":%d,"p99":%d,"errors":%d}\n', summary.requests, summary.duration,
    summary.bytes, latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#
}

pub(super) fn parse_wrk(printed: &str) -> Result<Seen> {
    let line = printed.lines().rfind(|line| line.starts_with('{')).context("wrk printed no summary")?;
    let summary: Value = serde_json::from_str(line)?;
    let number = |key: &str| summary[key].as_u64().with_context(|| format!("wrk printed no `{key}`"));
    Ok(Seen {
        requests: number("requests")?,
        errors: number("errors")?,
        bytes: number("bytes")?,
        seconds: number("us")? as f64 / 1e6,
        p50_us: Some(number("p50")?),
        p99_us: Some(number("p99")?),
    })
}

/// `requests: 8 total, 8 started, 8 done, 8 succeeded, 0 failed, 0 errored, 0 timeout` and its neighbours.
pub(super) fn parse_h2load(printed: &str) -> Result<Seen> {
    let line = |start: &str| {
        printed
            .lines()
            .find_map(|line| line.strip_prefix(start))
            .with_context(|| format!("h2load printed no `{start}` line:\n{printed}"))
    };
    let count = |line: &str, label: &str| -> Result<u64> {
        let word = line.split(", ").find_map(|part| part.trim().strip_suffix(label)).map(str::trim);
        word.and_then(|word| word.parse().ok()).with_context(|| format!("h2load printed no `{label}`: {line}"))
    };
    let requests = line("requests:")?;
    let statuses = line("status codes:")?;
    let succeeded = count(requests, " succeeded")?;
    let bad = count(statuses, " 3xx")? + count(statuses, " 4xx")? + count(statuses, " 5xx")?;
    // 3xx answers count as succeeded; those in flight when the time was over are neither.
    let errors = count(requests, " failed")?.max(bad) + count(requests, " errored")? + count(requests, " timeout")?;
    let data = line("traffic:")?.split(", ").find(|part| part.trim_end().ends_with("data")).unwrap_or_default();
    let bytes = data.split_once('(').and_then(|(_, rest)| rest.split(')').next()).and_then(|bytes| bytes.parse().ok());
    let finished = line("finished in")?.split(',').next().unwrap_or_default().trim();
    if succeeded == 0 {
        bail!("h2load had no answer:\n{printed}");
    }
    Ok(Seen {
        requests: succeeded,
        errors,
        bytes: bytes.with_context(|| format!("h2load printed no bytes: {data}"))?,
        seconds: duration_seconds(finished).with_context(|| format!("h2load printed no duration: {finished}"))?,
        ..Seen::default()
    })
}

/// `2.01s`, `151.83ms`, `900us`.
fn duration_seconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * factor);
        }
    }
    None
}

/// The third column of h2load's log: µs from sending a request to the end of its answer.
///
/// With `interval`, the µs between two requests of one connection at a fixed rate: a request that took longer held back those behind it,
/// which h2load then sends late and sees as fast. Each of them is added with the time it would have waited, so that a stall counts as long as it was.
fn latencies(log: &str, interval: Option<u64>) -> Vec<u64> {
    let mut latencies = Vec::new();
    for line in log.lines() {
        let Some(latency) = line.split('\t').nth(2).and_then(|word| word.parse::<u64>().ok()) else { continue };
        latencies.push(latency);
        if let Some(interval) = interval {
            let mut waited = latency;
            while waited > interval {
                waited -= interval;
                latencies.push(waited);
            }
        }
    }
    latencies
}

pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// What a gateway needs for 1,000 connections, in KiB.
pub(super) struct Thousand {
    /// After each has had one answer and said nothing for more than three seconds.
    pub(super) idle: u64,
    /// At most, with a request a second on each.
    pub(super) slow: u64,
}

/// Measures the memory that 1,000 connections take.
pub(super) fn thousand_connections(site: &Site, gateway: &Gateway, log: &Path) -> Result<Thousand> {
    // The second request comes five seconds after the first; the handshakes take less than one.
    const IDLE: std::ops::Range<Duration> = Duration::from_millis(4200)..Duration::from_millis(4900);
    let (mut idle, mut slow) = (None, 0);
    let begin = Instant::now();
    let quiet = process::output(thousand(site, gateway, "0.2", 1)?, log, Duration::from_secs(60), || {
        if idle.is_none() && IDLE.contains(&begin.elapsed()) {
            idle = Some(gateway.server.memory_kib());
        }
    })?;
    let busy = process::output(thousand(site, gateway, "1", 3)?, log, Duration::from_secs(60), || {
        slow = gateway.server.memory_kib().max(slow)
    })?;
    for printed in [quiet, busy] {
        let seen = parse_h2load(&printed)?;
        if seen.errors > 0 {
            bail!("{} of {} requests on 1,000 connections failed", seen.errors, seen.requests);
        }
    }
    Ok(Thousand { idle: idle.context("the idle moment was missed: this machine is too busy")?, slow })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2loads_summary_is_read() {
        let printed = "progress: 100% done\n\nfinished in 2.01s, 1943.50 req/s, 290.39KB/s\n\
            requests: 3887 total, 3907 started, 3887 done, 3880 succeeded, 7 failed, 1 errored, 2 timeout\n\
            status codes: 3870 2xx, 10 3xx, 3 4xx, 4 5xx\n\
            traffic: 580.77KB (594711) total, 409.96KB (419796) headers (space savings 0.00%), 22.78KB (23322) data\n";
        let seen = parse_h2load(printed).unwrap();
        assert_eq!(
            seen,
            Seen { requests: 3880, errors: 17 + 1 + 2, bytes: 23322, seconds: 2.01, p50_us: None, p99_us: None }
        );
        assert!(parse_h2load("finished in 1s\n").is_err());
    }

    #[test]
    fn wrks_summary_is_read() {
        let seen = parse_wrk(
            "Running 2s test\n{\"requests\":10,\"us\":2000000,\"bytes\":99,\"p50\":5,\"p99\":7,\"errors\":1}\n",
        )
        .unwrap();
        assert_eq!(seen, Seen { requests: 10, errors: 1, bytes: 99, seconds: 2.0, p50_us: Some(5), p99_us: Some(7) });
        assert!(parse_wrk("unable to connect").is_err());
    }

    #[test]
    fn a_stall_counts_for_the_requests_it_held_back() {
        let log = "1\t200\t500\n2\t200\t35000\nbroken\n";
        assert_eq!(latencies(log, None), [500, 35_000]);
        assert_eq!(latencies(log, Some(10_000)), [500, 35_000, 25_000, 15_000, 5_000]);
    }

    #[test]
    fn percentiles_of_small_sets() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (Some(50), Some(99)));
        assert_eq!((percentile(&[7], 99), percentile(&[], 50)), (Some(7), None));
    }
}
