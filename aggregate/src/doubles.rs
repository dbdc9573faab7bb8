//! A log and a sink in memory, for tests of the loop with a paused clock.

use crate::commit::Commit;
use crate::fold::Rows;
use crate::sink::{LedgerEnd, RowSink};
use crate::source::{RecordBatch, Source, SourceError};
use crate::window::WindowStart;
use schemas::record::{self, RecordFormat};
use schemas::{Coordinate, Hour, StreamId, proto};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::CallError;
use tokio::sync::watch;
use tokio::time::Instant;

/// What log and sink saw, with the time since the start of the test.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LoopEvent {
    /// An insert of rows up to this offset started.
    Attempt(u64),
    /// Rows of this window, up to this offset, are stored.
    Stored { window: u64, next_offset: u64 },
    /// The log has this commit.
    Committed(Commit),
}

/// The order of events.
#[derive(Clone)]
pub(crate) struct Events {
    start: Instant,
    all: Arc<Mutex<Vec<(Duration, LoopEvent)>>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Events { start: Instant::now(), all: Arc::default() }
    }

    /// Time since the start of the test.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn push(&self, event: LoopEvent) {
        self.all.lock().unwrap().push((self.start.elapsed(), event));
    }

    pub(crate) fn all(&self) -> Vec<(Duration, LoopEvent)> {
        self.all.lock().unwrap().clone()
    }

    /// Times and offsets of all attempts.
    pub(crate) fn attempts(&self) -> Vec<(Duration, u64)> {
        let attempts = |(at, event)| if let LoopEvent::Attempt(next) = event { Some((at, next)) } else { None };
        self.all().into_iter().filter_map(attempts).collect()
    }

    /// Times, windows and offsets of all stored rows.
    pub(crate) fn stored(&self) -> Vec<(Duration, (u64, u64))> {
        let stored = |(at, event)| match event {
            LoopEvent::Stored { window, next_offset } => Some((at, (window, next_offset))),
            _ => None,
        };
        self.all().into_iter().filter_map(stored).collect()
    }

    /// All commits after the one at the start.
    pub(crate) fn commits(&self) -> Vec<(Duration, Commit)> {
        let commits = |(at, event)| if let LoopEvent::Committed(commit) = event { Some((at, commit)) } else { None };
        self.all().into_iter().filter_map(commits).skip(1).collect()
    }
}

/// An encoded view of `path`.
pub(crate) fn view(path: &str) -> Vec<u8> {
    let coordinate = Coordinate::from_hash(7 << 50 | 1 << 20).packed();
    let view = proto::PageView {
        project: "docs".to_owned(),
        hour: 500_000,
        path: path.to_owned(),
        status: 200,
        device: 1,
        browser: 1,
        system: 1,
        site_coordinate: coordinate,
        page_coordinate: coordinate,
        ..proto::PageView::default()
    };
    record::encode_page_view(view, RecordFormat::V4)
}

/// One record or hole of the log.
#[derive(Clone)]
pub(crate) enum Entry {
    Record(Hour, Vec<u8>),
    Hole(u64),
}

/// A log in memory. A clone reads the same log as another process would.
#[derive(Clone)]
pub(crate) struct TestLog {
    entries: Arc<Mutex<BTreeMap<u64, Entry>>>,
    end: watch::Sender<u64>,
    pub(crate) commit: Arc<Mutex<Option<Commit>>>,
    pub(crate) log_start: u64,
    pub(crate) holes: Vec<(u64, u64)>,
    pub(crate) events: Events,
    seen_end: Option<u64>,
    /// Whether the group still has this process as the partition's owner. Others cannot commit.
    pub(crate) is_owner: Arc<Mutex<bool>>,
    /// The next reads fail like this.
    pub(crate) failures: Arc<Mutex<Vec<SourceError>>>,
}

impl TestLog {
    pub(crate) const STREAM: StreamId = StreamId(1);

    pub(crate) fn new(events: &Events) -> Self {
        TestLog {
            entries: Arc::default(),
            end: watch::Sender::new(0),
            commit: Arc::default(),
            log_start: 0,
            holes: Vec::new(),
            events: events.clone(),
            seen_end: None,
            is_owner: Arc::new(Mutex::new(true)),
            failures: Arc::default(),
        }
    }

    /// The same log for a process that becomes the owner after this one.
    pub(crate) fn successor(&self) -> Self {
        *self.is_owner.lock().unwrap() = false;
        TestLog { is_owner: Arc::new(Mutex::new(true)), seen_end: None, ..self.clone() }
    }

    /// Appends views of `paths` in one hour.
    pub(crate) fn append(&self, hour: u32, paths: impl IntoIterator<Item = String>) {
        for path in paths {
            self.push(Entry::Record(Hour(hour), view(&path)), 1);
        }
    }

    /// Appends a hole.
    pub(crate) fn append_hole(&self, lost: u64) {
        self.push(Entry::Hole(lost), lost);
    }

    fn push(&self, entry: Entry, offsets: u64) {
        self.entries.lock().unwrap().insert(*self.end.borrow(), entry);
        self.end.send_modify(|end| *end += offsets);
    }

    fn batches(&self, from: u64) -> Vec<RecordBatch> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        for (&offset, entry) in self.entries.lock().unwrap().range(from..) {
            match entry {
                Entry::Hole(lost) => batches.push(RecordBatch::hole(offset, Hour(0), *lost)),
                Entry::Record(hour, bytes) => {
                    let fits = |batch: &&mut RecordBatch| batch.lost() == 0 && batch.appended() == *hour;
                    match batches.last_mut().filter(fits) {
                        Some(batch) => batch.push(bytes),
                        None => {
                            let mut batch = RecordBatch::new(offset, *hour);
                            batch.push(bytes);
                            batches.push(batch);
                        }
                    }
                }
            }
        }
        batches
    }
}

