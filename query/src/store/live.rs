//! Whether views arrive right now: two small sums, for the page of a project that waits for its first view.

use super::{ReportStore, StoreError};
use crate::report::DropCause;
use chrono::{DateTime, Utc};
use clickhouse::Row;
use schemas::{Hour, ProjectSlug};
use serde::{Deserialize, Serialize};

/// Recent views and refusals. Robots are not in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Live {
    /// Page views by people today (UTC).
    pub views_today: u64,
    /// Page views by people in the running hour and the one before.
    pub last_hour: u64,
    /// Beacons refused today, for any reason.
    pub refused_today: u64,
}

impl ReportStore {
    /// What has arrived for `project` up to `now`.
    pub async fn live(&self, project: &ProjectSlug, now: DateTime<Utc>) -> Result<Live, StoreError> {
        self.require_project(project).await?;
        let hour = Hour::of(now);
        let (today, before) = (hour.day().first_hour(), Hour(hour.0.saturating_sub(1)));
        // Views that were counted without a fact are not refused beacons.
        let [dropped, limited] = DropCause::ALL.map(DropCause::prefix);
        // The hour before may belong to yesterday.
        let sql = format!(
            "SELECT sumIf(views, hour >= toDateTime({{today:UInt32}}, 'UTC')) AS views_today, \
                   sumIf(views, hour >= toDateTime({{before:UInt32}}, 'UTC')) AS last_hour, \
                   ifNull((SELECT sum(beacons) FROM rejection_daily FINAL WHERE project = {{project:String}} AND day = toDate({{day:UInt16}}) \
                   AND NOT startsWith(reason, '{dropped}') AND NOT startsWith(reason, '{limited}')), 0) AS refused_today \
                   FROM site_hourly FINAL WHERE project = {{project:String}} AND hour >= toDateTime({{first:UInt32}}, 'UTC')"
        );
        let query = self.client.query(&sql);
        let query = query.param("today", today.unix_seconds()).param("before", before.unix_seconds());
        let query = query.param("project", project.as_str()).param("day", hour.day().0);
        let query = query.param("first", today.min(before).unix_seconds());
        self.within("what arrives now", query.fetch_one()).await
    }
}
