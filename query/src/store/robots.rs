//! Views by robots, in one query: names by kind, those of the month before, too, the pages that AI fetches most, and the versions of the rules.
//! The same query has the refused beacons and the pages that were reported as missing: a further query costs a report more than their rows.

use super::scope::{Scope, first_day};
use super::value_sums::Threshold;
use super::{Rejections, ReportStore, StoreError};
use crate::report::ReportedPage;
use crate::report::facts::ValueSum;
use crate::report::robots::{AI_PAGES, RobotFacts};
use crate::small_cells::Floor;
use schemas::caps::MORE_PATH;
use schemas::classes::RobotGroup;
use std::collections::BTreeMap;

const ROBOTS: [&str; 2] = ["robot_daily", "month_closed_robot"];
const ROBOT_PAGES: [&str; 2] = ["robot_page_daily", "month_closed_robot_page"];
const RULES: [&str; 2] = ["rules_daily", "month_closed_rules"];
const REPORTED: [&str; 2] = ["reported_missing_daily", "month_closed_reported_missing"];

/// Most pages in the list of those that were reported as missing.
const REPORTED_PAGES: usize = 100;

/// The subject of a row: the prefix of its [`ValueSum::name`].
const KIND: &str = "kind/";
const PAGE: &str = "page/";
const VERSION: &str = "rules/";
const REFUSED: &str = "refused/";
const MISSING: &str = "missing/";

/// What the query about robots returns.
pub(super) struct RobotsAndMore {
    pub(super) robots: RobotFacts,
    pub(super) rejections: Vec<Rejections>,
    pub(super) reported: Vec<ReportedPage>,
}

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

/// The versions of the rules, each with its first day in place of the month.
fn versions(scope: &Scope<'_>) -> String {
    let rows = scope.rows(["toUInt16(day) AS of_day, rules, views"; 2], RULES, "");
    format!(
        "SELECT min(of_day) AS month, '{VERSION}' AS name, toString(rules) AS value, sum(views) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY rules HAVING total > 0"
    )
}

/// The same months, for tables that may have rows where there are none of views.
fn without_views<'a>(scope: &Scope<'a>) -> Scope<'a> {
    Scope { late: None, ..scope.of(scope.periods.clone()) }
}

fn reported(scope: &Scope<'_>) -> String {
    let rows = without_views(scope).rows(["path, reports"; 2], REPORTED, "");
    format!(
        "SELECT toUInt16(0) AS month, '{MISSING}' AS name, path AS value, sum(reports) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY path ORDER BY total DESC, value LIMIT {REPORTED_PAGES}"
    )
}

/// Refused beacons by month, reason and host.
fn rejections(scope: &Scope<'_>) -> String {
    let columns = "CAST(reason AS String) AS of_reason, host, beacons";
    let rows = without_views(scope).open_rows(columns, "rejection_daily", "");
    format!(
        "SELECT in_month AS month, concat('{REFUSED}', of_reason) AS name, host AS value, sum(beacons) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY in_month, of_reason, host"
    )
}

impl ReportStore {
    /// All facts about robots, the refused beacons, and the pages that were reported as missing. `before`: the month before; none for a range.
    pub(super) async fn robots_and_rejections(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        floor: Floor,
    ) -> Result<RobotsAndMore, StoreError> {
        let months_before = before.map(|before| before.periods.as_slice()).unwrap_or_default();
        let with_before = scope.of(months_before.iter().chain(&scope.periods).copied().collect());
        let lists = [ai_pages(scope), reported(scope), versions(scope), rejections(scope)];
        let lists = lists.map(|list| format!("SELECT * FROM ({list})")).join(" UNION ALL ");
        let sql = format!("{} UNION ALL {lists}", names(&with_before, floor));
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&sql).fetch_all()).await?;
        let mut facts = RobotFacts { before: before.map(|_| BTreeMap::new()), ..RobotFacts::default() };
        let is_before = |month| months_before.iter().any(|period| first_day(period.month()) == month);
        let (mut rejections, mut reported) = (Vec::new(), Vec::new());
        for row in rows {
            if let Some(reason) = row.name.strip_prefix(REFUSED) {
                let reason = reason.to_owned();
                rejections.push(Rejections { month: row.month, reason, host: row.value, total: row.total });
            } else if let Some(kind) = row.name.strip_prefix(KIND) {
                match &mut facts.before {
                    Some(before) if is_before(row.month) => *before.entry(kind.to_owned()).or_default() += row.total,
                    _ => facts.sums.push(ValueSum { name: kind.to_owned(), ..row }),
                }
            } else if row.name == VERSION {
                facts.rules.extend(row.value.parse().ok().map(|version: u32| (version, row.month)));
            } else if row.name == MISSING {
                reported.push(ReportedPage { path: row.value, reports: row.total });
            } else {
                facts.ai_pages.push((row.value, row.total));
            }
        }
        facts.ai_pages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        reported.sort_by(|a: &ReportedPage, b| b.reports.cmp(&a.reports).then_with(|| a.path.cmp(&b.path)));
        Ok(RobotsAndMore { robots: facts, rejections, reported })
    }

    /// Names alone, for the list of the dimension `bot`.
    pub(super) async fn robot_names(&self, scope: &Scope<'_>, floor: Floor) -> Result<RobotFacts, StoreError> {
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&names(scope, floor)).fetch_all()).await?;
        let kind = |row: ValueSum| ValueSum { name: row.name.trim_start_matches(KIND).to_owned(), ..row };
        Ok(RobotFacts { sums: rows.into_iter().map(kind).collect(), ..RobotFacts::default() })
    }
}
