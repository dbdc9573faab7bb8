//! The local journal: the log of a one-machine service, and the spill while Kafka is unavailable.
//!
//! An append-only log of record batches in one file of `redb` (a maintained embedded store; a commit is durable or did not happen). One thread
//! writes. While it syncs one batch, it collects the next one, so a thousand waiting requests cost one fsync (group commit). Offsets count records,
//! as in Kafka.
//!
//! Its size is bounded ([`JournalConfig::capacity_bytes`]). At the bound the writer drops the oldest counted records ([`Journal::set_counted`]),
//! whatever their age, in the transaction that needs their space. Appends are refused only if there are none. "Bytes" are those of the stored
//! batches; the file needs some more (see `the_file_stays_near_its_bound`).
//!
//! Batches and the state that describes them carry checksums ([`format`]). A damaged file is refused when it is opened, or when the damage is read;
//! it never returns other records than were appended. [`salvage`](salvage::salvage) writes the readable records to a new file. Only the hour of the
//! append is stored: the log has no finer time.

mod format;
pub mod salvage;
mod store;
pub mod wire;
mod writer;

pub use self::format::BatchKind;
use self::format::{HEADER_BYTES, header, split_record, verified};
use self::store::{BATCHES, Failure, change, guarded, state_of};
use self::writer::{drop_oldest, write_batches};
use crate::sink::{Sink, SinkError};
use redb::{Database, ReadableDatabase, ReadableTable};
use schemas::{Hour, StreamId};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// While many records arrive concurrently, the next sync waits this long for more of them: under load a sync costs more than the wait. A single
/// request never waits.
const LINGER: Duration = Duration::from_millis(2);
/// Pause before the file is reopened after an error.
const RETRY: Duration = Duration::from_millis(200);
/// Batches dropped in one transaction.
pub const TRIM_BATCHES: usize = 2_000;
/// Batches that the writer drops in one transaction to free space. They are many more than a transaction adds, so that the stored bytes soon meet a
/// lowered bound.
const EARLY_BATCHES: usize = 20_000;
/// Records in the last batch from which on the next one lingers.
const BUSY_RECORDS: u32 = 32;

/// Limits of the records that wait for the disk.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// Bytes of records that may wait for a sync before appends are refused.
    pub queue_bytes: usize,
    /// Maximum bytes of stored records; none: limited by the disk only. Above it counted records are dropped early, and appends are refused if there
    /// are none.
    pub capacity_bytes: Option<u64>,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig { queue_bytes: 16 << 20, capacity_bytes: None }
    }
}

/// How close the journal is to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureState {
    /// Records are retained for the configured time.
    Normal,
    /// In this hour or the one before, counted records were dropped before their time. Nothing that is not counted is lost.
    DropsEarly,
    /// All records are still needed, so appends are refused.
    Full,
}

/// See [`Journal::pressure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPressure {
    /// How close it is.
    pub state: PressureState,
    /// Bytes of the stored batches.
    pub stored_bytes: u64,
    /// The bound, if there is one.
    pub capacity_bytes: Option<u64>,
    /// Records dropped before their time since the start.
    pub dropped_early: u64,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Opening failed.
    #[error("cannot open the journal {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: redb::Error,
    },
    /// Reading or writing failed.
    #[error("the journal failed: {0}")]
    Store(redb::Error),
    /// The stored bytes are not the ones that were written.
    #[error(
        "the journal {} is damaged{}: {found}. What ClickHouse has counted is safe, and no record was taken from the damaged place. \
         Restore the journal and `clickhouse/` from one backup, or stop the service and run `headcount journal salvage {} NEW-FILE`: \
         it writes what can be read to a new file, which then takes the journal's place",
        path.display(), place(*offset), path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first unreadable offset, if known.
        offset: Option<u64>,
        /// The fault.
        found: String,
    },
    /// Nothing of the file can be read.
    #[error(
        "the journal {} is damaged: {found}. What ClickHouse has counted is safe. `headcount journal salvage` cannot help, since nothing \
         of the file can be read. Restore the journal and `clickhouse/` from one backup; or stop the service and move the file away: it then \
         starts a new log, and records that were not counted yet are lost",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The fault.
        found: String,
    },
    /// A running service has the file open.
    #[error("the journal {} is open in a running service, which changes it: stop the service first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is being reopened after an error.
    #[error("the journal is being reopened after an error")]
    Reopening,
    /// No randomness for the stream's id.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The writer thread did not start.
    #[error("cannot start the journal's writer: {0}")]
    Thread(std::io::Error),
}