impl Source for TestLog {
    fn stream(&self) -> StreamId {
        Self::STREAM
    }

    async fn log_start(&mut self) -> Result<u64, SourceError> {
        Ok(self.log_start)
    }

    fn holes(&self) -> &[(u64, u64)] {
        &self.holes
    }

    async fn log_end(&mut self) -> Result<u64, SourceError> {
        Ok(*self.end.borrow())
    }

    fn seen_end(&self) -> Option<u64> {
        self.seen_end
    }

    async fn committed(&mut self) -> Result<Option<Commit>, SourceError> {
        Ok(*self.commit.lock().unwrap())
    }

    async fn rewind(&mut self, _: u64) -> Result<(), SourceError> {
        Ok(())
    }

    async fn read(&mut self, offset: u64, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        if let Some(error) = self.failures.lock().unwrap().pop() {
            return Err(error);
        }
        let mut end = self.end.subscribe();
        let _ = tokio::time::timeout(wait, end.wait_for(|&end| end > offset)).await;
        let batches = self.batches(offset);
        self.seen_end = Some(*end.borrow());
        Ok(batches)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), SourceError> {
        if !*self.is_owner.lock().unwrap() {
            let reason = "another member has the partition".to_owned();
            return Err(SourceError { action: "commit", reason, temporary: true });
        }
        *self.commit.lock().unwrap() = Some(*commit);
        self.events.push(LoopEvent::Committed(*commit));
        Ok(())
    }
}

/// How the sink treats inserts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Rows are stored after this time.
    After(Duration),
    /// Rows are refused.
    Refuse,
    /// No answer until this changes.
    Hang,
}

/// Pages by path and window: version and views.
type StoredPages = BTreeMap<(String, u64), (u64, u64)>;

/// A sink in memory. Clones share it.
#[derive(Clone)]
pub(crate) struct TestSink {
    pub(crate) answer: watch::Sender<Answer>,
    pub(crate) events: Events,
    rows: Arc<Mutex<StoredPages>>,
    pub(crate) ledger: Arc<Mutex<BTreeMap<u64, LedgerEnd>>>,
    pub(crate) lost: Arc<Mutex<Vec<Range<u64>>>>,
    pub(crate) removed_from: Arc<Mutex<Vec<u64>>>,
}

impl TestSink {
    pub(crate) fn new(events: &Events) -> Self {
        TestSink {
            answer: watch::Sender::new(Answer::After(Duration::ZERO)),
            events: events.clone(),
            rows: Arc::default(),
            ledger: Arc::default(),
            lost: Arc::default(),
            removed_from: Arc::default(),
        }
    }

    /// The same store with its own connection.
    pub(crate) fn other_connection(&self) -> Self {
        TestSink { answer: watch::Sender::new(Answer::After(Duration::ZERO)), ..self.clone() }
    }

    /// Views of all pages, as a query reads them: for each key, the row with the highest version.
    pub(crate) fn views(&self) -> u64 {
        self.rows.lock().unwrap().values().map(|(_, views)| views).sum()
    }

    fn store(&self, rows: &Rows) {
        let mut stored = self.rows.lock().unwrap();
        for page in &rows.page {
            let newest = stored.entry((page.path.clone(), page.window_start)).or_default();
            if page.next_offset >= newest.0 {
                *newest = (page.next_offset, page.views);
            }
        }
        let Some(ledger) = &rows.ledger else { return };
        let (window, next_offset) = (ledger.window_start, ledger.next_offset);
        let mut windows = self.ledger.lock().unwrap();
        if windows.get(&window).is_none_or(|newest| newest.next_offset <= next_offset) {
            let start = WindowStart { offset: window, appended_hour: ledger.appended / 3600 };
            windows.insert(window, LedgerEnd { window: start, next_offset, fold_version: ledger.fold_version });
        }
        self.events.push(LoopEvent::Stored { window, next_offset });
    }
}

impl RowSink for TestSink {
    async fn insert(&self, rows: &Rows) -> Result<(), CallError> {
        self.events.push(LoopEvent::Attempt(rows.ledger.as_ref().map_or(0, |ledger| ledger.next_offset)));
        let mut answers = self.answer.subscribe();
        let answer = *answers.wait_for(|&answer| answer != Answer::Hang).await.expect("the sink lives");
        match answer {
            Answer::After(latency) => {
                tokio::time::sleep(latency).await;
                self.store(rows);
                Ok(())
            }
            _ => Err(CallError::Timeout { action: "inserting rows".into(), timeout: Duration::ZERO }),
        }
    }

    async fn ledger_end(&self, _: StreamId) -> Result<Option<LedgerEnd>, CallError> {
        Ok(self.ledger.lock().unwrap().values().next_back().copied())
    }

    async fn counted_in_window(&self, _: StreamId, window: u64) -> Result<u64, CallError> {
        Ok(self.ledger.lock().unwrap().get(&window).map_or(0, |end| end.next_offset))
    }

    async fn record_loss(&self, _: StreamId, lost: Range<u64>, _: Hour) -> Result<(), CallError> {
        self.lost.lock().unwrap().push(lost);
        Ok(())
    }

    async fn remove_from(&self, _: StreamId, offset: u64) -> Result<(), CallError> {
        self.removed_from.lock().unwrap().push(offset);
        Ok(())
    }
}
