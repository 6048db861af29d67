//! `cargo xtask bench`: Palisade beside nginx and haproxy, doing the same work on the same cores in the same minutes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for the terminal: results on stdout, progress on stderr"
)]

mod cell;
mod check;
mod engine;
mod fastapi;
mod gateway;
mod generator;
mod haproxy;
mod identity;
pub(crate) mod install;
mod instructions;
mod machine;
mod measure;
mod nginx;
mod oracle;
mod palisade;
mod process;
mod redis;
mod report;
mod site;
mod slow;
mod storm;
mod summary;
mod train;
mod waf;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use cell::{CELLS, Cell};
use gateway::{Gateway, Kind};
use report::Footprint;
use site::Site;

/// Length of one measurement where the command says nothing.
const SECONDS: u64 = 4;
/// Times that each gateway is started, to see how long that takes undisturbed.
const STARTS: usize = 3;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Times that each cell is measured on each gateway.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Length of one measurement: 4 (twice that at the fixed rate, where little CPU is used), with --slow 30.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Only this cell, or the cells that begin so (`h1`, `h2-get`), with --slow the attacks; may be repeated. Writes no
    /// document.
    #[arg(long, value_name = "CELL")]
    only: Vec<String>,
    /// Gateway that the ratios are about.
    #[arg(long, value_enum, default_value = "palisade")]
    subject: Subject,
    /// Gateways it is compared with.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nginx,haproxy")]
    against: Vec<Kind>,
    /// How palisade is built: `dist`, as it is published, or the faster built `release`.
    #[arg(long, value_enum, default_value = "dist")]
    profile: Profile,
    /// A palisade binary that is built already, instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Writes all figures as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leaves docs/benchmarks.md as it is.
    #[arg(long)]
    no_write: bool,
    /// Measures a gateway that does not do all of the work that is compared. Writes no document.
    #[arg(long)]
    unchecked: bool,
    /// Counts user-space instructions (callgrind) and system calls (strace) per request instead of measuring time.
    #[arg(long)]
    instructions: bool,
    /// Measures a FastAPI app behind Palisade beside the guide's middleware in Python behind nginx, instead.
    #[arg(long)]
    fastapi: bool,
    /// Measures five harmless requests with the rules of the Core Rule Set, beside nginx with ModSecurity, instead.
    #[arg(long, conflicts_with_all = ["instructions", "fastapi", "slow"])]
    waf: bool,
    /// Measures a limit that instances share on Redis beside the same limit counted in process, instead.
    #[arg(long, conflicts_with_all = ["instructions", "fastapi", "slow", "waf"])]
    redis: bool,
    /// Measures what a caller who is known costs over one who is nobody: by token, session and API key, instead.
    #[arg(long, conflicts_with_all = ["instructions", "fastapi", "slow", "waf", "redis"])]
    identity: bool,
    /// Measures another route beside 64 clients that log in without pause, and FastAPI with bcrypt in the same storm, instead.
    #[arg(long, conflicts_with_all = ["instructions", "fastapi", "slow", "waf", "redis", "identity"])]
    storm: bool,
    /// Compares answers, and the time that they take, for accounts of every kind, so many of each, instead.
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "400",
          conflicts_with_all = ["instructions", "fastapi", "slow", "waf", "redis", "identity", "storm"])]
    oracle: Option<u64>,
    /// Measures the latency of others beside a thousand slow connections of four kinds and floods of HTTP/2, 30 s each,
    /// instead.
    #[arg(long, conflicts_with = "instructions")]
    slow: bool,
    /// With --instructions: fails when the subject takes more than this many per GET over HTTP/1.1.
    #[arg(long, value_name = "INSTRUCTIONS", requires = "instructions")]
    at_most: Option<u64>,
}

impl Arguments {
    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(SECONDS)
    }
}

/// [`Kind`] or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// The default.
    Palisade,
    /// A peer as the subject.
    Nginx,
    /// A peer as the subject.
    Haproxy,
    /// No ratios.
    None,
}

impl Subject {
    fn kind(self) -> Option<Kind> {
        match self {
            Subject::Palisade => Some(Kind::Palisade),
            Subject::Nginx => Some(Kind::Nginx),
            Subject::Haproxy => Some(Kind::Haproxy),
            Subject::None => None,
        }
    }
}

/// How palisade is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// `cargo xtask dist`.
    Dist,
    /// `cargo build --release`.
    Release,
}