fn place(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

impl JournalError {
    /// Whether the file is damaged: the same call fails again.
    pub fn is_damage(&self) -> bool {
        matches!(self, JournalError::Damaged { .. } | JournalError::Unreadable { .. })
    }
}

/// A batch of records as appended together, or offsets whose records are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBatch {
    /// Offset of the first record.
    pub first_offset: u64,
    /// Hour of the append; for lost records, that of the batch before them.
    pub appended: Hour,
    /// Whether it has its records.
    pub kind: BatchKind,
    bytes: Vec<u8>,
    count: u32,
}

impl JournalBatch {
    /// The batch stored as `bytes` under `first_offset`, if both are unchanged.
    fn parse(first_offset: u64, stream: StreamId, bytes: &[u8]) -> Result<Self, Failure> {
        let header = verified(bytes).filter(|header| header.place.is_none_or(|place| place == (first_offset, stream)));
        let Some(header) = header else {
            return Err(Failure::Damaged(Some(first_offset), "the checksum of a batch is wrong".to_owned()));
        };
        let bytes = bytes[header.header_bytes..].to_vec();
        Ok(JournalBatch { first_offset, appended: header.appended, kind: header.kind, bytes, count: header.count })
    }

    /// The encoded records, in order. A hole has none.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (record, after) = split_record(rest)?;
            rest = after;
            Some(record)
        })
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> u64 {
        self.first_offset + u64::from(self.count)
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

type Waiter = oneshot::Sender<Result<(), SinkError>>;

/// Appends that wait while the writer syncs.
#[derive(Default)]
struct Gathering {
    batch: Vec<u8>,
    count: u32,
    waiters: Vec<Waiter>,
    closed: bool,
}

struct JournalState {
    path: PathBuf,
    config: JournalConfig,
    /// Empty only while the writer reopens the file after an error.
    database: RwLock<Option<Database>>,
    gathering: Mutex<Gathering>,
    wake: Condvar,
    stream: StreamId,
    /// The number of this opening of the file; batches carry it.
    generation: AtomicU32,
    /// Ranges of offsets whose records are lost.
    holes: Vec<(u64, u64)>,
    /// Set once the file turned out to be damaged: it is not reopened.
    damaged: AtomicBool,
    /// Set once the file at `path` is no longer the open one: appends are refused.
    gone: AtomicBool,
    /// Device and inode of the open file.
    file: Option<(u64, u64)>,
    /// Bytes of the stored batches.
    stored: AtomicU64,
    /// Records below this offset are counted for good: the window of the log that they are in is closed.
    counted_below: AtomicU64,
    /// Whether there may be counted records to drop.
    droppable: AtomicBool,
    /// Whether the last append was refused since all records are needed.
    full: AtomicBool,
    /// Records dropped before their time since the start.
    dropped_early: AtomicU64,
    /// Hour of the last early drop plus one; 0 for never.
    dropped_early_hour: AtomicU64,
    /// Offset after the last durable record.
    end: watch::Sender<u64>,
    /// The current hour, from the service's clock.
    hour: Box<dyn Fn() -> Hour + Send + Sync>,
    failing: Mutex<Option<String>>,
    /// The runtime that wakes waiting requests, if the journal was opened within one.
    runtime: Option<tokio::runtime::Handle>,
}

/// A journal open for appending and reading. Cloning shares it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<JournalState>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_stream() -> Result<u64, JournalError> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(JournalError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Journal {
    /// Opens or creates the journal's file and starts its writer. `hour` returns the current hour.
    pub fn open(
        path: &Path,
        config: JournalConfig,
        hour: impl Fn() -> Hour + Send + Sync + 'static,
    ) -> Result<Self, JournalError> {
        let (database, state) = store::open(path, new_stream)?;
        let shared = Arc::new(JournalState {
            path: path.to_owned(),
            config,
            database: RwLock::new(Some(database)),
            gathering: Mutex::default(),
            wake: Condvar::new(),
            stream: StreamId(state.stream),
            generation: AtomicU32::new(state.generation),
            holes: state.holes,
            damaged: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            file: std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino())),
            stored: AtomicU64::new(state.stored_bytes),
            counted_below: AtomicU64::new(0),
            droppable: AtomicBool::new(false),
            full: AtomicBool::new(false),
            dropped_early: AtomicU64::new(0),
            dropped_early_hour: AtomicU64::new(0),
            end: watch::Sender::new(state.end),
            hour: Box::new(hour),
            failing: Mutex::new(None),
            runtime: tokio::runtime::Handle::try_current().ok(),
        });
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let writing = std::panic::AssertUnwindSafe(|| write_batches(&shared));
                    if std::panic::catch_unwind(writing).is_err() {
                        // Waiting and later appends are refused: a silent writer would block them all.
                        *locked(&shared.failing) = Some("the journal's writer panicked".to_owned());
                        *locked(&shared.gathering) = Gathering { closed: true, ..Gathering::default() };
                    }
                }
            })
            .map_err(JournalError::Thread)?;
        Ok(Journal { shared, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// The id of this journal's incarnation: random, created with the file.
    pub fn stream(&self) -> StreamId {
        self.shared.stream
    }

    /// Ranges of offsets whose records are lost: from, and up to (not included). Holes of a salvaged file.
    pub fn holes(&self) -> &[(u64, u64)] {
        &self.shared.holes
    }

    /// Offset after the last durable record; changes are seen by receivers.
    pub fn end(&self) -> watch::Receiver<u64> {
        self.shared.end.subscribe()
    }

    /// Bytes of the stored records.
    pub fn stored_bytes(&self) -> u64 {
        self.shared.stored.load(Ordering::Relaxed)
    }

    /// Declares all records below `offset` counted: the commit is durable, and no restart reads them again. From now on they may be dropped when
    /// space is needed.
    pub fn set_counted(&self, offset: u64) {
        if self.shared.counted_below.fetch_max(offset, Ordering::Relaxed) < offset {
            self.shared.droppable.store(true, Ordering::Relaxed);
        }
    }

    /// Revokes [`Self::set_counted`] for the records from `offset` on: they must be counted again, and none is dropped for space.
    pub fn set_needed(&self, offset: u64) {
        self.shared.counted_below.fetch_min(offset, Ordering::Relaxed);
    }

    /// How close the journal is to its bound; for metrics and `/readyz`. Takes no lock.
    pub fn pressure(&self) -> JournalPressure {
        let state = match () {
            () if self.shared.full.load(Ordering::Relaxed) => PressureState::Full,
            () if self.shared.drops_early() => PressureState::DropsEarly,
            () => PressureState::Normal,
        };
        JournalPressure {
            state,
            stored_bytes: self.stored_bytes(),
            capacity_bytes: self.shared.config.capacity_bytes,
            dropped_early: self.shared.dropped_early.load(Ordering::Relaxed),
        }
    }

    /// Checks that the file at the journal's path is still the open one. If it was removed or replaced, appended records would be lost with the
    /// process, so appends are refused from then on. Blocks briefly.
    pub fn check_file(&self) {
        let shared = &self.shared;
        let is_ours = std::fs::metadata(&shared.path).is_ok_and(|file| Some((file.dev(), file.ino())) == shared.file);
        if is_ours || shared.file.is_none() || shared.damaged.swap(true, Ordering::Relaxed) {
            return;
        }
        let text = "the journal's file was removed or replaced while it was open";
        *locked(&shared.failing) = Some(text.to_owned());
        shared.gone.store(true, Ordering::Relaxed);
        tracing::error!(
            path = %shared.path.display(),
            "{text}: beacons are answered 503. Records that were accepted before are counted as long as this process runs. Stop the service, \
             put the file back if it was moved, and start it again"
        );
    }

    /// Offset of the oldest stored record, or the end if there is none.
    pub fn begin(&self) -> Result<u64, JournalError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let batches = transaction.open_table(BATCHES)?;
            let first = batches.first()?.map(|(offset, _)| offset.value());
            Ok(first)
        })
        .map(|first| first.unwrap_or(*self.shared.end.borrow()))
    }

    /// Hour in which the oldest stored record was appended; none if there is no record.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn oldest_hour(&self) -> Result<Option<Hour>, JournalError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let batches = transaction.open_table(BATCHES)?;
            Ok(batches.first()?.and_then(|(_, bytes)| header(bytes.value()).map(|header| header.appended)))
        })
    }

    /// Records that wait for the next write to the disk, and their bytes.
    pub fn queue(&self) -> (u32, usize) {
        let gathered = locked(&self.shared.gathering);
        (gathered.count, gathered.batch.len())
    }

    /// Reads batches from the one that contains `offset`, up to `max_bytes` of records (at least one batch). The caller skips records below `offset`
    /// in the first batch. The batches follow one another without gap or overlap.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if there is no batch at an offset below the end, or if a batch differs from what was written.
    pub fn read(&self, offset: u64, max_bytes: usize) -> Result<Vec<JournalBatch>, JournalError> {
        let stream = self.stream();
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let state = store::state_at(&transaction)?;
            let (offset, end) = (offset.max(state.trimmed_below), state.end);
            let table = transaction.open_table(BATCHES)?;
            let start = table.range(..=offset)?.next_back().transpose()?.map_or(offset, |(first, _)| first.value());
            let mut found: Vec<JournalBatch> = Vec::new();
            let mut bytes = 0;
            let mut next = offset;
            for entry in table.range(start..)? {
                let (first, batch) = entry?;
                let batch = JournalBatch::parse(first.value(), stream, batch.value())?;
                if batch.next_offset() <= offset && found.is_empty() {
                    continue;
                }
                let expected = if found.is_empty() { batch.first_offset.min(offset) } else { next };
                if batch.first_offset != expected {
                    let what = if batch.first_offset > expected { "no record" } else { "two records" };
                    return Err(Failure::Damaged(
                        Some(next),
                        format!("{what} of this offset; a batch begins at {}", batch.first_offset),
                    ));
                }
                next = batch.next_offset();
                bytes += batch.bytes();
                found.push(batch);
                if bytes >= max_bytes {
                    break;
                }
            }
            if next < end && bytes < max_bytes {
                return Err(Failure::Damaged(
                    Some(next),
                    format!("no record of this offset, though the log ends at {end}"),
                ));
            }
            Ok(found)
        })
    }

    /// Stores a small text durably under `name` (the aggregator's commit).
    pub fn store_text(&self, name: &str, text: &str) -> Result<(), JournalError> {
        self.with_database(|database| {
            change(database, |_, state| {
                state.texts.insert(name.to_owned(), text.to_owned());
                Ok(())
            })
        })
    }

    /// The text under `name`.
    pub fn text(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.with_database(|database| Ok(state_of(database)?.texts.remove(name)))
    }

    /// Drops whole batches that end at or below `offset` and were appended before `before`, at most [`TRIM_BATCHES`] of them, since appends wait
    /// during the transaction. Returns how many; call again while it returns that many.
    pub fn trim(&self, offset: u64, before: Hour) -> Result<usize, JournalError> {
        // A reading transaction checks first: most of the time there is nothing to drop, and a write would cost a sync.
        let any = self.with_database(|database| {
            let transaction = database.begin_read()?;
            let batches = transaction.open_table(BATCHES)?;
            let first = batches.first()?;
            Ok(first.is_some_and(|(first, bytes)| {
                header(bytes.value())
                    .is_some_and(|header| first.value() + u64::from(header.count) <= offset && header.appended < before)
            }))
        })?;
        if !any {
            return Ok(0);
        }
        let dropped = self.with_database(|database| {
            change(database, |batches, state| {
                let dropped = drop_oldest(batches, state, |appended, end, dropped| {
                    end <= offset && appended < before && dropped.batches < TRIM_BATCHES
                })?;
                // Writing transactions are serial, so the figure does not change in between.
                self.shared.stored.store(state.stored_bytes, Ordering::Relaxed);
                Ok(dropped.batches)
            })
        })?;
        Ok(dropped)
    }

    /// Writes the collected appends, then stops the writer. Later appends are refused.
    pub fn close(&self) {
        locked(&self.shared.gathering).closed = true;
        self.shared.wake.notify_all();
        let writer = locked(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's writer panicked");
        }
    }

    fn with_database<T>(&self, run: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, JournalError> {
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(database) => guarded(|| run(database)).map_err(|failure| failure.of(&self.shared.path)),
            None => Err(JournalError::Reopening),
        }
    }
}

