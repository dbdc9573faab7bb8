//! The figures as a table.

use crate::machine::Machine;
use crate::report::ask::Round;
use serde::Serialize;
use std::fmt::Write as _;

/// One line: who was asked, and how it went.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// `report`, the same with nothing kept from one to the next, or `uniq() over raw events`.
    pub asked: &'static str,
    /// `first touch`, `warm`, or `largest project`.
    pub state: &'static str,
    /// Clients at once.
    pub clients: u32,
    /// Figures.
    pub round: Round,
}

/// What tables hold.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// Rows of the summaries.
    pub summary_rows: u64,
    /// Their bytes on disk.
    pub summary_bytes: u64,
    /// Raw events.
    pub raw_rows: u64,
    /// Their bytes on disk.
    pub raw_bytes: u64,
}

/// A run in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// Where it was measured.
    pub machine: Machine,
    /// Projects.
    pub projects: u32,
    /// Page views of the month asked for.
    pub views: u64,
    /// Seconds that filling took; none where an earlier run had.
    pub fill_seconds: Option<f64>,
    /// What tables hold.
    pub stored: Stored,
    /// All rounds.
    pub lines: Vec<Line>,
}

/// The table as text.
#[must_use]
pub fn render(result: &Result) -> String {
    let mut text = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(text, "{} projects, {} page views in the month asked for", result.projects, result.views);
    let stored = &result.stored;
    let _ = writeln!(
        text,
        "summaries: {} rows, {:.0} MiB; raw events: {} rows, {:.0} MiB",
        stored.summary_rows,
        mib(stored.summary_bytes),
        stored.raw_rows,
        mib(stored.raw_bytes)
    );
    if !result.machine.optimised {
        let _ = writeln!(text, "this program was built without optimisation: the figures mean nothing");
    }
    let _ = writeln!(
        text,
        "\n{:<24} {:<16} {:>8} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "asked", "state", "clients", "count", "p50 ms", "p99 ms", "max ms", "a second"
    );
    for Line { asked, state, clients, round } in &result.lines {
        let Round { count, p50_ms, p99_ms, max_ms, per_second } = round;
        let _ = writeln!(
            text,
            "{asked:<24} {state:<16} {clients:>8} {count:>7} {p50_ms:>9.2} {p99_ms:>9.2} {max_ms:>9.2} {per_second:>9.1}"
        );
    }
    text.push_str("\nA report has pages, referrers, breakdowns and comparisons, too; the raw events answer totals, days and pages only.\n");
    text
}
