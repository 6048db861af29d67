//! What rules cost: Palisade beside nginx with ModSecurity 3, both with the same rule files, for five harmless requests.
//!
//! A fixed number of requests is sent and each is answered, so that no work is counted for answers that nobody got.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::gateway::{Gateway, Kind};
use super::nginx::MODSECURITY;
use super::site::Site;
use super::summary::Spread;
use super::{check, engine, generator, install, machine, process, report};

#[path = "../../../crates/palisade-seclang/examples/five/requests.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with a program that needs more of it")]
mod requests;

use requests::Request;

/// What has to be installed beside the programs of every run, and the packages.
pub(super) const NEEDS: &[(&str, &str)] = &[
    (MODSECURITY, "libnginx-mod-http-modsecurity"),
    (CORE_RULE_SET, "modsecurity-crs"),
    ("/usr/include/modsecurity/modsecurity.h", "libmodsecurity-dev"),
    ("cc", "gcc"),
];
pub(super) const CORE_RULE_SET: &str = "/usr/share/modsecurity-crs/rules";

/// Connections at once, a request at a time on each: enough that a gateway always has something to do, whose CPU time is of
/// work then and not of waking up; few where one request is the work of milliseconds.
fn connections(request: &Request) -> u64 {
    if request.body.len() > 8 << 10 { 4 } else { 32 }
}

/// The file that both read: the engine's recommended settings, and the rules as Debian installs them, at paranoia 1.
const RULES: &str = r#"SecRuleEngine On
SecRequestBodyAccess On
SecRule REQUEST_HEADERS:Content-Type "^(?:application(?:/soap\+|/)|text/)xml" "id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRequestBodyLimit 1048576
SecRequestBodyNoFilesLimit 1048576
SecRequestBodyLimitAction Reject
SecResponseBodyAccess Off
SecAuditEngine Off
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
"#;

/// A gateway with the rules, and what each request cost it.
struct Walled {
    title: &'static str,
    gateway: Gateway,
    /// CPU time per request in µs, by request, of each round.
    spent: Vec<Vec<f64>>,
    /// Requests a second, by request, as the first measurement had it.
    rates: Vec<f64>,
}

impl Walled {
    fn start(
        title: &'static str,
        kind: Kind,
        site: &Site,
        binary: Option<&PathBuf>,
        five: &[Request],
    ) -> Result<Walled> {
        let gateway = Gateway::start(kind, site, binary, &[])?;
        let mut walled = Walled { title, gateway, spent: vec![Vec::new(); five.len()], rates: Vec::new() };
        walled.judges(site, five).with_context(|| format!("{title} does not do what is compared"))?;
        // Warms up, and tells how many requests a second of each there will be.
        for request in five {
            let begin = Instant::now();
            let count = 4 * connections(request);
            walled.send(site, request, count)?;
            walled.rates.push(count as f64 / begin.elapsed().as_secs_f64());
        }
        Ok(walled)
    }

    /// The five pass, attacks in the query and in a body do not.
    fn judges(&self, site: &Site, five: &[Request]) -> Result<()> {
        for request in five {
            let mut args: Vec<String> = headers(request).flat_map(|header| ["-H".to_owned(), header]).collect();
            if !request.body.is_empty() {
                args.extend(["--data-binary".to_owned(), format!("@{}", body(site, request).display())]);
            }
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let answer = check::curl(site, &self.gateway, &request.target, &args)?;
            ensure!(answer.status == 200, "{} was answered {}", request.name, answer.status);
        }
        let query = check::curl(site, &self.gateway, "/api/items?q=1%27%20or%201%3D1--%20", &[])?;
        ensure!(query.status == 403, "an attack in a query was answered {}", query.status);
        let attack = r#"{"title":"<script>alert(document.cookie)</script>"}"#;
        let json = ["-H", "content-type: application/json", "--data-binary", attack];
        let posted = check::curl(site, &self.gateway, "/api/items", &json)?;
        ensure!(posted.status == 403, "an attack in a JSON body was answered {}", posted.status);
        Ok(())
    }

