//! Compares the views for SQL with the reports of the projects.

use anyhow::{Context, Result, ensure};
use clickhouse::Row;
use harness::roles::Deployment;
use serde::Deserialize;
use serde_json::Value;

/// A row of `daily_traffic` or `monthly_traffic`.
#[derive(Debug, PartialEq, Row, Deserialize)]
struct Traffic {
    views: u64,
    visits: u64,
    bots: Option<u64>,
    visitors: Option<u64>,
    error: Option<f64>,
    late: u64,
    closed: u8,
}

/// The views for SQL match the reports, for the month and for each of its days.
pub async fn sql_says_the_same(
    deployment: &Deployment,
    projects: &[&str],
    month: &str,
    reports: &[Value],
) -> Result<()> {
    let client = deployment.client();
    let columns = "views, visits, toNullable(bots) AS bots, visitors, visitors_error AS error";
    for (project, report) in projects.iter().zip(reports) {
        let closed = u8::from(report["period"]["closed"] == true);
        let totals = &report["totals"];
        let sql = format!(
            "SELECT {columns}, late_views AS late, closed FROM monthly_traffic WHERE project = ? AND month = '{month}-01'"
        );
        let found: Traffic = client.query(&sql).bind(*project).fetch_one().await?;
        let expected = Traffic {
            views: totals["views"].as_u64().context("views")?,
            visits: totals["visits"].as_u64().context("visits")?,
            bots: totals["bots"].as_object().map(|bots| bots.values().filter_map(Value::as_u64).sum()),
            visitors: totals["visitors"]["estimate"].as_u64(),
            error: totals["visitors"]["error"].as_f64(),
            late: totals["late_views"].as_u64().unwrap_or(0),
            closed,
        };
        ensure!(found == expected, "{project}: SQL says {found:?}, the report {expected:?}");
        let sql = format!(
            "SELECT {columns}, toUInt64(0) AS late, closed FROM daily_traffic \
             WHERE project = ? AND toStartOfMonth(day) = '{month}-01' ORDER BY day"
        );
        let found: Vec<Traffic> = client.query(&sql).bind(*project).fetch_all().await?;
        let days = report["days"].as_array().context("days")?;
        ensure!(found.len() == days.len(), "{project}: {} days of {}", found.len(), days.len());
        for (row, day) in found.iter().zip(days) {
            let same = (Some(row.views), Some(row.visits)) == (day["views"].as_u64(), day["visits"].as_u64())
                && row.visitors == day["visitors"]["estimate"].as_u64()
                && row.error == day["visitors"]["error"].as_f64()
                && row.closed == closed;
            ensure!(same, "{project}: SQL says {row:?}, the report {day}");
        }
        let bots: Option<u64> = found.iter().map(|row| row.bots).sum();
        ensure!(bots == expected.bots && bots > Some(0), "{project}: {bots:?} views by bots on days, {expected:?}");
    }
    Ok(())
}

/// The engine accepts the examples of `docs/sql.md` unchanged, and the first one returns the project's days.
pub async fn examples_run(deployment: &Deployment, project: &str) -> Result<()> {
    let text = include_str!("../../docs/sql.md");
    let examples: Vec<&str> = text.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let (asking, others): (Vec<&str>, Vec<&str>) = examples.iter().partition(|sql| sql.starts_with("SELECT"));
    ensure!(asking.len() == 3 && others.len() == 1, "{} examples", examples.len());
    for (number, sql) in asking.into_iter().enumerate() {
        let sql = sql
            .replace("headcount.", &format!("{}.", deployment.database))
            .replace("$project", project)
            .replace("$__fromTime", "'2026-09-01'")
            .replace("$__toTime", "'2026-09-30'");
        let counted = format!("SELECT count() FROM ({sql})");
        let rows: u64 = deployment.client().query(&counted).fetch_one().await.with_context(|| sql.clone())?;
        ensure!(number != 0 || rows == 30, "{rows} rows of\n{sql}");
    }
    Ok(())
}
