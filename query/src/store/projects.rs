//! The projects, with their views in this month and the last.

use super::scope::{Scope, first_day};
use super::{ReportStore, StoreError};
use crate::period::Period;
use clickhouse::Row;
use schemas::{Month, ProjectSlug};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Which projects a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visible {
    /// Every one.
    All,
    /// These only, as far as they exist.
    Only(Vec<ProjectSlug>),
}

/// One project in a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProjectViews {
    /// Its slug.
    #[schema(value_type = String)]
    pub project: ProjectSlug,
    /// Page views by people in the running month so far.
    pub views_this_month: u64,
    /// Page views by people in the month before.
    pub views_last_month: u64,
}

#[derive(Row, Deserialize)]
struct Views {
    name: String,
    month: u16,
    total: u64,
}

impl ReportStore {
    /// Up to `limit` projects after `after` whose names start with `prefix`, by name: registered projects, and projects with figures in the
    /// running month or the last. Removed and erased projects are not listed.
    pub async fn projects(
        &self,
        visible: &Visible,
        prefix: &str,
        running: Month,
        after: Option<&ProjectSlug>,
        limit: usize,
    ) -> Result<Vec<ProjectViews>, StoreError> {
        // A prefix that no slug can have is not sent, so that the query contains no other characters.
        let of_slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if !prefix.bytes().all(of_slug) {
            return Ok(Vec::new());
        }
        let months = [running.previous(), running];
        let (first, last) = (first_day(months[0]), first_day(running));
        let day_after = first_day(running.next());
        let of = |column: &str| {
            let beyond = after.map(|after| format!(" AND {column} > '{after}'")).unwrap_or_default();
            let among = match visible {
                Visible::All => String::new(),
                Visible::Only(slugs) => {
                    let slugs: Vec<String> = slugs.iter().map(|slug| format!("'{slug}'")).collect();
                    if slugs.is_empty() {
                        " AND 0".to_owned()
                    } else {
                        format!(" AND {column} IN ({})", slugs.join(", "))
                    }
                }
            };
            format!("{column} != '' AND startsWith({column}, '{prefix}'){beyond}{among}")
        };
        // Removed projects are excluded separately, since they may have figures.
        let sql = format!(
            "SELECT name FROM (\
             SELECT slug AS name FROM project FINAL WHERE removed = 0 AND {} \
             UNION DISTINCT SELECT project AS name FROM site_hourly WHERE {} \
             AND hour >= toDateTime(toDate({first}), 'UTC') AND hour < toDateTime(toDate({day_after}), 'UTC') \
             UNION DISTINCT SELECT project AS name FROM month_closed WHERE {} AND month IN (toDate({first}), toDate({last}))\
             ) WHERE name NOT IN (SELECT slug FROM project FINAL WHERE removed != 0) ORDER BY name LIMIT {limit}",
            of("slug"),
            of("project"),
            of("project")
        );
        let names = self.within("the projects", self.client.query(&sql).fetch_all::<String>()).await?;
        let slugs: Vec<ProjectSlug> = names.iter().filter_map(|name| name.parse().ok()).collect();
        if slugs.is_empty() {
            return Ok(Vec::new());
        }
        let mut views: BTreeMap<(String, u16), u64> = BTreeMap::new();
        for row in self.views_of(&slugs, months).await? {
            *views.entry((row.name, row.month)).or_default() += row.total;
        }
        let of = |slug: &ProjectSlug, month| views.get(&(slug.to_string(), month)).copied().unwrap_or(0);
        let listed = slugs.into_iter().map(|project| ProjectViews {
            views_this_month: of(&project, last),
            views_last_month: of(&project, first),
            project,
        });
        Ok(listed.collect())
    }

    async fn views_of(&self, slugs: &[ProjectSlug], months: [Month; 2]) -> Result<Vec<Views>, StoreError> {
        let closed = self.closed(&months.map(first_day)).await?;
        let periods = months.map(Period::whole).to_vec();
        let names = slugs.iter().map(|slug| format!("'{slug}'")).collect::<Vec<_>>().join(", ");
        let scope = Scope { whose: format!("project IN ({names})"), periods, range: true, closed: &closed, late: None };
        let mut sql = format!(
            "SELECT name, month, sum(views) AS total FROM (\
             SELECT project AS name, toUInt16(toStartOfMonth(toDate(hour, 'UTC'))) AS month, views FROM site_hourly FINAL {}",
            scope.hours()
        );
        if let Some(closed) = scope.closed_rows() {
            sql.push_str(&format!(
                " UNION ALL SELECT project AS name, toUInt16(month) AS month, arraySum(hour_views) AS views \
                 FROM month_closed FINAL {closed}"
            ));
        }
        sql.push_str(") GROUP BY name, month");
        self.within("views of the projects", self.client.query(&sql).fetch_all()).await
    }
}
