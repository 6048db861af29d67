//! The report: tables for the terminal and for `docs/benchmarks.md`, which are the same text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::gateway::{Gateway, Kind};
use super::generator::Thousand;
use super::summary::{Figures, Row, Spread, mean_ratio};

/// Start and memory of one gateway.
pub(super) struct Footprint {
    /// Which.
    pub(super) kind: Kind,
    /// From the start of its process to the first accepted connection, ms.
    pub(super) start_ms: f64,
    /// Resident memory before any load, MiB.
    pub(super) alone_mib: f64,
    /// With 1,000 open connections.
    pub(super) thousand: Option<Thousand>,
}

/// The head of a section of the document: its title, and those of the machine's facts that count for it.
pub(super) fn heading(title: &str, facts: &BTreeMap<&'static str, String>, names: &[&str]) -> String {
    let listed = names.iter().filter_map(|name| facts.get(name).map(|value| format!("- {name}: {value}\n")));
    format!("## {title}\n\n{}", listed.collect::<String>())
}

/// The main table: CPU per request and its ratios.
pub(super) fn cpu_table(rows: &[Row], kinds: &[Kind], subject: Option<Kind>) -> String {
    let peers: Vec<Kind> = kinds.iter().copied().filter(|&kind| subject.is_some() && Some(kind) != subject).collect();
    let mut head = vec!["CPU per request, µs (least / median)".to_owned()];
    head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
    if let Some(subject) = subject {
        head.extend(peers.iter().map(|peer| format!("{}/{}", subject.name(), peer.name())));
    }
    let mut lines = vec![head];
    for row in rows {
        let mut line = vec![row.cell.title.to_owned()];
        line.extend(kinds.iter().map(|&kind| row.of(kind).map_or("-".to_owned(), |figures| pair(&figures.cpu_us, 1))));
        line.extend(peers.iter().map(|&peer| ratio(subject.and_then(|subject| row.ratio(subject, peer)))));
        lines.push(line);
    }
    if let Some(subject) = subject {
        let means: Vec<String> = peers.iter().map(|&peer| ratio(mean_ratio(rows, subject, peer))).collect();
        if means.iter().any(|mean| mean != "-") {
            let mut line = vec!["**small requests, geometric mean**".to_owned()];
            line.extend(kinds.iter().map(|_| String::new()));
            line.extend(means.into_iter().map(|mean| format!("**{mean}**")));
            lines.push(line);
        }
    }
    table(&lines)
}

/// The second table: rate and latency, medians of the rounds, and the ratios of p99 at the fixed rate.
pub(super) fn rate_table(rows: &[Row], kinds: &[Kind], subject: Option<Kind>) -> String {
    let peers: Vec<Kind> = kinds.iter().copied().filter(|&kind| subject.is_some() && Some(kind) != subject).collect();
    let mut head = vec!["requests/s · p50 / p99 ms (medians)".to_owned()];
    head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
    if let Some(subject) = subject {
        head.extend(peers.iter().map(|peer| format!("p99 {}/{}", subject.name(), peer.name())));
    }
    let mut lines = vec![head];
    for row in rows {
        let cell = |figures: &Figures| {
            let latency = match (&figures.p50_ms, &figures.p99_ms) {
                (Some(p50), Some(p99)) => format!(" · {:.2} / {:.2}", p50.median, p99.median),
                _ => String::new(),
            };
            format!("{:.0}{latency}", figures.per_second.median)
        };
        let mut line = vec![row.cell.title.to_owned()];
        line.extend(kinds.iter().map(|&kind| row.of(kind).map_or("-".to_owned(), cell)));
        line.extend(peers.iter().map(|&peer| {
            let ratio = subject.and_then(|subject| row.p99_ratio(subject, peer));
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
        }));
        lines.push(line);
    }
    table(&lines)
}

/// The third table: start and memory.
pub(super) fn footprint_table(footprints: &[Footprint], rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "",
            "start to listening, ms (best of 3)",
            "memory alone, MiB",
            "with 1,000 idle connections, MiB",
            "with 1,000 and a request a second on each, MiB",
            "after load, most, MiB",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for footprint in footprints {
        let most = rows.iter().filter_map(|row| Some(row.of(footprint.kind)?.memory_mib)).fold(0.0, f64::max);
        let thousand = |kib: fn(&Thousand) -> u64| {
            footprint.thousand.as_ref().map_or("-".to_owned(), |seen| format!("{:.1}", kib(seen) as f64 / 1024.0))
        };
        lines.push(vec![
            footprint.kind.name().to_owned(),
            format!("{:.0}", footprint.start_ms),
            format!("{:.1}", footprint.alone_mib),
            thousand(|seen| seen.idle),
            thousand(|seen| seen.slow),
            format!("{most:.1}"),
        ]);
    }
    table(&lines)
}

