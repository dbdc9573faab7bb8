//! The local journal: the log of a one-machine service, and later the spill when Kafka is away.
//!
//! An append-only log of record batches in one file of `redb` (a well-kept embedded store; a commit is durable or did
//! not happen). One thread writes: while one batch is being synced the next one gathers, so a thousand waiting readers
//! cost one fsync (group commit). Offsets count records, as Kafka's do.
//!
//! Its size is bounded ([`JournalConfig::capacity_bytes`]). When the bound is reached, the writer drops the oldest records
//! that are counted ([`Journal::set_counted`]), whatever their age, in the transaction that needs their space. Appends are
//! refused only when there are none. "Bytes" are those of the stored batches; the file needs some more (see
//! `the_file_stays_near_its_bound`).
//!
//! A batch is stored under the offset of its first record:
//! `version u8 = 1 | appended hour u32 LE | count u32 LE | count × (length u32 LE | record)`. Only the hour of the
//! append is kept: the log knows no finer time.

mod writer;

use self::writer::{drop_oldest, write_batches};
use crate::sink::{Sink, SinkError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use schemas::{Hour, StreamId};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");

const BATCH_VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
/// redb's page cache. Appends and the reader's tail touch few pages.
const CACHE_BYTES: usize = 8 << 20;

/// While many records arrive at once, the next sync waits this long for more of them: under load a sync costs more than
/// the wait, and one reader alone never waits.
const LINGER: Duration = Duration::from_millis(2);
/// Pause before the file is tried again after an error.
const RETRY: Duration = Duration::from_millis(200);
/// Batches dropped in one transaction.
pub const TRIM_BATCHES: usize = 2_000;
/// Batches that the writer drops in one transaction to make space. Many more than a transaction adds, so that the bound is
/// reached again soon after it was lowered.
const EARLY_BATCHES: usize = 20_000;
/// Records in the last batch from which on the next one lingers.
const BUSY_RECORDS: u32 = 32;

/// How much may wait for the disk.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// Bytes of records that may wait for a sync before appends are refused.
    pub queue_bytes: usize,
    /// Bytes of records that may be stored; none for no bound but the disk's. Beyond it counted records are dropped
    /// early, and without any appends are refused.
    pub capacity_bytes: Option<u64>,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig { queue_bytes: 16 << 20, capacity_bytes: None }
    }
}

/// How near the journal is to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureState {
    /// Records stay as long as they are meant to.
    Normal,
    /// In this hour or the one before, counted records were dropped before their time. Nothing that is not counted is lost.
    DropsEarly,
    /// All records are still needed, so appends are refused.
    Full,
}

/// See [`Journal::pressure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPressure {
    /// How near.
    pub state: PressureState,
    /// Bytes of the stored batches.
    pub stored_bytes: u64,
    /// The bound, where there is one.
    pub capacity_bytes: Option<u64>,
    /// Records dropped before their time since the start.
    pub dropped_early: u64,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Opening failed.
    #[error("cannot open the journal {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: redb::Error,
    },
    /// Reading or writing failed.
    #[error("the journal failed: {0}")]
    Store(#[from] redb::Error),
    /// A stored batch does not read back.
    #[error("the journal's batch at offset {0} is damaged")]
    Damaged(u64),
    /// The file is being opened anew after an error.
    #[error("the journal is being opened anew after an error")]
    Reopening,
    /// No randomness for the stream's id.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The writer thread did not start.
    #[error("cannot start the journal's writer: {0}")]
    Thread(std::io::Error),
}

/// A batch of records as appended together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBatch {
    /// Offset of the first record.
    pub first_offset: u64,
    /// Hour of the append.
    pub appended: Hour,
    bytes: Vec<u8>,
    count: u32,
}

/// Hour of the append and number of records of a stored batch.
fn header(bytes: &[u8]) -> Option<(Hour, u32)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    (header[0] == BATCH_VERSION).then(|| (Hour(number(1)), number(5)))
}

impl JournalBatch {
    fn parse(first_offset: u64, bytes: &[u8]) -> Result<Self, JournalError> {
        let damaged = || JournalError::Damaged(first_offset);
        let (appended, count) = header(bytes).ok_or_else(damaged)?;
        let batch = JournalBatch { first_offset, appended, bytes: bytes[HEADER_BYTES..].to_vec(), count };
        if batch.records().count() != batch.count as usize {
            return Err(damaged());
        }
        Ok(batch)
    }

