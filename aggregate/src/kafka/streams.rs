//! The table `stream`: which streams a partition has been.

use clickhouse::{Client, Row};
use schemas::StreamId;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use storage::{CallError, in_time};

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
    /// When the partition was first seen, in seconds since the epoch.
    pub born: u32,
}

/// The table of streams.
#[derive(Clone)]
pub struct Streams {
    client: Client,
    timeout: Duration,
}

impl Streams {
    /// `client` has URL, database and credentials; `timeout` limits each call.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Streams { client, timeout }
    }

    /// The streams of this partition, newest first, each with the offset up to which the ledger has counted it.
    pub async fn of(&self, cluster: &str, topic: &str, partition: i32) -> Result<Vec<(StreamId, u64)>, CallError> {
        let query = self
            .client
            .query(
                "SELECT stream, max(ledger.next_offset) AS counted FROM stream FINAL LEFT JOIN ledger USING (stream) \
                 WHERE cluster = {cluster:String} AND topic = {topic:String} AND partition = {partition:Int32} GROUP BY stream ORDER BY max(born) DESC, stream",
            )
            .param("cluster", cluster)
            .param("topic", topic)
            .param("partition", partition);
        let rows = in_time(self.timeout, "reading the streams of a partition", query.fetch_all::<(u64, u64)>()).await?;
        Ok(rows.into_iter().map(|(stream, counted)| (StreamId(stream), counted)).collect())
    }

    /// Stores a stream. Storing it again changes nothing.
    pub async fn store(&self, row: &StreamRow) -> Result<(), CallError> {
        let stored = storage::insert(&self.client, "stream", std::slice::from_ref(row));
        in_time(self.timeout, "storing a stream", stored).await
    }
}
