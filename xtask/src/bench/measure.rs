//! The rounds: every cell on every gateway in turn, so that all of them see the same weather.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cell::{Cell, Load, RATE};
use super::gateway::{Gateway, Kind};
use super::generator;
use super::process;
use super::site::Site;

/// One cell on one gateway in one round.
pub(super) struct Run {
    /// Index of the cell among those measured.
    pub(super) cell: usize,
    /// On which gateway.
    pub(super) kind: Kind,
    /// User and system time of the gateway's process tree per request, µs.
    pub(super) cpu_us: f64,
    /// Answers per second.
    pub(super) per_second: f64,
    /// Median latency, ms.
    pub(super) p50_ms: Option<f64>,
    /// 99th percentile, ms.
    pub(super) p99_ms: Option<f64>,
    /// Resident memory right after the load, MiB.
    pub(super) memory_mib: f64,
    /// Share of the gateway's core that others used meanwhile, 0 to 1.
    pub(super) foreign: f64,
    /// Why this run does not count.
    pub(super) invalid: Option<String>,
}

/// Measures all cells on all gateways, `rounds` times. What fails is a run that does not count, not the end.
pub(super) fn rounds(
    site: &mut Site,
    gateways: &mut [Gateway],
    cells: &[&Cell],
    rounds: u64,
    seconds: u64,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut progress = Progress::new(rounds * (cells.len() * gateways.len()) as u64);
    for round in 1..=rounds {
        for (index, cell) in cells.iter().enumerate() {
            for gateway in gateways.iter_mut() {
                progress.next(&format!("round {round}/{rounds}  {:10} {}", cell.name, gateway.kind.name()));
                let run = one(site, gateway, cell, index, seconds)?;
                if let Some(reason) = &run.invalid {
                    progress.say(&format!(
                        "not counted: {} on {}, round {round}: {reason}",
                        cell.name,
                        gateway.kind.name()
                    ));
                }
                runs.push(run);
                gateway.empty_log();
                gateway.server.alive()?;
                site.alive()?;
            }
        }
    }
    progress.end();
    Ok(runs)
}

fn one(site: &Site, gateway: &Gateway, cell: &Cell, index: usize, seconds: u64) -> Result<Run> {
    let core = site.cores.gateway;
    let (cpu, busy, begin) = (gateway.server.cpu(), process::core_busy_us(core), Instant::now());
    let seen = generator::run(site, gateway, cell, length(cell, seconds));
    let elapsed = begin.elapsed();
    let cpu_us = gateway.server.cpu().since(cpu);
    let busy_us = process::core_busy_us(core).saturating_sub(busy);
    let foreign = busy_us.saturating_sub(cpu_us) as f64 / elapsed.as_micros().max(1) as f64;
    let memory_mib = gateway.server.memory_kib() as f64 / 1024.0;
    let run = Run {
        cell: index,
        kind: gateway.kind,
        cpu_us: 0.0,
        per_second: 0.0,
        p50_ms: None,
        p99_ms: None,
        memory_mib,
        foreign,
        invalid: None,
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return Ok(Run { invalid: Some(format!("{error:#}")), ..run }),
    };
    let mut invalid = None;
    if seen.errors > 0 {
        invalid = Some(format!("{} errors or answers other than 2xx beside {} good ones", seen.errors, seen.requests));
    } else if seen.requests == 0 {
        invalid = Some("no answer at all".to_owned());
    } else if seen.bytes < seen.requests * cell.what.answer_bytes() {
        invalid = Some(format!("{} answers with {} bytes: bodies are missing", seen.requests, seen.bytes));
    } else if cell.load == Load::FixedRate && (seen.requests as f64) < 0.9 * seen.seconds * RATE as f64 {
        let rate = seen.requests as f64 / seen.seconds;
        invalid = Some(format!("only {rate:.0} of {RATE} requests a second were sent: the machine is too busy"));
    }
    let milliseconds = |us: u64| us as f64 / 1000.0;
    Ok(Run {
        cpu_us: cpu_us as f64 / seen.requests.max(1) as f64,
        per_second: seen.requests as f64 / seen.seconds,
        p50_ms: seen.p50_us.map(milliseconds),
        p99_ms: seen.p99_us.map(milliseconds),
        invalid,
        ..run
    })
}

/// Seconds of a cell: the fixed rate uses so little CPU that it is measured for twice as long.
pub(super) fn length(cell: &Cell, seconds: u64) -> u64 {
    if cell.load == Load::FixedRate { 2 * seconds } else { seconds }
}

/// A line that says how far it is: rewritten on a terminal, one a step elsewhere.
pub(super) struct Progress {
    total: u64,
    done: u64,
    begin: Instant,
    terminal: bool,
}

impl Progress {
    /// For `total` steps.
    pub(super) fn new(total: u64) -> Progress {
        Progress { total, done: 0, begin: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Begins the next step.
    pub(super) fn next(&mut self, what: &str) {
        let left = match self.done {
            0 => String::new(),
            done => {
                let left = self.begin.elapsed().mul_f64((self.total - done) as f64 / done as f64);
                format!("  about {} left", clock(left))
            }
        };
        self.done += 1;
        let line = format!("bench: {:3}/{}  {what}{left}", self.done, self.total);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        eprintln!("{}bench: {text}", if self.terminal { "\r\x1b[K" } else { "" });
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
