//! The port to the log.

use std::future::Future;

/// Why the log did not store a record. No acknowledgement was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// Too much is waiting for the disk or the broker.
    #[error("the log's queue is full")]
    QueueFull,
    /// Writing failed; whether the record is in the log is unknown.
    #[error("the log cannot be written: {0}")]
    Unavailable(String),
    /// The process is stopping.
    #[error("the log is closed")]
    Closed,
}

/// The destination of accepted page views. It resolves only once the record is durable: fsynced by the journal, or acknowledged by Kafka.
pub trait Sink: Send + Sync + 'static {
    /// Appends one encoded record. `key` (the project, hashed) chooses the partition, so that a retry gets into the same one.
    fn append(&self, key: u64, record: Vec<u8>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether a record would probably be taken now.
    fn ready(&self) -> Result<(), SinkError>;

    /// The state of the log, in words for an operator.
    fn describe(&self) -> String {
        "writable".to_owned()
    }
}
