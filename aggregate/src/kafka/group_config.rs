//! Configuration of the group's member, and its consumer.

use super::group_context::{GroupConsumer, GroupContext};
use super::group_error::GroupError;
use super::group_status::GroupStatus;
use super::streams::Streams;
use super::times::RecordTimes;
use crate::run::AggregateConfig;
use crate::store::SummaryStore;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use std::sync::Arc;
use std::time::Duration;

/// Longest time of one query to the brokers.
pub(super) const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Configuration of a group's member.
pub struct GroupConfig {
    /// Brokers, TLS, SASL and the like.
    pub client: ClientConfig,
    /// The topic of page views.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether the brokers assign (KIP-848) or the members do (classic protocol, cooperative-sticky).
    pub broker_assigns: bool,
    /// The clock that determines windows.
    pub times: RecordTimes,
    /// The configuration for each partition.
    pub aggregate: AggregateConfig,
    /// The store of the rows.
    pub store: SummaryStore,
    /// The streams of partitions.
    pub streams: Streams,
    /// The status that the member reports.
    pub status: Arc<GroupStatus>,
}

impl GroupConfig {
    /// A consumer that has subscribed to the topic.
    pub(super) fn consumer(&self) -> Result<GroupConsumer, GroupError> {
        let context = GroupContext::new(self.topic.clone(), Arc::clone(&self.status));
        let consumer: GroupConsumer = self
            .client_settings()
            .create_with_context(context)
            .map_err(|cause| GroupError::Kafka { action: "create a Kafka consumer with these settings", cause })?;
        consumer
            .subscribe(&[self.topic.as_str()])
            .map_err(|cause| GroupError::Kafka { action: "subscribe to the topic", cause })?;
        Ok(consumer)
    }

    /// The operator's settings, completed by those that the aggregator needs.
    fn client_settings(&self) -> ClientConfig {
        let mut client = self.client.clone();
        let mut unless_set = |name: &str, value: &str| {
            if client.get(name).is_none() {
                client.set(name, value);
            }
        };
        unless_set("statistics.interval.ms", "2000");
        // Read ahead per partition: enough to keep the fold busy, and little enough for hundreds of partitions.
        unless_set("queued.min.messages", "50000");
        unless_set("queued.max.messages.kbytes", "16384");
        unless_set("check.crcs", "true");
        unless_set("fetch.error.backoff.ms", "100");
        // Interval of checks of a full queue; librdkafka's default of a second would leave folding idle.
        unless_set("fetch.queue.backoff.ms", "5");
        if !self.broker_assigns {
            // Longest wait for a member that was killed; librdkafka sends heartbeats from a separate thread.
            unless_set("session.timeout.ms", "10000");
            unless_set("heartbeat.interval.ms", "2000");
        }
        client
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An event for the end of the log: a backlog is written when its end is reached.
            .set("enable.partition.eof", "true")
            // Partitions start at an explicit offset. If it does not exist, the client must not choose another.
            .set("auto.offset.reset", "error");
        if self.broker_assigns {
            client.set("group.protocol", "consumer");
        } else {
            client.set("group.protocol", "classic").set("partition.assignment.strategy", "cooperative-sticky");
        }
        client
    }
}
