//! From runs to rows: least and median of the rounds, and the ratios between gateways.

use serde_json::{Value, json};

use super::cell::{Cell, Load};
use super::gateway::Kind;
use super::measure::Run;

/// What the rounds of one cell on one gateway came to.
pub(super) struct Figures {
    /// CPU time per request in µs.
    pub(super) cpu_us: Spread,
    /// Answers per second.
    pub(super) per_second: Spread,
    /// Median latency in ms.
    pub(super) p50_ms: Option<Spread>,
    /// 99th percentile in ms.
    pub(super) p99_ms: Option<Spread>,
    /// Most resident memory right after a run, MiB.
    pub(super) memory_mib: f64,
    /// Share of the core that others took, over the rounds.
    pub(super) foreign: Spread,
    /// Rounds that counted.
    pub(super) counted: usize,
}

/// Least, median and largest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The undisturbed figure, if any round was undisturbed.
    pub(super) least: f64,
    /// The figure to quote.
    pub(super) median: f64,
    /// The worst round.
    pub(super) most: f64,
}

impl Spread {
    /// Of any number of values; `None` of none.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            (values.get(middle - 1)? + values.get(middle)?) / 2.0
        };
        Some(Spread { least, median, most })
    }
}

/// A cell's figures by gateway, in the gateways' order. `None`: no round counted.
pub(super) struct Row<'a> {
    /// The cell.
    pub(super) cell: &'a Cell,
    /// One a gateway.
    pub(super) figures: Vec<(Kind, Option<Figures>)>,
}

impl Row<'_> {
    /// Figures of one gateway.
    pub(super) fn of(&self, kind: Kind) -> Option<&Figures> {
        self.figures.iter().find(|(its, _)| *its == kind)?.1.as_ref()
    }

    /// CPU per request of `subject` as a share of `peer`'s: of the least and of the medians.
    pub(super) fn ratio(&self, subject: Kind, peer: Kind) -> Option<(f64, f64)> {
        let (subject, peer) = (self.of(subject)?.cpu_us, self.of(peer)?.cpu_us);
        Some((subject.least / peer.least, subject.median / peer.median))
    }

    /// 99th percentile of `subject` as a share of `peer`'s, of the medians. Only at a fixed rate: elsewhere it follows from the CPU.
    pub(super) fn p99_ratio(&self, subject: Kind, peer: Kind) -> Option<f64> {
        if self.cell.load != Load::FixedRate {
            return None;
        }
        Some(self.of(subject)?.p99_ms?.median / self.of(peer)?.p99_ms?.median)
    }
}

/// Sorts the runs into rows.
pub(super) fn rows<'a>(cells: &[&'a Cell], kinds: &[Kind], runs: &[Run]) -> Vec<Row<'a>> {
    let row = |(index, cell): (usize, &&'a Cell)| Row {
        cell,
        figures: kinds
            .iter()
            .map(|&kind| (kind, figures(runs.iter().filter(|run| run.cell == index && run.kind == kind))))
            .collect(),
    };
    cells.iter().enumerate().map(row).collect()
}

fn figures<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<Figures> {
    let good: Vec<&Run> = runs.filter(|run| run.invalid.is_none()).collect();
    let spread = |value: fn(&Run) -> f64| Spread::of(good.iter().map(|run| value(run)).collect());
    let optional = |value: fn(&Run) -> Option<f64>| Spread::of(good.iter().filter_map(|run| value(run)).collect());
    Some(Figures {
        cpu_us: spread(|run| run.cpu_us)?,
        per_second: spread(|run| run.per_second)?,
        p50_ms: optional(|run| run.p50_ms),
        p99_ms: optional(|run| run.p99_ms),
        memory_mib: spread(|run| run.memory_mib)?.most,
        foreign: spread(|run| run.foreign)?,
        counted: good.len(),
    })
}

/// Geometric mean of the ratios of the small saturated cells (of the least, of the medians). `None` unless all of those measured have one.
pub(super) fn mean_ratio(rows: &[Row], subject: Kind, peer: Kind) -> Option<(f64, f64)> {
    let ratios: Vec<(f64, f64)> =
        rows.iter().filter(|row| row.cell.small()).map(|row| row.ratio(subject, peer)).collect::<Option<_>>()?;
    if ratios.is_empty() {
        return None;
    }
    let mean = |value: fn(&(f64, f64)) -> f64| {
        (ratios.iter().map(|ratio| value(ratio).ln()).sum::<f64>() / ratios.len() as f64).exp()
    };
    Some((mean(|ratio| ratio.0), mean(|ratio| ratio.1)))
}

