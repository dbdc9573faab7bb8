//! The contender of `compare` that keeps everything: a row a view in a plain ClickHouse table, and `uniq()` over them at each
//! question. No endpoint stands before it: rows are made here and inserted in batches, so its rate is none of acceptance.

use std::time::Instant;

use anyhow::{Context, ensure};
use clickhouse::{Client, Row};
use serde::Serialize;

use crate::kafka::database::Database;
use crate::month::beacons::Readers;
use crate::random::mix;
use crate::service::Service;

/// Rows of one insert.
const BATCH: usize = 50_000;
/// Where they go, in the service's own ClickHouse: both have the same server.
const DATABASE: &str = "headcount_loadtest_raw";

/// What the raw events are in.
const RAW_TABLE: &str = "CREATE TABLE IF NOT EXISTS raw_event (project String CODEC(ZSTD(1)), ts DateTime('UTC') CODEC(Delta, ZSTD(1)), \
    path String CODEC(ZSTD(1)), status UInt16 CODEC(ZSTD(1)), visitor UInt64) \
    ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (project, ts)";

/// One raw event.
#[derive(Debug, Clone, Row, Serialize)]
pub struct RawEvent {
    /// The project's name.
    pub project: String,
    /// Seconds since the epoch.
    pub ts: u32,
    /// The page's path.
    pub path: String,
    /// The page's HTTP status.
    pub status: u16,
    /// A hash of the visitor.
    pub visitor: u64,
}

/// Raw events on their way into the table, in batches.
pub struct RawEvents {
    client: Client,
    rows: Vec<RawEvent>,
}

impl RawEvents {
    /// Creates the table in `client`'s database.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn create(client: Client) -> anyhow::Result<Self> {
        client.query(RAW_TABLE).execute().await.context("making the table of raw events")?;
        Ok(Self { client, rows: Vec::new() })
    }

    /// Adds an event to the batch.
    pub fn push(&mut self, event: RawEvent) {
        self.rows.push(event);
    }

    /// Inserts the batch if it is large enough.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn write_if_full(&mut self) -> anyhow::Result<()> {
        if self.rows.len() < BATCH { Ok(()) } else { self.write().await }
    }

    /// Inserts what there is.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn write(&mut self) -> anyhow::Result<()> {
        let attempt = "inserting raw events";
        let mut insert = self.client.insert::<RawEvent>("raw_event").await.context(attempt)?;
        for row in self.rows.drain(..) {
            insert.write(&row).await.context(attempt)?;
        }
        insert.end().await.context(attempt)
    }
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Raw {
    /// Rows, one a view.
    pub views: u64,
    /// How long the inserts took.
    pub insert_seconds: f64,
    /// Bytes on disk, merged.
    pub bytes: u64,
    /// Bytes on disk of the service's tables for the same views, without its log.
    pub summary_bytes: u64,
    /// Milliseconds of the question for totals, days and pages.
    pub question_ms: Option<crate::table::Spread>,
}

/// The table, filled.
pub struct Filled {
    /// Where it is.
    pub database: Database,
    /// What filling it showed.
    pub raw: Raw,
}

/// Inserts the views that `runs` runs of `count` beacons each posted, as if they had come in this hour.
///
/// # Errors
/// When ClickHouse refuses, or has another number of rows then.
pub async fn fill(
    service: &Service,
    readers: &Readers,
    runs: u32,
    count: u32,
    hour: schemas::Hour,
) -> anyhow::Result<Filled> {
    let summary_bytes = service.database("headcount")?.held(&[]).await?.disk_bytes;
    let database = service.database(DATABASE)?;
    database.execute(&format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")).await?;
    let begun = Instant::now();
    let mut raw = RawEvents::create(database.client()).await?;
    for (run, k) in (0..runs).flat_map(|run| (0..count).map(move |k| (run, k))) {
        let (path, status, visitor) = readers.event(run, k);
        // At any second of the hour.
        let ts = hour.unix_seconds() + (mix(u64::from(run) << 32 | u64::from(k)) % 3_600) as u32;
        raw.push(RawEvent { project: readers.slug().to_owned(), ts, path, status, visitor });
        raw.write_if_full().await?;
    }
    raw.write().await?;
    let insert_seconds = begun.elapsed().as_secs_f64();
    database.execute(&format!("OPTIMIZE TABLE {DATABASE}.raw_event FINAL")).await?;
    let views = database.number(&format!("SELECT count() FROM {DATABASE}.raw_event")).await?;
    ensure!(views == u64::from(runs) * u64::from(count), "{views} raw events are there of {runs} × {count}");
    let bytes = database.held(&[]).await?.disk_bytes;
    Ok(Filled { database, raw: Raw { views, insert_seconds, bytes, summary_bytes, question_ms: None } })
}

impl Raw {
    /// As a line of the report.
    #[must_use]
    pub fn line(&self) -> String {
        let each = |bytes: u64| bytes as f64 / self.views.max(1) as f64;
        format!(
            "raw events in ClickHouse: {} rows inserted in batches, {:.0} a second, no endpoint before them; {:.1} bytes a view, where \
             headcount's tables have {:.1}; totals, days and pages with uniq() take {} ms",
            self.views,
            self.views as f64 / self.insert_seconds,
            each(self.bytes),
            each(self.summary_bytes),
            self.question_ms.map_or_else(|| "–".to_owned(), |spread| spread.show(1))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Spread;

    #[test]
    fn figures_are_of_one_view_each() {
        let question_ms = Spread::of([9.0, 12.0, 10.0]);
        let raw = Raw { views: 2_000, insert_seconds: 0.5, bytes: 30_000, summary_bytes: 90_000, question_ms };
        let line = raw.line();
        for part in ["4000 a second", "15.0 bytes a view", "tables have 45.0", "take 10.0 (9.0–12.0) ms"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
