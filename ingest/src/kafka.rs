//! Kafka as the log, with the journal as its spill.
//!
//! A beacon is answered with 202 once Kafka has its record (`acks=all`, idempotent producer), or once the journal has it on disk. The journal takes
//! the records that Kafka does not acknowledge in time, and all records while Kafka is unavailable. A background task (`drain`) sends them to Kafka
//! afterwards. If the journal is full as well, beacons are answered with 503.
//!
//! A record that was spilled while it waits in the producer's queue exists twice. Its pending delivery report is stored (`SinkState::pending`), and the
//! drain skips the record if it has been delivered. Only a process that dies in between can send it to Kafka twice. Every record has an id, by which
//! the fold drops the second one (within one window).

mod drain;
mod producer;

use crate::journal::Journal;
use crate::sink::{Sink, SinkError};
use foldhash::quality::FixedState;
use producer::{Delivery, Producer};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Settings for writing to Kafka.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Brokers, TLS, SASL and the like.
    pub client: ClientConfig,
    /// The topic of page views.
    pub topic: String,
    /// Bytes of records that may wait for Kafka's acknowledgement.
    pub queue_bytes: u64,
    /// How long Kafka may take to acknowledge before a record is spilled.
    pub spill_after: Duration,
}

/// Figures of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KafkaFigures {
    /// Records that Kafka acknowledged since the start.
    pub delivered: u64,
    /// Records that the journal stored instead since the start.
    pub spilled: u64,
    /// Spilled records that have arrived in Kafka since the start.
    pub drained: u64,
    /// Records in the journal that are not known to be in Kafka.
    pub in_spill: u64,
    /// Their bytes.
    pub spill_bytes: u64,
    /// Records that wait for Kafka's acknowledgement.
    pub in_queue: u64,
    /// Whether Kafka currently acknowledges nothing, so that records go directly to the journal.
    pub away: bool,
}

struct SinkState {
    config: KafkaConfig,
    producer: Producer,
    journal: Journal,
    /// Kafka did not acknowledge in time, and has acknowledged nothing since.
    away: AtomicBool,
    /// Offset in the journal below which all is in Kafka.
    drained_below: AtomicU64,
    delivered: AtomicU64,
    spilled: AtomicU64,
    drained: AtomicU64,
    /// Pending delivery reports of spilled records, by the record's hash (each has a random id).
    pending: Mutex<HashMap<u64, oneshot::Receiver<Delivery>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_of(record: &[u8]) -> u64 {
    FixedState::with_seed(1).hash_one(record)
}

/// Writes records to Kafka. Cloning shares it.
#[derive(Clone)]
pub struct KafkaSink {
    shared: Arc<SinkState>,
    drain: Arc<Mutex<Option<Drain>>>,
}

struct Drain {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl KafkaSink {
    /// Creates the producer and starts to send the journal's records to Kafka. No broker is contacted yet, so Kafka may be unavailable.
    pub fn start(config: KafkaConfig, journal: Journal) -> Result<Self, KafkaError> {
        let producer = Producer::new(&config)?;
        let drained_below = drain::drained_below(&journal);
        let shared = Arc::new(SinkState {
            config,
            producer,
            journal,
            away: AtomicBool::new(false),
            drained_below: AtomicU64::new(drained_below),
            delivered: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            pending: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(drain::drain(Arc::clone(&shared), stopped));
        Ok(KafkaSink { shared, drain: Arc::new(Mutex::new(Some(Drain { stop, running }))) })
    }

    /// Stops the drain and waits, for `within` at most, until Kafka has the queued records. Records that it does not have then are in the journal, or
    /// were never acknowledged to a client. No appends may follow.
    pub async fn close(&self, within: Duration) {
        let drain = locked(&self.drain).take();
        let deadline = tokio::time::Instant::now() + within;
        if let Some(drain) = drain {
            let _ = drain.stop.send(true);
            if tokio::time::timeout_at(deadline, drain.running).await.is_err() {
                tracing::debug!("the spill was still being sent to Kafka; the next start continues");
            }
        }
        let shared = Arc::clone(&self.shared);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let flushed = tokio::task::spawn_blocking(move || shared.producer.flush(left)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(
                queued = self.shared.producer.in_flight(),
                "Kafka did not take all that was queued in time; what was acknowledged is in the journal"
            );
        }
        let shared = Arc::clone(&self.shared);
        let _ = tokio::task::spawn_blocking(move || shared.journal.close()).await;
    }

    /// The sink's figures.
    pub fn figures(&self) -> KafkaFigures {
        let shared = &self.shared;
        let end = *shared.journal.end().borrow();
        KafkaFigures {
            delivered: shared.delivered.load(Ordering::Relaxed),
            spilled: shared.spilled.load(Ordering::Relaxed),
            drained: shared.drained.load(Ordering::Relaxed),
            in_spill: end.saturating_sub(shared.drained_below.load(Ordering::Relaxed)),
            spill_bytes: shared.journal.stored_bytes(),
            in_queue: shared.producer.in_flight(),
            away: shared.away.load(Ordering::Relaxed),
        }
    }
}

impl SinkState {
    /// Kafka acknowledged something.
    fn arrived(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("Kafka acknowledges again");
        }
    }

    fn went_away(&self, why: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "Kafka does not acknowledge; records go to the journal until it does");
        }
    }

    async fn spill(&self, key: u64, record: Vec<u8>) -> Result<(), SinkError> {
        self.journal.append(key, record).await?;
        self.spilled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Sink for KafkaSink {
    async fn append(&self, key: u64, record: Vec<u8>) -> Result<(), SinkError> {
        let shared = &*self.shared;
        if shared.away.load(Ordering::Relaxed) {
            return shared.spill(key, record).await;
        }
        // Fails immediately if the queue is full or the producer is being replaced.
        let Ok(mut told) = shared.producer.send(key, &record) else { return shared.spill(key, record).await };
        match tokio::time::timeout(shared.config.spill_after, &mut told).await {
            Ok(Ok(Ok(()))) => {
                shared.delivered.fetch_add(1, Ordering::Relaxed);
                shared.arrived();
                Ok(())
            }
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "a record was not delivered and is spilled");
                shared.spill(key, record).await
            }
            Ok(Err(_)) => shared.spill(key, record).await,
            Err(_) => {
                shared.went_away("no acknowledgement in time");
                let hash = hash_of(&record);
                // Before the journal has it; otherwise the drain might see the record without this entry.
                locked(&shared.pending).insert(hash, told);
                let spilled = shared.spill(key, record).await;
                if spilled.is_err() {
                    locked(&shared.pending).remove(&hash);
                }
                spilled
            }
        }
    }

    fn ready(&self) -> Result<(), SinkError> {
        // Without Kafka the journal is the only log; with Kafka, a failing journal must still be reported.
        self.shared.journal.ready()
    }

    fn describe(&self) -> String {
        let figures = self.figures();
        match (figures.away, figures.in_spill) {
            (false, 0) => "Kafka acknowledges".to_owned(),
            (false, records) => format!("Kafka acknowledges; {records} spilled records are on their way to it"),
            (true, records) => format!("Kafka does not acknowledge; {records} records wait in the journal"),
        }
    }
}
