//! The journal's writing side: batches are appended, and the oldest dropped.

use super::format::{BatchKind, HEADER_BYTES, NewBatch, State, header};
use super::store::{self, Failure, change, guarded};
use super::{BUSY_RECORDS, EARLY_BATCHES, Gathering, JournalError, JournalState, LINGER, RETRY, locked, new_stream};
use crate::sink::SinkError;
use redb::ReadableTable;
use schemas::Hour;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl JournalState {
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

    /// Records that counted records were dropped early. Warns unless it did so recently.
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

/// What a drop freed.
#[derive(Default)]
pub(super) struct Dropped {
    pub(super) batches: usize,
    records: u64,
    bytes: u64,
}

/// Drops batches, oldest first, while `may_drop` (given the append's hour, the batch's end, and what was dropped so far) returns true. Records the
/// drops in `state`.
pub(super) fn drop_oldest(
    batches: &mut redb::Table<'_, u64, &'static [u8]>,
    state: &mut State,
    may_drop: impl Fn(Hour, u64, &Dropped) -> bool,
) -> Result<Dropped, Failure> {
    let mut dropped = Dropped::default();
    loop {
        let first = batches.first()?.and_then(|(first, bytes)| {
            let header = header(bytes.value())?;
            let count = u64::from(header.count);
            Some((header.appended, count, first.value() + count, bytes.value().len() as u64))
        });
        let Some((appended, count, end, bytes)) = first else { break };
        if !may_drop(appended, end, &dropped) {
            break;
        }
        batches.pop_first()?;
        dropped.batches += 1;
        dropped.records += count;
        dropped.bytes += bytes;
        state.trimmed_below = end;
    }
    state.stored_bytes = state.stored_bytes.saturating_sub(dropped.bytes);
    Ok(dropped)
}

pub(super) fn write_batches(shared: &JournalState) {
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
                    // While the journal is not ready there may be no requests, so retry the disk without one.
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
                // If the client has disconnected, its view is counted nevertheless.
                let _ = waiter.send(answer.clone());
            }
        };
        // One task within the runtime wakes them all. Waking each from this thread would lock the runtime's shared queue, and often make a system
        // call, for every request.
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
fn write_batch(shared: &JournalState, gathered: &Gathering) -> Result<u64, JournalError> {
    let guard = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = guard.as_ref() else { return Err(JournalError::Reopening) };
    let first_offset = *shared.end.borrow();
    let length = HEADER_BYTES + gathered.batch.len();
    let batch = NewBatch {
        kind: BatchKind::Records,
        generation: shared.generation.load(Ordering::Relaxed),
        appended: (shared.hour)(),
        count: gathered.count,
        first_offset,
        stream: shared.stream,
    };
    let write = || {
        change(database, |batches, state| {
            if state.end != first_offset {
                let found = format!("the log ended at offset {first_offset}, its state says {}", state.end);
                return Err(Failure::Damaged(Some(first_offset.min(state.end)), found));
            }
            let dropped = make_space(shared, batches, state, length as u64)?;
            batch.encode(&gathered.batch, batches.insert_reserve(first_offset, length)?.as_mut());
            state.end = first_offset + u64::from(gathered.count);
            state.stored_bytes += length as u64;
            // Set before other writes are possible; if the commit fails, the file is reopened and the figure read again.
            shared.stored.store(state.stored_bytes, Ordering::Relaxed);
            Ok((dropped.records, state.end))
        })
    };
    let (dropped, end) = guarded(write).map_err(|failure| failure.of(&shared.path))?;
    if dropped > 0 {
        shared.note_early_drop(dropped);
    }
    Ok(end)
}

/// Drops the oldest counted records if `length` more bytes would exceed the bound. If too few can be dropped, the batch is written nevertheless,
/// since it was accepted, and the next appends are refused.
fn make_space(
    shared: &JournalState,
    batches: &mut redb::Table<'_, u64, &'static [u8]>,
    state: &mut State,
    length: u64,
) -> Result<Dropped, Failure> {
    let stored = state.stored_bytes;
    let over = |freed: u64| {
        shared.config.capacity_bytes.is_some_and(|capacity| stored.saturating_sub(freed) + length > capacity)
    };
    if !over(0) || !shared.droppable.load(Ordering::Relaxed) {
        return Ok(Dropped::default());
    }
    let below = shared.counted_below.load(Ordering::Relaxed);
    let dropped = drop_oldest(batches, state, |_, end, dropped| {
        end <= below && over(dropped.bytes) && dropped.batches < EARLY_BATCHES
    })?;
    let exhausted = over(dropped.bytes) && dropped.batches < EARLY_BATCHES;
    // A commit in between may have made more records droppable.
    if exhausted && shared.counted_below.load(Ordering::Relaxed) == below {
        shared.droppable.store(false, Ordering::Relaxed);
    }
    Ok(dropped)
}

/// After an I/O error redb refuses further work until the file is reopened. A batch whose commit failed may be stored all the same, so the end is
/// read again and no offset is used twice. A damaged file stays closed, because retries do not repair it.
fn reopen(shared: &JournalState) {
    if shared.damaged.load(Ordering::Relaxed) {
        return;
    }
    let mut guard = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    let closing = guard.take();
    let _ = guarded(|| {
        drop(closing);
        Ok(())
    });
    // Opening commits a transaction, so a journal that opens is writable.
    match store::open(&shared.path, new_stream) {
        Ok((database, state)) if state.stream == shared.stream.0 => {
            shared.stored.store(state.stored_bytes, Ordering::Relaxed);
            shared.generation.store(state.generation, Ordering::Relaxed);
            // Batches that a failed commit would have dropped are still stored.
            shared.droppable.store(true, Ordering::Relaxed);
            shared.end.send_replace(state.end);
            *guard = Some(database);
            if locked(&shared.failing).take().is_some() {
                tracing::info!("the journal can be written again");
            }
        }
        Ok(_) => {
            shared.damaged.store(true, Ordering::Relaxed);
            tracing::error!(path = %shared.path.display(), "the journal was replaced by another one while it was open; restart the service");
        }
        Err(error) if error.is_damage() => {
            shared.damaged.store(true, Ordering::Relaxed);
            tracing::error!(%error, "the journal stays closed; beacons are answered 503");
            *locked(&shared.failing) = Some(error.to_string());
        }
        Err(error) => tracing::debug!(%error, "the journal cannot be opened again yet"),
    }
}
