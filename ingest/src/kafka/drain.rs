//! Sends the journal's records to Kafka.

use super::producer::Delivery;
use super::{SinkState, hash_of, locked};
use crate::http::log_key;
use crate::journal::{Journal, JournalBatch, JournalError, TRIM_BATCHES};
use schemas::Hour;
use schemas::record::{self, Record};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Name in the journal of the offset below which all is in Kafka.
const DRAINED: &str = "drained";
/// Bytes of records that are concurrently on their way to Kafka.
const READ_BYTES: usize = 1 << 20;
/// Pause before a retry.
const RETRY: Duration = Duration::from_millis(200);

/// The drained offset, as stored in the journal.
pub(super) fn drained_below(journal: &Journal) -> u64 {
    match journal.text(DRAINED) {
        Ok(text) => text.and_then(|text| text.parse().ok()).unwrap_or(0),
        Err(error) => {
            tracing::warn!(%error, "the journal does not say what of it is in Kafka; all of it is sent again");
            0
        }
    }
}

/// Sends the journal's records to Kafka until stopped. Also replaces a failed producer.
pub(super) async fn drain(shared: Arc<SinkState>, mut stopped: watch::Receiver<bool>) {
    let mut end = shared.journal.end();
    loop {
        let from = shared.drained_below.load(Ordering::Relaxed);
        tokio::select! {
            () = until(&mut stopped) => return,
            // Checked from time to time even without records to send: the producer may have failed.
            () = async { drop(tokio::time::timeout(Duration::from_secs(1), end.wait_for(|&end| end > from)).await) } => {}
        }
        let mender = Arc::clone(&shared);
        let _ = tokio::task::spawn_blocking(move || mender.producer.mend()).await;
        if *end.borrow() <= from {
            continue;
        }
        tokio::select! {
            () = until(&mut stopped) => return,
            next = bring(&shared, from) => match next {
                Ok(next) => {
                    shared.drained.fetch_add(next - from, Ordering::Relaxed);
                    shared.drained_below.store(next, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal's records cannot be read or noted as drained; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

async fn until(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

/// Sends the next batches to Kafka and stores the progress. Returns the offset after them.
async fn bring(shared: &Arc<SinkState>, from: u64) -> Result<u64, JournalError> {
    let journal = shared.journal.clone();
    let read = tokio::task::spawn_blocking(move || journal.read(from, READ_BYTES)).await;
    let batches = read.map_err(|_| JournalError::Reopening)??;
    let Some(next) = batches.last().map(JournalBatch::next_offset) else { return Ok(from) };
    let mut waiting: Vec<(&[u8], oneshot::Receiver<Delivery>)> = Vec::new();
    for batch in &batches {
        for (offset, record) in (batch.first_offset..).zip(batch.records()) {
            if offset < from {
                continue;
            }
            // The first copy may be queued or delivered, so its delivery report is awaited.
            let pending = locked(&shared.pending).remove(&hash_of(record));
            let told = match pending {
                Some(told) => told,
                None => send(shared, record).await,
            };
            waiting.push((record, told));
        }
    }
    for (record, mut told) in waiting {
        // Without a timeout: a record leaves the journal only once Kafka has it.
        while !matches!((&mut told).await, Ok(Ok(()))) {
            tokio::time::sleep(RETRY).await;
            let mender = Arc::clone(shared);
            let _ = tokio::task::spawn_blocking(move || mender.producer.mend()).await;
            told = send(shared, record).await;
        }
        shared.arrived();
    }
    let journal = shared.journal.clone();
    let noted = tokio::task::spawn_blocking(move || {
        journal.store_text(DRAINED, &next.to_string())?;
        while journal.trim(next, Hour(u32::MAX))? >= TRIM_BATCHES {}
        Ok::<(), JournalError>(())
    });
    noted.await.map_err(|_| JournalError::Reopening)??;
    Ok(next)
}

/// Queues a record, waiting while the queue is full.
async fn send(shared: &Arc<SinkState>, record: &[u8]) -> oneshot::Receiver<Delivery> {
    let key = match record::decode(record) {
        Ok(Record::PageView(view)) => log_key(view.project),
        // Tallies have no duplicates that must share a partition, and the aggregator counts undecodable records.
        _ => 0,
    };
    loop {
        match shared.producer.send(key, record) {
            Ok(told) => return told,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