/// All figures and every run, for other programs.
pub(super) fn json(rows: &[Row], runs: &[Run], subject: Option<Kind>) -> Value {
    let spread = |spread: &Spread| json!({ "least": spread.least, "median": spread.median, "most": spread.most });
    let cells: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let mut gateways = serde_json::Map::new();
            for (kind, figures) in &row.figures {
                let its = runs.iter().filter(|run| run.cell == index && run.kind == *kind);
                let invalid: Vec<&str> = its.filter_map(|run| run.invalid.as_deref()).collect();
                let mut value = json!({ "not_counted": invalid });
                if let Some(figures) = figures {
                    value["cpu_us_per_request"] = spread(&figures.cpu_us);
                    value["requests_per_second"] = spread(&figures.per_second);
                    value["p50_ms"] = figures.p50_ms.as_ref().map(spread).into();
                    value["p99_ms"] = figures.p99_ms.as_ref().map(spread).into();
                    value["memory_mib"] = figures.memory_mib.into();
                    value["foreign_load"] = spread(&figures.foreign);
                    value["rounds"] = figures.counted.into();
                }
                if let Some((least, median)) =
                    subject.filter(|subject| subject != kind).and_then(|subject| row.ratio(subject, *kind))
                {
                    value["subject_ratio"] = json!({ "least": least, "median": median });
                }
                if let Some(ratio) =
                    subject.filter(|subject| subject != kind).and_then(|subject| row.p99_ratio(subject, *kind))
                {
                    value["subject_p99_ratio"] = ratio.into();
                }
                gateways.insert(kind.name().to_owned(), value);
            }
            json!({ "cell": row.cell.name, "title": row.cell.title, "small": row.cell.small(), "gateways": gateways })
        })
        .collect();
    let mut means = serde_json::Map::new();
    for kind in rows.first().into_iter().flat_map(|row| row.figures.iter().map(|(kind, _)| *kind)) {
        if let Some((least, median)) =
            subject.filter(|subject| *subject != kind).and_then(|subject| mean_ratio(rows, subject, kind))
        {
            means.insert(kind.name().to_owned(), json!({ "least": least, "median": median }));
        }
    }
    json!({ "cells": cells, "subject": subject.map(Kind::name), "small_cells_mean_ratio": means })
}

#[cfg(test)]
mod tests {
    use super::super::cell::CELLS;
    use super::*;

    fn run(cell: usize, kind: Kind, cpu_us: f64, invalid: Option<&str>) -> Run {
        Run {
            cell,
            kind,
            cpu_us,
            per_second: 1.0,
            p50_ms: None,
            p99_ms: None,
            memory_mib: 1.0,
            foreign: 0.0,
            invalid: invalid.map(str::to_owned),
        }
    }

    #[test]
    fn least_and_median_of_any_number() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0]), Some(Spread { least: 1.0, median: 2.0, most: 3.0 }));
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.5]), Some(Spread { least: 1.0, median: 2.5, most: 3.0 }));
    }

    #[test]
    fn failed_runs_do_not_count_and_ratios_compare_like_with_like() {
        let cells = [&CELLS[0], &CELLS[1]];
        let runs = [
            run(0, Kind::Nginx, 20.0, None),
            run(0, Kind::Nginx, 1.0, Some("errors")),
            run(0, Kind::Palisade, 10.0, None),
            run(1, Kind::Nginx, 10.0, None),
            run(1, Kind::Palisade, 20.0, None),
        ];
        let rows = rows(&cells, &[Kind::Palisade, Kind::Nginx], &runs);
        assert_eq!(rows[0].of(Kind::Nginx).unwrap().cpu_us.least, 20.0);
        assert_eq!(rows[0].ratio(Kind::Palisade, Kind::Nginx), Some((0.5, 0.5)));
        let (mean, _) = mean_ratio(&rows, Kind::Palisade, Kind::Nginx).unwrap();
        assert!((mean - 1.0).abs() < 1e-9);
        assert!(mean_ratio(&rows, Kind::Palisade, Kind::Haproxy).is_none());
    }
}