/// How disturbed the run was, in a sentence.
pub(super) fn weather(rows: &[Row], rounds: u64) -> String {
    let figures: Vec<&Figures> =
        rows.iter().flat_map(|row| row.figures.iter().filter_map(|(_, figures)| figures.as_ref())).collect();
    let foreign = Spread::of(figures.iter().map(|figures| figures.foreign.median).collect());
    let lost: usize = figures.iter().map(|figures| (rounds as usize).saturating_sub(figures.counted)).sum();
    let empty = rows.iter().flat_map(|row| &row.figures).filter(|(_, figures)| figures.is_none()).count();
    let lost = lost + empty * rounds as usize;
    let share = foreign.map_or(String::new(), |foreign| {
        format!(
            "Other programs used {:.0} to {:.0} % of the gateways' core (median {:.0} %): {}. ",
            foreign.least * 100.0,
            foreign.most * 100.0,
            foreign.median * 100.0,
            if foreign.median < 0.05 {
                "quiet"
            } else {
                "disturbed, so that times are upper bounds and only the ratios compare"
            }
        )
    });
    format!(
        "{share}{}",
        if lost == 0 { "All runs counted.".to_owned() } else { format!("{lost} runs had errors and do not count.") }
    )
}

/// The section of the load comparison.
pub(super) fn load_section(
    facts: &BTreeMap<&'static str, String>,
    tables: &[String],
    weather: &str,
    how: &str,
    commands: &[String],
    gateways: &[Gateway],
) -> String {
    let mut text = String::from("## Under load\n\n");
    for (name, value) in facts {
        text.push_str(&format!("- {name}: {value}\n"));
    }
    text.push_str(&format!("\n{how}\n\n{weather}\n"));
    for table in tables {
        text.push_str(&format!("\n{table}"));
    }
    text.push_str("\n### Commands and configurations\n\nGateways and load generators, without the `taskset` in front of each:\n\n```sh\n");
    for gateway in gateways {
        text.push_str(&format!("{}\n", gateway.command));
    }
    for command in commands {
        text.push_str(&format!("{command}\n"));
    }
    text.push_str("```\n");
    for gateway in gateways {
        text.push_str(&format!("\n`{}`:\n\n```text\n{}\n```\n", gateway.config.0, gateway.config.1.trim()));
    }
    text
}

/// What the figures mean; the words above the tables.
pub(super) fn how(rounds: u64, seconds: u64) -> String {
    format!(
        "{rounds} rounds of {seconds} s a cell ({} s at the fixed rate), the gateways in turn within each round, so that a disturbance meets all of them. Gateway on one core, load \
         generator and upstream (nginx) on another, one worker or thread each. All gateways do: TLS 1.3 (ECDSA P-256), a host check, CORS for one origin, a rate limit \
         by address that is never reached, `X-Forwarded-*`, six security headers, a JSON access log, kept-alive upstream connections. Palisade also does what it \
         cannot be told to leave out (request integrity, request ids).\n\n\
         CPU is user + system time of the gateway's whole process tree, divided by the answers; ratios below 1 mean that the first is cheaper. It is the figure to compare: \
         requests per second and latency also depend on the generator and on whatever else runs on the machine. Saturated cells use 64 connections (1 MiB: 16), over HTTP/2 16 with 8 streams (1 MiB: 4 with 4); \
         new connections come 100 at a time with full handshakes; the fixed rate is 20 connections with 100 requests a second each, and an answer that came late also counts for the requests it held back.",
        2 * seconds
    )
}

/// Writes one section of the document and leaves the others.
pub(super) fn write_section(file: &Path, section: &str, text: &str) -> Result<()> {
    const HEAD: &str =
        "# Benchmarks\n\nMade by `cargo xtask bench` and `cargo xtask bench --instructions`; do not edit.\n";
    let old = fs::read_to_string(file).unwrap_or_else(|_| HEAD.to_owned());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, replace_section(&old, section, text))?;
    Ok(())
}

fn replace_section(document: &str, section: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {section} -->"), format!("<!-- end {section} -->"));
    let block = format!("{begin}\n{}\n{end}", text.trim_end());
    match (document.find(&begin), document.find(&end)) {
        (Some(from), Some(to)) if from < to => format!("{}{block}{}", &document[..from], &document[to + end.len()..]),
        _ => format!("{}\n\n{block}\n", document.trim_end()),
    }
}

/// A table that is aligned for the eye and still Markdown. The first line is the head.
pub(super) fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, &width) in widths.iter().enumerate() {
            let cell = line.get(column).map_or("", String::as_str);
            text.push_str(&if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") });
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, &width) in widths.iter().enumerate() {
                text.push_str(&if column == 0 {
                    format!("| {} ", "-".repeat(width.max(3)))
                } else {
                    format!("| {}: ", "-".repeat(width.max(3) - 1))
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

fn pair(spread: &Spread, digits: usize) -> String {
    format!("{:.digits$} / {:.digits$}", spread.least, spread.median)
}

fn ratio(ratio: Option<(f64, f64)>) -> String {
    ratio.map_or("-".to_owned(), |(least, median)| format!("{least:.2} / {median:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let first = replace_section("# Head\n", "a", "one");
        let second = replace_section(&first, "b", "two");
        let third = replace_section(&second, "a", "three\n");
        assert_eq!(
            third,
            "# Head\n\n<!-- begin a -->\nthree\n<!-- end a -->\n\n<!-- begin b -->\ntwo\n<!-- end b -->\n"
        );
    }

    #[test]
    fn tables_are_aligned_by_characters() {
        let lines = [vec!["µ".to_owned(), "x".to_owned()], vec!["long".to_owned(), "12.5".to_owned()]];
        assert_eq!(table(&lines), "| µ    |    x |\n| ---- | ---: |\n| long | 12.5 |\n");
    }
}
