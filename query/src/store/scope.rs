//! The rows of a report, as ClickHouse conditions. The parts that are inserted into a query cannot be anything else: a slug has only
//! letters, digits, hyphens, dots and underscores; the other parts are numbers and names from this program.

use crate::period::Period;
use crate::report::{MonthFacts, ReportFacts};
use schemas::close::Frontier;
use schemas::tables::MonthCloseRow;
use schemas::{Month, ProjectSlug};
use std::collections::BTreeMap;

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
}

impl Scope<'_> {
    /// The same project in other months.
    pub(super) fn of(&self, periods: Vec<Period>) -> Self {
        Scope { whose: self.whose.clone(), periods, range: self.range, closed: self.closed }
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

    /// The month, if it is a single one and not closed.
    pub(super) fn single_open(&self) -> Option<u16> {
        let [period] = self.periods.as_slice() else { return None };
        self.is_open().then(|| first_day(period.month()))
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

    /// Excludes rows that are in the figures of a closed month. `day` is an expression of the table's day.
    fn not_contained(&self, day: &str) -> String {
        let of_close = |(period, close): (Period, &MonthCloseRow)| {
            // The figures of a closed month contain all of it, however much of it has passed by this clock.
            let month = Period::whole(period.month());
            let (first, last) = (month.first_day().0, month.last_day().0);
            let contained = storage::contained(&Frontier::of(close));
            format!(" AND NOT ({day} BETWEEN toDate({first}) AND toDate({last}) AND {contained})")
        };
        self.closes().map(of_close).collect()
    }

    /// The rows of the months in a table by day, without those in the figures of a closed month. Months are read as whole partitions
    /// (`toYYYYMM(day)`): the running month has no later days yet, unless this clock is behind that of the endpoints. `day` comes after
    /// other columns in the keys; with a condition on it, ClickHouse would search the whole index instead of just the project.
    pub(super) fn days(&self) -> String {
        let name = |period: &Period| format!("'{}'", partition(period.month()));
        let partitions = self.periods.iter().map(name).collect::<Vec<_>>().join(", ");
        if partitions.is_empty() {
            return "WHERE 0".to_owned();
        }
        format!("WHERE {} AND _partition_id IN ({partitions}){}", self.whose, self.not_contained("day"))
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
        let pairs: Vec<String> =
            self.closes().map(|(_, close)| format!("(toDate({}), toUInt64({}))", close.month, close.run)).collect();
        let months: Vec<String> = self.closes().map(|(_, close)| format!("toDate({})", close.month)).collect();
        let (pairs, months) = (pairs.join(", "), months.join(", "));
        // A condition on the month alone, too: only the month is among the first columns of the key.
        (!pairs.is_empty())
            .then(|| format!("WHERE {} AND month IN ({months}) AND (month, run) IN ({pairs})", self.whose))
    }

    /// `columns` of a table by day and `closed_columns` of its closed counterpart, each row with its month. `more` is a further condition
    /// on both, which starts with ` AND`.
    pub(super) fn rows(&self, columns: [&str; 2], tables: [&str; 2], more: &str) -> String {
        let mut sql = format!(
            "SELECT toUInt16(toStartOfMonth(day)) AS in_month, {} FROM {} FINAL {}{more}",
            columns[0],
            tables[0],
            self.days()
        );
        if let Some(closed) = self.closed_rows() {
            sql.push_str(&format!(
                " UNION ALL SELECT toUInt16(month) AS in_month, {} FROM {} FINAL {closed}{more}",
                columns[1], tables[1]
            ));
        }
        sql
    }
}
