//! The rows of a report, as ClickHouse conditions. The parts that are inserted into a query cannot be anything else: a slug has only
//! letters, digits, hyphens, dots and underscores; the other parts are numbers and names from this program.

use crate::period::Period;
use crate::report::{MonthFacts, ReportFacts};
use schemas::close::Frontier;
use schemas::tables::MonthCloseRow;
use schemas::{Month, ProjectSlug};
use std::collections::{BTreeMap, BTreeSet};

/// A month's first day, as ClickHouse's `Date` counts.
pub(super) fn first_day(month: Month) -> u16 {
    month.first_hour().day().0
}

/// Name of a month's partition, in tables of open months.
pub(super) fn partition(month: Month) -> String {
    format!("{:04}{:02}", month.year(), month.number())
}

/// Rows of one project.
pub(super) fn of_project(project: &ProjectSlug) -> String {
    format!("project = '{project}'")
}

/// One project (or several, whose rows contain their names), some months, and the closes of those that are closed.
pub(super) struct Scope<'a> {
    /// A condition on the column `project`.
    pub(super) whose: String,
    pub(super) periods: Vec<Period>,
    /// Whether a range was requested, however many of its months have started.
    pub(super) range: bool,
    pub(super) closed: &'a BTreeMap<u16, MonthCloseRow>,
    /// The closed months with rows that are not in their figures; none if that is not known.
    pub(super) late: Option<BTreeSet<u16>>,
}

impl Scope<'_> {
    /// The same project in other months.
    pub(super) fn of(&self, periods: Vec<Period>) -> Self {
        Scope { whose: self.whose.clone(), periods, range: self.range, closed: self.closed, late: self.late.clone() }
    }

    /// The same months, of which only those in `late` have rows that are not in the figures of their close.
    pub(super) fn with_late(self, late: &BTreeSet<u16>) -> Self {
        Scope { late: Some(late.clone()), ..self }
    }

    pub(super) fn is_closed(&self, month: u16) -> bool {
        self.closed.contains_key(&month)
    }

    /// Whether none of the months is closed.
    pub(super) fn is_open(&self) -> bool {
        self.closes().next().is_none()
    }

    /// Whether it covers no months.
    pub(super) fn is_empty(&self) -> bool {
        self.periods.is_empty()
    }

    /// The month, if it is a single one.
    pub(super) fn single(&self) -> Option<u16> {
        let [period] = self.periods.as_slice() else { return None };
        Some(first_day(period.month()))
    }

    /// The month, if it is a single one and not closed.
    pub(super) fn single_open(&self) -> Option<u16> {
        self.single().filter(|_| self.is_open())
    }

    /// Marks in `facts` which months are closed.
    pub(super) fn close(&self, facts: &mut ReportFacts) {
        for month in facts.months.iter_mut().chain(facts.compared.iter_mut().flatten()) {
            if self.is_closed(first_day(month.period.month())) {
                MonthFacts::close(month);
            }
        }
    }

    /// The closed months with their closes.
    fn closes(&self) -> impl Iterator<Item = (Period, &MonthCloseRow)> {
        self.periods.iter().filter_map(|period| Some((*period, self.closed.get(&first_day(period.month()))?)))
    }

    /// The months that may have rows in the tables of open months.
    fn in_open_tables(&self) -> impl Iterator<Item = Period> {
        let may_have =
            |month: u16| !self.is_closed(month) || self.late.as_ref().is_none_or(|late| late.contains(&month));
        self.periods.iter().copied().filter(move |period| may_have(first_day(period.month())))
    }

    /// Condition on the partition of a table of open months; none if no month has rows there.
    fn partitions(&self) -> Option<String> {
        let names: Vec<String> =
            self.in_open_tables().map(|period| format!("'{}'", partition(period.month()))).collect();
        (!names.is_empty()).then(|| format!("_partition_id IN ({})", names.join(", ")))
    }

    /// Excludes rows that are in the figures of a closed month. `day` is an expression of the table's day.
    fn not_contained(&self, day: &str) -> String {
        let of_close = |(period, close): (Period, &MonthCloseRow)| {
            // The figures of a closed month contain all of it, however much of it has passed by this clock.
            let month = Period::whole(period.month());
            let (first, last) = (month.first_day().0, month.last_day().0);
            let contained = storage::contained(&Frontier::of(close));
            format!(" AND NOT ({day} BETWEEN toDate({first}) AND toDate({last}) AND {contained})")
        };
        let open: BTreeSet<u16> = self.in_open_tables().map(|period| first_day(period.month())).collect();
        self.closes().filter(|(_, close)| open.contains(&close.month)).map(of_close).collect()
    }

    /// The rows of the months in a table by day, without those in the figures of a closed month. Months are read as whole partitions
    /// (`toYYYYMM(day)`): the running month has no later days yet, unless this clock is behind that of the endpoints. `day` comes after
    /// other columns in the keys; with a condition on it, ClickHouse would search the whole index instead of just the project.
    pub(super) fn days(&self) -> String {
        match self.partitions() {
            Some(partitions) => format!("WHERE {} AND {partitions}{}", self.whose, self.not_contained("day")),
            None => "WHERE 0".to_owned(),
        }
    }

    /// All rows of the months in the table by hour, with those in the figures of a closed month and with those of hours that have not
    /// started. Conditions on the hour and the window would take half of the query's time; there are few such rows.
    pub(super) fn all_hours(&self) -> String {
        match self.partitions() {
            Some(partitions) => format!("WHERE {} AND {partitions}", self.whose),
            None => "WHERE 0".to_owned(),
        }
    }

    /// The rows of the months in the table by hour, up to the hours that have started.
    pub(super) fn hours(&self) -> String {
        let of_run = |(first, last): (Period, Period)| {
            let (first, end) = (first.first_hour().unix_seconds(), last.end_hour().unix_seconds());
            format!("(hour >= toDateTime({first}, 'UTC') AND hour < toDateTime({end}, 'UTC'))")
        };
        let hours = self.runs().map(of_run).collect::<Vec<_>>().join(" OR ");
        format!("WHERE {} AND ({hours}){}", self.whose, self.not_contained("toDate(hour, 'UTC')"))
    }

    /// Months without a gap between them, as (first, last): one range of a key is found faster than many.
    fn runs(&self) -> impl Iterator<Item = (Period, Period)> {
        let mut runs: Vec<(Period, Period)> = Vec::new();
        for &period in &self.periods {
            match runs.last_mut() {
                Some((_, last)) if last.end_hour() == period.first_hour() => *last = period,
                _ => runs.push((period, period)),
            }
        }
        runs.into_iter()
    }

    /// Condition on a table of closed months; none if no month is closed.
    pub(super) fn closed_rows(&self) -> Option<String> {
        let closes: Vec<_> = self.closes().map(|(_, close)| close).collect();
        let condition = match closes.as_slice() {
            [] => return None,
            [close] => format!("month = toDate({}) AND run = toUInt64({})", close.month, close.run),
            several => {
                let list = |item: fn(&MonthCloseRow) -> String| {
                    several.iter().map(|close| item(close)).collect::<Vec<_>>().join(", ")
                };
                let pairs = list(|close| format!("(toDate({}), toUInt64({}))", close.month, close.run));
                let months = list(|close| format!("toDate({})", close.month));
                // A condition on the month alone, too: only the month is among the first columns of the key.
                format!("month IN ({months}) AND (month, run) IN ({pairs})")
            }
        };
        Some(format!("WHERE {} AND {condition}", self.whose))
    }

    /// `columns` of a table by day and `closed_columns` of its closed counterpart, each row with its month. `more` is a further condition
    /// on both, which starts with ` AND`. A table that cannot have rows of these months is not queried.
    pub(super) fn rows(&self, columns: [&str; 2], tables: [&str; 2], more: &str) -> String {
        let closed = self.closed_rows().map(|condition| {
            let month = in_month(self.closes().map(|(period, _)| period), "month");
            format!("SELECT {month}, {} FROM {} FINAL {condition}{more}", columns[1], tables[1])
        });
        match closed {
            Some(closed) if self.partitions().is_none() => closed,
            Some(closed) => format!("{} UNION ALL {closed}", self.open_rows(columns[0], tables[0], more)),
            None => self.open_rows(columns[0], tables[0], more),
        }
    }

    /// The part of [`Scope::rows`] from the table of open months.
    pub(super) fn open_rows(&self, columns: &str, table: &str, more: &str) -> String {
        let month = in_month(self.in_open_tables(), "toStartOfMonth(day)");
        format!("SELECT {month}, {columns} FROM {table} FINAL {}{more}", self.days())
    }
}

