//! Several runs in one table: median and range of each side, and of the ratio of each pair.

use std::fmt::Write as _;

use serde::Serialize;

use crate::figures::{Figures, Side};

/// Median and range of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle number, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Spread {
    /// `None` of no numbers.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, low, high })
    }

    pub(crate) fn show(self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median, self.low, self.high)
    }
}

/// A table as text: a row for each measure (name, decimals, a cell for each column) that any column has.
#[must_use]
pub fn text<'a>(columns: &[String], rows: impl IntoIterator<Item = (&'a str, usize, Vec<Option<Spread>>)>) -> String {
    let mut text = format!("{:<30}", "median (range)");
    for column in columns {
        // Writing to a String cannot fail.
        let _ = write!(text, " {column:>27}");
    }
    for (measure, decimals, cells) in rows {
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "\n{measure:<30}");
        for cell in cells {
            let _ = write!(text, " {:>27}", cell.map_or_else(|| "–".to_owned(), |spread| spread.show(decimals)));
        }
    }
    text.push('\n');
    text
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is measured, with its unit.
    pub measure: &'static str,
    /// Of the reference.
    pub noop: Option<Spread>,
    /// Of the target.
    pub target: Option<Spread>,
    /// Target divided by noop, pair by pair: the two runs of a pair are neighbours in time, so what the machine was
    /// doing meanwhile cancels out better than in the quotient of the medians.
    pub ratio: Option<Spread>,
    #[serde(skip)]
    decimals: usize,
}

type Measure = (&'static str, usize, fn(&Figures) -> Option<f64>);

const MEASURES: [Measure; 8] = [
    ("requests/s", 0, |f| Some(f.requests_per_second)),
    ("p50 ms", 2, |f| f.latency_ms.map(|l| l.p50)),
    ("p90 ms", 2, |f| f.latency_ms.map(|l| l.p90)),
    ("p99 ms", 2, |f| f.latency_ms.map(|l| l.p99)),
    ("p99.9 ms", 2, |f| f.latency_ms.map(|l| l.p99_9)),
    ("max ms", 2, |f| f.latency_ms.map(|l| l.max)),
    ("server CPU s/1,000", 4, |f| f.cpu_seconds_per_1000.and_then(|c| c.server)),
    ("client CPU s/1,000", 4, |f| f.cpu_seconds_per_1000.and_then(|c| c.client)),
];

/// The lines of the table of `runs`.
#[must_use]
pub fn lines(runs: &[Figures]) -> Vec<Line> {
    let of = |side: Side| runs.iter().filter(move |f| f.side == side);
    MEASURES
        .iter()
        .map(|(measure, decimals, value)| Line {
            measure,
            noop: Spread::of(of(Side::Noop).filter_map(value)),
            target: Spread::of(of(Side::Target).filter_map(value)),
            ratio: Spread::of(of(Side::Target).filter_map(|target| {
                let noop = of(Side::Noop).find(|noop| noop.run == target.run)?;
                let (target, noop) = (value(target)?, value(noop)?);
                (noop > 0.0).then(|| target / noop)
            })),
            decimals: *decimals,
        })
        .collect()
}

/// The table as text. Columns of which nothing is known are left out.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    type Cell = fn(&Line) -> Option<String>;
    let columns: [(&str, Cell); 3] = [
        ("noop", |l| l.noop.map(|s| s.show(l.decimals))),
        ("target", |l| l.target.map(|s| s.show(l.decimals))),
        ("target/noop", |l| l.ratio.map(|s| s.show(2))),
    ];
    let shown: Vec<_> = columns.iter().filter(|(_, cell)| lines.iter().any(|l| cell(l).is_some())).collect();
    let mut text = format!("{:<20}", "median (range)");
    for (name, _) in &shown {
        let _ = write!(text, "  {name:>26}");
    }
    for line in lines {
        let _ = write!(text, "\n{:<20}", line.measure);
        for (_, cell) in &shown {
            let _ = write!(text, "  {:>26}", cell(line).unwrap_or_else(|| "–".to_owned()));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drive::Observed;

    fn run(side: Side, run: u32, seconds: u64) -> Figures {
        let observed = Observed {
            answers: vec![(1_000, 202); 1_000],
            due: 1_000,
            elapsed: Duration::from_secs(seconds),
            ..Default::default()
        };
        Figures::new(side, run, &observed, (side == Side::Noop).then_some(0.1), Some(0.2))
    }

    #[test]
    fn median_and_range() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, low: 1.0, high: 9.0 }));
    }

    #[test]
    fn the_ratio_is_of_pairs_not_of_medians() {
        // The machine slows down fourfold in pair 1; every pair says one half all the same.
        let runs = [(0, 1), (1, 4), (2, 2)].map(|(n, s)| [run(Side::Noop, n, s), run(Side::Target, n, 2 * s)]).concat();
        let throughput = &lines(&runs)[0];
        assert_eq!(throughput.ratio, Some(Spread { median: 0.5, low: 0.5, high: 0.5 }));
        assert_eq!(throughput.noop, Some(Spread { median: 500.0, low: 250.0, high: 1_000.0 }));
        assert_eq!(throughput.target, Some(Spread { median: 250.0, low: 125.0, high: 500.0 }));
    }

    #[test]
    fn what_is_not_known_is_a_dash_or_no_column() {
        let pair = [run(Side::Noop, 0, 1), run(Side::Target, 0, 1)];
        let text = render(&lines(&pair));
        let cpu = text.lines().find(|l| l.starts_with("server CPU")).unwrap();
        assert_eq!(cpu.split_whitespace().filter(|w| *w == "–").count(), 2, "{text}");
        let alone = render(&lines(&pair[1..]));
        assert!(alone.contains("target") && !alone.contains("noop"), "{alone}");
    }
}
