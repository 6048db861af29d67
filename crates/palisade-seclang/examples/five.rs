//! Measures the engine on five harmless requests: CPU time of one transaction through all phases, in microseconds.
//!
//! `cargo run --release -p palisade-seclang --example five -- [OPTIONS]`:
//! - `--rounds N`: transactions of each request (300);
//! - `--only NAME`: the requests that begin so, with what the filter says of them; `--hard`: values chosen to be slow;
//! - `--rules FILE`: these rules; otherwise Debian's `modsecurity-crs` (below `PALISADE_CRS_ROOT`) at paranoia 1;
//! - `--without STEP`: without a short cut (`fold`, `filter`, `plain`, `triggers`, `cache`, `known`, `needs`, `wake`, `gates`); `--reference`: without any;
//! - `--write DIR`: writes the requests into files instead, for another engine.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints a table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_seclang::{Builder, Clock, RuleSet, Steps, SystemClock, Transaction};

#[path = "five/requests.rs"]
mod requests;

struct Options {
    rounds: usize,
    only: Option<String>,
    hard: bool,
    rules: Option<PathBuf>,
    steps: Option<Steps>,
    write: Option<PathBuf>,
}

fn options() -> Options {
    let mut options =
        Options { rounds: 300, only: None, hard: false, rules: None, steps: Some(Steps::ALL), write: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--only" => options.only = Some(value()),
            "--hard" => options.hard = true,
            "--rules" => options.rules = Some(value().into()),
            "--reference" => options.steps = None,
            "--write" => options.write = Some(value().into()),
            "--without" => {
                let name = value();
                let steps = options.steps.as_mut().unwrap();
                *match name.as_str() {
                    "fold" => &mut steps.fold,
                    "filter" => &mut steps.filter,
                    "plain" => &mut steps.plain,
                    "triggers" => &mut steps.triggers,
                    "cache" => &mut steps.cache,
                    "known" => &mut steps.known,
                    "needs" => &mut steps.needs,
                    "wake" => &mut steps.wake,
                    "gates" => &mut steps.gates,
                    _ => panic!("no step {name}"),
                } = false;
            }
            _ => panic!("unknown option {arg}"),
        }
    }
    options
}

fn main() {
    let options = options();
    let chosen = if options.hard { requests::hard() } else { requests::all() };
    if let Some(folder) = &options.write {
        return chosen.iter().for_each(|request| write(folder, request));
    }
    let begin = Instant::now();
    let rules = load(&options);
    let (live, filtered) = rules.live_count();
    println!(
        "loaded in {} ms: {} rules, {live} live, {filtered} of them filtered, filter {} KiB, resident {} KiB",
        begin.elapsed().as_millis(),
        rules.rule_count(),
        rules.filter_memory() / 1024,
        resident(),
    );
    if options.only.is_some() {
        (1..=5).for_each(|phase| println!("phase {phase}: {:?}", rules.always_evaluated(phase)));
    }
    println!("{:<20} {:>10} {:>10} {:>8}", "request", "least", "median", "matches");
    let clock = SystemClock::new();
    let now = || clock.cpu().unwrap();
    for request in chosen.iter().filter(|r| options.only.as_ref().is_none_or(|only| r.name.starts_with(only.as_str())))
    {
        let mut transaction = Transaction::new(&rules);
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..options.rounds {
            let begin = now();
            transaction.reset(&rules);
            run(&mut transaction, request);
            times.push(now() - begin);
        }
        times.sort();
        let micros = |d: Duration| d.as_nanos() as f64 / 1000.0;
        let (least, median) = (micros(times[0]), micros(times[times.len() / 2]));
        println!("{:<20} {least:>10.1} {median:>10.1} {:>8}", request.name, transaction.matches().len());
        if options.only.is_some() {
            println!("    candidates {:?}", transaction.candidates());
        }
        for found in transaction.matches().iter().take(5) {
            println!("    {} {} {}", found.rule, found.target, found.message);
        }
    }
    println!("resident {} KiB", resident());
}

fn load(options: &Options) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    // What the gateway asks for.
    builder.reads(&["anomaly_score", "inbound_anomaly_score", "outbound_anomaly_score"]);
    match options.steps {
        Some(steps) => builder.steps(steps),
        None => builder.reference(),
    };
    match &options.rules {
        Some(file) => {
            builder.file(file);
        }
        None => {
            let root = std::env::var_os("PALISADE_CRS_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
            builder.text("five.conf", "SecRuleEngine On\nSecRequestBodyAccess On\nSecRequestBodyJsonDepthLimit 64");
            builder.file(root.join("etc/modsecurity/crs/crs-setup.conf"));
            builder.file(root.join("usr/share/modsecurity-crs/rules/*.conf"));
        }
    }
    match builder.compile() {
        Ok(rules) => Arc::new(rules),
        Err(problems) => panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// Method, target and headers a line each, an empty line, the body.
fn write(folder: &Path, request: &requests::Request) {
    let mut text = format!("{}\n{}\n", request.method, request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push('\n');
    let bytes = [text.as_bytes(), &request.body].concat();
    std::fs::write(folder.join(format!("{}.request", request.name)), bytes).unwrap();
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Feeds a request through all phases.
#[inline(never)]
fn run(transaction: &mut Transaction, request: &requests::Request) {
    transaction.connection("192.0.2.7", 40000, "192.0.2.1", 443);
    transaction.unique_id("01J0000000000000000000000");
    transaction.request(request.method.as_bytes(), request.target.as_bytes(), b"HTTP/1.1");
    for (name, value) in &request.headers {
        transaction.header(name.as_bytes(), value.as_bytes());
    }
    transaction.request_headers();
    for chunk in request.body.chunks(16 << 10) {
        transaction.body(chunk);
    }
    transaction.request_body();
    transaction.response(200, b"HTTP/1.1");
    transaction.response_header(b"Content-Type", b"application/json");
    transaction.response_headers();
    transaction.response_body();
    transaction.logging();
}
