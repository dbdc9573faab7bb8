//! The fold: records of one window → accumulators → absolute rows. A function of the log; no clock, no I/O.
//!
//! The cost of a page view is waiting for memory, so the data that it touches is stored together. A project's day is looked up once, and
//! contains its own small table of breakdowns and its last hour. A page is found by the hash of its whole key, without a lookup of its
//! path. Text that was seen before is only hashed and compared.

mod capped;
mod cells;
mod freeze;
mod noted;
mod robots;
mod texts;

use capped::{CappedCounts, Name, Overflow};
use cells::Cells;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use noted::Noted;
use robots::{RobotKey, RobotPageKey};
use schemas::caps::{MORE_PATH, PAGES_PER_DAY, VALUES_PER_DAY};
use schemas::classes::{BotClass, Browser, ClassName, Device, Dimension, Source, System};
use schemas::proto::{Cause, Fact};
use schemas::record::{self, DroppedFactsRef, PageViewRef, Record, RejectionTallyRef};
use schemas::referrer::NAMED;
use schemas::rejection::reason_of_dropped_fact;
use schemas::tables::{
    BreakdownWindowRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, ReportedMissingDailyRow,
    RobotDailyRow, RobotPageDailyRow, RulesDailyRow, SiteHourlyRow,
};
use schemas::{Day, Hour, RejectionReason, StreamId, VisitorSketch};
use std::hash::BuildHasher;
use texts::{Text, Texts};

use crate::window::WindowStart;

/// Version of the fold's rules. Raise it if the same log would give other rows; see delivery in ARCHITECTURE.md.
pub const FOLD_VERSION: u32 = 6;

/// Status of a missing page. Arrivals there are counted by page and referrer, and arrivals at other pages by referrer alone. If one sum
/// contained the rows of another, their difference could reveal a value below the threshold.
const NOT_FOUND: u16 = 404;

/// Limits of a window on data that clients can forge. They are part of the fold's rules: only tests use others than the default. All
/// sources together share these limits, since a client can forge its source, too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Referrers of a missing page (by source), and hosts of refused beacons of one reason, that have their own row.
    pub names: usize,
    /// Pages (path, status and source) of a project and day; the same limit applies to robots (path, group and source).
    pub pages: u32,
    /// Values (by source) of one dimension of a project and day; also names of its robots.
    pub values: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { names: NAMED, pages: PAGES_PER_DAY, values: VALUES_PER_DAY }
    }
}

/// A project on one day.
struct ProjectDayKey {
    project: Text,
    day: Day,
}

#[derive(Default)]
struct ProjectDay {
    /// Position of the hour of the last view among the sites: views arrive nearly in order of time.
    last_hour: Option<(Hour, Source, u32)>,
    /// Found by value, dimension and source.
    counts: HashTable<Count>,
    /// By source: whether one of its values has changed since the last freeze.
    dirty: [bool; Source::ALL.len()],
    /// Number of values of each dimension, without the empty ones.
    values: [u32; Dimension::ALL.len()],
    /// Pages of the day, except those in the overflow.
    pages: u32,
    /// Robots (kind and name) of the day, except those without a name.
    robots: u32,
    /// Pages (path and group of robots) that robots opened, except those in the overflow.
    robot_pages: u32,
    /// Pages that were reported as missing, except those in the overflow.
    reported: u32,
    /// Position of the version of the rules that classified the last view.
    last_rules: Option<(u32, u32)>,
}

impl ProjectDay {
    /// The count of a value from one source, created if it is new; if the dimension is at its limit, the count of the empty value.
    #[inline]
    fn count(
        &mut self,
        hasher: &FixedState,
        (dimension, source): (Dimension, Source),
        value: Text,
        most: u32,
    ) -> &mut Count {
        let hash = |value: Text, dimension: Dimension, source: Source| {
            hasher.hash_one(value.number() << 16 | (source as u64) << 8 | dimension as u64)
        };
        let is =
            |count: &Count, value: Text| count.value == value && count.dimension == dimension && count.source == source;
        let values = &mut self.values[dimension as usize];
        let known =
            |counts: &HashTable<Count>| counts.find(hash(value, dimension, source), |count| is(count, value)).is_some();
        let value = if *values < most || known(&self.counts) { value } else { Text::EMPTY };
        let of = |count: &Count| hash(count.value, count.dimension, count.source);
        let new = || {
            *values += u32::from(value != Text::EMPTY);
            Count { value, dimension, source, views: 0 }
        };
        self.counts.entry(hash(value, dimension, source), |count| is(count, value), of).or_insert_with(new).into_mut()
    }
}

