//! The idempotent producer, and its replacement after a permanent failure.

use super::{KafkaConfig, locked};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The outcome of a record.
pub(super) type Delivery = Result<(), KafkaError>;

/// Minimum interval between logged errors of the client.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct DeliveryReports {
    /// The producer refuses all records from now on, and must be replaced.
    failed: AtomicBool,
    complained: Mutex<Option<Instant>>,
}

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "headcount::kafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.failed.store(true, Ordering::SeqCst);
        }
        let mut complained = locked(&self.complained);
        if complained.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::warn!(%error, reason, "the Kafka client keeps retrying");
        }
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = Box<oneshot::Sender<Delivery>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        let delivery = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.failed.store(true, Ordering::SeqCst);
                }
                Err(error.clone())
            }
        };
        // If the client has disconnected, its view is counted nevertheless.
        let _ = told.send(delivery);
    }
}

type KafkaClient = ThreadedProducer<DeliveryReports>;

pub(super) struct Producer {
    config: KafkaConfig,
    inner: RwLock<Arc<KafkaClient>>,
}

fn make(config: &KafkaConfig) -> Result<Arc<KafkaClient>, KafkaError> {
    let mut client = config.client.clone();
    let mut unless_set = |name: &str, value: &str| {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    };
    // Records that arrive within these few milliseconds share a request; a client waits for that long.
    unless_set("linger.ms", "2");
    unless_set("compression.type", "lz4");
    unless_set("batch.size", "524288");
    unless_set("queue.buffering.max.messages", "500000");
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // A timed-out record may have been delivered all the same. So none times out: a slow one is also spilled.
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.kbytes", (config.queue_bytes / 1024).max(1).to_string())
        // librdkafka's murmur2, as Java's clients have it.
        .set("partitioner", "murmur2_random");
    let context = DeliveryReports { failed: AtomicBool::new(false), complained: Mutex::new(None) };
    Ok(Arc::new(client.create_with_context(context)?))
}

impl Producer {
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        Ok(Producer { config: config.clone(), inner: RwLock::new(make(config)?) })
    }

    fn current(&self) -> Arc<KafkaClient> {
        Arc::clone(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Queues a record. The receiver resolves with Kafka's delivery report, however long that takes.
    pub fn send(&self, key: u64, record: &[u8]) -> Result<oneshot::Receiver<Delivery>, KafkaError> {
        let key = key.to_be_bytes();
        let (tell, told) = oneshot::channel();
        let message = BaseRecord::with_opaque_to(&self.config.topic, Box::new(tell)).key(&key).payload(record);
        let guard = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        match guard.send(message) {
            Ok(()) => Ok(told),
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    guard.context().failed.store(true, Ordering::SeqCst);
                }
                Err(error)
            }
        }
    }

    /// Records that wait for Kafka's acknowledgement.
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.current().in_flight_count()).unwrap_or(0)
    }

    /// Waits until nothing is queued.
    pub fn flush(&self, within: Duration) -> Result<(), KafkaError> {
        self.current().flush(within)
    }

    /// Replaces a producer that has failed permanently, for example because the broker forgot it. Its queued records are reported as undelivered, so
    /// their waiting requests spill them. Blocks.
    pub fn mend(&self) {
        if !self.current().context().failed.load(Ordering::SeqCst) {
            return;
        }
        match make(&self.config) {
            Ok(fresh) => {
                let old = std::mem::replace(
                    &mut *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner),
                    fresh,
                );
                let reason = old.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
                tracing::warn!(reason, "the Kafka producer failed permanently and was replaced");
                // Dropping purges the queue; the delivery reports go to the waiting requests.
                let _ = old.flush(Duration::from_millis(100));
            }
            Err(error) => {
                tracing::error!(%error, "the Kafka producer cannot be replaced yet");
            }
        }
    }
}