    /// The encoded records, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
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

/// What gathers while the writer syncs.
#[derive(Default)]
struct Gathering {
    batch: Vec<u8>,
    count: u32,
    waiters: Vec<Waiter>,
    closed: bool,
}

struct Shared {
    path: PathBuf,
    config: JournalConfig,
    /// Empty only while the writer reopens the file after an error.
    database: RwLock<Option<Database>>,
    gathering: Mutex<Gathering>,
    wake: Condvar,
    stream: StreamId,
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
    /// Hour of the last such drop plus one; 0 for never.
    dropped_early_hour: AtomicU64,
    /// Offset after the last durable record.
    end: watch::Sender<u64>,
    /// The present hour, from the service's clock.
    hour: Box<dyn Fn() -> Hour + Send + Sync>,
    failing: Mutex<Option<String>>,
    /// Where waiters are answered, if the journal was opened within a runtime.
    runtime: Option<tokio::runtime::Handle>,
}

/// A journal open for appending and reading. Cloning shares it.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_database(path: &Path) -> Result<Database, JournalError> {
    let open = || -> Result<Database, redb::Error> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(NUMBERS)?;
        transaction.open_table(TEXTS)?;
        transaction.commit()?;
        Ok(database)
    };
    open().map_err(|source| JournalError::Open { path: path.to_owned(), source })
}

fn end_of(database: &Database) -> Result<u64, JournalError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let batches = transaction.open_table(BATCHES).map_err(redb::Error::from)?;
    let last = batches.last().map_err(redb::Error::from)?;
    let end = match last {
        Some((offset, bytes)) => JournalBatch::parse(offset.value(), bytes.value())?.next_offset(),
        None => 0,
    };
    // Trimming may have emptied the table: the end is remembered apart.
    let numbers = transaction.open_table(NUMBERS).map_err(redb::Error::from)?;
    let trimmed = numbers.get("trimmed_below").map_err(redb::Error::from)?.map_or(0, |value| value.value());
    Ok(end.max(trimmed))
}

/// Bytes of all batches. Kept beside them since it is not to be added up at every start; files written before it was kept
/// are added up once.
fn stored_bytes_of(database: &Database) -> Result<u64, JournalError> {
    let run = || -> Result<u64, redb::Error> {
        let transaction = database.begin_read()?;
        if let Some(bytes) = transaction.open_table(NUMBERS)?.get("stored_bytes")? {
            return Ok(bytes.value());
        }
        let batches = transaction.open_table(BATCHES)?;
        let mut bytes = 0;
        for entry in batches.range::<u64>(..)? {
            bytes += entry?.1.value().len() as u64;
        }
        Ok(bytes)
    };
    Ok(run()?)
}

fn stream_of(database: &Database) -> Result<StreamId, JournalError> {
    let run = || -> Result<Option<u64>, redb::Error> {
        let transaction = database.begin_read()?;
        let numbers = transaction.open_table(NUMBERS)?;
        Ok(numbers.get("stream")?.map(|value| value.value()))
    };
    if let Some(stream) = run()? {
        return Ok(StreamId(stream));
    }
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(JournalError::Random)?;
    let stream = u64::from_le_bytes(bytes);
    let store = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(NUMBERS)?.insert("stream", stream)?;
        transaction.commit()?;
        Ok(())
    };
    store()?;
    Ok(StreamId(stream))
}

