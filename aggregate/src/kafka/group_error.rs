//! Why the group's member stopped.

use crate::aggregate_error::AggregateError;
use rdkafka::error::KafkaError;
use schemas::StreamId;
use storage::CallError;

/// Why the group's member stopped.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// rdkafka failed.
    #[error("cannot {action}: {cause}")]
    Kafka {
        /// What was attempted.
        action: &'static str,
        /// Cause of the failure.
        cause: KafkaError,
    },
    /// A committed offset that this program did not write.
    #[error("partition {partition} of topic {topic}: {reason}")]
    Commit {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why it is invalid.
        reason: String,
    },
    /// A partition could not be folded.
    #[error("partition {partition} of topic {topic}")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Cause of the failure.
        source: AggregateError,
    },
    /// A partition that was counted before has no commit now.
    #[error(
        "partition {partition} of topic {topic} has no commit in group {group}, although ClickHouse has counted stream \
         {stream} of it up to offset {counted}. If the topic was recreated, run `headcount topic reset --new-log`: it is then \
         counted from its beginning, and the figures so far stay. If the group's offsets were deleted or have expired, run \
         `headcount topic reset --from-ledger`: they are restored"
    )]
    Forgotten {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The group.
        group: String,
        /// The stream.
        stream: StreamId,
        /// Offset in its ledger.
        counted: u64,
    },
    /// The topic does not exist.
    #[error(
        "the brokers have no topic {0}. Create it with `headcount topic ensure`; if it was deleted, run `headcount \
         topic reset --new-log` after that"
    )]
    TopicMissing(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// A thread did not start.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// ClickHouse failed permanently.
    #[error(transparent)]
    Store(#[from] CallError),
    /// A part of the program ended unexpectedly.
    #[error("{0}")]
    Internal(String),
}
