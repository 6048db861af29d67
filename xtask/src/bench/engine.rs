//! What rules cost without a server: our engine beside libmodsecurity, each in a process of its own on the same core, and
//! what each short cut of ours brings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::site::Site;
use super::summary::Spread;
use super::{install, process, report};
use crate::dist;

/// Transactions of each request in one run: least and median of them are what counts.
const ROUNDS: usize = 400;
/// The same for libmodsecurity, which takes long.
const THEIR_ROUNDS: usize = 40;
/// The short cuts of the engine, by the names that its example has for them.
const STEPS: &[(&str, &str)] = &[
    ("fold", "rules of configuration alone evaluated at load"),
    ("filter", "one scan for all patterns, rules without a hit skipped"),
    ("plain", "a smaller scan for words and numbers"),
    ("triggers", "transformations that change nothing left out"),
    ("cache", "what a prefix of a chain makes of a value kept, equal texts scanned once"),
    ("known", "what names and headers met kept for the next transaction"),
    ("needs", "texts without any sign that a pattern asks for not scanned"),
    ("wake", "rules asleep until what they look at is there"),
    ("gates", "libinjection not asked about harmless text"),
];

/// µs of each request, least and median, and how long loading took in ms.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) rows: Vec<(String, f64, f64)>,
    loaded: f64,
}

