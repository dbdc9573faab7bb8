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

impl Shared {
    /// Whether `bytes` more would exceed the bound although nothing can be dropped. Warns at the first refusal.
    fn is_full(&self, bytes: u64) -> bool {
        let Some(capacity) = self.config.capacity_bytes else { return false };
        let full = self.stored.load(Ordering::Relaxed) + bytes > capacity && !self.droppable.load(Ordering::Relaxed);
        if self.full.load(Ordering::Relaxed) != full && self.full.swap(full, Ordering::Relaxed) != full && full {
            tracing::warn!(path = %self.path.display(), capacity_bytes = capacity,
                "the journal is full of records that are not counted yet; beacons are answered 503 until some are. Is \
                 ClickHouse away?");
        }
        full
    }

    fn drops_early(&self) -> bool {
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
struct Dropped {
    batches: usize,
    records: u64,
    bytes: u64,
    /// Offset after the last record dropped.
    below: Option<u64>,
}

/// Drops batches from the oldest on while `may_drop` (given the append's hour, the batch's end, and what was dropped so far)
/// says so, within the transaction of `batches` and `numbers`. `stored` bytes are stored before; the caller puts the rest
/// into [`Shared::stored`].
fn drop_oldest(
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

fn write_batches(shared: &Shared) {
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
            shared.end.send_replace(end);
            *guard = Some(database);
            if locked(&shared.failing).take().is_some() {
                tracing::info!("the journal can be written again");
            }
        }
        Err(error) => tracing::debug!(%error, "the journal cannot be opened again yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Journal {
        Journal::open(path, JournalConfig::default(), || Hour(100)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn acknowledged_records_survive_and_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let journal = open(&path);
        let stream = journal.stream();
        let appends: Vec<_> = (0..500u32)
            .map(|i| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.append(0, i.to_le_bytes().to_vec()).await })
            })
            .collect();
        for append in appends {
            append.await.unwrap().unwrap();
        }
        journal.store_text("commit", "here").unwrap();
        journal.close();
        assert!(matches!(journal.append(0, vec![1]).await, Err(SinkError::Closed)));
        drop(journal);

        let journal = open(&path);
        assert_eq!((journal.stream(), *journal.end().borrow()), (stream, 500));
        assert_eq!(journal.text("commit").unwrap().as_deref(), Some("here"));
        let batches = journal.read(0, usize::MAX).unwrap();
        let mut seen: Vec<u32> = batches
            .iter()
            .flat_map(JournalBatch::records)
            .map(|record| u32::from_le_bytes(record.try_into().unwrap()))
            .collect();
        assert_eq!(batches.last().unwrap().next_offset(), 500);
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        // Reading in the middle starts with the batch that contains the offset.
        let from = batches.last().unwrap().first_offset;
        assert_eq!(journal.read(from, 1).unwrap().first().unwrap().first_offset, from);
        assert!(journal.read(500, 1).unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_journal_refuses_until_it_is_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let config = JournalConfig { capacity_bytes: Some(300), ..JournalConfig::default() };
        let journal = Journal::open(&path, config, || Hour(100)).unwrap();
        let mut stored = 0;
        while journal.append(0, vec![7; 50]).await.is_ok() {
            stored += 1;
            assert!(stored <= 6);
        }
        assert!(matches!(journal.append(0, vec![7; 50]).await, Err(SinkError::QueueFull)));
        let bytes = journal.stored_bytes();
        journal.close();
        drop(journal);
        // The figure outlives the process, and falls as records leave.
        let journal = Journal::open(&path, config, || Hour(100)).unwrap();
        assert_eq!(journal.stored_bytes(), bytes);
        journal.trim(stored, Hour(101)).unwrap();
        assert_eq!(journal.stored_bytes(), 0);
        journal.append(0, vec![7; 50]).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn trimming_keeps_offsets_rising() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let journal = open(&path);
        for _ in 0..3 {
            journal.append(0, vec![7]).await.unwrap();
        }
        assert_eq!(journal.trim(3, Hour(100)).unwrap(), 0, "too young to drop");
        assert_eq!(journal.trim(2, Hour(101)).unwrap(), 2);
        assert_eq!(journal.begin().unwrap(), 2);
        assert_eq!(journal.trim(3, Hour(101)).unwrap(), 1);
        journal.close();
        drop(journal);
        let journal = open(&path);
        assert_eq!(*journal.end().borrow(), 3);
        journal.append(0, vec![8]).await.unwrap();
        assert_eq!(journal.read(0, 100).unwrap()[0].first_offset, 3);
    }

    fn bounded(path: &Path, capacity_bytes: u64) -> Journal {
        let config = JournalConfig { capacity_bytes: Some(capacity_bytes), ..JournalConfig::default() };
        Journal::open(path, config, || Hour(100)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn counted_records_go_early_before_an_append_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let journal = bounded(&dir.path().join("journal.redb"), 1000);
        let mut appended = 0;
        while journal.append(0, vec![7; 50]).await.is_ok() {
            appended += 1;
        }
        assert_eq!(journal.pressure().state, PressureState::Full);
        // The first half is counted: so many appends have space again, though nothing trims.
        let counted = appended / 2;
        journal.set_counted(counted);
        for _ in 0..counted {
            journal.append(0, vec![8; 50]).await.unwrap();
            let pressure = journal.pressure();
            assert!(pressure.state == PressureState::DropsEarly && pressure.stored_bytes <= 1000, "{pressure:?}");
        }
        assert_eq!((journal.begin().unwrap(), journal.pressure().dropped_early), (counted, counted));
        // The next one finds that nothing is left to drop; it was taken, and those after it are refused.
        let _ = journal.append(0, vec![9; 50]).await;
        assert!(matches!(journal.append(0, vec![9; 50]).await, Err(SinkError::QueueFull)));
        assert_eq!((journal.begin().unwrap(), journal.pressure().state), (counted, PressureState::Full));
    }

    /// What the bytes of records are in bytes of the disk, for records one by one (a quiet site) and in large batches.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_file_stays_near_its_bound() {
        use std::os::unix::fs::MetadataExt as _;
        for (at_once, rounds) in [(1, 2_500), (64, 1_500), (4096, 30)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal.redb");
            let capacity = 4 << 20;
            let journal = bounded(&path, capacity);
            let size = || std::fs::metadata(&path).map(|file| (file.len(), file.blocks() * 512)).unwrap();
            let fresh = size();
            let bytes = if at_once == 1 { 4000 } else { 100 };
            for _ in 0..rounds {
                let appends = (0..at_once).map(|_| journal.append(0, vec![7; bytes])).collect();
                assert!(crate::all(appends).await.iter().all(Result::is_ok));
                // All but the last is counted.
                journal.set_counted(*journal.end().borrow() - at_once);
            }
            let (length, blocks) = size();
            println!(
                "{at_once} at once: {} bytes stored of {capacity}; the file has {length} bytes, {blocks} on disk; fresh {fresh:?}",
                journal.stored_bytes()
            );
            let pressure = journal.pressure();
            assert!(pressure.dropped_early > 0 && pressure.stored_bytes <= capacity, "{pressure:?}");
            assert!(blocks <= 3 * capacity, "{at_once} at once: {blocks} bytes on disk");
        }
    }
}