    fn measure(&mut self, site: &mut Site, five: &[Request], seconds: u64) -> Result<()> {
        for (place, request) in five.iter().enumerate() {
            let count = (self.rates[place] * seconds as f64) as u64;
            let connections = connections(request);
            let count = count.max(4 * connections).next_multiple_of(connections);
            let (before, begin) = (self.gateway.server.cpu(), Instant::now());
            self.send(site, request, count)?;
            let spent = self.gateway.server.cpu().since(before) as f64 / count as f64;
            // The next round is as long as it should be.
            self.rates[place] = count as f64 / begin.elapsed().as_secs_f64();
            let (title, name) = (self.title, request.name);
            eprintln!(
                "bench: {title}: {count} of {name} in {:.1} s, {spent:.0} µs each",
                begin.elapsed().as_secs_f64()
            );
            self.spent[place].push(spent);
            self.gateway.empty_log();
            self.gateway.server.alive()?;
            site.alive()?;
        }
        Ok(())
    }

    /// Sends so many requests; all of them are answered with 200.
    fn send(&self, site: &Site, request: &Request, count: u64) -> Result<()> {
        let command = self.command(site, request, count)?;
        let deadline = Duration::from_secs(60 + count / 4);
        let printed = process::output(command, &site.folder.join("generator.out"), deadline, || ())?;
        let seen = generator::parse_h2load(&printed)?;
        let (title, name) = (self.title, request.name);
        ensure!(
            seen.errors == 0 && seen.requests == count,
            "{title}, {name}: {} of {count} answers, {} errors",
            seen.requests,
            seen.errors
        );
        Ok(())
    }

    fn command(&self, site: &Site, request: &Request, count: u64) -> Result<Command> {
        let mut h2load = process::pinned(site.cores.load, &install::program("h2load")?)?;
        h2load.args(["-t1", "--h1", &format!("-c{}", connections(request)), &format!("-n{count}")]);
        h2load.arg(format!("--connect-to=127.0.0.1:{}", self.gateway.port));
        for header in headers(request) {
            h2load.args(["-H", &header]);
        }
        if !request.body.is_empty() {
            h2load.arg("-d").arg(body(site, request));
        }
        h2load.arg(self.gateway.url(&request.target));
        Ok(h2load)
    }
}

/// The headers of a request but for those that every client writes itself.
fn headers(request: &Request) -> impl Iterator<Item = String> + '_ {
    let named = request.headers.iter().filter(|(name, _)| !["Host", "Content-Length"].contains(name));
    named.map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
}

/// The file with its body.
fn body(site: &Site, request: &Request) -> PathBuf {
    site.folder.join(format!("{}.body", request.name))
}

/// The five for some seconds each, and the attacks of [`Walled::judges`], on a gateway that goes on running.
pub(super) fn train(site: &mut Site, binary: &PathBuf) -> Result<Gateway> {
    site.rules = Some(rules(site)?);
    let five = five(site)?;
    let mut walled = Walled::start("palisade", Kind::Palisade, site, Some(binary), &five)?;
    walled.measure(site, &five, super::train::SECONDS)?;
    site.rules = None;
    Ok(walled.gateway)
}

/// The file of [`RULES`].
fn rules(site: &Site) -> Result<PathBuf> {
    let file = site.folder.join("rules.conf");
    fs::write(&file, RULES)?;
    Ok(file)
}

