//! Kafka as the log: a member of the aggregators' consumer group.
//!
//! One thread owns the consumer and serves the group (`group`): it hands each assigned partition to a task that runs
//! [`crate::run`] over it (`partition`), and takes it back when the group wants it elsewhere. A partition's records come
//! through a queue of their own, so that one that waits for ClickHouse holds no other up; what is not read stays with the
//! broker (`queued.max.messages.kbytes`).
//!
//! Where a partition begins is in the group's committed offset: the offset is the one below which all rows are in
//! ClickHouse, so that lag as operators see it is true, and the commit's metadata is [`crate::window::Commit`] as JSON, which
//! says at which offset the open window began. Reading starts there.
//!
//! A partition's [`StreamId`](schemas::StreamId) is drawn when it is first met, and kept in the commit and in ClickHouse's
//! table `stream`. Kafka forgets a topic's commits together with the topic, so a topic that was made anew under the same name
//! has no commit although ClickHouse knows streams of it. So has a group whose offsets were deleted. Either way nobody but
//! the operator can say which it was; folding stops and names both ways on.

mod group;
mod partition;
mod streams;
mod times;

pub use group::{GroupConfig, GroupError, GroupStatus, PartitionStatus, run_group};
pub use partition::CommitText;
pub use streams::{StreamRow, Streams};
pub use times::RecordTimes;
