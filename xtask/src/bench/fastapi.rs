//! What a FastAPI app costs behind Palisade, beside the same app with the guide's middleware in Python behind nginx with TLS.
//!
//! App and gateway share a core; what counts is the CPU time of both, per request.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use palisade_test::provision::python_program;
use palisade_test::{Need, need, paths};

use super::cell::{Cell, Load, What};
use super::gateway::{Gateway, Kind};
use super::process::{self, Server};
use super::site::{self, Site};
use super::{generator, machine, report};

const CELL: Cell = Cell {
    name: "fastapi",
    title: "GET 200 B of FastAPI",
    h2: false,
    what: What::Get,
    load: Load::Saturated { connections: 16, streams: 1 },
};

/// A gateway, and the app behind it.
struct Pair {
    title: &'static str,
    gateway: Gateway,
    app: Server,
    /// CPU time per request of each round, µs: of the gateway, of the app.
    spent: Vec<(f64, f64)>,
}

impl Pair {
    fn start(
        title: &'static str,
        kind: Kind,
        middleware: &str,
        site: &mut Site,
        binary: Option<&PathBuf>,
    ) -> Result<Pair> {
        let port = site::free_port()?;
        let mut command = process::pinned(site.cores.gateway, &python_program("uvicorn"))?;
        // Without the access log of uvicorn: both gateways write one.
        command.args(["main:app", "--no-access-log", "--port", &port.to_string()]);
        command.args(["--timeout-keep-alive", "600", "--app-dir"]);
        command.arg(paths::tests("apps/cost"));
        command.envs([("COST_MIDDLEWARE", middleware), ("PYTHONDONTWRITEBYTECODE", "1")]);
        let mut app = Server::start(&format!("app-{middleware}"), command, &site.folder)?;
        app.until(site::READY, || site::listening(port))?;
        let upstream = std::mem::replace(&mut site.upstream, port);
        let gateway = Gateway::start(kind, site, binary, &[]);
        site.upstream = upstream;
        Ok(Pair { title, gateway: gateway?, app, spent: Vec::new() })
    }

    fn measure(&mut self, site: &Site, seconds: u64) -> Result<()> {
        let (gateway, app, begin) = (self.gateway.server.cpu(), self.app.cpu(), Instant::now());
        let seen = generator::run(site, &self.gateway, &CELL, seconds)?;
        let title = self.title;
        ensure!(seen.errors == 0 && seen.requests > 0, "{title}: {} errors, {} answers", seen.errors, seen.requests);
        ensure!(seen.bytes >= seen.requests * CELL.what.answer_bytes(), "{title}: bodies are missing");
        let each = |micros: u64| micros as f64 / seen.requests as f64;
        self.spent.push((each(self.gateway.server.cpu().since(gateway)), each(self.app.cpu().since(app))));
        eprintln!("bench: {title}: {} requests in {:.1} s", seen.requests, begin.elapsed().as_secs_f64());
        self.gateway.empty_log();
        Ok(())
    }

    /// The cheapest round.
    fn least(&self) -> Option<(f64, f64)> {
        self.spent.iter().copied().min_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)))
    }
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
    need(Need::PythonGuide)?;
    let mut pairs = [
        Pair::start("the guide's middleware behind nginx", Kind::Nginx, "guide", site, binary)?,
        // Without what protects it: the price of Python alone.
        Pair::start("the bare app behind nginx", Kind::Nginx, "none", site, binary)?,
        Pair::start("the bare app behind palisade", Kind::Palisade, "none", site, binary)?,
    ];
    for _ in 0..rounds {
        for pair in &mut pairs {
            pair.measure(site, seconds)?;
        }
    }
    let [guide, _, ours] = &pairs;
    let (guide, ours) = guide.least().zip(ours.least()).context("nothing was measured")?;
    let mut table = String::from(
        "| CPU per request, µs (least of the rounds) | gateway | app | both |\n| --- | ---: | ---: | ---: |\n",
    );
    for (pair, (gateway, app)) in pairs.iter().filter_map(|pair| Some((pair, pair.least()?))) {
        table.push_str(&format!("| {} | {gateway:.0} | {app:.0} | {:.0} |\n", pair.title, gateway + app));
    }
    let ratio = (ours.0 + ours.1) / (guide.0 + guide.1);
    table.push_str(&format!("| **palisade / guide** | | | **{ratio:.2}** |\n"));
    println!("{table}");
    if write {
        let facts = machine::facts(binary);
        let mut text = report::heading("A FastAPI app", &facts, &["date", "commit", "cpu", "palisade", "nginx"]);
        text.push_str(&format!(
            "\nGET of 200 bytes over HTTP/1.1 with TLS, 16 connections, one uvicorn worker on the gateway's core, {rounds} rounds of {seconds} s in turn. The guide's sections 7, 8, 9 and 16 as Python middleware behind nginx with TLS, and the same app without them behind Palisade, which does their work.\n\n{table}"
        ));
        report::write_section(&root.join("docs/benchmarks.md"), "fastapi", &text)?;
    }
    Ok(())
}
