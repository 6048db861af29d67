//! What slow and greedy connections cost everybody else: `slowhttptest` in its four modes, each of the floods of threat 29
//! and all of them at once, beside 2,000 requests a second.
//!
//! The attacker is 127.0.0.2 and the clients are 127.0.0.3, under the limits that hold by default. Then once more without
//! the limit by address, as if each of the attacker's connections came from another one.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use palisade_test::ways::Ways;

use super::cell::{CELLS, Cell};
use super::gateway::{Gateway, Kind};
use super::site::Site;
use super::{generator, install, machine, process, report};

/// Of each measurement, in seconds, where the command says nothing.
pub(super) const SECONDS: u64 = 30;
/// Parts of a measurement, each with clients of its own: a moment in which the machine stands still spoils one of them.
const PARTS: u64 = 5;
/// Until the connections are there.
const RAMP: Duration = Duration::from_secs(10);
/// Until they are gone: what they leave behind is not what the next measurement is about.
const SETTLE: Duration = Duration::from_secs(3);
/// An attack that ends sooner did not begin.
const SHORTEST: Duration = Duration::from_secs(2);
/// `limits.connections_per_address` as it is by default.
const PER_ADDRESS: u32 = 100;
/// Connections of an attacker who has an address for each.
const ANY: u32 = 10_000;

struct Mode {
    title: &'static str,
    path: &'static str,
    flags: &'static [&'static str],
}

const MODES: [Mode; 4] = [
    Mode { title: "slow heads", path: "/", flags: &["-H", "-i", "5"] },
    Mode { title: "slow bodies", path: "/body", flags: &["-B", "-i", "5", "-s", "8192"] },
    // As many as the upstream takes: a head of over 8 kB is answered with an error, which costs nothing.
    Mode { title: "ranges", path: "/1m", flags: &["-R", "-a", "10", "-b", "900"] },
    Mode {
        title: "slow reading",
        path: "/1m",
        flags: &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"],
    },
];

/// Connections of the attacker.
const CONNECTIONS: usize = 1000;
/// Writes floods (threat 29), and says which it has.
const FLOODS: &str = include_str!("floods.py");
/// The row in which each of the connections has its own flood.
const ALL_FLOODS: &str = "all floods at once";

/// What was seen beside the attacks.
struct Seen {
    table: String,
    any: bool,
    /// Beside which nobody else was served.
    starved: Vec<String>,
}

impl Seen {
    fn new(title: &str) -> Seen {
        let table = format!(
            "| {title} | p99 without, ms | p99 with, ms | ratio | memory after, MiB |\n| --- | ---: | ---: | ---: | ---: |\n"
        );
        Seen { table, any: false, starved: Vec::new() }
    }

    /// Measures the load alone, and beside an attack.
    fn beside(
        &mut self,
        title: &str,
        attack: Command,
        site: &Site,
        gateway: &Gateway,
        cell: &Cell,
        seconds: u64,
    ) -> Result<()> {
        eprintln!("bench: {title}");
        let without = p99(site, gateway, cell, seconds)?;
        let out = site.folder.join(format!("{}.out", title.replace([' ', '/'], "-")));
        let attack = Attack::start(attack, &out)?;
        std::thread::sleep(RAMP);
        let with = p99(site, gateway, cell, seconds);
        let memory = gateway.server.memory_kib() as f64 / 1024.0;
        attack.stop().with_context(|| format!("{title}: see {}", out.display()))?;
        let (with, ratio) = match with {
            Ok(with) => (format!("{with:.2}"), format!("{:.2}", with / without)),
            Err(error) => {
                eprintln!("bench: {title}: {error:#}");
                self.starved.push(title.to_owned());
                ("none".to_owned(), "none".to_owned())
            }
        };
        self.any = true;
        let _ = writeln!(self.table, "| {title} | {without:.2} | {with} | {ratio} | {memory:.1} |");
        gateway.empty_log();
        std::thread::sleep(SETTLE);
        Ok(())
    }
}

/// An attack that goes on until it is stopped: where the gateway has ended all of its connections, it begins again.
struct Attack {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Attack {
    fn start(mut command: Command, out: &Path) -> Result<Attack> {
        let out = fs::File::create(out)?;
        command.stdout(out.try_clone()?).stderr(out);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let mut child = command.spawn().context("cannot run the attack")?;
                let status = loop {
                    if let Some(status) = child.try_wait()? {
                        break status;
                    }
                    if stopped.load(Ordering::Relaxed) {
                        let _ = child.kill();
                        let _ = child.wait();
                        return Ok(());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                };
                ensure!(begin.elapsed() > SHORTEST, "the attack does not run: {status}");
            }
            Ok(())
        });
        Ok(Attack { stop, thread })
    }

    /// Ends it. Fails where it was none.
    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the attack panicked"))?
    }
}

