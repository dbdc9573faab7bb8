//! Views by robots, in one query: names by kind, the kinds of the month before, the pages that AI fetches most, and the versions of the rules. The
//! pages that were reported as missing come with the same query, since each further query costs a report more than a few rows do.

use super::scope::Scope;
use super::value_sums::{Threshold, values};
use super::{ReportStore, StoreError};
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
const BEFORE: &str = "before/";
const PAGE: &str = "page/";
const VERSION: &str = "rules/";
const MISSING: &str = "missing/";

/// Names by month and kind.
fn names(scope: &Scope<'_>, floor: Floor) -> String {
    // LowCardinality is stripped because a row's validation knows String only.
    let rows = scope.rows(["CAST(kind AS String) AS of_kind, name AS of_robot, views"; 2], ROBOTS, "");
    let rows = format!("SELECT in_month, of_kind AS name, of_robot AS value, views FROM ({rows})");
    let sums = values(&rows, Threshold::of_robots(floor));
    format!(
        "SELECT month, concat('{KIND}', of_kind) AS name, value, total, beneath, largest FROM (\
         SELECT month, name AS of_kind, value, total, beneath, largest FROM ({sums}))"
    )
}

/// Views by kind, over all months.
fn kinds(scope: &Scope<'_>) -> String {
    let rows = scope.rows(["CAST(kind AS String) AS of_kind, views"; 2], ROBOTS, "");
    format!(
        "SELECT toUInt16(0) AS month, concat('{BEFORE}', of_kind) AS name, '' AS value, sum(views) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY of_kind"
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

fn reported(scope: &Scope<'_>) -> String {
    let rows = scope.rows(["path, reports"; 2], REPORTED, "");
    format!(
        "SELECT toUInt16(0) AS month, '{MISSING}' AS name, path AS value, sum(reports) AS total, toUInt64(0) AS beneath, \
         toUInt64(0) AS largest FROM ({rows}) GROUP BY path ORDER BY total DESC, value LIMIT {REPORTED_PAGES}"
    )
}

impl ReportStore {
    /// All facts about robots, and the pages that were reported as missing. `before`: the month before; none for a range.
    pub(super) async fn robots(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        floor: Floor,
    ) -> Result<(RobotFacts, Vec<ReportedPage>), StoreError> {
        let (names, lists) = (names(scope, floor), [ai_pages(scope), versions(scope), reported(scope)]);
        let lists = lists.map(|list| format!("SELECT * FROM ({list})"));
        let mut sql = format!("{names} UNION ALL {}", lists.join(" UNION ALL "));
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            sql.push_str(&format!(" UNION ALL {}", kinds(before)));
        }
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&sql).fetch_all()).await?;
        let mut facts = RobotFacts { before: before.map(|_| BTreeMap::new()), ..RobotFacts::default() };
        let mut reported = Vec::new();
        for row in rows {
            if let Some(kind) = row.name.strip_prefix(KIND) {
                facts.sums.push(ValueSum { name: kind.to_owned(), ..row });
            } else if let (Some(kind), Some(before)) = (row.name.strip_prefix(BEFORE), &mut facts.before) {
                before.insert(kind.to_owned(), row.total);
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
        Ok((facts, reported))
    }

    /// Names alone, for the list of the dimension `bot`.
    pub(super) async fn robot_names(&self, scope: &Scope<'_>, floor: Floor) -> Result<RobotFacts, StoreError> {
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&names(scope, floor)).fetch_all()).await?;
        let kind = |row: ValueSum| ValueSum { name: row.name.trim_start_matches(KIND).to_owned(), ..row };
        Ok(RobotFacts { sums: rows.into_iter().map(kind).collect(), ..RobotFacts::default() })
    }
}
