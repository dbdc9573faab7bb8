//! Views by robots, in one query: names by kind, those of the month before, too, and the pages that AI fetches most. The same query has the
//! refused beacons.

use super::scope::{Scope, first_day};
use super::value_sums::Threshold;
use super::{Rejections, ReportStore, StoreError};
use crate::report::facts::ValueSum;
use crate::report::robots::{AI_PAGES, RobotFacts};
use crate::small_cells::Floor;
use schemas::caps::MORE_PATH;
use schemas::classes::RobotGroup;
use std::collections::BTreeMap;

const ROBOTS: [&str; 2] = ["robot_daily", "month_closed_robot"];
const ROBOT_PAGES: [&str; 2] = ["robot_page_daily", "month_closed_robot_page"];

/// The subject of a row: the prefix of its [`ValueSum::name`].
const KIND: &str = "kind/";
const PAGE: &str = "page/";
const REFUSED: &str = "refused/";

/// Names by month and kind, each in its own row: there are no more than the table of robots has.
fn names(scope: &Scope<'_>, floor: Floor) -> String {
    // LowCardinality is stripped because a row's validation knows String only.
    let rows = scope.rows(["CAST(kind AS String) AS of_kind, name AS of_name, views"; 2], ROBOTS, "");
    let named = Threshold::of_robots(floor).named("total");
    format!(
        "SELECT in_month AS month, concat('{KIND}', of_kind) AS name, if({named}, of_name, '') AS value, sum(views) AS total, \
         toUInt64(NOT ({named})) AS beneath, total AS largest FROM ({rows}) GROUP BY in_month, of_kind, of_name HAVING total > 0"
    )
}

fn ai_pages(scope: &Scope<'_>) -> String {
    let groups =
        [RobotGroup::AiTraining, RobotGroup::AiAssistant].map(|group| format!("'{}'", group.name())).join(", ");
    let more = format!(" AND robot_group IN ({groups}) AND path != '{MORE_PATH}'");
    let rows = scope.rows(["path, views"; 2], ROBOT_PAGES, &more);
    format!(
        "SELECT toUInt16(0) AS month, '{PAGE}' AS name, path AS value, sum(views) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY path ORDER BY total DESC, value LIMIT {AI_PAGES}"
    )
}

/// Refused beacons by month, reason and host. They may have rows where there are none of views.
fn rejections(scope: &Scope<'_>) -> String {
    let rows = Scope { late: None, ..scope.of(scope.periods.clone()) }.open_rows(
        "CAST(reason AS String) AS of_reason, host, beacons",
        "rejection_daily",
        "",
    );
    format!(
        "SELECT in_month AS month, concat('{REFUSED}', of_reason) AS name, host AS value, sum(beacons) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY in_month, of_reason, host"
    )
}

impl ReportStore {
    /// All facts about robots, and the refused beacons. `before`: the month before; none for a range.
    pub(super) async fn robots_and_rejections(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        floor: Floor,
    ) -> Result<(RobotFacts, Vec<Rejections>), StoreError> {
        let months_before = before.map(|before| before.periods.as_slice()).unwrap_or_default();
        let with_before = scope.of(months_before.iter().chain(&scope.periods).copied().collect());
        let sql = format!(
            "{} UNION ALL SELECT * FROM ({}) UNION ALL {}",
            names(&with_before, floor),
            ai_pages(scope),
            rejections(scope)
        );
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&sql).fetch_all()).await?;
        let mut facts = RobotFacts { before: before.map(|_| BTreeMap::new()), ..RobotFacts::default() };
        let is_before = |month| months_before.iter().any(|period| first_day(period.month()) == month);
        let mut refused = Vec::new();
        for row in rows {
            if let Some(reason) = row.name.strip_prefix(REFUSED) {
                let reason = reason.to_owned();
                refused.push(Rejections { month: row.month, reason, host: row.value, total: row.total });
            } else if let Some(kind) = row.name.strip_prefix(KIND) {
                match &mut facts.before {
                    Some(before) if is_before(row.month) => *before.entry(kind.to_owned()).or_default() += row.total,
                    _ => facts.sums.push(ValueSum { name: kind.to_owned(), ..row }),
                }
            } else {
                facts.ai_pages.push((row.value, row.total));
            }
        }
        facts.ai_pages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok((facts, refused))
    }

    /// Names alone, for the list of the dimension `bot`.
    pub(super) async fn robot_names(&self, scope: &Scope<'_>, floor: Floor) -> Result<RobotFacts, StoreError> {
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&names(scope, floor)).fetch_all()).await?;
        let kind = |row: ValueSum| ValueSum { name: row.name.trim_start_matches(KIND).to_owned(), ..row };
        Ok(RobotFacts { sums: rows.into_iter().map(kind).collect(), ..RobotFacts::default() })
    }
}