/// Both engines, ours also without each of its short cuts.
pub(super) struct Engines {
    theirs: Vec<Measured>,
    ours: Vec<Measured>,
    without: Vec<(&'static str, Measured)>,
    reference: Measured,
}

/// The program that measures our engine.
fn build(root: &Path) -> Result<PathBuf> {
    eprintln!("bench: cargo build --profile published -p palisade-seclang --example five");
    dist::compile(
        dist::cargo(root).args(["build", "--package", "palisade-seclang", "--example", "five"]),
        dist::PUBLISHED,
        "five",
    )
}

fn parse(printed: &str) -> Result<Measured> {
    let loaded = printed.lines().find_map(|line| {
        let (number, _) = line.strip_prefix("loaded in ")?.split_once(" ms")?;
        number.parse().ok()
    });
    let rows: Vec<_> = printed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.trim_end_matches(".request").to_owned();
            Some((name, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect();
    ensure!(!rows.is_empty(), "nothing was measured: {printed}");
    Ok(Measured { rows, loaded: loaded.context("no time of loading")? })
}

fn run(site: &Site, program: &Path, args: &[&str]) -> Result<Measured> {
    let mut command = process::pinned(site.cores.gateway, program)?;
    let output = command.args(args).output().with_context(|| process::shown(&command))?;
    ensure!(output.status.success(), "{}: {}", process::shown(&command), String::from_utf8_lossy(&output.stderr));
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Measures both with the same rules and requests, in turn.
pub(super) fn measure(site: &Site, root: &Path, rules: &Path, rounds: u64) -> Result<Engines> {
    let five = build(root)?;
    let modsecurity = site.folder.join("modsecurity");
    let source = root.join("xtask/src/bench/modsecurity.c");
    let compiled = Command::new(install::program("cc")?)
        .args(["-O2", "-o"])
        .args([&modsecurity, &source])
        .arg("-lmodsecurity")
        .status()
        .context("cc does not run")?;
    ensure!(compiled.success(), "{} does not compile", source.display());
    let folder = site.folder.join("requests");
    fs::create_dir_all(&folder)?;
    let text = |path: &Path| path.display().to_string();
    let written = Command::new(&five).args(["--write", &text(&folder)]).status()?;
    ensure!(written.success(), "the requests cannot be written");
    let mut requests: Vec<String> = fs::read_dir(&folder)?.filter_map(|file| Some(text(&file.ok()?.path()))).collect();
    requests.sort();
    let (rules, our_rounds) = (text(rules), ROUNDS.to_string());
    let ours = |more: &[&str]| run(site, &five, &[&["--rules", &rules, "--rounds", &our_rounds], more].concat());
    let their_rounds = THEIR_ROUNDS.to_string();
    let their_args: Vec<&str> = [&rules, &their_rounds].into_iter().chain(&requests).map(String::as_str).collect();
    let mut engines =
        Engines { theirs: Vec::new(), ours: Vec::new(), without: Vec::new(), reference: ours(&["--reference"])? };
    for round in 0..rounds {
        eprintln!("bench: engines alone, round {}", round + 1);
        engines.theirs.push(run(site, &modsecurity, &their_args)?);
        engines.ours.push(ours(&[])?);
    }
    for (step, _) in STEPS {
        engines.without.push((step, ours(&["--without", step])?));
    }
    Ok(engines)
}

impl Engines {
    /// Least and median of a request over all runs.
    fn of(runs: &[Measured], name: &str) -> Result<(f64, f64)> {
        let rows = |pick: fn(&(String, f64, f64)) -> f64| {
            let all = runs.iter().flat_map(|run| &run.rows).filter(|row| row.0 == name).map(pick).collect();
            Spread::of(all).with_context(|| format!("{name} was not measured"))
        };
        Ok((rows(|row| row.1)?.least, rows(|row| row.2)?.median))
    }

    /// Ours beside theirs, and the mean of the ratios.
    pub(super) fn table(&self, title: fn(&str) -> &str) -> Result<String> {
        let mut lines = vec![
            [
                "CPU per transaction, µs (least / median)",
                "libmodsecurity",
                "palisade-seclang",
                "ratio (least / median)",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        let mut product = (1.0, 1.0);
        let names: Vec<&str> = self.reference.rows.iter().map(|row| row.0.as_str()).collect();
        for name in &names {
            let (theirs, ours) = (Self::of(&self.theirs, name)?, Self::of(&self.ours, name)?);
            let ratio = (theirs.0 / ours.0, theirs.1 / ours.1);
            product = (product.0 * ratio.0, product.1 * ratio.1);
            let cell = |of: (f64, f64)| format!("{:.1} / {:.1}", of.0, of.1);
            lines.push(vec![title(name).to_owned(), cell(theirs), cell(ours), cell(ratio)]);
        }
        let mean = |product: f64| product.powf(1.0 / names.len() as f64);
        let means = format!("**{:.1} / {:.1}**", mean(product.0), mean(product.1));
        lines.push(vec!["**geometric mean**".to_owned(), String::new(), String::new(), means]);
        let loaded = |runs: &[Measured]| runs.iter().map(|run| run.loaded).fold(f64::INFINITY, f64::min);
        Ok(format!(
            "{}\nLoading the rules takes libmodsecurity {:.0} ms and palisade-seclang {:.0} ms, least of all runs.\n",
            report::table(&lines),
            loaded(&self.theirs),
            loaded(&self.ours),
        ))
    }

    /// What is lost without each short cut.
    pub(super) fn steps(&self) -> Result<String> {
        let names: Vec<&str> = self.reference.rows.iter().map(|row| row.0.as_str()).collect();
        let mut lines = vec![
            std::iter::once("least µs of CPU per transaction")
                .chain(names.iter().map(|name| name.split('-').next().unwrap_or(name)))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        let mut line = |title: String, of: &dyn Fn(&str) -> Result<f64>| -> Result<()> {
            let cells = names.iter().map(|name| Ok(format!("{:.1}", of(name)?))).collect::<Result<Vec<_>>>()?;
            lines.push(std::iter::once(title).chain(cells).collect());
            Ok(())
        };
        line("all short cuts".to_owned(), &|name| Ok(Self::of(&self.ours, name)?.0))?;
        for (step, measured) in &self.without {
            let about = STEPS.iter().find(|known| known.0 == *step).map_or("", |known| known.1);
            let runs = std::slice::from_ref(measured);
            line(format!("without `{step}`: {about}"), &|name| Ok(Self::of(runs, name)?.0))?;
        }
        let reference = std::slice::from_ref(&self.reference);
        line("none: each rule on each of its values".to_owned(), &|name| Ok(Self::of(reference, name)?.0))?;
        Ok(report::table(&lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_programs_print_is_read() {
        let ours =
            "loaded in 12 ms: 3 rules\nrequest  least  median  matches\na-get3   1.5   2.0   0\nresident 10 KiB\n";
        let theirs = "loaded in 90 ms\na-get3.request 150.0 160.0\n";
        for (text, least, loaded) in [(ours, 1.5, 12.0), (theirs, 150.0, 90.0)] {
            let measured = parse(text).unwrap();
            assert_eq!(measured.rows, [("a-get3".to_owned(), least, measured.rows[0].2)]);
            assert!((measured.loaded - loaded).abs() < 0.1);
        }
        assert!(parse("loaded in 1 ms").is_err() && parse("a 1 2").is_err());
    }
}
