//! The figures as tables.

use std::fmt::Write as _;

use serde::Serialize;

use super::ask::Round;
use super::fill::Stored;
use super::load::UnderLoad;
use crate::machine::Machine;
use crate::month::text::grouped;

/// Goals for the p99 of uncached reports, in milliseconds: while beacons arrive, and in a catch-up.
const GOALS_MS: [f64; 2] = [100.0, 250.0];

/// A run in numbers.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The machine of the measurement.
    pub machine: Machine,
    /// Projects.
    pub projects: u32,
    /// Page views of the month that was requested.
    pub views: u64,
    /// Seconds that filling took.
    pub fill_seconds: f64,
    /// The content of the tables.
    pub stored: Stored,
    /// Rounds at rest.
    pub lines: Vec<Round>,
    /// SELECTs of a computed report, at rest.
    pub selects_each: Option<f64>,
    /// Computed reports a second, at most, at rest.
    pub saturated: Option<f64>,
    /// Beacons a second under load.
    pub beacons: u32,
    /// Records of the backlog.
    pub backlog: u32,
    /// Reports while beacons arrive.
    pub steady: UnderLoad,
    /// Reports while beacons arrive and a backlog is folded.
    pub catch_up: UnderLoad,
}

/// The tables as text.
#[must_use]
pub fn render(figures: &Figures) -> String {
    let mut text = format!("{}\n", figures.machine.line());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let Figures { stored, .. } = figures;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} projects, {} page views in the month requested; summaries: {} rows, {:.0} MiB; raw events: {} rows, {:.0} MiB",
        grouped(figures.projects.into()),
        grouped(figures.views),
        grouped(stored.summary_rows),
        mib(stored.summary_bytes),
        grouped(stored.raw_rows),
        mib(stored.raw_bytes)
    );
    if !figures.lines.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<24} {:<16} {:>7} {:>9} {:>9} {:>9} {:>9}",
            "at rest", "state", "count", "p50 ms", "p99 ms", "max ms", "a second"
        );
    }
    for Round { side, state, count, latency_ms, per_second } in &figures.lines {
        let [p50, p99, max] = latency_ms.map_or([f64::NAN; 3], |l| [l.p50, l.p99, l.max]);
        let _ = writeln!(text, "{side:<24} {state:<16} {count:>7} {p50:>9.2} {p99:>9.2} {max:>9.2} {per_second:>9.1}");
    }
    if let Some(selects) = figures.selects_each {
        let _ = writeln!(
            text,
            "A computed report takes {selects:.1} SELECTs. It has pages, referrers, breakdowns and comparisons, too; the raw events answer \
             totals, days and pages only."
        );
    }
    if let Some(most) = figures.saturated {
        let _ = writeln!(
            text,
            "At rest this machine computes at most {most:.1} reports a second (two clients). Latency under load is of {} a second.",
            figures.steady.reports.rate
        );
    }
    let catch_up = format!("catch-up of {} records", grouped(figures.backlog.into()));
    let _ = writeln!(
        text,
        "\n{:<30} {:>7} {:>8} {:>7} {:>6} {:>9} {:>9} {:>9} {:>8}",
        "reports under load", "s", "reports", "misses", "hits", "p50 ms", "p99 ms", "max ms", "goal p99"
    );
    let steady = format!("{} beacons a second", grouped(figures.beacons.into()));
    for ((name, load), goal) in [(steady, &figures.steady), (catch_up, &figures.catch_up)].into_iter().zip(GOALS_MS) {
        let reports = &load.reports;
        let [p50, p99, max] = reports.latency_ms.map_or([f64::NAN; 3], |l| [l.p50, l.p99, l.max]);
        let _ = writeln!(
            text,
            "{name:<30} {:>7.1} {:>8} {:>7} {:>6} {p50:>9.1} {p99:>9.1} {max:>9.1} {goal:>8.0}",
            load.seconds, reports.reports, reports.misses, reports.hits
        );
    }
    for load in [&figures.steady, &figures.catch_up] {
        let _ = writeln!(
            text,
            "  {:.0} of {} beacons a second were accepted, p99 {:.1} ms; {} records a second were folded and written",
            load.posted.accepted() as f64 / load.seconds,
            figures.beacons,
            load.posted.latency_ms.map_or(f64::NAN, |latency| latency.p99),
            grouped((load.counted as f64 / load.seconds) as u64)
        );
    }
    text.push_str(
        "The report of each project is requested once, so the cache has none of them; in the catch-up after a restart. Latency is from when a \
         report was due. Beacons come in the catch-up, too. Client and service share this machine's processors.\n",
    );
    text
}