/// Sends a binary that counts (see [`train`](mod@train)) what is counted.
pub(crate) fn train(binary: &PathBuf) -> Result<()> {
    install::ensure(&[(waf::CORE_RULE_SET, "modsecurity-crs")])?;
    in_a_folder(|folder| train::train(&mut Site::open(folder, machine::Cores::choose()?)?, binary))
}

/// Runs the command.
pub(crate) fn run(args: &Arguments) -> Result<ExitCode> {
    // With `--slow` they are attacks, of which the program that makes them has the list.
    let cells = if args.slow { Vec::new() } else { chosen(&args.only)? };
    let subject = args.subject.kind();
    let mut kinds: Vec<Kind> = subject.into_iter().collect();
    for &kind in &args.against {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the xtask crate has no folder above it")?;
    let cores = machine::Cores::choose()?;
    install::ensure(match args {
        Arguments { instructions: true, .. } => &[("valgrind", "valgrind"), ("strace", "strace")],
        Arguments { waf: true, .. } => waf::NEEDS,
        Arguments { redis: true, .. } => redis::NEEDS,
        _ => &[],
    })?;
    let binary = match &args.binary {
        Some(binary) => Some(fs::canonicalize(binary).with_context(|| format!("no binary {}", binary.display()))?),
        None if kinds.contains(&Kind::Palisade) => Some(palisade::build(root, args.profile)?),
        None => None,
    };
    in_a_folder(|folder| {
        let mut site = Site::open(folder, cores)?;
        if args.instructions {
            count(args, &site, root, &cells, &kinds, subject, binary.as_ref())
        } else if args.fastapi {
            fastapi::measure(&mut site, root, binary.as_ref(), args.rounds, args.seconds(), !args.no_write)
        } else if args.waf {
            waf::measure(&mut site, root, binary.as_ref(), args.rounds, args.seconds(), !args.no_write)
        } else if args.redis {
            redis::measure(&mut site, root, binary.as_ref(), args.rounds, args.seconds(), !args.no_write)
        } else if args.identity {
            let seconds = args.seconds.unwrap_or(identity::SECONDS);
            identity::measure(&mut site, root, binary.as_ref(), args.rounds, seconds, !args.no_write)
        } else if args.storm {
            storm::measure(&mut site, root, binary.as_ref(), args.seconds.unwrap_or(storm::SECONDS), !args.no_write)
        } else if let Some(count) = args.oracle {
            oracle::measure(&mut site, root, binary.as_ref(), count, !args.no_write)
        } else if args.slow {
            let seconds = args.seconds.unwrap_or(slow::SECONDS);
            let kind = subject.unwrap_or(Kind::Palisade);
            slow::measure(&mut site, root, kind, binary.as_ref(), seconds, &args.only, !args.no_write)
        } else {
            measure(args, site, root, &cells, &kinds, subject, binary.as_ref())
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Does something in a folder that is left where it fails.
fn in_a_folder(work: impl FnOnce(PathBuf) -> Result<()>) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("palisade-bench-{}", std::process::id()));
    if let Err(error) = work(folder.clone()) {
        eprintln!("bench: configurations, outputs and logs are kept in {}", folder.display());
        return Err(error);
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn measure(
    args: &Arguments,
    mut site: Site,
    root: &Path,
    cells: &[&Cell],
    kinds: &[Kind],
    subject: Option<Kind>,
    binary: Option<&PathBuf>,
) -> Result<()> {
    let mut gateways = Vec::new();
    let mut footprints = Vec::new();
    for &kind in kinds {
        let mut gateway = Gateway::start(kind, &site, binary, &[])?;
        let mut start = gateway.start;
        for _ in 1..STARTS {
            drop(gateway);
            gateway = Gateway::start(kind, &site, binary, &[])?;
            start = start.min(gateway.start);
        }
        let alone_mib = gateway.server.memory_kib() as f64 / 1024.0;
        match check::check(&site, &gateway) {
            Err(error) if args.unchecked => eprintln!("bench: {error:#}"),
            checked => checked?,
        }
        footprints.push(Footprint { kind, start_ms: start.as_secs_f64() * 1e3, alone_mib, thousand: None });
        gateways.push(gateway);
    }
    for gateway in &gateways {
        // Warms code, pools and buffers before the first round.
        let load = generator::warm(&site, gateway, 2000)?;
        process::output(load, &site.folder.join("generator.out"), Duration::from_secs(30), || ())?;
    }

    let runs = measure::rounds(&mut site, &mut gateways, cells, args.rounds, args.seconds())?;
    for (gateway, footprint) in gateways.iter().zip(&mut footprints) {
        eprintln!("bench: {} with 1,000 connections", gateway.kind.name());
        match generator::thousand_connections(&site, gateway, &site.folder.join("generator.out")) {
            Ok(thousand) => footprint.thousand = Some(thousand),
            Err(error) => eprintln!("bench: not counted: {} with 1,000 connections: {error:#}", gateway.kind.name()),
        }
    }
    let rows = summary::rows(cells, kinds, &runs);
    let tables = [
        report::cpu_table(&rows, kinds, subject),
        report::rate_table(&rows, kinds, subject),
        report::footprint_table(&footprints, &rows),
    ];
    let weather = report::weather(&rows, args.rounds);
    println!("{}\n{weather}", tables.join("\n"));

    let facts = machine::facts(binary.filter(|_| kinds.contains(&Kind::Palisade)));
    if let Some(file) = &args.json {
        let mut all = summary::json(&rows, &runs, subject);
        all["machine"] = serde_json::to_value(&facts)?;
        fs::write(file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if !args.no_write && !args.unchecked && args.only.is_empty() {
        let mut commands = Vec::new();
        if let Some(gateway) = gateways.first() {
            for cell in cells {
                let seconds = measure::length(cell, args.seconds());
                commands.push(process::shown(&generator::command(&site, gateway, cell, seconds)?));
            }
        }
        let how = report::how(args.rounds, args.seconds());
        let section = report::load_section(&facts, &tables, &weather, &how, &commands, &gateways);
        let section = section.replace(&site.folder.display().to_string(), "/tmp/bench");
        let file = root.join("docs/benchmarks.md");
        report::write_section(&file, "load", &section)?;
        eprintln!("bench: wrote {}", file.display());
    }
    let missing = rows.iter().flat_map(|row| &row.figures).filter(|(_, figures)| figures.is_none()).count();
    if missing > 0 {
        bail!("{missing} cells have no run that counts");
    }
    Ok(())
}

fn count(
    args: &Arguments,
    site: &Site,
    root: &Path,
    cells: &[&'static Cell],
    kinds: &[Kind],
    subject: Option<Kind>,
    binary: Option<&PathBuf>,
) -> Result<()> {
    for &kind in kinds {
        match check::check(site, &Gateway::start(kind, site, binary, &[])?) {
            Err(error) if args.unchecked => eprintln!("bench: {error:#}"),
            checked => checked?,
        }
    }
    let mut counts = Vec::new();
    for &cell in cells.iter().filter(|cell| instructions::counts(cell)) {
        for &kind in kinds {
            counts.push(instructions::count(site, kind, binary, cell)?);
        }
    }
    let table = instructions::table(&counts, kinds, subject);
    println!("{table}");
    if !args.no_write && !args.unchecked && args.only.is_empty() {
        let facts = machine::facts(binary.filter(|_| kinds.contains(&Kind::Palisade)));
        let mut text = report::heading(
            "Instructions and system calls",
            &facts,
            &["date", "commit", "palisade", "nginx", "haproxy", "valgrind"],
        );
        text.push_str(&format!("\nIn user space by callgrind, system calls by strace: 400 and 1,600 requests (1 MiB: 40 and 160) over 8 TLS connections, the difference for each request more. Over HTTP/2 with as many streams as under load. Repeatable to about 1 %; what the kernel does in a call is not seen.\n\n{table}"));
        report::write_section(&root.join("docs/benchmarks.md"), "instructions", &text)?;
    }
    let of = |name: &str| counts.iter().find(|count| Some(count.kind) == subject && count.cell.name == name);
    if let Some(limit) = args.at_most {
        let its = of("h1-get").context("--at-most is about the cell h1-get, which was not counted")?;
        if its.instructions > limit as f64 {
            bail!("{} takes {:.0} instructions per GET, more than {limit}", its.kind.name(), its.instructions);
        }
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Cell>> {
    for wanted in only {
        if !CELLS.iter().any(|cell| cell.name.starts_with(wanted.as_str())) {
            let names: Vec<&str> = CELLS.iter().map(|cell| cell.name).collect();
            bail!("no cell `{wanted}`; there are: {}", names.join(", "));
        }
    }
    let wanted = |cell: &&Cell| only.is_empty() || only.iter().any(|wanted| cell.name.starts_with(wanted.as_str()));
    Ok(CELLS.iter().filter(wanted).collect())
}
