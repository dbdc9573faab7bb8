//! How long figures stay, and what becomes of a project that is erased.

use anyhow::Context;
use chrono::{DateTime, Utc};
use clickhouse::{Client, Row};
use schemas::ProjectSlug;
use serde::Deserialize;
use storage::Work;

/// Figures are deleted when so many months have passed since the end of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Months.
    pub months: u32,
}

/// Tables with figures, each with the day that a row is of.
const TIMED: [(&str, &str); 19] = [
    ("site_hourly", "toDate(hour)"),
    ("page_daily", "day"),
    ("breakdown_daily", "day"),
    ("not_found_daily", "day"),
    ("rejection_daily", "day"),
    ("robot_daily", "day"),
    ("robot_page_daily", "day"),
    ("month_closed", "month"),
    ("month_closed_page", "month"),
    ("month_closed_breakdown", "month"),
    ("month_closed_not_found", "month"),
    ("month_closed_robot", "month"),
    ("month_closed_robot_page", "month"),
    ("finished_day", "day"),
    ("finished_month", "month"),
    ("month_close", "month"),
    ("month_due", "month"),
    ("delivery", "month"),
    ("ledger", "toDate(appended)"),
];

/// Tables with a column `project`; of deliveries, since they name who got a report.
const OF_PROJECTS: [&str; 16] = [
    "site_hourly",
    "page_daily",
    "breakdown_daily",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
    "finished_day",
    "finished_month",
    "delivery",
];

#[derive(Row, Deserialize)]
struct Definition {
    name: String,
    definition: String,
}

/// Brings the tables' TTL to what is configured, and removes what came back of erased projects. Does nothing where nothing is to be done.
pub async fn keep(client: &Client, retention: Retention) -> anyhow::Result<()> {
    let sql = "SELECT name, create_table_query AS definition FROM system.tables WHERE database = currentDatabase()";
    let tables = client.query(sql).fetch_all::<Definition>().await.context("cannot ask for the tables")?;
    for (table, day) in TIMED {
        // A month is kept or deleted as a whole, counted from its end.
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
        // Written by us, but it goes into a condition.
        if let Ok(slug) = slug.parse::<ProjectSlug>() {
            remove(client, &slug).await?;
        }
    }
    Ok(())
}

/// Removes every row that is past its time at `now`, without waiting for the tables' TTL. Returns how many tables had some.
///
/// # Errors
/// ClickHouse refused or went away.
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