/// The column `in_month`: a constant if there is only one month, else the expression `of_row`.
fn in_month(mut months: impl Iterator<Item = Period>, of_row: &str) -> String {
    match (months.next(), months.next()) {
        (Some(month), None) => format!("toUInt16({}) AS in_month", first_day(month.month())),
        _ => format!("toUInt16({of_row}) AS in_month"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables that [`Scope::rows`] queries, for a closed September and an open October of which `late` have late rows.
    fn queried(months: &[&str], late: Option<&[&str]>) -> Vec<&'static str> {
        let month = |name: &str| -> Month { name.parse().unwrap() };
        let september = first_day(month("2026-09"));
        let close = MonthCloseRow {
            month: september,
            run: 7,
            finished: 1,
            streams: vec![1],
            windows: vec![90],
            projects: 1,
            views: 1,
        };
        let scope = Scope {
            whose: of_project(&"docs".parse().unwrap()),
            periods: months.iter().map(|name| Period::whole(month(name))).collect(),
            range: false,
            closed: &BTreeMap::from([(september, close)]),
            late: late.map(|late| late.iter().map(|name| first_day(month(name))).collect()),
        };
        let sql = scope.rows(["views"; 2], ["open_table", "closed_table"], "");
        let found: Vec<_> = ["FROM open_table", "FROM closed_table", "'202609'", "window_start < "]
            .into_iter()
            .filter(|part| sql.contains(part))
            .collect();
        assert_eq!(sql.contains("'202610'"), months.contains(&"2026-10"), "{sql}");
        found
    }

    #[test]
    fn tables_without_rows_of_the_months_are_not_queried() {
        const OPEN: &str = "FROM open_table";
        const CLOSED: &str = "FROM closed_table";
        const LATE: [&str; 2] = ["'202609'", "window_start < "];
        let (closed, both) = (["2026-09"].as_slice(), ["2026-09", "2026-10"].as_slice());
        assert_eq!(queried(&["2026-10"], None), [OPEN]);
        assert_eq!(queried(closed, Some(&[])), [CLOSED]);
        assert_eq!(queried(both, Some(&[])), [OPEN, CLOSED]);
        assert_eq!(queried(closed, Some(closed)), [OPEN, CLOSED, LATE[0], LATE[1]]);
        // While it is not known whether a closed month has late rows, its partition is read.
        assert_eq!(queried(both, None), [OPEN, CLOSED, LATE[0], LATE[1]]);
        assert_eq!(queried(&[], Some(&[])), [OPEN]);
    }
}
