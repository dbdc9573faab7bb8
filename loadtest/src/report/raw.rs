//! Raw events, which `report` compares with: a row a view in a plain ClickHouse table, inserted in batches, and `uniq()` over them at
//! each question.

use anyhow::Context;
use clickhouse::{Client, Row};
use serde::Serialize;

/// Rows of one insert.
const BATCH: usize = 50_000;
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
