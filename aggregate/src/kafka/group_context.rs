//! Callbacks of rdkafka.

use super::group_status::{GroupStatus, locked};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Shortest time between two log lines for the same error of the client.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A change of the assignment.
pub(super) enum GroupEvent {
    Assigned(Vec<i32>),
    Revoked { partitions: Vec<i32>, lost: bool },
}

/// Callbacks of rdkafka. They only record events: the group's thread starts and ends partitions after the call, and the group waits for
/// that.
pub(super) struct GroupContext {
    topic: String,
    status: Arc<GroupStatus>,
    events: Mutex<Vec<GroupEvent>>,
    closing: AtomicBool,
    logged: Mutex<HashMap<i32, Instant>>,
}

impl GroupContext {
    /// The context of a consumer of `topic`.
    pub(super) fn new(topic: String, status: Arc<GroupStatus>) -> Self {
        GroupContext {
            topic,
            status,
            events: Mutex::default(),
            closing: AtomicBool::new(false),
            logged: Mutex::default(),
        }
    }

    /// The events since the last call.
    pub(super) fn take_events(&self) -> Vec<GroupEvent> {
        std::mem::take(&mut *locked(&self.events))
    }

    /// From now on, revoked partitions are unassigned immediately.
    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Logs an error of the client, at a limited rate.
    pub(super) fn log_error(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown) as i32;
        let mut logged = locked(&self.logged);
        let now = Instant::now();
        if logged.get(&code).is_none_or(|&last| now.duration_since(last) >= LOG_INTERVAL) {
            logged.insert(code, now);
            tracing::warn!(%error, reason, "the Kafka client tries again");
        }
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Relevant events arrive as errors, too; the client's log lines are for debugging.
        tracing::debug!(target: "headcount::kafka", ?level, facility, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let ends = topic
            .partitions
            .iter()
            .filter_map(|(&partition, figures)| Some((partition, u64::try_from(figures.hi_offset).ok()?)));
        self.status.set_ends(ends);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log_error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, changed: &mut TopicPartitionList) {
        let partitions = changed.elements_for_topic(&self.topic).iter().map(|element| element.partition()).collect();
        if self.closing.load(Ordering::SeqCst) {
            // The event loop has ended, and closing waits for this call.
            let _ = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(changed),
                _ => consumer.unassign(),
            };
            return;
        }
        let event = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => GroupEvent::Assigned(partitions),
            _ => GroupEvent::Revoked { partitions, lost: consumer.assignment_lost() },
        };
        locked(&self.events).push(event);
    }
}

/// The consumer of a group's member.
pub(super) type GroupConsumer = BaseConsumer<GroupContext>;