/// Views by people of one value of one dimension.
struct Count {
    value: Text,
    dimension: Dimension,
    source: Source,
    views: u64,
}

/// A project's hour, by source. `project_day` is the position of its day.
struct SiteKey {
    project_day: u32,
    hour: Hour,
    source: Source,
}

#[derive(Default)]
struct SiteCell {
    views: u64,
    visits: u64,
    sketch: VisitorSketch,
}

struct PageKey {
    project_day: u32,
    path: Text,
    status: u16,
    source: Source,
}

/// A missing page, of all sources.
struct MissingPageKey {
    project_day: u32,
    path: Text,
}

#[derive(Default)]
struct PageCell {
    views: u64,
    sketch: VisitorSketch,
}

struct RejectionKey {
    project: Text,
    day: Day,
    reason: Reason,
}

/// The reason in a row of `rejection_daily`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reason {
    /// A reason for refused beacons.
    Refused(RejectionReason),
    /// A reason for views counted without a fact, which are not refused beacons.
    Dropped(Fact, Cause),
}

impl Reason {
    fn name(self) -> String {
        match self {
            Reason::Refused(reason) => reason.name().to_owned(),
            Reason::Dropped(fact, cause) => reason_of_dropped_fact(fact, cause),
        }
    }
}

/// A tally that has not been checked for a repeat.
struct Tally<'a> {
    project: &'a str,
    day: Day,
    reason: Reason,
    count: u64,
    host: &'a str,
}

/// The names of the classes, indexed by number.
struct ClassTexts {
    devices: [Text; 7],
    browsers: [Text; 10],
    systems: [Text; 11],
}

impl ClassTexts {
    fn new(texts: &mut Texts) -> Self {
        fn names<C: ClassName + TryFrom<i32>, const N: usize>(texts: &mut Texts) -> [Text; N] {
            std::array::from_fn(|number| match C::try_from(number as i32) {
                Ok(class) => texts.intern(class.class_name()),
                Err(_) => unreachable!("classes are numbered without gaps"),
            })
        }
        ClassTexts {
            devices: names::<Device, 7>(texts),
            browsers: names::<Browser, 10>(texts),
            systems: names::<System, 11>(texts),
        }
    }
}

/// Counts of the window's records, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Records read.
    pub seen: u64,
    /// Page views counted.
    pub accepted: u64,
    /// Page views and tallies with a repeated id.
    pub duplicate: u64,
    /// Tallies of refused beacons.
    pub tallies: u64,
    /// Refused beacons in them.
    pub rejected_beacons: u64,
    /// Records that do not decode.
    pub undecodable: u64,
    /// Offsets whose records are lost: the log marks them as a hole.
    pub lost: u64,
}

/// Absolute rows: everything that has changed since the last freeze, as of `next_offset`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// `site_hourly`.
    pub site: Vec<SiteHourlyRow>,
    /// `page_daily`.
    pub page: Vec<PageDailyRow>,
    /// `breakdown_window`.
    pub breakdown: Vec<BreakdownWindowRow>,
    /// `robot_daily`.
    pub robot: Vec<RobotDailyRow>,
    /// `robot_page_daily`.
    pub robot_page: Vec<RobotPageDailyRow>,
    /// `not_found_daily`.
    pub not_found: Vec<NotFoundDailyRow>,
    /// `rules_daily`.
    pub rules: Vec<RulesDailyRow>,
    /// `reported_missing_daily`.
    pub reported_missing: Vec<ReportedMissingDailyRow>,
    /// `rejection_daily`.
    pub rejection: Vec<RejectionDailyRow>,
    /// `ledger`, written last.
    pub ledger: Option<LedgerRow>,
}

