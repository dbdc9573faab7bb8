//! Which stream a partition is: the table `stream`.

use crate::store::StoreError;
use clickhouse::{Client, Row};
use schemas::StreamId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A row of the table `stream`.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct StreamRow {
    /// The stream.
    pub stream: u64,
    /// Kafka's id of the cluster.
    pub cluster: String,
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// When it was first met, in seconds since the epoch.
    pub born: u32,
}

/// The table of streams.
#[derive(Clone)]
pub struct Streams {
    client: Client,
    timeout: Duration,
}

impl Streams {
    /// `client` has URL, database and credentials; each call may take `timeout`.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Streams { client: client.with_setting("async_insert", "0").with_setting("insert_deduplicate", "0"), timeout }
    }

    /// Streams that this partition has been, the youngest first, each with the offset up to which the ledger has counted
    /// it.
    pub async fn of(&self, cluster: &str, topic: &str, partition: i32) -> Result<Vec<(StreamId, u64)>, StoreError> {
        let query = self
            .client
            .query(
                "SELECT stream, max(ledger.next_offset) AS counted FROM stream FINAL LEFT JOIN ledger USING (stream) \
                 WHERE cluster = ? AND topic = ? AND partition = ? GROUP BY stream ORDER BY max(born) DESC, stream",
            )
            .bind(cluster)
            .bind(topic)
            .bind(partition);
        let rows = self.bounded("reading the streams of a partition", query.fetch_all::<(u64, u64)>()).await?;
        Ok(rows.into_iter().map(|(stream, counted)| (StreamId(stream), counted)).collect())
    }

    /// Notes a stream. Noting it again changes nothing.
    pub async fn note(&self, row: &StreamRow) -> Result<(), StoreError> {
        let store = async {
            let mut insert = self.client.insert::<StreamRow>("stream").await?;
            insert.write(row).await?;
            insert.end().await
        };
        self.bounded("noting a stream", store).await
    }

    async fn bounded<T>(
        &self,
        action: &str,
        call: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(StoreError::ClickHouse { action: action.to_owned(), cause: source }),
            Err(_) => Err(StoreError::Timeout { action: action.to_owned(), timeout: self.timeout }),
        }
    }
}
