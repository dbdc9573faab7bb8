//! The journal's writing side: batches are appended, and the oldest dropped.

use super::{
    BATCH_VERSION, BATCHES, BUSY_RECORDS, EARLY_BATCHES, Gathering, HEADER_BYTES, JournalError, LINGER, NUMBERS, RETRY,
    Shared, end_of, header, locked, open_database, stored_bytes_of,
};
use crate::sink::SinkError;
use redb::ReadableTable;
use schemas::Hour;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Shared {
    /// Whether `bytes` more would exceed the bound although nothing can be dropped. Warns at the first refusal.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        let Some(capacity) = self.config.capacity_bytes else { return false };
        let full = self.stored.load(Ordering::Relaxed) + bytes > capacity && !self.droppable.load(Ordering::Relaxed);
        if self.full.load(Ordering::Relaxed) != full && self.full.swap(full, Ordering::Relaxed) != full && full {
            tracing::warn!(path = %self.path.display(), capacity_bytes = capacity,
                "all records of the journal are still needed and it has reached its bound; beacons are answered 503 until \
                 some are counted or delivered. Is ClickHouse, or Kafka, away?");
        }
        full
    }

    pub(super) fn drops_early(&self) -> bool {
        let hour = u64::from((self.hour)().0) + 1;
        hour.saturating_sub(self.dropped_early_hour.load(Ordering::Relaxed)) <= 1
    }

    /// Notes that counted records were dropped before their time. Warns unless it was so lately.
    fn note_early_drop(&self, records: u64) {
        if !self.drops_early() {
            tracing::warn!(path = %self.path.display(), capacity_bytes = self.config.capacity_bytes,
                "the journal has reached its bound: counted records are dropped before log_retention_hours. No view is \
                 lost; set journal_bytes higher if the disk has space");
        }
        self.dropped_early.fetch_add(records, Ordering::Relaxed);
        self.dropped_early_hour.store(u64::from((self.hour)().0) + 1, Ordering::Relaxed);
    }
}

/// What dropping freed.
#[derive(Default)]
pub(super) struct Dropped {
    pub(super) batches: usize,
    records: u64,
    pub(super) bytes: u64,
    /// Offset after the last record dropped.
    below: Option<u64>,
}

/// Drops batches from the oldest on while `may_drop` (given the append's hour, the batch's end, and what was dropped so far)
/// says so, within the transaction of `batches` and `numbers`. `stored` bytes are stored before; the caller puts the rest
/// into [`Shared::stored`].
pub(super) fn drop_oldest(
    batches: &mut redb::Table<'_, u64, &'static [u8]>,
    numbers: &mut redb::Table<'_, &'static str, u64>,
    stored: u64,
    may_drop: impl Fn(Hour, u64, &Dropped) -> bool,
) -> Result<Dropped, redb::Error> {
    let mut dropped = Dropped::default();
    loop {
        let first = batches.first()?.and_then(|(first, bytes)| {
            let (appended, count) = header(bytes.value())?;
            Some((appended, u64::from(count), first.value() + u64::from(count), bytes.value().len() as u64))
        });
        let Some((appended, count, end, bytes)) = first else { break };
        if !may_drop(appended, end, &dropped) {
            break;
        }
        batches.pop_first()?;
        dropped.batches += 1;
        dropped.records += count;
        dropped.bytes += bytes;
        dropped.below = Some(end);
    }
    if let Some(below) = dropped.below {
        numbers.insert("trimmed_below", below)?;
        numbers.insert("stored_bytes", stored.saturating_sub(dropped.bytes))?;
    }
    Ok(dropped)
}

pub(super) fn write_batches(shared: &Shared) {
    let mut last_count = 0;
    loop {
        if last_count >= BUSY_RECORDS {
            std::thread::sleep(LINGER);
        }
        let mut gathered = {
            let mut gathering = locked(&shared.gathering);
            while gathering.count == 0 && !gathering.closed {
                let failing = locked(&shared.failing).is_some();
                if failing {
                    // Nobody may come while we say that we are not ready: try the disk without being asked.
                    drop(gathering);
                    std::thread::sleep(RETRY);
                    reopen(shared);
                    gathering = locked(&shared.gathering);
                } else {
                    gathering = shared.wake.wait(gathering).unwrap_or_else(PoisonError::into_inner);
                }
            }
            if gathering.count == 0 {
                return;
            }
            let next = Gathering { closed: gathering.closed, ..Gathering::default() };
            std::mem::replace(&mut *gathering, next)
        };
        last_count = gathered.count;
        let outcome = write_batch(shared, &gathered);
        let answer = match &outcome {
            Ok(end) => {
                shared.end.send_replace(*end);
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                let newly = locked(&shared.failing).replace(text.clone()).is_none();
                if newly {
                    tracing::error!(error = %text, path = %shared.path.display(),
                        "the journal cannot be written; beacons are answered 503 until it can. Is the disk full?");
                }
                Err(SinkError::Unavailable(text))
            }
        };
        let waiters = std::mem::take(&mut gathered.waiters);
        let tell = move || {
            for waiter in waiters {
                // A reader that went away still has its view counted.
                let _ = waiter.send(answer.clone());
            }
        };
        // One task wakes them all from within the runtime: waking each from this thread would take the runtime's
        // shared queue, and often a system call, for every reader.
        match &shared.runtime {
            Some(runtime) => drop(runtime.spawn(async move { tell() })),
            None => tell(),
        }
        if outcome.is_err() {
            std::thread::sleep(RETRY);
            reopen(shared);
        }
    }
}

