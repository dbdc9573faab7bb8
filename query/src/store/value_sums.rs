//! Queries that add up values by name. Names of values below the threshold stay in ClickHouse.

use super::scope::Scope;
use crate::small_cells::Floor;
use schemas::classes::Dimension;
use storage::BREAKDOWNS;

/// Which values ClickHouse returns by name.
#[derive(Clone, Copy)]
pub(super) struct Threshold {
    floor: Floor,
    /// A constant value that is returned by name whatever its count.
    always: Option<&'static str>,
}

impl Threshold {
    /// The same threshold for all values.
    pub(super) fn all(floor: Floor) -> Self {
        Threshold { floor, always: None }
    }

    /// For referrers of missing pages: the project's own pages have no threshold.
    pub(super) fn of_referrers(floor: Floor) -> Self {
        Threshold { floor, always: Some(schemas::referrer::INTERNAL) }
    }

    /// For names of robots: rows without a name have no threshold.
    pub(super) fn of_robots(floor: Floor) -> Self {
        Threshold { floor, always: Some("") }
    }

    /// The condition on a value `of_name` with the count `sum`.
    pub(super) fn named(self, sum: &str) -> String {
        let always = self.always.map(|value| format!(" OR of_name = '{value}'")).unwrap_or_default();
        format!("{sum} >= {}{always}", self.floor.get())
    }
}

/// Rows of [`crate::report::facts::ValueSum`], at most `most`, of the one open `month` of `scope`: one for each value, without its name if
/// it is below the threshold. With few values this costs half of [`values`]. The columns are those of a row's name and of its value, from
/// `table`.
pub(super) fn values_one_by_one(
    scope: &Scope<'_>,
    month: u16,
    table: &str,
    columns: [&str; 2],
    threshold: Threshold,
    most: usize,
) -> String {
    one_by_one(scope, month, &format!("{table} FINAL"), columns, threshold, most)
}

/// The same rows of breakdowns.
pub(super) fn breakdowns_one_by_one(scope: &Scope<'_>, month: u16, threshold: Threshold, most: usize) -> String {
    one_by_one(scope, month, BREAKDOWNS, ["dimension", "value"], threshold, most)
}

fn one_by_one(
    scope: &Scope<'_>,
    month: u16,
    from: &str,
    columns: [&str; 2],
    threshold: Threshold,
    most: usize,
) -> String {
    let ([name, value], named, days) = (columns, threshold.named("total"), scope.days());
    format!(
        "SELECT toUInt16({month}) AS month, CAST(of_group AS String) AS name, if({named}, of_name, '') AS value, total, \
         toUInt64(NOT ({named})) AS beneath, total AS largest FROM (\
         SELECT {name} AS of_group, {value} AS of_name, sum(views) AS total FROM {from} {days} GROUP BY of_group, of_name \
         HAVING total > 0) LIMIT {most}"
    )
}

/// Rows of breakdowns with a month, a name, a value and views, for [`values`]: of one dimension, or of all.
pub(super) fn breakdowns(scope: &Scope<'_>, dimension: Option<Dimension>) -> String {
    // LowCardinality is stripped because a row's validation knows String only.
    const COLUMNS: &str = "CAST(dimension AS String) AS name, value, views";
    let more = dimension.map(|dimension| format!(" AND dimension = '{}'", dimension.name())).unwrap_or_default();
    let days = scope.days();
    let mut sql = format!("SELECT toUInt16(toStartOfMonth(day)) AS in_month, {COLUMNS} FROM {BREAKDOWNS} {days}{more}");
    if let Some(closed) = scope.closed_rows() {
        sql.push_str(&format!(
            " UNION ALL SELECT toUInt16(month) AS in_month, {COLUMNS} FROM month_closed_breakdown FINAL {closed}{more}"
        ));
    }
    sql
}

/// Rows of [`crate::report::facts::ValueSum`] from rows with a month, a name, a value and views. ClickHouse adds up values below the
/// threshold: there may be very many, and none of their figures is shown.
pub(super) fn values(rows: &str, threshold: Threshold) -> String {
    let named = threshold.named("sum_of_value");
    format!(
        "SELECT in_month AS month, name, if(told, of_name, '') AS value, sum(sum_of_value) AS total, \
         if(told, toUInt64(0), count()) AS beneath, max(sum_of_value) AS largest FROM (\
         SELECT in_month, name, of_name, sum(views) AS sum_of_value, ({named}) AS told FROM (\
         SELECT in_month, name, value AS of_name, views FROM ({rows})) GROUP BY in_month, name, of_name HAVING sum_of_value > 0) \
         GROUP BY in_month, name, told, value"
    )
}
