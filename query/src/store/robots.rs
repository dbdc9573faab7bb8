//! Views by robots, in one query: names by kind, the kinds of the month before, and the pages that AI fetches most.

use super::scope::Scope;
use super::value_sums::{Threshold, values};
use super::{ReportStore, StoreError};
use crate::report::facts::ValueSum;
use crate::report::robots::{AI_PAGES, RobotFacts};
use crate::small_cells::Floor;
use schemas::caps::MORE_PATH;
use schemas::classes::RobotGroup;
use std::collections::BTreeMap;

const ROBOTS: [&str; 2] = ["robot_daily", "month_closed_robot"];
const ROBOT_PAGES: [&str; 2] = ["robot_page_daily", "month_closed_robot_page"];

/// What a row is about: the beginning of its [`ValueSum::name`].
const KIND: &str = "kind/";
const BEFORE: &str = "before/";
const PAGE: &str = "page/";

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

/// Views by kind, whatever the month.
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

impl ReportStore {
    /// Everything about robots. `before`: the month before; none for a range.
    pub(super) async fn robots(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        floor: Floor,
    ) -> Result<RobotFacts, StoreError> {
        let mut sql = format!("{} UNION ALL SELECT * FROM ({})", names(scope, floor), ai_pages(scope));
        if let Some(before) = before.filter(|before| !before.is_empty()) {
            sql.push_str(&format!(" UNION ALL {}", kinds(before)));
        }
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&sql).fetch_all()).await?;
        let mut facts = RobotFacts { before: before.map(|_| BTreeMap::new()), ..RobotFacts::default() };
        for row in rows {
            if let Some(kind) = row.name.strip_prefix(KIND) {
                facts.sums.push(ValueSum { name: kind.to_owned(), ..row });
            } else if let (Some(kind), Some(before)) = (row.name.strip_prefix(BEFORE), &mut facts.before) {
                before.insert(kind.to_owned(), row.total);
            } else {
                facts.ai_pages.push((row.value, row.total));
            }
        }
        facts.ai_pages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(facts)
    }

    /// Names alone, for the list of the dimension `bot`.
    pub(super) async fn robot_names(&self, scope: &Scope<'_>, floor: Floor) -> Result<RobotFacts, StoreError> {
        let rows: Vec<ValueSum> = self.within("robots", self.client.query(&names(scope, floor)).fetch_all()).await?;
        let kind = |row: ValueSum| ValueSum { name: row.name.trim_start_matches(KIND).to_owned(), ..row };
        Ok(RobotFacts { sums: rows.into_iter().map(kind).collect(), ..RobotFacts::default() })
    }
}