/// Appends one batch and syncs. Returns the new end.
fn write_batch(shared: &Shared, gathered: &Gathering) -> Result<u64, JournalError> {
    let guard = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = guard.as_ref() else { return Err(JournalError::Reopening) };
    let first = *shared.end.borrow();
    let length = (HEADER_BYTES + gathered.batch.len()) as u64;
    let write = || -> Result<u64, redb::Error> {
        let transaction = database.begin_write()?;
        let dropped = {
            let mut batches = transaction.open_table(BATCHES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            // Writing transactions take turns, so nobody changes the figure in between.
            let before = shared.stored.load(Ordering::Relaxed);
            let dropped = make_space(shared, &mut batches, &mut numbers, before, length)?;
            let mut value = batches.insert_reserve(first, HEADER_BYTES + gathered.batch.len())?;
            let bytes = value.as_mut();
            bytes[0] = BATCH_VERSION;
            bytes[1..5].copy_from_slice(&(shared.hour)().0.to_le_bytes());
            bytes[5..9].copy_from_slice(&gathered.count.to_le_bytes());
            bytes[HEADER_BYTES..].copy_from_slice(&gathered.batch);
            drop(value);
            let stored = before.saturating_sub(dropped.bytes) + length;
            numbers.insert("stored_bytes", stored)?;
            // Before others may write; where the commit fails, the file is opened and the figure read anew.
            shared.stored.store(stored, Ordering::Relaxed);
            dropped.records
        };
        transaction.commit()?;
        Ok(dropped)
    };
    let dropped = write()?;
    if dropped > 0 {
        shared.note_early_drop(dropped);
    }
    Ok(first + u64::from(gathered.count))
}

/// Drops the oldest counted records if `length` more bytes would exceed the bound. What cannot be dropped stays: the batch is
/// written nevertheless, since it was taken, and the next appends are refused.
fn make_space(
    shared: &Shared,
    batches: &mut redb::Table<'_, u64, &'static [u8]>,
    numbers: &mut redb::Table<'_, &'static str, u64>,
    stored: u64,
    length: u64,
) -> Result<Dropped, redb::Error> {
    let over = |freed: u64| shared.config.capacity_bytes.is_some_and(|capacity| stored - freed + length > capacity);
    if !over(0) || !shared.droppable.load(Ordering::Relaxed) {
        return Ok(Dropped::default());
    }
    let below = shared.counted_below.load(Ordering::Relaxed);
    let dropped = drop_oldest(batches, numbers, stored, |_, end, dropped| {
        end <= below && over(dropped.bytes) && dropped.batches < EARLY_BATCHES
    })?;
    let exhausted = over(dropped.bytes) && dropped.batches < EARLY_BATCHES;
    // A commit meanwhile may have brought more to drop.
    if exhausted && shared.counted_below.load(Ordering::Relaxed) == below {
        shared.droppable.store(false, Ordering::Relaxed);
    }
    Ok(dropped)
}

/// After an I/O error redb refuses further work until the file is opened anew. A batch whose commit failed may still
/// be there; the end is read again, so that no offset is used twice.
fn reopen(shared: &Shared) {
    let mut guard = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    *guard = None;
    // Opening commits a transaction, so a journal that opens can be written.
    let opened = open_database(&shared.path)
        .and_then(|database| Ok((end_of(&database)?, stored_bytes_of(&database)?, database)));
    match opened {
        Ok((end, stored, database)) => {
            shared.stored.store(stored, Ordering::Relaxed);
            // What a failed commit would have dropped is there again.
            shared.droppable.store(true, Ordering::Relaxed);
            shared.end.send_replace(end);
            *guard = Some(database);
            if locked(&shared.failing).take().is_some() {
                tracing::info!("the journal can be written again");
            }
        }
        Err(error) => tracing::debug!(%error, "the journal cannot be opened again yet"),
    }
}