impl Sink for Journal {
    async fn append(&self, _key: u64, record: Vec<u8>) -> Result<(), SinkError> {
        let done = {
            if self.shared.gone.load(Ordering::Relaxed) {
                return Err(SinkError::Unavailable("the journal's file is gone".to_owned()));
            }
            let mut gathering = locked(&self.shared.gathering);
            if gathering.closed {
                return Err(SinkError::Closed);
            }
            let waiting = HEADER_BYTES + gathering.batch.len() + 4 + record.len();
            if self.shared.is_full(waiting as u64) || waiting > self.shared.config.queue_bytes {
                return Err(SinkError::QueueFull);
            }
            gathering.batch.extend_from_slice(&(record.len() as u32).to_le_bytes());
            gathering.batch.extend_from_slice(&record);
            gathering.count += 1;
            let (sender, done) = oneshot::channel();
            gathering.waiters.push(sender);
            if gathering.count == 1 {
                self.shared.wake.notify_one();
            }
            done
        };
        // If the writer dies during an append, the outcome is unknown.
        done.await.unwrap_or_else(|_| Err(SinkError::Unavailable("the journal's writer is gone".to_owned())))
    }

    fn ready(&self) -> Result<(), SinkError> {
        match locked(&self.shared.failing).as_ref() {
            Some(error) => Err(SinkError::Unavailable(error.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