/// The requests, with their bodies in files.
fn five(site: &Site) -> Result<Vec<Request>> {
    let five = requests::all();
    for request in &five {
        fs::write(body(site, request), &request.body)?;
    }
    Ok(five)
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
    let rules = rules(site)?;
    site.rules = Some(rules.clone());
    let five = five(site)?;
    let mut both = [
        Walled::start("nginx + ModSecurity", Kind::Nginx, site, binary, &five)?,
        Walled::start("palisade", Kind::Palisade, site, binary, &five)?,
    ];
    for _ in 0..rounds {
        for walled in &mut both {
            walled.measure(site, &five, seconds)?;
        }
    }
    let table = table(&five, &both)?;
    println!("{table}");
    drop(both);
    let engines = engine::measure(site, root, &rules, rounds)?;
    let (alone, steps) = (engines.table(title)?, engines.steps()?);
    println!("{alone}\n{steps}");
    if write {
        let facts = machine::facts(binary);
        let mut text =
            report::heading("With the Core Rule Set", &facts, &["date", "commit", "cpu", "palisade", "nginx"]);
        for package in ["libmodsecurity3", "libnginx-mod-http-modsecurity", "modsecurity-crs"] {
            let version = machine::said("dpkg-query", &["-W", "-f", "${Version}", package]).unwrap_or_default();
            text.push_str(&format!("- {package}: {version}\n"));
        }
        text.push_str(&format!(
            "\nFive harmless requests over HTTP/1.1 with TLS, 32 connections (bodies of 32 kB: 4), {rounds} rounds of about {seconds} s each in turn, a fixed number of requests a round. Both block at paranoia 1, read the same rule files and inspect heads and bodies; neither writes an audit log. CPU is user + system time of the gateway's process tree, all of it: TLS, proxying and log included. Ratios say how many times as much nginx + ModSecurity takes.\n\n{table}\n### Engines alone\n\nThe same rules and requests, all phases, in one process each, on the same core, in turn.\n\n{alone}\n### What each short cut brings\n\nOurs again with one of its short cuts left out at a time.\n\n{steps}\n`rules.conf`, for both:\n\n```text\n{}\n```\n",
            RULES.trim()
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "waf", &text)?;
    }
    Ok(())
}

fn table(five: &[Request], [theirs, ours]: &[Walled; 2]) -> Result<String> {
    let mut lines = vec![
        ["CPU per request, µs (least / median)", theirs.title, ours.title, "ratio (least / median)"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut product = (1.0, 1.0);
    for (place, request) in five.iter().enumerate() {
        let of = |walled: &Walled| Spread::of(walled.spent[place].clone()).context("nothing was measured");
        let (theirs, ours) = (of(theirs)?, of(ours)?);
        let ratio = (theirs.least / ours.least, theirs.median / ours.median);
        product = (product.0 * ratio.0, product.1 * ratio.1);
        let cell = |spread: Spread| format!("{:.0} / {:.0}", spread.least, spread.median);
        lines.push(vec![
            title(request.name).to_owned(),
            cell(theirs),
            cell(ours),
            format!("{:.1} / {:.1}", ratio.0, ratio.1),
        ]);
    }
    let mean = |product: f64| product.powf(1.0 / five.len() as f64);
    lines.push(vec![
        "**geometric mean**".to_owned(),
        String::new(),
        String::new(),
        format!("**{:.1} / {:.1}**", mean(product.0), mean(product.1)),
    ]);
    let footprint = |walled: &Walled| {
        let gateway = &walled.gateway;
        let memory = gateway.server.memory_kib() as f64 / 1024.0;
        format!("{}: listens after {} ms, {memory:.0} MiB after the load", walled.title, gateway.start.as_millis())
    };
    Ok(format!("{}\n{}; {}.\n", report::table(&lines), footprint(theirs), footprint(ours)))
}

fn title(name: &str) -> &str {
    match name {
        "a-get3" => "GET with 3 arguments",
        "b-json1k" => "POST, JSON of 1 kB",
        "c-form1k" => "POST, form of 1 kB",
        "d-json32k-long" => "POST, JSON of 32 kB, 17 long strings",
        "e-json32k-leaves" => "POST, JSON of 32 kB, 713 values",
        other => other,
    }
}
