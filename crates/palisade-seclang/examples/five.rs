//! Measures the engine on five harmless requests: microseconds of one transaction through all phases.
//!
//! `cargo run --release --example five [-- ROUNDS [REQUEST | hard]]`; `hard` measures values chosen to be slow instead.
//! Rules: Debian's `modsecurity-crs` (or `PALISADE_CRS_ROOT`), paranoia 1.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints a table")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_seclang::{Builder, RuleSet, Transaction};

#[path = "five/requests.rs"]
mod requests;

fn main() {
    let rounds: u32 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(300);
    let only = std::env::args().nth(2);
    let reference = std::env::args().nth(3).is_some_and(|a| a == "reference");
    let root = std::env::var_os("PALISADE_CRS_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let begin = Instant::now();
    let rules = load(&root, reference);
    let (live, filtered) = rules.live_count();
    println!(
        "loaded in {} ms: {} rules, {live} live, {filtered} of them filtered, filter {} KiB, resident {} KiB",
        begin.elapsed().as_millis(),
        rules.rule_count(),
        rules.filter_memory() / 1024,
        resident(),
    );
    let chosen = if only.as_deref() == Some("hard") { requests::hard() } else { requests::all() };
    let only = only.filter(|o| o != "hard");
    if only.is_some() {
        (1..=5).for_each(|phase| println!("phase {phase}: {:?}", rules.always_evaluated(phase)));
    }
    println!("{:<20} {:>10} {:>10} {:>8}", "request", "least µs", "median µs", "matches");
    for request in chosen.iter().filter(|r| only.as_ref().is_none_or(|o| r.name.starts_with(o.as_str()))) {
        let mut transaction = Transaction::new(&rules);
        let mut times: Vec<Duration> = Vec::new();
        let mut matches = 0;
        for _ in 0..rounds {
            let begin = Instant::now();
            transaction.reset(&rules);
            run(&mut transaction, request);
            times.push(begin.elapsed());
            matches = transaction.matches().len();
        }
        times.sort();
        let micros = |d: Duration| d.as_nanos() as f64 / 1000.0;
        println!(
            "{:<20} {:>10.1} {:>10.1} {:>8}",
            request.name,
            micros(times[0]),
            micros(times[times.len() / 2]),
            matches
        );
        if only.is_some() {
            println!("    candidates {:?}", transaction.candidates());
        }
        for found in transaction.matches().iter().take(5) {
            println!("    {} {} {}", found.rule, found.target, found.message);
        }
    }
    println!("resident {} KiB", resident());
}

fn load(root: &std::path::Path, reference: bool) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    if reference {
        builder.reference();
    }
    builder.text("five.conf", "SecRuleEngine On\nSecRequestBodyAccess On\nSecRequestBodyJsonDepthLimit 64");
    builder.file(root.join("etc/modsecurity/crs/crs-setup.conf"));
    builder.file(root.join("usr/share/modsecurity-crs/rules/*.conf"));
    match builder.compile() {
        Ok(rules) => Arc::new(rules),
        Err(problems) => panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
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
