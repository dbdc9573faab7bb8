//! Several runs in one table: median and range of each measure of each column.

use std::fmt::Write as _;

use serde::Serialize;

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

/// One run of one contender.
pub trait Run {
    /// The column of its contender.
    fn column(&self) -> String;

    /// Number of the round: runs of one round are neighbours in time, so what the machine was doing meanwhile cancels out in their
    /// ratio better than in the quotient of the medians.
    fn round(&self) -> u32;
}

/// A measure: its name with the unit, the decimals shown, and its figure of a run, beside the run of the reference of the same round.
pub type Measure<R> = (&'static str, usize, fn(&R, Option<&R>) -> Option<f64>);

/// Runs as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Contenders, in the order of their first runs.
    pub columns: Vec<String>,
    /// Measures.
    pub rows: Vec<Row>,
}

/// A measure that some run has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What is measured, with its unit.
    pub measure: &'static str,
    /// One for each column; none where nothing is known.
    pub cells: Vec<Option<Spread>>,
    #[serde(skip)]
    decimals: usize,
}

impl Table {
    /// The table of `runs`, of which those in the column `reference` are what others are compared with.
    #[must_use]
    pub fn of<R: Run>(runs: &[R], reference: &str, measures: &[Measure<R>]) -> Self {
        let mut columns: Vec<String> = Vec::new();
        for run in runs {
            if !columns.contains(&run.column()) {
                columns.push(run.column());
            }
        }
        let beside = |run: &R| runs.iter().find(|other| other.column() == reference && other.round() == run.round());
        let row = |(measure, decimals, of): &Measure<R>| {
            let cell = |column: &String| {
                let runs = runs.iter().filter(|run| run.column() == *column);
                Spread::of(runs.filter_map(|run| of(run, beside(run))))
            };
            Row { measure, cells: columns.iter().map(cell).collect(), decimals: *decimals }
        };
        let mut rows: Vec<Row> = measures.iter().map(row).collect();
        rows.retain(|row| row.cells.iter().any(Option::is_some));
        Self { columns, rows }
    }

    /// As text: a row a measure, a column a contender.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("{:<30}", "median (range)");
        for column in &self.columns {
            // Writing to a String cannot fail.
            let _ = write!(text, " {column:>27}");
        }
        for Row { measure, cells, decimals } in &self.rows {
            let _ = write!(text, "\n{measure:<30}");
            for cell in cells {
                let _ = write!(text, " {:>27}", cell.map_or_else(|| "–".to_owned(), |spread| spread.show(*decimals)));
            }
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Column, round, seconds, and processor time, if it is known.
    type Timed = (&'static str, u32, f64, Option<f64>);

    impl Run for Timed {
        fn column(&self) -> String {
            self.0.to_owned()
        }

        fn round(&self) -> u32 {
            self.1
        }
    }

    const MEASURES: [Measure<Timed>; 4] = [
        ("seconds", 1, |run, _| Some(run.2)),
        ("of the reference", 2, |run, reference| Some(run.2 / reference?.2)),
        ("CPU s", 1, |run, _| run.3),
        ("never known", 1, |_, _| None),
    ];

    #[test]
    fn median_and_range() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, low: 1.0, high: 9.0 }));
    }

    #[test]
    fn the_ratio_is_of_pairs_not_of_medians() {
        // The machine slows down fourfold in round 1; every pair says twice all the same.
        let rounds = [(0, 1.0), (1, 4.0), (2, 2.0)];
        let runs = rounds.map(|(n, s)| [("noop", n, s, None), ("target", n, 2.0 * s, None)]).concat();
        let table = Table::of(&runs, "noop", &MEASURES);
        assert_eq!(table.columns, ["noop", "target"]);
        assert_eq!(table.rows[0].cells[1], Some(Spread { median: 4.0, low: 2.0, high: 8.0 }));
        assert_eq!(table.rows[1].cells[1], Some(Spread { median: 2.0, low: 2.0, high: 2.0 }));
    }

    #[test]
    fn what_is_not_known_is_a_dash_or_no_row() {
        let runs = [("noop", 0, 1.0, Some(0.5)), ("target", 0, 3.0, None)];
        let text = Table::of(&runs, "", &MEASURES).render();
        let row = |measure: &str| text.lines().find(|line| line.starts_with(measure)).map(str::to_owned);
        assert!(row("CPU s").unwrap().ends_with('–') && row("seconds").unwrap().ends_with("3.0 (3.0–3.0)"), "{text}");
        assert_eq!((row("never known"), row("of the reference")), (None, None), "{text}");
    }
}