/// Measures each attack against the same load without it, in turn; of the attacks those that begin as `only` says.
pub(super) fn measure(
    site: &mut Site,
    root: &Path,
    kind: Kind,
    binary: Option<&PathBuf>,
    seconds: u64,
    only: &[String],
    write: bool,
) -> Result<()> {
    let cell = CELLS.iter().find(|cell| cell.name == "h1-rate").context("no cell at a fixed rate")?;
    let attacked = (seconds + 2 * RAMP.as_secs()).to_string();
    let urgent = Command::new(install::program("chrt")?).args(["--fifo", "1", "true"]).output()?;
    ensure!(
        urgent.status.success(),
        "clients that come first need root (CAP_SYS_NICE): {}",
        String::from_utf8_lossy(&urgent.stderr).trim()
    );
    // Neither `slowhttptest` nor `h2load` can choose where it comes from.
    let _ways = Ways::open()?;
    (site.listen, site.door, site.crowded) = (Ipv4Addr::UNSPECIFIED, Ways::CLIENT, true);
    let script = site.folder.join("floods.py");
    fs::write(&script, FLOODS)?;
    let each = floods(&script)?;
    let there: Vec<&str> =
        MODES.iter().map(|mode| mode.title).chain(each.iter().map(String::as_str)).chain([ALL_FLOODS]).collect();
    for wanted in only {
        ensure!(
            there.iter().any(|title| title.starts_with(wanted.as_str())),
            "no attack `{wanted}`; there are: {}",
            there.join(", ")
        );
    }
    let wanted = |title: &str| only.is_empty() || only.iter().any(|wanted| title.starts_with(wanted.as_str()));
    let mut table = String::new();
    let mut starved = Vec::new();
    for (per_address, title) in
        [(PER_ADDRESS, "1,000 connections of one address"), (ANY, "1,000, each of another address")]
    {
        site.per_address = per_address;
        let gateway = Gateway::start(kind, site, binary, &[])?;
        let mut seen = Seen::new(title);
        for mode in MODES.iter().filter(|mode| wanted(mode.title)) {
            let mut command = attacker(site, "slowhttptest")?;
            command.args(mode.flags).args(["-c", &CONNECTIONS.to_string(), "-r", "200", "-v", "1", "-l", &attacked]);
            command.arg("-u").arg(format!("https://{}:{}{}", Ways::ATTACKER, gateway.port, mode.path));
            seen.beside(mode.title, command, site, &gateway, cell, seconds)?;
        }
        // Each by itself is what the limits that hold by default are measured with.
        let alone = if per_address == PER_ADDRESS { each.as_slice() } else { &[] };
        for flood in alone.iter().map(String::as_str).chain([ALL_FLOODS]).filter(|flood| wanted(flood)) {
            let mut command = attacker(site, "python3")?;
            command.arg(&script).args([gateway.port.to_string(), attacked.clone(), CONNECTIONS.to_string()]);
            command.args((flood != ALL_FLOODS).then_some(flood));
            seen.beside(flood, command, site, &gateway, cell, seconds)?;
        }
        if seen.any {
            table.push_str(&seen.table);
            table.push('\n');
        }
        starved.extend(seen.starved);
    }
    println!("{table}");
    ensure!(starved.is_empty(), "others were not served beside: {}", starved.join(", "));
    if write && only.is_empty() {
        let facts = machine::facts(binary);
        let mut text = report::heading("Slow connections and floods", &facts, &["date", "commit", "cpu", "palisade"]);
        let _ = write!(
            text,
            "\nThe 99th percentile of 2,000 GETs a second over HTTP/1.1 with TLS from 127.0.0.3, for {seconds} s each (the median of {PARTS} parts), alone and beside 1,000 connections from 127.0.0.2, which come again as often as they are ended: `slowhttptest` in its four modes, then each of {} floods, all but one of HTTP/2 (`xtask/src/bench/floods.py`), then all of these at once. Clients, application and attackers share a core, on which the clients go first (`SCHED_FIFO`) and the attackers last (`SCHED_IDLE`): it is the gateway that others are to wait for. First with the limits that hold by default, {PER_ADDRESS} connections of an address among them; then without that one.\n\n{}",
            each.len(),
            table.trim_end(),
        );
        text.push('\n');
        report::write_section(&root.join("docs/benchmarks.md"), "slow", &text)?;
    }
    Ok(())
}

/// The floods that the script has.
fn floods(script: &Path) -> Result<Vec<String>> {
    let listed = Command::new(install::program("python3")?).arg(script).output().context("cannot run python3")?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
}

/// An attacker's program shares a core with the clients that are measured and the application, and takes what they leave
/// at once (`SCHED_IDLE`), and the clients come first of all ([`Site::crowded`]): it is the gateway that others are to wait
/// for, not the attacker's own work, nor what the application does for it.
fn attacker(site: &Site, program: &str) -> Result<Command> {
    process::scheduled(site.cores.load, &["--idle", "0"], &install::program(program)?)
}

/// In milliseconds, the median of all parts.
fn p99(site: &Site, gateway: &Gateway, cell: &Cell, seconds: u64) -> Result<f64> {
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let seen = generator::run(site, gateway, cell, (seconds / PARTS).max(1))?;
        ensure!(seen.errors == 0, "{} errors beside {} good answers", seen.errors, seen.requests);
        parts.push(seen.p99_us.context("no latencies")?);
    }
    parts.sort_unstable();
    let median = parts.get(parts.len() / 2).context("no parts")?;
    Ok(*median as f64 / 1000.0)
}
