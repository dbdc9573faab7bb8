//! How long figures are stored, and how an erased project is removed.

use anyhow::Context;
use chrono::{DateTime, Utc};
use clickhouse::{Client, Row};
use schemas::ProjectSlug;
use serde::Deserialize;
use storage::Work;

/// Figures are deleted this many months after the end of their month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Months.
    pub months: u32,
}

/// Tables with figures, each with the day that a row belongs to.
const TIMED: [(&str, &str); 25] = [
    ("site_hourly", "toDate(hour)"),
    ("page_daily", "day"),
    ("breakdown_window", "day"),
    ("not_found_daily", "day"),
    ("rejection_daily", "day"),
    ("robot_daily", "day"),
    ("robot_page_daily", "day"),
    ("rules_daily", "day"),
    ("reported_missing_daily", "day"),
    ("month_closed", "month"),
    ("month_closed_page", "month"),
    ("month_closed_breakdown", "month"),
    ("month_closed_not_found", "month"),
    ("month_closed_robot", "month"),
    ("month_closed_robot_page", "month"),
    ("month_closed_rules", "month"),
    ("month_closed_reported_missing", "month"),
    ("finished_day", "day"),
    ("finished_month", "month"),
    ("month_close", "month"),
    ("month_due", "month"),
    ("delivery", "month"),
    ("ledger", "toDate(appended)"),
    ("import_month", "month"),
    // Lines of files that were imported so long ago are refused by their time.
    ("import", "toDate(finished)"),
];

/// Tables with a column `project`. Deliveries are among them, since they name the recipients of reports.
const OF_PROJECTS: [&str; 21] = [
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "reported_missing_daily",
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
    "month_closed_rules",
    "month_closed_reported_missing",
    "finished_day",
    "finished_month",
    "delivery",
    "import_month",
];

#[derive(Row, Deserialize)]
struct Definition {
    name: String,
    definition: String,
}

/// Changes the tables' TTL to the configured one, and removes rows of erased projects that came back. Does nothing if neither is needed.
pub async fn keep(client: &Client, retention: Retention) -> anyhow::Result<()> {
    let sql = "SELECT name, create_table_query AS definition FROM system.tables WHERE database = currentDatabase()";
    let tables = client.query(sql).fetch_all::<Definition>().await.context("cannot ask for the tables")?;
    for (table, day) in TIMED {
        // A month is retained or deleted as a whole, counted from its end.
        let ttl = format!("toStartOfMonth({day}) + toIntervalMonth({})", retention.months + 1);
        let in_force = tables
            .iter()
            .find(|found| found.name == table)
            .is_some_and(|found| found.definition.contains(&format!("TTL {ttl}")));
        if !in_force {
            let sql = format!("ALTER TABLE {table} MODIFY TTL {ttl}");
            client
                .query(&sql)
                .execute()
                .await
                .with_context(|| format!("cannot set how long {table} keeps its rows"))?;
        }
    }
    let sql = "SELECT slug FROM project FINAL WHERE removed = 2";
    for slug in client.query(sql).fetch_all::<String>().await.context("cannot read which projects were erased")? {
        // Written by headcount, but parsed again because it becomes part of a condition.
        if let Ok(slug) = slug.parse::<ProjectSlug>() {
            remove(client, &slug).await?;
        }
    }
    Ok(())
}

/// Removes every row that has expired at `now`, without waiting for the tables' TTL. Returns how many tables had some.
///
/// # Errors
/// ClickHouse refused, or is unavailable.
pub async fn remove_expired(client: &Client, retention: Retention, now: DateTime<Utc>) -> anyhow::Result<usize> {
    let client = Work::Maintenance.client(client.clone());
    let (today, mut tables) = (now.date_naive(), 0);
    for (table, day) in TIMED {
        let expired = format!("toStartOfMonth({day}) + toIntervalMonth({}) <= toDate('{today}')", retention.months + 1);
        let found = client.query(&format!("SELECT 1 FROM {table} WHERE {expired} LIMIT 1")).fetch_optional::<u8>();
        if found.await.with_context(|| format!("cannot look for rows past their time in {table}"))?.is_some() {
            let sql = format!("ALTER TABLE {table} DELETE WHERE {expired}");
            client.query(&sql).execute().await.with_context(|| format!("cannot remove rows from {table}"))?;
            tables += 1;
        }
    }
    Ok(tables)
}

/// Removes every row of a project. Returns how many tables had some.
pub async fn remove(client: &Client, slug: &ProjectSlug) -> anyhow::Result<usize> {
    let client = Work::Maintenance.client(client.clone());
    let mut tables = 0;
    for table in OF_PROJECTS {
        let found = format!("SELECT 1 FROM {table} WHERE project = '{slug}' LIMIT 1");
        let found = client.query(&found).fetch_optional::<u8>().await;
        if found.with_context(|| format!("cannot look for {slug} in {table}"))?.is_some() {
            let sql = format!("ALTER TABLE {table} DELETE WHERE project = '{slug}'");
            client.query(&sql).execute().await.with_context(|| format!("cannot remove {slug} from {table}"))?;
            tables += 1;
        }
    }
    Ok(tables)
}