impl Journal {
    /// Opens or creates the journal's file and starts its writer. `hour` gives the present hour.
    pub fn open(
        path: &Path,
        config: JournalConfig,
        hour: impl Fn() -> Hour + Send + Sync + 'static,
    ) -> Result<Self, JournalError> {
        let database = open_database(path)?;
        let stream = stream_of(&database)?;
        let end = end_of(&database)?;
        let stored = AtomicU64::new(stored_bytes_of(&database)?);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            config,
            database: RwLock::new(Some(database)),
            gathering: Mutex::default(),
            wake: Condvar::new(),
            stream,
            stored,
            counted_below: AtomicU64::new(0),
            droppable: AtomicBool::new(false),
            full: AtomicBool::new(false),
            dropped_early: AtomicU64::new(0),
            dropped_early_hour: AtomicU64::new(0),
            end: watch::Sender::new(end),
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
                        // Whoever waits is refused, and so is everybody after: a silent writer would hang them all.
                        *locked(&shared.failing) = Some("the journal's writer panicked".to_owned());
                        *locked(&shared.gathering) = Gathering { closed: true, ..Gathering::default() };
                    }
                }
            })
            .map_err(JournalError::Thread)?;
        Ok(Journal { shared, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// The id of this journal's incarnation: random, made with the file.
    pub fn stream(&self) -> StreamId {
        self.shared.stream
    }

    /// Offset after the last durable record; changes are seen by receivers.
    pub fn end(&self) -> watch::Receiver<u64> {
        self.shared.end.subscribe()
    }

    /// Bytes of the records that are kept.
    pub fn stored_bytes(&self) -> u64 {
        self.shared.stored.load(Ordering::Relaxed)
    }

    /// Says that all records below `offset` are counted and will not be read again to go on from: the commit that says so
    /// is durable. From now on they may be dropped when space is needed.
    pub fn set_counted(&self, offset: u64) {
        if self.shared.counted_below.fetch_max(offset, Ordering::Relaxed) < offset {
            self.shared.droppable.store(true, Ordering::Relaxed);
        }
    }

    /// Takes back what [`Self::set_counted`] said of records from `offset` on: they are to be counted again, and none is dropped for space.
    pub fn set_needed(&self, offset: u64) {
        self.shared.counted_below.fetch_min(offset, Ordering::Relaxed);
    }

    /// How near the journal is to its bound; for metrics and `/readyz`. Takes no lock.
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

    /// Offset of the oldest record still kept, or the end where none is.
    pub fn begin(&self) -> Result<u64, JournalError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let batches = transaction.open_table(BATCHES)?;
            let first = batches.first()?.map(|(offset, _)| offset.value());
            Ok(first)
        })
        .map(|first| first.unwrap_or(*self.shared.end.borrow()))
    }

    /// Reads batches from the one that contains `offset`, up to `max_bytes` of records (at least one batch). Records
    /// below `offset` in the first batch are the caller's to skip.
    pub fn read(&self, offset: u64, max_bytes: usize) -> Result<Vec<JournalBatch>, JournalError> {
        let raw = self.with_database(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(BATCHES)?;
            let start = table.range(..=offset)?.next_back().transpose()?.map_or(offset, |(first, _)| first.value());
            let mut found = Vec::new();
            let mut bytes = 0;
            for entry in table.range(start..)? {
                let (first, batch) = entry?;
                bytes += batch.value().len();
                found.push((first.value(), batch.value().to_vec()));
                if bytes >= max_bytes {
                    break;
                }
            }
            Ok(found)
        })?;
        let parsed: Result<Vec<_>, _> = raw.iter().map(|(first, bytes)| JournalBatch::parse(*first, bytes)).collect();
        Ok(parsed?.into_iter().filter(|batch| batch.next_offset() > offset).collect())
    }

    /// Stores a small text durably under `name` (the aggregator's commit).
    pub fn store_text(&self, name: &str, text: &str) -> Result<(), JournalError> {
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(TEXTS)?.insert(name, text)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// The text under `name`.
    pub fn text(&self, name: &str) -> Result<Option<String>, JournalError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let texts = transaction.open_table(TEXTS)?;
            Ok(texts.get(name)?.map(|value| value.value().to_owned()))
        })
    }

    /// Drops whole batches that end at or below `offset` and were appended before `before`, at most [`TRIM_BATCHES`] of
    /// them: appends wait meanwhile. Returns how many; call again while it is that many.
    pub fn trim(&self, offset: u64, before: Hour) -> Result<usize, JournalError> {
        // Asked in a reading transaction first: most of the time there is nothing to drop, and a write would cost a sync.
        let any = self.with_database(|database| {
            let transaction = database.begin_read()?;
            let batches = transaction.open_table(BATCHES)?;
            let first = batches.first()?;
            Ok(first.is_some_and(|(first, bytes)| {
                header(bytes.value())
                    .is_some_and(|(appended, count)| first.value() + u64::from(count) <= offset && appended < before)
            }))
        })?;
        if !any {
            return Ok(0);
        }
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            let dropped = {
                let mut batches = transaction.open_table(BATCHES)?;
                let mut numbers = transaction.open_table(NUMBERS)?;
                // Writing transactions take turns, so nobody changes the figure in between.
                let stored = self.shared.stored.load(Ordering::Relaxed);
                let dropped = drop_oldest(&mut batches, &mut numbers, stored, |appended, end, dropped| {
                    end <= offset && appended < before && dropped.batches < TRIM_BATCHES
                })?;
                self.shared.stored.store(stored.saturating_sub(dropped.bytes), Ordering::Relaxed);
                dropped
            };
            transaction.commit()?;
            Ok(dropped.batches)
        })
    }

    /// Writes what has gathered, then stops the writer. Later appends are refused.
    pub fn close(&self) {
        locked(&self.shared.gathering).closed = true;
        self.shared.wake.notify_all();
        let writer = locked(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's writer panicked");
        }
    }

    fn with_database<T>(&self, run: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, JournalError> {
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref() {
            Some(database) => run(database).map_err(JournalError::Store),
            None => Err(JournalError::Reopening),
        }
    }
}

impl Sink for Journal {
    async fn append(&self, _key: u64, record: Vec<u8>) -> Result<(), SinkError> {
        let done = {
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
        // A writer that died in the middle of it leaves the outcome unknown.
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
