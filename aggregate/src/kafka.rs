//! Kafka as the log: a member of the aggregators' consumer group.
//!
//! One thread owns the consumer and serves the group (`member`). It gives each assigned partition to a task that runs [`crate::run`] over it
//! (`partition_task`), and ends the task when the group revokes the partition. The records of each partition come through a separate queue, so
//! that a partition that waits for ClickHouse does not delay others. Records that are not read stay with the broker
//! (`queued.max.messages.kbytes`).
//!
//! The group's committed offset determines where a partition starts. All rows below it are in ClickHouse, so the lag that operators see is
//! true. The commit's metadata is [`crate::commit::Commit`] as JSON, with the offset at which the open window started; reading starts
//! there.
//!
//! A partition's [`StreamId`](schemas::StreamId) is drawn at random when the partition is first assigned, and stored in the commit and in ClickHouse's
//! table `stream`. Kafka deletes the commits of a topic together with the topic. A topic that was recreated under the same name therefore
//! has no commit, although ClickHouse knows streams of it. The same holds for a group whose offsets were deleted. Only the operator knows
//! which of the two happened, so folding stops with an error that names both remedies.

mod commit_text;
mod group;
mod group_config;
mod group_context;
mod group_error;
mod group_status;
mod member;
mod partition_reader;
mod partition_source;
mod partition_task;
mod streams;
mod times;

pub use commit_text::CommitText;
pub use group::run_group;
pub use group_config::GroupConfig;
pub use group_error::GroupError;
pub use group_status::{GroupStatus, PartitionStatus};
pub use streams::{StreamRow, Streams};
pub use times::RecordTimes;