impl Rows {
    /// Rows in all tables.
    pub fn len(&self) -> usize {
        self.site.len()
            + self.page.len()
            + self.breakdown.len()
            + self.robot.len()
            + self.robot_page.len()
            + self.not_found.len()
            + self.rules.len()
            + self.reported_missing.len()
            + self.rejection.len()
            + usize::from(self.ledger.is_some())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The accumulators of one open window. They are empty at the window's start, and never read back from ClickHouse.
pub struct WindowState {
    stream: StreamId,
    start: WindowStart,
    next_offset: u64,
    outcomes: Outcomes,
    frozen_at: u64,
    hasher: FixedState,
    texts: Texts,
    classes: ClassTexts,
    limits: Limits,
    referrers: Overflow,
    hosts: Overflow,
    /// Hashes of project and event id.
    ids: HashTable<u64>,
    project_days: Cells<ProjectDayKey, ProjectDay>,
    /// Number of changed breakdowns, each of a project, day and source.
    dirty_breakdowns: usize,
    sites: Cells<SiteKey, SiteCell>,
    pages: Cells<PageKey, PageCell>,
    not_found: Cells<MissingPageKey, CappedCounts>,
    rejections: Cells<RejectionKey, CappedCounts>,
    /// Number of changed referrers and hosts in these two.
    dirty_capped: usize,
    robots: Cells<RobotKey, u64>,
    robot_pages: Cells<RobotPageKey, u64>,
    noted: Noted,
}

impl WindowState {
    /// An empty window.
    pub fn new(stream: StreamId, start: WindowStart) -> Self {
        Self::with_limits(stream, start, Limits::default())
    }

    /// An empty window with the given limits.
    pub fn with_limits(stream: StreamId, start: WindowStart, limits: Limits) -> Self {
        let mut texts = Texts::default();
        WindowState {
            stream,
            start,
            next_offset: start.offset,
            outcomes: Outcomes::default(),
            frozen_at: start.offset,
            hasher: FixedState::default(),
            classes: ClassTexts::new(&mut texts),
            limits,
            referrers: Overflow::of_referrers(&mut texts),
            hosts: Overflow::of_hosts(),
            texts,
            ids: HashTable::new(),
            project_days: Cells::default(),
            dirty_breakdowns: 0,
            sites: Cells::default(),
            pages: Cells::default(),
            not_found: Cells::default(),
            rejections: Cells::default(),
            dirty_capped: 0,
            robots: Cells::default(),
            robot_pages: Cells::default(),
            noted: Noted::default(),
        }
    }

    /// The start of the window.
    pub fn start(&self) -> WindowStart {
        self.start
    }

    /// Offset after the last record folded.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Counts of the records by outcome.
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes
    }

    /// Rows of the next freeze, without the ledger's.
    pub fn dirty(&self) -> usize {
        let of_robots = self.robots.dirty() + self.robot_pages.dirty();
        self.sites.dirty()
            + self.pages.dirty()
            + self.dirty_breakdowns
            + self.dirty_capped
            + of_robots
            + self.noted.dirty()
    }

    /// Whether records were folded since the last freeze.
    pub fn is_dirty(&self) -> bool {
        self.frozen_at < self.next_offset
    }

    /// Number of accumulators: hours, pages, values of breakdowns, referrers of pages not found, refusals, robots and their pages, versions of
    /// the rules, reported pages.
    pub fn cells(&self) -> usize {
        let counts: usize = self.project_days.values().map(|day| day.counts.len()).sum();
        let of_robots = self.robots.len() + self.robot_pages.len() + self.noted.len();
        self.sites.len() + self.pages.len() + counts + of_robots + self.capped().map(CappedCounts::len).sum::<usize>()
    }

    /// Bytes on the heap, by capacity.
    pub fn memory_bytes(&self) -> usize {
        let counts: usize = self.project_days.values().map(|day| day.counts.allocation_size()).sum();
        let sketches = self.sites.values().map(|site| &site.sketch).chain(self.pages.values().map(|page| &page.sketch));
        let in_sketches: usize = sketches.map(|sketch| sketch.memory_bytes() - size_of::<VisitorSketch>()).sum();
        let tables = self.project_days.memory_bytes() + self.sites.memory_bytes() + self.pages.memory_bytes();
        let others = self.texts.memory_bytes() + self.ids.allocation_size() + self.rejections.memory_bytes();
        let in_capped: usize = self.capped().map(CappedCounts::memory_bytes).sum();
        let of_robots = self.robots.memory_bytes() + self.robot_pages.memory_bytes() + self.noted.memory_bytes();
        of_robots + counts + in_sketches + tables + others + self.not_found.memory_bytes() + in_capped
    }

    fn capped(&self) -> impl Iterator<Item = &CappedCounts> {
        self.not_found.values().chain(self.rejections.values())
    }

    /// Folds the next record. Offsets must follow one another without gaps. A record that does not decode is counted and skipped; its error
    /// is returned for logging.
    pub fn apply(&mut self, offset: u64, bytes: &[u8]) -> Result<(), record::DecodeError> {
        debug_assert_eq!(offset, self.next_offset, "records are folded in order, without gaps");
        self.next_offset = offset + 1;
        self.outcomes.seen += 1;
        match record::decode(bytes) {
            Ok(Record::PageView(view)) => self.page_view(&view),
            Ok(Record::Rejections(tally)) => self.rejections(&tally),
            Ok(Record::DroppedFacts(tally)) => self.dropped_facts(&tally),
            Ok(Record::ReportedMissing(tally)) => self.reported_missing(&tally),
            Err(error) => {
                self.outcomes.undecodable += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Skips offsets whose records are lost, up to `next_offset`.
    pub fn pass_hole(&mut self, next_offset: u64) {
        self.outcomes.lost += next_offset.saturating_sub(self.next_offset);
        self.next_offset = self.next_offset.max(next_offset);
    }

    fn page_view(&mut self, view: &PageViewRef<'_>) {
        let slug = self.hasher.hash_one(view.project.as_bytes());
        if view.event_id != 0 {
            // The hash includes the project, so that a page of one project cannot suppress views of another by reusing ids.
            let id = self.hasher.hash_one((slug, view.event_id));
            if self.ids.find(id, |&seen| seen == id).is_some() {
                self.outcomes.duplicate += 1;
                return;
            }
            self.ids.insert_unique(id, id, |&id| id);
        }
        self.outcomes.accepted += 1;
        let project_day = self.project_day(slug, view.project, view.hour.day());
        self.rules(project_day, view.rules);
        // Every hour in which anything was counted has a row, even if only robots came.
        let site = self.site(project_day, view.hour, view.source);
        if view.bot_class != BotClass::Person {
            self.robot(project_day, view.bot_class, view.bot, view.source);
            self.robot_page(project_day, view.bot_class.group(), view.path, view.source);
            return;
        }
        site.views += 1;
        site.visits += u64::from(view.arrival);
        if let Some(coordinate) = view.site_coordinate {
            site.sketch.insert(coordinate);
        }
        let position = self.page(project_day, view.path, view.status, view.source);
        let page = self.pages.change(position);
        page.views += 1;
        if let Some(coordinate) = view.page_coordinate {
            page.sketch.insert(coordinate);
        }
        if view.status == NOT_FOUND {
            self.missing_page(project_day, position, view);
        } else if view.arrival {
            let host = self.texts.intern(view.referrer_host);
            self.count(project_day, view.source, &[(Dimension::Referrer, host)]);
        }
        let values = [
            (Dimension::Country, self.texts.intern(view.country)),
            (Dimension::Device, self.classes.devices[view.device as usize]),
            (Dimension::Browser, self.classes.browsers[view.browser as usize]),
            (Dimension::System, self.classes.systems[view.system as usize]),
            (Dimension::Version, self.texts.intern(view.version)),
            (Dimension::Language, self.texts.intern(view.language)),
        ];
        self.count(project_day, view.source, &values);
    }

    /// Counts a tally in the ledger; as a repeat if its id is known. An id of 0 means none.
    fn is_new_tally(&mut self, project: &str, id: u64) -> bool {
        if id != 0 {
            // Separate from the ids of views: the two are drawn independently.
            let id = self.hasher.hash_one((self.hasher.hash_one(project.as_bytes()), id, "tally"));
            if self.ids.find(id, |&seen| seen == id).is_some() {
                self.outcomes.duplicate += 1;
                return false;
            }
            self.ids.insert_unique(id, id, |&id| id);
        }
        self.outcomes.tallies += 1;
        true
    }

    fn rejections(&mut self, tally: &RejectionTallyRef<'_>) {
        if self.is_new_tally(tally.project, tally.id) {
            self.outcomes.rejected_beacons += tally.count;
            let (day, reason) = (tally.hour.day(), Reason::Refused(tally.reason));
            self.count_tally(&Tally { project: tally.project, day, reason, count: tally.count, host: tally.host });
        }
    }

    fn dropped_facts(&mut self, tally: &DroppedFactsRef<'_>) {
        if self.is_new_tally(tally.project, tally.id) {
            let (day, reason) = (tally.hour.day(), Reason::Dropped(tally.fact, tally.cause));
            self.count_tally(&Tally { project: tally.project, day, reason, count: tally.count, host: "" });
        }
    }

    fn count_tally(&mut self, tally: &Tally<'_>) {
        let key = RejectionKey { project: self.texts.intern(tally.project), day: tally.day, reason: tally.reason };
        let hash = self.hasher.hash_one((key.project, key.day, key.reason));
        let same = |held: &RejectionKey| (held.project, held.day, held.reason) == (key.project, key.day, key.reason);
        let position = self.rejections.find(hash, same).unwrap_or_else(|| self.rejections.begin(hash, key));
        // Tallies contain no source.
        let host = Name { text: self.texts.intern(tally.host), source: Source::Beacon };
        self.dirty_capped += self.rejections.change(position).count(host, tally.count, &self.hosts, self.limits.names);
    }

    /// Position of a project's day.
    #[inline]
    fn project_day(&mut self, slug: u64, project: &str, day: Day) -> u32 {
        let hash = self.hasher.hash_one((slug, day));
        let texts = &self.texts;
        let same = |key: &ProjectDayKey| key.day == day && texts.get(key.project) == project.as_bytes();
        self.project_days.find(hash, same).unwrap_or_else(|| {
            let project = self.texts.intern(project);
            self.project_days.begin(hash, ProjectDayKey { project, day })
        })
    }

    #[inline]
    fn site(&mut self, project_day: u32, hour: Hour, source: Source) -> &mut SiteCell {
        let last_hour = &mut self.project_days.peek(project_day).last_hour;
        let position = match *last_hour {
            Some((last, of, position)) if last == hour && of == source => position,
            _ => {
                let hash = self.hasher.hash_one((project_day, hour, source));
                let same = |key: &SiteKey| key.project_day == project_day && key.hour == hour && key.source == source;
                let found = self.sites.find(hash, same);
                found.unwrap_or_else(|| self.sites.begin(hash, SiteKey { project_day, hour, source }))
            }
        };
        *last_hour = Some((hour, source, position));
        self.sites.change(position)
    }

    /// Counts the referrer of a view of a missing page.
    fn missing_page(&mut self, project_day: u32, page: u32, view: &PageViewRef<'_>) {
        let text = if view.arrival {
            let host = self.texts.intern(view.referrer_host);
            // The host takes one of the dimension's values, though its row is in another table: a count of 0 has no row.
            let day = self.project_days.peek(project_day);
            let of = (Dimension::Referrer, view.source);
            let counted = day.count(&self.hasher, of, host, self.limits.values).value;
            if counted == host { host } else { self.referrers.overflow() }
        } else {
            self.referrers.internal()
        };
        let path = self.pages.key(page).path;
        let hash = self.hasher.hash_one((project_day, path));
        let same = |key: &MissingPageKey| key.project_day == project_day && key.path == path;
        let position = self.not_found.find(hash, same);
        let position = position.unwrap_or_else(|| self.not_found.begin(hash, MissingPageKey { project_day, path }));
        let referrer = Name { text, source: view.source };
        self.dirty_capped += self.not_found.change(position).count(referrer, 1, &self.referrers, self.limits.names);
    }

    /// Position of a page.
    #[inline]
    fn page(&mut self, project_day: u32, path: &str, status: u16, source: Source) -> u32 {
        let hash = self.hasher.hash_one((project_day, status, source, path.as_bytes()));
        let texts = &self.texts;
        let same = |key: &PageKey| {
            (key.project_day, key.status, key.source) == (project_day, status, source)
                && texts.get(key.path) == path.as_bytes()
        };
        self.pages.find(hash, same).unwrap_or_else(|| self.new_page(hash, project_day, path, status, source))
    }

    /// Position of a page that is new in the window; the overflow if the day has as many pages as it may.
    #[cold]
    fn new_page(&mut self, hash: u64, project_day: u32, path: &str, status: u16, source: Source) -> u32 {
        if path != MORE_PATH {
            let pages = &mut self.project_days.peek(project_day).pages;
            if *pages >= self.limits.pages {
                // Its sketch contains coordinates of readers of several paths: one per path for a reader.
                return self.page(project_day, MORE_PATH, if status == NOT_FOUND { NOT_FOUND } else { 200 }, source);
            }
            *pages += 1;
        }
        let path = self.texts.intern(path);
        self.pages.begin(hash, PageKey { project_day, path, status, source })
    }

    /// Counts one view from `source` for each of these values.
    #[inline]
    fn count(&mut self, project_day: u32, source: Source, values: &[(Dimension, Text)]) {
        let day = self.project_days.change(project_day);
        for &(dimension, value) in values {
            let count = day.count(&self.hasher, (dimension, source), value, self.limits.values);
            count.views += 1;
        }
        let dirty = &mut day.dirty[source as usize];
        self.dirty_breakdowns += usize::from(!*dirty);
        *dirty = true;
    }
}

#[cfg(test)]
mod tests;
