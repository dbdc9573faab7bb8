//! The log of an import: views become records, records are folded into windows, and ended windows are written.

use aggregate::fold::{FOLD_VERSION, Rows, WindowState};
use aggregate::sink::RowSink;
use aggregate::store::SummaryStore;
use aggregate::window::{WindowPolicy, WindowStart};
use anyhow::Context;
use ingest::access_log::view::LogView;
use schemas::classes::BotClass;
use schemas::tables::{ImportMonthRow, LedgerRow};
use schemas::{Hour, Month, ProjectSlug, StreamId};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Bits of a view's id that are the number of its line; the others are the number of its file in the import.
const LINE_BITS: u32 = 40;

/// Views of one project in one month: of people, and of robots.
#[derive(Clone, Copy, Default)]
struct Counts {
    views: u64,
    robots: u64,
}

/// An import's log. It is used outside of async code, and waits for its writes.
pub struct ImportLog {
    stream: StreamId,
    policy: WindowPolicy,
    /// Hour of the import: the log has no append times.
    appended: Hour,
    window: WindowState,
    /// Bytes of the records of the window.
    bytes: u64,
    store: SummaryStore,
    months: HashMap<Month, HashMap<ProjectSlug, Counts>>,
    /// Time spent on writing rows.
    writing: Duration,
}

impl ImportLog {
    /// An empty log of `stream`, whose rows go to `store`.
    pub fn new(stream: StreamId, policy: WindowPolicy, appended: Hour, store: SummaryStore) -> Self {
        let window = WindowState::new(stream, WindowStart { offset: 0, appended_hour: appended.0 });
        ImportLog { stream, policy, appended, window, bytes: 0, store, months: HashMap::new(), writing: Duration::ZERO }
    }

    /// Adds the view of a line: the `line`th of the `file`th file, from 1 and 0.
    ///
    /// # Errors
    /// Rows of a window that ended cannot be written.
    pub fn append(&mut self, view: LogView, file: usize, line: u64) -> anyhow::Result<()> {
        self.count(&view);
        let record = view.into_record((file as u64) << LINE_BITS | line);
        let offset = self.window.next_offset();
        if self.policy.starts_new_window(self.window.start(), self.bytes, offset, self.appended) {
            self.end_window()?;
        }
        self.bytes += record.len() as u64;
        self.window.apply(offset, &record).context("a view does not decode as a record")
    }

    fn count(&mut self, view: &LogView) {
        let projects = self.months.entry(view.hour.month()).or_default();
        // Cloned once a project and month.
        let counts = match projects.get_mut(&view.page.project) {
            Some(counts) => counts,
            None => projects.entry(view.page.project.clone()).or_default(),
        };
        let is_person = view.classes.bot_class == BotClass::Person;
        *(if is_person { &mut counts.views } else { &mut counts.robots }) += 1;
    }

    /// Writes the rows of the window, and starts the next one.
    fn end_window(&mut self) -> anyhow::Result<()> {
        let rows = self.window.freeze();
        let start = WindowStart { offset: self.window.next_offset(), appended_hour: self.appended.0 };
        (self.window, self.bytes) = (WindowState::new(self.stream, start), 0);
        self.write(&rows)
    }

    fn write(&mut self, rows: &Rows) -> anyhow::Result<()> {
        let started = Instant::now();
        let written = Handle::current().block_on(self.store.insert(rows));
        self.writing += started.elapsed();
        written.context("cannot write the import's rows")
    }

    /// Ends the log. Returns what it has of each project's month, and the time that was spent on writing rows. `has_visitors` says which
    /// months have visitors.
    ///
    /// # Errors
    /// The last rows cannot be written.
    pub fn end(
        mut self,
        has_visitors: impl Fn(&ProjectSlug, Month) -> bool,
    ) -> anyhow::Result<(Vec<ImportMonthRow>, Duration)> {
        if self.window.next_offset() > self.window.start().offset {
            self.end_window()?;
        }
        // An empty window at the end: a close counts the windows before the last one, and no record will follow.
        let end = self.window.next_offset();
        let last = LedgerRow {
            stream: self.stream.0,
            window_start: end,
            next_offset: end,
            appended: self.appended.unix_seconds(),
            seen: 0,
            accepted: 0,
            duplicate: 0,
            tallies: 0,
            rejected_beacons: 0,
            undecodable: 0,
            lost: 0,
            fold_version: FOLD_VERSION,
        };
        self.write(&Rows { ledger: Some(last), ..Rows::default() })?;
        let months: BTreeMap<Month, HashMap<ProjectSlug, Counts>> = self.months.into_iter().collect();
        let rows = months.into_iter().flat_map(|(month, projects)| {
            let (has_visitors, first_day) = (&has_visitors, month.first_hour().day().0);
            projects.into_iter().map(move |(project, Counts { views, robots })| ImportMonthRow {
                stream: self.stream.0,
                has_visitors: u8::from(has_visitors(&project, month)),
                project: project.to_string(),
                month: first_day,
                views,
                robots,
            })
        });
        Ok((rows.collect(), self.writing))
    }
}
